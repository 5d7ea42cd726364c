//! Many at once: workers that claim, settle and die, an operator who cannot make up his mind, and everybody's upkeep. Asserts
//! that nobody's step fails for somebody else's, and that every message is settled once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::job::{Claimed, JobEnd, JobKind, Stop};
use hikyaku::store::delivery::Ack;
use hikyaku::store::queue::Wish;
use hikyaku::store::workers::NewWorker;
use hikyaku::store::{Store, StoreError};
use tokio::task::JoinSet;

use super::contract;
use super::world::{LEASE_MS, NOBODY, World, at, progress, sent};

contract! {
    a_crowd_settles_every_message_once,
}

const WORKERS: u64 = 4;
const RECIPIENTS: usize = 60;
const CHUNK: usize = 5;

async fn a_crowd_settles_every_message_once(w: World) {
    let ids = [
        w.ready_broadcast(1, RECIPIENTS, CHUNK).await,
        w.ready_broadcast(2, RECIPIENTS, CHUNK).await,
    ];
    let over = Arc::new(AtomicBool::new(false));
    let mut operators = JoinSet::new();
    for id in ids.clone() {
        operators.spawn(change_ones_mind(w.share(), id, Arc::clone(&over)));
    }
    let mut workers = JoinSet::new();
    for seed in 0..WORKERS {
        workers.spawn(work(w.share(), fastrand::Rng::with_seed(seed)));
    }
    let settled = workers.join_all().await.concat();
    over.store(true, Ordering::Relaxed);
    operators.join_all().await;
    let distinct: BTreeSet<_> = settled.iter().collect();
    assert_eq!((settled.len(), distinct.len()), (2 * RECIPIENTS, 2 * RECIPIENTS));
    for id in ids {
        let shown = w.show(&id).await;
        assert_eq!((shown.status, shown.counts.sent), (BroadcastStatus::Completed, RECIPIENTS as i64));
        assert_eq!(w.recount(&id).await.unwrap(), shown.counts);
    }
}

/// Pauses and resumes a broadcast until the others are done.
async fn change_ones_mind(store: Arc<dyn Store>, id: BroadcastId, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let pause = Wish::Pause {
            reason: "in doubt".into(),
        };
        for wish in [pause, Wish::Resume] {
            match store.control(&id, &wish, at(1)).await {
                Ok(()) | Err(StoreError::Conflict(_)) => {}
                other => panic!("{wish:?}: {other:?}"),
            }
        }
    }
}

/// Works until nothing is left, dying now and then with its jobs; the answer is every message it settled.
async fn work(store: Arc<dyn Store>, mut random: fastrand::Rng) -> Vec<(i64, u16)> {
    let mut mine = Vec::new();
    let mut worker = register(&store).await;
    while !store.jobs(None, 1).await.unwrap().is_empty() {
        store.promote(at(2)).await.unwrap();
        store.rescue(NOBODY, at(2)).await.unwrap();
        let jobs = store.claim(worker, JobKind::Deliver, 2, at(2)).await.unwrap();
        if random.u32(0..12) == 0 {
            store.retire_worker(worker, at(2)).await.unwrap();
            worker = register(&store).await;
            // Its former self goes on for a while without knowing: a lapsed lease must not settle.
        }
        for job in &jobs {
            settle(&store, job, &mut mine).await;
        }
    }
    mine
}

async fn register(store: &Arc<dyn Store>) -> i64 {
    let me = NewWorker {
        host: "crowd".into(),
        pid: 1,
        version: "0".into(),
    };
    store.register_worker(&me, at(LEASE_MS), at(2)).await.unwrap()
}

/// Sends what is left of a job one message at a time, as long as it is ours and nobody wants it stopped.
async fn settle(store: &Arc<dyn Store>, job: &Claimed, mine: &mut Vec<(i64, u16)>) {
    let work = store.chunk_work(job.lease).await.unwrap();
    let done: Vec<u16> = work.earlier.iter().map(|e| e.ordinal).collect();
    let mut end = JobEnd::Done;
    for ordinal in (0..work.chunk.recipients.len() as u16).filter(|o| !done.contains(o)) {
        let one = progress(job.lease, vec![sent(ordinal, at(2))], &[]);
        match store.commit_progress(&[one], at(2)).await.unwrap()[..] {
            [Ack::Fenced] => return,
            [Ack::Durable { stop }] => {
                mine.push((job.lease.job_id, ordinal));
                if stop == Some(Stop::Hold) {
                    end = JobEnd::Stopped;
                    break;
                }
            }
            _ => panic!("one progress has one answer"),
        }
    }
    let left = CHUNK - store.chunk_work(job.lease).await.unwrap().earlier.len();
    let end = if left == 0 { JobEnd::Done } else { end };
    match store.finish(job.lease, end.clone(), at(2)).await {
        Ok(()) | Err(StoreError::LeaseLost) => {}
        other => panic!("{end:?}: {other:?}"),
    }
}
