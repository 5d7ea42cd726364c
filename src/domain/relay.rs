//! Relays: the SMTP servers that mail is handed to, as stored and edited while mail goes out. Never connects to one, and never
//! reads the time: limits and quiet hours are only described here.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// Most characters of a relay's name.
pub const NAME_CHARS_MAX: usize = 64;
/// Most weight: a hundred to one is as good as all or nothing.
pub const WEIGHT_MAX: u32 = 100;
/// Most lanes with limits of their own.
pub const LANES_MAX: usize = 100;
/// Stands for every lane that is not named: each has the limit for itself.
pub const EVERY_LANE: &str = "*";
/// The most that one day's ceiling of a warm-up may be a multiple of the day before: more is no warming up.
pub const WARM_UP_FACTOR_MAX: f64 = 10.0;

/// A relay as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Relay {
    /// Under which it stands in message rows.
    pub id: i64,
    pub name: String,
    pub spec: RelaySpec,
    /// Why nothing goes through it now; `None` while it is in use.
    pub paused: Option<String>,
    /// Since when; `None` while it is in use.
    pub paused_at: Option<Timestamp>,
    /// Rises with every change.
    pub version: i64,
    pub updated_at: Timestamp,
}

/// What an operator says about a relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelaySpec {
    /// `smtp://user:password@host:port?tls=…`, as [`RelayConfig::parse`](crate::smtp::RelayConfig::parse) reads it. Never shown
    /// with its password.
    pub url: String,
    /// Its share of the messages while several relays have a free connection, 0 to [`WEIGHT_MAX`]. With 0 it is used only when
    /// a broadcast names it, or when no other relay takes mail.
    #[serde(default = "one")]
    pub weight: u32,
    /// On the whole relay, for the cluster as a whole.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// On single lanes, for the cluster as a whole; the first that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<LaneLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
}

fn one() -> u32 {
    1
}

impl RelaySpec {
    /// A relay with nothing said but its address.
    #[must_use]
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            weight: one(),
            limits: Limits::default(),
            lanes: Vec::new(),
            warm_up: None,
            quiet_hours: None,
        }
    }

    /// Checks everything but the URL, which is the SMTP layer's to read.
    ///
    /// # Errors
    /// The field (a JSON pointer without its first `/`, such as `lanes/0/connections`) and a sentence that says what is wrong with it.
    pub fn check(&self) -> Result<(), (String, String)> {
        if self.weight > WEIGHT_MAX {
            return Err(("weight".into(), format!("the weight {} is too large; use 0 to {WEIGHT_MAX}", self.weight)));
        }
        self.limits.check("limits")?;
        if self.lanes.len() > LANES_MAX {
            return Err(("lanes".into(), format!("{} lanes are too many; name at most {LANES_MAX}", self.lanes.len())));
        }
        for (n, lane) in self.lanes.iter().enumerate() {
            lane.check(&format!("lanes/{n}"))?;
        }
        if let Some(warm_up) = &self.warm_up {
            warm_up.check()?;
        }
        if let Some(quiet) = &self.quiet_hours {
            quiet.check()?;
        }
        Ok(())
    }
}

/// Most messages in a second, an hour, and a day. `None` is no limit. Hours and days are those of UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_sec: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u32>,
}

impl Limits {
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self, at: &str) -> Result<(), (String, String)> {
        let given = [
            ("per_sec", self.per_sec),
            ("per_hour", self.per_hour),
            ("per_day", self.per_day),
        ];
        match given.iter().find(|(_, limit)| *limit == Some(0)) {
            Some((name, _)) => Err((
                format!("{at}/{name}"),
                format!("{name} is 0; use a whole number from 1, leave it out for no limit, or pause the relay"),
            )),
            None => Ok(()),
        }
    }
}

/// A limit on what goes through a relay to one recipient-side destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneLimit {
    /// A mailbox provider's name (`google`, `microsoft` …), a domain, or [`EVERY_LANE`].
    pub lane: String,
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// Most connections at once that carry mail to this lane, from one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u16>,
}

impl LaneLimit {
    fn check(&self, at: &str) -> Result<(), (String, String)> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-' || b == b'_';
        let is_name = !self.lane.is_empty() && self.lane.len() <= 255 && self.lane.bytes().all(allowed);
        if self.lane != EVERY_LANE && !is_name {
            return Err((
                format!("{at}/lane"),
                format!(
                    "'{}' is no lane; use a provider such as google, a domain in lower case, or \"{EVERY_LANE}\"",
                    self.lane.escape_debug()
                ),
            ));
        }
        if self.connections == Some(0) {
            return Err((format!("{at}/connections"), "connections is 0; use a whole number from 1".into()));
        }
        self.limits.check(&format!("{at}/limits"))
    }
}

/// A new sending address earns its name: each day it may send more than the day before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// The first day, in UTC, as the time it began.
    pub started_at: Timestamp,
    /// Messages on the first day.
    pub start_per_day: u32,
    /// By which each day's number is multiplied for the next.
    pub factor: f64,
    /// Where it ends: from the day that would exceed it there is no warm-up limit any more.
    pub ceiling_per_day: u32,
}

const DAY_MS: i64 = 24 * 3_600 * 1_000;

impl WarmUp {
    /// Most messages on the day (UTC) of `now`; `None` when it is over.
    #[must_use]
    pub fn per_day(&self, now: Timestamp) -> Option<u32> {
        let day = |t: Timestamp| t.0.div_euclid(DAY_MS);
        let days = i32::try_from((day(now) - day(self.started_at)).max(0)).unwrap_or(i32::MAX);
        let allowed = f64::from(self.start_per_day) * self.factor.powi(days);
        (allowed < f64::from(self.ceiling_per_day)).then_some(allowed as u32)
    }

    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, why: String| Err((format!("warm_up/{field}"), why));
        if self.start_per_day == 0 {
            return wrong("start_per_day", "start_per_day is 0; use a whole number from 1".into());
        }
        if !(self.factor > 1.0 && self.factor <= WARM_UP_FACTOR_MAX) {
            return wrong(
                "factor",
                format!(
                    "the factor {} does not warm up; use more than 1 and at most {WARM_UP_FACTOR_MAX}",
                    self.factor
                ),
            );
        }
        if self.ceiling_per_day < self.start_per_day {
            return wrong("ceiling_per_day", "ceiling_per_day lies below start_per_day".into());
        }
        Ok(())
    }
}

/// Hours in which nothing goes out, in a time zone; they may span midnight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// `22:00`
    pub from: Time,
    /// `07:00`
    pub until: Time,
    /// An IANA name, such as `Europe/Berlin`.
    pub time_zone: String,
}

impl QuietHours {
    /// When the quiet hours that hold at `now` end; `None` when it is not quiet.
    #[must_use]
    pub fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        let zone = TimeZone::get(&self.time_zone).ok()?;
        let here = now.to_jiff().to_zoned(zone);
        let time = here.time();
        let spans_midnight = self.from > self.until;
        let is_quiet = if spans_midnight {
            time >= self.from || time < self.until
        } else {
            time >= self.from && time < self.until
        };
        if !is_quiet {
            return None;
        }
        let ends_tomorrow = spans_midnight && time >= self.from;
        let day = if ends_tomorrow {
            here.date().tomorrow().ok()?
        } else {
            here.date()
        };
        // In a gap of summer time this is the first moment after it.
        let end = day.to_datetime(self.until).to_zoned(here.time_zone().clone()).ok()?;
        Some(Timestamp(end.timestamp().as_millisecond()))
    }

    fn check(&self) -> Result<(), (String, String)> {
        if self.from == self.until {
            return Err(("quiet_hours/until".into(), "from and until are the same; pause the relay instead".into()));
        }
        TimeZone::get(&self.time_zone).map(drop).map_err(|_| {
            let name = self.time_zone.escape_debug();
            ("quiet_hours/time_zone".into(), format!("'{name}' is not an IANA time zone, such as Europe/Berlin"))
        })
    }
}

/// Checks a relay's name: it stands in URLs, logs and message rows.
///
/// # Errors
/// A sentence that says what a name may be.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    // Dots alone are no name: in a URL they lead elsewhere.
    let is_word = name.chars().any(|c| c.is_ascii_alphanumeric());
    if !is_word || name.len() > NAME_CHARS_MAX || !name.chars().all(allowed) {
        return Err(format!(
            "'{}' is no name for a relay; use 1 to {NAME_CHARS_MAX} letters, digits, dots, colons, dashes and underscores",
            name.escape_debug()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_warm_up_grows_by_its_factor_until_the_ceiling() {
        let warm_up = WarmUp {
            started_at: at("2026-10-01T15:00:00Z"),
            start_per_day: 50,
            factor: 2.0,
            ceiling_per_day: 1_000,
        };
        let days = [
            "2026-09-30",
            "2026-10-01",
            "2026-10-02",
            "2026-10-05",
            "2026-10-06",
            "2027-10-06",
        ];
        let allowed = days.map(|day| warm_up.per_day(at(&format!("{day}T00:00:01Z"))));
        assert_eq!(allowed, [Some(50), Some(50), Some(100), Some(800), None, None]);
    }

    #[test]
    fn quiet_hours_end_in_their_time_zone() {
        let quiet = |from: &str, until: &str| QuietHours {
            from: from.parse().unwrap(),
            until: until.parse().unwrap(),
            time_zone: "Europe/Berlin".into(),
        };
        let night = quiet("22:00", "07:00");
        for (now, until) in [
            ("2026-07-01T19:59:59Z", None),
            ("2026-07-01T20:00:00Z", Some("2026-07-02T05:00:00Z")),
            ("2026-07-02T04:59:59Z", Some("2026-07-02T05:00:00Z")),
            ("2026-07-02T05:00:00Z", None),
            // The night in which summer time ends is an hour longer.
            ("2026-10-24T20:30:00Z", Some("2026-10-25T06:00:00Z")),
        ] {
            assert_eq!(night.quiet_until(at(now)), until.map(at), "{now}");
        }
        let noon = quiet("12:00", "13:00");
        assert_eq!(noon.quiet_until(at("2026-01-01T11:30:00Z")), Some(at("2026-01-01T12:00:00Z")));
        assert_eq!(noon.quiet_until(at("2026-01-01T12:00:00Z")), None);
        // Between two and three there is no such hour on the day summer time begins.
        let gap = quiet("01:00", "02:30");
        assert_eq!(gap.quiet_until(at("2026-03-29T00:30:00Z")), Some(at("2026-03-29T01:30:00Z")));
    }

    #[test]
    fn a_spec_reads_back_and_leaves_out_what_was_not_said() {
        let text = r#"{"url":"smtp://h:25","weight":3,"limits":{"per_sec":5},"lanes":[{"lane":"google","limits":{"per_hour":100},"connections":2}],"quiet_hours":{"from":"22:00:00","until":"07:00:00","time_zone":"UTC"}}"#;
        let spec: RelaySpec = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), text);
        assert_eq!(spec.check(), Ok(()));
        assert_eq!(serde_json::to_string(&RelaySpec::of("smtp://h")).unwrap(), r#"{"url":"smtp://h","weight":1}"#);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let base = RelaySpec::of("smtp://h");
        let lane = |lane: &str, connections| LaneLimit {
            lane: lane.into(),
            limits: Limits::default(),
            connections,
        };
        let warm_up = |factor| WarmUp {
            started_at: Timestamp(0),
            start_per_day: 1,
            factor,
            ceiling_per_day: 10,
        };
        type Change = Box<dyn Fn(&mut RelaySpec)>;
        let cases: Vec<(&str, Change)> = vec![
            ("weight", Box::new(|s| s.weight = 101)),
            ("limits/per_hour", Box::new(|s| s.limits.per_hour = Some(0))),
            ("lanes/0/lane", Box::new(move |s| s.lanes = vec![lane("Gmail!", None)])),
            ("lanes/0/connections", Box::new(move |s| s.lanes = vec![lane("*", Some(0))])),
            ("warm_up/factor", Box::new(move |s| s.warm_up = Some(warm_up(1.0)))),
            ("warm_up/factor", Box::new(move |s| s.warm_up = Some(warm_up(f64::NAN)))),
            (
                "quiet_hours/time_zone",
                Box::new(|s| {
                    s.quiet_hours = Some(QuietHours {
                        from: Time::midnight(),
                        until: Time::constant(1, 0, 0, 0),
                        time_zone: "Mars".into(),
                    })
                }),
            ),
        ];
        for (field, change) in cases {
            let mut spec = base.clone();
            change(&mut spec);
            assert_eq!(spec.check().unwrap_err().0, field);
        }
        assert!(check_name("primary-1.example:25").is_ok());
        for name in ["", "a b", "a/b", "ü", ".", "..", "-:"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
