//! Stage 3, lease: whether this worker may still act. Never trusts one clock: the wall clock may jump, and the
//! monotonic one stands still while a machine sleeps, so both must agree that the lease holds.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::time::Timestamp;

/// A worker stops acting this long before others may take its jobs: time enough for a write that is under
/// way, and for clocks that differ a little between machines.
pub const LEASE_MARGIN: Duration = Duration::from_secs(3);

/// The margin of a lease: of a short one a third, since a worker with no time left between two signs of life never acts.
#[must_use]
pub fn margin(lease: Duration) -> Duration {
    (lease / 3).min(LEASE_MARGIN)
}

/// How long the lease of this process still holds, as told by its own clocks.
pub struct LeaseWatch {
    until: Mutex<Until>,
}

#[derive(Clone, Copy)]
struct Until {
    instant: Instant,
    wall: Timestamp,
    /// When it held again after it had lapsed.
    back: Option<Instant>,
}

impl LeaseWatch {
    /// A lease of `length` that was asked for at these times: both taken before the request was sent.
    #[must_use]
    pub fn new(asked: Instant, asked_wall: Timestamp, length: Duration) -> Self {
        Self {
            until: Mutex::new(Until::of(asked, asked_wall, length, None)),
        }
    }

    /// The heartbeat asked for at these times was answered.
    pub fn extend(&self, asked: Instant, asked_wall: Timestamp, length: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let back = if until.holds(asked_wall) {
            until.back
        } else {
            Some(Instant::now())
        };
        *until = Until::of(asked, asked_wall, length, back);
    }

    /// Others may have taken our jobs, or are about to.
    pub fn end(&self) {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).wall = Timestamp(i64::MIN);
    }

    /// Whether a message may still be put on the wire.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).holds(now)
    }

    /// Whether this worker may judge others by their leases. When its own has lapsed, the database was most likely away, and theirs
    /// have lapsed as well: they are given `grace` to come back, as this one did, before they are taken for dead.
    #[must_use]
    pub fn may_judge(&self, now: Timestamp, grace: Duration) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.holds(now) && until.back.is_none_or(|at| at.elapsed() >= grace)
    }
}

impl Until {
    fn of(asked: Instant, asked_wall: Timestamp, length: Duration, back: Option<Instant>) -> Self {
        let usable = length.saturating_sub(margin(length));
        Until {
            instant: asked + usable,
            wall: asked_wall + usable,
            back,
        }
    }

    fn holds(&self, now: Timestamp) -> bool {
        Instant::now() < self.instant && now < self.wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_by_whichever_clock_is_first() {
        let watch = LeaseWatch::new(Instant::now(), Timestamp(0), LENGTH);
        assert!(watch.holds(Timestamp(11_999)));
        assert!(!watch.holds(Timestamp(12_000)), "the wall clock jumped ahead");
        tokio::time::advance(Duration::from_secs(12)).await;
        assert!(!watch.holds(Timestamp(0)), "the wall clock went back");
        watch.extend(Instant::now(), Timestamp(0), LENGTH);
        assert!(watch.holds(Timestamp(0)));
        watch.end();
        assert!(!watch.holds(Timestamp(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_just_come_back_judges_nobody() {
        const GRACE: Duration = Duration::from_secs(5);
        let watch = LeaseWatch::new(Instant::now(), Timestamp(0), LENGTH);
        assert!(watch.may_judge(Timestamp(0), GRACE), "it has just begun");
        tokio::time::advance(Duration::from_secs(12)).await;
        assert!(!watch.may_judge(Timestamp(12_000), GRACE), "its own lease has lapsed");
        watch.extend(Instant::now(), Timestamp(60_000), LENGTH);
        assert!(watch.holds(Timestamp(60_000)));
        assert!(!watch.may_judge(Timestamp(60_000), GRACE), "the others may be on their way back");
        tokio::time::advance(Duration::from_secs(3)).await;
        watch.extend(Instant::now(), Timestamp(63_000), LENGTH);
        assert!(!watch.may_judge(Timestamp(63_000), GRACE));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(watch.may_judge(Timestamp(65_000), GRACE));
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_lease_leaves_time_to_act() {
        let watch = LeaseWatch::new(Instant::now(), Timestamp(0), Duration::from_secs(3));
        assert!(watch.holds(Timestamp(1_999)));
        assert!(!watch.holds(Timestamp(2_000)));
    }
}
