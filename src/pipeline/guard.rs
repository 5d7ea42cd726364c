//! Beside the stages, the guard: looks at the broadcasts under way and stops one whose messages fail, and lets the rest of one
//! follow its canary. Never counts by itself: the counts are the store's, the decision is `domain::safety`'s, and of many
//! nodes that come to the same one the store lets one take it.
//!
//! It looks when a message of this worker failed, and at least every [`LOOK_EVERY`]. So a broadcast that goes wrong stops
//! within [`LOOK_GAP`], a look and a commit of the evidence; what the connections send meanwhile is the overshoot.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::safety::{Limits, Step, judge};
use crate::store::{Result, Store};

/// Two looks follow each other no faster: each sums up the jobs of the broadcasts that have failures.
pub const LOOK_GAP: Duration = Duration::from_millis(250);
/// A look without a call: a canary's time may be over, or the failures be other workers'.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks until told to stop. `worker` tells this worker's present id, and how many connections to relays all workers may have.
pub async fn watch(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    failed: Arc<Notify>,
    worker: impl Fn() -> (i64, i64),
    ended: CancellationToken,
) {
    loop {
        let (id, connections) = worker();
        if let Err(error) = look(&*store, &*clock, &limits, id, connections).await {
            tracing::warn!(%error, "The broadcasts under way could not be looked at; it is repeated");
        }
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(LOOK_GAP) => {}
        }
        tokio::select! {
            () = ended.cancelled() => return,
            () = failed.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY - LOOK_GAP) => {}
        }
    }
}

/// One look at everything under watch.
///
/// # Errors
/// Of the store; what was decided before is done.
pub async fn look(store: &dyn Store, clock: &dyn Clock, limits: &Limits, worker: i64, connections: i64) -> Result<()> {
    for (id, watched) in store.watched(worker).await? {
        let step = judge(&watched, limits, connections, clock.now());
        if step == Step::Nothing || !store.take_step(&id, &watched, &step, clock.now()).await? {
            continue;
        }
        match step {
            Step::OpenGate => tracing::info!(broadcast.id = %id, "The canary went well; the rest follows"),
            Step::Pause(pause) => {
                let why = pause.sentence().unwrap_or_default();
                tracing::warn!(broadcast.id = %id, kind = pause.kind.as_str(), why, "A broadcast is paused");
            }
            Step::Nothing | Step::CanaryTried | Step::Reckon(_) => {}
        }
    }
    Ok(())
}
