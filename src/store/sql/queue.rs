//! The queue: see [`crate::store::queue`].

use async_trait::async_trait;
use tokio::sync::watch;

use super::safety::{open_gate, reckon_anew};
use super::{CLAIM, Connection, SqlStore, from_json, json_texts, parsed, retrying, to_json};
use crate::domain::address::SortKey;
use crate::domain::id::BroadcastId;
use crate::domain::job::{Claimed, JobEnd, JobKind, Lease, Stop};
use crate::domain::safety::{CanaryState, Pause};
use crate::domain::time::Timestamp;
use crate::store::queue::{PROMOTED_MAX, Queue, Wish};
use crate::store::{Result, StoreError};

#[derive(sqlx::FromRow)]
struct ClaimedRow {
    id: i64,
    epoch: i64,
    broadcast_id: String,
    seq: i64,
    priority: i64,
    deaths: i64,
    stop: Option<String>,
    cursor: String,
    inflight: String,
}

impl ClaimedRow {
    fn into_claimed(self, kind: JobKind) -> Result<Claimed> {
        Ok(Claimed {
            lease: Lease {
                job_id: self.id,
                epoch: self.epoch,
            },
            broadcast_id: parsed("jobs.broadcast_id", &self.broadcast_id)?,
            kind,
            seq: self.seq,
            deaths: self.deaths,
            stop: self.stop.as_deref().and_then(Stop::parse),
            cursor: (!self.cursor.is_empty()).then(|| SortKey::from_stored(self.cursor)),
            inflight: from_json("jobs.inflight", &self.inflight)?,
        })
    }
}

#[async_trait]
impl Queue for SqlStore {
    fn wakeups(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    async fn promote(&self, now: Timestamp) -> Result<u64> {
        retrying(|| self.try_promote(now)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>> {
        let at: Option<i64> =
            sqlx::query_scalar("-- next_due\n SELECT MIN(run_at) AS run_at FROM jobs WHERE state = 'waiting'")
                .fetch_one(&self.reader)
                .await?;
        Ok(at.map(Timestamp))
    }

    async fn claim(&self, worker: i64, kind: JobKind, n: i64, now: Timestamp) -> Result<Vec<Claimed>> {
        self.claim_up_to(worker, kind, n, i64::MAX, now).await
    }

    async fn claim_ahead(&self, worker: i64, seq_max: i64, now: Timestamp) -> Result<Vec<Claimed>> {
        self.claim_up_to(worker, JobKind::Deliver, 1, seq_max, now).await
    }

    async fn hasten(&self, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "-- hasten
            UPDATE jobs SET run_at = $1 WHERE state = 'waiting' AND waits_for IS NOT NULL AND run_at > $1",
        )
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            tx.commit().await?;
        } else {
            self.commit_and_wake(tx).await?;
        }
        Ok(done.rows_affected())
    }

    async fn wanted_stops(&self, worker: i64) -> Result<Vec<(Lease, Stop)>> {
        let rows: Vec<(i64, i64, String)> = sqlx::query_as(
            "-- wanted_stops
            SELECT id, epoch, stop FROM jobs WHERE worker_id = $1 AND state = 'running' AND stop IS NOT NULL",
        )
        .bind(worker)
        .fetch_all(&self.reader)
        .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(job_id, epoch, stop)| Some((Lease { job_id, epoch }, Stop::parse(&stop)?)))
            .collect())
    }

    async fn finish(&self, lease: Lease, end: JobEnd, now: Timestamp) -> Result<()> {
        retrying(|| self.try_finish(lease, &end, now)).await
    }

    async fn give_back_unheld(&self, worker: i64, held: &[i64]) -> Result<Vec<i64>> {
        let mut tx = self.begin().await?;
        let given_back: Vec<i64> = sqlx::query_scalar(
            "-- give_back_unheld
            UPDATE jobs SET state = 'ready', worker_id = NULL, epoch = epoch + 1
             WHERE worker_id = $1 AND state = 'running'
               AND id NOT IN (SELECT CAST(value->>'v' AS BIGINT) FROM json_each($2))
            RETURNING id",
        )
        .bind(worker)
        .bind(json_texts(held.iter().map(i64::to_string)))
        .fetch_all(&mut *tx)
        .await?;
        if given_back.is_empty() {
            tx.commit().await?;
        } else {
            self.commit_and_wake(tx).await?;
        }
        Ok(given_back)
    }

    async fn quarantine(&self, lease: Lease, why: &str, now: Timestamp) -> Result<()> {
        let done = sqlx::query(
            "-- quarantine
            UPDATE jobs SET state = 'quarantined', last_error = $3, worker_id = NULL, touched_at = $4, epoch = epoch + 1
             WHERE id = $1 AND epoch = $2 AND state = 'running'",
        )
        .bind(lease.job_id)
        .bind(lease.epoch)
        .bind(why)
        .bind(now.0)
        .execute(&self.writer)
        .await?;
        if done.rows_affected() == 0 {
            Err(StoreError::LeaseLost)
        } else {
            Ok(())
        }
    }

    async fn control(&self, id: &BroadcastId, wish: &Wish, now: Timestamp) -> Result<()> {
        retrying(|| self.try_control(id, wish, now)).await
    }

    async fn release_quarantined(&self, job_id: i64, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        let standing = match lock_broadcast_of(&mut tx, job_id).await {
            Err(StoreError::LeaseLost) => return Ok(false),
            other => other?,
        };
        // A canceled broadcast's job still needs an owner to wind it up; only a wish to hold is out of date.
        let done = sqlx::query(
            "-- release_quarantined
            UPDATE jobs SET state = $2, stop = CASE WHEN stop = 'cancel' THEN stop END, deaths = 0, last_error = NULL,
                   touched_at = $3
             WHERE id = $1 AND state = 'quarantined'",
        )
        .bind(job_id)
        .bind(if standing.paused != 0 { "held" } else { "ready" })
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        self.commit_and_wake(tx).await?;
        Ok(done.rows_affected() == 1)
    }
}

/// How a broadcast stands, read under a lock that pause, resume, cancel and the ends of jobs share.
#[derive(sqlx::FromRow)]
pub(super) struct Standing {
    pub id: String,
    pub status: String,
    pub paused: i64,
    pub send_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub canary: Option<String>,
    pub seen: String,
    pub pause: Option<String>,
}

/// Locks a broadcast's row until the transaction ends, by an update that changes nothing: the one way to do
/// so that both databases have.
pub(super) async fn lock_broadcast_of(tx: &mut Connection, job_id: i64) -> Result<Standing> {
    let row = sqlx::query_as(
        "-- lock_broadcast_of
        UPDATE broadcasts SET jobs_left = jobs_left WHERE id = (SELECT broadcast_id FROM jobs WHERE id = $1)
        RETURNING id, status, paused, send_at, expires_at, canary, seen, pause",
    )
    .bind(job_id)
    .fetch_optional(tx)
    .await?;
    row.ok_or(StoreError::LeaseLost)
}

/// As [`lock_broadcast_of`], by the broadcast's own id. `None` when there is none.
pub(super) async fn lock_broadcast(tx: &mut Connection, id: &BroadcastId) -> Result<Option<Standing>> {
    let row = sqlx::query_as(
        "-- lock_broadcast
        UPDATE broadcasts SET jobs_left = jobs_left WHERE id = $1
        RETURNING id, status, paused, send_at, expires_at, canary, seen, pause",
    )
    .bind(id.as_str())
    .fetch_optional(tx)
    .await?;
    Ok(row)
}

/// Counts a job as over; the last one ends the broadcast. `completed` follows from the jobs, never from a
/// cursor.
pub(super) async fn count_down(tx: &mut Connection, broadcast: &str, jobs: i64, now: Timestamp) -> Result<()> {
    sqlx::query(
        "-- count_down
        UPDATE broadcasts SET jobs_left = jobs_left - $2,
               status = CASE WHEN jobs_left = $2 AND status <> 'canceled' AND status <> 'failed' THEN 'completed' ELSE status END,
               finished_at = CASE WHEN jobs_left = $2 THEN $3 ELSE finished_at END,
               canary = CASE WHEN jobs_left = $2 AND canary = 'running' THEN 'over' ELSE canary END
         WHERE id = $1",
    )
    .bind(broadcast)
    .bind(jobs)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

impl SqlStore {
    async fn claim_up_to(
        &self,
        worker: i64,
        kind: JobKind,
        n: i64,
        seq_max: i64,
        now: Timestamp,
    ) -> Result<Vec<Claimed>> {
        let mut rows: Vec<ClaimedRow> = sqlx::query_as(CLAIM)
            .bind(worker)
            .bind(now.0)
            .bind(n)
            .bind(kind.as_str())
            .bind(seq_max)
            .fetch_all(&self.writer)
            .await?;
        // The order of RETURNING is not the order of the pick.
        rows.sort_by_key(|r| (r.priority, r.seq, r.id));
        rows.into_iter().map(|r| r.into_claimed(kind)).collect()
    }

    async fn try_promote(&self, now: Timestamp) -> Result<u64> {
        let mut tx = self.begin().await?;
        let woken: Vec<String> = sqlx::query_scalar(
            "-- promote
            UPDATE jobs SET state = 'ready'
             WHERE id IN (SELECT id FROM jobs WHERE state = 'waiting' AND run_at <= $1 ORDER BY run_at, id LIMIT $2)
               AND state = 'waiting'
            RETURNING broadcast_id",
        )
        .bind(now.0)
        .bind(PROMOTED_MAX)
        .fetch_all(&mut *tx)
        .await?;
        if woken.is_empty() {
            tx.commit().await?;
            return Ok(0);
        }
        sqlx::query(
            "-- start_scheduled
            UPDATE broadcasts SET status = CASE WHEN chunked > 0 THEN 'sending' ELSE 'accepted' END, started_at = $1
             WHERE status = 'scheduled' AND send_at <= $1",
        )
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        self.commit_and_wake(tx).await?;
        Ok(woken.len() as u64)
    }

    async fn try_finish(&self, lease: Lease, end: &JobEnd, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        let standing = lock_broadcast_of(&mut tx, lease.job_id).await?;
        let later = match end {
            JobEnd::Waiting(at) | JobEnd::Held { until: at, .. } => Some(*at),
            JobEnd::Done | JobEnd::Released | JobEnd::Stopped => None,
        };
        let (state, run_at) = match later {
            _ if *end == JobEnd::Done => ("done", None),
            _ if standing.status == "canceled" => ("canceled", None),
            _ if standing.paused != 0 => ("held", later.map(|at| at.0)),
            Some(at) if at > now => ("waiting", Some(at.0)),
            _ => ("ready", None),
        };
        let waits_for = match end {
            JobEnd::Held { by, .. } => Some(to_json(by)),
            _ => None,
        };
        let over = matches!(state, "done" | "canceled");
        let unsettled: Option<i64> = sqlx::query_scalar(
            "-- finish
            UPDATE jobs SET state = $3, run_at = COALESCE($4, run_at), worker_id = NULL, stop = NULL, inflight = '[]',
                   waits_for = $7, deaths = 0, touched_at = $5, finished_at = CASE WHEN $6 = 1 THEN CAST($5 AS BIGINT) END
             WHERE id = $1 AND epoch = $2 AND state = 'running'
            RETURNING size - sent - failed - suppressed - uncertain - expired AS unsettled",
        )
        .bind(lease.job_id)
        .bind(lease.epoch)
        .bind(state)
        .bind(run_at)
        .bind(now.0)
        .bind(i64::from(over))
        .bind(waits_for)
        .fetch_optional(&mut *tx)
        .await?;
        let unsettled = unsettled.ok_or(StoreError::LeaseLost)?;
        if *end == JobEnd::Done && unsettled != 0 {
            return Err(StoreError::Refused(format!("a job with {unsettled} messages left is not done")));
        }
        if over {
            count_down(&mut tx, &standing.id, 1, now).await?;
        }
        point!("finish-written");
        self.commit_and_wake(tx).await?;
        point!("finish-committed");
        Ok(())
    }

    async fn try_control(&self, id: &BroadcastId, wish: &Wish, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        let standing = lock_broadcast(&mut tx, id).await?;
        let standing = standing.ok_or_else(|| StoreError::Conflict(format!("there is no broadcast {id}")))?;
        if *wish == Wish::Cancel && standing.status == "canceled" {
            return Ok(());
        }
        if matches!(standing.status.as_str(), "completed" | "canceled" | "failed") {
            return Err(StoreError::Conflict(format!("the broadcast is {}", standing.status)));
        }
        match wish {
            Wish::Pause { reason } => pause(&mut tx, id, reason, &Pause::by_operator(), now).await?,
            Wish::Resume => resume(&mut tx, &standing, now).await?,
            Wish::Cancel => cancel(&mut tx, id, now).await?,
        }
        self.commit_and_wake(tx).await
    }
}

/// The first pause stands, with its reason.
pub(super) async fn pause(
    tx: &mut Connection,
    id: &BroadcastId,
    reason: &str,
    pause: &Pause,
    now: Timestamp,
) -> Result<()> {
    sqlx::query(
        "-- pause_broadcast
        UPDATE broadcasts SET paused = 1, reason = $2, pause = $3, paused_at = $4 WHERE id = $1 AND paused = 0",
    )
    .bind(id.as_str())
    .bind(reason)
    .bind(to_json(pause))
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "-- pause_jobs
        UPDATE jobs SET state = CASE WHEN state = 'running' THEN state ELSE 'held' END,
               stop = CASE WHEN state = 'running' THEN 'hold' END
         WHERE broadcast_id = $1 AND state IN ('ready', 'waiting', 'running')",
    )
    .bind(id.as_str())
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// A job that waits for its time keeps it; a running one whose owner has not yet seen the pause goes on. Whoever resumes has
/// seen what failed: it is not held against the broadcast again. A canary that was held lets the rest go; one that was paused
/// by somebody goes on, and the rest waits behind it.
async fn resume(tx: &mut Connection, standing: &Standing, now: Timestamp) -> Result<()> {
    if standing.paused != 0 {
        let pause: Option<Pause> = standing
            .pause
            .as_deref()
            .map(|p| from_json("broadcasts.pause", p))
            .transpose()?;
        reckon_anew(tx, standing, pause.as_ref()).await?;
        if standing.canary.as_deref() == Some(CanaryState::Held.as_str()) {
            open_gate(tx, &standing.id, CanaryState::Released, now).await?;
        }
    }
    // Its time may have come while it stood still, when nothing waited that could have started it.
    sqlx::query(
        "-- resume_broadcast
        UPDATE broadcasts SET paused = 0, reason = NULL, pause = NULL, paused_at = NULL,
               canary_tried_at = CASE WHEN paused = 0 THEN canary_tried_at END,
               status = CASE WHEN status <> 'scheduled' OR send_at > $2 THEN status
                             WHEN chunked > 0 THEN 'sending' ELSE 'accepted' END,
               started_at = CASE WHEN status = 'scheduled' AND send_at <= $2 THEN $2 ELSE started_at END
         WHERE id = $1",
    )
    .bind(&standing.id)
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "-- resume_jobs
        UPDATE jobs SET stop = NULL,
               state = CASE WHEN state <> 'held' OR gated = 1 THEN state WHEN run_at > $2 THEN 'waiting' ELSE 'ready' END
         WHERE broadcast_id = $1 AND state IN ('held', 'ready', 'running')",
    )
    .bind(&standing.id)
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Jobs that nobody holds are over at once, without a write per message: what is queued in a canceled job is
/// canceled. Two kinds of job still need an owner to wind them up: a running one, and one whose last owner
/// died with messages on the wire, which are in doubt and must not be shown as canceled.
async fn cancel(tx: &mut Connection, id: &BroadcastId, now: Timestamp) -> Result<()> {
    sqlx::query(
        "-- cancel_broadcast\n UPDATE broadcasts SET status = 'canceled', paused = 0, reason = NULL, pause = NULL, paused_at = NULL WHERE id = $1",
    )
    .bind(id.as_str())
    .execute(&mut *tx)
    .await?;
    let over = sqlx::query(
        "-- cancel_jobs
        UPDATE jobs SET state = 'canceled', finished_at = $2
         WHERE broadcast_id = $1 AND state IN ('ready', 'waiting', 'held', 'quarantined') AND inflight = '[]'",
    )
    .bind(id.as_str())
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "-- stop_jobs
        UPDATE jobs SET stop = 'cancel', state = CASE WHEN state = 'running' THEN state ELSE 'ready' END
         WHERE broadcast_id = $1 AND state IN ('running', 'ready', 'waiting', 'held', 'quarantined')",
    )
    .bind(id.as_str())
    .execute(&mut *tx)
    .await?;
    sqlx::query("-- discard_intake\n DELETE FROM intake WHERE broadcast_id = $1")
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
    count_down(tx, id.as_str(), over.rows_affected() as i64, now).await
}
