//! One claimed job, from its claim to its end: the order of the stages stands here. Never loses a job: whatever
//! goes wrong, it is given back, set aside, or left to be rescued.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Shared;
use crate::domain::job::{Claimed, JobEnd, Lease, Stop};
use crate::domain::message::MessageStatus;
use crate::pipeline::deliver::fate::{self, Rules};
use crate::pipeline::deliver::run::{ChunkRun, Halt, RunEnd};
use crate::pipeline::fan_out::fan_out;
use crate::pipeline::settle::{Durable, Entry, Note};
use crate::store::delivery::Settled;
use crate::store::{Result, StoreError};

/// Pauses between tries to give a job back while the database is away.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Splits a broadcast.
pub(super) async fn split(shared: Arc<Shared>, job: Claimed) {
    let stop = || shared.stop.is_cancelled();
    let done = fan_out(&*shared.deps.store, &*shared.deps.clock, &job, stop).await;
    give_up_on_error(&shared, job.lease, done).await;
}

/// Delivers a chunk. `settling_in` counts chunks that are not on the board yet.
pub(super) async fn deliver(shared: Arc<Shared>, job: Claimed, settling_in: Arc<AtomicUsize>) {
    point!("claimed");
    let begun = match insist(&shared, || settle_doubts(&shared, &job)).await {
        Ok(()) => begin(&shared, &job).await,
        Err(error) => Err(error),
    };
    if let Ok(Some(run)) = &begun {
        shared.board.put(Arc::clone(run));
    }
    settling_in.fetch_sub(1, Ordering::SeqCst);
    shared.board.look();
    let done = match begun {
        Ok(Some(run)) => {
            if shared.stop.is_cancelled() {
                run.halt(Halt::Released);
            }
            let end = run.end().await;
            shared.board.remove(&run);
            finish(&shared, job.lease, end, Some(&run)).await
        }
        Ok(None) => finish(&shared, job.lease, RunEnd::Halted(Halt::Stopped(Stop::Hold)), None).await,
        Err(error) => Err(error),
    };
    give_up_on_error(&shared, job.lease, done).await;
}

/// Messages that may have been on the wire when the last owner died are in doubt, and that is the first thing to
/// be written down: a job that is given back forgets them.
async fn settle_doubts(shared: &Arc<Shared>, job: &Claimed) -> Result<()> {
    if job.inflight.is_empty() {
        return Ok(());
    }
    let run = read(shared, job).await?;
    tracing::warn!(
        job.id = job.lease.job_id,
        n_messages = job.inflight.len(),
        "Messages were on the wire when their worker was lost"
    );
    let doubtful = job.inflight.iter().map(|&o| in_doubt(shared, job, &run, o)).collect();
    write_down(shared, job.lease, doubtful).await
}

/// Reads a chunk and settles what needs no relay. `None` when an operator wants the job stopped.
async fn begin(shared: &Arc<Shared>, job: &Claimed) -> Result<Option<Arc<ChunkRun>>> {
    if job.stop.is_some() {
        return Ok(None);
    }
    let run = read(shared, job).await?;
    settle_without_relay(shared, job.lease, &run).await?;
    Ok(Some(Arc::new(run)))
}

async fn read(shared: &Arc<Shared>, job: &Claimed) -> Result<ChunkRun> {
    let store = &*shared.deps.store;
    let prepared = match shared.deps.desk.prepare(store, &job.broadcast_id).await? {
        Ok(prepared) => prepared,
        Err(why) => return Err(StoreError::Corrupt(format!("the letter of {}: {why}", job.broadcast_id))),
    };
    let work = store.chunk_work(job.lease).await?;
    let now = shared.deps.clock.now();
    Ok(ChunkRun::new(job.lease, job.seq, prepared, work, now, &shared.deps.lanes))
}

fn in_doubt(shared: &Arc<Shared>, job: &Claimed, run: &ChunkRun, ordinal: u16) -> Settled {
    let rules = rules(shared, run, ordinal);
    fate::ambiguous(ordinal, run.past(ordinal), job.stop == Some(Stop::Cancel), &rules)
}

/// Suppressed and expired messages, and doubts that are held by now: found when the chunk is claimed, settled in one commit.
async fn settle_without_relay(shared: &Arc<Shared>, lease: Lease, run: &ChunkRun) -> Result<()> {
    let now = shared.deps.clock.now();
    let todo = run.todo();
    let has_expired = run.prepared.expires_at.is_some_and(|at| at <= now);
    let settled: Vec<Settled> = if has_expired {
        let expired = |&o: &u16| {
            fate::untried(o, run.past(o), MessageStatus::Expired, "expired", "its time had passed".to_owned(), now)
        };
        todo.iter().map(expired).collect()
    } else {
        let held = run.held_doubts();
        let addresses: Vec<String> = todo.iter().map(|&o| run.recipient(o).email.normalised()).collect();
        let found = shared.deps.store.suppressed_among(&addresses).await?;
        let outcome = |(&o, address): (&u16, &String)| {
            let untried = |status, class, why: &str| fate::untried(o, run.past(o), status, class, why.to_owned(), now);
            match found.contains(address) {
                _ if held.contains(&o) => {
                    let why = "it may have been sent, and messages in doubt are not sent again by themselves any more";
                    Some(untried(MessageStatus::Uncertain, "network", why))
                }
                true => Some(untried(MessageStatus::Suppressed, "suppressed", "the address is suppressed")),
                false => None,
            }
        };
        todo.iter().zip(&addresses).filter_map(outcome).collect()
    };
    if settled.is_empty() {
        return Ok(());
    }
    let ordinals: Vec<u16> = settled.iter().map(|s| s.ordinal).collect();
    run.take_these(&ordinals);
    write_down(shared, lease, settled).await?;
    for _ in ordinals {
        run.settled();
    }
    Ok(())
}

async fn write_down(shared: &Arc<Shared>, lease: Lease, settled: Vec<Settled>) -> Result<()> {
    let entries = settled
        .into_iter()
        .map(|s| Entry {
            lease,
            note: Note::Outcome(s),
        })
        .collect();
    let answers = shared.settler.settle(entries).await;
    if answers.contains(&Durable::No) {
        Err(StoreError::LeaseLost)
    } else {
        Ok(())
    }
}

fn rules<'a>(shared: &'a Arc<Shared>, run: &'a ChunkRun, ordinal: u16) -> Rules<'a> {
    let prepared = &run.prepared;
    Rules {
        retry: &shared.deps.settings.retry,
        on_uncertain: run.on_uncertain,
        started: prepared.date,
        expires_at: prepared.expires_at,
        relay_id: None,
        email: &run.recipient(ordinal).email,
        jitter: 0.0,
        doubt_wait: None,
        now: shared.deps.clock.now(),
    }
}

async fn finish(shared: &Arc<Shared>, lease: Lease, end: RunEnd, run: Option<&ChunkRun>) -> Result<()> {
    let end = match end {
        RunEnd::Halted(Halt::Lost) => return Err(StoreError::LeaseLost),
        RunEnd::Halted(Halt::Stopped(_)) => JobEnd::Stopped,
        RunEnd::Halted(Halt::Released) => JobEnd::Released,
        RunEnd::Halted(Halt::Held(until)) => match run.and_then(ChunkRun::held_by) {
            Some(by) => JobEnd::Held { until, by },
            None => JobEnd::Waiting(until),
        },
        RunEnd::Through { next_at: None } => JobEnd::Done,
        RunEnd::Through { next_at: Some(at) } => JobEnd::Waiting(at),
    };
    insist(shared, || shared.deps.store.finish(lease, end.clone(), shared.deps.clock.now())).await?;
    // A relay that changed while the chunk was being given back: it has hastened all that waited, and not yet this one.
    let held_at = run.and_then(ChunkRun::held_at);
    if held_at.is_some_and(|n| n != shared.board.n_changes()) {
        insist(shared, || async { shared.deps.store.hasten(shared.deps.clock.now()).await.map(drop) }).await?;
    }
    Ok(())
}

/// Gives back a job that could not be carried on: for another try where that may help, else for a person.
async fn give_up_on_error(shared: &Arc<Shared>, lease: Lease, done: Result<()>) {
    let store = &shared.deps.store;
    let given_back = match done {
        Ok(()) => return,
        Err(error) if error.is_transient() => {
            tracing::warn!(job.id = lease.job_id, %error, "A job is given back because of the database");
            insist(shared, || store.finish(lease, JobEnd::Released, shared.deps.clock.now())).await
        }
        Err(error) => {
            // Where the lease is gone this changes nothing. Where it is not, the database refused what became of
            // the messages, and a job that is not given back would stay ours for as long as we live.
            let why = match &error {
                StoreError::LeaseLost => "the database refused what became of its messages".to_owned(),
                _ => error.to_string(),
            };
            let set_aside = insist(shared, || store.quarantine(lease, &why, shared.deps.clock.now())).await;
            if set_aside.is_ok() {
                tracing::error!(job.id = lease.job_id, why, "A job is set aside: it cannot be carried on");
            }
            set_aside
        }
    };
    match given_back {
        Ok(()) => {}
        Err(StoreError::LeaseLost) => {
            tracing::warn!(job.id = lease.job_id, "The lease on a job has lapsed; the work is dropped");
        }
        Err(error) => tracing::warn!(job.id = lease.job_id, %error, "A job was left to be rescued"),
    }
}

/// Repeats a step while the database is away; at the worker's end, for as long as that may take. Safe, because the
/// step is fenced: a repeat of one that took effect finds the lease gone.
async fn insist<F: Future<Output = Result<()>>>(shared: &Arc<Shared>, step: impl Fn() -> F) -> Result<()> {
    let mut pause = RETRY_FIRST;
    loop {
        match step().await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, worker.id = shared.id(), "A job waits for the database");
                // The jitter keeps many jobs from coming back all at once.
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            other => return other,
        }
    }
}
