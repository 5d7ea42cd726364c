//! The pipeline from the queue to the outcome: real workers, a real SMTP server, both databases. Nothing here sleeps: a story
//! ends when what it tells of has happened.

mod control;
mod fates;
mod faults;
mod faulty;
mod lanes;
mod outlook;
mod pace;
mod relays;
mod restored;
mod safety;
mod schedule;
mod shares;
pub mod stage;
mod times;
mod windows;
mod workers;

use hikyaku::domain::broadcast::BroadcastStatus;

use crate::support::database::TestDatabase;
use stage::{Plan, Stage, people};

/// Makes one test for each database of every story named: `sqlite::name` and `postgres::name`.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story($crate::support::database::fresh_sqlite()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story($crate::support::database::fresh_postgres().await).await;
            })+
        }
    };
}
use stories;

stories!(every_recipient_gets_exactly_one_copy);

async fn every_recipient_gets_exactly_one_copy(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let worker = stage.hire().await;
    let repeated = people(40);
    let id = stage.send(people(2_500).into_iter().chain(repeated).collect()).await;
    let broadcast = stage.ended(&id).await;
    assert_eq!(broadcast.status, BroadcastStatus::Completed);
    assert_eq!((broadcast.counts.sent, broadcast.received.duplicates), (2_500, 40));
    stage.assert_exactly_once(&id, 2_500).await;
    worker.end().await;
}
