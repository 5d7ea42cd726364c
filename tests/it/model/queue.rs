//! The model: which steps may be taken in which state. Mutants leave out one safeguard each. What a step does is in
//! [`super::steps`].
//!
//! Left out, because nothing here depends on it: how a broadcast is cut, suppressions, pauses, the pace. A reply of the relay
//! comes with the end of data: a process that is killed while it waits knows no more than one killed just before it wrote
//! the reply down.

use stateright::{Model, Property};

use super::state::*;
use super::steps::{beat, ordinals, take};

/// One safeguard that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Writes name the job and not the epoch.
    NoEpoch,
    /// A commit names the job and the epoch, and not that it is running.
    CommitInAnyState,
    /// A finish names the job and the epoch, and not that it is running.
    FinishInAnyState,
    /// A rescue leaves the epoch as it was.
    RescueKeepsEpoch,
    /// A rescue leaves the epoch as it was, and a commit does not ask whether the job is running.
    RescueKeepsEpochAndCommitInAnyState,
    /// A claim leaves the epoch as it was.
    ClaimKeepsEpoch,
    /// A rescue forgets what was on the wire.
    RescueForgets,
    /// The end of data goes out without a durable intent.
    IntentAfterEffect,
    /// The outcome of the message before is committed only after the next message.
    OutcomeApart,
    /// A repeated commit is not told from a new one.
    NoNumber,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Resend,
    Hold,
}

/// What becomes of a request to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Heard,
    /// Done, and the answer was lost.
    Unheard,
    /// Not done yet, and the sender has given up waiting.
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Taken,
    Deferred,
    /// No reply, with the message taken or not.
    Cut {
        taken: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Claim(u8, Way),
    Doubts(u8, Way),
    Take(u8, usize),
    Commit(u8, Set, Way),
    Repeat(u8),
    Write(u8, usize, Reply),
    Freeze(u8, usize),
    Retract(u8, usize),
    Finish(u8, Way),
    GiveBack(u8),
    Promote,
    Tick,
    Lag(u8),
    Beat(u8),
    BeatUnheard(u8),
    Rescue(u8),
    Arrive,
    Crash(u8),
    Restart(u8),
}

#[derive(Clone, Debug)]
pub struct Queue {
    pub connections: usize,
    /// Ticks by which the second process's clock is ahead of the first's.
    pub skew: i8,
    /// Ticks before the end of its lease at which a process stops acting: `LEASE_MARGIN`.
    pub margin: i8,
    pub policy: Policy,
    pub faults: Faults,
    pub mutant: Option<Mutant>,
}

impl Queue {
    fn actions_of(&self, s: &State, p: u8, actions: &mut Vec<Action>) {
        let process = &s.processes[p as usize];
        if !process.is_up {
            return actions.push(Action::Restart(p));
        }
        let ways = |actions: &mut Vec<Action>, act: &dyn Fn(Way) -> Action| {
            actions.push(act(Way::Heard));
            if s.faults.unheard > 0 {
                actions.push(act(Way::Unheard));
                if s.late.is_none() {
                    actions.push(act(Way::Late));
                }
            }
        };
        if s.faults.crashes > 0 {
            actions.push(Action::Crash(p));
        }
        if s.faults.lags > 0 && !process.lags {
            actions.push(Action::Lag(p));
        }
        if process.lags {
            actions.push(Action::Beat(p));
            if s.faults.unheard > 0 && !process.is_dead && process.age_stored > 0 {
                actions.push(Action::BeatUnheard(p));
            }
        }
        actions.push(Action::Rescue(p));
        if process.unanswered.is_some() {
            actions.push(Action::Repeat(p));
        }
        self.slot_actions(s, p, actions);
        let Some(run) = &process.run else {
            // `EXISTS (SELECT 1 FROM workers … state = 'live')`
            if s.job.state == JobState::Ready && !process.is_dead {
                actions.push(Action::Claim(p, Way::Heard));
                if s.faults.unheard > 0 {
                    actions.push(Action::Claim(p, Way::Unheard));
                }
            }
            if s.job.owner == Owner::Worker(p) {
                actions.push(Action::GiveBack(p));
            }
            return;
        };
        let in_hand = process
            .slots
            .iter()
            .any(|slot| slot.stage != Stage::Idle && slot.lease == run.lease);
        if run.doubts != 0 && process.unanswered.is_none() {
            ways(actions, &|way| Action::Doubts(p, way));
        } else if run.doubts == 0 && run.todo == 0 && !in_hand && process.unanswered.is_none() {
            ways(actions, &|way| Action::Finish(p, way));
        }
    }

    fn slot_actions(&self, s: &State, p: u8, actions: &mut Vec<Action>) {
        let process = &s.processes[p as usize];
        let mut waiting: Vec<u8> = Vec::new();
        for (i, slot) in process.slots.iter().enumerate() {
            if i > 0 && process.slots[i - 1] == *slot && slot.stage == Stage::Idle {
                continue;
            }
            match slot.stage {
                Stage::Idle => {
                    let has_work = process.run.as_ref().is_some_and(|r| r.doubts == 0 && r.todo != 0);
                    if has_work && self.holds(process) {
                        actions.push(Action::Take(p, i));
                    }
                }
                Stage::Begun { .. } if self.is(Mutant::IntentAfterEffect) && !slot.asked => {
                    actions.push(Action::Write(p, i, Reply::Taken));
                }
                Stage::Intended { .. } => {
                    if process.is_halted(slot.lease) || !self.holds(process) {
                        actions.push(Action::Retract(p, i));
                        continue;
                    }
                    self.replies(s, p, i, actions);
                    if s.faults.freezes > 0 {
                        actions.push(Action::Freeze(p, i));
                    }
                }
                Stage::Frozen { .. } => self.replies(s, p, i, actions),
                _ if !slot.asked => waiting.push(i as u8),
                _ => {}
            }
        }
        if process.unanswered.is_some() {
            return;
        }
        for group in 1u8..(1 << process.slots.len()) {
            if ordinals(group).all(|i| waiting.contains(&i)) {
                actions.push(Action::Commit(p, group, Way::Heard));
                if s.faults.unheard > 0 {
                    actions.push(Action::Commit(p, group, Way::Unheard));
                    if s.late.is_none() {
                        actions.push(Action::Commit(p, group, Way::Late));
                    }
                }
            }
        }
    }

    fn replies(&self, s: &State, p: u8, i: usize, actions: &mut Vec<Action>) {
        actions.push(Action::Write(p, i, Reply::Taken));
        if s.faults.deferrals > 0 {
            actions.push(Action::Write(p, i, Reply::Deferred));
        }
        if s.faults.cut > 0 {
            actions.push(Action::Write(p, i, Reply::Cut { taken: true }));
            actions.push(Action::Write(p, i, Reply::Cut { taken: false }));
        }
    }
}

impl Model for Queue {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.connections, self.faults)]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        for p in 0..PROCESSES {
            self.actions_of(s, p, actions);
        }
        if s.job.state == JobState::Waiting {
            actions.push(Action::Promote);
        }
        if s.late.is_some() {
            actions.push(Action::Arrive);
        }
        actions.push(Action::Tick);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        match action {
            Action::Claim(p, way) => {
                s.faults.unheard -= u8::from(way != Way::Heard);
                self.claim(&mut s, p, way == Way::Heard);
            }
            Action::Doubts(p, way) => {
                let request = self.doubts(&s, p)?;
                s.processes[p as usize].number += 1;
                self.send(&mut s, p, request, way);
            }
            Action::Take(p, i) => {
                let process = &mut s.processes[p as usize];
                let run = process.run.as_mut()?;
                let (ordinal, past) = take(run)?;
                process.slots[i] = Slot {
                    lease: run.lease,
                    stage: Stage::Begun {
                        ordinal,
                        past,
                        before: None,
                    },
                    asked: false,
                };
            }
            Action::Commit(p, group, way) => {
                if self.is(Mutant::OutcomeApart) {
                    self.tear_apart(&mut s, p, group);
                }
                let request = self.group(&mut s, p, group);
                self.send(&mut s, p, request, way);
            }
            Action::Repeat(p) => {
                let request = s.processes[p as usize].unanswered.clone()?;
                let is_durable = self.carry_out(&mut s, &request);
                self.answer(&mut s, p, &request, is_durable);
            }
            Action::Write(p, i, reply) => self.write(&mut s, p, i, reply),
            Action::Freeze(p, i) => {
                let slot = &mut s.processes[p as usize].slots[i];
                let Stage::Intended { ordinal, past } = slot.stage else {
                    return None;
                };
                slot.stage = Stage::Frozen { ordinal, past };
                s.faults.freezes -= 1;
                s.seen.froze = true;
            }
            Action::Retract(p, i) => {
                let slot = &mut s.processes[p as usize].slots[i];
                let Stage::Intended { ordinal, .. } = slot.stage else {
                    return None;
                };
                slot.stage = Stage::Retracting { ordinal };
            }
            Action::Finish(p, way) => {
                let run = s.processes[p as usize].run.clone()?;
                let request = Request::Finish {
                    lease: run.lease,
                    done: !run.deferred,
                };
                s.faults.unheard -= u8::from(way != Way::Heard);
                if way == Way::Late {
                    s.late = Some(request);
                } else {
                    // Its repetition finds the lease gone, and the work is dropped (`give_up_on_error`).
                    self.carry_out(&mut s, &request);
                    s.processes[p as usize].run = None;
                }
            }
            Action::GiveBack(_) => {
                s.job.epoch += 1;
                self.free(&mut s);
            }
            Action::Promote => s.job.state = JobState::Ready,
            Action::Tick => self.tick(&mut s),
            Action::Lag(p) => {
                s.processes[p as usize].lags = true;
                s.faults.lags -= 1;
            }
            Action::Beat(p) => beat(&mut s.processes[p as usize]),
            Action::BeatUnheard(p) => {
                s.processes[p as usize].age_stored = 0;
                s.faults.unheard -= 1;
            }
            Action::Rescue(p) => {
                if !self.rescue(&mut s, p) {
                    return None;
                }
            }
            Action::Arrive => {
                let request = s.late.take()?;
                self.carry_out(&mut s, &request);
            }
            Action::Crash(p) => self.crash(&mut s, p),
            Action::Restart(p) => s.processes[p as usize] = Process::fresh(self.connections),
        }
        let s = if self.mutant.is_none() { s.normal() } else { s };
        (s != *last).then_some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::properties()
    }
}
