//! How fast a port is: how long messages keep its connections, and how many of a lane went lately. Never limits anything.

use std::time::Duration;

use tokio::time::Instant;

/// Over this long the rate of a lane is measured, in microseconds.
const METER_US: i64 = 10_000_000;

/// How long a message keeps a connection.
#[derive(Default)]
pub(super) struct Busy {
    /// Messages under way.
    n: u32,
    /// Since when no message has ended, while some are under way.
    since: Option<Instant>,
    /// Smoothed, in microseconds.
    usual_us: Option<f64>,
}

impl Busy {
    /// Of the last so many messages the mean is told, more or less.
    const SMOOTH: f64 = 16.0;

    pub(super) fn begun(&mut self) {
        self.n += 1;
        if self.n == 1 {
            self.since = Some(Instant::now());
        }
    }

    pub(super) fn ended(&mut self, held: Duration) {
        let us = held.as_micros() as f64;
        self.usual_us = Some(self.usual_us.map_or(us, |usual| usual + (us - usual) / Self::SMOOTH));
        self.n = self.n.saturating_sub(1);
        self.since = (self.n > 0).then(Instant::now);
    }

    /// `None` while nothing has ended, and nothing is under way.
    pub(super) fn us(&self) -> Option<f64> {
        let stuck = self.since.map(|since| since.elapsed().as_micros() as f64);
        match (self.usual_us, stuck) {
            (Some(usual), Some(stuck)) => Some(usual.max(stuck)),
            (usual, stuck) => usual.or(stuck),
        }
    }
}

/// How many messages went lately.
pub(super) struct Meter {
    since_us: i64,
    n: u32,
}

impl Meter {
    pub(super) fn at(now_us: i64) -> Self {
        Self { since_us: now_us, n: 0 }
    }

    pub(super) fn count(&mut self, now_us: i64) {
        self.n += 1;
        if now_us - self.since_us > 2 * METER_US {
            self.n = self.n.div_ceil(2);
            self.since_us = now_us - METER_US;
        }
    }

    pub(super) fn per_us(&self, now_us: i64) -> f64 {
        f64::from(self.n) / ((now_us - self.since_us).max(1_000_000) as f64)
    }
}
