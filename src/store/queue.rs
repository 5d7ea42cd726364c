//! The queue: claim, heartbeat, rescue, progress, and an operator's wishes. Every write of a job's owner
//! is fenced: it names the lease, and with an old epoch it changes nothing.

use std::collections::HashSet;

use async_trait::async_trait;
use tokio::sync::watch;

use super::error::Result;
use crate::domain::address::SortKey;
use crate::domain::broadcast::Brief;
use crate::domain::chunk::Chunk;
use crate::domain::id::{BroadcastId, ListId};
use crate::domain::job::{Claimed, JobEnd, JobKind, Lease, Stop};
use crate::domain::message::{MessageStatus, Outcome};
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::domain::worker::WorkerStats;

/// A worker that introduces itself.
#[derive(Debug, Clone)]
pub struct NewWorker {
    pub host: String,
    pub pid: i64,
    pub version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heartbeat {
    /// The lease is extended; so many workers are alive, this one included.
    Alive { live_workers: i64 },
    /// Others have declared this worker dead and taken its jobs: stop everything, register anew.
    Dead,
}

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
}

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
}

/// One outcome to record.
#[derive(Debug, Clone)]
pub struct Settled {
    pub ordinal: u16,
    /// The status it had: `queued` or `deferred`. The counters move by the difference.
    pub before: MessageStatus,
    pub outcome: Outcome,
    /// Tries that reached a relay, this one included.
    pub attempts: i64,
    /// Tries that count against the message.
    pub burnt: i64,
    pub relay_id: Option<i64>,
    pub at: Timestamp,
}

/// What one job contributes to a group commit.
#[derive(Debug, Clone)]
pub struct Progress {
    pub lease: Lease,
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

/// What a rescue did with a dead worker's job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rescued {
    pub job_id: i64,
    pub quarantined: bool,
}

/// An operator's wish for a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    Pause { reason: String },
    Resume,
    Cancel,
}

#[async_trait]
pub trait Queue: Send + Sync {
    /// Changes whenever there may be new work: on this node at once, on others by notification where
    /// the database has it. Notifications can be lost, so a loop polls as well.
    fn wakeups(&self) -> watch::Receiver<u64>;

    // -- workers

    async fn register_worker(&self, me: &NewWorker, lease_until: Timestamp, now: Timestamp) -> Result<i64>;

    /// Extends the lease of a worker and of all its jobs. Runs on its own connection, so that a busy
    /// pool cannot make a healthy worker look dead.
    async fn heartbeat(
        &self,
        worker: i64,
        lease_until: Timestamp,
        draining: bool,
        stats: &WorkerStats,
        now: Timestamp,
    ) -> Result<Heartbeat>;

    /// The worker's orderly end.
    async fn retire_worker(&self, worker: i64, now: Timestamp) -> Result<()>;

    /// Declares every other worker dead at once. Only for a process that holds the database alone
    /// (the lock of an SQLite file): its predecessors cannot be alive.
    async fn void_other_workers(&self, worker: i64, now: Timestamp) -> Result<()>;

    /// Declares workers dead whose lease has lapsed, and gives their jobs back: `ready`, or
    /// `quarantined` after [`DEATHS_MAX`](crate::domain::job::DEATHS_MAX) deaths. The epoch rises, so
    /// that the dead owner's writes are void; `inflight` stays for the next owner.
    async fn rescue(&self, now: Timestamp) -> Result<Vec<Rescued>>;

    // -- claiming

    /// Makes waiting jobs ready whose time has come. Returns how many.
    async fn promote(&self, now: Timestamp) -> Result<u64>;

    /// When the next waiting job falls due.
    async fn next_due(&self) -> Result<Option<Timestamp>>;

    /// Claims up to `n` ready jobs of a kind, in the order priority, seq, id. Nothing for a worker
    /// that is not live.
    async fn claim(&self, worker: i64, kind: JobKind, n: i64, now: Timestamp) -> Result<Vec<Claimed>>;

    /// The running jobs of a worker that an operator wants stopped: for owners that have nothing to
    /// commit at the moment.
    async fn wanted_stops(&self, worker: i64) -> Result<Vec<(Lease, Stop)>>;

    // -- fan-out

    async fn brief(&self, id: &BroadcastId) -> Result<Brief>;

    /// The streams that a broadcast's audience consists of.
    async fn sources(&self, id: &BroadcastId) -> Result<Vec<Source>>;

    /// The next recipients of a source strictly after `after`, in the order of their sort keys.
    /// At most one page; empty at the end.
    async fn source_page(&self, id: &BroadcastId, source: &Source, after: Option<&SortKey>) -> Result<Vec<Recipient>>;

    /// Writes a chunk, its job and the cursor in one transaction.
    /// # Errors
    /// `LeaseLost` when fenced. Otherwise the answer is an operator's wish, if there is one.
    async fn fan_out_next(&self, lease: Lease, step: &FanOutStep, now: Timestamp) -> Result<Option<Stop>>;

    /// The number of chunks a broadcast has, and its recipients after the cursor that were duplicates
    /// only; ends the fan-out and removes what was staged.
    async fn finish_fan_out(&self, lease: Lease, received: i64, duplicates: i64, now: Timestamp) -> Result<()>;

    // -- delivering

    /// The recipients of a claimed chunk and what earlier attempts left.
    async fn chunk_work(&self, lease: Lease) -> Result<ChunkWork>;

    /// Which of these normalised addresses must not be mailed.
    async fn suppressed_among(&self, addresses: &[String]) -> Result<HashSet<String>>;

    /// The group commit: outcomes, counters and intents of any number of jobs in one transaction.
    /// Answers in the order asked. A fenced job does not spoil the others.
    async fn commit_progress(&self, batch: &[Progress], now: Timestamp) -> Result<Vec<Ack>>;

    /// Gives a job back. Completes the broadcast when it was the last one.
    async fn finish(&self, lease: Lease, end: JobEnd, now: Timestamp) -> Result<()>;

    /// Sets a job aside for a person, with the reason; its broadcast stays unfinished on purpose.
    async fn quarantine(&self, lease: Lease, why: &str, now: Timestamp) -> Result<()>;

    // -- operators

    /// Pauses, resumes or cancels a broadcast. Idempotent; what is running learns of it at its next
    /// commit.
    /// # Errors
    /// `Conflict` when the broadcast is unknown or in a final state.
    async fn control(&self, id: &BroadcastId, wish: &Wish, now: Timestamp) -> Result<()>;

    /// Gives a quarantined job another chance. `false` when it is not quarantined.
    async fn release_quarantined(&self, job_id: i64, now: Timestamp) -> Result<bool>;

    /// The id under which a relay's name stands in message rows.
    async fn relay_id(&self, name: &str) -> Result<i64>;
}
