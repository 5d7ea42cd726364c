//! Workers and their leases. A worker lives as long as its heartbeat is written; whoever notices that it
//! is not gives its jobs to others. Never needs a leader: each step is a guarded update.

use async_trait::async_trait;

use super::error::Result;
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

/// What a rescue did with a dead worker's job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rescued {
    pub job_id: i64,
    pub quarantined: bool,
}

#[async_trait]
pub trait Workers: Send + Sync {
    /// What time it is where the database is: by it the processes of many machines agree on leases and on what is due.
    /// `None` where that is this machine.
    async fn time(&self) -> Result<Option<Timestamp>>;

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
    async fn void_other_workers(&self, worker: i64) -> Result<Vec<Rescued>>;

    /// Declares workers dead whose lease has lapsed, and gives their jobs back: `ready`, or
    /// `quarantined` after [`DEATHS_MAX`](crate::domain::job::DEATHS_MAX) deaths. The epoch rises, so
    /// that the dead owner's writes are void; `inflight` stays for the next owner. Spares the worker who asks:
    /// it is alive, and as long as nobody else has taken its jobs they are still its own.
    async fn rescue(&self, by: i64, now: Timestamp) -> Result<Vec<Rescued>>;
}
