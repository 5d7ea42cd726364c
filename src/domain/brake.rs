//! What keeps mail from going faster now: one value, in words and with a time, for pages, the API and the log. Pure.

use serde::{Deserialize, Serialize};

use super::ledger::{PaceRow, Span};
use super::relay::Relay;
use super::time::Timestamp;

/// What binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrakeKind {
    /// There is no relay, or none of the name that the broadcast asks for.
    NoRelay,
    RelayPaused,
    /// The relay failed too often; it is tried again by one message.
    RelayFailing,
    /// The relay asked for less.
    RelaySuspended,
    QuietHours,
    DayLimit,
    HourLimit,
    LaneSuspended,
    LaneLimit,
    SecondLimit,
    ConnectionsBusy,
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
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BrakeKind::NoRelay => "no_relay",
            BrakeKind::RelayPaused => "relay_paused",
            BrakeKind::RelayFailing => "relay_failing",
            BrakeKind::RelaySuspended => "relay_suspended",
            BrakeKind::QuietHours => "quiet_hours",
            BrakeKind::DayLimit => "day_limit",
            BrakeKind::HourLimit => "hour_limit",
            BrakeKind::LaneSuspended => "lane_suspended",
            BrakeKind::LaneLimit => "lane_limit",
            BrakeKind::SecondLimit => "second_limit",
            BrakeKind::ConnectionsBusy => "connections_busy",
        }
    }

    /// Whether nothing at all goes out while it holds.
    #[must_use]
    pub fn is_full_stop(self) -> bool {
        !matches!(self, BrakeKind::LaneLimit | BrakeKind::SecondLimit | BrakeKind::ConnectionsBusy)
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
    let limits = relay.spec.limits;
    let per_day = per_day(relay, now).map(i64::from);
    let (hour_taken, day_taken) = pace.account.taken(now);
    if per_day.is_some_and(|limit| day_taken >= limit) {
        return brake(
            BrakeKind::DayLimit,
            format!("{day_taken} messages went out today, which is the limit"),
            Some(Span::Day.end(now)),
        );
    }
    if limits.per_hour.is_some_and(|limit| hour_taken >= i64::from(limit)) {
        return brake(
            BrakeKind::HourLimit,
            format!("{hour_taken} messages went out this hour, which is the limit"),
            Some(Span::Hour.end(now)),
        );
    }
    None
}

/// Most messages through a relay today, its warm-up included.
#[must_use]
pub fn per_day(relay: &Relay, now: Timestamp) -> Option<u32> {
    let warm_up = relay.spec.warm_up.and_then(|w| w.per_day(now));
    match (relay.spec.limits.per_day, warm_up) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The one brake that binds a broadcast now: nothing while any relay that may carry it takes mail at full speed.
///
/// `carriers` are the relays that may carry it, with what is known of them; `named` is the relay that it asks for.
#[must_use]
pub fn binding(
    named: Option<&str>,
    carriers: &[(&Relay, Vec<&PaceRow>)],
    reported: &[Brake],
    now: Timestamp,
) -> Option<Brake> {
    let named_ones = || carriers.iter().filter(|(r, _)| named.is_none_or(|n| n == r.name));
    if named.is_some() && named_ones().next().is_none() {
        return Some(Brake {
            kind: BrakeKind::NoRelay,
            relay: named.map(str::to_owned),
            lane: None,
            reason: format!("there is no relay named {}", named.unwrap_or_default()),
            until: None,
        });
    }
    let own = |rows: &[&PaceRow]| rows.iter().copied().find(|p| p.lane.is_empty()).cloned();
    let stops: Vec<Option<Brake>> = named_ones()
        .map(|(r, rows)| full_stop(r, own(rows).as_ref(), now))
        .collect();
    if !stops.is_empty() && stops.iter().all(Option::is_some) {
        // The one that ends first; those that somebody has to end come last.
        return stops
            .into_iter()
            .flatten()
            .min_by_key(|b| b.until.map_or(i64::MAX, |at| at.0));
    }
    let lanes = named_ones().flat_map(|(r, rows)| rows.iter().map(move |p| (r, p)));
    let slowed = lanes.filter(|(_, p)| p.permille < 1_000 || p.suspended_until.is_some_and(|at| at > now));
    let slowest = slowed.min_by_key(|(_, p)| p.permille).map(|(r, p)| {
        let is_suspended = p.suspended_until.is_some_and(|at| at > now);
        Brake {
            kind: if is_suspended {
                BrakeKind::LaneSuspended
            } else {
                BrakeKind::LaneLimit
            },
            relay: Some(r.name.clone()),
            lane: (!p.lane.is_empty()).then(|| p.lane.clone()),
            reason: p.reason.clone().unwrap_or_default(),
            until: p.suspended_until.filter(|_| is_suspended),
        }
    });
    let fits = |b: &&Brake| !b.kind.is_full_stop() && named.is_none_or(|n| b.relay.as_deref() == Some(n));
    slowest.or_else(|| reported.iter().find(fits).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ledger::Account;
    use crate::domain::relay::{Limits, QuietHours, RelaySpec};

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
    fn a_broadcast_is_braked_while_no_relay_takes_it() {
        let (open, paused) = (
            relay("a"),
            Relay {
                paused: Some("x".into()),
                ..relay("b")
            },
        );
        let (here, there) = ((&open, vec![]), (&paused, vec![]));
        assert_eq!(binding(None, &[here.clone(), there.clone()], &[], NOW), None);
        let kind = |named, carriers: &[(&Relay, Vec<&PaceRow>)]| binding(named, carriers, &[], NOW).map(|b| b.kind);
        assert_eq!(kind(Some("b"), &[here.clone(), there.clone()]), Some(BrakeKind::RelayPaused));
        assert_eq!(kind(Some("c"), &[here]), Some(BrakeKind::NoRelay));
        assert_eq!(kind(None, &[there]), Some(BrakeKind::RelayPaused));
    }
}
