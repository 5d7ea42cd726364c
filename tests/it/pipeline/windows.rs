//! Several messages in flight on one connection: everything that holds for one at a time holds for them.

use std::time::Duration;

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::message::MessageStatus::{Deferred, Sent};
use hikyaku::sink::{Act, At, Script, SinkOptions};
use hikyaku::store::queue::Wish;

use super::stage::{Plan, Stage, eventually, people, to};
use super::stories;
use super::workers::a_lost_lease_leaves_at_most_what_was_in_flight;
use crate::support::database::TestDatabase;

stories!(
    every_recipient_gets_exactly_one_copy_in_windows,
    a_message_of_a_window_that_is_refused_is_alone_in_that,
    what_was_in_flight_when_the_relay_broke_is_sent_again_and_flagged,
    what_stood_behind_a_goodbye_is_put_back_and_sent_once,
    a_pause_leaves_no_message_of_a_window_behind,
    a_lost_lease_leaves_at_most_a_window_in_doubt_per_connection,
);

const WINDOW: u32 = 8;

fn in_windows(connections: u16, script: Script) -> Plan {
    Plan {
        sink: SinkOptions {
            script,
            ..SinkOptions::default()
        },
        connections,
        chunking: WINDOW,
        ..Plan::default()
    }
}

async fn every_recipient_gets_exactly_one_copy_in_windows(database: TestDatabase) {
    let stage = Stage::open(database, in_windows(4, Script::default())).await;
    let worker = stage.hire().await;
    let id = stage.send(people(2_500)).await;
    let broadcast = stage.ended(&id).await;
    assert_eq!((broadcast.status, broadcast.counts.sent), (BroadcastStatus::Completed, 2_500));
    stage.assert_exactly_once(&id, 2_500).await;
    let stats = stage.sink.sink().stats();
    assert_eq!(stats.violations, 0);
    assert!(stats.flushes < 1_500, "{} round trips for 2,500 messages", stats.flushes);
    worker.end().await;
}

async fn a_message_of_a_window_that_is_refused_is_alone_in_that(database: TestDatabase) {
    let stage = Stage::open(database, in_windows(1, Script::default())).await;
    let worker = stage.hire().await;
    let odd = [
        "reject-550-5.1.1@x.example",
        "dot-554-5.7.1@x.example",
        "defer-once@x.example",
    ];
    let id = stage.send(people(40).into_iter().chain(odd.map(to)).collect()).await;
    let counts = stage.ended(&id).await.counts;
    assert_eq!((counts.sent, counts.failed), (41, 2));
    assert_eq!(stage.fates(&id, "defer-once@x.example").await, [Deferred, Sent]);
    assert_eq!(stage.message(&id, "reject-550-5.1.1@x.example").await.class, "invalid_recipient");
    assert_eq!(stage.sink.sink().stats().connections, 1);
    stage.assert_exactly_once(&id, 41).await;
    worker.end().await;
}

async fn what_was_in_flight_when_the_relay_broke_is_sent_again_and_flagged(database: TestDatabase) {
    let script = Script::default().once(At::Dot, 20, Act::Close);
    let stage = Stage::open(database, in_windows(1, script)).await;
    let worker = stage.hire().await;
    let id = stage.send(people(60)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 60);
    let flagged = stage.n_flagged(&id).await;
    assert!((1..=i64::from(WINDOW)).contains(&flagged), "{flagged}");
    let copies = stage.sink.sink().copies();
    assert_eq!(copies.len(), 60, "nobody is left out");
    worker.end().await;
}

async fn what_stood_behind_a_goodbye_is_put_back_and_sent_once(database: TestDatabase) {
    let goodbye = || Act::SayAndClose(b"421 4.3.2 enough for now\r\n".to_vec());
    let script = Script::default()
        .once(At::Mail, 12, goodbye())
        .once(At::Mail, 40, goodbye());
    let stage = Stage::open(database, in_windows(1, script)).await;
    let worker = stage.hire().await;
    let id = stage.send(people(60)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 60);
    stage.assert_exactly_once(&id, 60).await;
    assert_eq!(stage.sink.sink().stats().connections, 3);
    worker.end().await;
}

async fn a_pause_leaves_no_message_of_a_window_behind(database: TestDatabase) {
    let mut plan = in_windows(2, Script::default());
    plan.sink.latency = Duration::from_millis(5);
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let id = stage.send(people(3_000)).await;
    stage.accepted(50).await;
    stage
        .wish(
            &id,
            Wish::Pause {
                reason: "a look".into(),
            },
        )
        .await;
    eventually(async || stage.n_running(&id).await == 0).await;
    let paused = stage.broadcast(&id).await.counts;
    assert!(paused.queued > 0, "paused in time");
    assert_eq!(paused.sent as u64, stage.sink.sink().stats().accepted, "what was on the wire is on record");
    stage.wish(&id, Wish::Resume).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 3_000);
    stage.assert_exactly_once(&id, 3_000).await;
    worker.end().await;
}

async fn a_lost_lease_leaves_at_most_a_window_in_doubt_per_connection(database: TestDatabase) {
    let mut plan = in_windows(2, Script::default());
    plan.sink.latency = Duration::from_millis(20);
    a_lost_lease_leaves_at_most_what_was_in_flight(database, plan).await;
}
