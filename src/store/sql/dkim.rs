//! Keys that mail is signed with: see [`crate::store::dkim`].

use async_trait::async_trait;

use super::{Connection, Db, Pool, SqlStore, from_json, json_texts, parsed};
use crate::domain::address::EmailAddress;
use crate::domain::dkim::{DkimKey, PrivateKey, signing_domains};
use crate::domain::id::DkimKeyId;
use crate::domain::time::Timestamp;
use crate::store::dkim::Dkim;
use crate::store::{Result, StoreError};

#[derive(sqlx::FromRow)]
struct DkimRow {
    id: String,
    domain: String,
    selector: String,
    algorithm: String,
    private_key: String,
    public_key: String,
    created_at: i64,
    enabled_at: Option<i64>,
}

impl DkimRow {
    fn into_key(self) -> Result<DkimKey> {
        Ok(DkimKey {
            id: parsed("dkim_keys.id", &self.id)?,
            domain: self.domain,
            selector: self.selector,
            algorithm: parsed("dkim_keys.algorithm", &self.algorithm)?,
            private_key: PrivateKey::new(self.private_key),
            public_key: self.public_key,
            created_at: Timestamp(self.created_at),
            enabled_at: self.enabled_at.map(Timestamp),
        })
    }
}

#[async_trait]
impl Dkim for SqlStore {
    async fn create_dkim_key(&self, key: &DkimKey) -> Result<()> {
        let done = sqlx::query(
            "-- create_dkim_key
            INSERT INTO dkim_keys (id, domain, selector, algorithm, private_key, public_key, created_at, enabled_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (domain, selector) DO NOTHING",
        )
        .bind(key.id.as_str())
        .bind(&key.domain)
        .bind(&key.selector)
        .bind(key.algorithm.as_str())
        .bind(key.private_key.expose())
        .bind(&key.public_key)
        .bind(key.created_at.0)
        .bind(key.enabled_at.map(|t| t.0))
        .execute(&self.writer)
        .await?;
        match done.rows_affected() {
            0 => Err(StoreError::Conflict(format!(
                "{} has a key under the selector {} already; choose another selector",
                key.domain, key.selector
            ))),
            _ => Ok(()),
        }
    }

    async fn dkim_keys(&self) -> Result<Vec<DkimKey>> {
        let rows: Vec<DkimRow> = sqlx::query_as("-- dkim_keys\n SELECT * FROM dkim_keys ORDER BY domain, selector")
            .fetch_all(&self.reader)
            .await?;
        rows.into_iter().map(DkimRow::into_key).collect()
    }

    async fn enable_dkim_key(&self, id: &DkimKeyId, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "-- disable_other_dkim_keys
            UPDATE dkim_keys SET enabled_at = NULL
             WHERE id <> $1 AND (domain, algorithm) IN (SELECT domain, algorithm FROM dkim_keys WHERE id = $1)",
        )
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
        let done = sqlx::query(
            "-- enable_dkim_key\n UPDATE dkim_keys SET enabled_at = COALESCE(enabled_at, $2) WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn disable_dkim_key(&self, id: &DkimKeyId) -> Result<bool> {
        let done = sqlx::query("-- disable_dkim_key\n UPDATE dkim_keys SET enabled_at = NULL WHERE id = $1")
            .bind(id.as_str())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn remove_dkim_key(&self, id: &DkimKeyId) -> Result<bool> {
        let mut tx = self.begin().await?;
        let user: Option<String> = sqlx::query_scalar(
            "-- dkim_key_user
            SELECT b.id FROM broadcasts b JOIN letters l ON l.broadcast_id = b.id
             WHERE b.status NOT IN ('completed', 'canceled', 'failed')
               AND EXISTS (SELECT 1 FROM json_each(l.dkim_keys) WHERE value->>'v' = $1)
             ORDER BY b.id LIMIT 1",
        )
        .bind(id.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(user) = user {
            tx.rollback().await?;
            return Err(StoreError::Conflict(format!(
                "{user} is under way and signed with this key; wait until it is over, or cancel it, and remove the key then"
            )));
        }
        let done = sqlx::query("-- remove_dkim_key\n DELETE FROM dkim_keys WHERE id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

/// The keys that a broadcast from this address is signed with: those enabled for the nearest domain that has any. As the
/// letter keeps them.
pub(super) async fn keys_for(tx: &mut Connection, from: &EmailAddress) -> Result<String> {
    let rows: Vec<(String, String)> = sqlx::query_as::<Db, _>(
        "-- dkim_keys_for
        SELECT domain, id FROM dkim_keys
         WHERE enabled_at IS NOT NULL AND domain IN (SELECT value->>'v' FROM json_each($1))
         ORDER BY LENGTH(domain) DESC, id",
    )
    .bind(json_texts(signing_domains(from.domain())))
    .fetch_all(tx)
    .await?;
    let nearest = rows.first().map(|(domain, _)| domain.clone());
    let ids = rows.iter().filter(|(domain, _)| Some(domain) == nearest.as_ref());
    Ok(json_texts(ids.map(|(_, id)| id)))
}

/// The keys that a letter names, in its order.
pub(super) async fn keys_named(reader: &Pool, ids: &str) -> Result<Vec<DkimKey>> {
    #[derive(serde::Deserialize)]
    struct Item {
        v: DkimKeyId,
    }
    let named: Vec<Item> = from_json("letters.dkim_keys", ids)?;
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<DkimRow> = sqlx::query_as(
        "-- dkim_keys_named
        SELECT * FROM dkim_keys WHERE id IN (SELECT value->>'v' FROM json_each($1))",
    )
    .bind(ids)
    .fetch_all(reader)
    .await?;
    let found: Vec<DkimKey> = rows.into_iter().map(DkimRow::into_key).collect::<Result<_>>()?;
    let in_order = named.into_iter().map(|Item { v: id }| {
        let key = found.iter().find(|key| key.id == id).cloned();
        key.ok_or_else(|| StoreError::Corrupt(format!("the key {id}, with which the mail is signed, was removed")))
    });
    in_order.collect()
}
