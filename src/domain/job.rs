//! Jobs: the one claimable unit of the queue. Never a recipient's business: that is a message.

use serde::Serialize;

use super::address::SortKey;
use super::id::BroadcastId;

/// Owners that may die with a job before it is set aside for a person to look at. One death is an
/// accident and two may be; five in a row mean that the job itself kills its owner.
pub const DEATHS_MAX: i64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Splits a broadcast's recipients into chunks.
    FanOut,
    /// Delivers one chunk.
    Deliver,
}

impl JobKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::FanOut => "fan_out",
            JobKind::Deliver => "deliver",
        }
    }
}

/// What an operator wants the owner of a running job to do at its next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The broadcast is paused: give the job back as `held`.
    Hold,
    /// The broadcast is canceled: give the job back as `canceled`.
    Cancel,
}

impl Stop {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "hold" => Some(Stop::Hold),
            "cancel" => Some(Stop::Cancel),
            _ => None,
        }
    }
}

/// Proof that a job was claimed: every write of its owner shows it, and writes with an old epoch
/// change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[must_use]
pub struct Lease {
    pub job_id: i64,
    pub epoch: i64,
}

/// A job as its new owner finds it.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub lease: Lease,
    pub broadcast_id: BroadcastId,
    pub kind: JobKind,
    /// The chunk's number in its broadcast.
    pub seq: i64,
    pub deaths: i64,
    pub stop: Option<Stop>,
    /// A fan-out's progress: the last sort key that stands in a chunk.
    pub cursor: Option<SortKey>,
    /// Ordinals that may have been on the wire when the last owner was last heard of.
    pub inflight: Vec<u16>,
}

/// How an owner gives a job back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// Every message has a final status.
    Done,
    /// Some messages are deferred: claimable again at the given time (ms).
    Waiting(super::time::Timestamp),
    /// What is left waits for a relay or a lane: claimable again at the given time, or when a relay changes.
    Held {
        until: super::time::Timestamp,
        by: super::brake::Brake,
    },
    /// Not finished, through no fault of the job: ready for anybody. Used at shutdown.
    Released,
    /// The owner has seen [`Stop`] and wound up: held or canceled, as the broadcast then stands.
    Stopped,
}
