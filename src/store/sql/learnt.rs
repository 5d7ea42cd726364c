//! What a group commit learns beyond the messages themselves: failures by reason, and addresses that are not to be mailed
//! again. Part of the commit's own transaction; writes nothing when nothing failed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Connection, to_json};
use crate::domain::message::MessageStatus;
use crate::domain::time::Timestamp;
use crate::store::Result;
use crate::store::delivery::{
    BounceKind, FULL_SENDS_MIN, FULL_SPAN_MS, INACTIVE_SENDS_MIN, INACTIVE_SPAN_MS, Progress,
};

/// Failures of one job and reason.
#[derive(Serialize)]
struct FailureLine<'a> {
    j: i64,
    k: &'static str,
    n: i64,
    o: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<&'a str>,
    r: &'a str,
    t: i64,
}

/// An address and why.
#[derive(Serialize)]
struct BounceLine<'a> {
    v: &'a str,
    k: &'static str,
    j: i64,
}

/// Records what the outcomes of these jobs teach.
pub(super) async fn write_learnt(tx: &mut Connection, held: &[&Progress], now: Timestamp) -> Result<()> {
    let failures = failures(held);
    if !failures.is_empty() {
        count_failures(tx, &to_json(&failures)).await?;
    }
    let hard = bounces(held, BounceKind::Hard);
    if !hard.is_empty() {
        suppress_bounced(tx, &to_json(&hard), now).await?;
    }
    let soft = bounces(held, BounceKind::Soft);
    if !soft.is_empty() {
        count_bounces(tx, &to_json(&soft), now).await?;
    }
    Ok(())
}

/// In the order of jobs and reasons: an upsert meets each row once, and two workers never wait for each other.
fn failures<'a>(held: &[&'a Progress]) -> Vec<FailureLine<'a>> {
    let mut lines: BTreeMap<(i64, &'static str), FailureLine> = BTreeMap::new();
    for progress in held {
        for settled in progress
            .settled
            .iter()
            .filter(|s| s.outcome.status == MessageStatus::Failed)
        {
            let outcome = &settled.outcome;
            let line = FailureLine {
                j: progress.lease.job_id,
                k: outcome.class,
                n: 1,
                o: settled.ordinal,
                c: outcome.reply.code,
                e: outcome.reply.enhanced.as_deref(),
                r: &outcome.reply.text,
                t: settled.at.0,
            };
            let before = lines.get(&(line.j, line.k)).map_or(0, |l| l.n);
            lines.insert((line.j, line.k), FailureLine { n: before + 1, ..line });
        }
    }
    lines.into_values().collect()
}

/// In the order of addresses, each of them once for a reason.
fn bounces<'a>(held: &[&'a Progress], kind: BounceKind) -> Vec<BounceLine<'a>> {
    let mut lines: BTreeMap<(&str, &'static str), BounceLine> = BTreeMap::new();
    for progress in held {
        for settled in &progress.settled {
            if let Some(bounce) = settled.bounce.as_ref().filter(|b| b.kind == kind) {
                let (v, k) = (bounce.address.as_str(), settled.outcome.class);
                lines.insert(
                    (v, k),
                    BounceLine {
                        v,
                        k,
                        j: progress.lease.job_id,
                    },
                );
            }
        }
    }
    lines.into_values().collect()
}

async fn count_failures(tx: &mut Connection, lines: &str) -> Result<()> {
    sqlx::query(
        "-- count_failures
        INSERT INTO failures (job_id, class, broadcast_id, n, ordinal, code, enhanced, reply, at)
        SELECT CAST(value->>'j' AS BIGINT), value->>'k',
               (SELECT broadcast_id FROM jobs WHERE id = CAST(value->>'j' AS BIGINT)), CAST(value->>'n' AS BIGINT),
               CAST(value->>'o' AS BIGINT), CAST(value->>'c' AS BIGINT), value->>'e', value->>'r', CAST(value->>'t' AS BIGINT)
          FROM json_each($1) WHERE true
        ON CONFLICT (job_id, class) DO UPDATE SET n = failures.n + excluded.n, ordinal = excluded.ordinal,
               code = excluded.code, enhanced = excluded.enhanced, reply = excluded.reply, at = excluded.at",
    )
    .bind(lines)
    .execute(tx)
    .await?;
    Ok(())
}

/// Nobody is there. An address that is suppressed already keeps its first reason.
async fn suppress_bounced(tx: &mut Connection, lines: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "-- suppress_bounced
        INSERT INTO suppressions (address, reason, source, created_at)
        SELECT value->>'v', 'hard_bounce', (SELECT broadcast_id FROM jobs WHERE id = CAST(value->>'j' AS BIGINT)),
               CAST($2 AS BIGINT)
          FROM json_each($1) WHERE true
        ON CONFLICT (address) DO NOTHING",
    )
    .bind(lines)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// A mailbox that is shut or full: counted, and suppressed when it was met often enough and for long enough.
async fn count_bounces(tx: &mut Connection, lines: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "-- count_bounces
        INSERT INTO bounces (address, class, n, first_at, last_at)
        SELECT value->>'v', value->>'k', 1, CAST($2 AS BIGINT), CAST($2 AS BIGINT) FROM json_each($1) WHERE true
        ON CONFLICT (address, class) DO UPDATE SET n = bounces.n + 1, last_at = excluded.last_at",
    )
    .bind(lines)
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "-- suppress_lasting
        INSERT INTO suppressions (address, reason, source, created_at)
        SELECT b.address, 'hard_bounce', (SELECT broadcast_id FROM jobs WHERE id = CAST(value->>'j' AS BIGINT)),
               CAST($2 AS BIGINT)
          FROM json_each($1) JOIN bounces b ON b.address = value->>'v' AND b.class = value->>'k'
         WHERE (b.class = 'inactive_mailbox' AND b.n >= $3 AND b.last_at - b.first_at >= $4)
            OR (b.class = 'mailbox_full' AND b.n >= $5 AND b.last_at - b.first_at >= $6)
        ON CONFLICT (address) DO NOTHING",
    )
    .bind(lines)
    .bind(now.0)
    .bind(INACTIVE_SENDS_MIN)
    .bind(INACTIVE_SPAN_MS)
    .bind(FULL_SENDS_MIN)
    .bind(FULL_SPAN_MS)
    .execute(tx)
    .await?;
    Ok(())
}
