//! Reading what became of everything. Never writes.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::brake::Brake;
use crate::domain::broadcast::Broadcast;
use crate::domain::id::{BroadcastId, MessageId};
use crate::domain::message::{MessageStatus, ReplyNote};
use crate::domain::time::Timestamp;
use crate::domain::worker::{JobView, Worker};

/// One message as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageView {
    pub id: MessageId,
    pub broadcast_id: BroadcastId,
    pub email: String,
    pub name: Option<String>,
    pub status: MessageStatus,
    pub attempts: i64,
    pub possible_duplicate: bool,
    /// The last reply, or what happened instead; `None` while queued.
    pub reply: Option<ReplyNote>,
    /// The reason class of the last outcome; empty when there is nothing to explain.
    pub class: String,
    pub relay: Option<String>,
    /// When the last outcome was.
    pub at: Option<Timestamp>,
    /// When the next attempt is planned.
    pub next_at: Option<Timestamp>,
}

/// One try to hand a message to a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptView {
    pub n: i64,
    pub status: MessageStatus,
    pub reply: ReplyNote,
    pub class: String,
    pub relay: Option<String>,
    pub at: Timestamp,
}

/// A page of a list with the cursor of the next one.
#[derive(Debug, Clone)]
pub struct Slice<T> {
    pub rows: Vec<T>,
    pub next: Option<String>,
}

/// How fast a broadcast goes now.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rate {
    /// Messages settled per second over the last [`RATE_WINDOW_MS`].
    pub per_sec: f64,
    /// Messages flagged as possible duplicates so far.
    pub possible_duplicates: i64,
}

/// Long enough to be calm, short enough to follow a change of pace.
pub const RATE_WINDOW_MS: i64 = 10_000;

/// What a broadcast that stands still waits for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Waiting {
    /// Chunks that a worker has, or may take now.
    pub n_active: i64,
    /// When the first of the others falls due; of those that are held by a relay or a lane, if there are any.
    pub until: Option<Timestamp>,
    /// What keeps it; `None` when its messages wait for their next attempt.
    pub by: Option<Brake>,
}

#[async_trait]
pub trait Reports: Send + Sync {
    /// Whether the database answers and its schema is the one this program needs.
    async fn ready(&self) -> Result<()>;

    async fn broadcast(&self, id: &BroadcastId) -> Result<Option<Broadcast>>;

    /// Broadcasts, newest first; `after` is the cursor of the page before.
    async fn broadcasts(&self, after: Option<&str>, limit: i64) -> Result<Slice<Broadcast>>;

    async fn rate(&self, id: &BroadcastId, now: Timestamp) -> Result<Rate>;

    /// What the chunks of a broadcast wait for.
    async fn waiting(&self, id: &BroadcastId) -> Result<Waiting>;

    /// Messages of a broadcast in chunk order, queued ones too; `after` is the cursor of the page before.
    async fn messages(
        &self,
        id: &BroadcastId,
        status: Option<MessageStatus>,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Slice<MessageView>>;

    /// The message of a broadcast to this normalised address.
    async fn message_to(&self, id: &BroadcastId, normalised: &str) -> Result<Option<MessageView>>;

    /// Messages to this normalised address in all broadcasts, newest broadcast first.
    async fn messages_to(&self, normalised: &str, limit: i64) -> Result<Vec<MessageView>>;

    async fn message(&self, id: MessageId) -> Result<Option<MessageView>>;

    /// All attempts of a message, first one first.
    async fn attempts(&self, id: MessageId) -> Result<Vec<AttemptView>>;

    /// Workers that are alive or were within the last day, newest first.
    async fn workers(&self, now: Timestamp) -> Result<Vec<Worker>>;

    /// Jobs by state (`None`: every state that is not over), the order of the queue, at most `limit`.
    async fn jobs(&self, state: Option<&str>, limit: i64) -> Result<Vec<JobView>>;

    /// Counts every message of a broadcast from chunks and rows alone, without the jobs' counters:
    /// the oracle that holds the counters to the truth. Slow; for checks and tests.
    async fn recount(&self, id: &BroadcastId) -> Result<crate::domain::counts::Counts>;
}
