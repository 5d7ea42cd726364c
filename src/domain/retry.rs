//! When a deferred message is tried again. Pure: the jitter is given.

use std::time::Duration;

use super::time::Timestamp;

/// The plan for messages that a relay deferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The wait after each counted try; the last one repeats.
    pub delays: Vec<Duration>,
    /// How far a wait is moved at random, in percent to either side, so that what was deferred together
    /// does not come back together.
    pub jitter_percent: u8,
    /// From the broadcast's start to giving up.
    pub max_age: Duration,
}

impl RetryPolicy {
    /// When to try again after `burnt` counted tries, or `None` to give up: the message would then be
    /// older than the maximum age. `at_least` is the wait a relay asked for. `jitter` lies in -1 to 1.
    #[must_use]
    pub fn next_at(
        &self,
        burnt: i64,
        at_least: Option<Duration>,
        jitter: f64,
        started: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let place = usize::try_from(burnt.saturating_sub(1))
            .unwrap_or(0)
            .min(self.delays.len().saturating_sub(1));
        let delay = self.delays.get(place).copied().unwrap_or(Duration::from_secs(60));
        let moved = delay.mul_f64(1.0 + jitter.clamp(-1.0, 1.0) * f64::from(self.jitter_percent) / 100.0);
        let next = now + at_least.map_or(moved, |wait| moved.max(wait));
        (next - started <= i64::try_from(self.max_age.as_millis()).unwrap_or(i64::MAX)).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            delays: [60, 300, 900].map(Duration::from_secs).to_vec(),
            jitter_percent: 20,
            max_age: Duration::from_secs(3_600),
        }
    }

    #[test]
    fn waits_grow_and_the_last_one_repeats() {
        let at = |burnt| {
            policy()
                .next_at(burnt, None, 0.0, Timestamp(0), Timestamp(0))
                .map(|t| t.0 / 1_000)
        };
        assert_eq!([0, 1, 2, 3, 4].map(at), [Some(60), Some(60), Some(300), Some(900), Some(900)]);
    }

    #[test]
    fn jitter_moves_a_wait_by_its_percentage_at_most() {
        let at = |jitter| {
            policy()
                .next_at(2, None, jitter, Timestamp(0), Timestamp(0))
                .map(|t| t.0 / 1_000)
        };
        assert_eq!([at(-1.0), at(1.0), at(9.0)], [Some(240), Some(360), Some(360)]);
    }

    #[test]
    fn a_relay_that_asks_for_more_time_gets_it() {
        let next = policy().next_at(1, Some(Duration::from_secs(600)), -1.0, Timestamp(0), Timestamp(0));
        assert_eq!(next, Some(Timestamp(600_000)));
    }

    #[test]
    fn a_message_too_old_is_given_up() {
        let now = Timestamp(3_550_000);
        assert_eq!(policy().next_at(1, None, 0.0, Timestamp(0), now), None);
        assert!(policy().next_at(1, None, 0.0, Timestamp(100_000), now).is_some());
    }
}
