//! Delivery: see [`crate::store::delivery`].

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use serde::Serialize;

use super::dkim::keys_named;
use super::learnt::write_learnt;
use super::{Connection, GROUP, SqlStore, from_json, json_texts, parsed, retrying, to_json};
use crate::domain::broadcast::{Brief, OnUncertain};
use crate::domain::chunk::Chunk;
use crate::domain::counts::Counts;
use crate::domain::id::BroadcastId;
use crate::domain::job::{Lease, Stop};
use crate::domain::message::MessageStatus;
use crate::domain::recipient;
use crate::domain::time::Timestamp;
use crate::store::delivery::{Ack, ChunkWork, Delivery, Earlier, Progress, Settled};
use crate::store::group::{MOVE_JOBS, WRITE_MESSAGES};
use crate::store::{Result, StoreError};

#[derive(sqlx::FromRow)]
struct BriefRow {
    letter: String,
    dkim_keys: String,
    send_at: Option<i64>,
    created_at: i64,
    expires_at: Option<i64>,
    relay: Option<String>,
}

#[derive(sqlx::FromRow)]
struct EarlierRow {
    ordinal: i64,
    status: String,
    attempts: i64,
    burnt: i64,
    possible_duplicate: i64,
    next_at: Option<i64>,
}

#[async_trait]
impl Delivery for SqlStore {
    async fn brief(&self, id: &BroadcastId) -> Result<Brief> {
        let row: BriefRow = sqlx::query_as(
            "-- brief
            SELECT l.letter, l.dkim_keys, b.send_at, b.created_at, b.expires_at, b.relay
              FROM broadcasts b JOIN letters l ON l.broadcast_id = b.id WHERE b.id = $1",
        )
        .bind(id.as_str())
        .fetch_one(&self.reader)
        .await?;
        Ok(Brief {
            id: id.clone(),
            letter: from_json("letters.letter", &row.letter)?,
            dkim_keys: keys_named(&self.reader, &row.dkim_keys).await?,
            date: Timestamp(row.send_at.unwrap_or(row.created_at)),
            expires_at: row.expires_at.map(Timestamp),
            relay: row.relay,
        })
    }

    async fn chunk_work(&self, lease: Lease) -> Result<ChunkWork> {
        let (payload, on_uncertain): (Vec<u8>, String) = sqlx::query_as(
            "-- chunk_payload
            SELECT c.payload, b.on_uncertain FROM chunks c JOIN jobs j ON j.id = c.job_id JOIN broadcasts b ON b.id = j.broadcast_id
             WHERE c.job_id = $1",
        )
        .bind(lease.job_id)
        .fetch_one(&self.reader)
        .await?;
        let recipients = recipient::decode(&payload)
            .map_err(|e| StoreError::Corrupt(format!("chunks.payload of job {}: {e}", lease.job_id)))?;
        // From the writer: the rows must be at least as new as the claim.
        let rows: Vec<EarlierRow> = sqlx::query_as(
            "-- earlier
            SELECT ordinal, status, attempts, burnt, possible_duplicate, next_at FROM messages WHERE job_id = $1",
        )
        .bind(lease.job_id)
        .fetch_all(&self.writer)
        .await?;
        let earlier = rows
            .into_iter()
            .map(|r| {
                Ok(Earlier {
                    ordinal: ordinal(r.ordinal)?,
                    status: parsed("messages.status", &r.status)?,
                    attempts: r.attempts,
                    burnt: r.burnt,
                    possible_duplicate: r.possible_duplicate != 0,
                    next_at: r.next_at.map(Timestamp),
                })
            })
            .collect::<Result<_>>()?;
        Ok(ChunkWork {
            chunk: Chunk { recipients },
            earlier,
            on_uncertain: match on_uncertain.as_str() {
                "hold" => OnUncertain::Hold,
                _ => OnUncertain::Resend,
            },
        })
    }

    async fn suppressed_among(&self, addresses: &[String]) -> Result<HashSet<String>> {
        let rows: Vec<String> = sqlx::query_scalar(
            "-- suppressed_among
            SELECT address FROM suppressions WHERE address IN (SELECT value->>'v' FROM json_each($1))",
        )
        .bind(json_texts(addresses))
        .fetch_all(&self.writer)
        .await?;
        Ok(rows.into_iter().collect())
    }

    async fn commit_progress(&self, batch: &[Progress], now: Timestamp) -> Result<Vec<Ack>> {
        retrying(|| self.try_commit_progress(batch, now)).await
    }

    async fn relay_id(&self, name: &str) -> Result<i64> {
        let id = sqlx::query_scalar(
            "-- relay_id
            INSERT INTO relays (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id",
        )
        .bind(name)
        .fetch_one(&self.writer)
        .await?;
        Ok(id)
    }
}

pub(super) fn ordinal(stored: i64) -> Result<u16> {
    u16::try_from(stored).map_err(|_| StoreError::Corrupt(format!("messages.ordinal {stored}")))
}

/// One job's line of the group commit.
#[derive(Serialize)]
struct JobDelta {
    j: i64,
    e: i64,
    n: i64,
    /// The intents, as text.
    i: String,
    s: i64,
    f: i64,
    d: i64,
    p: i64,
    u: i64,
    x: i64,
    g: i64,
}

/// One message's line of the group commit; short names, since there are many.
#[derive(Serialize)]
struct MessageLine<'a> {
    j: i64,
    o: u16,
    s: &'static str,
    a: i64,
    b: i64,
    g: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<&'a str>,
    r: &'a str,
    k: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<i64>,
    t: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<i64>,
}

impl JobDelta {
    fn of(progress: &Progress) -> Self {
        let mut moved = Counts::default();
        let mut flagged = 0;
        for settled in &progress.settled {
            moved.add(settled.before, -1);
            moved.add(settled.outcome.status, 1);
            flagged += i64::from(settled.newly_flagged);
        }
        JobDelta {
            j: progress.lease.job_id,
            e: progress.lease.epoch,
            n: progress.number,
            i: to_json(&progress.inflight),
            s: moved.sent,
            f: moved.failed,
            d: moved.deferred,
            p: moved.suppressed,
            u: moved.uncertain,
            x: moved.expired,
            g: flagged,
        }
    }
}

impl<'a> MessageLine<'a> {
    fn of(lease: Lease, settled: &'a Settled) -> Self {
        let outcome = &settled.outcome;
        MessageLine {
            j: lease.job_id,
            o: settled.ordinal,
            s: outcome.status.as_str(),
            a: settled.attempts,
            b: settled.burnt,
            g: i64::from(outcome.possible_duplicate),
            c: outcome.reply.code,
            e: outcome.reply.enhanced.as_deref(),
            r: &outcome.reply.text,
            k: outcome.class,
            y: settled.relay_id,
            t: settled.at.0,
            n: outcome.next_at.map(|t| t.0),
        }
    }
}

/// The attempt's own row: for all but the only one of a message that was sent at once.
fn attempt_line(lease: Lease, settled: &Settled) -> Option<MessageLine<'_>> {
    let status = settled.attempt?;
    if status == MessageStatus::Sent && settled.attempts == 1 {
        return None;
    }
    Some(MessageLine {
        s: status.as_str(),
        ..MessageLine::of(lease, settled)
    })
}

/// Whether an outcome is written by its message's row and the counters alone: sent, at the first try.
fn is_plain(settled: &Settled) -> bool {
    settled.outcome.status == MessageStatus::Sent && settled.attempts <= 1 && settled.bounce.is_none()
}

impl SqlStore {
    async fn try_commit_progress(&self, batch: &[Progress], now: Timestamp) -> Result<Vec<Ack>> {
        check_batch(batch)?;
        let is_plain = batch.iter().flat_map(|p| &p.settled).all(is_plain);
        // A process that is to die between the steps has to take them.
        let mut acked = match is_plain && !armed!("group-half-written", "group-written") {
            true => self.commit_at_once(batch, now).await?,
            false => self.commit_in_steps(batch, now).await?,
        };
        point!("group-committed");
        let missing: Vec<&Progress> = batch.iter().filter(|p| !acked.contains_key(&p.lease)).collect();
        if !missing.is_empty() {
            acked.extend(self.already_moved(&missing).await?);
        }
        let ack = |p: &Progress| match acked.get(&p.lease) {
            Some(stop) => Ack::Durable { stop: *stop },
            None => Ack::Fenced,
        };
        Ok(batch.iter().map(ack).collect())
    }

    async fn commit_at_once(&self, batch: &[Progress], now: Timestamp) -> Result<Moved> {
        let deltas: Vec<JobDelta> = batch.iter().map(JobDelta::of).collect();
        let mut whole = self.whole().await?;
        let rows: Vec<MovedRow> = sqlx::query_as(GROUP)
            .bind(to_json(&deltas))
            .bind(now.0)
            .bind(to_json(&message_lines(batch.iter())))
            .fetch_all(&mut *whole)
            .await?;
        whole.done();
        Ok(moved(rows))
    }

    async fn commit_in_steps(&self, batch: &[Progress], now: Timestamp) -> Result<Moved> {
        let mut tx = self.begin().await?;
        let acked = move_jobs(&mut tx, batch, now).await?;
        point!("group-half-written");
        let held = || batch.iter().filter(|p| acked.contains_key(&p.lease));
        let lines = message_lines(held());
        if !lines.is_empty() {
            write_messages(&mut tx, &to_json(&lines)).await?;
        }
        let tries: Vec<MessageLine> = held()
            .flat_map(|p| p.settled.iter().filter_map(|s| attempt_line(p.lease, s)))
            .collect();
        if !tries.is_empty() {
            write_attempts(&mut tx, &to_json(&tries)).await?;
        }
        write_learnt(&mut tx, &held().collect::<Vec<_>>(), now).await?;
        point!("group-written");
        tx.commit().await?;
        Ok(acked)
    }

    /// Of the jobs that were not moved, those that stand at this very commit: it took effect before, and only its
    /// answer was lost.
    async fn already_moved(&self, missing: &[&Progress]) -> Result<Moved> {
        let mut found = HashMap::new();
        for progress in missing {
            let row: Option<(Option<String>,)> = sqlx::query_as(
                "-- already_moved
                SELECT stop FROM jobs WHERE id = $1 AND epoch = $2 AND commit_no = $3 AND state = 'running'",
            )
            .bind(progress.lease.job_id)
            .bind(progress.lease.epoch)
            .bind(progress.number)
            .fetch_optional(&self.writer)
            .await?;
            if let Some((stop,)) = row {
                found.insert(progress.lease, stop.as_deref().and_then(Stop::parse));
            }
        }
        Ok(found)
    }
}

fn message_lines<'a>(batch: impl Iterator<Item = &'a Progress>) -> Vec<MessageLine<'a>> {
    batch
        .flat_map(|p| p.settled.iter().map(|s| MessageLine::of(p.lease, s)))
        .collect()
}

/// Refuses what the counters could not follow. A bulk update takes the first of two lines for one row and
/// drops the other without a word, so that a count would be lost.
fn check_batch(batch: &[Progress]) -> Result<()> {
    let mut jobs = HashSet::new();
    for progress in batch {
        let mut ordinals = HashSet::new();
        let sound = |s: &Settled| {
            !s.before.is_final() && !matches!(s.outcome.status, MessageStatus::Queued | MessageStatus::Canceled)
        };
        if !jobs.insert(progress.lease.job_id) {
            return Err(StoreError::Refused("a job stands twice in one commit".to_owned()));
        }
        if !progress.settled.iter().all(|s| sound(s) && ordinals.insert(s.ordinal)) {
            return Err(StoreError::Refused("a message is settled twice, or to what is no outcome".to_owned()));
        }
    }
    Ok(())
}

/// The leases that hold, and whether an operator wants their jobs stopped.
type Moved = HashMap<Lease, Option<Stop>>;
type MovedRow = (i64, i64, Option<String>);

fn moved(rows: Vec<MovedRow>) -> Moved {
    let lease = |(job_id, epoch, stop): MovedRow| (Lease { job_id, epoch }, stop.as_deref().and_then(Stop::parse));
    rows.into_iter().map(lease).collect()
}

/// The fence, the counters and the intents of all jobs in one statement. What does not come back is fenced.
async fn move_jobs(tx: &mut Connection, batch: &[Progress], now: Timestamp) -> Result<Moved> {
    let deltas: Vec<JobDelta> = batch.iter().map(JobDelta::of).collect();
    let rows: Vec<MovedRow> = sqlx::query_as(MOVE_JOBS)
        .bind(to_json(&deltas))
        .bind(now.0)
        .fetch_all(tx)
        .await?;
    Ok(moved(rows))
}

async fn write_messages(tx: &mut Connection, lines: &str) -> Result<()> {
    sqlx::query(WRITE_MESSAGES).bind(lines).execute(tx).await?;
    Ok(())
}

async fn write_attempts(tx: &mut Connection, lines: &str) -> Result<()> {
    sqlx::query(
        "-- write_attempts
        INSERT INTO attempts (job_id, ordinal, n, status, code, enhanced, reply, class, relay_id, at)
        SELECT CAST(value->>'j' AS BIGINT), CAST(value->>'o' AS BIGINT), CAST(value->>'a' AS BIGINT), value->>'s',
               CAST(value->>'c' AS BIGINT), value->>'e', value->>'r', value->>'k', CAST(value->>'y' AS BIGINT),
               CAST(value->>'t' AS BIGINT)
          FROM json_each($1) WHERE true
        ON CONFLICT (job_id, ordinal, n) DO NOTHING",
    )
    .bind(lines)
    .execute(tx)
    .await?;
    Ok(())
}
