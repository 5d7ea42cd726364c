//! The loop that runs the stages: registers this process as a worker, claims jobs, drives them to their end, and
//! looks after what no worker owns (due jobs, due campaigns, the jobs of dead workers). Never busy: it
//! sleeps until somebody calls, something falls due, or the polling interval has passed.

mod heartbeat;
mod jobs;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::compose::Desk;
use super::deliver::board::{Board, LOW_WATER};
use super::deliver::run::Halt;
use super::deliver::{Relay, Slot, SlotDeps};
use super::lease::LeaseWatch;
use super::settle::Settler;
use super::{schedule, sweep};
use crate::clock::Clock;
use crate::domain::job::JobKind;
use crate::domain::retry::RetryPolicy;
use crate::domain::time::Timestamp;
use crate::store::workers::NewWorker;
use crate::store::{Result, Store};

/// Fan-outs at once: each keeps the database busy by itself, and two let a small one pass a large one.
const FAN_OUTS_MAX: usize = 2;
/// Rounds follow each other no faster: a fan-out calls for every chunk it makes.
const ROUND_GAP: Duration = Duration::from_millis(20);

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Chunks at hand at most. Claiming follows [`LOW_WATER`]; the rest is for broadcasts that began later.
    pub concurrent_jobs: usize,
    pub lease: Duration,
    pub heartbeat: Duration,
    pub poll: Duration,
    /// How long the end may take.
    pub drain: Duration,
    pub retry: RetryPolicy,
}

/// What a worker works with.
pub struct Deps {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub relay: Arc<Relay>,
    pub desk: Desk,
    pub me: NewWorker,
    pub settings: Settings,
}

/// A worker at work; what its tasks share.
struct Shared {
    deps: Deps,
    /// This worker's id; a new one after it was declared dead.
    id: AtomicI64,
    lease: Arc<LeaseWatch>,
    board: Arc<Board>,
    settler: Settler,
    /// No more claims, no more messages.
    stop: CancellationToken,
}

/// Works until `stop`, then ends in good order: nothing more is claimed, what is on the wire is finished and
/// recorded, and jobs are given back.
///
/// # Errors
/// When the worker cannot be registered.
pub async fn run(deps: Deps, stop: CancellationToken) -> Result<()> {
    let asked = (Instant::now(), deps.clock.now());
    let id = deps
        .store
        .register_worker(&deps.me, asked.1 + deps.settings.lease, asked.1)
        .await?;
    if deps.store.is_exclusive() {
        // The process before us cannot be alive: its jobs need not wait for their leases to lapse.
        let voided = deps.store.void_other_workers(id).await?;
        if !voided.is_empty() {
            tracing::info!(n_jobs = voided.len(), "Took over {} jobs of a worker that is gone", voided.len());
        }
    }
    let (settler, settling) = Settler::start(Arc::clone(&deps.store), Arc::clone(&deps.clock));
    let lease = Arc::new(LeaseWatch::new(asked.0, asked.1, deps.settings.lease));
    let shared = Arc::new(Shared {
        deps,
        id: AtomicI64::new(id),
        lease,
        board: Arc::default(),
        settler,
        stop,
    });
    let slots = start_slots(&shared);
    let ended = CancellationToken::new();
    let heart = tokio::spawn(heartbeat::beat(Arc::clone(&shared), ended.clone()));

    let jobs = work(&shared).await;
    drain(&shared, jobs, slots).await;
    ended.cancel();
    let _ = heart.await;
    let retired = shared
        .deps
        .store
        .retire_worker(shared.id(), shared.deps.clock.now())
        .await;
    drop(shared);
    let _ = settling.await;
    retired
}

fn start_slots(shared: &Arc<Shared>) -> JoinSet<()> {
    let deps = Arc::new(SlotDeps {
        relay: Arc::clone(&shared.deps.relay),
        board: Arc::clone(&shared.board),
        settler: shared.settler.clone(),
        clock: Arc::clone(&shared.deps.clock),
        lease: Arc::clone(&shared.lease),
        retry: shared.deps.settings.retry.clone(),
        stop: shared.stop.clone(),
    });
    (0..deps.relay.config.connections)
        .map(|_| Slot::new(Arc::clone(&deps)).run())
        .collect()
}

/// Rounds until told to stop. Returns the jobs that are still at hand.
async fn work(shared: &Arc<Shared>) -> Jobs {
    let mut jobs = Jobs::default();
    let mut upkeep = sweep::Upkeep::new(shared.deps.settings.lease);
    let mut wakeups = shared.deps.store.wakeups();
    while !shared.stop.is_cancelled() {
        wakeups.mark_unchanged();
        let due = match round(shared, &mut jobs, &mut upkeep).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "A round of the worker failed; it is repeated");
                None
            }
        };
        let gap = tokio::time::sleep(ROUND_GAP);
        let nap = tokio::time::sleep(shared.nap(due));
        tokio::select! {
            () = shared.stop.cancelled() => break,
            () = gap => {}
        }
        tokio::select! {
            () = shared.stop.cancelled() => {}
            called = wakeups.changed() => if called.is_err() { break },
            () = shared.board.is_low() => {}
            () = jobs.one_ended() => {}
            () = nap => {}
        }
    }
    jobs
}

/// One round: what fell due, what the dead left, what is to be claimed, what an operator wants stopped.
/// Returns when the next thing falls due.
async fn round(shared: &Arc<Shared>, jobs: &mut Jobs, upkeep: &mut sweep::Upkeep) -> Result<Option<Timestamp>> {
    let (store, clock) = (&*shared.deps.store, &*shared.deps.clock);
    upkeep.run(store, clock).await?;
    if store.next_campaign_at().await?.is_some_and(|at| at <= clock.now()) {
        schedule::start_due_campaigns(store, clock).await?;
    }
    if store.next_due().await?.is_some_and(|at| at <= clock.now()) {
        store.promote(clock.now()).await?;
    }
    claim_fan_outs(shared, jobs).await?;
    claim_chunks(shared, jobs).await?;
    heed_stops(shared).await?;
    let due = [store.next_due().await?, store.next_campaign_at().await?];
    Ok(due.into_iter().flatten().min())
}

async fn claim_fan_outs(shared: &Arc<Shared>, jobs: &mut Jobs) -> Result<()> {
    let free = FAN_OUTS_MAX.saturating_sub(jobs.fan_outs.len());
    if free == 0 {
        return Ok(());
    }
    let store = &shared.deps.store;
    for job in store
        .claim(shared.id(), JobKind::FanOut, free as i64, shared.deps.clock.now())
        .await?
    {
        jobs.fan_outs.spawn(jobs::split(Arc::clone(shared), job));
    }
    Ok(())
}

/// Claims what the connections need next, and beyond that only chunks of broadcasts that began later than
/// those at hand, so that a slow large broadcast does not make a small one wait.
async fn claim_chunks(shared: &Arc<Shared>, jobs: &mut Jobs) -> Result<()> {
    let store = &shared.deps.store;
    while jobs.chunks.len() < shared.deps.settings.concurrent_jobs {
        let now = shared.deps.clock.now();
        let claimed = if jobs.is_settling_in() || shared.board.n_todo() > LOW_WATER {
            let at_hand = shared.board.all().iter().map(|run| run.seq).min();
            let Some(seq_max) = at_hand else { return Ok(()) };
            store.claim_ahead(shared.id(), seq_max, now).await?
        } else {
            store.claim(shared.id(), JobKind::Deliver, 1, now).await?
        };
        if claimed.is_empty() {
            return Ok(());
        }
        for job in claimed {
            jobs.start_chunk(shared, job);
        }
    }
    Ok(())
}

/// Wishes for jobs that have nothing to commit at the moment.
async fn heed_stops(shared: &Arc<Shared>) -> Result<()> {
    let runs = shared.board.all();
    if runs.is_empty() {
        return Ok(());
    }
    for (lease, stop) in shared.deps.store.wanted_stops(shared.id()).await? {
        if let Some(run) = runs.iter().find(|run| run.lease == lease) {
            run.halt(Halt::Stopped(stop));
        }
    }
    Ok(())
}

/// The orderly end: connections finish what is on the wire, jobs are given back, and all of it is recorded.
async fn drain(shared: &Arc<Shared>, mut jobs: Jobs, mut slots: JoinSet<()>) {
    for run in shared.board.all() {
        run.halt(Halt::Released);
    }
    let all_ended = async {
        while slots.join_next().await.is_some() {}
        while jobs.chunks.join_next().await.is_some() {}
        while jobs.fan_outs.join_next().await.is_some() {}
    };
    if tokio::time::timeout(shared.deps.settings.drain, all_ended)
        .await
        .is_err()
    {
        tracing::warn!("Some messages were still on the wire when the time to end was over; they are in doubt");
    }
}

impl Shared {
    fn id(&self) -> i64 {
        self.id.load(Ordering::SeqCst)
    }

    /// How long to sleep when nobody calls. The jitter keeps many workers from asking all at once.
    fn nap(&self, due: Option<Timestamp>) -> Duration {
        let poll = self.deps.settings.poll.mul_f64(0.75 + fastrand::f64() / 2.0);
        let until_due =
            due.map_or(poll, |at| Duration::from_millis(u64::try_from(at - self.deps.clock.now()).unwrap_or(0)));
        poll.min(until_due)
    }
}

/// The jobs at hand.
#[derive(Default)]
struct Jobs {
    fan_outs: JoinSet<()>,
    chunks: JoinSet<()>,
    /// Chunks that are being read and are not on the board yet.
    settling_in: Arc<std::sync::atomic::AtomicUsize>,
}

impl Jobs {
    fn start_chunk(&mut self, shared: &Arc<Shared>, job: crate::domain::job::Claimed) {
        self.settling_in.fetch_add(1, Ordering::SeqCst);
        self.chunks
            .spawn(jobs::deliver(Arc::clone(shared), job, Arc::clone(&self.settling_in)));
    }

    fn is_settling_in(&self) -> bool {
        self.settling_in.load(Ordering::SeqCst) > 0
    }

    /// Waits until a job has ended; for ever when there is none.
    async fn one_ended(&mut self) {
        let (fan_outs, chunks) = (!self.fan_outs.is_empty(), !self.chunks.is_empty());
        tokio::select! {
            ended = self.fan_outs.join_next(), if fan_outs => report(ended),
            ended = self.chunks.join_next(), if chunks => report(ended),
            () = std::future::pending() => {}
        }
    }
}

/// A panic in a job is a mistake of ours: the job stays claimed until its lease lapses and is then counted as
/// a death, so that one that always panics is set aside.
fn report(ended: Option<std::result::Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        tracing::error!(%error, "A job's task broke");
    }
}
