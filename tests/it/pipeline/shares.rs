//! Who gets how much, and when: weights, lanes, quiet hours, warming up, limits that change under way, and the one probe of a relay
//! that failed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hikyaku::clock::{Clock, ManualClock};
use hikyaku::domain::ledger::PaceRow;
use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::relay::{LaneLimit, Limits, QuietHours, RelaySpec, WarmUp};
use hikyaku::domain::time::Timestamp;
use hikyaku::sink::{Act, At, Script, Sink, SinkHandle, SinkOptions};

use super::stage::{Plan, Stage, eventually, people, to};
use super::stories;
use crate::support::database::{TestDatabase, fresh_postgres};

stories!(
    messages_are_shared_by_weight,
    a_weighty_relay_that_is_stuck_is_not_waited_for,
    a_recipient_that_one_relay_refuses_is_not_tried_at_another,
    quiet_hours_are_waited_for_in_their_time_zone,
    a_relay_that_warms_up_takes_more_each_day,
    a_lane_has_no_more_connections_than_it_may,
);

const HOUR_MS: i64 = 3_600_000;

async fn another(options: SinkOptions) -> SinkHandle {
    Sink::start(SinkOptions {
        count_recipients: true,
        ..options
    })
    .await
    .unwrap()
}

fn accepted(sink: &SinkHandle) -> u64 {
    sink.sink().stats().accepted
}

/// A stage whose clock is moved by hand.
async fn at_time(database: TestDatabase, now: &str) -> (Stage, ManualClock) {
    let clock = ManualClock::at(Timestamp::parse(now).unwrap());
    let mut plan = Plan {
        clock: Arc::new(clock.clone()),
        ..Plan::default()
    };
    plan.settings.poll = Duration::from_millis(50);
    plan.settings.heartbeat = Duration::from_millis(50);
    (Stage::open(database, plan).await, clock)
}

async fn messages_are_shared_by_weight(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let second = another(SinkOptions::default()).await;
    let url = format!("smtp://{}?connections=8", second.addr());
    stage.put_relay("sink", |spec| spec.weight = 3).await;
    stage.put_relay("second", |spec| spec.url = url).await;
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    let id = stage.send(people(4_000)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 4_000);
    let share = accepted(&stage.sink) as f64 / 4_000.0;
    assert!((0.70..=0.80).contains(&share), "{share} of the messages went through the relay that weighs 3 of 4");
    assert_eq!(accepted(&second) + accepted(&stage.sink), 4_000);
    worker.end().await;
}

async fn a_weighty_relay_that_is_stuck_is_not_waited_for(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let stuck = another(SinkOptions {
        script: Script::default().always(At::Dot, Act::Silence),
        ..SinkOptions::default()
    })
    .await;
    let url = format!("smtp://{}?connections=4", stuck.addr());
    stage
        .put_relay("stuck", |spec| (spec.url, spec.weight) = (url, 50))
        .await;
    let worker = stage.hire().await;
    let id = stage.send(people(2_000)).await;
    // It holds a message for each of its connections, and the one that was begun behind it.
    eventually(async || stage.broadcast(&id).await.counts.sent >= 1_992).await;
    assert_eq!(accepted(&stuck), 0);
    drop(worker);
}

async fn a_recipient_that_one_relay_refuses_is_not_tried_at_another(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let strict = another(SinkOptions {
        script: Script::default().for_address(
            At::Rcpt,
            "@gone.example",
            Act::Say(b"550 5.1.1 no such user\r\n".to_vec()),
        ),
        ..SinkOptions::default()
    })
    .await;
    let url = format!("smtp://{}?connections=2", strict.addr());
    stage
        .put_relay("strict", |spec| (spec.url, spec.weight) = (url.clone(), 1))
        .await;
    stage.put_relay("sink", |spec| spec.weight = 0).await;
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    let gone: Vec<_> = (0..50).map(|n| to(&format!("r{n}@gone.example"))).collect();
    let id = stage.send(gone).await;
    assert_eq!(stage.ended(&id).await.counts.failed, 50);
    assert_eq!(accepted(&stage.sink), 0);
    assert_eq!(stage.fates(&id, "r1@gone.example").await, [MessageStatus::Failed]);
    worker.end().await;
}

async fn quiet_hours_are_waited_for_in_their_time_zone(database: TestDatabase) {
    // Ten minutes to nine in the evening in UTC, ten to eleven in Berlin: it is summer.
    let (stage, clock) = at_time(database, "2026-07-01T20:50:00Z").await;
    let quiet = QuietHours {
        from: "22:00".parse().unwrap(),
        until: "07:00".parse().unwrap(),
        time_zone: "Europe/Berlin".into(),
    };
    stage.put_relay("sink", |spec| spec.quiet_hours = Some(quiet)).await;
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    let id = stage.send(people(100)).await;
    eventually(async || !stage.store.jobs(Some("running"), 5).await.unwrap().is_empty()).await;
    // The chunk is given back after some seconds; and then it is just before the end of the quiet hours.
    stage.given_back(&id, &clock).await;
    let end = Timestamp::parse("2026-07-02T05:00:00Z").unwrap();
    clock.advance_ms(end - clock.now() - 1);
    stage.another_look().await;
    assert_eq!((stage.broadcast(&id).await.counts.queued, accepted(&stage.sink)), (100, 0));
    clock.advance_ms(1);
    assert_eq!(stage.ended(&id).await.counts.sent, 100);
    worker.end().await;
}

async fn a_relay_that_warms_up_takes_more_each_day(database: TestDatabase) {
    let (stage, clock) = at_time(database, "2026-07-01T10:00:00Z").await;
    let warm_up = WarmUp {
        started_at: clock.now(),
        start_per_day: 20,
        factor: 2.0,
        ceiling_per_day: 100,
    };
    stage.put_relay("sink", |spec| spec.warm_up = Some(warm_up)).await;
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    let id = stage.send(people(500)).await;
    // 20, 40, 80, and then the ceiling is passed and nothing holds it any more.
    let mut so_far = 0;
    for today in [20, 40, 80] {
        so_far += today;
        stage.accepted(so_far).await;
        stage.given_back(&id, &clock).await;
        assert_eq!(accepted(&stage.sink), so_far);
        clock.advance_ms(24 * HOUR_MS);
    }
    assert_eq!(stage.ended(&id).await.counts.sent, 500);
    stage.assert_exactly_once(&id, 500).await;
    worker.end().await;
}

async fn a_lane_has_no_more_connections_than_it_may(database: TestDatabase) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("truth.ndjson");
    let plan = Plan {
        sink: SinkOptions {
            latency: Duration::from_millis(5),
            log: Some(log.clone()),
            ..SinkOptions::default()
        },
        ..Plan::default()
    };
    let stage = Stage::open(database, plan).await;
    let narrow = LaneLimit {
        lane: "narrow.example".into(),
        limits: Limits::default(),
        connections: Some(2),
    };
    stage.put_relay("sink", |spec| spec.lanes = vec![narrow]).await;
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    let mut all: Vec<_> = (0..200).map(|n| to(&format!("n{n}@narrow.example"))).collect();
    all.extend(people(400));
    let id = stage.send(all).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 600);
    worker.end().await;
    let (narrow, other) = most_at_once(&log);
    assert!((1..=2).contains(&narrow), "{narrow} connections at once to a lane that may have 2");
    assert!(other > 2, "the others had {other}");
}

/// Connections on which a message waited for its reply at the same time: to the narrow lane, and to any other.
fn most_at_once(log: &Path) -> (usize, usize) {
    let text = std::fs::read_to_string(log).unwrap();
    let (mut open, mut most) = ([std::collections::HashSet::new(), std::collections::HashSet::new()], [0, 0]);
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(address) = event["rcpt"][0].as_str() else {
            continue;
        };
        let side = usize::from(!address.ends_with("@narrow.example"));
        let connection = event["connection"].as_u64().unwrap();
        match event["event"].as_str().unwrap() {
            "data_complete" => open[side].insert(connection),
            "reply_flushed" => open[side].remove(&connection),
            _ => continue,
        };
        most[side] = most[side].max(open[side].len());
    }
    (most[0], most[1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_workers_heed_a_changed_limit_while_mail_goes_out() {
    let plan = Plan {
        rate: Some(20),
        ..Plan::default()
    };
    let stage = Stage::open(fresh_postgres().await, plan).await;
    let first = stage.hire().await;
    let second = stage.hire_on(stage.another_store().await).await;
    let id = stage.send(people(4_000)).await;
    stage.accepted(10).await;
    let before = [first.gauges.n_settled(), second.gauges.n_settled()];
    // At 20 a second it would take longer than anybody waits here.
    stage.put_relay("sink", |spec| spec.limits = Limits::default()).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 4_000);
    let after = [first.gauges.n_settled(), second.gauges.n_settled()];
    assert!(after[0] >= before[0] + 100 && after[1] >= before[1] + 100, "{before:?} {after:?}");
    stage.assert_exactly_once(&id, 4_000).await;
    first.end().await;
    second.end().await;
}

async fn own_pace(stage: &Stage) -> Option<PaceRow> {
    let id = stage.store.relay("sink").await.unwrap().unwrap().id;
    let rows = stage.store.paces().await.unwrap();
    rows.into_iter().find(|row| row.relay_id == id && row.lane.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_workers_tries_a_relay_that_failed_and_by_one_message() {
    let (mut stage, clock) = at_time(fresh_postgres().await, "2026-07-01T10:00:00Z").await;
    let down = another(SinkOptions {
        script: Script::default().always(At::Banner, Act::SayAndClose(b"421 4.3.2 going down\r\n".to_vec())),
        ..SinkOptions::default()
    })
    .await;
    let well = std::mem::replace(&mut stage.relay_at, down.addr());
    let first = stage.hire().await;
    let second = stage.hire_on(stage.another_store().await).await;
    let id = stage.send(people(2_000)).await;
    let failures = async || own_pace(&stage).await.map_or(0, |row| row.failures);
    eventually(async || failures().await == 1).await;
    let tries = || down.sink().stats().connections;
    let mut before = None;
    for round in 2..=5 {
        let until = own_pace(&stage).await.unwrap().suspended_until.unwrap();
        clock.advance_ms(until - clock.now());
        eventually(async || failures().await == round).await;
        // The first failures came from many connections at once, and one or the other may still have been on its way.
        if let Some(before) = before.filter(|_| round > 3) {
            assert_eq!(tries(), before + 1, "one probe for both workers");
        }
        before = Some(tries());
    }
    let url = format!("smtp://{well}?connections=8");
    stage.put_relay("sink", |spec: &mut RelaySpec| spec.url = url).await;
    // Whoever mends a relay does not wait for the end of its suspension: the clock stands still from here.
    assert_eq!(stage.ended(&id).await.counts.sent, 2_000);
    assert_eq!(stage.fates(&id, "r1@d1.example").await, [MessageStatus::Sent], "no attempt was burnt");
    stage.assert_exactly_once(&id, 2_000).await;
    first.end().await;
    second.end().await;
}
