//! What was found out about relays, shared by all workers. Never decides what follows from it.

use async_trait::async_trait;

use super::error::Result;
use super::pacing::RelayAt;
use crate::domain::finding::{Finding, FindingKind};
use crate::domain::time::Timestamp;

/// What a worker found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub kind: FindingKind,
    /// `host:port` that it was found at.
    pub address: String,
    /// `None`: what was known holds no longer, and is tried anew.
    pub value: Option<i64>,
    /// What the relay said or did.
    pub words: String,
}

#[async_trait]
pub trait Findings: Send + Sync {
    /// All that is found out or being found out, by relay and kind.
    async fn findings(&self) -> Result<Vec<Finding>>;

    /// Asks to be the one worker that tries this with the relay at this address. `true` for one worker that lives at a time, while
    /// nothing is known or what is known no longer holds, and only for one that knows the relay as it is now.
    async fn try_out(
        &self,
        relay: RelayAt,
        kind: FindingKind,
        address: &str,
        worker: i64,
        now: Timestamp,
    ) -> Result<bool>;

    /// Lets others try what this worker was to try and has not.
    async fn give_up_trial(&self, relay_id: i64, kind: FindingKind, worker: i64) -> Result<()>;

    /// Writes down what was found out. Of two limits that hold the smaller one stays. `false` for a worker that has not heard of the
    /// relay's last change. All workers hear of it.
    async fn write_finding(&self, relay: RelayAt, found: &Found, now: Timestamp) -> Result<bool>;

    /// Forgets all that was found out about a relay, so that it is tried anew. How many things it were; all workers hear of it.
    async fn forget_findings(&self, relay_id: i64) -> Result<i64>;
}
