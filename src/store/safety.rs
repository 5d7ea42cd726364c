//! Broadcasts under watch: what their messages came to, the gate behind a canary, the automatic pause, and another try for
//! what failed. Never decides: `domain::safety` does, and each step here says from which state it starts, so that of many
//! nodes that decide the same one takes it.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::id::BroadcastId;
use crate::domain::message::MessageStatus;
use crate::domain::safety::{Example, Step, Watched};
use crate::domain::time::Timestamp;

/// Chunks that one step of a retry puts back: a hundred thousand messages at most, so that commits of others do not wait for
/// seconds.
pub const RETRY_CHUNKS_MAX: i64 = 100;

/// Failed messages of one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    pub class: String,
    pub n: i64,
    /// The latest of them.
    pub example: Example,
}

/// Most groups of messages that are not through.
pub const STUCK_GROUPS_MAX: i64 = 20;

/// Messages that are deferred or in doubt for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    pub status: MessageStatus,
    pub of: Failures,
}

/// What one step of a retry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retried {
    /// Messages that were put back.
    pub messages: i64,
    /// Whether there may be more.
    pub has_more: bool,
}

#[async_trait]
pub trait Safety: Send + Sync {
    /// The broadcasts to look at: those of which this worker has a running job and a message failed, and all whose canary
    /// runs.
    async fn watched(&self, worker: i64) -> Result<Vec<(BroadcastId, Watched)>>;

    /// Takes a step that was decided for a broadcast as it was seen. `false` when it does not stand like that any more:
    /// somebody else was first.
    async fn take_step(&self, id: &BroadcastId, seen: &Watched, step: &Step, now: Timestamp) -> Result<bool>;

    /// How many recipients of the canary are not in chunks yet; 0 without a canary. The first call decides how large the
    /// canary is.
    async fn canary_left(&self, id: &BroadcastId) -> Result<i64>;

    /// Failed messages by reason, the commonest first.
    async fn failures(&self, id: &BroadcastId) -> Result<Vec<Failures>>;

    /// Deferred and uncertain messages by reason and code, all of them counted, the largest groups first, at most
    /// [`STUCK_GROUPS_MAX`]. Reads each of their chunks.
    async fn stuck(&self, id: &BroadcastId) -> Result<Vec<Stuck>>;

    /// Puts failed messages of these classes back, to be tried again now, with their schedule from its beginning: those of
    /// up to [`RETRY_CHUNKS_MAX`] chunks. Chunks that somebody is working on are left out. A completed broadcast goes on.
    /// # Errors
    /// `Conflict` when the broadcast is unknown, canceled, failed or too old.
    async fn retry_failed(&self, id: &BroadcastId, classes: &[String], now: Timestamp) -> Result<Retried>;

    /// Forgets the full and shut mailboxes that were last met before then. Returns how many.
    async fn forget_bounces(&self, before: Timestamp) -> Result<u64>;
}
