//! The loop that runs the stages: registers this process as a worker, claims jobs, drives them to their end, and
//! looks after what no worker owns (due jobs, due campaigns, the jobs of dead workers). Never busy: it
//! sleeps until somebody calls, something falls due, or the polling interval has passed.

mod findings;
mod heartbeat;
mod jobs;
mod pacer;
mod relays;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::compose::Desk;
use super::deliver::Gauges;
use super::deliver::board::{Board, LOW_WATER};
use super::deliver::lanes::Lanes;
use super::deliver::run::Halt;
use super::lease::LeaseWatch;
use super::settle::Settler;
use super::{guard, schedule, sweep};
use crate::clock::Clock;
use crate::domain::job::{Claimed, JobKind};
use crate::domain::retry::RetryPolicy;
use crate::domain::safety::Limits;
use crate::domain::time::Timestamp;
use crate::smtp::RelayConfig;
use crate::store::workers::NewWorker;
use crate::store::{Result, Store, StoreError};

/// Fan-outs at once: each keeps the database busy by itself, and two let a small one pass a large one.
const FAN_OUTS_MAX: usize = 2;
/// Rounds follow each other no faster: a fan-out calls for every chunk it makes.
const ROUND_GAP: Duration = Duration::from_millis(20);

/// Between a round that failed and the next, with as much jitter: the database is looked for more often than it is polled.
const ROUND_AGAIN: Duration = Duration::from_millis(500);

/// Between two tries to register while the database is away.
const ENTER_AGAIN: Duration = Duration::from_millis(500);

/// What is left to be written when the time to end is over may take this long: a commit takes milliseconds.
const LAST_WRITE_MAX: Duration = Duration::from_secs(2);

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
    pub safety: Limits,
    /// How long recipients and outcomes are kept after their broadcast has ended; `None` is for ever.
    pub messages_kept: Option<Duration>,
}

/// What a worker works with.
pub struct Deps {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub relays: RelaySource,
    pub gauges: Arc<Gauges>,
    pub lanes: Arc<Lanes>,
    pub desk: Desk,
    pub me: NewWorker,
    pub settings: Settings,
}

/// Where a worker's relays are from: the database, and the capture relay while there is none.
#[derive(Default)]
pub struct RelaySource {
    pub capture: Option<RelayConfig>,
}

/// A worker at work; what its tasks share.
struct Shared {
    deps: Deps,
    /// This worker's id; a new one after it was declared dead.
    id: AtomicI64,
    lease: Arc<LeaseWatch>,
    board: Arc<Board>,
    /// Workers alive, as the heartbeat counts them.
    n_live: AtomicI64,
    settler: Settler,
    /// No more claims, no more messages.
    stop: CancellationToken,
}

/// Works until `stop`, then ends in good order: nothing more is claimed, what is on the wire is finished and
/// recorded, and jobs are given back.
///
/// # Errors
/// When the store refuses the worker, and when the worker stepped aside: a newer program has the database now, or it
/// was moved. A database that is away is waited for.
pub async fn run(deps: Deps, stop: CancellationToken) -> Result<()> {
    let Some((id, asked)) = enter(&deps, &stop).await? else {
        return Ok(());
    };
    let (settler, settling) = Settler::start(Arc::clone(&deps.store), Arc::clone(&deps.clock));
    let lease = Arc::new(LeaseWatch::new(asked.0, asked.1, deps.settings.lease));
    let shared = Arc::new(Shared {
        id: AtomicI64::new(id),
        board: Board::new(Arc::clone(&deps.clock), Arc::clone(&lease)),
        n_live: AtomicI64::new(1),
        lease,
        settler,
        deps,
        // A child: a part that breaks ends this worker, and nothing else.
        stop: stop.child_token(),
    });
    let ended = CancellationToken::new();
    let mut heart = heartbeat::Heart::new(Arc::clone(&shared));
    heart.beat().await;
    let mut slots = start_slots(&shared);
    let beating = tokio::spawn(heart.run(ended.clone()));

    let guarding = tokio::spawn(guard::watch(
        Arc::clone(&shared.deps.store),
        Arc::clone(&shared.deps.clock),
        shared.deps.settings.safety,
        shared.settler.failed(),
        {
            let shared = Arc::downgrade(&shared);
            move || {
                shared
                    .upgrade()
                    .map_or((0, 0), |shared| (shared.id(), shared.connections()))
            }
        },
        ended.clone(),
    ));

    let rescuing = {
        let (store, clock) = (Arc::clone(&shared.deps.store), Arc::clone(&shared.deps.clock));
        let shared = Arc::downgrade(&shared);
        let worker = move || {
            let shared = shared.upgrade().filter(|shared| shared.may_judge())?;
            Some(shared.id())
        };
        tokio::spawn(sweep::rescue(store, clock, worker, ended.clone()))
    };

    let jobs = work(&shared, &mut slots).await;
    drain(&shared, jobs, slots).await;
    ended.cancel();
    let _ = beating.await;
    let _ = guarding.await;
    let _ = rescuing.await;
    let (store, clock, id) = (Arc::clone(&shared.deps.store), Arc::clone(&shared.deps.clock), shared.id());
    drop(shared);
    // What is learnt is written before others may take the jobs. The settler would wait for a lost database for
    // ever, though, and this worker has no more time.
    if tokio::time::timeout(LAST_WRITE_MAX, settling).await.is_err() {
        tracing::warn!("The last outcomes could not be written; their messages are in doubt");
    }
    store.retire_worker(id, clock.now()).await?;
    // Who ended by itself because the database is no longer its own says so.
    if stop.is_cancelled() {
        Ok(())
    } else {
        store.footing().await
    }
}

/// Registers this process, and takes over from a predecessor that cannot be alive: its jobs need not wait for
/// their leases to lapse. Both are repeated while the database is away; a registration whose answer was lost
/// leaves a worker behind that holds nothing and lapses. `None` when it was told to stop before it began;
/// otherwise its number, and when it asked.
async fn enter(deps: &Deps, stop: &CancellationToken) -> Result<Option<(i64, (Instant, Timestamp))>> {
    let try_enter = async || {
        let asked = (Instant::now(), deps.clock.now());
        let until = asked.1 + deps.settings.lease;
        let id = deps.store.register_worker(&deps.me, until, asked.1).await?;
        if deps.store.is_exclusive() {
            let voided = deps.store.void_other_workers(id).await?;
            if !voided.is_empty() {
                tracing::info!(n_jobs = voided.len(), "Took over {} jobs of a worker that is gone", voided.len());
            }
        }
        Ok((id, asked))
    };
    loop {
        match try_enter().await {
            Err(error) if StoreError::is_transient(&error) => {
                tracing::warn!(%error, "This worker cannot be registered yet; it tries again");
            }
            entered => return entered.map(Some),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(ENTER_AGAIN) => {}
        }
    }
}

/// The relays with their slots, and those who keep their pace.
fn start_slots(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(relays::Fleet::new(Arc::clone(shared)).run());
    tasks.spawn(pacer::ask(Arc::clone(shared)));
    tasks.spawn(pacer::tick(Arc::clone(shared)));
    tasks
}

/// Rounds until told to stop. Returns the jobs that are still at hand.
async fn work(shared: &Arc<Shared>, slots: &mut JoinSet<()>) -> Jobs {
    let mut jobs = Jobs::default();
    let mut upkeep = sweep::Upkeep::new(shared.deps.settings.lease, shared.deps.settings.messages_kept);
    let mut wakeups = shared.deps.store.wakeups();
    while !shared.stop.is_cancelled() {
        wakeups.mark_unchanged();
        let nap = match round(shared, &mut jobs, &mut upkeep).await {
            Ok(due) => shared.nap(due),
            Err(error) => {
                tracing::warn!(%error, "A round of the worker failed; it is repeated");
                ROUND_AGAIN.mul_f64(0.5 + fastrand::f64())
            }
        };
        let gap = tokio::time::sleep(ROUND_GAP);
        let nap = tokio::time::sleep(nap);
        tokio::select! {
            () = shared.stop.cancelled() => break,
            () = gap => {}
        }
        tokio::select! {
            () = shared.stop.cancelled() => {}
            called = wakeups.changed() => if called.is_err() { break },
            () = shared.board.is_low() => {}
            ended = jobs.one_ended() => heed_end(shared, ended),
            Some(ended) = slots.join_next() => heed_end(shared, ended),
            () = nap => {}
        }
    }
    jobs
}

/// One round: what fell due, what the dead left, what is to be claimed, what an operator wants stopped.
/// Returns when the next thing falls due.
async fn round(shared: &Arc<Shared>, jobs: &mut Jobs, upkeep: &mut sweep::Upkeep) -> Result<Option<Timestamp>> {
    let (store, clock) = (&*shared.deps.store, &*shared.deps.clock);
    while let Some(ended) = jobs.one_ended().now_or_never() {
        heed_end(shared, ended);
    }
    // What goes wrong with one campaign, or in the upkeep, must not keep the mail of all others waiting.
    if let Err(error) = upkeep.run(store, clock, shared.id(), &jobs.held()).await {
        tracing::warn!(%error, "The upkeep failed; it is repeated");
    }
    let mut campaign_at = store.next_campaign_at().await?;
    if campaign_at.is_some_and(|at| at <= clock.now()) {
        campaign_at = match schedule::start_due_campaigns(store, clock).await {
            Ok(_) => store.next_campaign_at().await?,
            Err(error) => {
                tracing::error!(%error, "A due campaign could not be started; it is tried again");
                None
            }
        };
    }
    if store.next_due().await?.is_some_and(|at| at <= clock.now()) {
        store.promote(clock.now()).await?;
    }
    claim_fan_outs(shared, jobs).await?;
    claim_chunks(shared, jobs).await?;
    heed_stops(shared).await?;
    let due = [store.next_due().await?, campaign_at];
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
        jobs.start_fan_out(shared, job);
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

    /// Connections to relays that all workers together may have.
    fn connections(&self) -> i64 {
        self.board.connections() * self.n_live.load(Ordering::Relaxed).max(1)
    }

    /// Whether it may take the jobs of others. After an outage they have half a lease to come back: they look for the database
    /// every half second, and a try that hangs takes a third of a lease.
    fn may_judge(&self) -> bool {
        self.lease
            .may_judge(self.deps.clock.now(), self.deps.settings.lease / 2)
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
    by_task: HashMap<task::Id, i64>,
    /// Chunks that are being read and are not on the board yet.
    settling_in: Arc<AtomicUsize>,
}

impl Jobs {
    fn start_fan_out(&mut self, shared: &Arc<Shared>, job: Claimed) {
        let id = job.lease.job_id;
        let task = self.fan_outs.spawn(jobs::split(Arc::clone(shared), job));
        self.by_task.insert(task.id(), id);
    }

    fn start_chunk(&mut self, shared: &Arc<Shared>, job: Claimed) {
        let id = job.lease.job_id;
        self.settling_in.fetch_add(1, Ordering::SeqCst);
        let task = self
            .chunks
            .spawn(jobs::deliver(Arc::clone(shared), job, Arc::clone(&self.settling_in)));
        self.by_task.insert(task.id(), id);
    }

    /// The ids of all jobs at hand.
    fn held(&self) -> Vec<i64> {
        self.by_task.values().copied().collect()
    }

    fn is_settling_in(&self) -> bool {
        self.settling_in.load(Ordering::SeqCst) > 0
    }

    /// Waits until a job has ended; for ever when there is none.
    async fn one_ended(&mut self) -> std::result::Result<(), JoinError> {
        let ended = tokio::select! {
            Some(ended) = self.fan_outs.join_next_with_id() => ended,
            Some(ended) = self.chunks.join_next_with_id() => ended,
            else => std::future::pending().await,
        };
        let task = ended.as_ref().map_or_else(JoinError::id, |(task, ())| *task);
        self.by_task.remove(&task);
        ended.map(drop)
    }
}

/// A panic is a mistake of ours after which nobody can say what is left undone. The worker ends; the job counts a
/// death when it is rescued, so that one that always panics is set aside.
fn heed_end(shared: &Shared, ended: std::result::Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "A task of this worker broke; the worker ends");
        shared.stop.cancel();
    }
}
