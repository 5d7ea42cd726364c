//! Workers and rescue: see [`crate::store::workers`].

use async_trait::async_trait;

use super::{Connection, SqlStore, TIME, retrying, to_json};
use crate::domain::job::DEATHS_MAX;
use crate::domain::time::Timestamp;
use crate::domain::worker::WorkerStats;
use crate::store::Result;
use crate::store::workers::{Heartbeat, NewWorker, Rescued, Workers};

#[async_trait]
impl Workers for SqlStore {
    async fn time(&self) -> Result<Option<Timestamp>> {
        match TIME {
            Some(statement) => Ok(Some(Timestamp(sqlx::query_scalar(statement).fetch_one(&self.reader).await?))),
            None => Ok(None),
        }
    }

    async fn register_worker(&self, me: &NewWorker, lease_until: Timestamp, now: Timestamp) -> Result<i64> {
        let id = sqlx::query_scalar(
            "-- register_worker
            INSERT INTO workers (host, pid, version, state, started_at, seen_at, lease_until)
            VALUES ($1, $2, $3, 'live', $4, $4, $5) RETURNING id",
        )
        .bind(&me.host)
        .bind(me.pid)
        .bind(&me.version)
        .bind(now.0)
        .bind(lease_until.0)
        .fetch_one(&self.heart)
        .await?;
        Ok(id)
    }

    async fn heartbeat(
        &self,
        worker: i64,
        lease_until: Timestamp,
        draining: bool,
        stats: &WorkerStats,
        now: Timestamp,
    ) -> Result<Heartbeat> {
        let mut heart = self.heart.acquire().await?;
        let alive = sqlx::query(
            "-- heartbeat
            UPDATE workers SET seen_at = $2, lease_until = $3, stats = $4, state = $5
             WHERE id = $1 AND state IN ('live', 'draining')",
        )
        .bind(worker)
        .bind(now.0)
        .bind(lease_until.0)
        .bind(to_json(stats))
        .bind(if draining { "draining" } else { "live" })
        .execute(&mut heart)
        .await?;
        if alive.rows_affected() == 0 {
            return Ok(Heartbeat::Dead);
        }
        let live_workers = sqlx::query_scalar(
            "-- live_workers\n SELECT COUNT(*) AS n FROM workers WHERE state = 'live' AND lease_until >= $1",
        )
        .bind(now.0)
        .fetch_one(&mut heart)
        .await?;
        Ok(Heartbeat::Alive { live_workers })
    }

    async fn retire_worker(&self, worker: i64, now: Timestamp) -> Result<()> {
        sqlx::query(
            "-- retire_worker
            UPDATE workers SET state = 'stopped', seen_at = $2, lease_until = $2
             WHERE id = $1 AND state IN ('live', 'draining')",
        )
        .bind(worker)
        .bind(now.0)
        .execute(&self.heart)
        .await?;
        Ok(())
    }

    async fn void_other_workers(&self, worker: i64) -> Result<Vec<Rescued>> {
        retrying(|| self.try_void_other_workers(worker)).await
    }

    async fn rescue(&self, by: i64, now: Timestamp) -> Result<Vec<Rescued>> {
        retrying(|| self.try_rescue(by, now)).await
    }
}

impl SqlStore {
    async fn try_void_other_workers(&self, worker: i64) -> Result<Vec<Rescued>> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "-- void_other_workers
            UPDATE workers SET state = 'dead' WHERE id <> $1 AND state IN ('live', 'draining')",
        )
        .bind(worker)
        .execute(&mut *tx)
        .await?;
        let rescued = take_from_the_dead(&mut tx).await?;
        self.commit_and_wake(tx).await?;
        Ok(rescued)
    }

    async fn try_rescue(&self, by: i64, now: Timestamp) -> Result<Vec<Rescued>> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "-- declare_dead
            UPDATE workers SET state = 'dead' WHERE state IN ('live', 'draining') AND lease_until < $1 AND id <> $2",
        )
        .bind(now.0)
        .bind(by)
        .execute(&mut *tx)
        .await?;
        let rescued = take_from_the_dead(&mut tx).await?;
        if rescued.is_empty() {
            tx.commit().await?;
        } else {
            self.commit_and_wake(tx).await?;
        }
        Ok(rescued)
    }
}

/// The epoch rises with the rescue, not only with the next claim: a write of the dead owner that comes
/// between the two is void as well. Deaths in a row count: whose owner got some of it done before it died is
/// not what kills its owners.
async fn take_from_the_dead(tx: &mut Connection) -> Result<Vec<Rescued>> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "-- take_from_the_dead
        UPDATE jobs SET state = CASE WHEN deaths + 1 >= $1 AND NOT (settled_before < sent + failed + uncertain + expired
                                      OR (kind = 'fan_out' AND claimed_at < touched_at)) THEN 'quarantined' ELSE 'ready' END,
               deaths = CASE WHEN settled_before < sent + failed + uncertain + expired
                               OR (kind = 'fan_out' AND claimed_at < touched_at) THEN 1 ELSE deaths + 1 END,
               epoch = epoch + 1, worker_id = NULL, last_error = 'its worker was lost'
         WHERE state = 'running'
           AND (worker_id IS NULL OR worker_id IN (SELECT id FROM workers WHERE state IN ('dead', 'stopped')))
        RETURNING id, state",
    )
    .bind(DEATHS_MAX)
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(job_id, state)| Rescued {
            job_id,
            quarantined: state == "quarantined",
        })
        .collect())
}
