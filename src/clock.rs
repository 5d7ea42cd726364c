//! The one place where the program asks what time it is. Nothing below the loops and the web layer
//! holds a clock: everything else is told the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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

/// Not set yet: the machine's own clock is all there is.
const UNSET: i64 = i64::MIN;

/// A clock that is set by somebody else's, and carried forward by one that nobody can turn: the time since this machine was started,
/// sleep included. So the wall clock of this machine may jump as it likes. Clones show the same time.
#[derive(Debug, Clone)]
pub struct FollowingClock(Arc<AtomicI64>);

impl Default for FollowingClock {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(UNSET)))
    }
}

impl FollowingClock {
    /// It was `theirs` at this moment by [`FollowingClock::up`]. Returns by how many milliseconds that moves this clock.
    pub fn set(&self, up_ms: i64, theirs: Timestamp) -> i64 {
        let moved = theirs.0 - self.now().0 + (Self::up() - up_ms);
        self.0.store(theirs.0 - up_ms, Ordering::SeqCst);
        moved
    }

    /// Whether anybody has set it.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst) != UNSET
    }

    /// Milliseconds since this machine was started.
    #[must_use]
    pub fn up() -> i64 {
        #[cfg(target_os = "linux")]
        const UP: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const UP: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let up = rustix::time::clock_gettime(UP);
        up.tv_sec * 1_000 + up.tv_nsec / 1_000_000
    }
}

impl Clock for FollowingClock {
    fn now(&self) -> Timestamp {
        match self.0.load(Ordering::SeqCst) {
            UNSET => SystemClock.now(),
            started => Timestamp(started + Self::up()),
        }
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
    use super::*;

    #[test]
    fn a_clock_that_follows_shows_the_machines_time_until_it_is_set() {
        let clock = FollowingClock::default();
        assert!((clock.now() - SystemClock.now()).abs() < 60_000);
        assert!(!clock.is_set());
        let theirs = Timestamp(1_000_000);
        assert!(clock.set(FollowingClock::up(), theirs) < -1_000_000, "it was this century before");
        let since = clock.now() - theirs;
        assert!((0..60_000).contains(&since), "{since}");
        let moved = clock.clone().set(FollowingClock::up(), clock.now().plus_ms(5_000));
        assert!((5_000..65_000).contains(&moved), "{moved}");
    }
}
