//! A restored snapshot whose mail has had its day: what has passed its `expires_at` is not sent, resumed or not.

use std::sync::Arc;
use std::time::Duration;

use hikyaku::clock::{Clock, ManualClock, SystemClock};
use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::store::queue::Wish;

use super::stage::{Plan, Stage, people, to};
use super::stories;
use crate::support::database::{TestDatabase, copy_of};
use crate::support::program::Place;

stories!(a_restored_snapshot_does_not_send_what_has_expired);

const HOUR_MS: i64 = 3_600_000;

fn plan(clock: &ManualClock, latency_ms: u64) -> Plan {
    let mut plan = Plan {
        clock: Arc::new(clock.clone()),
        connections: 2,
        ..Plan::default()
    };
    plan.sink.latency = Duration::from_millis(latency_ms);
    plan.settings.poll = Duration::from_millis(50);
    plan
}

async fn a_restored_snapshot_does_not_send_what_has_expired(database: TestDatabase) {
    let clock = ManualClock::at(SystemClock.now());
    let place = Place::new();
    let source = TestDatabase::at(&database.url);
    let stage = Stage::open(database, plan(&clock, 10)).await;
    let end = clock.now().plus_ms(HOUR_MS);
    let late = stage.send_as(people(1_500), |b| b.expires_at = Some(end)).await;
    let lasting = stage
        .send((0..50).map(|i| to(&format!("l{i}@lasting.example"))).collect())
        .await;
    let worker = stage.hire().await;
    stage.accepted(100).await;
    worker.end().await;
    let before = stage.broadcast(&late).await;
    assert!(before.counts.sent > 0 && before.counts.queued > 0, "{before:?}");
    let copy = copy_of(&source, &place).await;

    // The disaster, and the restoration on the day after.
    drop(stage);
    clock.advance_ms(24 * HOUR_MS);
    let restored = Stage::open(copy, plan(&clock, 0)).await;
    for id in [&late, &lasting] {
        let shown = restored.broadcast(id).await;
        assert!(shown.status == BroadcastStatus::Paused || shown.counts.queued == 0, "{shown:?}");
        assert!(
            shown
                .reason
                .as_ref()
                .is_none_or(|why| why.contains("restored from a backup")),
            "{shown:?}"
        );
    }
    let worker = restored.hire().await;
    restored.wish(&late, Wish::Resume).await;
    if restored.broadcast(&lasting).await.status == BroadcastStatus::Paused {
        restored.wish(&lasting, Wish::Resume).await;
    }
    let ended = restored.ended(&late).await;
    assert_eq!(ended.counts.sent, before.counts.sent, "not one more");
    assert_eq!(ended.counts.expired, 1_500 - before.counts.sent);
    assert_eq!(restored.ended(&lasting).await.counts.sent, 50, "what does not expire goes on");
    let taken = restored.sink.sink().copies();
    assert!(taken.keys().all(|address| address.ends_with("@lasting.example")), "{taken:?}");
    worker.end().await;
}
