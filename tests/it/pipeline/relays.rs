//! Several relays behind one worker: who carries what, what happens when one fails, and what a change does while mail goes out.

use std::sync::Arc;

use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::relay::{EVERY_LANE, LaneLimit, Limits, RelaySpec};
use hikyaku::sink::{Act, At, Script, Sink, SinkHandle, SinkOptions};

use super::stage::{Plan, Stage, eventually, people, to};
use super::stories;
use crate::support::database::{TestDatabase, fresh_postgres};

stories!(
    a_broadcast_goes_through_the_relay_it_names,
    a_message_whose_relay_is_missing_waits_untried,
    a_paused_relay_sends_nothing_until_it_is_resumed,
    what_a_relay_that_is_down_had_goes_through_another,
    a_relay_that_refuses_our_password_is_paused,
    a_relay_that_denies_relaying_loses_nothing_to_the_other,
    a_shut_lane_holds_up_no_other,
    a_relay_that_takes_nothing_holds_nobody_up,
);

async fn another(script: Script) -> SinkHandle {
    let options = SinkOptions {
        count_recipients: true,
        script,
        ..SinkOptions::default()
    };
    Sink::start(options).await.unwrap()
}

fn at(sink: &SinkHandle) -> String {
    format!("smtp://{}?connections=4", sink.addr())
}

fn accepted(sink: &SinkHandle) -> u64 {
    sink.sink().stats().accepted
}

async fn a_broadcast_goes_through_the_relay_it_names(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let second = another(Script::default()).await;
    stage
        .put_relay("second", |spec| (spec.url, spec.weight) = (at(&second), 0))
        .await;
    let worker = stage.hire().await;
    let any = stage.send(people(100)).await;
    assert_eq!(stage.ended(&any).await.counts.sent, 100);
    assert_eq!(accepted(&second), 0, "without a weight it is used when it is named");
    let named = stage
        .send_as(people(100), |new| new.relay = Some("second".into()))
        .await;
    assert_eq!(stage.ended(&named).await.counts.sent, 100);
    assert_eq!((accepted(&second), accepted(&stage.sink)), (100, 100));
    assert_eq!(stage.message(&named, "r1@d1.example").await.relay.as_deref(), Some("second"));
    worker.end().await;
}

async fn a_message_whose_relay_is_missing_waits_untried(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let worker = stage.hire().await;
    let id = stage.send_as(people(10), |new| new.relay = Some("later".into())).await;
    let other = stage.send(people(10)).await;
    assert_eq!(stage.ended(&other).await.counts.sent, 10);
    // The job is given back: it does not keep the worker's hands full.
    eventually(async || stage.store.jobs(Some("waiting"), 10).await.unwrap().len() == 1).await;
    assert_eq!(stage.broadcast(&id).await.counts.queued, 10);
    stage.put_relay("later", |_| {}).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 10);
    assert_eq!(stage.fates(&id, "r1@d1.example").await, [MessageStatus::Sent]);
    worker.end().await;
}

async fn a_paused_relay_sends_nothing_until_it_is_resumed(database: TestDatabase) {
    let stage = Stage::open(
        database,
        Plan {
            rate: Some(50),
            ..Plan::default()
        },
    )
    .await;
    let worker = stage.hire().await;
    let id = stage.send(people(300)).await;
    stage.accepted(20).await;
    let now = stage.plan.clock.now();
    stage.store.pause_relay("sink", Some("maintenance"), now).await.unwrap();
    eventually(async || stage.n_running(&id).await == 0).await;
    let before = accepted(&stage.sink);
    assert!(before < 300, "it was paused under way");
    assert_eq!(stage.broadcast(&id).await.counts.queued, 300 - before as i64);
    stage.put_relay("sink", |spec| spec.limits = Limits::default()).await;
    stage.store.pause_relay("sink", None, now).await.unwrap();
    assert_eq!(stage.ended(&id).await.counts.sent, 300);
    stage.assert_exactly_once(&id, 300).await;
    worker.end().await;
}

async fn what_a_relay_that_is_down_had_goes_through_another(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let down = another(Script::default().always(At::Banner, Act::SayAndClose(b"421 going down\r\n".to_vec()))).await;
    stage
        .put_relay("down", |spec| (spec.url, spec.weight) = (at(&down), 100))
        .await;
    let worker = stage.hire().await;
    let id = stage.send(people(500)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 500);
    assert_eq!(stage.fates(&id, "r1@d1.example").await, [MessageStatus::Sent], "no attempt was burnt");
    stage.assert_exactly_once(&id, 500).await;
    worker.end().await;
}

async fn a_relay_that_refuses_our_password_is_paused(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let options = SinkOptions {
        require_auth: Some(("anna".into(), "right".into())),
        ..SinkOptions::default()
    };
    let strict = Sink::start(options).await.unwrap();
    let url = format!("smtp://anna:wrong@{}?connections=4", strict.addr());
    stage
        .put_relay("strict", |spec| (spec.url, spec.weight) = (url, 100))
        .await;
    let worker = stage.hire().await;
    let id = stage.send(people(200)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 200);
    assert_eq!(stage.fates(&id, "r1@d1.example").await, [MessageStatus::Sent]);
    eventually(async || stage.store.relay("strict").await.unwrap().unwrap().paused.is_some()).await;
    let paused = stage.store.relay("strict").await.unwrap().unwrap().paused.unwrap();
    assert!(paused.contains("535"), "{paused}");
    let tries = strict.sink().stats().connections;
    assert!((1..=4).contains(&tries), "{tries} tries with four connections");
    worker.end().await;
}

async fn a_relay_that_denies_relaying_loses_nothing_to_the_other(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let denying =
        another(Script::default().always(At::Rcpt, Act::Say(b"554 5.7.1 Relay access denied\r\n".to_vec()))).await;
    stage.put_relay("denying", |spec| spec.url = at(&denying)).await;
    let worker = stage.hire().await;
    let id = stage.send(people(100)).await;
    let ended = stage.ended(&id).await;
    assert_eq!((ended.counts.sent, ended.counts.failed), (100, 0));
    stage.assert_exactly_once(&id, 100).await;
    worker.end().await;
}

async fn a_shut_lane_holds_up_no_other(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let slow = LaneLimit {
        lane: "slow.example".into(),
        limits: Limits {
            per_day: Some(3),
            ..Limits::default()
        },
        connections: None,
    };
    stage.put_relay("sink", |spec| spec.lanes = vec![slow]).await;
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    let mut all: Vec<_> = (0..400).map(|n| to(&format!("s{n}@slow.example"))).collect();
    all.extend(people(600));
    let id = stage.send(all).await;
    stage.accepted(603).await;
    eventually(async || stage.n_running(&id).await == 0).await;
    let counts = stage.broadcast(&id).await.counts;
    assert_eq!((counts.sent, counts.queued), (603, 397), "the rest waits for tomorrow, untried");
    stage.put_relay("sink", |_| {}).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 1_000);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_a_relay_holds_for_all_workers_within_a_second() {
    let mut plan = Plan {
        rate: Some(200),
        ..Plan::default()
    };
    // One chunk for each of them.
    plan.settings.concurrent_jobs = 1;
    let stage = Stage::open(fresh_postgres().await, plan).await;
    let (first, second) = (stage.hire().await, stage.hire_on(stage.another_store().await).await);
    let id = stage.send(people(2_000)).await;
    stage.accepted(100).await;
    eventually(async || stage.n_running(&id).await == 2).await;
    let moved = another(Script::default()).await;
    stage.put_relay("sink", |spec| spec.url = at(&moved)).await;
    let edited_at = stage.plan.clock.now();
    assert_eq!(stage.ended(&id).await.counts.sent, 2_000);
    assert_eq!(accepted(&stage.sink) + accepted(&moved), 2_000, "none was lost or doubled by the move");
    let last = stage.sink.sink().newest(1)[0].at;
    assert!(
        last.0 - edited_at.0 <= 1_000,
        "the old address still got mail {} ms after the edit",
        last.0 - edited_at.0
    );
    assert!(accepted(&moved) > 1_000, "most of it was sent after the edit");
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_a_day_holds_for_all_workers() {
    let stage = Stage::open(fresh_postgres().await, Plan::default()).await;
    let limits = Limits {
        per_day: Some(120),
        ..Limits::default()
    };
    let every = LaneLimit {
        lane: EVERY_LANE.into(),
        limits: Limits {
            per_hour: Some(1_000),
            ..Limits::default()
        },
        connections: Some(2),
    };
    let change = |spec: &mut RelaySpec| (spec.limits, spec.lanes) = (limits, vec![every.clone()]);
    stage.put_relay("sink", change).await;
    let first = stage.hire_as_it_is(Arc::clone(&stage.store));
    let second = stage.hire_as_it_is(stage.another_store().await);
    let id = stage.send(people(2_500)).await;
    stage.accepted(120).await;
    eventually(async || {
        stage.n_running(&id).await == 0 && stage.store.jobs(Some("ready"), 10).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(stage.broadcast(&id).await.counts.sent, 120);
    first.end().await;
    second.end().await;
}

async fn a_relay_that_takes_nothing_holds_nobody_up(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let tarpit = another(Script::default().always(At::Mail, Act::Silence)).await;
    let third = another(Script::default()).await;
    stage
        .put_relay("tarpit", |spec| (spec.url, spec.weight) = (at(&tarpit), 100))
        .await;
    stage.put_relay("third", |spec| spec.url = at(&third)).await;
    let worker = stage.hire().await;
    let id = stage.send(people(2_000)).await;
    // The tarpit holds one message for each of its connections, and no more.
    eventually(async || stage.broadcast(&id).await.counts.sent >= 1_996).await;
    assert_eq!(accepted(&tarpit), 0);
    assert!(accepted(&third) > 0 && accepted(&stage.sink) > 0);
    worker.end().await;
    let left = stage.broadcast(&id).await.counts;
    assert_eq!(left.queued, 2_000 - left.sent, "what the tarpit held was put back untried");
}
