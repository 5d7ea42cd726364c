//! Campaigns: saved newsletters with an audience and a schedule. Never send by themselves: each run
//! starts a broadcast.

use std::str::FromStr;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::address::EmailAddress;
use super::broadcast::{Audience, NewBroadcast, OnUncertain, Priority};
use super::content::{Content, Letter, Mailbox, SharedData};
use super::id::{BroadcastId, CampaignId, TemplateId};
use super::safety::Safety;
use super::time::Timestamp;

/// When a campaign runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    Once {
        at: Timestamp,
    },
    /// A cron expression of five fields, read in an IANA time zone.
    Recurring {
        cron: String,
        time_zone: String,
    },
}

impl Schedule {
    /// Checks the expression and the zone.
    ///
    /// # Errors
    /// The field (`at`, `cron` or `time_zone`) and a sentence that says what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match self {
            Schedule::Once { .. } => Ok(()),
            Schedule::Recurring { cron, time_zone } => {
                parse_cron(cron).map_err(|e| ("cron", e))?;
                parse_zone(time_zone).map_err(|e| ("time_zone", e))?;
                Ok(())
            }
        }
    }

    /// The first run strictly after `after`; `None` when there is none. Runs that were missed while
    /// nothing was running are not made up one by one: the caller asks from the present.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Once { at } => (*at > after).then_some(*at),
            Schedule::Recurring { cron, time_zone } => {
                let zone = parse_zone(time_zone).ok()?;
                let cron = parse_cron(cron).ok()?;
                let from = after.to_jiff().to_zoned(zone);
                let next = cron.find_next_occurrence(&from, false).ok()?;
                Some(Timestamp(next.timestamp().as_millisecond()))
            }
        }
    }

    /// In words, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Schedule::Once { at } => format!("once, at {at}"),
            Schedule::Recurring { cron, time_zone } => match parse_cron(cron) {
                Ok(parsed) => format!("{} ({time_zone})", parsed.describe().trim_end_matches('.')),
                Err(_) => format!("{cron} ({time_zone})"),
            },
        }
    }
}

fn parse_cron(text: &str) -> Result<croner::Cron, String> {
    // Five fields only: nobody wants a newsletter every second.
    if text.split_whitespace().count() != 5 {
        return Err(format!(
            "'{}' does not have the five fields minute hour day month weekday, such as '0 9 * * MON'",
            text.escape_debug()
        ));
    }
    croner::Cron::from_str(text).map_err(|e| format!("'{}' is not a cron expression: {e}", text.escape_debug()))
}

fn parse_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("'{}' is not an IANA time zone, such as Europe/Berlin", name.escape_debug()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CampaignStatus {
    Active,
    Paused,
    /// Ran once and has no further run.
    Finished,
}

impl CampaignStatus {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CampaignStatus::Active => "active",
            CampaignStatus::Paused => "paused",
            CampaignStatus::Finished => "finished",
        }
    }
}

/// A broadcast of a stored template to a stored audience, yet to be started: what the "send to all"
/// button and each run of a campaign send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    pub from: Mailbox,
    pub reply_to: Option<EmailAddress>,
    pub template_id: TemplateId,
    pub audience: Audience,
    pub on_uncertain: OnUncertain,
    pub priority: Priority,
    /// The only relay that it may go through; `None` is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// A run's mail expires this long after its scheduled time.
    pub expires_after_secs: Option<i64>,
    pub tags: Vec<String>,
    #[serde(default)]
    pub safety: Safety,
}

impl Draft {
    /// The broadcast that this draft becomes with the template's present content. It starts at once,
    /// or at `planned` when that is given.
    #[must_use]
    pub fn to_broadcast(&self, id: BroadcastId, content: Content, planned: Option<Timestamp>) -> NewBroadcast {
        let expires_at = planned
            .zip(self.expires_after_secs)
            .map(|(at, secs)| at.plus_ms(secs * 1_000));
        NewBroadcast {
            id,
            letter: Letter {
                from: self.from.clone(),
                reply_to: self.reply_to.clone().map(|email| Mailbox { email, name: None }),
                content,
                headers: Vec::new(),
                attachments: Vec::new(),
                data: SharedData::default(),
            },
            audience: self.audience.clone(),
            template_id: Some(self.template_id.clone()),
            campaign: None,
            send_at: planned,
            expires_at,
            on_uncertain: self.on_uncertain,
            priority: self.priority,
            relay: self.relay.clone(),
            tags: self.tags.clone(),
            metadata: serde_json::Map::new(),
            received: 0,
            rejected: 0,
            duplicates: 0,
            safety: self.safety,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Campaign {
    pub id: CampaignId,
    pub name: String,
    pub status: CampaignStatus,
    pub draft: Draft,
    pub schedule: Schedule,
    pub next_at: Option<Timestamp>,
    pub last_at: Option<Timestamp>,
    /// Why the last run could not start.
    pub last_error: Option<String>,
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_weekly_run_keeps_its_local_hour_across_daylight_saving() {
        let s = Schedule::Recurring {
            cron: "0 9 * * MON".into(),
            time_zone: "Europe/Berlin".into(),
        };
        let before = s.next_after(at("2026-10-20T00:00:00Z")).unwrap();
        let after = s.next_after(before).unwrap();
        // 26 October 2026 is the Monday after clocks go back.
        assert_eq!(before, at("2026-10-26T08:00:00Z"));
        assert_eq!(after, at("2026-11-02T08:00:00Z"));
        assert_eq!(s.next_after(at("2026-10-13T00:00:00Z")), Some(at("2026-10-19T07:00:00Z")));
    }

    #[test]
    fn a_single_run_has_no_second() {
        let s = Schedule::Once {
            at: at("2026-10-20T09:00:00Z"),
        };
        assert_eq!(s.next_after(at("2026-10-20T08:00:00Z")), Some(at("2026-10-20T09:00:00Z")));
        assert_eq!(s.next_after(at("2026-10-20T09:00:00Z")), None);
    }

    #[test]
    fn a_bad_schedule_names_its_field() {
        let bad = |cron: &str, tz: &str| {
            Schedule::Recurring {
                cron: cron.into(),
                time_zone: tz.into(),
            }
            .check()
            .unwrap_err()
            .0
        };
        assert_eq!(bad("* * * * * *", "Europe/Berlin"), "cron");
        assert_eq!(bad("61 * * * *", "Europe/Berlin"), "cron");
        assert_eq!(bad("0 9 * * *", "Europe/Atlantis"), "time_zone");
    }
}
