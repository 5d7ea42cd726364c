//! What is typed about a relay's limits, warm-up and quiet hours: texts in, values or a sentence beside the field out. Never looks at
//! what is stored.

use crate::domain::relay::{LANES_MAX, LaneLimit, Limits, QuietHours, WarmUp};
use crate::web::ui::form::{Fields, Problems, parse_time};

/// By how much a warm-up grows a day when nothing is said: a common advice of providers is half as much again.
pub const FACTOR_USUAL: &str = "1.5";

#[derive(Default, Clone)]
pub struct LimitTexts {
    pub per_sec: String,
    pub per_hour: String,
    pub per_day: String,
}

#[derive(Default, Clone)]
pub struct LaneTexts {
    pub lane: String,
    pub limits: LimitTexts,
    pub connections: String,
}

#[derive(Default)]
pub struct WarmUpTexts {
    pub started_at: String,
    pub start_per_day: String,
    pub factor: String,
    pub ceiling_per_day: String,
}

#[derive(Default)]
pub struct QuietTexts {
    pub from: String,
    pub until: String,
    pub time_zone: String,
}

fn number(n: Option<impl ToString>) -> String {
    n.map(|n| n.to_string()).unwrap_or_default()
}

impl LimitTexts {
    pub fn of(limits: Limits) -> Self {
        Self {
            per_sec: number(limits.per_sec),
            per_hour: number(limits.per_hour),
            per_day: number(limits.per_day),
        }
    }

    /// `at` is what stands before the fields' names.
    pub fn read(&self, at: &str, problems: &mut Problems) -> Limits {
        let mut one = |name: &str, text: &str| whole(&format!("{at}{name}"), text, problems);
        Limits {
            per_sec: one("per_sec", &self.per_sec),
            per_hour: one("per_hour", &self.per_hour),
            per_day: one("per_day", &self.per_day),
        }
    }
}

/// A whole number from 1; nothing typed is none.
fn whole(field: &str, text: &str, problems: &mut Problems) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    match text.replace([',', '_', ' '], "").parse() {
        Ok(n @ 1..) => Some(n),
        _ => {
            problems.add(
                field.to_owned(),
                format!("'{}' is no whole number from 1; leave it empty for no limit.", short(text)),
            );
            None
        }
    }
}

pub fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

impl LaneTexts {
    pub fn is_empty(&self) -> bool {
        let Self {
            lane,
            limits,
            connections,
        } = self;
        let all = [lane, &limits.per_sec, &limits.per_hour, &limits.per_day, connections];
        all.iter().all(|text| text.is_empty())
    }

    pub fn of(lane: &LaneLimit) -> Self {
        Self {
            lane: lane.lane.clone(),
            limits: LimitTexts::of(lane.limits),
            connections: number(lane.connections),
        }
    }

    pub fn read(&self, n: usize, problems: &mut Problems) -> LaneLimit {
        let field = format!("lanes_{n}_connections");
        let connections = whole(&field, &self.connections, problems).and_then(|n| {
            let fits = u16::try_from(n);
            if fits.is_err() {
                problems.add(field.clone(), format!("{n} connections are too many; use at most {}.", u16::MAX));
            }
            fits.ok()
        });
        LaneLimit {
            lane: self.lane.to_ascii_lowercase(),
            limits: self.limits.read(&format!("lanes_{n}_"), problems),
            connections,
        }
    }
}

impl WarmUpTexts {
    pub fn of(w: &WarmUp) -> Self {
        Self {
            started_at: w.started_at.to_jiff().strftime("%Y-%m-%d").to_string(),
            start_per_day: w.start_per_day.to_string(),
            factor: w.factor.to_string(),
            ceiling_per_day: w.ceiling_per_day.to_string(),
        }
    }

    /// Nothing is said unless a first day's number is, or anything but the usual factor.
    pub fn read(&self, problems: &mut Problems) -> Option<WarmUp> {
        let is_said = [&self.started_at, &self.start_per_day, &self.ceiling_per_day]
            .iter()
            .any(|text| !text.is_empty());
        if !is_said {
            return None;
        }
        let mut needed = |name: &'static str, text: &str| match text {
            "" => {
                problems.add(name, "This is needed for a warm-up; empty all three for none.");
                None
            }
            text => whole(name, text, problems),
        };
        let start_per_day = needed("warm_up_start_per_day", &self.start_per_day);
        let ceiling_per_day = needed("warm_up_ceiling_per_day", &self.ceiling_per_day);
        let started_at = match self.started_at.as_str() {
            "" => Err("The first day is needed for a warm-up; empty all three for none.".to_owned()),
            day => {
                let no_day = |_| format!("'{}' is no day, such as 2026-10-01.", short(day));
                parse_time(&format!("{day}T00:00")).map_err(no_day)
            }
        };
        let started_at = problems.take("warm_up_started_at", started_at);
        let factor = self
            .factor
            .replace(',', ".")
            .parse()
            .map_err(|_| format!("'{}' is no factor, such as {FACTOR_USUAL}.", short(&self.factor)));
        Some(WarmUp {
            started_at: started_at?,
            start_per_day: start_per_day?,
            factor: problems.take("warm_up_factor", factor)?,
            ceiling_per_day: ceiling_per_day?,
        })
    }
}

impl QuietTexts {
    pub fn of(q: &QuietHours) -> Self {
        Self {
            from: q.from.strftime("%H:%M").to_string(),
            until: q.until.strftime("%H:%M").to_string(),
            time_zone: q.time_zone.clone(),
        }
    }

    pub fn read(&self, problems: &mut Problems) -> Option<QuietHours> {
        if self.from.is_empty() && self.until.is_empty() {
            return None;
        }
        let mut time = |field: &'static str, text: &str| {
            let read = text.parse().map_err(|_| match text {
                "" => "Quiet hours need both times; empty both for none.".to_owned(),
                text => format!("'{}' is no time of day, such as 22:00.", short(text)),
            });
            problems.take(field, read)
        };
        let (from, until) = (time("quiet_hours_from", &self.from), time("quiet_hours_until", &self.until));
        Some(QuietHours {
            from: from?,
            until: until?,
            time_zone: match self.time_zone.as_str() {
                "" => "UTC".to_owned(),
                zone => zone.to_owned(),
            },
        })
    }
}

/// The rows that say anything.
pub fn typed_lanes(fields: &Fields) -> Vec<LaneTexts> {
    let column = |name: &str| fields.all(name).map(ToOwned::to_owned).collect::<Vec<String>>();
    let columns = [
        column("lane_per_sec"),
        column("lane_per_hour"),
        column("lane_per_day"),
        column("lane_connections"),
    ];
    let rows = fields.all("lane").enumerate().map(|(n, lane)| {
        let [per_sec, per_hour, per_day, connections] = &columns;
        let at = |column: &Vec<String>| column.get(n).cloned().unwrap_or_default();
        LaneTexts {
            lane: lane.to_owned(),
            limits: LimitTexts {
                per_sec: at(per_sec),
                per_hour: at(per_hour),
                per_day: at(per_day),
            },
            connections: at(connections),
        }
    });
    rows.filter(|lane| !lane.is_empty()).take(LANES_MAX + 1).collect()
}
