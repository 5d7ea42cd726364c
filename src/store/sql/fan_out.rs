//! Fan-out: see [`crate::store::fan_out`].

use async_trait::async_trait;
use serde_json::value::RawValue;

use super::queue::{Standing, count_down, lock_broadcast_of};
use super::{Connection, SqlStore, from_json, retrying, to_json};
use crate::domain::address::{EmailAddress, SortKey};
use crate::domain::broadcast::Audience;
use crate::domain::id::BroadcastId;
use crate::domain::job::{Lease, Stop};
use crate::domain::recipient::{self, Recipient};
use crate::domain::time::Timestamp;
use crate::store::fan_out::{FanOut, FanOutStep, SOURCE_PAGE_SIZE, Source};
use crate::store::{Result, StoreError};

#[derive(sqlx::FromRow)]
struct ContactRow {
    email: String,
    name: Option<String>,
    data: Option<String>,
}

impl ContactRow {
    /// Damaged data go on as what no data are, so that this contact's message fails with the reason, and nobody else's.
    fn into_recipient(self) -> Recipient {
        let damaged = || RawValue::from_string("\"damaged\"".to_owned()).expect("a JSON string");
        let data = self
            .data
            .map(|text| RawValue::from_string(text).unwrap_or_else(|_| damaged()));
        Recipient {
            email: EmailAddress::from_stored(self.email),
            name: self.name.map(String::into_boxed_str),
            data,
        }
    }
}

#[async_trait]
impl FanOut for SqlStore {
    async fn sources(&self, id: &BroadcastId) -> Result<Vec<Source>> {
        let audience: String = sqlx::query_scalar("-- audience\n SELECT audience FROM broadcasts WHERE id = $1")
            .bind(id.as_str())
            .fetch_one(&self.reader)
            .await?;
        Ok(match from_json("broadcasts.audience", &audience)? {
            Audience::Inline { runs } => (0..runs).map(Source::Run).collect(),
            Audience::Lists { list_ids } => list_ids.into_iter().map(Source::List).collect(),
            Audience::All => vec![Source::Everyone],
        })
    }

    async fn source_page(&self, id: &BroadcastId, source: &Source, after: Option<&SortKey>) -> Result<Vec<Recipient>> {
        let after = after.map_or("", SortKey::as_str);
        match source {
            Source::Run(run) => self.staged_page(id, *run, after).await,
            Source::List(list) => {
                let rows: Vec<ContactRow> = sqlx::query_as(
                    "-- list_page
                    SELECT c.email, c.name, c.data FROM list_members m JOIN contacts c ON c.sort_key = m.sort_key
                     WHERE m.list_id = $1 AND m.sort_key > $2 AND c.status = 'subscribed'
                     ORDER BY m.sort_key LIMIT $3",
                )
                .bind(list.as_str())
                .bind(after)
                .bind(SOURCE_PAGE_SIZE)
                .fetch_all(&self.reader)
                .await?;
                Ok(rows.into_iter().map(ContactRow::into_recipient).collect())
            }
            Source::Everyone => {
                let rows: Vec<ContactRow> = sqlx::query_as(
                    "-- everyone_page
                    SELECT email, name, data FROM contacts WHERE sort_key > $1 AND status = 'subscribed'
                     ORDER BY sort_key LIMIT $2",
                )
                .bind(after)
                .bind(SOURCE_PAGE_SIZE)
                .fetch_all(&self.reader)
                .await?;
                Ok(rows.into_iter().map(ContactRow::into_recipient).collect())
            }
        }
    }

    async fn next_seq(&self, id: &BroadcastId) -> Result<i64> {
        let seq = sqlx::query_scalar(
            "-- next_seq
            SELECT COALESCE(MAX(seq) + 1, 0) AS seq FROM jobs WHERE broadcast_id = $1 AND kind = 'deliver'",
        )
        .bind(id.as_str())
        .fetch_one(&self.writer)
        .await?;
        Ok(seq)
    }

    async fn fan_out_next(&self, lease: Lease, step: &FanOutStep, now: Timestamp) -> Result<Option<Stop>> {
        retrying(|| self.try_fan_out_next(lease, step, now)).await
    }

    async fn finish_fan_out(&self, lease: Lease, received: i64, duplicates: i64, now: Timestamp) -> Result<()> {
        retrying(|| self.try_finish_fan_out(lease, received, duplicates, now)).await
    }
}

impl SqlStore {
    /// Pages of a run hold at least one key each, so the first page whose last key is beyond the cursor is
    /// the one that goes on.
    async fn staged_page(&self, id: &BroadcastId, run: i64, after: &str) -> Result<Vec<Recipient>> {
        let payload: Option<Vec<u8>> = sqlx::query_scalar(
            "-- staged_page
            SELECT payload FROM intake WHERE broadcast_id = $1 AND run = $2 AND last_key > $3 ORDER BY page LIMIT 1",
        )
        .bind(id.as_str())
        .bind(run)
        .bind(after)
        .fetch_optional(&self.reader)
        .await?;
        let Some(payload) = payload else { return Ok(Vec::new()) };
        let mut page =
            recipient::decode(&payload).map_err(|e| StoreError::Corrupt(format!("intake.payload of {id}: {e}")))?;
        page.retain(|r| r.sort_key().as_str() > after);
        Ok(page)
    }

    async fn try_fan_out_next(&self, lease: Lease, step: &FanOutStep, now: Timestamp) -> Result<Option<Stop>> {
        let (first, last) = step
            .chunk
            .key_range()
            .ok_or_else(|| StoreError::Refused("a chunk without recipients".to_owned()))?;
        let mut tx = self.begin().await?;
        let standing = lock_broadcast_of(&mut tx, lease.job_id).await?;
        let (priority, stop) = move_cursor(&mut tx, lease, &step.cursor, now).await?;
        let size = step.chunk.recipients.len() as i64;
        count_in(&mut tx, &standing, size, step.received, step.duplicates, now).await?;
        let job_id = insert_deliver_job(&mut tx, &standing, step, priority, now).await?;
        sqlx::query(
            "-- insert_chunk
            INSERT INTO chunks (job_id, broadcast_id, first_key, last_key, payload) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(job_id)
        .bind(&standing.id)
        .bind(first.as_str())
        .bind(last.as_str())
        .bind(recipient::encode(&step.chunk.recipients))
        .execute(&mut *tx)
        .await?;
        if !step.suppressed.is_empty() {
            sqlx::query(
                "-- mark_suppressed
                INSERT INTO messages (job_id, ordinal, status, attempts, burnt, possible_duplicate, reply, class, at)
                SELECT $1, CAST(value->>'o' AS BIGINT), 'suppressed', 0, 0, 0, '', 'suppressed', $3
                  FROM json_each($2) WHERE true",
            )
            .bind(job_id)
            .bind(json_ordinals(&step.suppressed))
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
        }
        point!("chunk-written");
        self.commit_and_wake(tx).await?;
        point!("chunk-committed");
        Ok(stop)
    }

    async fn try_finish_fan_out(&self, lease: Lease, received: i64, duplicates: i64, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        let standing = lock_broadcast_of(&mut tx, lease.job_id).await?;
        let done = sqlx::query(
            "-- finish_fan_out
            UPDATE jobs SET state = 'done', worker_id = NULL, stop = NULL, touched_at = $3, finished_at = $3
             WHERE id = $1 AND epoch = $2 AND state = 'running'",
        )
        .bind(lease.job_id)
        .bind(lease.epoch)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::LeaseLost);
        }
        count_in(&mut tx, &standing, 0, received, duplicates, now).await?;
        sqlx::query(
            "-- start_sending
            UPDATE broadcasts SET status = 'sending' WHERE id = $1 AND status IN ('accepted', 'fanning_out')",
        )
        .bind(&standing.id)
        .execute(&mut *tx)
        .await?;
        sqlx::query("-- discard_intake\n DELETE FROM intake WHERE broadcast_id = $1")
            .bind(&standing.id)
            .execute(&mut *tx)
            .await?;
        count_down(&mut tx, &standing.id, 1, now).await?;
        self.commit_and_wake(tx).await
    }
}

/// The fence of a fan-out: only the present owner moves the cursor.
async fn move_cursor(
    tx: &mut Connection,
    lease: Lease,
    cursor: &SortKey,
    now: Timestamp,
) -> Result<(i64, Option<Stop>)> {
    let row: Option<(i64, Option<String>)> = sqlx::query_as(
        "-- move_cursor
        UPDATE jobs SET cursor = $3, touched_at = $4 WHERE id = $1 AND epoch = $2 AND state = 'running'
        RETURNING priority, stop",
    )
    .bind(lease.job_id)
    .bind(lease.epoch)
    .bind(cursor.as_str())
    .bind(now.0)
    .fetch_optional(tx)
    .await?;
    let (priority, stop) = row.ok_or(StoreError::LeaseLost)?;
    Ok((priority, stop.as_deref().and_then(Stop::parse)))
}

/// Counts recipients into the broadcast; the first ones start it, unless it waits for its time.
async fn count_in(
    tx: &mut Connection,
    standing: &Standing,
    size: i64,
    received: i64,
    duplicates: i64,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "-- count_in
        UPDATE broadcasts SET chunked = chunked + $2, received = received + $3, duplicates = duplicates + $4,
               jobs_left = jobs_left + CASE WHEN $2 > 0 THEN 1 ELSE 0 END,
               status = CASE WHEN status = 'accepted' OR (status = 'scheduled' AND send_at <= $5) THEN 'fanning_out' ELSE status END,
               started_at = CASE WHEN started_at IS NULL AND (send_at IS NULL OR send_at <= $5) THEN $5 ELSE started_at END
         WHERE id = $1",
    )
    .bind(&standing.id)
    .bind(size)
    .bind(received)
    .bind(duplicates)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_deliver_job(
    tx: &mut Connection,
    standing: &Standing,
    step: &FanOutStep,
    priority: i64,
    now: Timestamp,
) -> Result<i64> {
    let run_at = standing.send_at.unwrap_or(now.0).max(now.0);
    // Read under the broadcast's lock: the gate opens before this chunk or after it, and then takes it along.
    let is_gated = !step.is_canary && matches!(standing.canary.as_deref(), Some("running" | "held"));
    let state = match standing.status.as_str() {
        "canceled" => "canceled",
        _ if standing.paused != 0 || is_gated => "held",
        _ if run_at > now.0 => "waiting",
        _ => "ready",
    };
    let id = sqlx::query_scalar(
        "-- insert_deliver_job
        INSERT INTO jobs (broadcast_id, kind, seq, priority, state, run_at, size, suppressed, created_at, gated)
        VALUES ($1, 'deliver', $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
    )
    .bind(&standing.id)
    .bind(step.seq)
    .bind(priority)
    .bind(state)
    .bind(run_at)
    .bind(step.chunk.recipients.len() as i64)
    .bind(step.suppressed.len() as i64)
    .bind(now.0)
    .bind(i64::from(is_gated))
    .fetch_one(&mut *tx)
    .await?;
    if state == "canceled" {
        count_down(tx, &standing.id, 1, now).await?;
    }
    Ok(id)
}

fn json_ordinals(ordinals: &[u16]) -> String {
    to_json(
        &ordinals
            .iter()
            .map(|o| serde_json::json!({ "o": o }))
            .collect::<Vec<_>>(),
    )
}
