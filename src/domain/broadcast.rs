//! Broadcasts: what one accepted send request becomes. Never changes what it says once accepted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::content::Letter;
use super::counts::{Counts, Received};
use super::dkim::DkimKey;
use super::id::{BroadcastId, CampaignId, ListId, TemplateId};
use super::safety::{CanaryState, Pause, Safety};
use super::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BroadcastStatus {
    /// Accepted, to start at `send_at`.
    Scheduled,
    /// Durable; the fan-out has not begun.
    Accepted,
    FanningOut,
    Sending,
    /// Stands still until somebody resumes it; the reason says why.
    Paused,
    /// Every message has a final status. Derived from the counts, never from a cursor.
    Completed,
    Canceled,
    /// The fan-out could not be done; the reason says why.
    Failed,
}

impl BroadcastStatus {
    pub const ALL: [BroadcastStatus; 8] = [
        BroadcastStatus::Scheduled,
        BroadcastStatus::Accepted,
        BroadcastStatus::FanningOut,
        BroadcastStatus::Sending,
        BroadcastStatus::Paused,
        BroadcastStatus::Completed,
        BroadcastStatus::Canceled,
        BroadcastStatus::Failed,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BroadcastStatus::Scheduled => "scheduled",
            BroadcastStatus::Accepted => "accepted",
            BroadcastStatus::FanningOut => "fanning_out",
            BroadcastStatus::Sending => "sending",
            BroadcastStatus::Paused => "paused",
            BroadcastStatus::Completed => "completed",
            BroadcastStatus::Canceled => "canceled",
            BroadcastStatus::Failed => "failed",
        }
    }

    /// Whether nothing more will happen by itself or can be made to happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, BroadcastStatus::Completed | BroadcastStatus::Canceled | BroadcastStatus::Failed)
    }
}

impl fmt::Display for BroadcastStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BroadcastStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.iter().map(|s| s.as_str()).collect();
            format!("'{}' is not a broadcast status; use one of {}", text.escape_debug(), all.join(", "))
        })
    }
}

/// What to do with a message when the end of its data was written and no reply is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUncertain {
    /// Send it again, flagged as a possible duplicate, with the same Message-ID: nothing is lost.
    #[default]
    Resend,
    /// Leave it `uncertain` for a person to decide: nothing is doubled.
    Hold,
}

impl OnUncertain {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OnUncertain::Resend => "resend",
            OnUncertain::Hold => "hold",
        }
    }
}

/// Which broadcasts go first; within one priority they interleave chunk by chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    High,
    #[default]
    Normal,
    Bulk,
}

impl Priority {
    /// As stored: lower goes first.
    #[must_use]
    pub fn rank(self) -> i64 {
        match self {
            Priority::High => 0,
            Priority::Normal => 10,
            Priority::Bulk => 20,
        }
    }

    #[must_use]
    pub fn from_rank(rank: i64) -> Self {
        match rank {
            ..10 => Priority::High,
            10..20 => Priority::Normal,
            _ => Priority::Bulk,
        }
    }
}

/// Whom a broadcast is for. Stored audiences are read when the fan-out runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Audience {
    /// Recipients that came with the request: this many sorted runs of pages are staged.
    Inline { runs: i64 },
    /// Every subscribed contact on any of these lists.
    Lists { list_ids: Vec<ListId> },
    /// Every subscribed contact.
    All,
}

/// A send request that passed every check, ready to be made durable.
#[derive(Debug, Clone)]
pub struct NewBroadcast {
    pub id: BroadcastId,
    pub letter: Letter,
    pub audience: Audience,
    pub template_id: Option<TemplateId>,
    /// The campaign and the scheduled time of the run that this broadcast is.
    pub campaign: Option<(CampaignId, Timestamp)>,
    pub send_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub on_uncertain: OnUncertain,
    pub priority: Priority,
    /// The only relay that it may go through; `None` is any.
    pub relay: Option<String>,
    pub tags: Vec<String>,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Inline recipients received and rejected; zero for stored audiences until the fan-out counts.
    pub received: i64,
    pub rejected: i64,
    /// Repeated addresses that were dropped while receiving; the fan-out meets the others.
    pub duplicates: i64,
    /// The canary and the automatic pause, as far as the request says something of them.
    pub safety: Safety,
}

/// A broadcast as people and programs see it.
#[derive(Debug, Clone)]
pub struct Broadcast {
    pub id: BroadcastId,
    pub status: BroadcastStatus,
    /// Why it is paused or failed.
    pub reason: Option<String>,
    /// Who or what paused it, and when.
    pub pause: Option<(Pause, Timestamp)>,
    pub safety: Safety,
    /// Where its canary is, and how many recipients it has once that is known.
    pub canary: Option<(CanaryState, Option<i64>)>,
    pub subject: String,
    pub from_email: String,
    pub audience: Audience,
    pub template_id: Option<String>,
    pub campaign_id: Option<String>,
    pub send_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub on_uncertain: OnUncertain,
    pub priority: Priority,
    /// The relay that it names; `None` is any.
    pub relay: Option<String>,
    pub tags: Vec<String>,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub received: Received,
    pub counts: Counts,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// What a worker needs to know about a broadcast to compose and deliver its messages.
#[derive(Debug, Clone)]
pub struct Brief {
    pub id: BroadcastId,
    pub letter: Letter,
    /// The keys that sign its messages, chosen when it was accepted; none: they go out unsigned.
    pub dkim_keys: Vec<DkimKey>,
    /// The Date header of every message and every attempt: the planned start, else the acceptance.
    pub date: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// The only relay that may carry it; `None` is any.
    pub relay: Option<String>,
}
