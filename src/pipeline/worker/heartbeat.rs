//! The heartbeat: says that this worker lives, with what it is doing, and learns how many others there are. Never
//! waits for the work: it has its own task and its own way to the database.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::domain::worker::WorkerStats;
use crate::pipeline::deliver::run::Halt;
use crate::store::Result;
use crate::store::workers::Heartbeat;

/// Beats until the worker has ended; also while it drains.
pub(super) async fn beat(shared: Arc<Shared>, ended: CancellationToken) {
    let mut speed = Speed::start();
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(shared.deps.settings.heartbeat) => {}
        }
        if let Err(error) = beat_once(&shared, &mut speed).await {
            tracing::warn!(%error, "The heartbeat could not be written");
        }
    }
}

async fn beat_once(shared: &Arc<Shared>, speed: &mut Speed) -> Result<()> {
    let deps = &shared.deps;
    // Taken before the request is sent: a slow answer must not lengthen the lease.
    let (asked, now) = (Instant::now(), deps.clock.now());
    let stats = WorkerStats {
        rate_per_sec: speed.measure(deps.relay.gauges.n_settled()),
        connections_open: deps.relay.gauges.connections_open(),
        trouble: deps.relay.gauges.trouble(),
    };
    let draining = shared.stop.is_cancelled();
    match deps
        .store
        .heartbeat(shared.id(), now + deps.settings.lease, draining, &stats, now)
        .await?
    {
        Heartbeat::Alive { live_workers } => {
            shared.lease.extend(asked, now, deps.settings.lease);
            deps.relay.share_pace(live_workers);
        }
        Heartbeat::Dead => start_anew(shared).await?,
    }
    Ok(())
}

/// Others have declared this worker dead: its jobs are theirs. It drops everything and comes back as a new
/// worker.
async fn start_anew(shared: &Arc<Shared>) -> Result<()> {
    tracing::warn!(worker.id = shared.id(), "This worker was declared dead; it drops its jobs and registers anew");
    shared.lease.end();
    for run in shared.board.all() {
        run.halt(Halt::Lost);
    }
    let deps = &shared.deps;
    let (asked, now) = (Instant::now(), deps.clock.now());
    let id = deps
        .store
        .register_worker(&deps.me, now + deps.settings.lease, now)
        .await?;
    shared.id.store(id, Ordering::SeqCst);
    shared.lease.extend(asked, now, deps.settings.lease);
    Ok(())
}

/// Messages per second between two beats.
struct Speed {
    at: Instant,
    n_settled: u64,
}

impl Speed {
    fn start() -> Self {
        Self {
            at: Instant::now(),
            n_settled: 0,
        }
    }

    fn measure(&mut self, n_settled: u64) -> f64 {
        let (at, before) = (Instant::now(), self.n_settled);
        let seconds = (at - self.at).max(Duration::from_millis(1)).as_secs_f64();
        *self = Self { at, n_settled };
        n_settled.saturating_sub(before) as f64 / seconds
    }
}
