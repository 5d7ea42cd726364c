//! Reports: see [`crate::store::reports`].

use async_trait::async_trait;

use super::broadcasts::{BroadcastRow, with_counts};
use super::chunks::{OpenedRow, note};
use super::delivery::ordinal;
use super::{SqlStore, from_json, parsed};
use crate::domain::address::SortKey;
use crate::domain::broadcast::Broadcast;
use crate::domain::counts::Counts;
use crate::domain::id::{BroadcastId, MessageId};
use crate::domain::message::MessageStatus;
use crate::domain::time::Timestamp;
use crate::domain::worker::{JobView, Worker};
use crate::store::Result;
use crate::store::reports::{AttemptView, MessageView, RATE_WINDOW_MS, Rate, Reports, Slice, Waiting};

/// Broadcasts searched for one address.
const BROADCASTS_SEARCHED_MAX: i64 = 200;
/// How long a worker that has ended stays on the page.
const WORKER_SHOWN_MS: i64 = 24 * 3_600_000;

#[derive(sqlx::FromRow)]
struct AttemptRow {
    n: i64,
    status: String,
    code: Option<i64>,
    enhanced: Option<String>,
    reply: String,
    class: String,
    relay: Option<String>,
    at: i64,
}

#[derive(sqlx::FromRow)]
struct PaceRow {
    settled: i64,
    claimed_at: i64,
    touched_at: i64,
}

#[derive(sqlx::FromRow)]
struct WorkerRow {
    id: i64,
    host: String,
    pid: i64,
    version: String,
    state: String,
    started_at: i64,
    seen_at: i64,
    stats: String,
    jobs: i64,
}

#[derive(sqlx::FromRow)]
struct JobRow {
    id: i64,
    broadcast_id: String,
    subject: String,
    kind: String,
    seq: i64,
    state: String,
    worker_id: Option<i64>,
    run_at: i64,
    touched_at: Option<i64>,
    size: i64,
    settled: i64,
    deaths: i64,
    last_error: Option<String>,
}

#[async_trait]
impl Reports for SqlStore {
    async fn ready(&self) -> Result<()> {
        sqlx::query("-- ready\n SELECT id, flagged FROM jobs LIMIT 1")
            .fetch_optional(&self.reader)
            .await?;
        Ok(())
    }

    async fn broadcast(&self, id: &BroadcastId) -> Result<Option<Broadcast>> {
        let mut tx = self.begin_snapshot().await?;
        let row: Option<BroadcastRow> = sqlx::query_as("-- broadcast\n SELECT * FROM broadcasts WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let mut found = with_counts(&mut tx, row.into_iter().collect()).await?;
        tx.commit().await?;
        Ok(found.pop())
    }

    async fn broadcasts(&self, after: Option<&str>, limit: i64) -> Result<Slice<Broadcast>> {
        let mut tx = self.begin_snapshot().await?;
        let mut rows: Vec<BroadcastRow> = sqlx::query_as(
            "-- broadcasts
            SELECT * FROM broadcasts WHERE id < $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(after.unwrap_or("brd_~"))
        .bind(limit + 1)
        .fetch_all(&mut *tx)
        .await?;
        let next = cut(&mut rows, limit)
            .then(|| rows.last().map(|r| r.id.clone()))
            .flatten();
        let rows = with_counts(&mut tx, rows).await?;
        tx.commit().await?;
        Ok(Slice { rows, next })
    }

    async fn rate(&self, id: &BroadcastId, now: Timestamp) -> Result<Rate> {
        let window_start = now.0 - RATE_WINDOW_MS;
        let rows: Vec<PaceRow> = sqlx::query_as(
            "-- pace
            SELECT sent + failed + uncertain + expired - settled_before AS settled,
                   COALESCE(claimed_at, touched_at) AS claimed_at, touched_at
              FROM jobs WHERE broadcast_id = $1 AND kind = 'deliver' AND touched_at > $2",
        )
        .bind(id.as_str())
        .bind(window_start)
        .fetch_all(&self.reader)
        .await?;
        let possible_duplicates = sqlx::query_scalar(
            "-- flagged
            SELECT CAST(COALESCE(SUM(flagged), 0) AS BIGINT) AS flagged FROM jobs WHERE broadcast_id = $1 AND kind = 'deliver'",
        )
        .bind(id.as_str())
        .fetch_one(&self.reader)
        .await?;
        Ok(Rate {
            per_sec: pace(&rows, window_start, now.0),
            possible_duplicates,
        })
    }

    async fn waiting(&self, id: &BroadcastId) -> Result<Waiting> {
        let n_active = sqlx::query_scalar(
            "-- n_active
            SELECT COUNT(*) AS n FROM jobs WHERE broadcast_id = $1 AND state IN ('ready', 'running')",
        )
        .bind(id.as_str())
        .fetch_one(&self.reader)
        .await?;
        let first: Option<(i64, Option<String>)> = sqlx::query_as(
            "-- waits_for
            SELECT run_at, waits_for FROM jobs WHERE broadcast_id = $1 AND state = 'waiting'
             ORDER BY CASE WHEN waits_for IS NULL THEN 1 ELSE 0 END, run_at LIMIT 1",
        )
        .bind(id.as_str())
        .fetch_optional(&self.reader)
        .await?;
        let (until, by) = first.unzip();
        let by = by
            .flatten()
            .map(|json| from_json("jobs.waits_for", &json))
            .transpose()?;
        Ok(Waiting {
            n_active,
            until: until.map(Timestamp),
            by,
        })
    }

    async fn messages(
        &self,
        id: &BroadcastId,
        status: Option<MessageStatus>,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Slice<MessageView>> {
        let (mut seq, mut passed) = after.map_or((0, -1), parse_cursor);
        let mut found: Vec<(i64, MessageView)> = Vec::new();
        'chunks: loop {
            let opened = self.open_chunks(id, status, seq).await?;
            for chunk in &opened {
                for view in self.views(chunk).await? {
                    let beyond = chunk.seq > seq || i64::from(view.id.ordinal) > passed;
                    if beyond && status.is_none_or(|s| s == view.status) {
                        found.push((chunk.seq, view));
                    }
                }
                if found.len() as i64 > limit {
                    break 'chunks;
                }
            }
            match opened.last() {
                Some(last) => (seq, passed) = (last.seq + 1, -1),
                None => break,
            }
        }
        let more = cut(&mut found, limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(seq, view)| format!("{seq}.{}", view.id.ordinal));
        Ok(Slice {
            rows: found.into_iter().map(|(_, view)| view).collect(),
            next,
        })
    }

    async fn message_to(&self, id: &BroadcastId, normalised: &str) -> Result<Option<MessageView>> {
        let key = SortKey::of(normalised);
        let opened: Option<OpenedRow> = sqlx::query_as(
            "-- chunk_of_key
            SELECT j.id, j.broadcast_id, j.seq, j.state, j.size, c.payload FROM chunks c JOIN jobs j ON j.id = c.job_id
             WHERE c.broadcast_id = $1 AND c.first_key <= $2 AND c.last_key >= $2
             ORDER BY c.first_key DESC LIMIT 1",
        )
        .bind(id.as_str())
        .bind(key.as_str())
        .fetch_optional(&self.reader)
        .await?;
        let Some(opened) = opened else { return Ok(None) };
        let recipients = opened.recipients();
        match recipients
            .iter()
            .position(|r| r.as_ref().is_some_and(|r| r.email.normalised() == normalised))
        {
            Some(place) => self.view_at(&opened, &recipients, ordinal(place as i64)?).await,
            None => Ok(None),
        }
    }

    async fn messages_to(&self, normalised: &str, limit: i64) -> Result<Vec<MessageView>> {
        let key = SortKey::of(normalised);
        let ids: Vec<String> = sqlx::query_scalar(
            "-- broadcasts_with_key
            SELECT b.id FROM broadcasts b
             WHERE EXISTS (SELECT 1 FROM chunks c WHERE c.broadcast_id = b.id AND c.first_key <= $1 AND c.last_key >= $1)
             ORDER BY b.id DESC LIMIT $2",
        )
        .bind(key.as_str())
        .bind(BROADCASTS_SEARCHED_MAX)
        .fetch_all(&self.reader)
        .await?;
        let mut found = Vec::new();
        for id in ids {
            if found.len() as i64 >= limit {
                break;
            }
            found.extend(self.message_to(&parsed("broadcasts.id", &id)?, normalised).await?);
        }
        Ok(found)
    }

    async fn message(&self, id: MessageId) -> Result<Option<MessageView>> {
        let opened: Option<OpenedRow> = sqlx::query_as(
            "-- chunk_of_job
            SELECT j.id, j.broadcast_id, j.seq, j.state, j.size, c.payload FROM chunks c JOIN jobs j ON j.id = c.job_id
             WHERE c.job_id = $1",
        )
        .bind(id.job_id)
        .fetch_optional(&self.reader)
        .await?;
        let Some(opened) = opened else { return Ok(None) };
        let recipients = opened.recipients();
        self.view_at(&opened, &recipients, id.ordinal).await
    }

    async fn attempts(&self, id: MessageId) -> Result<Vec<AttemptView>> {
        let mut rows: Vec<AttemptRow> = sqlx::query_as(
            "-- attempts
            SELECT a.n, a.status, a.code, a.enhanced, a.reply, a.class, r.name AS relay, a.at
              FROM attempts a LEFT JOIN relays r ON r.id = a.relay_id
             WHERE a.job_id = $1 AND a.ordinal = $2 ORDER BY a.n",
        )
        .bind(id.job_id)
        .bind(i64::from(id.ordinal))
        .fetch_all(&self.reader)
        .await?;
        if rows.is_empty() {
            // Sent at once: the message's own row is its only attempt.
            rows = sqlx::query_as(
                "-- only_attempt
                SELECT m.attempts AS n, m.status, m.code, m.enhanced, m.reply, m.class, r.name AS relay, m.at
                  FROM messages m LEFT JOIN relays r ON r.id = m.relay_id
                 WHERE m.job_id = $1 AND m.ordinal = $2 AND m.attempts = 1 AND m.status = 'sent'",
            )
            .bind(id.job_id)
            .bind(i64::from(id.ordinal))
            .fetch_all(&self.reader)
            .await?;
        }
        rows.into_iter()
            .map(|r| {
                Ok(AttemptView {
                    n: r.n,
                    status: parsed("attempts.status", &r.status)?,
                    reply: note(r.code, r.enhanced, r.reply),
                    class: r.class,
                    relay: r.relay,
                    at: Timestamp(r.at),
                })
            })
            .collect()
    }

    async fn workers(&self, now: Timestamp) -> Result<Vec<Worker>> {
        let rows: Vec<WorkerRow> = sqlx::query_as(
            "-- workers
            SELECT w.id, w.host, w.pid, w.version, w.state, w.started_at, w.seen_at, w.stats,
                   (SELECT COUNT(*) FROM jobs j WHERE j.worker_id = w.id AND j.state = 'running') AS jobs
              FROM workers w WHERE w.state IN ('live', 'draining') OR w.seen_at > $1
             ORDER BY CASE WHEN w.state IN ('live', 'draining') THEN 0 ELSE 1 END, w.id DESC LIMIT 100",
        )
        .bind(now.0 - WORKER_SHOWN_MS)
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter()
            .map(|r| {
                Ok(Worker {
                    id: r.id,
                    host: r.host,
                    pid: r.pid,
                    version: r.version,
                    state: r.state,
                    started_at: Timestamp(r.started_at),
                    seen_at: Timestamp(r.seen_at),
                    stats: serde_json::from_str(&r.stats).unwrap_or_default(),
                    jobs: r.jobs,
                })
            })
            .collect()
    }

    async fn jobs(&self, state: Option<&str>, limit: i64) -> Result<Vec<JobView>> {
        let rows: Vec<JobRow> = sqlx::query_as(
            "-- jobs
            SELECT j.id, j.broadcast_id, b.subject, j.kind, j.seq, j.state, j.worker_id, j.run_at, j.touched_at, j.size,
                   j.sent + j.failed + j.suppressed + j.uncertain + j.expired AS settled, j.deaths, j.last_error
              FROM jobs j JOIN broadcasts b ON b.id = j.broadcast_id
             WHERE ($1 = '' AND j.state IN ('running', 'ready', 'waiting', 'held', 'quarantined')) OR j.state = $1
             ORDER BY CASE j.state WHEN 'quarantined' THEN 0 WHEN 'running' THEN 1 WHEN 'ready' THEN 2 WHEN 'waiting' THEN 3 ELSE 4 END,
                   j.priority, j.seq, j.id LIMIT $2",
        )
        .bind(state.unwrap_or(""))
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| JobView {
                id: r.id,
                broadcast_id: r.broadcast_id,
                subject: r.subject,
                kind: r.kind,
                seq: r.seq,
                state: r.state,
                worker_id: r.worker_id,
                run_at: Timestamp(r.run_at),
                touched_at: r.touched_at.map(Timestamp),
                size: r.size,
                settled: r.settled,
                deaths: r.deaths,
                last_error: r.last_error,
            })
            .collect())
    }

    async fn recount(&self, id: &BroadcastId) -> Result<Counts> {
        let mut counts = Counts::default();
        let mut seq = 0;
        loop {
            let opened = self.open_chunks(id, None, seq).await?;
            let Some(last) = opened.last() else { return Ok(counts) };
            seq = last.seq + 1;
            for chunk in &opened {
                for view in self.views(chunk).await? {
                    counts.add(view.status, 1);
                }
            }
        }
    }
}

/// Messages per second in the window, from jobs alone: of a job that was claimed before the window, the
/// share that falls into it.
fn pace(rows: &[PaceRow], window_start: i64, now: i64) -> f64 {
    let mut settled = 0.0;
    let mut earliest = now;
    for row in rows {
        let span = (row.touched_at - row.claimed_at).max(1) as f64;
        let inside = (row.touched_at - row.claimed_at.max(window_start)).max(1) as f64;
        settled += row.settled as f64 * (inside / span).min(1.0);
        earliest = earliest.min(row.claimed_at.max(window_start));
    }
    let seconds = (now - earliest).max(1_000) as f64 / 1_000.0;
    settled / seconds
}

fn parse_cursor(text: &str) -> (i64, i64) {
    let (seq, ordinal) = text.split_once('.').unwrap_or((text, "-1"));
    (seq.parse().unwrap_or(0), ordinal.parse().unwrap_or(-1))
}

/// Cuts a page to its limit and tells whether there was more.
pub(super) fn cut<T>(rows: &mut Vec<T>, limit: i64) -> bool {
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}
