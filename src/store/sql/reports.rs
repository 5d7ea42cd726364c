//! Reports: see [`crate::store::reports`].

use std::collections::HashMap;

use async_trait::async_trait;

use super::delivery::ordinal;
use super::{Connection, Db, SqlStore, from_json, json_texts, parsed};
use crate::domain::address::SortKey;
use crate::domain::broadcast::{Broadcast, BroadcastStatus, OnUncertain, Priority};
use crate::domain::counts::{Counts, Received};
use crate::domain::id::{BroadcastId, MessageId};
use crate::domain::message::{MessageStatus, ReplyNote};
use crate::domain::recipient::{self, Recipient};
use crate::domain::time::Timestamp;
use crate::domain::worker::{JobView, Worker};
use crate::store::reports::{AttemptView, MessageView, RATE_WINDOW_MS, Rate, Reports, Slice};
use crate::store::{Result, StoreError};

/// Chunks opened for one page of messages before a new statement asks for more.
const CHUNKS_AT_A_TIME: i64 = 8;
/// Broadcasts searched for one address.
const BROADCASTS_SEARCHED_MAX: i64 = 200;
/// How long a worker that has ended stays on the page.
const WORKER_SHOWN_MS: i64 = 24 * 3_600_000;

#[derive(sqlx::FromRow)]
struct BroadcastRow {
    id: String,
    status: String,
    paused: i64,
    reason: Option<String>,
    subject: String,
    from_email: String,
    audience: String,
    template_id: Option<String>,
    campaign_id: Option<String>,
    send_at: Option<i64>,
    expires_at: Option<i64>,
    on_uncertain: String,
    priority: i64,
    tags: String,
    metadata: String,
    received: i64,
    rejected: i64,
    duplicates: i64,
    chunked: i64,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct CountsRow {
    broadcast_id: String,
    queued: i64,
    deferred: i64,
    sent: i64,
    failed: i64,
    suppressed: i64,
    uncertain: i64,
    canceled: i64,
    expired: i64,
}

#[derive(sqlx::FromRow)]
struct MessageRow {
    ordinal: i64,
    status: String,
    attempts: i64,
    possible_duplicate: i64,
    code: Option<i64>,
    enhanced: Option<String>,
    reply: String,
    class: String,
    relay: Option<String>,
    at: i64,
    next_at: Option<i64>,
}

/// A chunk opened for reading: its job's state decides what its queued messages are.
#[derive(sqlx::FromRow)]
struct OpenedRow {
    id: i64,
    broadcast_id: String,
    seq: i64,
    state: String,
    payload: Vec<u8>,
}

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
            SELECT j.id, j.broadcast_id, j.seq, j.state, c.payload FROM chunks c JOIN jobs j ON j.id = c.job_id
             WHERE c.broadcast_id = $1 AND c.first_key <= $2 AND c.last_key >= $2
             ORDER BY c.first_key DESC LIMIT 1",
        )
        .bind(id.as_str())
        .bind(key.as_str())
        .fetch_optional(&self.reader)
        .await?;
        let Some(opened) = opened else { return Ok(None) };
        let recipients = opened.recipients()?;
        match recipients.iter().position(|r| r.email.normalised() == normalised) {
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
            SELECT j.id, j.broadcast_id, j.seq, j.state, c.payload FROM chunks c JOIN jobs j ON j.id = c.job_id
             WHERE c.job_id = $1",
        )
        .bind(id.job_id)
        .fetch_optional(&self.reader)
        .await?;
        let Some(opened) = opened else { return Ok(None) };
        let recipients = opened.recipients()?;
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

impl SqlStore {
    /// The next chunks from `seq` on that can hold messages of a status: the jobs' counters are the index.
    async fn open_chunks(&self, id: &BroadcastId, status: Option<MessageStatus>, seq: i64) -> Result<Vec<OpenedRow>> {
        let rows = sqlx::query_as(
            "-- open_chunks
            SELECT j.id, j.broadcast_id, j.seq, j.state, c.payload FROM jobs j JOIN chunks c ON c.job_id = j.id
             WHERE j.broadcast_id = $1 AND j.kind = 'deliver' AND j.seq >= $2
               AND CASE $3 WHEN '' THEN j.size
                   WHEN 'sent' THEN j.sent WHEN 'failed' THEN j.failed WHEN 'suppressed' THEN j.suppressed
                   WHEN 'uncertain' THEN j.uncertain WHEN 'expired' THEN j.expired
                   WHEN 'deferred' THEN CASE WHEN j.state = 'canceled' THEN 0 ELSE j.deferred END
                   WHEN 'canceled' THEN CASE WHEN j.state = 'canceled' THEN 1 ELSE 0 END
                   ELSE CASE WHEN j.state = 'canceled' THEN 0
                        ELSE j.size - j.sent - j.failed - j.deferred - j.suppressed - j.uncertain - j.expired END
                   END > 0
             ORDER BY j.seq LIMIT $4",
        )
        .bind(id.as_str())
        .bind(seq)
        .bind(status.map_or("", MessageStatus::as_str))
        .bind(CHUNKS_AT_A_TIME)
        .fetch_all(&self.reader)
        .await?;
        Ok(rows)
    }

    /// All messages of a chunk, in the order of their ordinals.
    async fn views(&self, chunk: &OpenedRow) -> Result<Vec<MessageView>> {
        let rows: Vec<MessageRow> = sqlx::query_as(
            "-- messages_of_job
            SELECT m.ordinal, m.status, m.attempts, m.possible_duplicate, m.code, m.enhanced, m.reply, m.class,
                   r.name AS relay, m.at, m.next_at
              FROM messages m LEFT JOIN relays r ON r.id = m.relay_id WHERE m.job_id = $1",
        )
        .bind(chunk.id)
        .fetch_all(&self.reader)
        .await?;
        let mut by_ordinal: HashMap<i64, MessageRow> = rows.into_iter().map(|r| (r.ordinal, r)).collect();
        (0i64..)
            .zip(chunk.recipients()?)
            .map(|(place, recipient)| chunk.view(ordinal(place)?, &recipient, by_ordinal.remove(&place)))
            .collect()
    }

    async fn view_at(&self, chunk: &OpenedRow, recipients: &[Recipient], place: u16) -> Result<Option<MessageView>> {
        let Some(recipient) = recipients.get(usize::from(place)) else {
            return Ok(None);
        };
        let row: Option<MessageRow> = sqlx::query_as(
            "-- message_row
            SELECT m.ordinal, m.status, m.attempts, m.possible_duplicate, m.code, m.enhanced, m.reply, m.class,
                   r.name AS relay, m.at, m.next_at
              FROM messages m LEFT JOIN relays r ON r.id = m.relay_id WHERE m.job_id = $1 AND m.ordinal = $2",
        )
        .bind(chunk.id)
        .bind(i64::from(place))
        .fetch_optional(&self.reader)
        .await?;
        chunk.view(place, recipient, row).map(Some)
    }
}

impl OpenedRow {
    fn recipients(&self) -> Result<Vec<Recipient>> {
        recipient::decode(&self.payload)
            .map_err(|e| StoreError::Corrupt(format!("chunks.payload of job {}: {e}", self.id)))
    }

    /// A message as it is shown: without a row it is queued; what a canceled job did not settle is canceled.
    fn view(&self, ordinal: u16, recipient: &Recipient, row: Option<MessageRow>) -> Result<MessageView> {
        let stored = match &row {
            Some(row) => parsed("messages.status", &row.status)?,
            None => MessageStatus::Queued,
        };
        let canceled = self.state == "canceled" && !stored.is_final();
        let mut view = MessageView {
            id: MessageId {
                job_id: self.id,
                ordinal,
            },
            broadcast_id: parsed("jobs.broadcast_id", &self.broadcast_id)?,
            email: recipient.email.to_string(),
            name: recipient.name.as_deref().map(ToOwned::to_owned),
            status: if canceled { MessageStatus::Canceled } else { stored },
            attempts: 0,
            possible_duplicate: false,
            reply: None,
            class: String::new(),
            relay: None,
            at: None,
            next_at: None,
        };
        if let Some(row) = row {
            view.attempts = row.attempts;
            view.possible_duplicate = row.possible_duplicate != 0;
            view.reply = Some(note(row.code, row.enhanced, row.reply));
            view.class = row.class;
            view.relay = row.relay;
            view.at = Some(Timestamp(row.at));
            view.next_at = row
                .next_at
                .filter(|_| view.status == MessageStatus::Deferred)
                .map(Timestamp);
        }
        Ok(view)
    }
}

/// Adds the counts, in the transaction that read the rows: a chunk written between the two would be counted
/// twice, in the row as yet to come and in its job.
async fn with_counts(tx: &mut Connection, rows: Vec<BroadcastRow>) -> Result<Vec<Broadcast>> {
    // A canceled job's messages without a final status are canceled; so no message is ever counted twice
    // or left out, whatever its chunk's state.
    let counted: Vec<CountsRow> = sqlx::query_as::<Db, CountsRow>(
        "-- counts
        SELECT broadcast_id,
               CAST(SUM(CASE WHEN state = 'canceled' THEN 0
                    ELSE size - sent - failed - deferred - suppressed - uncertain - expired END) AS BIGINT) AS queued,
               CAST(SUM(CASE WHEN state = 'canceled' THEN 0 ELSE deferred END) AS BIGINT) AS deferred,
               CAST(SUM(sent) AS BIGINT) AS sent, CAST(SUM(failed) AS BIGINT) AS failed,
               CAST(SUM(suppressed) AS BIGINT) AS suppressed, CAST(SUM(uncertain) AS BIGINT) AS uncertain,
               CAST(SUM(CASE WHEN state = 'canceled' THEN size - sent - failed - suppressed - uncertain - expired
                    ELSE 0 END) AS BIGINT) AS canceled,
               CAST(SUM(expired) AS BIGINT) AS expired
          FROM jobs
         WHERE kind = 'deliver' AND broadcast_id IN (SELECT value->>'v' FROM json_each($1))
         GROUP BY broadcast_id",
    )
    .bind(json_texts(rows.iter().map(|r| r.id.as_str())))
    .fetch_all(tx)
    .await?;
    let mut by_id: HashMap<String, CountsRow> = counted.into_iter().map(|c| (c.broadcast_id.clone(), c)).collect();
    rows.into_iter().map(|row| row_to_broadcast(&mut by_id, row)).collect()
}

fn row_to_broadcast(by_id: &mut HashMap<String, CountsRow>, row: BroadcastRow) -> Result<Broadcast> {
    let mut counts = by_id.remove(&row.id).map_or_else(Counts::default, |c| Counts {
        queued: c.queued,
        deferred: c.deferred,
        sent: c.sent,
        failed: c.failed,
        suppressed: c.suppressed,
        uncertain: c.uncertain,
        canceled: c.canceled,
        expired: c.expired,
    });
    let received = Received {
        received: row.received,
        rejected: row.rejected,
        duplicates: row.duplicates,
    };
    let status: BroadcastStatus = parsed("broadcasts.status", &row.status)?;
    // Recipients that do not stand in a chunk yet are queued, or canceled with their broadcast.
    let staged = received.accepted() - row.chunked;
    counts.add(
        if status == BroadcastStatus::Canceled {
            MessageStatus::Canceled
        } else {
            MessageStatus::Queued
        },
        staged,
    );
    Ok(Broadcast {
        id: parsed("broadcasts.id", &row.id)?,
        status: if row.paused != 0 && !status.is_final() {
            BroadcastStatus::Paused
        } else {
            status
        },
        reason: row.reason,
        subject: row.subject,
        from_email: row.from_email,
        audience: from_json("broadcasts.audience", &row.audience)?,
        template_id: row.template_id,
        campaign_id: row.campaign_id,
        send_at: row.send_at.map(Timestamp),
        expires_at: row.expires_at.map(Timestamp),
        on_uncertain: if row.on_uncertain == "hold" {
            OnUncertain::Hold
        } else {
            OnUncertain::Resend
        },
        priority: Priority::from_rank(row.priority),
        tags: from_json("broadcasts.tags", &row.tags)?,
        metadata: from_json("broadcasts.metadata", &row.metadata)?,
        received,
        counts,
        created_at: Timestamp(row.created_at),
        started_at: row.started_at.map(Timestamp),
        finished_at: row.finished_at.map(Timestamp),
    })
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

fn note(code: Option<i64>, enhanced: Option<String>, text: String) -> ReplyNote {
    ReplyNote {
        code: code.and_then(|c| u16::try_from(c).ok()),
        enhanced,
        text,
    }
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
