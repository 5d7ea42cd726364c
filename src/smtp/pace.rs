//! The pace at which messages may go to one relay. Never queues work: a caller asks first and takes
//! the work afterwards, so that what may not go now is not claimed.

use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// The slowest pace: one message an hour. A smaller number is taken for this one; to send nothing at
/// all is a pause, and pauses are not the pace's business.
pub const RATE_PER_SEC_MIN: f64 = 1.0 / 3600.0;
/// The burst is what the rate allows in this time (and at least one message). It is long enough
/// to make up for a late timer, so that the mean is reached, and short enough that in no second more
/// than a twentieth above the limit goes out.
const BURST: Duration = Duration::from_millis(50);
/// Longest sleep before the limiter is asked again: a changed rate is felt within this time.
const NAP_MAX: Duration = Duration::from_secs(1);

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// A limit on messages per second that may change while it is used. Clone an `Arc` of it to share.
#[derive(Debug)]
pub struct Pace {
    current: RwLock<Current>,
    /// Waiters stand in line: without it all of them would wake for each single permit.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Current {
    rate_per_sec: Option<f64>,
    limiter: Option<Arc<Limiter>>,
}

impl Pace {
    /// `None` is no limit.
    #[must_use]
    pub fn new(rate_per_sec: Option<f64>) -> Self {
        Self {
            current: RwLock::new(Current::of(rate_per_sec)),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits until one message may go, and takes its permit. First come, first served.
    /// Dropped while waiting, it takes nothing.
    pub async fn ready(&self) {
        if self.limiter().is_none() {
            return;
        }
        let _turn = self.turn.lock().await;
        while let Err(wait) = self.try_take() {
            tokio::time::sleep(wait.min(NAP_MAX)).await;
        }
    }

    /// Takes a permit if there is one.
    ///
    /// # Errors
    /// How long until there may be one; nothing was taken.
    pub fn try_take(&self) -> Result<(), Duration> {
        let Some(limiter) = self.limiter() else { return Ok(()) };
        limiter.check().map_err(|not_until| {
            // A timer never fires early and seldom exactly: a millisecond is its grain.
            not_until
                .wait_time_from(limiter.clock().now())
                .max(Duration::from_millis(1))
        })
    }

    /// Changes the limit, for example to this worker's share of it. Setting the same rate again
    /// changes nothing; a new rate starts with its (small) burst.
    pub fn set_rate(&self, rate_per_sec: Option<f64>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.rate_per_sec != rate_per_sec {
            *current = Current::of(rate_per_sec);
        }
    }

    /// The limit now, in messages per second.
    #[must_use]
    pub fn rate_per_sec(&self) -> Option<f64> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).rate_per_sec
    }

    fn limiter(&self) -> Option<Arc<Limiter>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .limiter
            .clone()
    }
}

impl Current {
    fn of(rate_per_sec: Option<f64>) -> Self {
        let limiter = rate_per_sec.map(|rate| Arc::new(limiter(rate)));
        Self { rate_per_sec, limiter }
    }
}

fn limiter(rate_per_sec: f64) -> Limiter {
    let rate = rate_per_sec.max(RATE_PER_SEC_MIN);
    // At least a nanosecond, which is beyond any real rate, because a period may not be zero.
    let period = Duration::from_secs_f64(1.0 / rate).max(Duration::from_nanos(1));
    let in_burst = u32::try_from(BURST.as_nanos() / period.as_nanos()).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(in_burst).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(period)
        .expect("the period is not zero")
        .allow_burst(burst);
    RateLimiter::direct_with_clock(quota, TokioClock { start: Instant::now() })
}

/// The limiter's clock is tokio's, so that it agrees with the sleeps, also where time stands still.
#[derive(Debug, Clone)]
struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `n` permits and says how long it took.
    async fn take(pace: &Pace, n: u32) -> Duration {
        let start = Instant::now();
        for _ in 0..n {
            pace.ready().await;
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_mean_is_the_rate_and_no_second_exceeds_it_by_more_than_the_burst() {
        let pace = Pace::new(Some(200.0));
        let start = Instant::now();
        let mut at = Vec::new();
        while start.elapsed() < Duration::from_secs(10) {
            pace.ready().await;
            at.push(start.elapsed());
        }
        assert!((1990..=2012).contains(&at.len()), "{} in ten seconds", at.len());
        for (n, from) in at.iter().enumerate() {
            let in_window = at[n..]
                .iter()
                .take_while(|t| **t < *from + Duration::from_secs(1))
                .count();
            assert!(in_window <= 210, "{in_window} in the second from {from:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_never_waits() {
        assert_eq!(take(&Pace::new(None), 10_000).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_below_one_a_second_is_kept() {
        let took = take(&Pace::new(Some(0.25)), 4).await;
        assert!((Duration::from_secs(12)..Duration::from_millis(12_100)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_is_felt_within_a_second_by_those_who_wait() {
        let pace = Arc::new(Pace::new(Some(RATE_PER_SEC_MIN)));
        pace.ready().await;
        let start = Instant::now();
        let waiter = tokio::spawn({
            let pace = Arc::clone(&pace);
            async move { pace.ready().await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        pace.set_rate(Some(100.0));
        waiter.await.unwrap();
        assert!(start.elapsed() <= NAP_MAX, "{:?}", start.elapsed());
        assert_eq!(pace.rate_per_sec(), Some(100.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_permit_names_the_wait_and_takes_nothing() {
        let pace = Pace::new(Some(10.0));
        assert_eq!(pace.try_take(), Ok(()));
        let wait = pace.try_take().unwrap_err();
        tokio::time::sleep(wait).await;
        assert_eq!(pace.try_take(), Ok(()));
    }
}
