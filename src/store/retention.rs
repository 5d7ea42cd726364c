//! What is removed when it has been kept long enough. Never touches a broadcast that is not over, and never its counts: those
//! stand in its jobs, which stay.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::time::Timestamp;

#[async_trait]
pub trait Retention: Send + Sync {
    /// Removes recipients and outcomes of up to `chunks_max` chunks whose broadcast ended before `ended_before`, in one
    /// transaction. Returns the number of chunks removed; zero means that nothing is left to remove.
    async fn prune(&self, ended_before: Timestamp, chunks_max: i64) -> Result<u64>;
}
