//! The queue: what is claimable, who claims it, how it is given back, and an operator's wishes. Never
//! mentions a single message: a job is up to a thousand of them.

use async_trait::async_trait;
use tokio::sync::watch;

use super::error::Result;
use crate::domain::id::BroadcastId;
use crate::domain::job::{Claimed, JobEnd, JobKind, Lease, Stop};
use crate::domain::time::Timestamp;

/// An operator's wish for a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    Pause { reason: String },
    Resume,
    Cancel,
}

/// Jobs that one step makes ready: however many fall due at once, such as after an outage of a relay, each transaction is short
/// and others write in between.
pub const PROMOTED_MAX: i64 = 200;

#[async_trait]
pub trait Queue: Send + Sync {
    /// Changes whenever there may be new work or a new wish: on this node at once, on others by
    /// notification where the database has it. Notifications can be lost, so a loop polls as well.
    fn wakeups(&self) -> watch::Receiver<u64>;

    /// Makes waiting jobs ready whose time has come, those first that have been due for longest, and [`PROMOTED_MAX`] at
    /// most. Returns how many.
    async fn promote(&self, now: Timestamp) -> Result<u64>;

    /// When the next waiting job falls due.
    async fn next_due(&self) -> Result<Option<Timestamp>>;

    /// Claims up to `n` ready jobs of a kind, in the order priority, seq, id. Nothing for a worker
    /// that is not live.
    async fn claim(&self, worker: i64, kind: JobKind, n: i64, now: Timestamp) -> Result<Vec<Claimed>>;

    /// Claims one ready deliver job whose chunk number is at most `seq_max`: a broadcast that began later
    /// than the chunks at hand. So that a small broadcast does not wait behind a slow large one.
    async fn claim_ahead(&self, worker: i64, seq_max: i64, now: Timestamp) -> Result<Vec<Claimed>>;

    /// Makes jobs due now that wait for a relay or a lane: something changed. Returns how many.
    async fn hasten(&self, now: Timestamp) -> Result<u64>;

    /// The running jobs of a worker that an operator wants stopped: for owners that have nothing to
    /// commit at the moment.
    async fn wanted_stops(&self, worker: i64) -> Result<Vec<(Lease, Stop)>>;

    /// Gives a job back. Completes the broadcast when it was the last one. Where the broadcast was
    /// paused or canceled meanwhile, the job is held or canceled instead. Forgets what was in flight: the
    /// owner settles it first.
    /// # Errors
    /// `LeaseLost` when fenced; `Refused` for `Done` while messages are queued or deferred.
    async fn finish(&self, lease: Lease, end: JobEnd, now: Timestamp) -> Result<()>;

    /// Makes those running jobs of a worker ready again that are not among the `held` ones: jobs it was given by a
    /// claim whose answer was lost. What was in flight stays for the next owner. Returns their ids.
    async fn give_back_unheld(&self, worker: i64, held: &[i64]) -> Result<Vec<i64>>;

    /// Sets a job aside for a person, with the reason; its broadcast stays unfinished on purpose.
    /// # Errors
    /// `LeaseLost` when fenced.
    async fn quarantine(&self, lease: Lease, why: &str, now: Timestamp) -> Result<()>;

    /// Pauses, resumes or cancels a broadcast. Idempotent; what is running learns of it at its next
    /// commit.
    /// # Errors
    /// `Conflict` when the broadcast is unknown or in a final state that the wish does not fit.
    async fn control(&self, id: &BroadcastId, wish: &Wish, now: Timestamp) -> Result<()>;

    /// Gives a quarantined job another chance. `false` when it is not quarantined.
    async fn release_quarantined(&self, job_id: i64, now: Timestamp) -> Result<bool>;
}
