//! Splitting a broadcast's audience into chunks. Resumable: a chunk and the cursor behind it are one
//! transaction, so that a fan-out killed anywhere neither skips nor repeats a recipient.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::address::SortKey;
use crate::domain::chunk::Chunk;
use crate::domain::id::{BroadcastId, ListId};
use crate::domain::job::{Lease, Stop};
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;

/// One ordered stream of recipients that a fan-out merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A staged run of an inline audience.
    Run(i64),
    /// Subscribed contacts on a list.
    List(ListId),
    /// Every subscribed contact.
    Everyone,
}

/// Contacts read at a time from a stored audience.
pub const SOURCE_PAGE_SIZE: i64 = 1_000;

/// One step of a fan-out: a chunk and the cursor behind it, written together.
#[derive(Debug, Clone)]
pub struct FanOutStep {
    /// The chunk's number in its broadcast.
    pub seq: i64,
    pub chunk: Chunk,
    /// Ordinals whose address is suppressed already: marked at once.
    pub suppressed: Vec<u16>,
    /// Recipients consumed from stored audiences by this step, duplicates included; 0 for inline
    /// audiences, which were counted when they were received.
    pub received: i64,
    /// Repeated addresses met in this step.
    pub duplicates: i64,
    pub cursor: SortKey,
    /// Whether its recipients go first, while everybody else waits.
    pub is_canary: bool,
}

#[async_trait]
pub trait FanOut: Send + Sync {
    /// The streams that a broadcast's audience consists of.
    async fn sources(&self, id: &BroadcastId) -> Result<Vec<Source>>;

    /// The next recipients of a source strictly after `after`, in the order of their sort keys: at
    /// most one page, empty at the end.
    async fn source_page(&self, id: &BroadcastId, source: &Source, after: Option<&SortKey>) -> Result<Vec<Recipient>>;

    /// The number the next chunk of a broadcast gets.
    async fn next_seq(&self, id: &BroadcastId) -> Result<i64>;

    /// Writes a chunk, its job and the cursor in one transaction. The answer is an operator's wish,
    /// if there is one.
    /// # Errors
    /// `LeaseLost` when fenced.
    async fn fan_out_next(&self, lease: Lease, step: &FanOutStep, now: Timestamp) -> Result<Option<Stop>>;

    /// Ends the fan-out, counting what came after the last chunk (duplicates only), and removes what
    /// was staged. A broadcast without chunks is completed by it.
    /// # Errors
    /// `LeaseLost` when fenced.
    async fn finish_fan_out(&self, lease: Lease, received: i64, duplicates: i64, now: Timestamp) -> Result<()>;
}
