//! Chunks opened for reading: what is in them, beside what became of it. A message has no row while it is queued.

use std::collections::HashMap;

use super::delivery::ordinal;
use super::{SqlStore, parsed};
use crate::domain::id::{BroadcastId, MessageId};
use crate::domain::message::{MessageStatus, ReplyNote};
use crate::domain::recipient::{self, Recipient};
use crate::domain::time::Timestamp;
use crate::store::Result;
use crate::store::reports::MessageView;

/// Chunks opened at a time for a page of messages. A page begins in one chunk and often ends in the next; where
/// few messages of each fit, more are asked for.
const CHUNKS_AT_A_TIME: i64 = 2;

/// Stands where an address cannot be read.
const DAMAGED: &str = "(damaged)";

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
pub(super) struct OpenedRow {
    id: i64,
    broadcast_id: String,
    pub seq: i64,
    state: String,
    size: i64,
    payload: Vec<u8>,
}

impl SqlStore {
    /// The next chunks from `seq` on that can hold messages of a status: the jobs' counters are the index.
    pub(super) async fn open_chunks(
        &self,
        id: &BroadcastId,
        status: Option<MessageStatus>,
        seq: i64,
    ) -> Result<Vec<OpenedRow>> {
        let rows = sqlx::query_as(
            "-- open_chunks
            SELECT j.id, j.broadcast_id, j.seq, j.state, j.size, c.payload FROM jobs j JOIN chunks c ON c.job_id = j.id
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
    pub(super) async fn views(&self, chunk: &OpenedRow) -> Result<Vec<MessageView>> {
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
            .zip(chunk.recipients())
            .map(|(place, recipient)| chunk.view(ordinal(place)?, recipient.as_ref(), by_ordinal.remove(&place)))
            .collect()
    }

    pub(super) async fn view_at(
        &self,
        chunk: &OpenedRow,
        recipients: &[Option<Recipient>],
        place: u16,
    ) -> Result<Option<MessageView>> {
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
        chunk.view(place, recipient.as_ref(), row).map(Some)
    }
}

impl OpenedRow {
    /// The recipients of a chunk. Of a damaged one nobody is known, and its messages are shown all the same.
    pub(super) fn recipients(&self) -> Vec<Option<Recipient>> {
        match recipient::decode(&self.payload) {
            Ok(recipients) => recipients.into_iter().map(Some).collect(),
            Err(error) => {
                tracing::error!(job.id = self.id, %error, "The recipients of job {} cannot be read", self.id);
                (0..self.size).map(|_| None).collect()
            }
        }
    }

    /// What is said of a message whose recipient cannot be read.
    fn damage(&self) -> ReplyNote {
        let text = format!(
            "the recipients of job {} are damaged in the database; restore it from a backup, or cancel the broadcast and send to \
             these people anew",
            self.id
        );
        note(None, None, text)
    }

    /// A message as it is shown: without a row it is queued; what a canceled job did not settle is canceled.
    fn view(&self, ordinal: u16, recipient: Option<&Recipient>, row: Option<MessageRow>) -> Result<MessageView> {
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
            email: recipient.map_or_else(|| DAMAGED.to_owned(), |r| r.email.to_string()),
            name: recipient.and_then(|r| r.name.as_deref()).map(ToOwned::to_owned),
            status: if canceled { MessageStatus::Canceled } else { stored },
            attempts: 0,
            possible_duplicate: false,
            reply: recipient.is_none().then(|| self.damage()),
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

pub(super) fn note(code: Option<i64>, enhanced: Option<String>, text: String) -> ReplyNote {
    ReplyNote {
        code: code.and_then(|c| u16::try_from(c).ok()),
        enhanced,
        text,
    }
}
