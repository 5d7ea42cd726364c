//! The one place where the program asks what time it is. Nothing below the loops and the web layer
//! holds a clock: everything else is told the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use crate::domain::time::Timestamp;

/// A source of the current time.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place where the wall clock is read")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// A clock that goes by another one, such as the database's, by which many machines agree. It is told from time to time what time
/// it is there; in between it goes on by the monotonic clock, so that nobody who sets this machine's clock moves it.
#[derive(Debug)]
pub struct ToldClock(RwLock<(Instant, Timestamp)>);

impl ToldClock {
    /// It was `there` when this machine's monotonic clock showed `at`.
    #[must_use]
    pub fn new(at: Instant, there: Timestamp) -> Self {
        Self(RwLock::new((at, there)))
    }

    /// As [`Self::new`], once more.
    pub fn tell(&self, at: Instant, there: Timestamp) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = (at, there);
    }
}

impl Clock for ToldClock {
    fn now(&self) -> Timestamp {
        let (at, there) = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        there + at.elapsed()
    }
}

/// A clock that stands still until it is moved. Clones share their time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.0)))
    }

    /// Moves the time; negative goes back, as real clocks sometimes do.
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_told_goes_on_from_there() {
        let hour_ago = Instant::now()
            .checked_sub(Duration::from_secs(3_600))
            .unwrap_or_else(Instant::now);
        let passed = hour_ago.elapsed().as_millis() as i64;
        let clock = ToldClock::new(hour_ago, Timestamp(1_000));
        assert!(clock.now() >= Timestamp(1_000 + passed));
        clock.tell(Instant::now(), Timestamp(5));
        assert!(clock.now() < Timestamp(1_000 + passed), "it goes back when it is told to");
    }
}
