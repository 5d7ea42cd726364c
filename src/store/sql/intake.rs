//! Accepting: see [`crate::store::intake`].

use async_trait::async_trait;

use super::dkim::keys_for;
use super::footing::heed_footing;
use super::{Connection, SqlStore, to_json};
use crate::domain::broadcast::{Audience, NewBroadcast};
use crate::domain::id::BroadcastId;
use crate::domain::safety::CanaryState;
use crate::domain::time::Timestamp;
use crate::store::Result;
use crate::store::intake::{Accepted, IdempotencyClaim, Intake, Page, Replay};

#[derive(sqlx::FromRow)]
struct ReplayRow {
    broadcast_id: String,
    body_hash: String,
    answer: String,
}

impl From<ReplayRow> for Replay {
    fn from(row: ReplayRow) -> Self {
        Replay {
            broadcast_id: row.broadcast_id,
            body_hash: row.body_hash,
            answer: row.answer,
        }
    }
}

const FIND_REPLAY: &str = "-- find_replay
    SELECT broadcast_id, body_hash, answer FROM idempotency_keys WHERE owner = $1 AND key = $2";

#[async_trait]
impl Intake for SqlStore {
    async fn find_replay(&self, owner: &str, key: &str) -> Result<Option<Replay>> {
        let row: Option<ReplayRow> = sqlx::query_as(FIND_REPLAY)
            .bind(owner)
            .bind(key)
            .fetch_optional(&self.reader)
            .await?;
        Ok(row.map(Replay::from))
    }

    async fn stage_run(&self, id: &BroadcastId, run: i64, pages: &[Page], now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        for (number, page) in (0i64..).zip(pages) {
            sqlx::query(
                "-- stage_page
                INSERT INTO intake (broadcast_id, run, page, last_key, payload, staged_at)
                VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(id.as_str())
            .bind(run)
            .bind(number)
            .bind(page.last_key.as_str())
            .bind(&page.payload)
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }

    async fn discard_staged(&self, id: &BroadcastId) -> Result<()> {
        sqlx::query(
            "-- discard_staged
            DELETE FROM intake WHERE broadcast_id = $1
               AND NOT EXISTS (SELECT 1 FROM broadcasts WHERE id = $1)",
        )
        .bind(id.as_str())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn accept(&self, new: &NewBroadcast, key: Option<&IdempotencyClaim>, now: Timestamp) -> Result<Accepted> {
        point!("request-read");
        let mut tx = self.begin().await?;
        if let Some(claim) = key
            && let Some(earlier) = claim_key(&mut tx, claim, &new.id, now).await?
        {
            tx.rollback().await?;
            return Ok(Accepted::Replay(earlier));
        }
        insert_broadcast(&mut tx, new, now).await?;
        point!("accept-written");
        self.commit_and_wake(tx).await?;
        point!("accept-committed");
        Ok(Accepted::New)
    }

    async fn sweep_staged(&self, before: Timestamp) -> Result<u64> {
        let done = sqlx::query(
            "-- sweep_staged
            DELETE FROM intake WHERE staged_at < $1
               AND NOT EXISTS (SELECT 1 FROM broadcasts b WHERE b.id = intake.broadcast_id)",
        )
        .bind(before.0)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected())
    }
}

/// Takes the key for this broadcast, or finds who has it. Two nodes that race here wait for each other on
/// the primary key.
async fn claim_key(
    tx: &mut Connection,
    claim: &IdempotencyClaim,
    id: &BroadcastId,
    now: Timestamp,
) -> Result<Option<Replay>> {
    let taken = sqlx::query(
        "-- claim_key
        INSERT INTO idempotency_keys (owner, key, body_hash, broadcast_id, answer, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (owner, key) DO NOTHING",
    )
    .bind(&claim.owner)
    .bind(&claim.key)
    .bind(&claim.body_hash)
    .bind(id.as_str())
    .bind(&claim.answer)
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    if taken.rows_affected() == 1 {
        return Ok(None);
    }
    let row: ReplayRow = sqlx::query_as(FIND_REPLAY)
        .bind(&claim.owner)
        .bind(&claim.key)
        .fetch_one(&mut *tx)
        .await?;
    Ok(Some(row.into()))
}

/// Writes a broadcast with its letter and its fan_out job. Inline recipients are cut into chunks at once, so
/// that they can be seen and found; a stored audience is read when the broadcast starts.
pub(super) async fn insert_broadcast(tx: &mut Connection, new: &NewBroadcast, now: Timestamp) -> Result<()> {
    heed_footing(tx).await?;
    let later = new.send_at.filter(|at| *at > now);
    let status = if later.is_some() { "scheduled" } else { "accepted" };
    sqlx::query(
        "-- insert_broadcast
        INSERT INTO broadcasts (id, status, subject, from_email, audience, template_id, campaign_id, campaign_run,
            send_at, expires_at, on_uncertain, priority, tags, metadata, received, rejected, duplicates, created_at, safety,
            canary, relay)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
    )
    .bind(new.id.as_str())
    .bind(status)
    .bind(&new.letter.content.subject)
    .bind(new.letter.from.email.as_str())
    .bind(to_json(&new.audience))
    .bind(new.template_id.as_ref().map(|id| id.as_str()))
    .bind(new.campaign.as_ref().map(|(id, _)| id.as_str()))
    .bind(new.campaign.as_ref().map(|(_, run)| run.0))
    .bind(new.send_at.map(|t| t.0))
    .bind(new.expires_at.map(|t| t.0))
    .bind(new.on_uncertain.as_str())
    .bind(new.priority.rank())
    .bind(to_json(&new.tags))
    .bind(to_json(&new.metadata))
    .bind(new.received)
    .bind(new.rejected)
    .bind(new.duplicates)
    .bind(now.0)
    .bind(to_json(&new.safety))
    .bind(new.safety.canary.map(|_| CanaryState::Running.as_str()))
    .bind(new.relay.as_deref())
    .execute(&mut *tx)
    .await?;
    sqlx::query("-- insert_letter\n INSERT INTO letters (broadcast_id, letter, dkim_keys) VALUES ($1, $2, $3)")
        .bind(new.id.as_str())
        .bind(to_json(&new.letter))
        .bind(keys_for(tx, &new.letter.from.email).await?)
        .execute(&mut *tx)
        .await?;
    let split_at = match new.audience {
        Audience::Inline { .. } => now,
        Audience::Lists { .. } | Audience::All => later.unwrap_or(now),
    };
    sqlx::query(
        "-- insert_fan_out_job
        INSERT INTO jobs (broadcast_id, kind, seq, priority, state, run_at, created_at)
        VALUES ($1, 'fan_out', 0, $2, CASE WHEN CAST($3 AS BIGINT) <= CAST($4 AS BIGINT) THEN 'ready' ELSE 'waiting' END, $3, $4)",
    )
    .bind(new.id.as_str())
    .bind(new.priority.rank())
    .bind(split_at.0)
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    Ok(())
}
