//! How far a broadcast is: the bar, the counts, the sum that must hold. Pure; the page and the fragment
//! that refreshes it are made of the same value.

use crate::domain::brake::{Brake, BrakeKind};
use crate::domain::broadcast::{Audience, Broadcast, BroadcastStatus};
use crate::domain::counts::Counts;
use crate::domain::message::MessageStatus;
use crate::domain::safety::{CanaryState, Example, PauseKind};
use crate::domain::time::Timestamp;
use crate::pipeline::outlook::Outlook;
use crate::store::reports::Rate;

use super::format;

/// Least width of a status that has at least one message, in percent: one failed message in a million
/// is seen.
const WIDTH_MIN: f64 = 0.6;

/// Statuses from the left of the bar to its right: what went well, what did not, what is to come.
const ORDER: [MessageStatus; 8] = [
    MessageStatus::Sent,
    MessageStatus::Suppressed,
    MessageStatus::Failed,
    MessageStatus::Uncertain,
    MessageStatus::Expired,
    MessageStatus::Canceled,
    MessageStatus::Deferred,
    MessageStatus::Queued,
];

/// One coloured part of a bar; place and width in percent.
#[derive(Debug, PartialEq)]
pub struct Segment {
    pub status: &'static str,
    pub x: String,
    pub width: String,
}

/// Cuts a bar by status. Empty when there is no message yet.
#[must_use]
pub fn bar(counts: &Counts) -> Vec<Segment> {
    let total = counts.total();
    if total <= 0 {
        return Vec::new();
    }
    let mut widths: Vec<(MessageStatus, f64)> = ORDER
        .into_iter()
        .filter(|&s| counts.get(s) > 0)
        .map(|s| (s, (counts.get(s) as f64 * 100.0 / total as f64).max(WIDTH_MIN)))
        .collect();
    // What the small ones were given is taken from the largest.
    let excess = widths.iter().map(|(_, w)| w).sum::<f64>() - 100.0;
    if let Some((_, largest)) = widths.iter_mut().max_by(|a, b| a.1.total_cmp(&b.1)) {
        *largest -= excess;
    }
    let mut x = 0.0;
    widths
        .into_iter()
        .map(|(status, width)| {
            let segment = Segment {
                status: status.as_str(),
                x: format!("{x:.3}%"),
                width: format!("{width:.3}%"),
            };
            x += width;
            segment
        })
        .collect()
}

/// Whether the counts add up to the recipients that were accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    Holds,
    /// The fan-out still counts: what is not in a chunk yet may turn out to be a duplicate.
    Counting,
    Broken,
}

/// The count of one status.
#[derive(Debug)]
pub struct Tile {
    pub status: &'static str,
    pub n: i64,
    pub share: String,
    /// What the status means, for those who meet it for the first time.
    pub meaning: &'static str,
}

/// Why a broadcast stopped by itself, and what to do.
pub struct Banner {
    pub title: &'static str,
    pub since: Timestamp,
    pub advice: &'static str,
    pub example: Option<Example>,
    pub code: String,
    pub has_failed: bool,
}

/// What keeps a broadcast from going faster, and what to do.
pub struct Slowed {
    pub kind: &'static str,
    pub label: &'static str,
    pub why: String,
    pub until: Option<Timestamp>,
    pub advice: Option<&'static str>,
}

/// Everything that is seen of a broadcast on its way.
pub struct Progress {
    pub id: String,
    pub status: &'static str,
    pub reason: Option<String>,
    pub pause: Option<Banner>,
    pub canary: Option<String>,
    pub bar: Vec<Segment>,
    pub tiles: Vec<Tile>,
    pub accepted: i64,
    pub total: i64,
    pub sent: i64,
    pub sent_share: String,
    /// Messages with their last outcome, whatever it is.
    pub settled: i64,
    pub settled_share: String,
    pub received: i64,
    pub rejected: i64,
    pub duplicates: i64,
    pub law: Law,
    pub is_final: bool,
    pub rate: Option<String>,
    /// How long the rest takes.
    pub left: Option<String>,
    /// What keeps it from going faster.
    pub slowed: Option<Slowed>,
    /// From the start to the end, or to now.
    pub took: Option<String>,
    pub possible_duplicates: i64,
    /// For screen readers: changes at every tenth only.
    pub announcement: String,
}

impl Progress {
    #[must_use]
    pub fn new(b: &Broadcast, rate: Rate, outlook: Outlook, now: Timestamp) -> Self {
        let (total, settled) = (b.counts.total(), b.counts.settled());
        let is_running = matches!(b.status, BroadcastStatus::FanningOut | BroadcastStatus::Sending);
        let is_moving = is_running && rate.per_sec > 0.0;
        let tenths = if total > 0 { b.counts.sent * 10 / total } else { 0 };
        Self {
            id: b.id.to_string(),
            status: b.status.as_str(),
            reason: b.reason.clone(),
            pause: banner(b),
            canary: canary(b),
            bar: bar(&b.counts),
            tiles: ORDER.into_iter().map(|s| tile(s, &b.counts)).collect(),
            accepted: b.received.accepted(),
            total,
            sent: b.counts.sent,
            sent_share: format::percent(&b.counts.sent, &total),
            settled,
            settled_share: format::percent(&settled, &total),
            received: b.received.received,
            rejected: b.received.rejected,
            duplicates: b.received.duplicates,
            law: law(b),
            is_final: b.status.is_final(),
            rate: is_moving.then(|| format::rate(&rate.per_sec)),
            left: outlook.eta_ms.map(|ms| format::duration(&ms)),
            slowed: outlook.slowed_by.as_ref().map(slowed),
            took: b
                .started_at
                .map(|start| format::duration(&(b.finished_at.unwrap_or(now) - start))),
            possible_duplicates: rate.possible_duplicates,
            announcement: format!("{}, {} per cent sent", format::words(b.status.as_str()), tenths * 10),
        }
    }

    /// The counts that are not zero, for the sum.
    #[must_use]
    pub fn summands(&self) -> Vec<&Tile> {
        self.tiles.iter().filter(|t| t.n > 0).collect()
    }

    /// Whether anything can change without anybody's doing.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.is_final
    }
}

/// A pause that nobody asked for needs more than a word.
fn banner(b: &Broadcast) -> Option<Banner> {
    let (pause, since) = b.pause.as_ref()?;
    let title = match pause.kind {
        PauseKind::Operator => return None,
        PauseKind::Canary => "The canary did not go well. The rest is held.",
        PauseKind::Failures => "Paused: too many messages fail.",
        PauseKind::Refused => "Paused: the rest would be refused as well.",
        PauseKind::Doubt => "Paused: a relay leaves messages in doubt.",
    };
    let example = pause.evidence.as_ref().and_then(|e| e.example.clone());
    let code = example.as_ref().map(|e| {
        e.code
            .map(|c| c.to_string())
            .into_iter()
            .chain(e.enhanced.clone())
            .collect::<Vec<_>>()
            .join(" ")
    });
    Some(Banner {
        title,
        since: *since,
        advice: pause.advice().unwrap_or_default(),
        has_failed: b.counts.failed > 0,
        code: code.unwrap_or_default(),
        example,
    })
}

fn slowed(brake: &Brake) -> Slowed {
    let advice = match brake.kind {
        BrakeKind::RelayPaused => Some("Resume it when its trouble is over, or add another relay."),
        BrakeKind::NoRelay => Some("Add it, or cancel this broadcast."),
        BrakeKind::RelayFailing => Some("It is tried again by itself; a test of the relay shows what is wrong."),
        BrakeKind::ConnectionsBusy => Some("If the relay can do more, allow it more connections."),
        _ => None,
    };
    Slowed {
        kind: brake.kind.as_str(),
        label: if brake.kind.is_full_stop() {
            "Stands still"
        } else {
            "Slowed by"
        },
        why: brake.in_words(),
        until: brake.until,
        advice,
    }
}

/// Where the canary is, in a sentence.
fn canary(b: &Broadcast) -> Option<String> {
    let ((state, size), rule) = b.canary.zip(b.safety.canary)?;
    let first = match size {
        Some(n) => format!("The first {}", format::count(&n)),
        None => "The first few".to_owned(),
    };
    let limit = rule.hold_above_percent;
    Some(match state {
        CanaryState::Running => {
            format!(
                "{first} go alone. The rest waits for their outcomes, and follows unless more than {limit} % of them fail."
            )
        }
        CanaryState::Passed => format!("{first} went well, so the rest follows."),
        CanaryState::Released => format!("{first} did not go well; somebody let the rest follow."),
        // The alarm says it all.
        CanaryState::Held | CanaryState::Over => return None,
    })
}

/// `completed` and `failed` may be short only if the counts are; a canceled fan-out never counted to the end.
fn law(b: &Broadcast) -> Law {
    let is_empty = b.counts.total() == 0 && !b.status.is_final();
    if b.counts.total() == b.received.accepted() && !is_empty {
        return Law::Holds;
    }
    match b.status {
        BroadcastStatus::Completed | BroadcastStatus::Sending => Law::Broken,
        _ => Law::Counting,
    }
}

fn tile(status: MessageStatus, counts: &Counts) -> Tile {
    Tile {
        status: status.as_str(),
        n: counts.get(status),
        share: format::percent(&counts.get(status), &counts.total()),
        meaning: meaning(status),
    }
}

/// One line that says what a message status means.
#[must_use]
pub fn meaning(status: MessageStatus) -> &'static str {
    match status {
        MessageStatus::Queued => "waiting for its turn",
        MessageStatus::Deferred => "to be tried again",
        MessageStatus::Sent => "the relay took it",
        MessageStatus::Failed => "refused, or given up",
        MessageStatus::Suppressed => "must not be mailed",
        MessageStatus::Uncertain => "no reply is known; held",
        MessageStatus::Canceled => "stopped by somebody",
        MessageStatus::Expired => "too late to be sent",
    }
}

/// Whom a broadcast is for, in words.
#[must_use]
pub fn audience(audience: &Audience) -> String {
    match audience {
        Audience::Inline { .. } => "recipients of the request".to_owned(),
        Audience::Lists { list_ids } => format::counted(&(list_ids.len() as i64), "list"),
        Audience::All => "all contacts".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(s: &Segment) -> f64 {
        s.width.trim_end_matches('%').parse().unwrap()
    }

    #[test]
    fn one_failed_message_in_a_million_is_seen() {
        let parts = bar(&Counts {
            sent: 999_999,
            failed: 1,
            ..Counts::default()
        });
        assert_eq!(parts.iter().map(|s| s.status).collect::<Vec<_>>(), ["sent", "failed"]);
        assert!(width(&parts[1]) >= WIDTH_MIN);
    }

    #[test]
    fn a_bar_is_always_full_and_without_gaps() {
        for counts in [
            Counts {
                sent: 1,
                ..Counts::default()
            },
            Counts {
                sent: 98_000,
                failed: 1,
                deferred: 2,
                queued: 1_997,
                suppressed: 3,
                ..Counts::default()
            },
            Counts {
                queued: 3,
                deferred: 3,
                sent: 3,
                failed: 3,
                suppressed: 3,
                uncertain: 3,
                canceled: 3,
                expired: 3,
            },
        ] {
            let parts = bar(&counts);
            let sum: f64 = parts.iter().map(width).sum();
            assert!((sum - 100.0).abs() < 0.01, "{parts:?}");
            assert_eq!(parts[0].x, "0.000%");
        }
        assert!(bar(&Counts::default()).is_empty());
    }
}
