//! What each step of the model does, and the function of the program it stands for. What is one transaction there is one
//! step here. Never decides whether a step may be taken.

use super::queue::{Mutant, Policy, Queue, Reply, Way};
use super::state::*;

/// Ticks that a lease lasts after its heartbeat.
const LEASE: i8 = 3;

impl Queue {
    pub(super) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// `pipeline/lease.rs`, `LeaseWatch::holds`: by its own clock, from before the heartbeat was asked for.
    pub(super) fn holds(&self, process: &Process) -> bool {
        (process.age_heard as i8) < LEASE - self.margin
    }

    /// `store/sql/workers.rs`, `declare_dead`: `lease_until < now`, the one by the owner's clock, the other by the rescuer's.
    pub(super) fn has_lapsed(&self, age: u8, clock: u8, rescuer: u8) -> bool {
        let ahead = (rescuer as i8 - clock as i8) * self.skew;
        age as i8 > LEASE - ahead
    }

    pub(super) fn age_max(&self) -> u8 {
        (LEASE + self.skew + 1) as u8
    }

    /// The guard of every write of an owner: `WHERE id AND epoch AND state = 'running'`.
    pub(super) fn is_let_through(&self, job: &Job, request: &Request) -> bool {
        let in_any_state = match request {
            Request::Commit { .. } => {
                self.is(Mutant::CommitInAnyState) || self.is(Mutant::RescueKeepsEpochAndCommitInAnyState)
            }
            Request::Finish { .. } => self.is(Mutant::FinishInAnyState),
        };
        let is_current = self.is(Mutant::NoEpoch) || job.epoch == request.lease().epoch;
        is_current && (in_any_state || job.state == JobState::Running)
    }

    /// The database carries a request out. `false` is `Fenced` or `LeaseLost`.
    pub(super) fn carry_out(&self, s: &mut State, request: &Request) -> bool {
        let is_owner = s.seen.granted == Some(request.lease().grant);
        if !self.is_let_through(&s.job, request) {
            return false;
        }
        match request {
            // `store/sql/delivery.rs`, `move_jobs` and `write_messages`, then `already_moved`.
            Request::Commit {
                number,
                settled,
                inflight,
                ..
            } => {
                if *number <= s.job.commit_no && !self.is(Mutant::NoNumber) {
                    return *number == s.job.commit_no;
                }
                for settled in settled {
                    s.rows[settled.ordinal as usize] = settled.after;
                    s.job.sent += u8::from(settled.after.status == Status::Sent);
                }
                s.job.inflight = *inflight;
                s.job.commit_no = *number;
            }
            // `store/sql/queue.rs`, `try_finish`.
            Request::Finish { done, .. } => {
                s.job.state = if *done { JobState::Done } else { JobState::Waiting };
                s.job.owner = Owner::Nobody;
                s.job.inflight = 0;
                s.seen.granted = None;
            }
        }
        s.seen.foreign_write |= !is_owner;
        true
    }

    /// A job goes back to the queue; the epoch rises, and what was on the wire stays.
    pub(super) fn free(&self, s: &mut State) {
        s.job.state = JobState::Ready;
        s.job.owner = Owner::Nobody;
        s.seen.granted = None;
    }

    /// `store/sql/queue.rs`, the claim; `pipeline/worker/jobs.rs`, `read`.
    pub(super) fn claim(&self, s: &mut State, p: u8, is_heard: bool) {
        s.job.state = JobState::Running;
        s.job.owner = Owner::Worker(p);
        s.job.epoch += u8::from(!self.is(Mutant::ClaimKeepsEpoch));
        s.job.commit_no = 0;
        s.seen.grants += 1;
        s.seen.granted = Some(s.seen.grants);
        if is_heard {
            let lease = Lease {
                epoch: s.job.epoch,
                grant: s.seen.grants,
            };
            s.processes[p as usize].run = Some(read(s, lease, s.job.inflight));
        }
    }

    /// `pipeline/worker/jobs.rs`, `settle_doubts`, with `fate::ambiguous`.
    pub(super) fn doubts(&self, s: &State, p: u8) -> Option<Request> {
        let run = s.processes[p as usize].run.as_ref().filter(|run| run.doubts != 0)?;
        let settled = ordinals(run.doubts).map(|ordinal| Settled {
            ordinal,
            after: self.in_doubt(),
        });
        Some(Request::Commit {
            lease: run.lease,
            number: s.processes[p as usize].number + 1,
            settled: settled.collect(),
            inflight: 0,
        })
    }

    pub(super) fn in_doubt(&self) -> Row {
        Row {
            status: match self.policy {
                Policy::Resend => Status::Deferred,
                Policy::Hold => Status::Uncertain,
            },
            flagged: true,
        }
    }

    /// `pipeline/settle.rs`, `take_note` and `progress`: the group of these connections as one request. Where a job stands
    /// in it with two leases, only the newest is written (`newest_epochs`).
    pub(super) fn group(&self, s: &mut State, p: u8, group: Set) -> Request {
        let process = &mut s.processes[p as usize];
        let members: Vec<Slot> = ordinals(group).map(|i| process.slots[i as usize]).collect();
        let newest = members.iter().map(|m| m.lease).max().expect("a group has members");
        let mut settled = Vec::new();
        for slot in &members {
            let wire = process.wires.entry(slot.lease).or_default();
            let mut outcome = None;
            match slot.stage {
                Stage::Begun { ordinal, before, .. } => {
                    outcome = before;
                    *wire |= bit(ordinal);
                }
                Stage::Answered { outcome: of } => outcome = Some(of),
                Stage::Retracting { ordinal } => *wire &= !bit(ordinal),
                _ => unreachable!("only these wait for a commit"),
            }
            if let Some(outcome) = outcome {
                *wire &= !bit(outcome.ordinal);
                settled.extend((slot.lease == newest).then_some(outcome));
            }
        }
        settled.sort_unstable();
        process.number += 1;
        for i in ordinals(group) {
            process.slots[i as usize].asked = true;
        }
        Request::Commit {
            lease: newest,
            number: process.number,
            settled,
            inflight: process.wires[&newest],
        }
    }

    /// The answer to a commit reaches the connections that wait for it: `deliver/slot.rs`, `commit`, `settle`, `retract`.
    pub(super) fn answer(&self, s: &mut State, p: u8, request: &Request, is_durable: bool) {
        let newest = request.lease();
        let asks_doubts = s.processes[p as usize].run.as_ref().is_some_and(|run| run.doubts != 0);
        let process = &mut s.processes[p as usize];
        for i in 0..process.slots.len() {
            let slot = process.slots[i];
            if !slot.asked {
                continue;
            }
            let durable = is_durable && slot.lease == newest;
            if !durable {
                process.halt(slot.lease);
            }
            let is_halted = process.is_halted(slot.lease);
            let mut stage = Stage::Idle;
            let mut settled = None;
            match slot.stage {
                Stage::Begun { ordinal, past, before } => {
                    settled = before;
                    stage = if durable {
                        Stage::Intended { ordinal, past }
                    } else {
                        Stage::Retracting { ordinal }
                    };
                }
                Stage::Answered { outcome } => settled = Some(outcome),
                Stage::Retracting { ordinal } if !is_halted => {
                    process.run.as_mut().expect("it is not halted").todo |= bit(ordinal);
                }
                _ => {}
            }
            if let Some(settled) = settled
                && !is_halted
            {
                process.run.as_mut().expect("it is not halted").deferred |= settled.after.status == Status::Deferred;
            }
            let lease = if stage == Stage::Idle {
                Slot::IDLE.lease
            } else {
                slot.lease
            };
            process.slots[i] = Slot {
                lease,
                stage,
                asked: false,
            };
        }
        // `Committer::commit` forgets leases that are idle or lost.
        process
            .wires
            .retain(|lease, wire| *wire != 0 && (is_durable || *lease != newest));
        process.unanswered = None;
        if asks_doubts {
            if !is_durable {
                process.halt(newest);
            } else {
                let lease = process.run.as_ref().expect("it has doubts").lease;
                let again = read(s, lease, 0);
                s.processes[p as usize].run = Some(again);
            }
        }
    }

    /// Sends a commit on its way.
    pub(super) fn send(&self, s: &mut State, p: u8, request: Request, way: Way) {
        match way {
            Way::Heard => {
                let is_durable = self.carry_out(s, &request);
                return self.answer(s, p, &request, is_durable);
            }
            Way::Unheard => drop(self.carry_out(s, &request)),
            Way::Late => s.late = Some(request.clone()),
        }
        s.faults.unheard -= 1;
        s.processes[p as usize].unanswered = Some(request);
    }

    /// `deliver/slot.rs`, `carry`: the end of data, and the next message in the same write.
    pub(super) fn write(&self, s: &mut State, p: u8, i: usize, reply: Reply) {
        let process = &mut s.processes[p as usize];
        let slot = process.slots[i];
        let (ordinal, past, looked) = match slot.stage {
            Stage::Intended { ordinal, past } | Stage::Begun { ordinal, past, .. } => (ordinal, past, true),
            Stage::Frozen { ordinal, past } => (ordinal, past, false),
            _ => unreachable!("only these have content to write"),
        };
        s.seen.foreign_mail |= looked && s.seen.granted != Some(slot.lease.grant);
        let after = match reply {
            Reply::Taken => Row {
                status: Status::Sent,
                flagged: past.flagged,
            },
            Reply::Deferred => Row {
                status: Status::Deferred,
                flagged: past.flagged,
            },
            Reply::Cut { .. } => self.in_doubt(),
        };
        match reply {
            Reply::Taken => {}
            Reply::Deferred => s.faults.deferrals -= 1,
            Reply::Cut { .. } => {
                s.faults.cut -= 1;
                s.seen.cuts += 1;
            }
        }
        if matches!(reply, Reply::Taken | Reply::Cut { taken: true }) {
            let taken = &mut s.seen.taken[ordinal as usize];
            *taken = (*taken + 1).min(2);
        }
        let outcome = Settled { ordinal, after };
        let is_halted = process.is_halted(slot.lease);
        let next = process.run.as_mut().filter(|_| !is_halted).and_then(|run| {
            let goes_on = reply != Reply::Cut { taken: true } && reply != Reply::Cut { taken: false };
            goes_on.then(|| take(run)).flatten()
        });
        process.slots[i].stage = match next {
            Some((ordinal, past)) => Stage::Begun {
                ordinal,
                past,
                before: Some(outcome),
            },
            None => Stage::Answered { outcome },
        };
    }

    /// `store/sql/workers.rs`, `try_rescue`. `false` when nobody's lease has lapsed by this process's clock.
    pub(super) fn rescue(&self, s: &mut State, rescuer: u8) -> bool {
        let mut is_freed = false;
        let mut is_changed = false;
        for p in 0..PROCESSES {
            let process = &mut s.processes[p as usize];
            if process.is_up && !process.is_dead && self.has_lapsed(process.age_stored, p, rescuer) {
                process.is_dead = true;
                is_changed = true;
                is_freed |= s.job.owner == Owner::Worker(p);
            }
        }
        if let Owner::Gone { clock, age } = s.job.owner {
            is_freed |= self.has_lapsed(age, clock, rescuer);
        }
        if is_freed {
            s.seen.doubtful_rescues += u8::from(s.job.inflight != 0);
            let keeps = self.is(Mutant::RescueKeepsEpoch) || self.is(Mutant::RescueKeepsEpochAndCommitInAnyState);
            s.job.epoch += u8::from(!keeps);
            if self.is(Mutant::RescueForgets) {
                s.job.inflight = 0;
            }
            self.free(s);
        }
        is_changed || is_freed
    }

    /// Time passes. Who is well beats in time; the rows of the others grow old.
    pub(super) fn tick(&self, s: &mut State) {
        let max = self.age_max();
        for process in s.processes.iter_mut().filter(|p| p.is_up && p.lags) {
            process.age_stored = (process.age_stored + 1).min(max);
            process.age_heard = (process.age_heard + 1).min(max);
        }
        if let Owner::Gone { age, .. } = &mut s.job.owner {
            *age = (*age + 1).min(max);
        }
    }

    pub(super) fn crash(&self, s: &mut State, p: u8) {
        s.faults.crashes -= 1;
        let process = &mut s.processes[p as usize];
        if s.job.owner == Owner::Worker(p) {
            s.job.owner = Owner::Gone {
                clock: p,
                age: process.age_stored,
            };
        }
        *process = Process {
            is_up: false,
            ..Process::fresh(self.connections)
        };
    }

    /// The intent of the next message is committed first and the outcome of the one before remains at hand.
    pub(super) fn tear_apart(&self, s: &mut State, p: u8, group: Set) {
        for i in ordinals(group) {
            if let Stage::Begun { before, .. } = &mut s.processes[p as usize].slots[i as usize].stage {
                *before = None;
            }
        }
    }
}

/// `pipeline/worker/heartbeat.rs`, `try_beat`, and `start_anew` for one that was declared dead.
pub(super) fn beat(process: &mut Process) {
    if process.is_dead {
        process.run = None;
        process.is_dead = false;
    }
    process.lags = false;
    process.age_stored = 0;
    process.age_heard = 0;
}

/// `store/sql/delivery.rs`, `chunk_work`; `deliver/run.rs`, `ChunkRun::new`.
pub(super) fn read(s: &State, lease: Lease, doubts: Set) -> Run {
    let open = (0..MESSAGES).filter(|o| !s.rows[*o as usize].status.is_final());
    Run {
        lease,
        doubts,
        todo: open.map(bit).sum(),
        past: s.rows,
        deferred: false,
    }
}

pub(super) fn take(run: &mut Run) -> Option<(u8, Row)> {
    let ordinal = ordinals(run.todo).next()?;
    run.todo &= !bit(ordinal);
    Some((ordinal, run.past[ordinal as usize]))
}

pub(super) fn bit(ordinal: u8) -> Set {
    1 << ordinal
}

pub fn ordinals(set: Set) -> impl Iterator<Item = u8> {
    (0..8).filter(move |o| set & bit(*o) != 0)
}
