//! The pipeline from the queue to the outcome: a real worker, a real SMTP server, both databases. Nothing here sleeps:
//! a story ends when the broadcast does.

mod stage;

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::sink::SinkOptions;

use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite};
use stage::Stage;

async fn every_recipient_gets_exactly_one_copy(database: TestDatabase) {
    let stage = Stage::open(database, SinkOptions::default()).await;
    let id = stage.send(2_500, 40).await;
    let broadcast = stage.ended(&id).await;
    assert_eq!(broadcast.status, BroadcastStatus::Completed);
    assert_eq!((broadcast.counts.sent, broadcast.received.duplicates), (2_500, 40));
    assert_eq!(stage.store.recount(&id).await.unwrap(), broadcast.counts);
    let copies = stage.sink.sink().copies();
    assert_eq!(copies.len(), 2_500);
    assert!(copies.values().all(|&n| n == 1));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recipient_gets_exactly_one_copy_on_sqlite() {
    every_recipient_gets_exactly_one_copy(fresh_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recipient_gets_exactly_one_copy_on_postgres() {
    every_recipient_gets_exactly_one_copy(fresh_postgres().await).await;
}
