//! The store as it should be, without a database: jobs, messages, broadcasts and workers, and the steps that there are. What each
//! step does stands in `rules`. Pure.

use std::collections::BTreeMap;

use hikyaku::domain::counts::Counts;
use hikyaku::domain::job::{JobKind, Stop};
use hikyaku::domain::message::MessageStatus;

use super::super::world::LEASE_MS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Waiting,
    Ready,
    Running,
    Done,
    Held,
    Canceled,
    Quarantined,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Ready => "ready",
            State::Running => "running",
            State::Done => "done",
            State::Held => "held",
            State::Canceled => "canceled",
            State::Quarantined => "quarantined",
        }
    }
}

/// A message that has a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub status: MessageStatus,
    pub tries: i64,
    pub flagged: bool,
}

#[derive(Debug, Clone)]
pub struct Job {
    pub broadcast: usize,
    pub kind: JobKind,
    pub seq: i64,
    pub priority: i64,
    pub state: State,
    pub run_at: i64,
    pub worker: Option<usize>,
    pub epoch: i64,
    pub deaths: i64,
    pub number: i64,
    /// When it was claimed and last written to, and what was settled at the claim.
    pub claimed_at: i64,
    pub touched_at: i64,
    pub settled_before: i64,
    /// Waits for a relay, not for its own time.
    pub waits: bool,
    pub stop: Option<Stop>,
    /// A fan-out's recipients that stand in chunks.
    pub cut: usize,
    pub size: usize,
    pub inflight: Vec<u16>,
    pub rows: BTreeMap<u16, Row>,
    pub flagged: i64,
}

impl Job {
    pub fn n(&self, status: MessageStatus) -> i64 {
        self.rows.values().filter(|r| r.status == status).count() as i64
    }

    /// Settled by somebody who had it.
    pub fn settled(&self) -> i64 {
        [
            MessageStatus::Sent,
            MessageStatus::Failed,
            MessageStatus::Uncertain,
            MessageStatus::Expired,
        ]
        .iter()
        .map(|&s| self.n(s))
        .sum()
    }

    /// Whether its owner got anything done.
    pub fn has_got_on(&self) -> bool {
        self.settled_before < self.settled() || (self.kind == JobKind::FanOut && self.claimed_at < self.touched_at)
    }

    pub fn status(&self, ordinal: u16) -> MessageStatus {
        self.rows.get(&ordinal).map_or(MessageStatus::Queued, |r| r.status)
    }

    /// Messages for which something is left to be done.
    pub fn open(&self) -> Vec<u16> {
        (0..self.size as u16).filter(|&o| !self.status(o).is_final()).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Scheduled,
    Accepted,
    FanningOut,
    Sending,
    Completed,
    Canceled,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Scheduled => "scheduled",
            Stage::Accepted => "accepted",
            Stage::FanningOut => "fanning_out",
            Stage::Sending => "sending",
            Stage::Completed => "completed",
            Stage::Canceled => "canceled",
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, Stage::Completed | Stage::Canceled)
    }
}

#[derive(Debug, Clone)]
pub struct Cast {
    pub size: usize,
    pub stage: Stage,
    pub paused: bool,
    pub send_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub chunked: usize,
    pub jobs_left: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Live,
    Draining,
    Stopped,
    Dead,
}

#[derive(Debug, Clone)]
pub struct Hand {
    pub life: Life,
    pub lease_until: i64,
}

/// A lease that somebody was given once, whatever has become of it.
#[derive(Debug, Clone)]
pub struct Given {
    pub job: usize,
    pub epoch: i64,
    /// Of its last commit.
    pub number: i64,
}

/// One line of a group commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub ordinal: u16,
    pub before: MessageStatus,
    pub after: MessageStatus,
    pub tries: i64,
    /// Possibly a duplicate, and whether that is new.
    pub flagged: bool,
    pub newly: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub lease: usize,
    pub number: i64,
    pub lines: Vec<Line>,
    pub intents: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    Waiting(i64),
    /// For its relay.
    Held(i64),
    Released,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Pause,
    Resume,
    Cancel,
}

/// A step of the store with everything it is given. Numbers are places in the model's lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Tick,
    Accept {
        size: usize,
        priority: i64,
        send_at: Option<i64>,
        expires_at: Option<i64>,
    },
    Register,
    Retire {
        worker: usize,
    },
    Beat {
        worker: usize,
        draining: bool,
    },
    Claim {
        worker: usize,
        kind: JobKind,
        n: usize,
        seq_max: Option<i64>,
    },
    Cut {
        lease: usize,
        from: usize,
        size: usize,
        suppressed: Option<u16>,
    },
    EndFanOut {
        lease: usize,
    },
    Commit(Vec<Part>),
    /// The last commit of a lease once more, as after a lost answer.
    Repeat {
        lease: usize,
    },
    Finish {
        lease: usize,
        end: End,
    },
    GiveBack {
        worker: usize,
        held: Vec<usize>,
    },
    Quarantine {
        lease: usize,
    },
    Release {
        job: usize,
    },
    Control {
        cast: usize,
        want: Want,
    },
    Retry {
        cast: usize,
    },
    Promote,
    Hasten,
    Rescue {
        by: Option<usize>,
    },
    Void {
        worker: usize,
    },
    Stops {
        worker: usize,
    },
}

#[derive(Debug, Clone)]
pub struct Model {
    pub now: i64,
    pub hands: Vec<Hand>,
    pub casts: Vec<Cast>,
    pub jobs: Vec<Job>,
    pub given: Vec<Given>,
    /// The step that led here, and what the store must answer to it.
    pub last: Option<(Call, String)>,
}

impl Model {
    pub fn new() -> Self {
        Model {
            now: 0,
            hands: vec![Hand {
                life: Life::Live,
                lease_until: LEASE_MS,
            }],
            casts: Vec::new(),
            jobs: Vec::new(),
            given: Vec::new(),
            last: None,
        }
    }

    /// Whether a lease still lets its holder write.
    pub fn holds(&self, lease: usize) -> bool {
        let given = &self.given[lease];
        let job = &self.jobs[given.job];
        job.epoch == given.epoch && job.state == State::Running
    }

    pub fn held(&self) -> Vec<usize> {
        (0..self.given.len()).filter(|&l| self.holds(l)).collect()
    }

    /// What a page must show.
    pub fn counts(&self, cast: usize) -> Counts {
        let mut counts = Counts::default();
        let canceled = self.casts[cast].stage == Stage::Canceled;
        let rest = if canceled {
            MessageStatus::Canceled
        } else {
            MessageStatus::Queued
        };
        counts.add(rest, (self.casts[cast].size - self.casts[cast].chunked) as i64);
        for job in self
            .jobs
            .iter()
            .filter(|j| j.broadcast == cast && j.kind == JobKind::Deliver)
        {
            for ordinal in 0..job.size as u16 {
                let status = job.status(ordinal);
                let is_canceled = job.state == State::Canceled && !status.is_final();
                counts.add(if is_canceled { MessageStatus::Canceled } else { status }, 1);
            }
        }
        counts
    }

    /// Takes the step, and remembers what the store must answer.
    pub fn take(&mut self, call: Call) {
        let answer = self.step(&call);
        self.last = Some((call, answer));
    }

    pub fn next_seq(&self, cast: usize) -> i64 {
        self.jobs
            .iter()
            .filter(|j| j.broadcast == cast && j.kind == JobKind::Deliver)
            .count() as i64
    }
}

pub const OK: &str = "ok";
pub const LOST: &str = "lease lost";
pub const CONFLICT: &str = "conflict";
