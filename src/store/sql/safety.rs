//! Safety: see [`crate::store::safety`].

use std::collections::HashMap;

use async_trait::async_trait;
use serde::Serialize;

use super::queue::{Standing, lock_broadcast, pause};
use super::{Connection, SqlStore, from_json, json_texts, parsed, retrying, to_json};
use crate::domain::broadcast::Audience as Whom;
use crate::domain::id::{BroadcastId, MessageId};
use crate::domain::message::ReplyNote;
use crate::domain::safety::{
    ByClass, CanaryState, Doubts, Evidence, Example, Pause, PauseKind, Seen, Step, Tally, Watched,
};
use crate::domain::time::Timestamp;
use crate::store::audience::Audience as _;
use crate::store::safety::{Failures, RETRY_CHUNKS_MAX, Retried, Safety, Stuck};
use crate::store::{Result, StoreError};

#[derive(sqlx::FromRow)]
struct WatchedRow {
    id: String,
    safety: String,
    canary: Option<String>,
    canary_size: Option<i64>,
    canary_tried_at: Option<i64>,
    seen: String,
}

#[derive(sqlx::FromRow)]
struct TallyRow {
    size: i64,
    queued: i64,
    deferred: i64,
    sent: i64,
    failed: i64,
    uncertain: i64,
    is_split: i64,
}

#[derive(sqlx::FromRow)]
struct ExampleRow {
    job_id: i64,
    ordinal: i64,
    code: Option<i64>,
    enhanced: Option<String>,
    reply: String,
}

#[async_trait]
impl Safety for SqlStore {
    async fn watched(&self, worker: i64) -> Result<Vec<(BroadcastId, Watched)>> {
        let rows: Vec<WatchedRow> = sqlx::query_as(
            "-- watched
            SELECT id, safety, canary, canary_size, canary_tried_at, seen FROM broadcasts
             WHERE paused = 0 AND status IN ('fanning_out', 'sending')
               AND id IN (SELECT id FROM broadcasts WHERE canary = 'running'
                          UNION SELECT j.broadcast_id FROM jobs j
                                 WHERE j.worker_id = $1 AND j.state = 'running'
                                   AND (EXISTS (SELECT 1 FROM failures f WHERE f.broadcast_id = j.broadcast_id)
                                        OR EXISTS (SELECT 1 FROM jobs d WHERE d.broadcast_id = j.broadcast_id AND d.flagged > 0)))",
        )
        .bind(worker)
        .fetch_all(&self.reader)
        .await?;
        let mut watched = Vec::with_capacity(rows.len());
        for row in rows {
            let mut tx = self.begin_snapshot().await?;
            let tally = tally(&mut tx, &row.id).await?;
            tx.commit().await?;
            watched.push((
                parsed("broadcasts.id", &row.id)?,
                Watched {
                    safety: from_json("broadcasts.safety", &row.safety)?,
                    canary: canary(row.canary.as_deref())?,
                    canary_size: row.canary_size.unwrap_or(0),
                    canary_tried_at: row.canary_tried_at.map(Timestamp),
                    seen: from_json("broadcasts.seen", &row.seen)?,
                    tally,
                },
            ));
        }
        Ok(watched)
    }

    async fn take_step(&self, id: &BroadcastId, seen: &Watched, step: &Step, now: Timestamp) -> Result<bool> {
        retrying(|| self.try_take_step(id, seen, step, now)).await
    }

    async fn canary_left(&self, id: &BroadcastId) -> Result<i64> {
        let row: (String, Option<String>, Option<i64>, String, i64, i64) = sqlx::query_as(
            "-- canary_plan
            SELECT safety, canary, canary_size, audience, received - rejected - duplicates AS accepted, chunked
              FROM broadcasts WHERE id = $1",
        )
        .bind(id.as_str())
        .fetch_one(&self.writer)
        .await?;
        let (safety, state, size, audience, accepted, chunked) = row;
        let safety: crate::domain::safety::Safety = from_json("broadcasts.safety", &safety)?;
        let Some(rule) = safety.canary.filter(|_| state.is_some()) else {
            return Ok(0);
        };
        if let Some(size) = size {
            return Ok((size - chunked).max(0));
        }
        let audience = match from_json("broadcasts.audience", &audience)? {
            Whom::Inline { .. } => accepted,
            Whom::Lists { list_ids } => self.count_subscribed(Some(&list_ids)).await?,
            Whom::All => self.count_subscribed(None).await?,
        };
        // Whoever is first decides; a fan-out that lost its job meanwhile finds the same number.
        let size: i64 = sqlx::query_scalar(
            "-- size_canary
            UPDATE broadcasts SET canary_size = COALESCE(canary_size, $2) WHERE id = $1 RETURNING canary_size",
        )
        .bind(id.as_str())
        .bind(rule.first.of(audience))
        .fetch_one(&self.writer)
        .await?;
        Ok((size - chunked).max(0))
    }

    async fn failures(&self, id: &BroadcastId) -> Result<Vec<Failures>> {
        let mut tx = self.begin_snapshot().await?;
        let mut found = Vec::new();
        for c in by_class(&mut tx, id.as_str()).await? {
            if let Some(example) = example(&mut tx, id.as_str(), &c.class).await? {
                found.push(Failures {
                    class: c.class,
                    n: c.n,
                    example,
                });
            }
        }
        tx.commit().await?;
        Ok(found)
    }

    async fn stuck(&self, id: &BroadcastId) -> Result<Vec<Stuck>> {
        self.read_stuck(id).await
    }

    async fn retry_failed(&self, id: &BroadcastId, classes: &[String], now: Timestamp) -> Result<Retried> {
        retrying(|| self.try_retry_failed(id, classes, now)).await
    }

    async fn forget_bounces(&self, before: Timestamp) -> Result<u64> {
        let done = sqlx::query("-- forget_bounces\n DELETE FROM bounces WHERE last_at < $1")
            .bind(before.0)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected())
    }
}

pub(super) fn canary(stored: Option<&str>) -> Result<Option<CanaryState>> {
    stored.map(|s| parsed("broadcasts.canary", s)).transpose()
}

/// What became of the messages that are not behind a gate.
async fn tally(tx: &mut Connection, id: &str) -> Result<Tally> {
    let row: TallyRow = sqlx::query_as(
        "-- tally
        SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) AS size,
               CAST(COALESCE(SUM(size - sent - failed - deferred - suppressed - uncertain - expired), 0) AS BIGINT) AS queued,
               CAST(COALESCE(SUM(deferred), 0) AS BIGINT) AS deferred, CAST(COALESCE(SUM(sent), 0) AS BIGINT) AS sent,
               CAST(COALESCE(SUM(failed), 0) AS BIGINT) AS failed, CAST(COALESCE(SUM(uncertain), 0) AS BIGINT) AS uncertain,
               (SELECT COUNT(*) FROM jobs f WHERE f.broadcast_id = $1 AND f.kind = 'fan_out' AND f.state = 'done') AS is_split
          FROM jobs WHERE broadcast_id = $1 AND kind = 'deliver' AND gated = 0",
    )
    .bind(id)
    .fetch_one(&mut *tx)
    .await?;
    Ok(Tally {
        size: row.size,
        queued: row.queued,
        deferred: row.deferred,
        sent: row.sent,
        failed: row.failed,
        uncertain: row.uncertain,
        by_class: by_class(tx, id).await?,
        doubts: doubts(tx, id).await?,
        is_split: row.is_split > 0,
    })
}

async fn by_class(tx: &mut Connection, id: &str) -> Result<Vec<ByClass>> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "-- failures_by_class
        SELECT class, CAST(SUM(n) AS BIGINT) AS n FROM failures WHERE broadcast_id = $1 GROUP BY class ORDER BY 2 DESC, 1",
    )
    .bind(id)
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|(class, n)| ByClass { class, n }).collect())
}

/// What relays have left in doubt; what a lost worker left is no relay's doing.
async fn doubts(tx: &mut Connection, id: &str) -> Result<Vec<Doubts>> {
    let rows: Vec<(Option<String>, String, i64)> = sqlx::query_as(
        "-- doubts
        SELECT r.name, a.class, COUNT(*) AS n
          FROM jobs j JOIN attempts a ON a.job_id = j.id LEFT JOIN relays r ON r.id = a.relay_id
         WHERE j.broadcast_id = $1 AND j.kind = 'deliver' AND j.flagged > 0 AND a.status = 'uncertain' AND a.class <> 'worker_lost'
         GROUP BY r.name, a.class ORDER BY 3 DESC, 1, 2",
    )
    .bind(id)
    .fetch_all(tx)
    .await?;
    let doubts = rows.into_iter().map(|(relay, class, n)| Doubts {
        relay: relay.unwrap_or_default(),
        class,
        n,
    });
    Ok(doubts.collect())
}

/// The latest message that this relay left in doubt.
async fn doubt_example(tx: &mut Connection, id: &str, evidence: &Evidence) -> Result<Option<Example>> {
    let row: Option<ExampleRow> = sqlx::query_as(
        "-- doubt_example
        SELECT a.job_id, a.ordinal, a.code, a.enhanced, a.reply
          FROM jobs j JOIN attempts a ON a.job_id = j.id JOIN relays r ON r.id = a.relay_id
         WHERE j.broadcast_id = $1 AND j.flagged > 0 AND a.status = 'uncertain' AND a.class = $2 AND r.name = $3
         ORDER BY a.at DESC, a.job_id DESC LIMIT 1",
    )
    .bind(id)
    .bind(&evidence.class)
    .bind(&evidence.relay)
    .fetch_optional(tx)
    .await?;
    row.map(ExampleRow::into_example).transpose()
}

async fn example(tx: &mut Connection, id: &str, class: &str) -> Result<Option<Example>> {
    let row: Option<ExampleRow> = sqlx::query_as(
        "-- failure_example
        SELECT job_id, ordinal, code, enhanced, reply FROM failures WHERE broadcast_id = $1 AND class = $2
         ORDER BY at DESC, job_id DESC LIMIT 1",
    )
    .bind(id)
    .bind(class)
    .fetch_optional(tx)
    .await?;
    row.map(ExampleRow::into_example).transpose()
}

impl ExampleRow {
    fn into_example(self) -> Result<Example> {
        let message = MessageId {
            job_id: self.job_id,
            ordinal: super::delivery::ordinal(self.ordinal)?,
        };
        let note = ReplyNote {
            code: self.code.and_then(|c| u16::try_from(c).ok()),
            enhanced: self.enhanced,
            text: self.reply,
        };
        Ok(Example::new(message.to_string(), note))
    }
}

/// The counts from which failures are reckoned from now on, as somebody has seen them who resumes the broadcast.
pub(super) async fn reckon_anew(tx: &mut Connection, standing: &Standing, pause: Option<&Pause>) -> Result<()> {
    let before: Seen = from_json("broadcasts.seen", &standing.seen)?;
    let seen = before.anew(&tally(tx, &standing.id).await?).tolerating(pause);
    store_seen(tx, &standing.id, &seen).await
}

async fn store_seen(tx: &mut Connection, id: &str, seen: &Seen) -> Result<()> {
    sqlx::query("-- reckon\n UPDATE broadcasts SET seen = $2 WHERE id = $1")
        .bind(id)
        .bind(to_json(seen))
        .execute(tx)
        .await?;
    Ok(())
}

/// Lets what stands behind a canary go: what is not due yet waits for its time.
pub(super) async fn open_gate(tx: &mut Connection, id: &str, state: CanaryState, now: Timestamp) -> Result<()> {
    sqlx::query("-- move_canary\n UPDATE broadcasts SET canary = $2 WHERE id = $1")
        .bind(id)
        .bind(state.as_str())
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "-- open_gate
        UPDATE jobs SET gated = 0,
               state = CASE WHEN state <> 'held' THEN state WHEN run_at > $2 THEN 'waiting' ELSE 'ready' END
         WHERE broadcast_id = $1 AND gated = 1",
    )
    .bind(id)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// One job's line of a retry.
#[derive(Serialize)]
struct Reopened {
    j: i64,
    n: i64,
}

impl SqlStore {
    async fn try_take_step(&self, id: &BroadcastId, w: &Watched, step: &Step, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        let Some(standing) = lock_broadcast(&mut tx, id).await? else {
            return Ok(false);
        };
        let is_as_seen = standing.paused == 0
            && matches!(standing.status.as_str(), "fanning_out" | "sending")
            && canary(standing.canary.as_deref())? == w.canary
            && from_json::<Seen>("broadcasts.seen", &standing.seen)? == w.seen;
        if !is_as_seen {
            return Ok(false);
        }
        match step {
            Step::Nothing => return Ok(false),
            Step::CanaryTried => {
                sqlx::query(
                    "-- canary_tried
                    UPDATE broadcasts SET canary_tried_at = COALESCE(canary_tried_at, $2) WHERE id = $1",
                )
                .bind(id.as_str())
                .bind(now.0)
                .execute(&mut *tx)
                .await?;
            }
            Step::OpenGate => open_gate(&mut tx, id.as_str(), CanaryState::Passed, now).await?,
            Step::Reckon(seen) => store_seen(&mut tx, id.as_str(), seen).await?,
            Step::Pause(found) => {
                let mut found = found.clone();
                if let Some(evidence) = &mut found.evidence {
                    evidence.example = match found.kind {
                        PauseKind::Doubt => doubt_example(&mut tx, id.as_str(), evidence).await?,
                        _ => example(&mut tx, id.as_str(), &evidence.class).await?,
                    };
                }
                if found.kind == PauseKind::Doubt {
                    sqlx::query("-- hold_doubts\n UPDATE broadcasts SET on_uncertain = 'hold' WHERE id = $1")
                        .bind(id.as_str())
                        .execute(&mut *tx)
                        .await?;
                }
                if found.kind == PauseKind::Canary {
                    sqlx::query("-- hold_canary\n UPDATE broadcasts SET canary = 'held' WHERE id = $1")
                        .bind(id.as_str())
                        .execute(&mut *tx)
                        .await?;
                }
                let reason = found.sentence().unwrap_or_default();
                pause(&mut tx, id, &reason, &found, now).await?;
            }
        }
        self.commit_and_wake(tx).await?;
        Ok(true)
    }

    async fn try_retry_failed(&self, id: &BroadcastId, classes: &[String], now: Timestamp) -> Result<Retried> {
        let mut tx = self.begin().await?;
        let standing = lock_broadcast(&mut tx, id).await?;
        let standing = standing.ok_or_else(|| StoreError::Conflict(format!("there is no broadcast {id}")))?;
        if matches!(standing.status.as_str(), "canceled" | "failed") {
            return Err(StoreError::Conflict(format!("the broadcast is {}", standing.status)));
        }
        if standing.expires_at.is_some_and(|at| at <= now.0) {
            return Err(StoreError::Conflict("the broadcast's time has passed".to_owned()));
        }
        let classes = json_texts(classes);
        // Locked by an update that changes nothing: nobody claims them until this is over.
        let jobs: Vec<(i64, String)> = sqlx::query_as(
            "-- lock_failed_jobs
            UPDATE jobs SET gated = gated
             WHERE id IN (SELECT f.job_id FROM failures f JOIN jobs j ON j.id = f.job_id JOIN chunks c ON c.job_id = f.job_id
                           WHERE f.broadcast_id = $1 AND f.class IN (SELECT value->>'v' FROM json_each($2))
                             AND j.state IN ('done', 'waiting', 'ready', 'held')
                           ORDER BY f.job_id LIMIT $3)
               AND state IN ('done', 'waiting', 'ready', 'held')
            RETURNING id, state",
        )
        .bind(id.as_str())
        .bind(&classes)
        .bind(RETRY_CHUNKS_MAX)
        .fetch_all(&mut *tx)
        .await?;
        if jobs.is_empty() {
            return Ok(Retried::default());
        }
        let ids = json_texts(jobs.iter().map(|(id, _)| id.to_string()));
        let back = put_back(&mut tx, &ids, &classes, now).await?;
        reopen_jobs(&mut tx, &back, standing.paused != 0, now).await?;
        let reopened = jobs
            .iter()
            .filter(|(id, state)| state == "done" && back.contains_key(id))
            .count();
        sqlx::query(
            "-- reopen_broadcast
            UPDATE broadcasts SET jobs_left = jobs_left + $2, status = CASE WHEN status = 'completed' THEN 'sending' ELSE status END,
                   finished_at = NULL
             WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(reopened as i64)
        .execute(&mut *tx)
        .await?;
        reckon_anew(&mut tx, &standing, None).await?;
        self.commit_and_wake(tx).await?;
        Ok(Retried {
            messages: back.values().sum(),
            has_more: jobs.len() as i64 == RETRY_CHUNKS_MAX,
        })
    }
}

/// Failed messages become deferred ones that are due; how many of each job.
async fn put_back(tx: &mut Connection, jobs: &str, classes: &str, now: Timestamp) -> Result<HashMap<i64, i64>> {
    let moved: Vec<i64> = sqlx::query_scalar(
        "-- put_back
        UPDATE messages SET status = 'deferred', burnt = 0, next_at = $3
         WHERE job_id IN (SELECT CAST(value->>'v' AS BIGINT) FROM json_each($1)) AND status = 'failed'
           AND class IN (SELECT value->>'v' FROM json_each($2))
        RETURNING job_id",
    )
    .bind(jobs)
    .bind(classes)
    .bind(now.0)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "-- forget_failures
        DELETE FROM failures WHERE job_id IN (SELECT CAST(value->>'v' AS BIGINT) FROM json_each($1))
           AND class IN (SELECT value->>'v' FROM json_each($2))",
    )
    .bind(jobs)
    .bind(classes)
    .execute(tx)
    .await?;
    let mut back = HashMap::new();
    for job in moved {
        *back.entry(job).or_insert(0) += 1;
    }
    Ok(back)
}

async fn reopen_jobs(tx: &mut Connection, back: &HashMap<i64, i64>, is_paused: bool, now: Timestamp) -> Result<()> {
    let lines: Vec<Reopened> = back.iter().map(|(&j, &n)| Reopened { j, n }).collect();
    sqlx::query(
        "-- reopen_jobs
        UPDATE jobs SET failed = failed - d.n, deferred = deferred + d.n, state = $2, run_at = $3, finished_at = NULL
          FROM (SELECT CAST(value->>'j' AS BIGINT) AS job_id, CAST(value->>'n' AS BIGINT) AS n FROM json_each($1)) AS d
         WHERE jobs.id = d.job_id",
    )
    .bind(to_json(&lines))
    .bind(if is_paused { "held" } else { "ready" })
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}
