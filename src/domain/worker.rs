//! Workers as the queue and the status page see them: one running process each.

use serde::{Deserialize, Serialize};

use super::brake::Brake;
use super::time::Timestamp;

/// What a worker says about itself at each heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Messages settled per second over the last heartbeats.
    pub rate_per_sec: f64,
    pub connections_open: u32,
    /// What stands in the way now, in words: a relay that does not answer, a pace.
    pub trouble: Option<String>,
    /// What keeps its mail from going faster, by relay.
    #[serde(default)]
    pub brakes: Vec<Brake>,
}

#[derive(Debug, Clone)]
pub struct Worker {
    pub id: i64,
    pub host: String,
    pub pid: i64,
    pub version: String,
    /// `live`, `draining`, `stopped` or `dead`.
    pub state: String,
    pub started_at: Timestamp,
    pub seen_at: Timestamp,
    pub stats: WorkerStats,
    /// Running jobs it holds.
    pub jobs: i64,
}

/// A job on the page that says what runs where.
#[derive(Debug, Clone)]
pub struct JobView {
    pub id: i64,
    pub broadcast_id: String,
    pub subject: String,
    pub kind: String,
    pub seq: i64,
    pub state: String,
    pub worker_id: Option<i64>,
    pub run_at: Timestamp,
    pub touched_at: Option<Timestamp>,
    pub size: i64,
    /// Messages of it that have an outcome.
    pub settled: i64,
    pub deaths: i64,
    pub last_error: Option<String>,
}
