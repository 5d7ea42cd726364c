//! The store on PostgreSQL: any number of processes on one database. Differs from [`super::lite`] in how it
//! is opened, in `FOR UPDATE SKIP LOCKED`, and in that commits notify the other processes.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;

use super::footing::Footing as _;
use super::{Purpose, Result, Store, StoreError, claim_sql, schema};

#[path = "sql/mod.rs"]
mod sql;

type Db = sqlx::Postgres;
type Connection = sqlx::PgConnection;

const BEGIN: &str = "BEGIN";
const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const CLAIM: &str = claim_sql!("FOR UPDATE SKIP LOCKED");
/// A table that was made anew by a restored dump has another number; a failover, a restart and an upgrade in place keep it.
const BIRTHMARK: Option<&str> =
    Some("-- birthmark_here\n SELECT CAST(CAST(CAST('jobs' AS regclass) AS oid) AS text) AS mark");
const EXCLUSIVE: bool = false;

/// How long a step waits for a connection before the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before listening again after the listener's connection was lost.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// One notification per transaction that makes work, never per row: notifying commits queue up behind
/// one lock of the whole server.
async fn notify(connection: &mut Connection) -> sqlx::Result<()> {
    sqlx::query("-- notify\n SELECT pg_notify('hikyaku', '')")
        .execute(connection)
        .await
        .map(drop)
}

/// `writers` are for the workers and for accepting requests together, `readers` for the pages and the API.
pub(super) async fn open(purpose: Purpose, url: &str, writers: u32, readers: u32) -> Result<Arc<dyn Store>> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|e| StoreError::Refused(format!("the database URL: {e}")))?
        .application_name("hikyaku")
        // A statement that hangs must not hold a worker for longer than its lease is worth.
        .options([
            ("statement_timeout", "30000"),
            ("lock_timeout", "10000"),
            ("idle_in_transaction_session_timeout", "60000"),
        ]);
    let pool = |connections: u32| {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options.clone())
    };
    migrate(&options).await?;
    let wake = watch::Sender::new(0);
    let store = sql::SqlStore::new(pool(writers), pool(readers), pool(1), wake.clone());
    if purpose == Purpose::Use {
        store.footing().await?;
        store.notice_restoration().await?;
    }
    // After the store: it is what keeps the channel open, and with it the listener.
    tokio::spawn(listen(pool(1), wake));
    Ok(Arc::new(store))
}

/// Migrations may take longer than an ordinary statement is allowed to.
async fn migrate(options: &PgConnectOptions) -> Result<()> {
    let patient = options
        .clone()
        .options([("statement_timeout", "0"), ("lock_timeout", "0")]);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(patient)
        .await?;
    schema::postgres().run(&pool).await?;
    pool.close().await;
    Ok(())
}

/// Passes notifications of other processes on to this one's loops, until the store is dropped.
async fn listen(pool: sqlx::PgPool, waker: watch::Sender<u64>) {
    loop {
        if let Ok(mut listener) = PgListener::connect_with(&pool).await
            && listener.listen("hikyaku").await.is_ok()
        {
            loop {
                // What was sent while we were not listening is lost: wake up once to look.
                waker.send_modify(|n| *n += 1);
                tokio::select! {
                    () = waker.closed() => return,
                    heard = listener.try_recv() => if heard.is_err() { break },
                }
            }
        }
        tokio::select! {
            () = waker.closed() => return,
            () = tokio::time::sleep(LISTEN_AGAIN_AFTER) => {}
        }
    }
}
