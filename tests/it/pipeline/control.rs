//! An operator's wishes while mail is on its way.

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::sink::SinkOptions;
use hikyaku::store::queue::Wish;

use super::stage::{Plan, Stage, eventually, people};
use super::stories;
use crate::support::database::TestDatabase;

stories!(
    a_paused_broadcast_stands_still_until_it_is_resumed,
    a_canceled_broadcast_sends_nothing_more_and_every_recipient_is_accounted_for,
    pauses_and_resumes_in_any_order_lose_and_double_nothing,
);

/// Slow enough to be met half-way.
fn slow() -> Plan {
    Plan {
        sink: SinkOptions {
            latency: std::time::Duration::from_millis(4),
            ..SinkOptions::default()
        },
        ..Plan::default()
    }
}

fn pause() -> Wish {
    Wish::Pause {
        reason: "an operator".into(),
    }
}

async fn a_paused_broadcast_stands_still_until_it_is_resumed(database: TestDatabase) {
    let stage = Stage::open(database, slow()).await;
    let worker = stage.hire().await;
    let id = stage.send(people(3_000)).await;
    stage.accepted(300).await;
    let paused = stage.wish(&id, pause()).await;
    assert_eq!((paused.status, paused.reason.as_deref()), (BroadcastStatus::Paused, Some("an operator")));
    eventually(async || stage.n_running(&id).await == 0).await;
    let out = stage.sink.sink().stats().accepted;
    assert!((300..2_900).contains(&out), "{out}");
    assert_eq!(stage.broadcast(&id).await.counts.sent as u64, out);

    // Another one goes by meanwhile: the worker is well, and has nothing to send for the first.
    let other = stage.send(super::people(50)).await;
    stage.ended(&other).await;
    let still = stage.broadcast(&id).await;
    assert_eq!((still.status, still.counts.sent as u64), (BroadcastStatus::Paused, out));
    assert_eq!(stage.sink.sink().stats().accepted, out + 50);

    stage.wish(&id, Wish::Resume).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 3_000);
    assert_eq!(stage.sink.sink().stats().accepted, 3_050);
    assert_eq!(stage.n_flagged(&id).await, 0);
    worker.end().await;
}

async fn a_canceled_broadcast_sends_nothing_more_and_every_recipient_is_accounted_for(database: TestDatabase) {
    let stage = Stage::open(database, slow()).await;
    let worker = stage.hire().await;
    let id = stage.send(people(5_000)).await;
    stage.accepted(300).await;
    assert_eq!(stage.wish(&id, Wish::Cancel).await.status, BroadcastStatus::Canceled);
    let broadcast = stage.ended(&id).await;
    assert_eq!(broadcast.status, BroadcastStatus::Canceled);
    assert_eq!(broadcast.counts.sent + broadcast.counts.canceled, 5_000);
    assert!((300..4_900).contains(&broadcast.counts.sent), "{:?}", broadcast.counts);
    let other = stage.send(vec![super::stage::to("late@x.example")]).await;
    stage.ended(&other).await;
    assert_eq!(stage.sink.sink().copies().len() as i64, broadcast.counts.sent + 1, "nothing after the cancel");
    stage.assert_exactly_once(&id, broadcast.counts.sent as usize + 1).await;
    worker.end().await;
}

async fn pauses_and_resumes_in_any_order_lose_and_double_nothing(database: TestDatabase) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::open(database, slow()).await;
    let worker = stage.hire().await;
    let id = stage.send(people(3_000)).await;
    for _ in 0..30 {
        let goal = stage.sink.sink().stats().accepted + random.u64(0..80);
        eventually(async || stage.sink.sink().stats().accepted >= goal || stage.broadcast(&id).await.status.is_final())
            .await;
        if stage.broadcast(&id).await.status.is_final() {
            break;
        }
        stage.wish(&id, pause()).await;
        if random.bool() {
            eventually(async || stage.n_running(&id).await == 0).await;
        }
        stage.wish(&id, Wish::Resume).await;
    }
    assert_eq!(stage.ended(&id).await.counts.sent, 3_000);
    stage.assert_exactly_once(&id, 3_000).await;
    worker.end().await;
}
