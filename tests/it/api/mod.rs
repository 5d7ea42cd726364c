//! The JSON API from outside: a real socket, a real database, each story on both. Never calls a handler.

mod access;
mod bad_inputs;
mod dkim;
mod document;
mod idempotency;
mod intake;
mod library;
mod people;
mod reads;
mod relays;
mod safety;
pub mod world;

/// Makes one test for each database of every story named: `sqlite::name` and `postgres::name`.
macro_rules! on_both_databases {
    ($($story:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story($crate::api::world::Api::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story($crate::api::world::Api::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both_databases;
