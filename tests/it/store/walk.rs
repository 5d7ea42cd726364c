//! A long random walk through everything that can happen to a queue, with the conservation law and the counters checked after
//! every step. The seed is printed, and `HIKYAKU_TEST_SEED` walks the same way again.

use std::collections::BTreeMap;

use hikyaku::domain::broadcast::{Broadcast, BroadcastStatus, Priority};
use hikyaku::domain::counts::Counts;
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::job::{Claimed, JobEnd, JobKind};
use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::recipient::Recipient;
use hikyaku::domain::time::Timestamp;
use hikyaku::domain::worker::WorkerStats;
use hikyaku::store::StoreError;
use hikyaku::store::delivery::{Ack, Settled};
use hikyaku::store::queue::Wish;

use super::contract;
use super::world::{LEASE_MS, NOBODY, World, at, broadcast, people, progress, settled, step};

contract! {
    counters_follow_the_messages_whatever_happens,
}

const STEPS: usize = 260;
const RECIPIENTS: usize = 23;
const CHUNK: usize = 5;

/// What the walker remembers: what it holds, and which messages it has seen come to an end. The store must agree with it.
struct Walker {
    w: World,
    random: fastrand::Rng,
    now: Timestamp,
    n_broadcasts: u128,
    broadcasts: Vec<BroadcastId>,
    worker: i64,
    held: Vec<Claimed>,
    /// Jobs whose owner was declared dead: their leases must not write any more.
    lapsed: Vec<Claimed>,
    /// Every message by job and ordinal with the final status it reached.
    ended: BTreeMap<(i64, u16), MessageStatus>,
    /// The counts of each broadcast when they were last held against a recount.
    recounted: BTreeMap<BroadcastId, Counts>,
}

async fn counters_follow_the_messages_whatever_happens(w: World) {
    let seed = match std::env::var("HIKYAKU_TEST_SEED") {
        Ok(text) => text.parse().expect("the seed is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("HIKYAKU_TEST_SEED={seed}");
    let worker = w.worker(at(0)).await;
    let mut walker = Walker {
        w,
        random: fastrand::Rng::with_seed(seed),
        now: at(0),
        n_broadcasts: 0,
        broadcasts: Vec::new(),
        worker,
        held: Vec::new(),
        lapsed: Vec::new(),
        ended: BTreeMap::new(),
        recounted: BTreeMap::new(),
    };
    for n in 0..STEPS {
        let done = walker.step().await;
        println!("{n}: {done}");
        walker.check(n % 20 == 0).await;
    }
    walker.wind_up().await;
}

impl Walker {
    /// One thing that may happen; the answer says what it was.
    async fn step(&mut self) -> String {
        self.now = self.now.plus_ms(self.random.i64(1..500));
        match self.random.u32(0..100) {
            0..8 => self.accept().await,
            8..30 => self.claim().await,
            30..70 => self.work().await,
            70..76 => self.write_as_a_zombie().await,
            76..80 => self.die().await,
            80..85 => self.wish(Wish::Pause { reason: "walk".into() }).await,
            85..91 => self.wish(Wish::Resume).await,
            91..93 => self.wish(Wish::Cancel).await,
            93..95 => self.release_quarantined().await,
            95..97 => self.retry().await,
            _ => {
                self.now = self.now.plus_ms(5_000);
                let n = self.beat_and_promote().await;
                format!("promoted {n}")
            }
        }
    }

    async fn beat_and_promote(&mut self) -> u64 {
        let (until, stats) = (self.now.plus_ms(LEASE_MS), WorkerStats::default());
        self.w
            .heartbeat(self.worker, until, false, &stats, self.now)
            .await
            .unwrap();
        self.w.promote(self.now).await.unwrap()
    }

    async fn accept(&mut self) -> String {
        self.n_broadcasts += 1;
        let mut new = broadcast(self.n_broadcasts, RECIPIENTS);
        new.priority = self
            .random
            .choice([Priority::High, Priority::Normal, Priority::Bulk])
            .expect("not empty");
        new.send_at = self.random.bool().then(|| self.now.plus_ms(3_000));
        self.w.accept_new(&new, &people(RECIPIENTS), self.now).await;
        self.broadcasts.push(new.id.clone());
        format!("accepted {}", new.id)
    }

    async fn claim(&mut self) -> String {
        let kind = if self.random.bool() {
            JobKind::FanOut
        } else {
            JobKind::Deliver
        };
        let claimed = self
            .w
            .claim(self.worker, kind, self.random.i64(1..4), self.now)
            .await
            .unwrap();
        let told = format!("claimed {:?}", claimed.iter().map(|c| c.lease).collect::<Vec<_>>());
        self.held.extend(claimed);
        told
    }

    async fn work(&mut self) -> String {
        if self.held.is_empty() {
            return "nothing held".into();
        }
        let job = self.held.swap_remove(self.random.usize(..self.held.len()));
        match job.kind {
            JobKind::FanOut => self.cut(job).await,
            JobKind::Deliver => self.deliver(job).await,
        }
    }

    async fn cut(&mut self, job: Claimed) -> String {
        let (all, _) = self.w.read_audience(&job.broadcast_id).await;
        let rest: Vec<Recipient> = all
            .into_values()
            .filter(|r| job.cursor.as_ref().is_none_or(|cursor| r.sort_key() > *cursor))
            .collect();
        if self.random.u32(0..5) == 0 {
            self.w.finish(job.lease, JobEnd::Stopped, self.now).await.unwrap();
            return format!("gave back fan_out {}", job.lease.job_id);
        }
        if rest.is_empty() {
            self.w.finish_fan_out(job.lease, 0, 0, self.now).await.unwrap();
            return format!("finished fan_out {}", job.lease.job_id);
        }
        let chunk = &rest[..rest.len().min(CHUNK)];
        let seq = self.w.next_seq(&job.broadcast_id).await.unwrap();
        let mut next = step(seq, chunk);
        if self.random.u32(0..4) == 0 {
            next.suppressed = vec![0];
        }
        self.w.fan_out_next(job.lease, &next, self.now).await.unwrap();
        let cursor = Some(next.cursor);
        self.held.push(Claimed { cursor, ..job });
        format!("cut chunk {seq}")
    }

    async fn deliver(&mut self, job: Claimed) -> String {
        let work = self.w.chunk_work(job.lease).await.unwrap();
        let open = |o: u16| {
            work.earlier
                .iter()
                .find(|e| e.ordinal == o)
                .is_none_or(|e| !e.status.is_final())
        };
        let mut lines: Vec<Settled> = Vec::new();
        let mut left = Vec::new();
        for ordinal in (0..work.chunk.recipients.len() as u16).filter(|o| open(*o)) {
            match self.random.bool() {
                true => lines.push(self.outcome(ordinal, work.earlier.iter().find(|e| e.ordinal == ordinal))),
                false => left.push(ordinal),
            }
        }
        let n_left = left.len() + lines.iter().filter(|l| !l.outcome.status.is_final()).count();
        let inflight: Vec<u16> = left.into_iter().filter(|_| self.random.u32(0..3) == 0).collect();
        let acks = self
            .w
            .commit_progress(&[progress(job.lease, lines.clone(), &inflight)], self.now)
            .await
            .unwrap();
        let [Ack::Durable { stop }] = acks[..] else {
            panic!("a held lease was fenced")
        };
        self.remember(job.lease.job_id, &lines);
        let told = format!("settled {} of job {}, {n_left} left, {stop:?}", lines.len(), job.lease.job_id);
        let end = match self.random.u32(0..5) {
            _ if n_left == 0 => JobEnd::Done,
            _ if stop.is_some() => JobEnd::Stopped,
            0 => JobEnd::Waiting(self.now.plus_ms(4_000)),
            1 => JobEnd::Released,
            2 => {
                self.w.quarantine(job.lease, "walk", self.now).await.unwrap();
                return format!("{told}, quarantined");
            }
            _ => {
                self.held.push(job);
                return told;
            }
        };
        self.w.finish(job.lease, end.clone(), self.now).await.unwrap();
        format!("{told}, {end:?}")
    }

    fn outcome(&mut self, ordinal: u16, earlier: Option<&hikyaku::store::delivery::Earlier>) -> Settled {
        let after = self.random.choice([
            MessageStatus::Sent,
            MessageStatus::Sent,
            MessageStatus::Deferred,
            MessageStatus::Deferred,
            MessageStatus::Failed,
            MessageStatus::Suppressed,
            MessageStatus::Uncertain,
            MessageStatus::Expired,
        ]);
        let before = earlier.map_or(MessageStatus::Queued, |e| e.status);
        let tries = earlier.map_or(0, |e| e.attempts) + 1;
        settled(ordinal, before, after.expect("not empty"), tries, self.now)
    }

    fn remember(&mut self, job_id: i64, lines: &[Settled]) {
        for line in lines.iter().filter(|l| l.outcome.status.is_final()) {
            let before = self.ended.insert((job_id, line.ordinal), line.outcome.status);
            assert_eq!(before, None, "a message came to an end twice");
        }
    }

    async fn write_as_a_zombie(&mut self) -> String {
        let Some(job) = self.random.choice(&self.lapsed).cloned() else {
            return "no zombie".into();
        };
        let line = settled(0, MessageStatus::Queued, MessageStatus::Sent, 1, self.now);
        let acks = self
            .w
            .commit_progress(&[progress(job.lease, vec![line], &[0])], self.now)
            .await
            .unwrap();
        assert_eq!(acks, [Ack::Fenced]);
        let end = self.w.finish(job.lease, JobEnd::Released, self.now).await;
        assert!(matches!(end, Err(StoreError::LeaseLost)), "{end:?}");
        format!("zombie of job {} fenced", job.lease.job_id)
    }

    async fn die(&mut self) -> String {
        self.now = self.now.plus_ms(2 * LEASE_MS);
        let rescued = self.w.rescue(NOBODY, self.now).await.unwrap();
        assert_eq!(rescued.len(), self.held.len());
        self.lapsed.append(&mut self.held);
        self.worker = self.w.worker(self.now).await;
        format!("died with {} jobs", rescued.len())
    }

    async fn wish(&mut self, wish: Wish) -> String {
        let Some(id) = self.random.choice(&self.broadcasts).cloned() else {
            return "nothing to wish for".into();
        };
        let final_before = self.w.show(&id).await.status.is_final();
        let answer = self.w.control(&id, &wish, self.now).await;
        match &answer {
            Ok(()) => assert!(!final_before || wish == Wish::Cancel),
            Err(StoreError::Conflict(_)) => assert!(final_before),
            other => panic!("{other:?}"),
        }
        format!("{wish:?} {id}: {answer:?}")
    }

    /// What failed may go another time: the walker forgets that it had come to an end.
    async fn retry(&mut self) -> String {
        let Some(id) = self.random.choice(&self.broadcasts).cloned() else {
            return "nothing to try again".into();
        };
        let retried = match self.w.retry_failed(&id, &["some_reason".to_owned()], self.now).await {
            Ok(retried) => retried.messages,
            Err(StoreError::Conflict(why)) => return format!("not tried again: {why}"),
            Err(error) => panic!("{error}"),
        };
        let mut forgotten = 0;
        for line in self
            .w
            .sql("SELECT CAST(job_id AS TEXT), CAST(ordinal AS TEXT) FROM messages WHERE status = 'deferred'")
            .await
        {
            let (job, ordinal) = line.split_once('|').expect("two columns");
            forgotten += i64::from(
                self.ended
                    .remove(&(job.parse().unwrap(), ordinal.parse().unwrap()))
                    .is_some(),
            );
        }
        assert_eq!(forgotten, retried);
        format!("{retried} of {id} are tried again")
    }

    async fn release_quarantined(&mut self) -> String {
        let Some(job) = self.w.jobs(Some("quarantined"), 1).await.unwrap().pop() else {
            return "none set aside".into();
        };
        assert!(self.w.release_quarantined(job.id, self.now).await.unwrap());
        format!("released {}", job.id)
    }

    /// The law, the oracle, and what the walker itself remembers.
    async fn check(&mut self, thoroughly: bool) {
        for shown in self.w.broadcasts(None, 1_000).await.unwrap().rows {
            assert_eq!(shown.counts.total(), shown.received.accepted(), "conservation of {}", shown.id);
            if shown.status == BroadcastStatus::Completed {
                assert_eq!(
                    shown.counts.settled(),
                    shown.counts.total(),
                    "completed means nothing is left of {}",
                    shown.id
                );
            }
            let before = self.recounted.insert(shown.id.clone(), shown.counts);
            if thoroughly || before != Some(shown.counts) {
                self.recount(&shown).await;
            }
        }
        if thoroughly {
            let stored = self
                .w
                .sql("SELECT COUNT(*) FROM messages WHERE status NOT IN ('deferred', 'suppressed')")
                .await;
            let remembered = self.ended.values().filter(|s| **s != MessageStatus::Suppressed).count();
            assert_eq!(stored, [remembered.to_string()]);
        }
    }

    async fn recount(&self, shown: &Broadcast) {
        let mut counted = self.w.recount(&shown.id).await.unwrap();
        let yet_to_be_cut = shown.received.accepted() - counted.total();
        let canceled = shown.status == BroadcastStatus::Canceled;
        counted.add(
            if canceled {
                MessageStatus::Canceled
            } else {
                MessageStatus::Queued
            },
            yet_to_be_cut,
        );
        assert_eq!(shown.counts, counted, "counters of {}", shown.id);
    }

    /// Resumes and finishes everything: the queue must run dry, whatever came before.
    async fn wind_up(mut self) {
        for id in self.broadcasts.clone() {
            let answer = self.w.control(&id, &Wish::Resume, self.now).await;
            assert!(matches!(answer, Ok(()) | Err(StoreError::Conflict(_))), "{answer:?}");
        }
        for _ in 0..4_000 {
            while self.release_quarantined().await != "none set aside" {}
            self.now = self.now.plus_ms(5_000);
            self.beat_and_promote().await;
            self.claim().await;
            self.work().await;
            if self.held.is_empty() && self.w.jobs(None, 1).await.unwrap().is_empty() {
                break;
            }
        }
        self.check(true).await;
        for id in &self.broadcasts {
            let shown = self.w.show(id).await;
            assert!(shown.status.is_final() && shown.finished_at.is_some(), "{id} is {}", shown.status);
            assert_eq!((shown.counts.queued, shown.counts.deferred), (0, 0), "{id}");
        }
    }
}
