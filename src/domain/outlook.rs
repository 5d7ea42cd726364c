//! When a broadcast will be through: what is left, at the speed of now, through the limits, quiet hours and suspensions that are known.
//! Pure. An estimate: it knows nothing of other broadcasts that share the relays, nor of what receivers will say.

use super::brake::day_limit;
use super::ledger::{PaceRow, Span};
use super::relay::Relay;
use super::time::Timestamp;

/// Farther than this nothing is foretold, in milliseconds: a year.
const HORIZON_MS: i64 = 366 * 24 * 3_600 * 1_000;

/// What is known about the rest of a broadcast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rest {
    /// Messages without a final outcome.
    pub n: i64,
    /// Messages a second at present; `None` or 0 while it stands still.
    pub per_sec: Option<f64>,
    /// Nothing of it goes before.
    pub not_before: Timestamp,
}

/// A relay, and what is used up of its hour and day.
struct Carrier<'a> {
    relay: &'a Relay,
    suspended_until: Option<Timestamp>,
    hour_taken: i64,
    day_taken: i64,
}

/// Milliseconds from `now` until the last message has gone; `None` when nobody can say: nothing moves and no time is known at which it
/// will, or that lies more than a year away. `carriers` are the relays that may carry it, with what is known of each.
#[must_use]
pub fn eta_ms(rest: &Rest, carriers: &[(&Relay, Option<&PaceRow>)], now: Timestamp) -> Option<i64> {
    if rest.n <= 0 {
        return Some(0);
    }
    let start = rest.not_before.max(now);
    let speed = rest.per_sec.filter(|r| *r > 0.0).or_else(|| allowed_per_sec(carriers));
    if !carriers.iter().any(|(relay, pace)| is_bounded(relay, *pace, now)) {
        // Without a speed nothing is known, unless it waits for a certain time.
        return match speed {
            Some(speed) => Some(start - now + (rest.n as f64 / speed * 1_000.0).ceil() as i64),
            None => (start > now).then_some(start - now),
        };
    }
    let mut carriers: Vec<Carrier> = carriers
        .iter()
        .map(|(relay, pace)| Carrier::new(relay, *pace, start))
        .collect();
    let (mut left, mut t) = (rest.n as f64, start);
    while t - now < HORIZON_MS {
        let end = Span::Hour.end(t);
        let rooms: Vec<(Timestamp, f64)> = carriers.iter().filter_map(|c| c.room(t, end)).collect();
        let Some(opens) = rooms.iter().map(|(at, _)| *at).min() else {
            t = end;
            carriers.iter_mut().for_each(|c| c.turn_over(t));
            continue;
        };
        let room: f64 = rooms.iter().map(|(_, n)| n).sum();
        let in_time = speed.map_or(f64::INFINITY, |s| s * (end - opens) as f64 / 1_000.0);
        let goes = room.min(in_time);
        if goes >= left {
            let takes = speed.map_or(0, |s| (left / s * 1_000.0).ceil() as i64);
            return Some(opens - now + takes);
        }
        left -= goes;
        for carrier in &mut carriers {
            if let Some((_, n)) = carrier.room(t, end) {
                // By what it can take, since nobody knows how they will share.
                let share = if room.is_finite() {
                    n / room
                } else {
                    f64::from(u8::from(n.is_infinite()))
                };
                carrier.take((goes * share) as i64);
            }
        }
        t = end;
        carriers.iter_mut().for_each(|c| c.turn_over(t));
    }
    None
}

/// Messages a second that the limits allow, if every relay has one.
fn allowed_per_sec(carriers: &[(&Relay, Option<&PaceRow>)]) -> Option<f64> {
    let limits: Option<Vec<u32>> = carriers.iter().map(|(r, _)| r.spec.limits.per_sec).collect();
    limits
        .filter(|l| !l.is_empty())
        .map(|l| l.iter().map(|n| f64::from(*n)).sum())
}

/// Whether anything but its speed bounds what a relay takes.
fn is_bounded(relay: &Relay, pace: Option<&PaceRow>, now: Timestamp) -> bool {
    let spec = &relay.spec;
    relay.paused.is_some()
        || spec.limits.per_hour.is_some()
        || spec.limits.per_day.is_some()
        || spec.warm_up.is_some()
        || spec.quiet_hours.is_some()
        || pace.is_some_and(|p| p.suspended_until.is_some_and(|at| at > now))
}

impl<'a> Carrier<'a> {
    fn new(relay: &'a Relay, pace: Option<&PaceRow>, at: Timestamp) -> Self {
        let (hour_taken, day_taken) = pace.map_or((0, 0), |p| p.account.taken(at));
        Self {
            relay,
            suspended_until: pace.and_then(|p| p.suspended_until),
            hour_taken,
            day_taken,
        }
    }

    /// From when on it takes mail in the hour that begins at `t`, and how much; `None` when it takes nothing.
    fn room(&self, t: Timestamp, end: Timestamp) -> Option<(Timestamp, f64)> {
        if self.relay.paused.is_some() {
            return None;
        }
        let mut opens = t.max(self.suspended_until.unwrap_or(t));
        if let Some(until) = self.relay.spec.quiet_hours.as_ref().and_then(|q| q.quiet_until(opens)) {
            opens = until;
        }
        if opens >= end {
            return None;
        }
        let left =
            |limit: Option<u32>, taken: i64| limit.map_or(f64::INFINITY, |l| (i64::from(l) - taken).max(0) as f64);
        let limits = self.relay.spec.limits;
        let room = left(limits.per_hour, self.hour_taken).min(left(day_limit(self.relay, t).1, self.day_taken));
        (room > 0.0).then_some((opens, room))
    }

    fn take(&mut self, n: i64) {
        self.hour_taken += n;
        self.day_taken += n;
    }

    fn turn_over(&mut self, t: Timestamp) {
        self.hour_taken = 0;
        // The day begins with one of its hours.
        if Span::Day.end(t) - t == 24 * 3_600 * 1_000 {
            self.day_taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::relay::{Limits, QuietHours, RelaySpec, WarmUp};

    const HOUR: i64 = 3_600 * 1_000;
    /// Midnight of some day.
    const NOW: Timestamp = Timestamp(20_000 * 24 * HOUR);

    fn relay(change: impl FnOnce(&mut RelaySpec)) -> Relay {
        let mut spec = RelaySpec::of("smtp://h");
        change(&mut spec);
        Relay {
            id: 1,
            name: "a".into(),
            spec,
            paused: None,
            paused_at: None,
            version: 1,
            updated_at: NOW,
        }
    }

    fn hours(n: i64, per_sec: f64, relays: &[&Relay]) -> Option<f64> {
        let carriers: Vec<_> = relays.iter().map(|r| (*r, None)).collect();
        let rest = Rest {
            n,
            per_sec: Some(per_sec),
            not_before: NOW,
        };
        eta_ms(&rest, &carriers, NOW).map(|ms| ms as f64 / HOUR as f64)
    }

    fn limits(per_sec: Option<u32>, per_hour: Option<u32>, per_day: Option<u32>) -> Relay {
        relay(|s| {
            s.limits = Limits {
                per_sec,
                per_hour,
                per_day,
            }
        })
    }

    #[test]
    fn the_limits_that_lie_ahead_count() {
        let free = relay(|_| {});
        assert_eq!(hours(36_000, 10.0, &[&free]), Some(1.0), "speed alone");
        assert_eq!(hours(36_000, 10.0, &[]), Some(1.0), "the capture relay has no row");
        assert_eq!(hours(1, 0.0, &[&free]), None, "it stands still, and nobody knows why");
        // 1,000 an hour, and the last 500 at ten a second.
        let per_hour = limits(None, Some(1_000), None);
        assert_eq!(hours(2_500, 10.0, &[&per_hour]), Some(2.0 + 50.0 / 3_600.0));
        assert_eq!(hours(2_500, 10.0, &[&per_hour, &free]), Some(250.0 / 3_600.0), "the other one takes the rest");
        let per_day = limits(Some(10), None, Some(36_000));
        assert_eq!(hours(72_000, 0.0, &[&per_day]), Some(25.0), "at the speed of the limit when it stands still");
        assert_eq!(hours(36_000 * 400, 10.0, &[&per_day]), None, "beyond a year nothing is foretold");
    }

    #[test]
    fn a_warm_up_takes_its_days() {
        let warm = relay(|s| {
            s.warm_up = Some(WarmUp {
                started_at: NOW,
                start_per_day: 1_000,
                factor: 2.0,
                ceiling_per_day: 100_000,
            });
        });
        // 1,000 + 2,000 + 4,000, and 3,600 of the fourth day's 8,000.
        assert_eq!(hours(10_600, 1.0, &[&warm]), Some(73.0));
    }

    #[test]
    fn quiet_hours_and_suspensions_are_waited_for() {
        let quiet = relay(|s| {
            s.quiet_hours = Some(QuietHours {
                from: "22:00".parse().unwrap(),
                until: "07:30".parse().unwrap(),
                time_zone: "UTC".into(),
            });
        });
        assert_eq!(hours(3_600, 1.0, &[&quiet]), Some(8.5));
        assert_eq!(hours(3_600 * 15, 1.0, &[&quiet]), Some(24.0 + 8.0), "the last half hour is for the next morning");
        let paused = Relay {
            paused: Some("x".into()),
            ..relay(|_| {})
        };
        assert_eq!(hours(1, 1.0, &[&paused]), None);
    }
}
