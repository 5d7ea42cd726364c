//! Relays as operators keep them. Never speaks to one; what workers learn about them is the pace's.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::relay::{Relay, RelaySpec};
use crate::domain::time::Timestamp;

#[async_trait]
pub trait Relays: Send + Sync {
    /// Creates a relay, or replaces what is said about it and raises its version. A pause stays. All workers hear of it.
    async fn put_relay(&self, name: &str, spec: &RelaySpec, now: Timestamp) -> Result<Relay>;

    async fn relay(&self, name: &str) -> Result<Option<Relay>>;

    /// All relays by name.
    async fn relays(&self) -> Result<Vec<Relay>>;

    /// Whether anything was ever said about a relay, also about one that is gone.
    async fn has_had_relays(&self) -> Result<bool>;

    /// Pauses a relay with a reason, or lets it go on. `false` when there is none of this name. Idempotent: another
    /// reason leaves the pause's beginning as it was.
    async fn pause_relay(&self, name: &str, reason: Option<&str>, now: Timestamp) -> Result<bool>;

    /// How many broadcasts that are not over name this relay and may go through no other.
    async fn broadcasts_bound_to(&self, name: &str) -> Result<i64>;

    /// Forgets what is said about a relay; its name stays in message rows. `false` when there is none.
    async fn delete_relay(&self, name: &str, now: Timestamp) -> Result<bool>;
}
