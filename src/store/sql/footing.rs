//! Footing: see [`crate::store::footing`].

use async_trait::async_trait;

use super::{BIRTHMARK, Connection, SqlStore};
use crate::domain::time::Timestamp;
use crate::store::footing::{self, Footing, SetAside};
use crate::store::{Result, StoreError};

const FOOTING: &str = "-- footing
    SELECT name, value FROM settings WHERE name IN ('schema_needs', 'moving_to', 'moving_from', 'moved_to')";

#[async_trait]
impl Footing for SqlStore {
    async fn footing(&self) -> Result<()> {
        let settings: Vec<(String, String)> = sqlx::query_as(FOOTING).fetch_all(&self.reader).await?;
        footing::judge_here(&settings)
    }

    async fn set_aside_restored(&self, taken_at: Option<Timestamp>) -> Result<SetAside> {
        let mut tx = self.begin().await?;
        let set_aside = set_aside(&mut tx, taken_at).await?;
        self.commit_and_wake(tx).await?;
        Ok(set_aside)
    }
}

/// In the transaction of a write that must not be lost with a database that was left behind.
pub(super) async fn heed_footing(tx: &mut Connection) -> Result<()> {
    let settings: Vec<(String, String)> = sqlx::query_as(FOOTING).fetch_all(tx).await?;
    footing::judge_here(&settings)
}

impl SqlStore {
    /// At every start: notices that the database was made of a backup since the last one, and sets its unfinished work
    /// aside. Of several processes that start at once, one does it.
    pub async fn notice_restoration(&self) -> Result<()> {
        if !self.is_restored().await? {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let taken: Option<String> =
            sqlx::query_scalar("-- take_backup_mark\n DELETE FROM settings WHERE name = 'backup' RETURNING value")
                .fetch_optional(&mut *tx)
                .await?;
        let has_new_mark = match birthmark(&mut tx).await? {
            Some(mark) => take_birthmark(&mut tx, &mark).await?,
            None => false,
        };
        if taken.is_none() && !has_new_mark {
            return Ok(tx.commit().await?);
        }
        let taken_at = taken.map(|text| text.parse().map(Timestamp)).transpose();
        let taken_at = taken_at.map_err(|_| StoreError::Corrupt("the setting backup is not a time".to_owned()))?;
        let set_aside = set_aside(&mut tx, taken_at).await?;
        self.commit_and_wake(tx).await?;
        tracing::warn!(
            n_broadcasts = set_aside.broadcasts,
            n_campaigns = set_aside.campaigns,
            "This database was restored from a backup: its unfinished broadcasts and its campaigns are paused, because what \
             was sent since then would be sent again; resume or cancel each"
        );
        Ok(())
    }

    /// A look without a write: nearly every start finds nothing.
    async fn is_restored(&self) -> Result<bool> {
        let marks: Vec<(String, String)> =
            sqlx::query_as("-- marks\n SELECT name, value FROM settings WHERE name IN ('backup', 'birthmark')")
                .fetch_all(&self.writer)
                .await?;
        let mut connection = self.writer.acquire().await?;
        let here = birthmark(&mut connection).await?;
        let of = |name: &str| marks.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        Ok(of(footing::BACKUP).is_some() || of(footing::BIRTHMARK) != here.as_ref())
    }
}

async fn birthmark(connection: &mut Connection) -> Result<Option<String>> {
    match BIRTHMARK {
        Some(statement) => Ok(Some(sqlx::query_scalar(statement).fetch_one(connection).await?)),
        None => Ok(None),
    }
}

/// Writes this database's birthmark down. `true` when it bore another one.
async fn take_birthmark(tx: &mut Connection, mark: &str) -> Result<bool> {
    sqlx::query(
        "-- first_birthmark
        INSERT INTO settings (name, value) VALUES ('birthmark', $1) ON CONFLICT (name) DO NOTHING",
    )
    .bind(mark)
    .execute(&mut *tx)
    .await?;
    let other =
        sqlx::query("-- next_birthmark\n UPDATE settings SET value = $1 WHERE name = 'birthmark' AND value <> $1")
            .bind(mark)
            .execute(&mut *tx)
            .await?;
    Ok(other.rows_affected() == 1)
}

async fn set_aside(tx: &mut Connection, taken_at: Option<Timestamp>) -> Result<SetAside> {
    let last_seen: Option<i64> = sqlx::query_scalar("-- last_seen\n SELECT MAX(seen_at) AS seen_at FROM workers")
        .fetch_one(&mut *tx)
        .await?;
    let reason = footing::reason(taken_at.or(last_seen.map(Timestamp)));
    let broadcasts = sqlx::query(
        "-- set_broadcasts_aside
        UPDATE broadcasts SET paused = 1,
               reason = CASE WHEN paused = 1 THEN $1 || ' (it was paused before: ' || COALESCE(reason, '') || ')' ELSE $1 END
         WHERE status NOT IN ('completed', 'canceled', 'failed')",
    )
    .bind(&reason)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "-- set_jobs_aside
        UPDATE jobs SET state = CASE WHEN state = 'running' THEN state ELSE 'held' END,
               stop = CASE WHEN state = 'running' THEN 'hold' END
         WHERE state IN ('ready', 'waiting', 'running') AND broadcast_id IN (SELECT id FROM broadcasts WHERE paused = 1)",
    )
    .execute(&mut *tx)
    .await?;
    let campaigns = sqlx::query(
        "-- set_campaigns_aside\n UPDATE campaigns SET status = 'paused', last_error = $1 WHERE status = 'active'",
    )
    .bind(&reason)
    .execute(&mut *tx)
    .await?;
    Ok(SetAside {
        broadcasts: broadcasts.rows_affected(),
        campaigns: campaigns.rows_affected(),
    })
}
