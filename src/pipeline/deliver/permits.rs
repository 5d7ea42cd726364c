//! The permits at hand for a relay or a lane of it: each is good from its due time for a moment, then it is dropped. Never asks
//! for any by itself: it says how many it could use.

use std::collections::VecDeque;

use crate::domain::ledger::{Ask, Grant, LATE_US_MAX, Span};
use crate::domain::time::Timestamp;

/// After an ask that failed the next one waits this long, in microseconds.
const FAILED_GAP_US: i64 = 500_000;

/// What limits a relay or a lane; all `None` is no limit, and then there are no permits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    pub period_us: Option<i64>,
    pub per_hour: Option<i64>,
    pub per_day: Option<i64>,
}

impl Quota {
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Permits at hand.
#[derive(Debug)]
pub struct Bucket {
    pub quota: Quota,
    slices: VecDeque<Slice>,
    /// Used since the last ask: what a worker used is what it can use.
    used: i64,
    /// To be given back.
    unused: i64,
    again_us: i64,
    is_asking: bool,
    /// When the last ask was made: what is at hand counts in the hour and the day of that time, or of an earlier one.
    asked_us: i64,
    pub used_up: Option<(Span, Timestamp)>,
}

#[derive(Debug)]
struct Slice {
    next_us: i64,
    n: i64,
}

impl Bucket {
    #[must_use]
    pub fn of(quota: Quota) -> Self {
        Self {
            quota,
            slices: VecDeque::new(),
            used: 0,
            unused: 0,
            again_us: 0,
            is_asking: false,
            asked_us: 0,
            used_up: None,
        }
    }

    /// As [`Bucket::of`], for a quota that was changed: the hour and the day have the permits at hand again.
    #[must_use]
    pub fn instead_of(old: &Self, quota: Quota) -> Self {
        Self {
            used: old.used,
            asked_us: old.asked_us,
            unused: old.unused + old.slices.iter().map(|s| s.n).sum::<i64>(),
            ..Self::of(quota)
        }
    }

    /// Whether a permit is due now.
    ///
    /// # Errors
    /// When the next one at hand falls due; `None` when there is none at hand.
    pub fn due(&mut self, now_us: i64) -> Result<(), Option<i64>> {
        self.drop_old(now_us);
        match self.slices.front() {
            Some(slice) if slice.next_us <= now_us => Ok(()),
            Some(slice) => Err(Some(slice.next_us)),
            None => Err(None),
        }
    }

    /// Uses one that is due.
    pub fn take(&mut self) {
        let period = self.quota.period_us.unwrap_or(0);
        let Some(slice) = self.slices.front_mut() else { return };
        slice.n -= 1;
        slice.next_us += period;
        if slice.n == 0 {
            self.slices.pop_front();
        }
        self.used += 1;
    }

    /// Brings one back that was taken at `taken_us` and came to nothing. With a pace its moment is over, and only the hour and the
    /// day have it again; those of an hour or a day that is over are gone.
    pub fn put_back(&mut self, taken_us: i64, now_us: i64) {
        if self.is_over(taken_us, now_us) {
            return;
        }
        self.used = (self.used - 1).max(0);
        match self.quota.period_us {
            None => self.slices.push_front(Slice { next_us: now_us, n: 1 }),
            Some(_) => {
                self.unused += 1;
                if self.used_up.take().is_some() {
                    self.again_us = now_us;
                }
            }
        }
    }

    /// What to ask for, with so many messages waiting and so many connections free. `None` when there is enough at hand, or it
    /// is too early.
    pub fn ask(&mut self, lane: &str, waiting: usize, free: usize, now_us: i64) -> Option<Ask> {
        self.drop_old(now_us);
        if self.is_asking || now_us < self.again_us || waiting == 0 {
            return None;
        }
        let at_hand: i64 = self.slices.iter().map(|s| s.n).sum();
        // Twice what it used since the last ask, so that a worker that can do more finds its way up.
        let want = (self.used * 2 + free as i64 + 1).min(waiting as i64) - at_hand;
        if want <= 0 {
            return None;
        }
        self.is_asking = true;
        self.asked_us = now_us;
        self.used = 0;
        Some(self.asking(lane, want))
    }

    /// The permits that will not be used, to be given back.
    pub fn leftover(&mut self, lane: &str, now_us: i64) -> Option<Ask> {
        self.drop_old(now_us);
        self.unused += self.slices.drain(..).map(|s| s.n).sum::<i64>();
        let is_counted = self.quota.per_hour.is_some() || self.quota.per_day.is_some();
        (self.unused > 0 && is_counted && !self.is_asking).then(|| self.asking(lane, 0))
    }

    pub fn granted(&mut self, grant: &Grant) {
        self.is_asking = false;
        self.again_us = grant.again_us;
        self.used_up = grant.used_up.filter(|_| grant.n == 0);
        if grant.n > 0 {
            self.slices.push_back(Slice {
                next_us: grant.first_us,
                n: grant.n,
            });
        }
    }

    /// The ask could not be answered.
    pub fn not_granted(&mut self, now_us: i64) {
        self.is_asking = false;
        self.again_us = now_us + FAILED_GAP_US;
    }

    /// When a permit may be had, as far as is known: 0 is soon.
    #[must_use]
    pub fn opens_us(&self) -> i64 {
        match self.slices.front() {
            Some(slice) => slice.next_us,
            None => self.again_us,
        }
    }

    fn asking(&mut self, lane: &str, n: i64) -> Ask {
        Ask {
            lane: lane.to_owned(),
            n,
            unused: std::mem::take(&mut self.unused),
            period_us: self.quota.period_us,
            per_hour: self.quota.per_hour,
            per_day: self.quota.per_day,
        }
    }

    /// Whether the hour or the day in which something was dealt out has ended since.
    fn is_over(&self, dealt_us: i64, now_us: i64) -> bool {
        let span = match (self.quota.per_hour, self.quota.per_day) {
            (Some(_), _) => Span::Hour,
            (None, Some(_)) => Span::Day,
            (None, None) => return false,
        };
        now_us / 1_000 >= span.end(Timestamp(dealt_us / 1_000)).0
    }

    /// Lets go of what may not be used any more: it was dealt out for an hour or a day that is over, or its moment is.
    fn drop_old(&mut self, now_us: i64) {
        if self.is_over(self.asked_us, now_us) {
            self.slices.clear();
            self.unused = 0;
            return;
        }
        let Some(period) = self.quota.period_us else { return };
        while let Some(slice) = self.slices.front_mut() {
            let late = (now_us - LATE_US_MAX - slice.next_us).max(0);
            let n = slice.n.min((late + period - 1) / period);
            self.unused += n;
            slice.n -= n;
            slice.next_us += n * period;
            if slice.n > 0 {
                return;
            }
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(period_us: Option<i64>) -> Bucket {
        Bucket::of(Quota {
            period_us,
            per_hour: Some(1_000),
            per_day: None,
        })
    }

    fn grant(n: i64, first_us: i64) -> Grant {
        Grant {
            n,
            first_us,
            again_us: 0,
            used_up: None,
        }
    }

    #[test]
    fn a_permit_is_good_from_its_due_time_for_the_burst() {
        let mut bucket = bucket(Some(10_000));
        bucket.granted(&grant(3, 100_000));
        assert_eq!(bucket.due(99_999), Err(Some(100_000)));
        assert_eq!(bucket.due(100_000 + LATE_US_MAX), Ok(()));
        bucket.take();
        // The second is too late now, the third is not.
        assert_eq!(bucket.due(110_001 + LATE_US_MAX), Ok(()));
        bucket.take();
        assert_eq!(bucket.due(120_000), Err(None));
        assert_eq!(bucket.leftover("", 120_000).map(|ask| (ask.n, ask.unused)), Some((0, 1)));
    }

    #[test]
    fn a_permit_that_came_to_nothing_is_not_used_up() {
        let mut daily = Bucket::of(Quota {
            per_day: Some(1),
            ..Quota::default()
        });
        daily.granted(&grant(1, 0));
        daily.take();
        assert_eq!(daily.due(1), Err(None));
        daily.put_back(0, 1);
        assert_eq!(daily.due(1), Ok(()));
        daily.take();
        let day_us = 86_400_000_000;
        daily.put_back(1, day_us);
        assert_eq!(daily.due(day_us), Err(None), "that was yesterday");

        let mut paced = bucket(Some(10_000));
        paced.granted(&grant(1, 0));
        paced.take();
        paced.granted(&Grant {
            used_up: Some((Span::Hour, Timestamp(3_600_000))),
            ..grant(0, 0)
        });
        paced.put_back(0, 5);
        assert_eq!(paced.due(5), Err(None), "its moment is over");
        assert_eq!(paced.ask("", 9, 0, 5).map(|ask| (ask.n, ask.unused)), Some((1, 1)));
    }

    #[test]
    fn a_changed_quota_gives_back_what_was_dealt_out_under_the_old_one() {
        let daily = |n| Quota {
            per_day: Some(n),
            ..Quota::default()
        };
        let mut old = Bucket::of(daily(20));
        old.granted(&grant(20, 0));
        old.take();
        let mut new = Bucket::instead_of(&old, daily(40));
        assert_eq!(new.due(1), Err(None));
        assert_eq!(new.ask("", 100, 0, 1).map(|ask| ask.unused), Some(19));
    }

    #[test]
    fn without_a_pace_a_permit_stays_good_until_its_hour_is_over() {
        let hour_us = 3_600_000_000;
        let mut bucket = bucket(None);
        assert!(bucket.ask("", 2, 0, 1).is_some());
        bucket.granted(&grant(2, 1));
        assert_eq!(bucket.due(hour_us - 1), Ok(()));
        bucket.take();
        assert_eq!(bucket.due(hour_us), Err(None), "the next hour's have to be asked for");
        assert_eq!(bucket.leftover("", hour_us), None, "and the next hour is given nothing back");
        assert_eq!(bucket.ask("", 2, 0, hour_us).map(|ask| ask.unused), Some(0));
    }

    #[test]
    fn it_asks_for_what_it_can_use_and_not_twice_at_once() {
        let mut bucket = bucket(Some(10_000));
        assert_eq!(bucket.ask("l", 0, 4, 0), None, "nothing waits");
        assert_eq!(bucket.ask("l", 100, 4, 0).map(|a| a.n), Some(5));
        assert_eq!(bucket.ask("l", 100, 4, 0), None, "an ask is under way");
        bucket.granted(&grant(5, 0));
        (0..5).for_each(|_| bucket.take());
        assert_eq!(bucket.ask("l", 100, 0, 0).map(|a| a.n), Some(11));
        bucket.not_granted(0);
        assert_eq!(bucket.ask("l", 100, 9, 1), None, "not at once after a failure");
        assert_eq!(bucket.ask("l", 3, 9, FAILED_GAP_US).map(|a| a.n), Some(3));
    }
}
