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
use crate::store::workers::Heartbeat;
use crate::store::{Result, StoreError};

/// Between a sign of life that failed and the next try, with as much jitter: after an outage the lease must hold again before
/// anything is sent.
const AGAIN: Duration = Duration::from_millis(350);

/// A heart that has not beaten yet.
pub(super) struct Heart {
    shared: Arc<Shared>,
    speed: Speed,
}

impl Heart {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            speed: Speed::start(),
        }
    }

    /// Beats until the worker has ended; also while it drains.
    pub async fn run(mut self, ended: CancellationToken) {
        let mut pause = self.shared.deps.settings.heartbeat;
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let is_written = self.beat().await;
            pause = match is_written {
                true => self.shared.deps.settings.heartbeat,
                false => AGAIN
                    .mul_f64(1.0 + fastrand::f64())
                    .min(self.shared.deps.settings.heartbeat),
            };
        }
    }

    /// Whether it was written.
    pub async fn beat(&mut self) -> bool {
        // A connection that hangs must not keep us from trying another one while the lease still holds.
        let limit = self.shared.deps.settings.lease / 3;
        let beaten = tokio::time::timeout(limit, self.try_beat()).await;
        match beaten {
            Ok(Ok(())) => return true,
            Ok(Err(StoreError::Aside(why))) => self.step_aside(&why),
            Ok(Err(error)) => tracing::warn!(%error, "The heartbeat could not be written"),
            Err(_) => tracing::warn!("The heartbeat could not be written in {} s", limit.as_secs_f32()),
        }
        false
    }

    async fn try_beat(&mut self) -> Result<()> {
        let deps = &self.shared.deps;
        // Taken before the request is sent: a slow answer must not lengthen the lease.
        let (asked, now) = (Instant::now(), deps.clock.now());
        let stats = WorkerStats {
            rate_per_sec: self.speed.measure(deps.gauges.n_settled()),
            connections_open: deps.gauges.connections_open(),
            trouble: deps.gauges.trouble(),
            brakes: self.shared.board.brakes(),
        };
        let draining = self.shared.stop.is_cancelled();
        let answer = deps
            .store
            .heartbeat(self.shared.id(), now + deps.settings.lease, draining, &stats, now)
            .await?;
        match answer {
            Heartbeat::Alive { live_workers } => {
                self.shared.lease.extend(asked, now, deps.settings.lease);
                self.shared.n_live.store(live_workers, Ordering::Relaxed);
                self.shared.board.call();
            }
            Heartbeat::Dead => start_anew(&self.shared).await?,
        }
        // A newer program that cannot share the database with this one says so in it, and so does whoever moves it away.
        deps.store.footing().await
    }

    fn step_aside(&self, why: &str) {
        if !self.shared.stop.is_cancelled() {
            tracing::error!(
                why,
                "This worker steps aside: it claims nothing more, finishes what is on the wire, and ends"
            );
        }
        self.shared.stop.cancel();
    }
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
