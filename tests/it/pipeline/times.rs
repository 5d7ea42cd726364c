//! Messages whose time has not come, has passed, or is running out. The clock of these stories is moved by hand.

use std::sync::Arc;
use std::time::Duration;

use hikyaku::clock::{Clock, ManualClock, SystemClock};
use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::contact::SuppressionReason;
use hikyaku::domain::message::MessageStatus::{Deferred, Expired, Failed, Suppressed};

use super::stage::{Plan, Stage, eventually, people, to};
use super::stories;
use crate::support::database::TestDatabase;

stories!(
    a_scheduled_broadcast_starts_when_it_is_due_and_not_before,
    an_address_suppressed_between_the_fan_out_and_its_turn_gets_nothing,
    a_message_whose_time_has_passed_is_not_sent,
    a_message_expires_while_it_waits_for_another_try,
    a_message_that_is_deferred_for_too_long_fails,
);

const HOUR_MS: i64 = 3_600_000;

async fn with_a_clock(database: TestDatabase, retry_after: Duration) -> (Stage, ManualClock) {
    let clock = ManualClock::at(SystemClock.now());
    let mut plan = Plan {
        clock: Arc::new(clock.clone()),
        ..Plan::default()
    };
    plan.settings.poll = Duration::from_millis(50);
    plan.settings.heartbeat = Duration::from_millis(50);
    plan.settings.retry.delays = vec![retry_after];
    (Stage::open(database, plan).await, clock)
}

async fn a_scheduled_broadcast_starts_when_it_is_due_and_not_before(database: TestDatabase) {
    let (stage, clock) = with_a_clock(database, Duration::from_secs(1)).await;
    let worker = stage.hire().await;
    let start = clock.now().plus_ms(HOUR_MS);
    let id = stage.send_as(people(1_500), |b| b.send_at = Some(start)).await;
    eventually(async || stage.store.jobs(Some("waiting"), 5).await.unwrap().len() == 2).await;
    clock.advance_ms(HOUR_MS - 1);
    // Work that is due passes it by: had it started early, some of it would be out by now.
    let other = stage.send(people(1_100)).await;
    stage.ended(&other).await;
    assert_eq!(stage.broadcast(&id).await.status, BroadcastStatus::Scheduled);
    assert_eq!(stage.sink.sink().stats().accepted, 1_100);
    clock.advance_ms(1);
    let broadcast = stage.ended(&id).await;
    assert_eq!((broadcast.counts.sent, broadcast.started_at), (1_500, Some(start)));
    worker.end().await;
}

async fn an_address_suppressed_between_the_fan_out_and_its_turn_gets_nothing(database: TestDatabase) {
    let (stage, clock) = with_a_clock(database, Duration::from_secs(1)).await;
    let worker = stage.hire().await;
    let start = clock.now().plus_ms(HOUR_MS);
    let id = stage.send_as(people(20), |b| b.send_at = Some(start)).await;
    eventually(async || !stage.store.jobs(Some("waiting"), 5).await.unwrap().is_empty()).await;
    let unwanted = "r3@d3.example".to_owned();
    stage
        .store
        .suppress(std::slice::from_ref(&unwanted), SuppressionReason::Unsubscribed, "link", clock.now())
        .await
        .unwrap();
    clock.advance_ms(HOUR_MS);
    let counts = stage.ended(&id).await.counts;
    assert_eq!((counts.sent, counts.suppressed), (19, 1));
    assert_eq!(stage.message(&id, &unwanted).await.status, Suppressed);
    stage.assert_exactly_once(&id, 19).await;
    worker.end().await;
}

async fn a_message_whose_time_has_passed_is_not_sent(database: TestDatabase) {
    let (stage, clock) = with_a_clock(database, Duration::from_secs(1)).await;
    let end = clock.now().plus_ms(1_000);
    let late = stage.send_as(people(1_500), |b| b.expires_at = Some(end)).await;
    let lasting = stage.send(people(10)).await;
    clock.advance_ms(1_000);
    let worker = stage.hire().await;
    let broadcast = stage.ended(&late).await;
    assert_eq!((broadcast.status, broadcast.counts.expired), (BroadcastStatus::Completed, 1_500));
    assert_eq!(stage.message(&late, "r3@d3.example").await.attempts, 0);
    assert_eq!(stage.ended(&lasting).await.counts.sent, 10);
    stage.assert_exactly_once(&lasting, 10).await;
    worker.end().await;
}

// The wait, with its jitter, lies between the expiry and the maximum age of a message.
async fn a_message_expires_while_it_waits_for_another_try(database: TestDatabase) {
    let (stage, clock) = with_a_clock(database, Duration::from_secs(2_500)).await;
    let worker = stage.hire().await;
    let (busy, end) = ("defer-451@x.example", clock.now().plus_ms(HOUR_MS / 2));
    let recipients = people(5).into_iter().chain([to(busy)]).collect();
    let id = stage.send_as(recipients, |b| b.expires_at = Some(end)).await;
    eventually(async || {
        let counts = stage.broadcast(&id).await.counts;
        (counts.sent, counts.deferred) == (5, 1)
    })
    .await;
    assert_eq!(stage.message(&id, busy).await.next_at, Some(end), "it need not wait longer than it lives");
    clock.advance_ms(HOUR_MS / 2);
    let counts = stage.ended(&id).await.counts;
    assert_eq!((counts.sent, counts.expired), (5, 1));
    assert_eq!(stage.fates(&id, busy).await, [Deferred]);
    let message = stage.message(&id, busy).await;
    assert_eq!((message.status, message.attempts), (Expired, 1));
    worker.end().await;
}

async fn a_message_that_is_deferred_for_too_long_fails(database: TestDatabase) {
    let (stage, clock) = with_a_clock(database, Duration::from_secs(1_500)).await;
    let worker = stage.hire().await;
    let busy = "defer-451-4.3.0@x.example";
    let id = stage.send(people(5).into_iter().chain([to(busy)]).collect()).await;
    for attempt in 1..=2 {
        eventually(async || {
            stage.broadcast(&id).await.counts.deferred == 1
                && stage.message(&id, busy).await.attempts == attempt
                && stage.n_running(&id).await == 0
        })
        .await;
        // The wait, with the most that jitter adds.
        clock.advance_ms(1_800_000);
    }
    // The maximum age is an hour, and the next wait would end after it.
    let counts = stage.ended(&id).await.counts;
    assert_eq!((counts.sent, counts.failed), (5, 1));
    assert_eq!(stage.fates(&id, busy).await, [Deferred; 3], "the relay's word for each try");
    let message = stage.message(&id, busy).await;
    assert_eq!((message.status, message.class.as_str(), message.next_at), (Failed, "system_error", None));
    worker.end().await;
}
