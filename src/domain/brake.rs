//! What keeps mail from going faster now: one value, in words and with a time, for pages, the API and the log. Pure.

use serde::{Deserialize, Serialize};

use super::ledger::{PaceRow, Span};
use super::relay::Relay;
use super::time::Timestamp;

/// What binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrakeKind {
    /// Nobody is there to send.
    NoWorker,
    /// There is no relay, or none of the name that the broadcast asks for.
    NoRelay,
    RelayPaused,
    /// The relay failed too often; it is tried again by one message.
    RelayFailing,
    /// The relay asked for less.
    RelaySuspended,
    QuietHours,
    /// The relay's day is used up, since it is new and warms up.
    WarmUp,
    DayLimit,
    HourLimit,
    /// The destination asked for less.
    LaneSuspended,
    /// The pace to the destination was lowered, since it asked for less.
    LaneSlowed,
    LaneLimit,
    /// The connections that the destination may have are all busy.
    LaneConnections,
    /// The pace was lowered, since the relay asked for less.
    RelaySlowed,
    SecondLimit,
    ConnectionsBusy,
    /// What is left was deferred, and waits for its next attempt.
    Retries,
}

/// What keeps mail from going faster, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    pub kind: BrakeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// A sentence without its full stop.
    pub reason: String,
    /// When it goes on; `None` when somebody has to act, or it goes on all the time, only slower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl BrakeKind {
    pub const ALL: [BrakeKind; 17] = [
        BrakeKind::NoWorker,
        BrakeKind::NoRelay,
        BrakeKind::RelayPaused,
        BrakeKind::RelayFailing,
        BrakeKind::RelaySuspended,
        BrakeKind::QuietHours,
        BrakeKind::WarmUp,
        BrakeKind::DayLimit,
        BrakeKind::HourLimit,
        BrakeKind::LaneSuspended,
        BrakeKind::LaneSlowed,
        BrakeKind::LaneLimit,
        BrakeKind::LaneConnections,
        BrakeKind::RelaySlowed,
        BrakeKind::SecondLimit,
        BrakeKind::ConnectionsBusy,
        BrakeKind::Retries,
    ];

    /// As the API calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BrakeKind::NoWorker => "no_worker",
            BrakeKind::NoRelay => "no_relay",
            BrakeKind::RelayPaused => "relay_paused",
            BrakeKind::RelayFailing => "relay_failing",
            BrakeKind::RelaySuspended => "relay_suspended",
            BrakeKind::QuietHours => "quiet_hours",
            BrakeKind::WarmUp => "warm_up",
            BrakeKind::DayLimit => "day_limit",
            BrakeKind::HourLimit => "hour_limit",
            BrakeKind::LaneSuspended => "lane_suspended",
            BrakeKind::LaneSlowed => "lane_slowed",
            BrakeKind::LaneLimit => "lane_limit",
            BrakeKind::LaneConnections => "lane_connections",
            BrakeKind::RelaySlowed => "relay_slowed",
            BrakeKind::SecondLimit => "second_limit",
            BrakeKind::ConnectionsBusy => "connections_busy",
            BrakeKind::Retries => "retries",
        }
    }

    /// Whether nothing at all goes out while it holds.
    #[must_use]
    pub fn is_full_stop(self) -> bool {
        !matches!(
            self,
            BrakeKind::LaneSuspended
                | BrakeKind::LaneSlowed
                | BrakeKind::LaneLimit
                | BrakeKind::LaneConnections
                | BrakeKind::RelaySlowed
                | BrakeKind::SecondLimit
                | BrakeKind::ConnectionsBusy
        )
    }
}

impl Brake {
    #[must_use]
    pub fn on_relay(kind: BrakeKind, relay: &str, reason: impl Into<String>, until: Option<Timestamp>) -> Self {
        Self {
            kind,
            relay: Some(relay.to_owned()),
            lane: None,
            reason: reason.into(),
            until,
        }
    }

    /// Of no relay.
    #[must_use]
    pub fn at_large(kind: BrakeKind, reason: impl Into<String>, until: Option<Timestamp>) -> Self {
        Self {
            kind,
            relay: None,
            lane: None,
            reason: reason.into(),
            until,
        }
    }

    /// What it is on and why: `google on relay primary: the limit is 5 messages a second`. A clause without its end.
    #[must_use]
    pub fn in_words(&self) -> String {
        match (&self.lane, &self.relay) {
            (Some(lane), Some(relay)) => format!("{lane} on relay {relay}: {}", self.reason),
            (Some(what), None) => format!("{what}: {}", self.reason),
            (None, Some(relay)) => format!("relay {relay}: {}", self.reason),
            (None, None) => self.reason.clone(),
        }
    }

    #[must_use]
    pub fn on_lane(mut self, lane: &str) -> Self {
        self.lane = Some(lane.to_owned());
        self
    }
}

/// What keeps anything at all from going through a relay now. The first that holds, those that a person has to end first.
#[must_use]
pub fn full_stop(relay: &Relay, pace: Option<&PaceRow>, now: Timestamp) -> Option<Brake> {
    let brake = |kind, reason: String, until| Some(Brake::on_relay(kind, &relay.name, reason, until));
    if let Some(why) = &relay.paused {
        return brake(BrakeKind::RelayPaused, why.clone(), None);
    }
    if let Some(until) = relay.spec.quiet_hours.as_ref().and_then(|q| q.quiet_until(now)) {
        return brake(BrakeKind::QuietHours, "these are the relay's quiet hours".to_owned(), Some(until));
    }
    let pace = pace?;
    let reason = || pace.reason.clone().unwrap_or_default();
    if pace.failures > 0 && pace.suspended_until.is_some_and(|at| at > now) {
        return brake(BrakeKind::RelayFailing, reason(), pace.suspended_until);
    }
    if let Some(until) = pace.suspended_until.filter(|at| *at > now) {
        return brake(BrakeKind::RelaySuspended, reason(), Some(until));
    }
    let (hour_taken, day_taken) = pace.account.taken(now);
    let (kind, per_day) = day_limit(relay, now);
    if per_day.is_some_and(|limit| day_taken >= i64::from(limit)) {
        return brake(kind, used_up(kind, day_taken), Some(Span::Day.end(now)));
    }
    let per_hour = relay.spec.limits.per_hour;
    if per_hour.is_some_and(|limit| hour_taken >= i64::from(limit)) {
        let kind = BrakeKind::HourLimit;
        return brake(kind, used_up(kind, hour_taken), Some(Span::Hour.end(now)));
    }
    None
}

/// Says which limit was used up by so many messages.
#[must_use]
pub fn used_up(kind: BrakeKind, taken: i64) -> String {
    match kind {
        BrakeKind::WarmUp => format!("it is warming up and may send {taken} messages today"),
        BrakeKind::HourLimit => format!("its limit of {taken} messages an hour is used up"),
        _ => format!("its limit of {taken} messages a day is used up"),
    }
}

/// Most messages through a relay today, and which limit says so.
#[must_use]
pub fn day_limit(relay: &Relay, now: Timestamp) -> (BrakeKind, Option<u32>) {
    let warm_up = relay.spec.warm_up.and_then(|w| w.per_day(now));
    match (relay.spec.limits.per_day, warm_up) {
        (Some(limit), Some(warm)) if limit <= warm => (BrakeKind::DayLimit, Some(limit)),
        (_, Some(warm)) => (BrakeKind::WarmUp, Some(warm)),
        (limit, None) => (BrakeKind::DayLimit, limit),
    }
}

/// What stops a broadcast altogether: every relay that may carry it takes nothing now. `relays` with what is known of each; `named`
/// is the relay that the broadcast asks for.
#[must_use]
pub fn standstill(named: Option<&str>, relays: &[(&Relay, Option<&PaceRow>)], now: Timestamp) -> Option<Brake> {
    let carriers: Vec<_> = relays
        .iter()
        .filter(|(relay, _)| named.is_none_or(|name| name == relay.name))
        .collect();
    if carriers.is_empty() {
        let reason = match named {
            Some(name) => format!("there is no relay {name}"),
            None => "no relay is stored".to_owned(),
        };
        return Some(Brake::at_large(BrakeKind::NoRelay, reason, None));
    }
    let stops: Option<Vec<Brake>> = carriers.iter().map(|(r, own)| full_stop(r, *own, now)).collect();
    // The one that ends first; those that somebody has to end come last.
    stops?
        .into_iter()
        .min_by_key(|brake| brake.until.map_or(i64::MAX, |at| at.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ledger::Account;
    use crate::domain::relay::{Limits, QuietHours, RelaySpec, WarmUp};

    fn relay(name: &str) -> Relay {
        Relay {
            id: 1,
            name: name.into(),
            spec: RelaySpec::of("smtp://h"),
            paused: None,
            paused_at: None,
            version: 1,
            updated_at: Timestamp(0),
        }
    }

    fn row() -> PaceRow {
        PaceRow {
            relay_id: 1,
            lane: String::new(),
            account: Account::default(),
            permille: 1_000,
            base_us: 0,
            suspended_until: None,
            reason: Some("421 busy".into()),
            failures: 0,
            probe_until: None,
        }
    }

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    #[test]
    fn each_stop_is_named_with_its_end() {
        let kind = |r: &Relay, p: &PaceRow| full_stop(r, Some(p), NOW).map(|b| (b.kind, b.until));
        assert_eq!(kind(&relay("a"), &row()), None);
        let paused = Relay {
            paused: Some("maintenance".into()),
            ..relay("a")
        };
        assert_eq!(kind(&paused, &row()), Some((BrakeKind::RelayPaused, None)));
        let later = NOW.plus_ms(5_000);
        let suspended = PaceRow {
            suspended_until: Some(later),
            ..row()
        };
        assert_eq!(kind(&relay("a"), &suspended), Some((BrakeKind::RelaySuspended, Some(later))));
        let failing = PaceRow {
            failures: 2,
            ..suspended
        };
        assert_eq!(kind(&relay("a"), &failing), Some((BrakeKind::RelayFailing, Some(later))));
        let mut limited = relay("a");
        limited.spec.limits = Limits {
            per_day: Some(10),
            ..Limits::default()
        };
        let mut used = row();
        used.account = Account {
            day: NOW.0 / 86_400_000,
            day_taken: 10,
            ..Account::default()
        };
        assert_eq!(kind(&limited, &used), Some((BrakeKind::DayLimit, Some(Span::Day.end(NOW)))));
        used.account.day -= 1;
        assert_eq!(kind(&limited, &used), None, "that was yesterday");
        let mut quiet = relay("a");
        quiet.spec.quiet_hours = Some(QuietHours {
            from: "00:00".parse().unwrap(),
            until: "23:59:59".parse().unwrap(),
            time_zone: "UTC".into(),
        });
        assert_eq!(kind(&quiet, &row()).map(|(k, _)| k), Some(BrakeKind::QuietHours));
    }

    #[test]
    fn a_new_relay_is_stopped_by_its_warm_up_and_not_by_its_limit() {
        let mut relay = relay("a");
        relay.spec.limits.per_day = Some(100);
        relay.spec.warm_up = Some(WarmUp {
            started_at: NOW,
            start_per_day: 10,
            factor: 2.0,
            ceiling_per_day: 1_000,
        });
        let days = [0, 3, 4].map(|day| day_limit(&relay, NOW.plus_ms(day * 86_400_000)));
        assert_eq!(
            days,
            [
                (BrakeKind::WarmUp, Some(10)),
                (BrakeKind::WarmUp, Some(80)),
                (BrakeKind::DayLimit, Some(100))
            ]
        );
        let used = PaceRow {
            account: Account {
                day: NOW.0 / 86_400_000,
                day_taken: 10,
                ..Account::default()
            },
            ..row()
        };
        let brake = full_stop(&relay, Some(&used), NOW).unwrap();
        assert_eq!((brake.kind, brake.until), (BrakeKind::WarmUp, Some(Span::Day.end(NOW))));
        assert!(brake.reason.contains("may send 10 messages today"), "{}", brake.reason);
    }

    #[test]
    fn a_broadcast_stands_still_while_no_relay_takes_it() {
        let paused = Relay {
            paused: Some("x".into()),
            ..relay("b")
        };
        let open = relay("a");
        let (here, there) = ((&open, None), (&paused, None));
        let kind = |named, relays: &[(&Relay, Option<&PaceRow>)]| standstill(named, relays, NOW).map(|b| b.kind);
        assert_eq!(kind(None, &[here, there]), None);
        assert_eq!(kind(Some("b"), &[here, there]), Some(BrakeKind::RelayPaused));
        assert_eq!(kind(Some("c"), &[here]), Some(BrakeKind::NoRelay));
        assert_eq!(kind(None, &[there]), Some(BrakeKind::RelayPaused));
        assert_eq!(kind(None, &[]), Some(BrakeKind::NoRelay));
    }

    #[test]
    fn each_kind_has_the_name_it_is_stored_under() {
        for kind in BrakeKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
