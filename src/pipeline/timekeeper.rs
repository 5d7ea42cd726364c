//! Keeps this process's clock by the database server's, which all processes on it share: what is due, and whose lease has lapsed, must
//! be one thing for all of them, however wrong the clock of one machine is. Never turns the machine's own clock.

use std::sync::Weak;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::FollowingClock;
use crate::domain::time::Timestamp;
use crate::store::{Result, Store};

/// Clocks drift by milliseconds in this time, and a clock that was set wrong on the server is followed this soon.
const EVERY: Duration = Duration::from_secs(5);
/// An answer that took longer tells the time too badly once there is a better one. It may be off by half of this.
const ROUND_TRIP_MAX_MS: i64 = 500;
/// A server that does not answer is asked again after this.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// What is told in the log: more than any drift.
const MOVED_MS: i64 = 2_000;

/// Asks the server for the time once, and sets the clock by it. Where there is no server nothing is set.
///
/// # Errors
/// When the database does not answer.
pub async fn set(store: &dyn Store, clock: &FollowingClock) -> Result<()> {
    let asked = FollowingClock::up();
    let Some(theirs) = store.time().await? else {
        return Ok(());
    };
    let took = FollowingClock::up() - asked;
    if took <= ROUND_TRIP_MAX_MS || !clock.is_set() {
        heed(clock.set(asked + took / 2, theirs), theirs);
    }
    Ok(())
}

fn heed(moved_ms: i64, theirs: Timestamp) {
    if moved_ms.abs() > MOVED_MS {
        tracing::warn!(moved_ms, %theirs, "The clock of the database's server differs from this process's, which follows it");
    }
}

/// Sets the clock again and again, until `stop` or the end of the store. While the database is away the clock goes on by itself.
pub async fn keep(store: Weak<dyn Store>, clock: FollowingClock, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let Some(store) = store.upgrade() else { return };
        // Others say in the log that the database is away. The connection is one of the readers': the heartbeat needs its own.
        drop(tokio::time::timeout(ANSWER_MAX, set(&*store, &clock)).await);
    }
}
