//! Taking send requests in: recipients are staged as they stream in, then the request is made durable
//! in one transaction. Never visible to anybody before that transaction commits.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::address::SortKey;
use crate::domain::broadcast::NewBroadcast;
use crate::domain::id::BroadcastId;
use crate::domain::time::Timestamp;

/// A piece of a sorted run of recipients: what a merge reads at a time.
#[derive(Debug, Clone)]
pub struct Page {
    pub last_key: SortKey,
    /// As written by [`crate::domain::recipient::encode`], in the order of their sort keys.
    pub payload: Vec<u8>,
}

/// An Idempotency-Key with what tells one request from another.
#[derive(Debug, Clone)]
pub struct IdempotencyClaim {
    /// Whose key it is: the API key's id, or the user. Keys of different owners never meet.
    pub owner: String,
    pub key: String,
    /// SHA-256 of the decoded request body, in hex.
    pub body_hash: String,
    /// The body of the 202 to repeat.
    pub answer: String,
}

/// The first answer to a request with the same Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    pub broadcast_id: String,
    pub body_hash: String,
    pub answer: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// Durable now.
    New,
    /// The key was used before; nothing was stored.
    Replay(Replay),
}

#[async_trait]
pub trait Intake: Send + Sync {
    /// The earlier answer to a request with this key, if there was one.
    async fn find_replay(&self, owner: &str, key: &str) -> Result<Option<Replay>>;

    /// Stores one sorted run of recipients of a broadcast that is still being received. No address may
    /// stand twice in one run: repeats across runs meet in the fan-out's merge.
    async fn stage_run(&self, id: &BroadcastId, run: i64, pages: &[Page], now: Timestamp) -> Result<()>;

    /// Removes what was staged for a request that was refused or broke off.
    async fn discard_staged(&self, id: &BroadcastId) -> Result<()>;

    /// Makes a broadcast durable: the row, its letter, its fan_out job and the idempotency key, in
    /// one transaction. The job is ready at once, or waits for `send_at`.
    async fn accept(&self, new: &NewBroadcast, key: Option<&IdempotencyClaim>, now: Timestamp) -> Result<Accepted>;

    /// Removes pages staged before `before` whose request never came to an end (its process died).
    /// Returns the number of pages removed.
    async fn sweep_staged(&self, before: Timestamp) -> Result<u64>;
}
