//! The pace that all workers keep together: permits dealt out, what was learnt from refusals, and the one probe of a relay
//! that failed. Never waits for anybody: a step says what may be had now.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::ledger::{Ask, Grant, PaceRow};
use crate::domain::time::Timestamp;

/// The pace is never learnt to be slower than this share of the limit: a trickle shows when a relay is well again.
pub const PERMILLE_MIN: i64 = 10;
/// Refusals closer together than this are one: several connections hear the same at once.
pub const SLOWER_GAP_MS: i64 = 5_000;
/// A pace that went well for this long is raised.
pub const FASTER_GAP_MS: i64 = 30_000;

/// A refusal that asks for less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slower<'a> {
    pub relay_id: i64,
    pub lane: &'a str,
    pub reason: &'a str,
    /// Nothing goes for this long.
    pub pause_ms: i64,
    /// As measured when it was refused, in microseconds between two messages; kept if none was kept before.
    pub base_us: i64,
}

/// A relay as it is known to who speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAt {
    pub id: i64,
    pub version: i64,
}

#[async_trait]
pub trait Pacing: Send + Sync {
    /// Deals out permits of a relay and its lanes, in the order asked, in one transaction.
    async fn take_permits(&self, relay_id: i64, asks: &[Ask], now: Timestamp) -> Result<Vec<Grant>>;

    /// All rows that say more than what is used up: learnt, suspended, or failing; and every relay's own.
    async fn paces(&self) -> Result<Vec<PaceRow>>;

    /// Halves a pace and suspends it, unless that happened less than [`SLOWER_GAP_MS`] ago. Returns whether it did.
    async fn slow_down(&self, slower: &Slower<'_>, now: Timestamp) -> Result<bool>;

    /// Raises a pace by a quarter after [`FASTER_GAP_MS`] without a refusal; at the full pace what was learnt is forgotten.
    async fn speed_up(&self, relay_id: i64, lane: &str, now: Timestamp) -> Result<bool>;

    /// The relay failed: suspends it until the given time with one more failure in a row, after which one probe decides.
    /// Workers that report a failure of before the last suspension ended change nothing, nor do those that have not heard of
    /// the relay's last change: it may have an address now that they did not try. Returns the failures in a row.
    async fn relay_failed(&self, relay: RelayAt, reason: &str, pause_ms: i64, now: Timestamp) -> Result<i64>;

    /// Asks to be the one that tries a relay whose suspension after failures has ended. `true` for one worker at a time, and only
    /// for one that knows the relay as it is now.
    async fn try_probe(&self, relay: RelayAt, worker: i64, until: Timestamp, now: Timestamp) -> Result<bool>;

    /// The relay takes mail: its failures are forgotten.
    async fn relay_works(&self, relay_id: i64, now: Timestamp) -> Result<()>;
}
