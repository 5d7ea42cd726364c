//! Why a broadcast is slow, and when it will be through: the one limit that binds is named.

use std::sync::Arc;

use hikyaku::domain::brake::{Brake, BrakeKind};
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::ledger::Span;
use hikyaku::domain::relay::{LaneLimit, Limits};
use hikyaku::pipeline::outlook::{Outlook, outlook};
use hikyaku::sink::{Act, At, Script, SinkOptions};

use super::stage::{Plan, Stage, eventually, people, to};
use super::stories;
use crate::support::database::TestDatabase;

stories!(
    without_a_worker_that_is_why,
    a_pause_and_a_missing_relay_are_why,
    the_limit_of_a_second_is_why,
    a_used_up_day_is_why_and_the_rest_goes_tomorrow,
    a_lane_is_why_when_only_its_messages_are_left,
    busy_connections_are_why,
    retries_are_why_when_nothing_else_is_left,
);

async fn look(stage: &Stage, id: &BroadcastId) -> Outlook {
    let now = stage.plan.clock.now();
    let broadcast = stage.broadcast(id).await;
    let rate = stage.store.rate(id, now).await.unwrap();
    outlook(&*stage.store, &broadcast, rate, now).await.unwrap()
}

/// Waits until this is why.
async fn why(stage: &Stage, id: &BroadcastId, kind: BrakeKind) -> (Brake, Option<i64>) {
    eventually(async || look(stage, id).await.slowed_by.is_some_and(|b| b.kind == kind)).await;
    let seen = look(stage, id).await;
    (seen.slowed_by.unwrap(), seen.eta_ms)
}

async fn without_a_worker_that_is_why(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    stage.put_relay("sink", |_| {}).await;
    let id = stage.send(people(10)).await;
    let (brake, eta) = why(&stage, &id, BrakeKind::NoWorker).await;
    assert_eq!((brake.until, eta), (None, None), "somebody has to act");
}

async fn a_pause_and_a_missing_relay_are_why(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    stage.put_relay("sink", |_| {}).await;
    let now = stage.plan.clock.now();
    stage.store.pause_relay("sink", Some("maintenance"), now).await.unwrap();
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    let id = stage.send(people(10)).await;
    let named = stage.send_as(people(10), |new| new.relay = Some("other".into())).await;
    let (brake, eta) = why(&stage, &id, BrakeKind::RelayPaused).await;
    assert_eq!((brake.relay.as_deref(), brake.reason.as_str(), eta), (Some("sink"), "maintenance", None));
    let (brake, _) = why(&stage, &named, BrakeKind::NoRelay).await;
    assert!(brake.reason.contains("no relay other"), "{brake:?}");
    stage.store.pause_relay("sink", None, now).await.unwrap();
    stage.ended(&id).await;
    assert_eq!(look(&stage, &id).await, Outlook::default(), "nothing is in the way of what has ended");
    worker.end().await;
}

async fn the_limit_of_a_second_is_why(database: TestDatabase) {
    let plan = Plan {
        rate: Some(20),
        ..Plan::default()
    };
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let id = stage.send(people(900)).await;
    let (brake, _) = why(&stage, &id, BrakeKind::SecondLimit).await;
    assert!(brake.reason.contains("20 messages a second"), "{brake:?}");
    assert_eq!((brake.relay.as_deref(), brake.until), (Some("sink"), None));
    eventually(async || look(&stage, &id).await.eta_ms.is_some_and(|ms| ms > 10_000)).await;
    worker.end().await;
}

async fn a_used_up_day_is_why_and_the_rest_goes_tomorrow(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    stage.put_relay("sink", |spec| spec.limits.per_day = Some(30)).await;
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    let id = stage.send(people(100)).await;
    eventually(async || stage.broadcast(&id).await.counts.queued == 70).await;
    let (brake, eta) = why(&stage, &id, BrakeKind::DayLimit).await;
    let now = stage.plan.clock.now();
    assert_eq!(brake.until, Some(Span::Day.end(now)));
    // 30 today; 70 are left for tomorrow, the day after and the one after that.
    let days = eta.unwrap() as f64 / (24.0 * 3_600_000.0);
    assert!((2.0..=3.0).contains(&days), "{days}");
    worker.end().await;
}

async fn a_lane_is_why_when_only_its_messages_are_left(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let slow = LaneLimit {
        lane: "slow.example".into(),
        limits: Limits {
            per_hour: Some(5),
            ..Limits::default()
        },
        connections: None,
    };
    stage.put_relay("sink", |spec| spec.lanes = vec![slow]).await;
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    let mut all: Vec<_> = (0..40).map(|n| to(&format!("s{n}@slow.example"))).collect();
    all.extend(people(60));
    let id = stage.send(all).await;
    let (brake, _) = why(&stage, &id, BrakeKind::LaneLimit).await;
    assert_eq!((brake.relay.as_deref(), brake.lane.as_deref()), (Some("sink"), Some("slow.example")));
    // Also when no worker holds the chunk any more.
    eventually(async || stage.n_running(&id).await == 0).await;
    let (brake, eta) = why(&stage, &id, BrakeKind::LaneLimit).await;
    assert!(brake.reason.contains("5 messages an hour") && brake.until.is_some(), "{brake:?}");
    assert!(eta.is_some());
    worker.end().await;
}

async fn busy_connections_are_why(database: TestDatabase) {
    let stuck = SinkOptions {
        script: Script::default().always(At::Mail, Act::Silence),
        ..SinkOptions::default()
    };
    let plan = Plan {
        sink: stuck,
        connections: 2,
        ..Plan::default()
    };
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let id = stage.send(people(100)).await;
    let (brake, eta) = why(&stage, &id, BrakeKind::ConnectionsBusy).await;
    assert!(brake.reason.contains("2 connections"), "{brake:?}");
    assert_eq!(eta, None, "nothing moves");
    worker.end().await;
}

async fn retries_are_why_when_nothing_else_is_left(database: TestDatabase) {
    let mut plan = Plan {
        sink: SinkOptions {
            script: Script::default().always(At::Rcpt, Act::Say(b"450 4.2.0 greylisted\r\n".to_vec())),
            ..SinkOptions::default()
        },
        ..Plan::default()
    };
    plan.settings.retry.delays = vec![std::time::Duration::from_secs(600)];
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let id = stage.send(people(20)).await;
    let (brake, eta) = why(&stage, &id, BrakeKind::Retries).await;
    let left = brake.until.unwrap() - stage.plan.clock.now();
    assert!(left > 0 && left <= 720_000, "{left}");
    assert!(eta.is_some_and(|ms| ms > 0 && ms <= 720_000), "{eta:?}");
    worker.end().await;
}
