//! What may happen next: acts as they are drawn, and what each means where the model stands. An act that has no subject there may
//! not happen, so that a story that is shortened stays a story.

use hikyaku::domain::job::JobKind;
use hikyaku::domain::message::MessageStatus;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use super::model::{Call, End, Line, Model, Part, State, Want};

/// Recipients of a broadcast at most, and of a chunk.
pub const SIZE_MAX: usize = 9;
const CHUNK_MAX: usize = 4;
/// Later than any small step of the clock.
const LATER_MS: i64 = 3_000;

/// Which of the leases that were ever given.
#[derive(Debug, Clone, Copy)]
pub enum Pick {
    /// One that still counts.
    Live(usize),
    /// Any, also one that has lapsed long since.
    Any(usize),
}

#[derive(Debug, Clone)]
pub enum Act {
    /// The clock goes on: a little, past a delay, or past a lease.
    Tick(i64),
    Accept {
        size: usize,
        priority: i64,
        later: bool,
        expires: bool,
    },
    Register,
    Retire(usize),
    Beat(usize, bool),
    Claim {
        worker: usize,
        kind: JobKind,
        n: usize,
        ahead: Option<i64>,
    },
    /// Cuts a chunk, or ends the fan-out where nothing is left.
    Cut {
        pick: Pick,
        size: usize,
        suppressed: Option<u16>,
    },
    Commit {
        picks: Vec<Pick>,
        fates: Vec<Option<MessageStatus>>,
        intents: u16,
        flag: bool,
    },
    Repeat(Pick),
    Finish(Pick, End),
    /// A claim's answer was lost: the worker says what it knows of.
    GiveBack(usize, bool),
    Quarantine(Pick),
    Release(usize),
    Control(usize, Want),
    Retry(usize),
    Promote,
    Hasten,
    Rescue(usize),
    Void(usize),
    Stops(usize),
}

/// An act, and how much later it is than the one before.
#[derive(Debug, Clone)]
pub struct Happening {
    pub after_ms: i64,
    pub act: Act,
}

/// The model as the machine that the store is held against.
pub struct Machine;

impl ReferenceStateMachine for Machine {
    type State = Model;
    type Transition = Happening;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::new()).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Happening> {
        (1..300i64, act(model))
            .prop_map(|(after_ms, act)| Happening { after_ms, act })
            .boxed()
    }

    fn preconditions(model: &Model, happening: &Happening) -> bool {
        call(model, happening).is_some()
    }

    fn apply(mut model: Model, happening: &Happening) -> Model {
        let call = call(&model, happening).expect("its preconditions hold");
        model.now += elapsed(happening);
        model.take(call);
        model
    }
}

fn elapsed(happening: &Happening) -> i64 {
    match happening.act {
        Act::Tick(ms) => ms,
        _ => happening.after_ms,
    }
}

fn act(model: &Model) -> impl Strategy<Value = Act> + use<> {
    let pick = || prop_oneof![5 => any::<usize>().prop_map(Pick::Live), 1 => any::<usize>().prop_map(Pick::Any)];
    let worker = || 0..3usize;
    let kind = prop_oneof![1 => Just(JobKind::FanOut), 2 => Just(JobKind::Deliver)];
    let end = prop_oneof![
        3 => Just(End::Done),
        2 => (0..5_000i64).prop_map(End::Waiting),
        1 => (0..5_000i64).prop_map(End::Held),
        2 => Just(End::Released),
        1 => Just(End::Stopped)
    ];
    let fate = prop_oneof![
        6 => Just(None),
        3 => Just(Some(MessageStatus::Sent)),
        2 => Just(Some(MessageStatus::Deferred)),
        2 => Just(Some(MessageStatus::Failed)),
        1 => Just(Some(MessageStatus::Suppressed)),
        1 => Just(Some(MessageStatus::Uncertain)),
        1 => Just(Some(MessageStatus::Expired))
    ];
    let early = prop_oneof![
        5 => (1..=SIZE_MAX, prop_oneof![Just(0i64), Just(10), Just(20)], any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(size, priority, later, expires)| Act::Accept { size, priority, later, expires }),
        14 => (worker(), kind, 1..4usize, prop::option::weighted(0.2, 0..3i64))
            .prop_map(|(worker, kind, n, ahead)| Act::Claim { worker, kind, n, ahead }),
        18 => (pick(), 1..=CHUNK_MAX, prop::option::weighted(0.25, 0..CHUNK_MAX as u16))
            .prop_map(|(pick, size, suppressed)| Act::Cut { pick, size, suppressed }),
        22 => (prop::collection::vec(pick(), 1..3), prop::collection::vec(fate, CHUNK_MAX), any::<u16>(), any::<bool>())
            .prop_map(|(picks, fates, intents, flag)| Act::Commit { picks, fates, intents, flag }),
        3 => pick().prop_map(Act::Repeat),
        10 => (pick(), end).prop_map(|(pick, end)| Act::Finish(pick, end)),
        2 => pick().prop_map(Act::Quarantine),
    ];
    let upkeep = prop_oneof![
        4 => prop_oneof![Just(LATER_MS), Just(40_000)].prop_map(Act::Tick),
        1 => Just(Act::Register),
        1 => worker().prop_map(Act::Retire),
        4 => (worker(), prop::bool::weighted(0.1)).prop_map(|(worker, draining)| Act::Beat(worker, draining)),
        1 => (worker(), any::<bool>()).prop_map(|(worker, knows)| Act::GiveBack(worker, knows)),
        2 => any::<usize>().prop_map(Act::Release),
        4 => Just(Act::Promote),
        1 => Just(Act::Hasten),
        6 => (0..4usize).prop_map(Act::Rescue),
        1 => worker().prop_map(Act::Void),
        1 => worker().prop_map(Act::Stops),
    ];
    let wishes = prop_oneof![
        4 => any::<usize>().prop_map(|n| Act::Control(n, Want::Pause)),
        5 => any::<usize>().prop_map(|n| Act::Control(n, Want::Resume)),
        2 => any::<usize>().prop_map(|n| Act::Control(n, Want::Cancel)),
        3 => any::<usize>().prop_map(Act::Retry),
    ];
    // What is rare and matters: an owner that dies with messages on the wire, and a wish for what it left.
    let has_intents = |states: &[State]| {
        let of = model
            .jobs
            .iter()
            .filter(|j| !j.inflight.is_empty() && states.contains(&j.state));
        of.map(|j| j.broadcast).next()
    };
    let dying = if has_intents(&[State::Running]).is_some() {
        12
    } else {
        1
    };
    let left = has_intents(&[State::Ready, State::Held, State::Quarantined]);
    let wished = left.map_or(1, |_| 10);
    let failed = model
        .jobs
        .iter()
        .find(|j| j.n(MessageStatus::Failed) > 0)
        .map(|j| j.broadcast);
    let missed = failed.map_or(1, |_| 6);
    // One who lost its job to another that has it now, and one whose answer may be lost: by their places among all of them.
    let given = model.given.iter().enumerate();
    let of_chunks: Vec<usize> = given
        .filter(|(_, g)| model.jobs[g.job].kind == JobKind::Deliver)
        .map(|(lease, _)| lease)
        .collect();
    let is_late = |&l: &usize| !model.holds(l) && model.jobs[model.given[l].job].state == State::Running;
    let late = of_chunks.iter().position(is_late);
    let again = of_chunks
        .iter()
        .position(|&l| model.holds(l) && model.given[l].number > 0);
    let of_left = prop_oneof![Just(Want::Cancel), Just(Want::Pause), Just(Want::Resume)];
    prop_oneof![
        60 => early,
        25 => upkeep,
        13 => wishes,
        dying => worker().prop_map(Act::Void),
        missed => Just(Act::Retry(failed.unwrap_or(0))),
        late.map_or(1, |_| 8) => Just(Act::Commit {
            picks: vec![Pick::Any(late.unwrap_or(0))],
            fates: vec![Some(MessageStatus::Sent), None],
            intents: u16::MAX,
            flag: false,
        }),
        again.map_or(1, |_| 5) => Just(Act::Repeat(Pick::Any(again.unwrap_or(0)))),
        wished => of_left.prop_map(move |want| Act::Control(left.unwrap_or(0), want)),
    ]
}

/// What an act means where the model stands; `None` when it cannot happen there.
fn call(model: &Model, happening: &Happening) -> Option<Call> {
    let now = model.now + elapsed(happening);
    let hand = |n: usize| n % model.hands.len();
    Some(match &happening.act {
        Act::Tick(_) => Call::Tick,
        Act::Accept {
            size,
            priority,
            later,
            expires,
        } => Call::Accept {
            size: *size,
            priority: *priority,
            send_at: later.then_some(now + LATER_MS),
            expires_at: expires.then_some(now + 10 * LATER_MS),
        },
        Act::Register => Call::Register,
        Act::Retire(n) => Call::Retire { worker: hand(*n) },
        Act::Beat(n, draining) => Call::Beat {
            worker: hand(*n),
            draining: *draining,
        },
        Act::Claim { worker, kind, n, ahead } => {
            // Only chunks are claimed ahead, one at a time.
            let seq_max = ahead.filter(|_| *kind == JobKind::Deliver);
            let n = if seq_max.is_some() { 1 } else { *n };
            Call::Claim {
                worker: hand(*worker),
                kind: *kind,
                n,
                seq_max,
            }
        }
        Act::Cut { pick, size, suppressed } => cut(model, *pick, *size, *suppressed)?,
        Act::Commit {
            picks,
            fates,
            intents,
            flag,
        } => commit(model, picks, fates, *intents, *flag)?,
        Act::Repeat(pick) => {
            let lease = deliver_lease(model, *pick)?;
            if model.given[lease].number == 0 {
                return None;
            }
            Call::Repeat { lease }
        }
        Act::Finish(pick, end) => {
            let lease = lease(model, *pick, |_| true)?;
            let is_fan_out = model.jobs[model.given[lease].job].kind == JobKind::FanOut;
            let end = match *end {
                // A fan-out ends in its own way, and waits for nothing.
                End::Done | End::Waiting(_) | End::Held(_) if is_fan_out => End::Released,
                End::Waiting(ms) => End::Waiting(now + ms),
                End::Held(ms) => End::Held(now + ms),
                end => end,
            };
            Call::Finish { lease, end }
        }
        Act::GiveBack(worker, knows) => {
            let worker = hand(*worker);
            let mine = |&l: &usize| model.jobs[model.given[l].job].worker == Some(worker);
            let jobs = model.held().into_iter().filter(mine).map(|l| model.given[l].job);
            Call::GiveBack {
                worker,
                held: jobs.filter(|_| *knows).collect(),
            }
        }
        Act::Quarantine(pick) => Call::Quarantine {
            lease: lease(model, *pick, |_| true)?,
        },
        Act::Release(n) => {
            let set_aside: Vec<usize> = (0..model.jobs.len())
                .filter(|&j| model.jobs[j].state == State::Quarantined)
                .collect();
            Call::Release {
                job: chosen(&set_aside, *n)?,
            }
        }
        Act::Control(n, want) => Call::Control {
            cast: nth(model.casts.len(), *n)?,
            want: *want,
        },
        Act::Retry(n) => Call::Retry {
            cast: nth(model.casts.len(), *n)?,
        },
        Act::Promote => Call::Promote,
        Act::Hasten => Call::Hasten,
        Act::Rescue(n) => Call::Rescue {
            by: n.checked_sub(1).map(hand),
        },
        Act::Void(n) => Call::Void { worker: hand(*n) },
        Act::Stops(n) => Call::Stops { worker: hand(*n) },
    })
}

fn nth(len: usize, n: usize) -> Option<usize> {
    n.checked_rem(len)
}

fn chosen(of: &[usize], n: usize) -> Option<usize> {
    nth(of.len(), n).map(|at| of[at])
}

/// A lease on a job that fits.
fn lease(model: &Model, pick: Pick, fits: impl Fn(&super::model::Job) -> bool) -> Option<usize> {
    let fitting = |all: Vec<usize>| -> Vec<usize> {
        all.into_iter()
            .filter(|&l| fits(&model.jobs[model.given[l].job]))
            .collect()
    };
    match pick {
        Pick::Live(n) => chosen(&fitting(model.held()), n),
        Pick::Any(n) => chosen(&fitting((0..model.given.len()).collect()), n),
    }
}

fn deliver_lease(model: &Model, pick: Pick) -> Option<usize> {
    lease(model, pick, |job| job.kind == JobKind::Deliver)
}

fn cut(model: &Model, pick: Pick, size: usize, suppressed: Option<u16>) -> Option<Call> {
    let lease = lease(model, pick, |job| job.kind == JobKind::FanOut)?;
    let job = &model.jobs[model.given[lease].job];
    let left = model.casts[job.broadcast].size - job.cut;
    if left == 0 {
        return Some(Call::EndFanOut { lease });
    }
    let size = size.min(left);
    let suppressed = suppressed.filter(|&o| usize::from(o) < size);
    Some(Call::Cut {
        lease,
        from: job.cut,
        size,
        suppressed,
    })
}

fn commit(model: &Model, picks: &[Pick], fates: &[Option<MessageStatus>], intents: u16, flag: bool) -> Option<Call> {
    let mut parts: Vec<Part> = Vec::new();
    for pick in picks {
        let lease = deliver_lease(model, *pick)?;
        let (given, job) = (&model.given[lease], &model.jobs[model.given[lease].job]);
        if parts.iter().any(|p| model.given[p.lease].job == given.job) {
            continue;
        }
        let (mut lines, mut open) = (Vec::new(), Vec::new());
        for ordinal in job.open() {
            let row = job.rows.get(&ordinal);
            let was_flagged = row.is_some_and(|r| r.flagged);
            let is_doubtful = flag && job.inflight.contains(&ordinal);
            match fates[usize::from(ordinal) % fates.len()] {
                Some(after) => lines.push(Line {
                    ordinal,
                    before: job.status(ordinal),
                    after,
                    tries: row.map_or(0, |r| r.tries) + 1,
                    flagged: was_flagged || is_doubtful,
                    newly: is_doubtful && !was_flagged,
                }),
                None => open.push(ordinal),
            }
        }
        parts.push(Part {
            lease,
            number: given.number + 1,
            lines,
            intents: open.into_iter().filter(|o| intents >> o & 1 == 1).collect(),
        });
    }
    Some(Call::Commit(parts))
}
