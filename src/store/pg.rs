//! The store on PostgreSQL: any number of processes on one database. Differs from [`super::lite`] in how it
//! is opened, in `FOR UPDATE SKIP LOCKED`, and in that commits notify the other processes.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _};
use tokio::sync::watch;

use super::footing::Footing as _;
use super::{HEART_MAX, Purpose, REQUEST_MAX, Result, StoreError, Stores, WORK_MAX, claim_sql, group, schema};

#[path = "sql/mod.rs"]
mod sql;

type Db = sqlx::Postgres;
type Raw = sqlx::PgConnection;
use sql::Connection;

const BEGIN: &str = "BEGIN";
const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const CLAIM: &str = claim_sql!("FOR UPDATE SKIP LOCKED");
/// The usual group commit, which begins and ends by itself.
const GROUP: &str = group::AT_ONCE_ON_POSTGRES;
/// A table that was made anew by a restored dump has another number; a failover, a restart and an upgrade in place keep it.
const BIRTHMARK: Option<&str> =
    Some("-- birthmark_here\n SELECT CAST(CAST(CAST('jobs' AS regclass) AS oid) AS text) AS mark");
const TIME: Option<&str> =
    Some("-- time_there\n SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS at");
const EXCLUSIVE: bool = false;

/// Longer than any statement takes that only asks whether somebody is there.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How long a lock is waited for. What holds one is a short transaction, or one whose process stands still.
const LOCK_MAX: Duration = Duration::from_secs(5);
/// The server ends a transaction in which nothing happens for so long: its process stands still, and others wait for its locks.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// The server gives a statement up this much before its caller does, so that the caller hears of it.
const HEADSTART: Duration = Duration::from_secs(1);
/// How long opening a connection may take outside of the pools.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a listener is asked whether it still hears: a line that is dead says nothing either.
const LISTENING_EVERY: Duration = Duration::from_secs(30);
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

/// Nothing to fit: the server has its own limits, and a statement whose connection is closed is the server's to end.
struct Brake;

impl Brake {
    async fn fit(_: &mut Raw) -> sqlx::Result<Self> {
        Ok(Self)
    }

    fn pull(&self) {}
}

pub(super) async fn open(purpose: Purpose, url: &str, connections: u32) -> Result<Stores> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|e| StoreError::Refused(format!("the database URL: {e}")))?
        .application_name("hikyaku")
        .disable_statement_logging();
    migrate(&options).await?;
    let pool = |size: u32, limit: Duration| sql::Pool::new(limited(&options, limit), size, limit);
    // One for the heartbeat and one that listens; of the rest, each side has its half, and each half writes and reads.
    let side = (connections.saturating_sub(2) / 2).max(2);
    let (writers, readers) = (side.div_ceil(2), side / 2);
    let heart = pool(1, HEART_MAX);
    let wake = watch::Sender::new(0);
    let store =
        |limit: Duration| sql::SqlStore::new(pool(writers, limit), pool(readers, limit), heart.clone(), wake.clone());
    let (work, requests) = (store(WORK_MAX), store(REQUEST_MAX));
    if purpose == Purpose::Use {
        work.footing().await?;
        work.notice_restoration().await?;
    }
    let listening = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options);
    // After the stores: they are what keeps the channel open, and with it the listener.
    tokio::spawn(listen(listening, wake));
    Ok(Stores {
        work: Arc::new(work),
        requests: Arc::new(requests),
    })
}

/// The server's limits on whatever comes over a connection.
fn limited(options: &PgConnectOptions, limit: Duration) -> PgConnectOptions {
    let ms = |limit: Duration| limit.as_millis().to_string();
    options.clone().options([
        ("statement_timeout", ms(limit.saturating_sub(HEADSTART))),
        ("lock_timeout", ms(LOCK_MAX)),
        ("idle_in_transaction_session_timeout", ms(IDLE_MAX)),
    ])
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
                    () = tokio::time::sleep(LISTENING_EVERY) => if !still_hears(&mut listener).await { break },
                }
            }
        }
        tokio::select! {
            () = waker.closed() => return,
            () = tokio::time::sleep(LISTEN_AGAIN_AFTER) => {}
        }
    }
}

async fn still_hears(listener: &mut PgListener) -> bool {
    let asked = tokio::time::timeout(ANSWER_MAX, listener.execute("SELECT 1")).await;
    matches!(asked, Ok(Ok(_)))
}
