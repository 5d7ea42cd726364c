//! Stage 7, sweep: what nobody owns is given back or removed. Never a leader's task: every step is idempotent, and any node
//! may take it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::delivery::BOUNCES_KEPT_MS;
use crate::store::workers::Rescued;
use crate::store::{Result, Store};

/// Staged recipients of a request that was never accepted are kept this long: longer than any upload takes.
const STAGED_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// How often they are looked for.
const STAGED_EVERY: Duration = Duration::from_secs(600);

/// Chunks that one transaction removes: a few thousand rows, so that no commit waits long for it.
const PRUNED_AT_ONCE: i64 = 5;
/// How often it is asked whether something has been kept long enough, once nothing was left to remove.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// How often it is looked whether a worker was lost: what is added to a lease until others go on with its jobs.
const RESCUE_EVERY: Duration = Duration::from_secs(1);

/// Gives the jobs of lost workers back until told to stop. It waits for nothing else that a worker does. `worker` tells this
/// worker's present id; `None` while it must not judge others.
pub async fn rescue(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    worker: impl Fn() -> Option<i64>,
    ended: CancellationToken,
) {
    loop {
        if let Some(worker) = worker() {
            match store.rescue(worker, clock.now()).await {
                Ok(rescued) => rescued.iter().for_each(tell),
                Err(error) => {
                    tracing::warn!(%error, "It could not be looked whether a worker was lost; it is repeated")
                }
            }
        }
        // The jitter keeps many workers from asking all at once.
        let pause = RESCUE_EVERY.mul_f64(0.75 + fastrand::f64() / 4.0);
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn tell(rescued: &Rescued) {
    if rescued.quarantined {
        tracing::error!(job.id = rescued.job_id, "A job was set aside: its owners died with it again and again");
    } else {
        tracing::info!(job.id = rescued.job_id, "A job of a lost worker is ready again");
    }
}

/// Upkeep that is due from time to time.
pub struct Upkeep {
    unheld_every: Duration,
    unheld_at: Instant,
    staged_at: Instant,
    /// How long recipients and outcomes are kept after their broadcast has ended; `None` is for ever.
    messages_kept: Option<Duration>,
    prune_at: Instant,
}

impl Upkeep {
    /// Jobs that never arrived are looked for a few times in the length of a lease.
    #[must_use]
    pub fn new(lease: Duration, messages_kept: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            unheld_every: lease / 5,
            unheld_at: now,
            staged_at: now,
            messages_kept,
            prune_at: now,
        }
    }

    /// Does what is due, for a worker that has these jobs at hand.
    ///
    /// # Errors
    /// Of the store; it stays due.
    pub async fn run(&mut self, store: &dyn Store, clock: &dyn Clock, worker: i64, held: &[i64]) -> Result<()> {
        let now = Instant::now();
        if now >= self.unheld_at {
            // A claim may take effect and its answer be lost: nobody would rescue what a living worker owns.
            for job_id in store.give_back_unheld(worker, held).await? {
                tracing::info!(job.id = job_id, "A job that was claimed and never arrived is ready again");
            }
            self.unheld_at = now + self.unheld_every;
        }
        if now >= self.staged_at {
            store
                .sweep_staged(clock.now().plus_ms(-(STAGED_KEPT.as_millis() as i64)))
                .await?;
            store.forget_bounces(clock.now().plus_ms(-BOUNCES_KEPT_MS)).await?;
            self.staged_at = now + STAGED_EVERY;
        }
        if let Some(kept) = self.messages_kept.filter(|_| now >= self.prune_at) {
            let before = clock
                .now()
                .plus_ms(-i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
            let is_through = store.prune(before, PRUNED_AT_ONCE).await? == 0;
            self.prune_at = now + if is_through { PRUNE_EVERY } else { self.unheld_every };
        }
        Ok(())
    }
}
