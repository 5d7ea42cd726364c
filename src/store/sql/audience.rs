//! The stored audience: see [`crate::store::audience`].

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::RawValue;

use super::reports::cut;
use super::{SqlStore, json_texts, parsed, retrying, to_json};
use crate::domain::address::SortKey;
use crate::domain::contact::{Contact, ContactStatus, DATA_DAMAGED, List, Suppression, SuppressionReason};
use crate::domain::id::ListId;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::store::Result;
use crate::store::audience::Audience;
use crate::store::reports::Slice;

#[derive(sqlx::FromRow)]
struct ContactRow {
    sort_key: String,
    email: String,
    name: Option<String>,
    data: Option<String>,
    status: String,
    subscribed_at: i64,
}

impl ContactRow {
    /// One damaged row must not hide the others of a page.
    fn into_contact(self) -> Contact {
        let data = match self.data {
            None => Some(object("{}")),
            Some(text) => serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
                .is_ok()
                .then(|| object(&text)),
        };
        Contact {
            email: self.email,
            name: self.name,
            damage: data.is_none().then_some(DATA_DAMAGED),
            data: data.unwrap_or_else(|| object("{}")),
            status: if self.status == "subscribed" {
                ContactStatus::Subscribed
            } else {
                ContactStatus::Unsubscribed
            },
            subscribed_at: Timestamp(self.subscribed_at),
        }
    }
}

/// A JSON text that was read just now.
fn object(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("the text is valid JSON")
}

#[derive(sqlx::FromRow)]
struct ListRow {
    id: String,
    name: String,
    contacts: i64,
    created_at: i64,
}

impl ListRow {
    fn into_list(self) -> Result<List> {
        Ok(List {
            id: parsed("lists.id", &self.id)?,
            name: self.name,
            contacts: self.contacts,
            created_at: Timestamp(self.created_at),
        })
    }
}

#[derive(sqlx::FromRow)]
struct SuppressionRow {
    address: String,
    reason: String,
    source: String,
    created_at: i64,
}

impl From<SuppressionRow> for Suppression {
    fn from(row: SuppressionRow) -> Self {
        Suppression {
            email: row.address,
            reason: row.reason,
            source: row.source,
            created_at: Timestamp(row.created_at),
        }
    }
}

#[derive(Serialize)]
struct ContactLine {
    k: String,
    e: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<String>,
}

#[async_trait]
impl Audience for SqlStore {
    async fn create_list(&self, id: &ListId, name: &str, now: Timestamp) -> Result<()> {
        sqlx::query("-- create_list\n INSERT INTO lists (id, name, created_at) VALUES ($1, $2, $3)")
            .bind(id.as_str())
            .bind(name)
            .bind(now.0)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn lists(&self) -> Result<Vec<List>> {
        let rows: Vec<ListRow> = sqlx::query_as(
            "-- lists
            SELECT l.id, l.name, l.created_at,
                   (SELECT COUNT(*) FROM list_members m JOIN contacts c ON c.sort_key = m.sort_key
                     WHERE m.list_id = l.id AND c.status = 'subscribed') AS contacts
              FROM lists l ORDER BY l.name, l.id",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter().map(ListRow::into_list).collect()
    }

    async fn list(&self, id: &ListId) -> Result<Option<List>> {
        let row: Option<ListRow> = sqlx::query_as(
            "-- list
            SELECT l.id, l.name, l.created_at,
                   (SELECT COUNT(*) FROM list_members m JOIN contacts c ON c.sort_key = m.sort_key
                     WHERE m.list_id = l.id AND c.status = 'subscribed') AS contacts
              FROM lists l WHERE l.id = $1",
        )
        .bind(id.as_str())
        .fetch_optional(&self.reader)
        .await?;
        row.map(ListRow::into_list).transpose()
    }

    async fn delete_list(&self, id: &ListId) -> Result<bool> {
        let done = sqlx::query("-- delete_list\n DELETE FROM lists WHERE id = $1")
            .bind(id.as_str())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn put_contacts(&self, contacts: &[Recipient], list: Option<&ListId>, now: Timestamp) -> Result<u64> {
        let mut lines: Vec<ContactLine> = contacts.iter().map(line).collect();
        // One statement must not meet a contact twice: the last one given wins.
        lines.reverse();
        lines.sort_by(|a, b| a.k.cmp(&b.k));
        lines.dedup_by(|b, a| a.k == b.k);
        let lines = to_json(&lines);
        retrying(|| self.try_put_contacts(&lines, list, now)).await
    }

    async fn contact(&self, normalised: &str) -> Result<Option<Contact>> {
        let row: Option<ContactRow> = sqlx::query_as(
            "-- contact
            SELECT sort_key, email, name, data, status, subscribed_at FROM contacts WHERE sort_key = $1",
        )
        .bind(SortKey::of(normalised).as_str())
        .fetch_optional(&self.reader)
        .await?;
        Ok(row.map(ContactRow::into_contact))
    }

    async fn contacts(&self, list: Option<&ListId>, after: Option<&str>, limit: i64) -> Result<Slice<Contact>> {
        let after = after.unwrap_or("");
        let mut rows: Vec<ContactRow> = match list {
            None => {
                sqlx::query_as(
                    "-- contacts
                    SELECT sort_key, email, name, data, status, subscribed_at FROM contacts
                     WHERE sort_key > $1 ORDER BY sort_key LIMIT $2",
                )
                .bind(after)
                .bind(limit + 1)
                .fetch_all(&self.reader)
                .await?
            }
            Some(list) => {
                sqlx::query_as(
                    "-- contacts_of_list
                    SELECT c.sort_key, c.email, c.name, c.data, c.status, c.subscribed_at
                      FROM list_members m JOIN contacts c ON c.sort_key = m.sort_key
                     WHERE m.sort_key > $1 AND m.list_id = $3 ORDER BY m.sort_key LIMIT $2",
                )
                .bind(after)
                .bind(limit + 1)
                .bind(list.as_str())
                .fetch_all(&self.reader)
                .await?
            }
        };
        let next = cut(&mut rows, limit)
            .then(|| rows.last().map(|r| r.sort_key.clone()))
            .flatten();
        let rows = rows.into_iter().map(ContactRow::into_contact).collect();
        Ok(Slice { rows, next })
    }

    async fn delete_contact(&self, normalised: &str) -> Result<bool> {
        let done = sqlx::query("-- delete_contact\n DELETE FROM contacts WHERE sort_key = $1")
            .bind(SortKey::of(normalised).as_str())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn count_subscribed(&self, lists: Option<&[ListId]>) -> Result<i64> {
        let n = match lists {
            None => {
                sqlx::query_scalar("-- count_subscribed\n SELECT COUNT(*) AS n FROM contacts WHERE status = 'subscribed'")
                    .fetch_one(&self.reader)
                    .await?
            }
            Some(lists) => {
                sqlx::query_scalar(
                    "-- count_subscribed_on
                    SELECT COUNT(DISTINCT m.sort_key) AS n FROM list_members m JOIN contacts c ON c.sort_key = m.sort_key
                     WHERE c.status = 'subscribed' AND m.list_id IN (SELECT value->>'v' FROM json_each($1))",
                )
                .bind(json_texts(lists.iter().map(ListId::as_str)))
                .fetch_one(&self.reader)
                .await?
            }
        };
        Ok(n)
    }

    async fn suppress(
        &self,
        addresses: &[String],
        reason: SuppressionReason,
        source: &str,
        now: Timestamp,
    ) -> Result<u64> {
        // In one order everywhere, so that two of these do not wait for each other in a circle.
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        retrying(|| self.try_suppress(&addresses, reason, source, now)).await
    }

    async fn unsuppress(&self, normalised: &str) -> Result<bool> {
        let mut tx = self.begin().await?;
        let reason: Option<String> =
            sqlx::query_scalar("-- unsuppress\n DELETE FROM suppressions WHERE address = $1 RETURNING reason")
                .bind(normalised)
                .fetch_optional(&mut *tx)
                .await?;
        // What was counted before is forgiven, or the next full mailbox would bring it back.
        sqlx::query("-- forgive_bounces\n DELETE FROM bounces WHERE address = $1")
            .bind(normalised)
            .execute(&mut *tx)
            .await?;
        // Lifting a bounce must not subscribe somebody who unsubscribed after it.
        if reason.as_deref() == Some(SuppressionReason::Unsubscribed.as_str()) {
            sqlx::query(
                "-- resubscribe
                UPDATE contacts SET status = 'subscribed' WHERE sort_key = $1 AND status = 'unsubscribed'",
            )
            .bind(SortKey::of(normalised).as_str())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(reason.is_some())
    }

    async fn suppressions(&self, after: Option<&str>, limit: i64) -> Result<Slice<Suppression>> {
        let mut rows: Vec<SuppressionRow> = sqlx::query_as(
            "-- suppressions
            SELECT address, reason, source, created_at FROM suppressions WHERE address > $1 ORDER BY address LIMIT $2",
        )
        .bind(after.unwrap_or(""))
        .bind(limit + 1)
        .fetch_all(&self.reader)
        .await?;
        let next = cut(&mut rows, limit)
            .then(|| rows.last().map(|r| r.address.clone()))
            .flatten();
        Ok(Slice {
            rows: rows.into_iter().map(Suppression::from).collect(),
            next,
        })
    }

    async fn suppression(&self, normalised: &str) -> Result<Option<Suppression>> {
        let row: Option<SuppressionRow> = sqlx::query_as(
            "-- suppression
            SELECT address, reason, source, created_at FROM suppressions WHERE address = $1",
        )
        .bind(normalised)
        .fetch_optional(&self.reader)
        .await?;
        Ok(row.map(Suppression::from))
    }
}

impl SqlStore {
    async fn try_put_contacts(&self, lines: &str, list: Option<&ListId>, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin().await?;
        let before: i64 = sqlx::query_scalar(
            "-- known_contacts
            SELECT COUNT(*) AS n FROM contacts WHERE sort_key IN (SELECT value->>'k' FROM json_each($1))",
        )
        .bind(lines)
        .fetch_one(&mut *tx)
        .await?;
        let put = sqlx::query(
            "-- put_contacts
            INSERT INTO contacts (sort_key, email, name, data, status, subscribed_at, updated_at)
            SELECT value->>'k', value->>'e', value->>'n', value->>'d',
                   CASE WHEN EXISTS (SELECT 1 FROM suppressions s
                                      WHERE s.address = substr(value->>'k', 17) AND s.reason = 'unsubscribed')
                        THEN 'unsubscribed' ELSE 'subscribed' END, CAST($2 AS BIGINT), CAST($2 AS BIGINT)
              FROM json_each($1) WHERE true
            ON CONFLICT (sort_key) DO UPDATE SET email = excluded.email, name = COALESCE(excluded.name, contacts.name),
                   data = COALESCE(excluded.data, contacts.data), updated_at = excluded.updated_at",
        )
        .bind(lines)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        if let Some(list) = list {
            sqlx::query(
                "-- put_members
                INSERT INTO list_members (list_id, sort_key) SELECT $2, value->>'k' FROM json_each($1) WHERE true
                ON CONFLICT (list_id, sort_key) DO NOTHING",
            )
            .bind(lines)
            .bind(list.as_str())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(put.rows_affected().saturating_sub(before as u64))
    }

    async fn try_suppress(
        &self,
        addresses: &[String],
        reason: SuppressionReason,
        source: &str,
        now: Timestamp,
    ) -> Result<u64> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "-- suppress
            INSERT INTO suppressions (address, reason, source, created_at)
            SELECT DISTINCT value->>'v', $2, $3, CAST($4 AS BIGINT) FROM json_each($1) WHERE true
            ON CONFLICT (address) DO NOTHING",
        )
        .bind(json_texts(addresses))
        .bind(reason.as_str())
        .bind(source)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        if reason == SuppressionReason::Unsubscribed {
            let keys: Vec<String> = addresses.iter().map(|a| SortKey::of(a).as_str().to_owned()).collect();
            sqlx::query(
                "-- unsubscribe_contacts
                UPDATE contacts SET status = 'unsubscribed', updated_at = $2
                 WHERE status = 'subscribed' AND sort_key IN (SELECT value->>'v' FROM json_each($1))",
            )
            .bind(json_texts(&keys))
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(done.rows_affected())
    }
}

fn line(contact: &Recipient) -> ContactLine {
    ContactLine {
        k: contact.sort_key().as_str().to_owned(),
        e: contact.email.as_str().to_owned(),
        n: contact.name.as_deref().map(ToOwned::to_owned),
        d: contact.data.as_deref().map(|d| d.get().to_owned()),
    }
}
