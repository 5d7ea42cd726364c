//! The store's contract: every case is one story, told to SQLite and to PostgreSQL alike. Never knows which of the two it talks
//! to, except where a case looks into the database from outside.

mod access;
mod audience;
mod control;
mod crowd;
mod delivery;
mod dkim;
mod errors;
mod failures;
mod fan_out;
mod findings;
mod footing;
mod intake;
mod library;
mod machine;
mod moving;
mod outage;
mod pacing;
mod queue;
mod relays;
mod reports;
mod retention;
mod safety;
mod schema;
mod statements;
mod story;
mod wakeups;
mod world;

/// Makes one test for each database of every case named: `sqlite::name` and `postgres::name`.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::store::world::World::tell_sqlite(super::$case).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::store::world::World::tell_postgres(super::$case).await;
            })+
        }
    };
}
use contract;
