//! The queue as a model that is searched through completely: claim, lease, heartbeat, epoch, rescue, intent, outcome and finish of
//! one chunk of three messages between two processes, with crashes, restarts, clocks that differ, answers that are lost and
//! writes that come too late. Every reachable state keeps what the program promises. Never touches the program itself: which
//! function each step stands for is said where the step is.
//!
//! The mutants show that the properties have teeth: each leaves out one safeguard, and the search finds the promise it breaks.

mod queue;
mod state;
mod steps;

use std::collections::HashMap;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};

use queue::{Mutant, Policy, Queue};
use state::{Faults, JobState, MESSAGES, State, Status};

const NOBODY_LOST: &str = "a finished chunk has settled every message";
const NO_FALSE_SENT: &str = "sent means that the relay took it";
const DOUBLES_FLAGGED: &str = "a message that the relay took twice is flagged";
const FENCED: &str = "a write of somebody who is not the owner changes nothing";
const FEW_IN_DOUBT: &str = "no more is on the wire than there are connections";
const FEW_FLAGGED: &str = "no more is flagged than was on the wire at a rescue or cut off";
const COUNTED_ONCE: &str = "the counter is the number of rows";
const OWNERS_SEND: &str = "who looked at its lease and then sends is the owner";
const HELD_ONCE: &str = "what is held when in doubt is never sent twice";

fn properties() -> Vec<Property<Queue>> {
    vec![
        Property::always(NOBODY_LOST, |_, s: &State| {
            s.job.state != JobState::Done || s.rows.iter().all(|r| r.status.is_final())
        }),
        Property::always(NO_FALSE_SENT, |_, s: &State| {
            (0..MESSAGES as usize).all(|o| s.rows[o].status != Status::Sent || s.seen.taken[o] > 0)
        }),
        Property::always(DOUBLES_FLAGGED, |_, s: &State| {
            (0..MESSAGES as usize).all(|o| s.seen.taken[o] < 2 || s.rows[o].flagged)
        }),
        Property::always(FENCED, |_, s: &State| !s.seen.foreign_write),
        Property::always(FEW_IN_DOUBT, |q: &Queue, s: &State| s.job.inflight.count_ones() as usize <= q.connections),
        Property::always(FEW_FLAGGED, |q: &Queue, s: &State| {
            let flagged = s.rows.iter().filter(|r| r.flagged).count();
            flagged <= q.connections * usize::from(s.seen.doubtful_rescues) + usize::from(s.seen.cuts)
        }),
        Property::always(COUNTED_ONCE, |_, s: &State| {
            let sent = s.rows.iter().filter(|r| r.status == Status::Sent).count();
            usize::from(s.job.sent) == sent
        }),
        Property::always(OWNERS_SEND, |_, s: &State| !s.seen.foreign_mail),
        Property::always(HELD_ONCE, |q: &Queue, s: &State| {
            q.policy == Policy::Resend || s.seen.taken.iter().all(|n| *n < 2)
        }),
    ]
}

/// One connection each, and every fault there is.
fn everything_once() -> Queue {
    Queue {
        connections: 1,
        skew: 1,
        margin: 1,
        policy: Policy::Resend,
        faults: Faults {
            crashes: 1,
            lags: 1,
            freezes: 1,
            unheard: 1,
            cut: 0,
            deferrals: 0,
        },
        mutant: None,
    }
}

/// Searches every reachable state and fails with the way to the first one that breaks a promise.
fn search(what: &str, queue: Queue) {
    let started = Instant::now();
    let checker = queue.checker().threads(2).spawn_bfs().join();
    println!(
        "{what}: {} states, {} steps, {} deep, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    assert!(checker.unique_state_count() > 1_000, "the model hardly moves");
    checker.assert_properties();
}

#[test]
fn every_fault_once_breaks_no_promise() {
    search("every fault once", everything_once());
}

#[test]
fn two_connections_leave_no_more_than_two_in_doubt() {
    let faults = Faults {
        crashes: 1,
        unheard: 1,
        ..Faults::default()
    };
    search(
        "two connections, a crash, a lost answer",
        Queue {
            connections: 2,
            faults,
            ..everything_once()
        },
    );
}

#[test]
fn a_relay_that_defers_and_is_cut_off_breaks_no_promise() {
    let faults = Faults {
        crashes: 1,
        cut: 1,
        deferrals: 1,
        ..Faults::default()
    };
    search(
        "a crash, a cut, a deferral",
        Queue {
            faults,
            ..everything_once()
        },
    );
}

#[test]
fn two_crashes_and_two_lost_answers_break_no_promise() {
    let faults = Faults {
        crashes: 2,
        unheard: 2,
        ..Faults::default()
    };
    search(
        "two crashes, two lost answers",
        Queue {
            faults,
            ..everything_once()
        },
    );
}

#[test]
fn what_is_held_when_in_doubt_is_never_sent_twice() {
    let faults = Faults {
        crashes: 1,
        lags: 1,
        freezes: 1,
        cut: 1,
        ..Faults::default()
    };
    let policy = Policy::Hold;
    let queue = Queue {
        policy,
        faults,
        ..everything_once()
    };
    search("held when in doubt", queue);
}

/// Liveness: whatever has happened, the end can still be reached once faults stop. Stronger than `eventually`, which does not
/// see cycles, and weaker than a promise about time.
#[test]
fn the_end_stays_within_reach() {
    for queue in [
        Queue {
            faults: Faults {
                crashes: 1,
                lags: 1,
                ..Faults::default()
            },
            ..everything_once()
        },
        Queue {
            connections: 2,
            faults: Faults {
                crashes: 1,
                cut: 1,
                ..Faults::default()
            },
            ..everything_once()
        },
    ] {
        let graph = Graph::of(&queue);
        let ends: Vec<u32> = graph.matching(|s| s.job.state == JobState::Done);
        println!("{} states, {} of them ends", graph.states.len(), ends.len());
        assert!(!ends.is_empty());
        let lost = graph.cut_off_from(&ends);
        assert!(lost.is_empty(), "{} states without a way to the end, such as {:#?}", lost.len(), lost[0]);
    }
}

/// Every reachable state with the steps between them.
struct Graph {
    states: Vec<State>,
    /// For each state those that lead to it.
    before: Vec<Vec<u32>>,
}

impl Graph {
    fn of(queue: &Queue) -> Self {
        let mut states = queue.init_states();
        let mut before = vec![Vec::new()];
        let mut known: HashMap<State, u32> = states.iter().cloned().zip(0..).collect();
        let mut at = 0;
        while at < states.len() {
            for next in queue.next_states(&states[at]) {
                let number = *known.entry(next.clone()).or_insert_with(|| {
                    states.push(next);
                    before.push(Vec::new());
                    states.len() as u32 - 1
                });
                before[number as usize].push(at as u32);
            }
            at += 1;
        }
        Self { states, before }
    }

    fn matching(&self, wanted: impl Fn(&State) -> bool) -> Vec<u32> {
        let numbered = (0..).zip(&self.states);
        numbered.filter(|(_, s)| wanted(s)).map(|(n, _)| n).collect()
    }

    /// States from which none of these can be reached.
    fn cut_off_from(&self, ends: &[u32]) -> Vec<&State> {
        let mut reaches = vec![false; self.states.len()];
        let mut to_do = ends.to_vec();
        while let Some(n) = to_do.pop() {
            if !std::mem::replace(&mut reaches[n as usize], true) {
                to_do.extend(&self.before[n as usize]);
            }
        }
        let numbered = self.states.iter().zip(reaches);
        numbered.filter(|(_, reaches)| !reaches).map(|(s, _)| s).collect()
    }
}

// ---- teeth: each safeguard left out breaks a promise ---------------------------------------------------------------------

/// Searches until a promise is broken; it must be one of these.
fn breaks(mutant: Queue, promise: &'static str) {
    let of_interest = HasDiscoveries::AnyOf([promise].into());
    let checker = mutant.checker().finish_when(of_interest).threads(2).spawn_bfs().join();
    let found = checker.discovery(promise);
    let path =
        found.unwrap_or_else(|| panic!("nothing broke \"{promise}\" in {} states", checker.unique_state_count()));
    let steps: Vec<String> = path.into_actions().iter().map(|a| format!("{a:?}")).collect();
    println!("\"{promise}\" is broken by: {}", steps.join(", "));
}

/// A mutant that is searched through completely, or whose way to its end is long, with the faults that matter to it.
fn fewer(mutant: Mutant) -> Queue {
    let faults = Faults {
        crashes: 1,
        unheard: 1,
        deferrals: 1,
        ..Faults::default()
    };
    Queue {
        faults,
        ..without(mutant)
    }
}

fn without(mutant: Mutant) -> Queue {
    Queue {
        mutant: Some(mutant),
        ..everything_once()
    }
}

#[test]
fn without_an_epoch_a_message_is_doubled_unnoticed() {
    breaks(without(Mutant::NoEpoch), DOUBLES_FLAGGED);
}

#[test]
fn without_an_epoch_a_write_of_a_former_owner_takes_effect() {
    breaks(without(Mutant::NoEpoch), FENCED);
}

#[test]
fn a_claim_that_keeps_the_epoch_lets_a_late_write_in() {
    breaks(fewer(Mutant::ClaimKeepsEpoch), FENCED);
}

/// Between a rescue and the next claim two fences stand, the epoch and the state: either is enough, and one is needed.
#[test]
fn a_rescue_that_keeps_the_epoch_needs_the_state_and_without_both_a_late_write_gets_in() {
    search("a rescue keeps the epoch", fewer(Mutant::RescueKeepsEpoch));
    search("a commit in any state", fewer(Mutant::CommitInAnyState));
    breaks(fewer(Mutant::RescueKeepsEpochAndCommitInAnyState), FENCED);
}

/// A finish leaves the epoch, so that only the state tells a repeated one: it would count its job as over twice.
#[test]
fn a_finish_in_any_state_takes_effect_twice() {
    breaks(without(Mutant::FinishInAnyState), FENCED);
}

#[test]
fn an_intent_after_the_effect_doubles_a_message_unnoticed() {
    breaks(without(Mutant::IntentAfterEffect), DOUBLES_FLAGGED);
}

#[test]
fn a_rescue_that_forgets_the_wire_doubles_a_message_unnoticed() {
    breaks(without(Mutant::RescueForgets), DOUBLES_FLAGGED);
}

#[test]
fn an_outcome_apart_from_the_next_intent_leaves_more_in_doubt() {
    breaks(without(Mutant::OutcomeApart), FEW_IN_DOUBT);
}

#[test]
fn without_a_commit_number_an_outcome_counts_twice() {
    breaks(without(Mutant::NoNumber), COUNTED_ONCE);
}

/// The margin must be as large as clocks may differ: without one, a worker still sends what another has taken over.
#[test]
fn without_a_margin_a_clock_that_is_ahead_takes_what_is_still_being_sent() {
    let queue = Queue {
        margin: 0,
        skew: 2,
        ..everything_once()
    };
    breaks(queue, OWNERS_SEND);
}
