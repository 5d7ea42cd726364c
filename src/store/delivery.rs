//! What a worker reads and records while it delivers a chunk. Every write is fenced: it names the lease,
//! and with an old epoch it changes nothing.

use std::collections::HashSet;

use async_trait::async_trait;

use super::error::Result;
use crate::domain::broadcast::{Brief, OnUncertain};
use crate::domain::chunk::Chunk;
use crate::domain::id::BroadcastId;
use crate::domain::job::{Lease, Stop};
use crate::domain::message::{MessageStatus, Outcome};
use crate::domain::time::Timestamp;

/// A message of a claimed chunk that has a row: what earlier attempts left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    pub ordinal: u16,
    pub status: MessageStatus,
    pub attempts: i64,
    pub burnt: i64,
    pub possible_duplicate: bool,
    pub next_at: Option<Timestamp>,
}

/// The payload of a claimed deliver job.
#[derive(Debug, Clone)]
pub struct ChunkWork {
    pub chunk: Chunk,
    pub earlier: Vec<Earlier>,
    /// What becomes of messages in doubt, as it is decided now.
    pub on_uncertain: OnUncertain,
}

/// One outcome to record.
#[derive(Debug, Clone)]
pub struct Settled {
    pub ordinal: u16,
    /// The status it had, `queued` or `deferred`: the counters move by the difference.
    pub before: MessageStatus,
    pub outcome: Outcome,
    /// Tries that reached a relay, this one included.
    pub attempts: i64,
    /// Tries that count against the message.
    pub burnt: i64,
    /// What the try came to when this outcome is one: it may be `uncertain` where the message goes on as
    /// `deferred`. `None` when no relay was involved.
    pub attempt: Option<MessageStatus>,
    /// Whether the message is flagged as a possible duplicate by this outcome for the first time.
    pub newly_flagged: bool,
    pub relay_id: Option<i64>,
    pub at: Timestamp,
    /// What it teaches about the address.
    pub bounce: Option<Bounce>,
}

/// An address whose mailbox refused a message for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounce {
    /// Normalised.
    pub address: String,
    pub kind: BounceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BounceKind {
    /// Nobody is there: the address is suppressed at once.
    Hard,
    /// The mailbox is shut or full, which may pass: counted, and suppressed when it lasts.
    Soft,
}

/// A disabled mailbox is suppressed when so many broadcasts met it and so much time lies between the first and the last: it
/// may have been disabled for an hour by mistake.
pub const INACTIVE_SENDS_MIN: i64 = 2;
pub const INACTIVE_SPAN_MS: i64 = 24 * 3_600 * 1_000;
/// A full mailbox, likewise: its owner may be on holiday for two weeks.
pub const FULL_SENDS_MIN: i64 = 3;
pub const FULL_SPAN_MS: i64 = 14 * 24 * 3_600 * 1_000;
/// What is counted is forgotten after this: a mailbox that was full in spring and is in autumn need not have been meanwhile.
pub const BOUNCES_KEPT_MS: i64 = 90 * 24 * 3_600 * 1_000;

/// What one job contributes to a group commit.
#[derive(Debug, Clone)]
pub struct Progress {
    pub lease: Lease,
    /// Rises with every group commit of this owner. A commit whose answer was lost is repeated with its
    /// number, and counts once.
    pub number: i64,
    pub settled: Vec<Settled>,
    /// All ordinals of the job that may be on the wire once this is committed.
    pub inflight: Vec<u16>,
}

/// The answer to one [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Durable. An operator may want the job stopped.
    Durable { stop: Option<Stop> },
    /// The lease has lapsed; nothing of this job was written.
    Fenced,
}

#[async_trait]
pub trait Delivery: Send + Sync {
    /// What all messages of a broadcast have in common.
    async fn brief(&self, id: &BroadcastId) -> Result<Brief>;

    /// The recipients of a claimed chunk and what earlier attempts left.
    async fn chunk_work(&self, lease: Lease) -> Result<ChunkWork>;

    /// Which of these normalised addresses must not be mailed.
    async fn suppressed_among(&self, addresses: &[String]) -> Result<HashSet<String>>;

    /// The group commit: outcomes, counters and intents of any number of jobs in one transaction.
    /// Answers in the order asked. A fenced job does not spoil the others.
    /// # Errors
    /// `Refused` when a job stands in the batch twice, a message in its job twice, or an outcome is
    /// `queued` or `canceled`: a message is canceled with its job, never by itself.
    async fn commit_progress(&self, batch: &[Progress], now: Timestamp) -> Result<Vec<Ack>>;

    /// The id under which a relay's name stands in message rows.
    async fn relay_id(&self, name: &str) -> Result<i64>;
}
