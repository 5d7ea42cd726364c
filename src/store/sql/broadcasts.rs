//! Broadcasts as they are shown: rows and counts of one snapshot. Never opens a chunk.

use std::collections::HashMap;

use super::safety::canary;
use super::{Connection, Db, from_json, json_texts, parsed};
use crate::domain::broadcast::{Broadcast, BroadcastStatus, OnUncertain, Priority};
use crate::domain::counts::{Counts, Received};
use crate::domain::message::MessageStatus;
use crate::domain::time::Timestamp;
use crate::store::Result;

#[derive(sqlx::FromRow)]
pub(super) struct BroadcastRow {
    pub id: String,
    status: String,
    paused: i64,
    reason: Option<String>,
    pause: Option<String>,
    paused_at: Option<i64>,
    safety: String,
    canary: Option<String>,
    canary_size: Option<i64>,
    subject: String,
    from_email: String,
    audience: String,
    template_id: Option<String>,
    campaign_id: Option<String>,
    send_at: Option<i64>,
    expires_at: Option<i64>,
    on_uncertain: String,
    priority: i64,
    relay: Option<String>,
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

/// Adds the counts, in the transaction that read the rows: a chunk written between the two would be counted
/// twice, in the row as yet to come and in its job.
pub(super) async fn with_counts(tx: &mut Connection, rows: Vec<BroadcastRow>) -> Result<Vec<Broadcast>> {
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
        pause: match (row.pause, row.paused_at) {
            (Some(pause), Some(at)) => Some((from_json("broadcasts.pause", &pause)?, Timestamp(at))),
            _ => None,
        },
        safety: from_json("broadcasts.safety", &row.safety)?,
        canary: canary(row.canary.as_deref())?.map(|state| (state, row.canary_size)),
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
        relay: row.relay,
        tags: from_json("broadcasts.tags", &row.tags)?,
        metadata: from_json("broadcasts.metadata", &row.metadata)?,
        received,
        counts,
        created_at: Timestamp(row.created_at),
        started_at: row.started_at.map(Timestamp),
        finished_at: row.finished_at.map(Timestamp),
    })
}
