//! What is said about a relay, in words. Never judges it.

use std::net::IpAddr;

use crate::domain::brake::{self, BrakeKind};
use crate::domain::ledger::PaceRow;
use crate::domain::relay::{EVERY_LANE, LaneLimit, Limits, QuietHours, Relay, WarmUp};
use crate::domain::time::Timestamp;
use crate::pipeline::relays::RelayParts;
use crate::web::ui::format;

/// One relay as the pages show it.
pub struct Words {
    pub relay: Relay,
    pub is_paused: bool,
    pub state: State,
    /// Destinations to which it is slowed down.
    pub slowed: Vec<State>,
    pub today: Today,
    /// `mail.example.org:587`
    pub address: String,
    pub security: &'static str,
    /// `as anna, PLAIN or LOGIN`
    pub login: Option<String>,
    pub share: String,
    /// `20 a second, 50,000 a day`; nothing without a limit.
    pub limits: String,
    pub parts: RelayParts,
    /// What differs from the usual way to speak.
    pub habits: Vec<String>,
    pub lanes: Vec<Lane>,
    pub warm_up: Option<String>,
    pub quiet: Option<String>,
    pub now: Timestamp,
}

/// What a relay, or a lane of it, does now.
pub struct State {
    /// One word, for the badge.
    pub word: &'static str,
    /// The badge's colour, by a state of the same colour.
    pub class: &'static str,
    /// A clause; empty where the word says it all.
    pub reason: String,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Messages of this day (UTC).
pub struct Today {
    pub taken: i64,
    /// The day's limit, a warm-up included.
    pub limit: Option<i64>,
}

/// A limit on one destination.
pub struct Lane {
    pub name: String,
    pub limits: String,
    pub connections: Option<u16>,
}

impl Words {
    /// `all` are the relays that it shares the mail with, `paces` what workers have learnt and used up.
    #[must_use]
    pub fn of(relay: &Relay, all: &[Relay], paces: &[PaceRow], now: Timestamp) -> Self {
        let rows = || paces.iter().filter(|row| row.relay_id == relay.id);
        let own = rows().find(|row| row.lane.is_empty());
        let parts = RelayParts::of(&relay.spec.url).unwrap_or_default();
        let spec = &relay.spec;
        Self {
            is_paused: relay.paused.is_some(),
            state: state(relay, own, now),
            slowed: rows()
                .filter(|row| !row.lane.is_empty())
                .filter_map(|row| slowed(row, now))
                .collect(),
            today: Today {
                taken: own.map_or(0, |row| row.account.taken(now).1),
                limit: brake::day_limit(relay, now).1.map(i64::from),
            },
            address: address(&parts),
            security: security(&parts.tls),
            login: (!parts.user.is_empty()).then(|| format!("as {}, {}", parts.user, login(&parts.auth))),
            share: share(relay, all),
            limits: limits(spec.limits, parts.rate),
            habits: habits(&parts),
            lanes: spec.lanes.iter().map(lane).collect(),
            warm_up: spec.warm_up.map(|w| warm_up(&w, now)),
            quiet: spec.quiet_hours.as_ref().map(quiet),
            relay: relay.clone(),
            parts,
            now,
        }
    }

    /// Most connections at once from one worker.
    #[must_use]
    pub fn connections(&self) -> &str {
        if self.parts.connections.is_empty() {
            "–"
        } else {
            &self.parts.connections
        }
    }

    /// Whether what is sent can be read on the way.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let is_here =
            self.parts.host == "localhost" || self.parts.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        self.parts.tls == "none" && !is_here
    }

    /// How old a connection may become.
    #[must_use]
    pub fn age(&self) -> String {
        format::duration(&(self.parts.age_secs.parse::<i64>().unwrap_or(0) * 1_000))
    }

    #[must_use]
    pub fn messages(&self) -> String {
        format::count(&self.parts.messages.parse().unwrap_or(0))
    }
}

fn state(relay: &Relay, own: Option<&PaceRow>, now: Timestamp) -> State {
    let Some(stop) = brake::full_stop(relay, own, now) else {
        let usual = State {
            word: "active",
            class: "active",
            reason: String::new(),
            since: None,
            until: None,
        };
        return match own {
            Some(row) if row.failures > 0 => State {
                word: "failing",
                class: "failed",
                reason: format!("{}; it is tried again by one message", reason(row)),
                ..usual
            },
            Some(row) => slowed(row, now).unwrap_or(usual),
            None => usual,
        };
    };
    let (word, class) = match stop.kind {
        BrakeKind::RelayPaused => ("paused", "paused"),
        BrakeKind::QuietHours => ("quiet", "waiting"),
        BrakeKind::RelayFailing => ("failing", "failed"),
        BrakeKind::DayLimit | BrakeKind::HourLimit => ("used up", "deferred"),
        _ => ("held off", "deferred"),
    };
    State {
        word,
        class,
        reason: stop.reason,
        since: relay.paused_at.filter(|_| stop.kind == BrakeKind::RelayPaused),
        until: stop.until,
    }
}

/// What was learnt from refusals; nothing while it goes at full pace.
fn slowed(row: &PaceRow, now: Timestamp) -> Option<State> {
    let until = row.suspended_until.filter(|at| *at > now);
    if until.is_none() && row.permille >= 1_000 {
        return None;
    }
    let whom = match row.lane.as_str() {
        "" => String::new(),
        lane => format!("to {lane}: "),
    };
    let pace = format!("{whom}{} of its pace, after {}", format::percent(&row.permille, &1_000), reason(row));
    Some(State {
        word: "slowed",
        class: "deferred",
        reason: pace,
        since: None,
        until,
    })
}

fn reason(row: &PaceRow) -> &str {
    row.reason.as_deref().unwrap_or("a refusal")
}

fn address(parts: &RelayParts) -> String {
    match parts.host.as_str() {
        "" => "its address cannot be read".to_owned(),
        host if host.contains(':') => format!("[{host}]:{}", parts.port),
        host => format!("{host}:{}", parts.port),
    }
}

fn security(tls: &str) -> &'static str {
    match tls {
        "none" => "in clear",
        "implicit" => "TLS",
        _ => "STARTTLS",
    }
}

fn login(auth: &str) -> &'static str {
    match auth {
        "plain" => "PLAIN only",
        "login" => "LOGIN only",
        "xoauth2" => "by an OAuth token",
        _ => "PLAIN or LOGIN",
    }
}

/// What part of the mail it gets while all relays that are in use take mail.
fn share(relay: &Relay, all: &[Relay]) -> String {
    let weight = i64::from(relay.spec.weight);
    let in_use = || all.iter().filter(|r| r.paused.is_none());
    let whole: i64 = in_use().map(|r| i64::from(r.spec.weight)).sum();
    if relay.paused.is_some() {
        return "nothing while it is paused".to_owned();
    }
    match weight {
        0 if whole == 0 && in_use().count() == 1 => "all mail: there is no other".to_owned(),
        0 => "where it is named, or nothing else works".to_owned(),
        _ if weight == whole => "all mail".to_owned(),
        _ => format!("{} of the mail", format::percent(&weight, &whole)),
    }
}

fn limits(limits: Limits, rate: Option<u32>) -> String {
    let said = [
        (limits.per_sec.or(rate), "a second"),
        (limits.per_hour, "an hour"),
        (limits.per_day, "a day"),
    ];
    let words: Vec<String> = said
        .into_iter()
        .filter_map(|(limit, span)| Some(format!("{} {span}", format::count(&i64::from(limit?)))))
        .collect();
    words.join(", ")
}

fn habits(parts: &RelayParts) -> Vec<String> {
    let mut habits = Vec::new();
    if parts.pipelining == "off" {
        habits.push("no PIPELINING".to_owned());
    }
    if !["", "off"].contains(&parts.chunking.as_str()) {
        habits.push(format!("up to {} messages in flight on a connection (CHUNKING)", parts.chunking));
    }
    match parts.dsn.as_str() {
        "" | "off" => {}
        "never" => habits.push("asks for no reports".to_owned()),
        wanted => habits.push(format!("asks for reports of {}", wanted.replace(',', ", "))),
    }
    if !parts.helo.is_empty() {
        habits.push(format!("greets as {}", parts.helo));
    }
    if parts.verify == "off" {
        habits.push("the certificate is not checked".to_owned());
    }
    habits
}

fn lane(lane: &LaneLimit) -> Lane {
    Lane {
        name: match lane.lane.as_str() {
            EVERY_LANE => "each other destination".to_owned(),
            name => name.to_owned(),
        },
        limits: limits(lane.limits, None),
        connections: lane.connections,
    }
}

fn warm_up(w: &WarmUp, now: Timestamp) -> String {
    let ceiling = format::count(&i64::from(w.ceiling_per_day));
    match w.per_day(now) {
        Some(today) => {
            let today = format::count(&i64::from(today));
            format!("{today} messages today, {} times as many each day, up to {ceiling}", w.factor)
        }
        None => format!("over: it has reached {ceiling} a day"),
    }
}

fn quiet(q: &QuietHours) -> String {
    format!("{} to {} in {}", q.from.strftime("%H:%M"), q.until.strftime("%H:%M"), q.time_zone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::relay::RelaySpec;

    fn relay(name: &str, weight: u32, paused: bool) -> Relay {
        let spec = RelaySpec {
            weight,
            ..RelaySpec::of("smtp://anna:hunter2@mail.example.org?chunking=8&dsn=failure,delay")
        };
        Relay {
            id: 1,
            name: name.into(),
            spec,
            paused: paused.then(|| "why".to_owned()),
            paused_at: None,
            version: 1,
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn a_share_is_of_those_in_use() {
        let all = [
            relay("a", 3, false),
            relay("b", 1, false),
            relay("c", 5, true),
            relay("d", 0, false),
        ];
        let shares: Vec<String> = all.iter().map(|r| share(r, &all)).collect();
        assert_eq!(
            shares,
            [
                "75.0 % of the mail",
                "25.0 % of the mail",
                "nothing while it is paused",
                "where it is named, or nothing else works"
            ]
        );
        assert_eq!(share(&all[0], &all[..1]), "all mail");
        assert_eq!(share(&all[3], &all[3..]), "all mail: there is no other");
    }

    #[test]
    fn what_was_learnt_is_told_with_its_reason_and_end() {
        let now = Timestamp(1_790_000_000_000);
        let row = PaceRow {
            relay_id: 1,
            lane: String::new(),
            account: crate::domain::ledger::Account {
                day: now.0.div_euclid(86_400_000),
                day_taken: 1_200,
                ..Default::default()
            },
            permille: 500,
            base_us: 0,
            suspended_until: None,
            reason: Some("421 busy".into()),
            failures: 0,
            probe_until: None,
        };
        let lane = PaceRow {
            lane: "google".into(),
            suspended_until: Some(now.plus_ms(60_000)),
            ..row.clone()
        };
        let all = [relay("a", 1, false)];
        let told = |rows: &[PaceRow]| Words::of(&all[0], &all, rows, now);
        let words = told(&[row.clone(), lane.clone()]);
        assert_eq!((words.state.word, words.state.reason.as_str()), ("slowed", "50.0 % of its pace, after 421 busy"));
        assert_eq!(words.slowed[0].reason, "to google: 50.0 % of its pace, after 421 busy");
        assert_eq!((words.slowed[0].until, words.today.taken), (lane.suspended_until, 1_200));
        let failing = PaceRow {
            failures: 3,
            suspended_until: Some(now.plus_ms(1)),
            ..row.clone()
        };
        let words = told(std::slice::from_ref(&failing));
        assert_eq!((words.state.word, words.state.until), ("failing", failing.suspended_until));
        let trying = PaceRow {
            suspended_until: Some(now),
            ..failing
        };
        assert!(told(&[trying]).state.reason.contains("one message"));
        let well = PaceRow { permille: 1_000, ..row };
        assert_eq!(told(&[well]).state.word, "active");
        assert_eq!(told(&[]).today.taken, 0);
    }

    #[test]
    fn a_relay_is_told_in_words_without_its_password() {
        let all = [relay("a", 1, false)];
        let words = Words::of(&all[0], &all, &[], Timestamp(0));
        assert_eq!((words.address.as_str(), words.security), ("mail.example.org:587", "STARTTLS"));
        assert_eq!(words.login.as_deref(), Some("as anna, PLAIN or LOGIN"));
        assert_eq!(words.habits.len(), 2, "{:?}", words.habits);
        assert_eq!((words.age().as_str(), words.messages().as_str()), ("30 min", "1,000"));
        let limit = Limits {
            per_day: Some(50_000),
            ..Limits::default()
        };
        assert_eq!(limits(limit, Some(20)), "20 a second, 50,000 a day");
    }
}
