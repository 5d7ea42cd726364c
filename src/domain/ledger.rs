//! The ledger of permits for one relay, or for one lane of a relay: how many messages may go, and when each may. Pure: the
//! store keeps an account as a row and moves it in one transaction, so that all workers together keep the limit.
//!
//! Permits are dealt out in the order of their due times, one every `period_us` (a generic cell rate algorithm without
//! credit: time in which nobody asked is gone). Whoever got one uses it within [`LATE_US_MAX`] of its due time or drops it, and
//! so no window of a second sees more than the limit and what falls due in that time, however many workers there are.

use super::time::Timestamp;

/// A permit is good for this long after its due time: long enough for a timer that is late on a busy machine, and short
/// enough that no second sees more than a twentieth above the limit. This is the burst.
pub const LATE_US_MAX: i64 = 50_000;
/// Permits are dealt out this far ahead: time enough to ask again, also of a database that takes its time, and short
/// enough that a worker which dies takes no more than this with it.
pub const AHEAD_US: i64 = 250_000;
/// An account that is further ahead of now than this (and a period) was moved by a clock that is wrong.
const CLOCK_ERROR_US_MAX: i64 = 5_000_000;

const HOUR_MS: i64 = 3_600 * 1_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What is used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// When the next permit falls due, in microseconds since the epoch.
    pub next_us: i64,
    /// The hour since the epoch that `hour_taken` counts.
    pub hour: i64,
    pub hour_taken: i64,
    pub day: i64,
    pub day_taken: i64,
}

/// What is known of a relay (lane `""`) or of one lane of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaceRow {
    pub relay_id: i64,
    pub lane: String,
    pub account: Account,
    /// Of the pace that is allowed; 1000 when nothing was learnt.
    pub permille: i64,
    /// Microseconds between two messages when it was first slowed down, for what has no limit of its own; 0 is unknown.
    pub base_us: i64,
    /// Nothing goes before.
    pub suspended_until: Option<Timestamp>,
    pub reason: Option<String>,
    /// In a row. More than zero on a relay: whether it takes mail again is tried by one message in the whole cluster.
    pub failures: i64,
    pub probe_until: Option<Timestamp>,
}

/// What a worker would like to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// `""` is the relay itself.
    pub lane: String,
    pub n: i64,
    /// Permits of this hour and day that came to nothing and are given back.
    pub unused: i64,
    /// Between two messages; `None` when only hours and days are limited.
    pub period_us: Option<i64>,
    pub per_hour: Option<i64>,
    pub per_day: Option<i64>,
}

/// What it gets: `n` permits, the first due at `first_us` and the others a period apart each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    pub n: i64,
    pub first_us: i64,
    /// When asking again makes sense, in microseconds since the epoch.
    pub again_us: i64,
    /// Which limit was used up, and until when.
    pub used_up: Option<(Span, Timestamp)>,
}

/// A span of time that a limit counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Hour,
    Day,
}

/// Microseconds between two messages at so many a second, rounded up: never more than the limit.
#[must_use]
pub fn period_us(per_sec: u32) -> i64 {
    i64::from(1_000_000_u32.div_ceil(per_sec.max(1)))
}

impl Account {
    /// Deals out what may be had now.
    pub fn deal(&mut self, ask: &Ask, now: Timestamp) -> Grant {
        self.turn_over(now);
        self.hour_taken = (self.hour_taken - ask.unused).max(0);
        self.day_taken = (self.day_taken - ask.unused).max(0);
        let now_us = now.0 * 1_000;
        let mut n = ask.n.max(0);
        let mut used_up = None;
        for (limit, taken, span) in [
            (ask.per_hour, self.hour_taken, Span::Hour),
            (ask.per_day, self.day_taken, Span::Day),
        ] {
            let Some(limit) = limit else { continue };
            let left = (limit - taken).max(0);
            n = n.min(left);
            if left == 0 {
                used_up = Some((span, span.end(now)));
            }
        }
        let first_us = self.first(ask.period_us, now_us);
        if let Some(period) = ask.period_us {
            let ahead = now_us + AHEAD_US - first_us;
            let in_time = if ahead < 0 { 0 } else { ahead / period + 1 };
            n = n.min(in_time);
            self.next_us = first_us + n * period;
        }
        self.hour_taken += n;
        self.day_taken += n;
        let again_us = match (used_up, ask.period_us) {
            (Some((_, end)), _) if n == 0 => end.0 * 1_000,
            (_, Some(_)) => (self.next_us - AHEAD_US / 2).max(now_us),
            _ => now_us,
        };
        Grant {
            n,
            first_us,
            again_us,
            used_up,
        }
    }

    /// When the next permit falls due.
    fn first(&self, period_us: Option<i64>, now_us: i64) -> i64 {
        let Some(period) = period_us else { return now_us };
        let is_credible = self.next_us <= now_us + AHEAD_US + period + CLOCK_ERROR_US_MAX;
        if is_credible { self.next_us.max(now_us) } else { now_us }
    }

    /// What is used up of the hour and the day of `now`.
    #[must_use]
    pub fn taken(&self, now: Timestamp) -> (i64, i64) {
        let mut here = *self;
        here.turn_over(now);
        (here.hour_taken, here.day_taken)
    }

    fn turn_over(&mut self, now: Timestamp) {
        let (hour, day) = (now.0.div_euclid(HOUR_MS), now.0.div_euclid(DAY_MS));
        if hour != self.hour {
            (self.hour, self.hour_taken) = (hour, 0);
        }
        if day != self.day {
            (self.day, self.day_taken) = (day, 0);
        }
    }
}

impl Span {
    /// When the span that `now` is in ends.
    #[must_use]
    pub fn end(self, now: Timestamp) -> Timestamp {
        let length = match self {
            Span::Hour => HOUR_MS,
            Span::Day => DAY_MS,
        };
        Timestamp((now.0.div_euclid(length) + 1) * length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(n: i64) -> Ask {
        Ask {
            lane: String::new(),
            n,
            unused: 0,
            period_us: None,
            per_hour: None,
            per_day: None,
        }
    }

    fn at_rate(n: i64, per_sec: u32) -> Ask {
        Ask {
            period_us: Some(period_us(per_sec)),
            ..ask(n)
        }
    }

    #[test]
    fn a_period_never_lets_more_through_than_the_limit() {
        assert_eq!([1, 3, 200, 1_000_000, u32::MAX].map(period_us), [1_000_000, 333_334, 5_000, 1, 1]);
    }

    #[test]
    fn permits_fall_due_a_period_apart_and_not_far_ahead() {
        let mut account = Account::default();
        let now = Timestamp(1_000_000);
        let first = account.deal(&at_rate(10, 200), now);
        assert_eq!((first.n, first.first_us), (10, 1_000_000_000));
        let second = account.deal(&at_rate(1_000, 200), now);
        // A quarter of a second ahead and no further: 250 / 5 + 1 in all.
        assert_eq!((second.n, second.first_us), (41, 1_000_050_000));
        let third = account.deal(&at_rate(1, 200), now);
        assert_eq!(third.n, 0);
        assert!(third.again_us > 1_000_000_000, "asking at once again makes no sense");
        // Time in which nobody asked is gone.
        let later = account.deal(&at_rate(1, 200), Timestamp(1_060_000));
        assert_eq!(later.first_us, 1_060_000_000);
    }

    #[test]
    fn hours_and_days_are_used_up_and_begin_anew() {
        let mut account = Account::default();
        let limited = |n, unused| Ask {
            unused,
            per_hour: Some(5),
            per_day: Some(8),
            ..ask(n)
        };
        let hour = |h: i64| Timestamp(h * HOUR_MS + 1);
        assert_eq!(account.deal(&limited(9, 0), hour(48)).n, 5);
        let none = account.deal(&limited(9, 0), hour(48));
        assert_eq!((none.n, none.used_up), (0, Some((Span::Hour, Timestamp(49 * HOUR_MS)))));
        assert_eq!(none.again_us, 49 * HOUR_MS * 1_000);
        assert_eq!(account.deal(&limited(9, 2), hour(48)).n, 2, "two were given back");
        assert_eq!(account.deal(&limited(9, 0), hour(49)).n, 3, "the day has three left");
        let none = account.deal(&limited(9, 0), hour(50));
        assert_eq!((none.n, none.used_up), (0, Some((Span::Day, Timestamp(72 * HOUR_MS)))));
        assert_eq!(account.deal(&limited(9, 0), hour(72)).n, 5);
    }

    #[test]
    fn a_clock_that_jumped_stops_nobody_for_long() {
        let mut account = Account::default();
        account.deal(&at_rate(1, 10), Timestamp(3_600_000));
        assert_eq!(account.deal(&at_rate(1, 10), Timestamp(0)).first_us, 0);
    }

    proptest! {
        /// Any number of workers that ask for whatever they like, whenever they like.
        #[test]
        fn no_second_sees_more_than_the_limit_and_the_burst(
            asks in prop::collection::vec((0i64..40, 0i64..100), 1..200), per_sec in 1u32..500,
        ) {
            let (mut account, mut now, mut used) = (Account::default(), Timestamp(1_000_000), Vec::new());
            for (n, wait) in asks {
                now = now.plus_ms(wait);
                let grant = account.deal(&at_rate(n, per_sec), now);
                let due = (0..grant.n).map(|k| grant.first_us + k * period_us(per_sec));
                // Each is used as late as it may be, or at once.
                used.extend(due.enumerate().map(|(k, due)| due.max(now.0 * 1_000) + if k % 2 == 0 { LATE_US_MAX } else { 0 }));
            }
            used.sort_unstable();
            let burst = LATE_US_MAX / period_us(per_sec) + 2;
            for (n, from) in used.iter().enumerate() {
                let within = used[n..].iter().take_while(|t| **t < from + 1_000_000).count() as i64;
                prop_assert!(within <= i64::from(per_sec) + burst, "{within} in a second at {per_sec}");
            }
        }
    }
}
