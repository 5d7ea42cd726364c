//! A broadcast as the command line knows it, whether it came from the API or from the database, and how it is told to people.
//! Never decides what a count means: the words are those of the status page.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::exit::Exit;
use super::terminal::{number, span};
use crate::domain::brake::Brake;
use crate::domain::broadcast::{Broadcast, BroadcastStatus};
use crate::domain::counts::Counts;
use crate::domain::message::MessageStatus;
use crate::domain::time::Timestamp;
use crate::pipeline::outlook::Outlook;
use crate::store::reports::Rate;

/// What is shown of a broadcast. Reads the API's JSON and ignores what it does not show.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct View {
    pub id: String,
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default)]
    pub subject: Option<String>,
    pub counts: Counts,
    #[serde(default)]
    pub received: i64,
    #[serde(default)]
    pub rejected: i64,
    #[serde(default)]
    pub duplicates: i64,
    #[serde(default)]
    pub rate_per_sec: Option<f64>,
    #[serde(default)]
    pub eta_seconds: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowed_by: Option<Brake>,
    #[serde(default)]
    pub possible_duplicates: i64,
    #[serde(default)]
    pub created_at: Option<String>,
    #[serde(default)]
    pub started_at: Option<String>,
    #[serde(default)]
    pub send_at: Option<String>,
    #[serde(default)]
    pub finished_at: Option<String>,
}

impl View {
    /// From the database.
    #[must_use]
    pub fn stored(broadcast: Broadcast, rate: Option<Rate>, outlook: Outlook) -> Self {
        Self {
            id: broadcast.id.to_string(),
            status: broadcast.status.to_string(),
            reason: broadcast.reason,
            subject: Some(broadcast.subject),
            counts: broadcast.counts,
            received: broadcast.received.received,
            rejected: broadcast.received.rejected,
            duplicates: broadcast.received.duplicates,
            rate_per_sec: rate.map(|r| r.per_sec),
            eta_seconds: outlook.eta_ms.map(|ms| ms / 1_000),
            slowed_by: outlook.slowed_by,
            possible_duplicates: rate.map_or(0, |r| r.possible_duplicates),
            created_at: Some(broadcast.created_at.to_string()),
            started_at: broadcast.started_at.map(|t| t.to_string()),
            send_at: broadcast.send_at.map(|t| t.to_string()),
            finished_at: broadcast.finished_at.map(|t| t.to_string()),
        }
    }

    /// Whether nothing more will happen by itself.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.status
            .parse::<BroadcastStatus>()
            .is_ok_and(BroadcastStatus::is_final)
    }

    /// The messages there will be, as far as is known.
    #[must_use]
    pub fn expected(&self) -> i64 {
        self.counts.total().max(self.received - self.rejected - self.duplicates)
    }

    /// Seconds from the start to the end, once it has ended.
    #[must_use]
    pub fn took_secs(&self) -> Option<f64> {
        let [start, end] = [&self.started_at, &self.finished_at].map(|t| Timestamp::parse(t.as_deref()?).ok());
        Some((end? - start?) as f64 / 1_000.0)
    }

    /// The exit code that tells how it ended: messages to suppressed addresses are not sent on purpose, all others on no purpose.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let as_meant = self.counts.sent + self.counts.suppressed;
        match self.status == "completed" && as_meant == self.counts.total() {
            true => Exit::Done,
            false => Exit::NotAllSent,
        }
    }

    /// The counts that are not zero, in words: `99,990 sent, 10 failed`.
    #[must_use]
    pub fn counts_in_words(&self) -> String {
        let parts: Vec<String> = MessageStatus::ALL
            .into_iter()
            .filter(|status| self.counts.get(*status) != 0)
            .map(|status| format!("{} {}", number(self.counts.get(status)), status.as_str()))
            .collect();
        if parts.is_empty() {
            "nobody yet".to_owned()
        } else {
            parts.join(", ")
        }
    }

    /// The conservation sum: `2,000 accepted = 1,999 sent + 1 failed (the other 6 are 0)`.
    #[must_use]
    pub fn conservation(&self) -> String {
        let (zero, others): (Vec<_>, Vec<_>) = MessageStatus::ALL.into_iter().partition(|s| self.counts.get(*s) == 0);
        let parts: Vec<String> = others
            .into_iter()
            .map(|status| format!("{} {}", number(self.counts.get(status)), status.as_str()))
            .collect();
        let sum = if parts.is_empty() {
            "0".to_owned()
        } else {
            parts.join(" + ")
        };
        let rest = match zero.len() {
            0 => String::new(),
            n => format!(" (the other {n} are 0)"),
        };
        format!("{} accepted = {sum}{rest}", number(self.counts.total()))
    }

    /// The status with its reason, if it has one.
    #[must_use]
    pub fn status_in_words(&self) -> String {
        let status = self.status.replace('_', " ");
        match &self.reason {
            Some(reason) if !reason.is_empty() => format!("{status}: {reason}"),
            _ => status,
        }
    }
}

/// How fast a number grows, over the last seconds. Our own measure beside the server's, which knows only of commits.
#[derive(Debug, Default)]
pub struct Speed(VecDeque<(Instant, i64)>);

impl Speed {
    /// Long enough to be calm, short enough to follow a change of pace: as the status page has it.
    const WINDOW: Duration = Duration::from_secs(10);

    /// Notes where the number stands, and returns its growth per second.
    pub fn note(&mut self, n: i64) -> f64 {
        let now = Instant::now();
        self.0.push_back((now, n));
        while self.0.len() > 2 && self.0[0].0 + Self::WINDOW < now {
            self.0.pop_front();
        }
        let (then, before) = self.0[0];
        let secs = now.duration_since(then).as_secs_f64();
        if secs > 0.0 {
            ((n - before) as f64 / secs).max(0.0)
        } else {
            0.0
        }
    }
}

/// A rate: `8,403/s`. `None` while nothing moves.
#[must_use]
pub fn rate_in_words(rate_per_sec: f64) -> Option<String> {
    match rate_per_sec {
        still if still < 0.05 => None,
        slow if slow < 10.0 => Some(format!("{slow:.1}/s")),
        rate => Some(format!("{}/s", number(rate.round() as i64))),
    }
}

/// A rate and what it means for the rest: `8,403/s, 12 s left`. Empty while nothing moves.
#[must_use]
pub fn pace_in_words(rate_per_sec: f64, left: i64) -> String {
    let Some(rate) = rate_in_words(rate_per_sec) else {
        return String::new();
    };
    match left {
        0 => rate,
        left => format!("{rate}, {} left", span(left as f64 / rate_per_sec)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(status: &str, counts: Counts) -> View {
        let json =
            serde_json::json!({ "id": "brd_1", "status": status, "counts": counts, "received": 10, "more": [1] });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_exit_code_tells_whether_everybody_got_it() {
        let sent = Counts {
            sent: 9,
            suppressed: 1,
            ..Counts::default()
        };
        assert_eq!(view("completed", sent).exit(), Exit::Done);
        let failed = Counts {
            sent: 9,
            failed: 1,
            ..Counts::default()
        };
        assert_eq!(view("completed", failed).exit(), Exit::NotAllSent);
        let canceled = Counts {
            sent: 4,
            canceled: 6,
            ..Counts::default()
        };
        assert_eq!(view("canceled", canceled).exit(), Exit::NotAllSent);
    }

    #[test]
    fn the_conservation_sum_accounts_for_every_status() {
        let counts = Counts {
            sent: 1_999,
            failed: 1,
            ..Counts::default()
        };
        let told = view("completed", counts).conservation();
        let sum = "2,000 accepted = 1,999 sent + 1 failed (the other 6 are 0)";
        assert_eq!(told, sum);
        assert_eq!(view("completed", counts).counts_in_words(), "1,999 sent, 1 failed");
    }

    #[test]
    fn the_rest_is_told_in_time() {
        assert_eq!(pace_in_words(1_000.0, 60_000), "1,000/s, 1 min 00 s left");
        assert_eq!(pace_in_words(2.5, 0), "2.5/s");
        assert_eq!(pace_in_words(0.0, 5), "");
    }

    #[tokio::test(start_paused = true)]
    async fn speed_follows_the_last_seconds_only() {
        let mut speed = Speed::default();
        speed.note(0);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(speed.note(100).round(), 10.0);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(speed.note(2_100).round(), 200.0);
    }
}
