//! The state of the model: the rows of the database, the two processes, what is under way between them, and what only an
//! onlooker knows. Never says what may happen next.

use std::collections::{BTreeMap, BTreeSet};

/// Messages of the one chunk.
pub const MESSAGES: u8 = 3;
pub const PROCESSES: u8 = 2;

/// A set of ordinals, one bit each.
pub type Set = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    Queued,
    Deferred,
    Sent,
    Uncertain,
}

impl Status {
    pub fn is_final(self) -> bool {
        matches!(self, Status::Sent | Status::Uncertain)
    }
}

/// A row of `messages`: its status and whether a second copy is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    pub status: Status,
    pub flagged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    Ready,
    Running,
    Waiting,
    Done,
}

/// `jobs.worker_id`, and with it that worker's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Nobody,
    /// The row of this process as it runs now.
    Worker(u8),
    /// The row of a process that is gone, written so many ticks ago by this process's clock.
    Gone {
        clock: u8,
        age: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    pub state: JobState,
    pub owner: Owner,
    pub epoch: u8,
    pub commit_no: u8,
    pub inflight: Set,
    /// The counter that a commit moves, beside the rows that it must equal.
    pub sent: u8,
}

/// What a worker holds. The grant is the onlooker's: it names the claim, whatever the epoch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    pub epoch: u8,
    pub grant: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Settled {
    pub ordinal: u8,
    pub after: Row,
}

/// A step that was sent to the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    Commit {
        lease: Lease,
        number: u8,
        settled: Vec<Settled>,
        inflight: Set,
    },
    Finish {
        lease: Lease,
        done: bool,
    },
}

impl Request {
    pub fn lease(&self) -> Lease {
        match self {
            Request::Commit { lease, .. } | Request::Finish { lease, .. } => *lease,
        }
    }
}

/// A chunk in a process's hands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    pub lease: Lease,
    /// Messages on the wire when the last owner died, not yet written down.
    pub doubts: Set,
    pub todo: Set,
    pub past: [Row; MESSAGES as usize],
    /// Whether a message was deferred in this run.
    pub deferred: bool,
}

/// Where a connection stands with its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    Idle,
    /// 354 is there. The outcome of the message before and this one's intent are to be committed.
    Begun {
        ordinal: u8,
        past: Row,
        before: Option<Settled>,
    },
    /// The intent is durable; the lease is yet to be looked at.
    Intended {
        ordinal: u8,
        past: Row,
    },
    /// The lease was looked at, and the process stopped before it wrote the end of data.
    Frozen {
        ordinal: u8,
        past: Row,
    },
    /// The relay has answered; the outcome is to be committed.
    Answered {
        outcome: Settled,
    },
    /// The intent is not carried out and must be taken back.
    Retracting {
        ordinal: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    pub lease: Lease,
    pub stage: Stage,
    /// It waits for the answer to a commit that was sent.
    pub asked: bool,
}

impl Slot {
    pub const IDLE: Slot = Slot {
        lease: Lease { epoch: 0, grant: 0 },
        stage: Stage::Idle,
        asked: false,
    };
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub is_up: bool,
    /// Others have declared its row dead, which it does not know yet.
    pub is_dead: bool,
    /// It does not get round to its heartbeats.
    pub lags: bool,
    /// Ticks since the heartbeat that its row in the database shows.
    pub age_stored: u8,
    /// Ticks since the last heartbeat whose answer it has.
    pub age_heard: u8,
    pub run: Option<Run>,
    pub slots: Vec<Slot>,
    /// The committer's number, its knowledge of what is on the wire, and a commit without an answer.
    pub number: u8,
    pub wires: BTreeMap<Lease, Set>,
    pub unanswered: Option<Request>,
}

impl Process {
    pub fn fresh(connections: usize) -> Self {
        Self {
            is_up: true,
            is_dead: false,
            lags: false,
            age_stored: 0,
            age_heard: 0,
            run: None,
            slots: vec![Slot::IDLE; connections],
            number: 0,
            wires: BTreeMap::new(),
            unanswered: None,
        }
    }

    /// Whether the run of this lease takes no more messages.
    pub fn is_halted(&self, lease: Lease) -> bool {
        self.run.as_ref().is_none_or(|run| run.lease != lease)
    }

    /// The lease is lost: the run is dropped.
    pub fn halt(&mut self, lease: Lease) {
        if self.run.as_ref().is_some_and(|run| run.lease == lease) {
            self.run = None;
        }
    }
}

/// How often each fault may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Processes killed.
    pub crashes: u8,
    /// Processes that stop beating for as long as they like.
    pub lags: u8,
    /// Processes that stop between looking at the lease and writing the end of data.
    pub freezes: u8,
    /// Answers of the database that are lost, with the request done, or still on its way.
    pub unheard: u8,
    /// Answers of the relay that are lost, with the message taken or not.
    pub cut: u8,
    /// Messages that the relay defers.
    pub deferrals: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub job: Job,
    pub rows: [Row; MESSAGES as usize],
    pub processes: Vec<Process>,
    /// A request whose sender gave up waiting: it may be carried out at any time.
    pub late: Option<Request>,
    pub faults: Faults,
    pub seen: Seen,
}

/// What an onlooker knows and no part of the program does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Copies of each message that the relay took, up to two.
    pub taken: [u8; MESSAGES as usize],
    /// Claims so far, and the one that stands.
    pub grants: u8,
    pub granted: Option<u8>,
    /// Rescues with messages on the wire, and answers of the relay that were lost.
    pub doubtful_rescues: u8,
    pub cuts: u8,
    /// A write of somebody who was not the owner took effect.
    pub foreign_write: bool,
    /// The end of data was written, after a look at the lease, by somebody who was not the owner.
    pub foreign_mail: bool,
    /// A process stopped between its look and its writing.
    pub froze: bool,
}

impl State {
    pub fn first(connections: usize, faults: Faults) -> Self {
        let queued = Row {
            status: Status::Queued,
            flagged: false,
        };
        State {
            job: Job {
                state: JobState::Ready,
                owner: Owner::Nobody,
                epoch: 0,
                commit_no: 0,
                inflight: 0,
                sent: 0,
            },
            rows: [queued; MESSAGES as usize],
            processes: vec![Process::fresh(connections); PROCESSES as usize],
            late: None,
            faults,
            seen: Seen::default(),
        }
    }

    /// Two states that differ only in which connection is which, or in numbers that nothing compares any more, are one.
    pub fn normal(mut self) -> Self {
        for process in &mut self.processes {
            process.slots.sort_unstable();
        }
        let job = &mut self.job;
        let is_running = job.state == JobState::Running;
        let mut numbers = BTreeSet::from([0]);
        if is_running {
            numbers.insert(job.commit_no);
        }
        let owner = |p: usize| is_running && job.owner == Owner::Worker(p as u8);
        let current = |lease: Lease| is_running && lease.epoch == job.epoch;
        for (p, process) in self.processes.iter().enumerate() {
            numbers.extend(owner(p).then_some(process.number));
        }
        for request in self
            .late
            .iter()
            .chain(self.processes.iter().filter_map(|p| p.unanswered.as_ref()))
        {
            if let Request::Commit { lease, number, .. } = request {
                numbers.extend(current(*lease).then_some(*number));
            }
        }
        let numbers: Vec<u8> = numbers.into_iter().collect();
        let rank = |n: u8| numbers.binary_search(&n).unwrap_or(0) as u8;
        let renumber = |request: &mut Request| {
            if let Request::Commit { lease, number, .. } = request {
                *number = if current(*lease) { rank(*number) } else { 0 };
            }
        };
        self.late.iter_mut().for_each(renumber);
        for (p, process) in self.processes.iter_mut().enumerate() {
            process.number = if owner(p) { rank(process.number) } else { 0 };
            process.unanswered.iter_mut().for_each(renumber);
        }
        job.commit_no = if is_running { rank(job.commit_no) } else { 0 };
        self
    }
}
