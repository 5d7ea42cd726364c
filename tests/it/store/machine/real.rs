//! The store under the same steps as the model: takes each, compares the answer, and then looks at everything that is stored.
//! Mutants stand between the two and do one thing wrong.

use std::collections::BTreeMap;

use hikyaku::domain::brake::{Brake, BrakeKind};
use hikyaku::domain::broadcast::Priority;
use hikyaku::domain::counts::Counts;
use hikyaku::domain::job::{Claimed, JobEnd, JobKind, Lease};
use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::recipient::Recipient;
use hikyaku::domain::worker::WorkerStats;
use hikyaku::store::StoreError;
use hikyaku::store::delivery::{Ack, Progress};
use hikyaku::store::fan_out::Source;
use hikyaku::store::queue::Wish;
use hikyaku::store::workers::{Heartbeat, Rescued};

use super::super::world::{LEASE_MS, NOBODY, World, at, broadcast, broadcast_id, people, settled, step};
use super::acts::SIZE_MAX;
use super::model::{CONFLICT, Call, End, LOST, Model, OK, Part, Stage, Want};
use crate::support::database::Raw;

/// One thing that a store could do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Who lost its lease writes all the same.
    NoFence,
    /// A repeated commit counts another time.
    CountsRepeats,
    /// A rescue forgets what was on the wire.
    ForgetsIntents,
    /// A rescue leaves the epoch as it was, until the next claim.
    SameEpoch,
    /// A failure is not counted.
    LosesACount,
    /// A pause leaves what waits for its time.
    PausesHalf,
    /// A cancel ends jobs whose messages are in doubt.
    CancelsDoubts,
    /// A retry does not count the jobs that it reopens.
    ForgetsReopened,
    /// A claim goes by number alone, without heed to priority.
    ClaimsByNumber,
    /// A worker that was declared dead claims on.
    DeadClaim,
}

impl Mutant {
    pub const ALL: [Mutant; 10] = [
        Mutant::NoFence,
        Mutant::CountsRepeats,
        Mutant::ForgetsIntents,
        Mutant::SameEpoch,
        Mutant::LosesACount,
        Mutant::PausesHalf,
        Mutant::CancelsDoubts,
        Mutant::ForgetsReopened,
        Mutant::ClaimsByNumber,
        Mutant::DeadClaim,
    ];
}

pub struct Real<'a> {
    pub(super) w: &'a World,
    pub(super) raw: &'a mut Raw,
    people: Vec<Vec<Recipient>>,
    now: i64,
    mutant: Option<Mutant>,
    /// Every lease in the order it was given, with its last commit that was durable.
    leases: Vec<(Claimed, Option<Progress>)>,
    /// Final statuses that were seen: a message comes to one end.
    pub(super) ended: BTreeMap<(i64, i64), String>,
    pub(super) epochs: BTreeMap<i64, i64>,
    pub(super) recounted: Vec<Counts>,
    /// Whether the step before was a retry, which reopens what had ended.
    pub(super) retried: bool,
}

/// Tables that the steps write to, children first.
const TABLES: [&str; 11] = [
    "attempts",
    "messages",
    "failures",
    "bounces",
    "suppressions",
    "chunks",
    "jobs",
    "letters",
    "intake",
    "broadcasts",
    "workers",
];

impl<'a> Real<'a> {
    /// The store without a past, and the model's first worker.
    pub async fn anew(w: &'a World, raw: &'a mut Raw, mutant: Option<Mutant>) -> Self {
        if w.is_sqlite() {
            for table in TABLES {
                raw.run(&format!("DELETE FROM {table}")).await;
            }
            raw.run("DELETE FROM sqlite_sequence").await;
        } else {
            raw.run(&format!("TRUNCATE {} RESTART IDENTITY", TABLES.join(", ")))
                .await;
        }
        assert_eq!(w.worker(at(0)).await, 1);
        Real {
            w,
            raw,
            people: (0..=SIZE_MAX).map(people).collect(),
            now: 0,
            mutant,
            leases: Vec::new(),
            ended: BTreeMap::new(),
            epochs: BTreeMap::new(),
            recounted: Vec::new(),
            retried: false,
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Takes the step that led to this state of the model.
    pub async fn follow(&mut self, model: &Model) {
        self.now = model.now;
        let (call, expected) = model.last.as_ref().expect("a step was taken");
        let answer = self.take(model, call).await;
        assert_eq!(&answer, expected, "the answer to {call:?}");
        self.retried = matches!(call, Call::Retry { .. });
        self.look(model).await;
    }

    async fn take(&mut self, model: &Model, call: &Call) -> String {
        let now = at(self.now);
        match call {
            Call::Tick => String::new(),
            Call::Accept {
                size,
                priority,
                send_at,
                expires_at,
            } => {
                let mut new = broadcast(model.casts.len() as u128, *size);
                new.priority = Priority::from_rank(*priority);
                new.send_at = send_at.map(at);
                new.expires_at = expires_at.map(at);
                self.w.accept_new(&new, &self.people[*size], now).await;
                "accepted".into()
            }
            Call::Register => self.w.worker(now).await.to_string(),
            Call::Retire { worker } => {
                self.w.retire_worker(*worker as i64 + 1, now).await.unwrap();
                String::new()
            }
            Call::Beat { worker, draining } => {
                let (until, stats) = (now.plus_ms(LEASE_MS), WorkerStats::default());
                match self
                    .w
                    .heartbeat(*worker as i64 + 1, until, *draining, &stats, now)
                    .await
                    .unwrap()
                {
                    Heartbeat::Dead => "dead".into(),
                    Heartbeat::Alive { live_workers } => format!("alive among {live_workers}"),
                }
            }
            Call::Claim {
                worker,
                kind,
                n,
                seq_max,
            } => self.claim(*worker as i64 + 1, *kind, *n, *seq_max).await,
            Call::Cut {
                lease,
                from,
                size,
                suppressed,
            } => self.cut(model, *lease, *from, *size, *suppressed).await,
            Call::EndFanOut { lease } => said(self.w.finish_fan_out(self.lease(*lease), 0, 0, now).await),
            Call::Commit(parts) => self.commit(model, parts).await,
            Call::Repeat { lease } => {
                let mut again = self.leases[*lease].1.clone().expect("it committed before");
                again.number += i64::from(self.is(Mutant::CountsRepeats));
                acked(&self.w.commit_progress(&[again], now).await.unwrap())
            }
            Call::Finish { lease, end } => {
                let end = match end {
                    End::Done => JobEnd::Done,
                    End::Waiting(ms) => JobEnd::Waiting(at(*ms)),
                    End::Held(ms) => JobEnd::Held {
                        until: at(*ms),
                        by: Brake::at_large(BrakeKind::NoRelay, "no relay takes mail", None),
                    },
                    End::Released => JobEnd::Released,
                    End::Stopped => JobEnd::Stopped,
                };
                said(self.w.finish(self.lease(*lease), end, now).await)
            }
            Call::GiveBack { worker, held } => {
                let held: Vec<i64> = held.iter().map(|j| *j as i64 + 1).collect();
                let mut back = self.w.give_back_unheld(*worker as i64 + 1, &held).await.unwrap();
                back.sort_unstable();
                format!("{:?}", back.iter().map(|id| id - 1).collect::<Vec<_>>())
            }
            Call::Quarantine { lease } => said(self.w.quarantine(self.lease(*lease), "a reason", now).await),
            Call::Release { job } => self
                .w
                .release_quarantined(*job as i64 + 1, now)
                .await
                .unwrap()
                .to_string(),
            Call::Control { cast, want } => self.control(*cast, *want).await,
            Call::Retry { cast } => self.retry(*cast).await,
            Call::Promote => self.w.promote(now).await.unwrap().to_string(),
            Call::Hasten => self.w.hasten(now).await.unwrap().to_string(),
            Call::Rescue { by } => {
                let by = by.map_or(NOBODY, |w| w as i64 + 1);
                let rescued = self.w.rescue(by, now).await.unwrap();
                self.taken(rescued).await
            }
            Call::Void { worker } => {
                let rescued = self.w.void_other_workers(*worker as i64 + 1).await.unwrap();
                self.taken(rescued).await
            }
            Call::Stops { worker } => {
                let mut wanted = self.w.wanted_stops(*worker as i64 + 1).await.unwrap();
                wanted.sort_by_key(|(lease, _)| lease.job_id);
                let told = wanted.iter().map(|(l, stop)| (l.job_id - 1, l.epoch, Some(*stop)));
                format!("{:?}", told.collect::<Vec<_>>())
            }
        }
    }

    fn lease(&self, lease: usize) -> Lease {
        self.leases[lease].0.lease
    }

    async fn claim(&mut self, worker: i64, kind: JobKind, n: usize, seq_max: Option<i64>) -> String {
        let now = at(self.now);
        if self.is(Mutant::DeadClaim) {
            self.raw
                .run(&format!("UPDATE workers SET state = 'live' WHERE id = {worker} AND state = 'dead'"))
                .await;
        }
        if self.is(Mutant::ClaimsByNumber) {
            self.raw
                .run("UPDATE jobs SET priority = -priority WHERE state = 'ready'")
                .await;
        }
        let claimed = match seq_max {
            Some(seq) => self.w.claim_ahead(worker, seq, now).await.unwrap(),
            None => self.w.claim(worker, kind, n as i64, now).await.unwrap(),
        };
        if self.is(Mutant::ClaimsByNumber) {
            self.raw.run("UPDATE jobs SET priority = ABS(priority)").await;
        }
        let told = |c: &Claimed| {
            format!("{}/{} {} {:?} {:?}", c.lease.job_id - 1, c.lease.epoch, c.deaths, c.stop, c.inflight)
        };
        let answer: Vec<String> = claimed.iter().map(told).collect();
        self.leases.extend(claimed.into_iter().map(|c| (c, None)));
        answer.join(", ")
    }

    async fn cut(&mut self, model: &Model, lease: usize, from: usize, size: usize, suppressed: Option<u16>) -> String {
        let cast = model.jobs[model.given[lease].job].broadcast;
        let id = broadcast_id(cast as u128 + 1);
        let all = &self.people[model.casts[cast].size];
        let seq = self.w.next_seq(&id).await.unwrap();
        if model.holds(lease) {
            assert_eq!(seq + 1, model.next_seq(cast), "the number of the next chunk");
            if model.casts[cast].stage != Stage::Canceled {
                let after = from.checked_sub(1).map(|n| all[n].sort_key());
                let page = self.w.source_page(&id, &Source::Run(0), after.as_ref()).await.unwrap();
                assert_eq!(page.first().map(|r| &r.email), Some(&all[from].email), "whom the fan-out meets next");
            }
        }
        let mut next = step(seq, &all[from..from + size]);
        next.suppressed.extend(suppressed);
        match self.w.fan_out_next(self.lease(lease), &next, at(self.now)).await {
            Ok(stop) => format!("{stop:?}"),
            lost => said(lost.map(drop)),
        }
    }

    async fn commit(&mut self, model: &Model, parts: &[Part]) -> String {
        let now = at(self.now);
        let as_progress = |part: &Part| Progress {
            lease: self.lease(part.lease),
            number: part.number,
            settled: part
                .lines
                .iter()
                .map(|line| {
                    let mut settled = settled(line.ordinal, line.before, line.after, line.tries, now);
                    settled.outcome.possible_duplicate = line.flagged;
                    settled.newly_flagged = line.newly;
                    settled
                })
                .collect(),
            inflight: part.intents.clone(),
        };
        let mut batch: Vec<Progress> = parts.iter().map(as_progress).collect();
        if self.is(Mutant::NoFence) {
            for progress in &mut batch {
                progress.lease.epoch = self.epochs[&progress.lease.job_id];
            }
        }
        let acks = self.w.commit_progress(&batch, now).await.unwrap();
        for (part, progress) in parts.iter().zip(batch) {
            if model.given[part.lease].number == part.number {
                self.leases[part.lease].1 = Some(progress);
            }
        }
        if self.is(Mutant::LosesACount)
            && parts
                .iter()
                .flat_map(|p| &p.lines)
                .any(|l| l.after == MessageStatus::Failed)
        {
            self.raw
                .run("UPDATE jobs SET failed = failed - 1 WHERE failed > 0")
                .await;
        }
        acked(&acks)
    }

    async fn control(&mut self, cast: usize, want: Want) -> String {
        let id = broadcast_id(cast as u128 + 1);
        let wish = match want {
            Want::Pause => Wish::Pause {
                reason: "a reason".into(),
            },
            Want::Resume => Wish::Resume,
            Want::Cancel => Wish::Cancel,
        };
        let answer = said(self.w.control(&id, &wish, at(self.now)).await);
        let now = at(self.now).0;
        if self.is(Mutant::PausesHalf) && want == Want::Pause {
            self.raw
                .run(&format!("UPDATE jobs SET state = 'waiting' WHERE state = 'held' AND run_at > {now}"))
                .await;
        }
        if self.is(Mutant::CancelsDoubts) && want == Want::Cancel {
            self.raw
                .run("UPDATE jobs SET state = 'canceled' WHERE state = 'ready' AND stop = 'cancel'")
                .await;
        }
        answer
    }

    async fn retry(&mut self, cast: usize) -> String {
        let id = broadcast_id(cast as u128 + 1);
        let retried = match self
            .w
            .retry_failed(&id, &["some_reason".to_owned()], at(self.now))
            .await
        {
            Ok(retried) => retried,
            refused => return said(refused.map(drop)),
        };
        assert!(!retried.has_more);
        if self.is(Mutant::ForgetsReopened) && retried.messages > 0 {
            let forgets = format!("UPDATE broadcasts SET jobs_left = jobs_left - 1 WHERE id = '{id}'");
            self.raw.run(&forgets).await;
        }
        retried.messages.to_string()
    }

    async fn taken(&mut self, mut rescued: Vec<Rescued>) -> String {
        rescued.sort_by_key(|r| r.job_id);
        for taken in &rescued {
            let change = match self.mutant {
                Some(Mutant::ForgetsIntents) => "inflight = '[]'",
                Some(Mutant::SameEpoch) => "epoch = epoch - 1",
                _ => continue,
            };
            self.raw
                .run(&format!("UPDATE jobs SET {change} WHERE id = {}", taken.job_id))
                .await;
        }
        let told: Vec<(i64, bool)> = rescued.iter().map(|r| (r.job_id - 1, r.quarantined)).collect();
        format!("{told:?}")
    }

    /// Resumes and finishes everything: the queue must run dry, whatever came before.
    pub async fn wind_up(&mut self, model: &Model) {
        let ids: Vec<_> = (1..=model.casts.len() as u128).map(broadcast_id).collect();
        for id in &ids {
            let answer = said(self.w.control(id, &Wish::Resume, at(self.now)).await);
            assert!(answer == OK || answer == CONFLICT, "{answer}");
        }
        for round in 0.. {
            self.now += 2 * LEASE_MS;
            let now = at(self.now);
            self.w.rescue(NOBODY, now).await.unwrap();
            for job in self.w.jobs(Some("quarantined"), 1_000).await.unwrap() {
                assert!(self.w.release_quarantined(job.id, now).await.unwrap());
            }
            self.w.promote(now).await.unwrap();
            let worker = self.w.worker(now).await;
            while let Some(job) = self.w.claim(worker, JobKind::FanOut, 1, now).await.unwrap().pop() {
                self.end_split(model, &job).await;
            }
            while let Some(job) = self.w.claim(worker, JobKind::Deliver, 1, now).await.unwrap().pop() {
                self.end_chunk(&job).await;
            }
            if self.w.jobs(None, 1).await.unwrap().is_empty() {
                break;
            }
            assert!(round < 20, "the queue does not run dry: {:?}", self.w.jobs(None, 5).await.unwrap());
        }
        for id in &ids {
            let shown = self.w.show(id).await;
            assert!(shown.status.is_final() && shown.finished_at.is_some(), "{id} is {}", shown.status);
            assert_eq!((shown.counts.queued, shown.counts.deferred), (0, 0), "{id}");
            assert_eq!(shown.counts.total(), shown.received.accepted(), "{id}");
        }
    }

    async fn end_split(&self, model: &Model, job: &Claimed) {
        let now = at(self.now);
        if job.stop.is_some() {
            return self.w.finish(job.lease, JobEnd::Stopped, now).await.unwrap();
        }
        let cast = model
            .casts
            .iter()
            .enumerate()
            .find(|(n, _)| broadcast_id(*n as u128 + 1) == job.broadcast_id);
        let all = &self.people[cast.expect("the model knows it").1.size];
        let rest = all
            .iter()
            .filter(|r| job.cursor.as_ref().is_none_or(|c| r.sort_key() > *c))
            .cloned();
        let rest: Vec<Recipient> = rest.collect();
        if !rest.is_empty() {
            let seq = self.w.next_seq(&job.broadcast_id).await.unwrap();
            self.w.fan_out_next(job.lease, &step(seq, &rest), now).await.unwrap();
        }
        self.w.finish_fan_out(job.lease, 0, 0, now).await.unwrap();
    }

    async fn end_chunk(&self, job: &Claimed) {
        let now = at(self.now);
        let work = self.w.chunk_work(job.lease).await.unwrap();
        let earlier = |o: u16| work.earlier.iter().find(|e| e.ordinal == o);
        let open = (0..work.chunk.recipients.len() as u16).filter(|&o| earlier(o).is_none_or(|e| !e.status.is_final()));
        let sent = open.map(|o| {
            let (before, tries) = earlier(o).map_or((MessageStatus::Queued, 0), |e| (e.status, e.attempts));
            settled(o, before, MessageStatus::Sent, tries + 1, now)
        });
        let last = Progress {
            lease: job.lease,
            number: 1,
            settled: sent.collect(),
            inflight: Vec::new(),
        };
        if job.stop.is_none() {
            assert!(matches!(self.w.commit_progress(&[last], now).await.unwrap()[..], [Ack::Durable { .. }]));
        }
        let end = if job.stop.is_some() {
            JobEnd::Stopped
        } else {
            JobEnd::Done
        };
        self.w.finish(job.lease, end, now).await.unwrap();
    }
}

fn said(answer: Result<(), StoreError>) -> String {
    match answer {
        Ok(()) => OK.into(),
        Err(StoreError::LeaseLost) => LOST.into(),
        Err(StoreError::Conflict(_)) => CONFLICT.into(),
        Err(StoreError::Refused(_)) => "refused".into(),
        Err(other) => panic!("{other}"),
    }
}

fn acked(acks: &[Ack]) -> String {
    let told = acks.iter().map(|ack| match ack {
        Ack::Durable { stop } => format!("durable {stop:?}"),
        Ack::Fenced => "fenced".to_owned(),
    });
    told.collect::<Vec<_>>().join(" ")
}
