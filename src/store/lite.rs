//! The store on SQLite: one file, no other service. Differs from [`super::pg`] in how it is opened, how a
//! transaction begins, and that one process owns the file, so that it needs no notification.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use tokio::sync::watch;

use super::footing::Footing as _;
use super::{HEART_MAX, REQUEST_MAX, Result, StoreError, Stores, WORK_MAX, claim_sql, schema};

#[path = "sql/mod.rs"]
mod sql;

type Db = sqlx::Sqlite;
type Raw = sqlx::SqliteConnection;
use sql::Connection;

/// A deferred transaction that reads and then writes can fail at once with SQLITE_BUSY_SNAPSHOT, past
/// any timeout; one that says at the start that it will write cannot.
const BEGIN: &str = "BEGIN IMMEDIATE";
const BEGIN_SNAPSHOT: &str = "BEGIN";
const CLAIM: &str = claim_sql!("");
/// A copied file cannot be told from the one it was copied from; the copies of `hikyaku backup` say it themselves.
const BIRTHMARK: Option<&str> = None;
const EXCLUSIVE: bool = true;

/// How long a writer waits for another process's transaction, such as a backup's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a writer waits: the answer to its first statement is the lock.
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// Steps of SQLite's machine between two looks at the brake: well under a millisecond.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// Stops a statement that runs in this process and that nobody waits for any more: it would hold the lock, or keep the
/// write-ahead log from being emptied.
struct Brake(Arc<AtomicBool>);

impl Brake {
    async fn fit(raw: &mut Raw) -> sqlx::Result<Self> {
        let pulled = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&pulled);
        raw.lock_handle()
            .await?
            .set_progress_handler(STEPS_BETWEEN_LOOKS, move || !seen.load(Ordering::Relaxed));
        Ok(Self(pulled))
    }

    fn pull(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Nobody else listens to an SQLite file.
async fn notify(_: &mut Connection) -> sqlx::Result<()> {
    Ok(())
}

/// The file that one process at a time holds while it looks after the schema. It stays where it is: removing it would
/// let two processes hold two of them.
async fn wait_to_migrate(database: PathBuf) -> Result<File> {
    let mut name = database.into_os_string();
    name.push(".migrate-lock");
    let path = PathBuf::from(name);
    let taken = tokio::task::spawn_blocking(move || {
        let file = File::create(&path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    });
    let taken = taken.await.map_err(|e| StoreError::Unavailable(e.to_string()))?;
    taken.map_err(|e| StoreError::Unavailable(format!("taking the lock beside the database file: {e}")))
}

/// `readers` for each side are beside the one writer; WAL lets them read while it writes.
pub(super) async fn open(path: &Path, readers: u32) -> Result<Stores> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|e| StoreError::Unavailable(format!("creating {}: {e}", folder.display())))?;
    }
    // Nothing here may write: a read-only connection refuses even a pragma that would change nothing.
    let shared = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", "-16384");
    let writing = shared
        .clone()
        .create_if_missing(true)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        // Every commit survives a power cut: 202 means durable.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("journal_size_limit", "67108864");
    // SQLite has no lock that outlasts a transaction, and a web process and a worker may start at once.
    let migrating = wait_to_migrate(path.to_owned()).await?;
    let mut first = writing.connect().await?;
    schema::sqlite().run(&mut first).await?;
    drop(migrating);
    // All writes go through one connection, first come first served: SQLite's own waiters have no order.
    let writer = sql::Pool::new(writing, 1, WORK_MAX);
    let reading = shared.read_only(true);
    let wake = watch::Sender::new(0);
    let store = |limit: Duration| {
        let reader = sql::Pool::new(reading.clone(), readers, limit);
        // The heartbeat waits for the transaction under way and for nobody else.
        let heart = writer.passing().within(HEART_MAX);
        sql::SqlStore::new(writer.within(limit), reader, heart, wake.clone())
    };
    let (work, requests) = (store(WORK_MAX), store(REQUEST_MAX));
    work.footing().await?;
    work.notice_restoration().await?;
    // Not before there is another connection: the last one that is closed removes the write-ahead log.
    first.close().await?;
    Ok(Stores {
        work: Arc::new(work),
        requests: Arc::new(requests),
    })
}
