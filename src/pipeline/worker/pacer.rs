//! Asks the ledger for permits while there is something that needs them, and wakes the connections when one falls due. Without
//! limits it does nothing and asks nobody.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;

/// Between two asks: several in the time that permits are dealt out ahead.
const ASK_GAP: Duration = Duration::from_millis(60);
/// How often it is looked whether something needs permits when nobody calls.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// Asks for permits until the worker stops.
pub(super) async fn ask(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let asks = shared.board.asks();
        let is_idle = asks.is_empty();
        for (relay_id, asks) in asks {
            let now = shared.deps.clock.now();
            match shared.deps.store.take_permits(relay_id, &asks, now).await {
                Ok(grants) => shared.board.granted(relay_id, &asks, Some(&grants)),
                Err(error) => {
                    tracing::warn!(%error, "Permits could not be had from the database; nothing goes that needs one");
                    shared.board.granted(relay_id, &asks, None);
                }
            }
        }
        let gap = if is_idle && !shared.board.is_limited() {
            IDLE_LOOK
        } else {
            ASK_GAP
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(gap) => {}
        }
    }
}

/// Wakes connections when what they wait for falls due.
pub(super) async fn tick(shared: Arc<Shared>) {
    loop {
        let now_us = shared.deps.clock.now().0 * 1_000;
        let wait = shared
            .board
            .opens_us()
            .map(|at| Duration::from_micros(u64::try_from(at - now_us).unwrap_or(0)));
        // A timer's grain is a millisecond; anything longer is looked at again, since clocks can be set.
        let wait = wait.unwrap_or(IDLE_LOOK).clamp(Duration::from_millis(1), IDLE_LOOK);
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.board.timing() => {}
            () = tokio::time::sleep(wait) => shared.board.call_if_due(),
        }
    }
}
