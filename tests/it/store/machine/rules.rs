//! What every step of the store does to jobs, messages, broadcasts and workers, and what it answers. Pure, and written from what
//! the steps promise rather than from their statements.

use std::collections::BTreeMap;

use hikyaku::domain::job::{DEATHS_MAX, JobKind, Stop};
use hikyaku::domain::message::MessageStatus;

use super::super::world::LEASE_MS;
use super::model::{CONFLICT, Call, Cast, End, Given, Hand, Job, LOST, Life, Model, OK, Part, Row, Stage, State, Want};

impl Model {
    pub(super) fn step(&mut self, call: &Call) -> String {
        match call {
            Call::Tick => String::new(),
            Call::Accept {
                size,
                priority,
                send_at,
                expires_at,
            } => {
                self.accept(*size, *priority, *send_at, *expires_at);
                "accepted".into()
            }
            Call::Register => {
                self.hands.push(Hand {
                    life: Life::Live,
                    lease_until: self.now + LEASE_MS,
                });
                self.hands.len().to_string()
            }
            Call::Retire { worker } => {
                let (now, hand) = (self.now, &mut self.hands[*worker]);
                if matches!(hand.life, Life::Live | Life::Draining) {
                    *hand = Hand {
                        life: Life::Stopped,
                        lease_until: now,
                    };
                }
                String::new()
            }
            Call::Beat { worker, draining } => self.beat(*worker, *draining),
            Call::Claim {
                worker,
                kind,
                n,
                seq_max,
            } => self.claim(*worker, *kind, *n, seq_max.unwrap_or(i64::MAX)),
            Call::Cut {
                lease,
                size,
                suppressed,
                ..
            } => self.cut(*lease, *size, *suppressed),
            Call::EndFanOut { lease } => self.end_fan_out(*lease),
            Call::Commit(parts) => parts.iter().map(|p| self.commit(p)).collect::<Vec<_>>().join(" "),
            Call::Repeat { lease } => {
                let job = &self.jobs[self.given[*lease].job];
                match self.holds(*lease) && job.number == self.given[*lease].number {
                    true => durable(job.stop),
                    false => "fenced".into(),
                }
            }
            Call::Finish { lease, end } => self.finish(*lease, *end),
            Call::GiveBack { worker, held } => self.give_back(*worker, held),
            Call::Quarantine { lease } => {
                if !self.holds(*lease) {
                    return LOST.into();
                }
                let job = &mut self.jobs[self.given[*lease].job];
                job.state = State::Quarantined;
                job.worker = None;
                job.epoch += 1;
                OK.into()
            }
            Call::Release { job } => self.release(*job),
            Call::Control { cast, want } => self.control(*cast, *want),
            Call::Retry { cast } => self.retry(*cast),
            Call::Promote => self.promote(),
            Call::Hasten => {
                let mut n = 0;
                for job in self
                    .jobs
                    .iter_mut()
                    .filter(|j| j.state == State::Waiting && j.waits && j.run_at > self.now)
                {
                    job.run_at = self.now;
                    n += 1;
                }
                n.to_string()
            }
            Call::Rescue { by } => {
                for (n, hand) in self.hands.iter_mut().enumerate() {
                    let is_alive = matches!(hand.life, Life::Live | Life::Draining);
                    if is_alive && hand.lease_until < self.now && Some(n) != *by {
                        hand.life = Life::Dead;
                    }
                }
                self.take_from_the_dead()
            }
            Call::Void { worker } => {
                for (n, hand) in self.hands.iter_mut().enumerate() {
                    if n != *worker && matches!(hand.life, Life::Live | Life::Draining) {
                        hand.life = Life::Dead;
                    }
                }
                self.take_from_the_dead()
            }
            Call::Stops { worker } => {
                let wanted = self
                    .jobs
                    .iter()
                    .enumerate()
                    .filter(|(_, j)| j.worker == Some(*worker) && j.state == State::Running && j.stop.is_some());
                format!("{:?}", wanted.map(|(n, j)| (n, j.epoch, j.stop)).collect::<Vec<_>>())
            }
        }
    }

    fn accept(&mut self, size: usize, priority: i64, send_at: Option<i64>, expires_at: Option<i64>) {
        let stage = if send_at.is_some() {
            Stage::Scheduled
        } else {
            Stage::Accepted
        };
        let cast = self.casts.len();
        self.casts.push(Cast {
            size,
            stage,
            paused: false,
            send_at,
            expires_at,
            chunked: 0,
            jobs_left: 1,
        });
        self.jobs.push(Job {
            broadcast: cast,
            kind: JobKind::FanOut,
            seq: 0,
            priority,
            state: State::Ready,
            run_at: self.now,
            worker: None,
            epoch: 0,
            deaths: 0,
            number: 0,
            claimed_at: 0,
            touched_at: 0,
            settled_before: 0,
            waits: false,
            stop: None,
            cut: 0,
            size: 0,
            inflight: Vec::new(),
            rows: BTreeMap::new(),
            flagged: 0,
        });
    }

    fn beat(&mut self, worker: usize, draining: bool) -> String {
        let (now, hand) = (self.now, &mut self.hands[worker]);
        if !matches!(hand.life, Life::Live | Life::Draining) {
            return "dead".into();
        }
        let life = if draining { Life::Draining } else { Life::Live };
        *hand = Hand {
            life,
            lease_until: now + LEASE_MS,
        };
        let live = self
            .hands
            .iter()
            .filter(|h| h.life == Life::Live && h.lease_until >= now)
            .count();
        format!("alive among {live}")
    }

    fn claim(&mut self, worker: usize, kind: JobKind, n: usize, seq_max: i64) -> String {
        let mut ready: Vec<usize> = (0..self.jobs.len())
            .filter(|&j| self.jobs[j].state == State::Ready && self.jobs[j].kind == kind && self.jobs[j].seq <= seq_max)
            .collect();
        ready.sort_by_key(|&j| (self.jobs[j].priority, self.jobs[j].seq, j));
        ready.truncate(if self.hands[worker].life == Life::Live { n } else { 0 });
        let mut told = Vec::new();
        for &j in &ready {
            let job = &mut self.jobs[j];
            job.state = State::Running;
            job.worker = Some(worker);
            job.epoch += 1;
            job.number = 0;
            (job.claimed_at, job.touched_at, job.settled_before) = (self.now, self.now, job.settled());
            told.push(format!("{j}/{} {} {:?} {:?}", job.epoch, job.deaths, job.stop, job.inflight));
            self.given.push(Given {
                job: j,
                epoch: job.epoch,
                number: 0,
            });
        }
        told.join(", ")
    }

    fn cut(&mut self, lease: usize, size: usize, suppressed: Option<u16>) -> String {
        if !self.holds(lease) {
            return LOST.into();
        }
        let of = self.given[lease].job;
        let seq = self.next_seq(self.jobs[of].broadcast);
        let (now, job) = (self.now, &mut self.jobs[of]);
        job.cut += size;
        job.touched_at = now;
        let (cast, stop) = (&mut self.casts[job.broadcast], job.stop);
        let run_at = cast.send_at.unwrap_or(now).max(now);
        let state = match cast.stage {
            Stage::Canceled => State::Canceled,
            _ if cast.paused => State::Held,
            _ if run_at > now => State::Waiting,
            _ => State::Ready,
        };
        cast.chunked += size;
        cast.jobs_left += 1;
        start(cast, now, Stage::FanningOut);
        let row = Row {
            status: MessageStatus::Suppressed,
            tries: 0,
            flagged: false,
        };
        let chunk = Job {
            kind: JobKind::Deliver,
            seq,
            state,
            run_at,
            size,
            worker: None,
            epoch: 0,
            deaths: 0,
            number: 0,
            stop: None,
            cut: 0,
            rows: suppressed.map(|o| (o, row)).into_iter().collect(),
            ..job.clone()
        };
        let broadcast = chunk.broadcast;
        self.jobs.push(chunk);
        if state == State::Canceled {
            self.count_down(broadcast, 1);
        }
        format!("{stop:?}")
    }

    fn end_fan_out(&mut self, lease: usize) -> String {
        if !self.holds(lease) {
            return LOST.into();
        }
        let (now, job) = (self.now, &mut self.jobs[self.given[lease].job]);
        job.state = State::Done;
        job.worker = None;
        job.stop = None;
        let broadcast = job.broadcast;
        let cast = &mut self.casts[broadcast];
        start(cast, now, Stage::FanningOut);
        if matches!(cast.stage, Stage::Accepted | Stage::FanningOut) {
            cast.stage = Stage::Sending;
        }
        self.count_down(broadcast, 1);
        OK.into()
    }

    fn commit(&mut self, part: &Part) -> String {
        if !self.holds(part.lease) {
            return "fenced".into();
        }
        self.given[part.lease].number = part.number;
        let job = &mut self.jobs[self.given[part.lease].job];
        job.number = part.number;
        job.inflight.clone_from(&part.intents);
        for line in &part.lines {
            assert!(!job.status(line.ordinal).is_final(), "a message comes to an end twice");
            job.flagged += i64::from(line.newly);
            let row = Row {
                status: line.after,
                tries: line.tries,
                flagged: line.flagged,
            };
            job.rows.insert(line.ordinal, row);
        }
        durable(job.stop)
    }

    fn finish(&mut self, lease: usize, end: End) -> String {
        if !self.holds(lease) {
            return LOST.into();
        }
        let of = self.given[lease].job;
        let (now, job) = (self.now, &mut self.jobs[of]);
        let cast = &self.casts[job.broadcast];
        if end == End::Done && !job.open().is_empty() {
            return "refused".into();
        }
        (job.state, job.run_at) = match end {
            End::Done => (State::Done, job.run_at),
            _ if cast.stage == Stage::Canceled => (State::Canceled, job.run_at),
            End::Waiting(at) | End::Held(at) if cast.paused => (State::Held, at),
            End::Waiting(at) | End::Held(at) if at > now => (State::Waiting, at),
            _ if cast.paused => (State::Held, job.run_at),
            End::Waiting(_) | End::Held(_) | End::Released | End::Stopped => (State::Ready, job.run_at),
        };
        job.waits = matches!(end, End::Held(_));
        job.worker = None;
        job.stop = None;
        job.inflight.clear();
        job.deaths = 0;
        let (over, broadcast) = (matches!(job.state, State::Done | State::Canceled), job.broadcast);
        if over {
            self.count_down(broadcast, 1);
        }
        OK.into()
    }

    fn give_back(&mut self, worker: usize, held: &[usize]) -> String {
        let mut back = Vec::new();
        for (n, job) in self.jobs.iter_mut().enumerate() {
            if job.worker == Some(worker) && job.state == State::Running && !held.contains(&n) {
                job.state = State::Ready;
                job.worker = None;
                job.epoch += 1;
                back.push(n);
            }
        }
        format!("{back:?}")
    }

    fn release(&mut self, job: usize) -> String {
        let is_paused = self.casts[self.jobs[job].broadcast].paused;
        let job = &mut self.jobs[job];
        if job.state != State::Quarantined {
            return "false".into();
        }
        job.state = if is_paused { State::Held } else { State::Ready };
        job.stop = job.stop.filter(|s| *s == Stop::Cancel);
        job.deaths = 0;
        "true".into()
    }

    fn control(&mut self, cast: usize, want: Want) -> String {
        let (now, standing) = (self.now, &mut self.casts[cast]);
        if want == Want::Cancel && standing.stage == Stage::Canceled {
            return OK.into();
        }
        if standing.stage.is_over() {
            return CONFLICT.into();
        }
        standing.paused = want == Want::Pause;
        match want {
            Want::Pause => {}
            Want::Resume => {
                let after = if standing.chunked > 0 {
                    Stage::Sending
                } else {
                    Stage::Accepted
                };
                if standing.stage == Stage::Scheduled && standing.send_at <= Some(now) {
                    standing.stage = after;
                }
            }
            Want::Cancel => standing.stage = Stage::Canceled,
        }
        let mut over = 0;
        for job in self.jobs.iter_mut().filter(|j| j.broadcast == cast) {
            match (want, job.state) {
                (_, State::Done | State::Canceled) => {}
                (Want::Pause, State::Running) => job.stop = Some(Stop::Hold),
                (Want::Pause, State::Ready | State::Waiting) => (job.state, job.stop) = (State::Held, None),
                (Want::Resume, State::Held) => {
                    job.stop = None;
                    job.state = if job.run_at > now { State::Waiting } else { State::Ready };
                }
                (Want::Resume, State::Ready | State::Running) => job.stop = None,
                (Want::Cancel, State::Running) => job.stop = Some(Stop::Cancel),
                (Want::Cancel, _) if job.inflight.is_empty() => {
                    job.state = State::Canceled;
                    over += 1;
                }
                // What was on the wire is in doubt: an owner says so first.
                (Want::Cancel, _) => (job.state, job.stop) = (State::Ready, Some(Stop::Cancel)),
                (Want::Pause | Want::Resume, _) => {}
            }
        }
        if want == Want::Cancel {
            self.count_down(cast, over);
        }
        OK.into()
    }

    fn retry(&mut self, cast: usize) -> String {
        let (now, standing) = (self.now, &mut self.casts[cast]);
        if standing.stage == Stage::Canceled || standing.expires_at.is_some_and(|at| at <= now) {
            return CONFLICT.into();
        }
        let (mut messages, mut reopened) = (0, 0);
        for job in self.jobs.iter_mut().filter(|j| j.broadcast == cast) {
            let at_rest = matches!(job.state, State::Done | State::Waiting | State::Ready | State::Held);
            let failed = job.n(MessageStatus::Failed);
            if !at_rest || failed == 0 {
                continue;
            }
            for row in job.rows.values_mut().filter(|r| r.status == MessageStatus::Failed) {
                row.status = MessageStatus::Deferred;
            }
            messages += failed;
            reopened += i64::from(job.state == State::Done);
            job.state = if standing.paused { State::Held } else { State::Ready };
            job.run_at = now;
        }
        standing.jobs_left += reopened;
        if messages > 0 && standing.stage == Stage::Completed {
            standing.stage = Stage::Sending;
        }
        messages.to_string()
    }

    fn promote(&mut self) -> String {
        let mut n = 0;
        for job in self
            .jobs
            .iter_mut()
            .filter(|j| j.state == State::Waiting && j.run_at <= self.now)
        {
            job.state = State::Ready;
            n += 1;
        }
        for cast in self.casts.iter_mut().filter(|_| n > 0) {
            let after = if cast.chunked > 0 {
                Stage::Sending
            } else {
                Stage::Accepted
            };
            if cast.stage == Stage::Scheduled && cast.send_at <= Some(self.now) {
                cast.stage = after;
            }
        }
        n.to_string()
    }

    fn take_from_the_dead(&mut self) -> String {
        let mut taken = Vec::new();
        for (n, job) in self.jobs.iter_mut().enumerate() {
            let is_dead = |w: usize| matches!(self.hands[w].life, Life::Dead | Life::Stopped);
            if job.state == State::Running && job.worker.is_none_or(is_dead) {
                job.deaths = if job.has_got_on() { 1 } else { job.deaths + 1 };
                job.state = if job.deaths >= DEATHS_MAX {
                    State::Quarantined
                } else {
                    State::Ready
                };
                job.epoch += 1;
                job.worker = None;
                taken.push((n, job.state == State::Quarantined));
            }
        }
        format!("{taken:?}")
    }

    fn count_down(&mut self, cast: usize, jobs: i64) {
        let cast = &mut self.casts[cast];
        cast.jobs_left -= jobs;
        if cast.jobs_left == 0 && cast.stage != Stage::Canceled {
            cast.stage = Stage::Completed;
        }
    }
}

fn durable(stop: Option<Stop>) -> String {
    format!("durable {stop:?}")
}

/// The first recipients start a broadcast, unless it waits for its time.
fn start(cast: &mut Cast, now: i64, after: Stage) {
    let is_due = cast.stage == Stage::Scheduled && cast.send_at <= Some(now);
    if cast.stage == Stage::Accepted || is_due {
        cast.stage = after;
    }
}
