//! The store on SQLite: one file, no other service. Differs from [`super::pg`] in how it is opened, how a
//! transaction begins, and that one process owns the file, so that it needs no notification.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use tokio::sync::watch;

use super::footing::Footing as _;
use super::{Purpose, Result, Store, StoreError, claim_sql, schema};

#[path = "sql/mod.rs"]
mod sql;

type Db = sqlx::Sqlite;
type Connection = sqlx::SqliteConnection;

/// A deferred transaction that reads and then writes can fail at once with SQLITE_BUSY_SNAPSHOT, past
/// any timeout; one that says at the start that it will write cannot.
const BEGIN: &str = "BEGIN IMMEDIATE";
const BEGIN_SNAPSHOT: &str = "BEGIN";
const CLAIM: &str = claim_sql!("");
/// A copied file cannot be told from the one it was copied from; the copies of `hikyaku backup` say it themselves.
const BIRTHMARK: Option<&str> = None;
const EXCLUSIVE: bool = true;

/// How long a writer waits for another process's transaction, such as a backup's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request waits for a connection before the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Nobody else listens to an SQLite file.
async fn notify(_: &mut Connection) -> sqlx::Result<()> {
    Ok(())
}

/// `readers` are beside the one writer: the pages and the API; WAL lets them read while it writes.
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

pub(super) async fn open(purpose: Purpose, path: &Path, readers: u32) -> Result<Arc<dyn Store>> {
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
    // All writes go through one connection, first come first served: SQLite's own waiters have no order.
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(writing)
        .await?;
    // SQLite has no lock that outlasts a transaction, and a web process and a worker may start at once.
    let migrating = wait_to_migrate(path.to_owned()).await?;
    schema::sqlite().run(&writer).await?;
    drop(migrating);
    let reader = SqlitePoolOptions::new()
        .max_connections(readers)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(shared.read_only(true))
        .await?;
    // A heartbeat through the same writer: it queues behind a few short transactions at most.
    let store = sql::SqlStore::new(writer.clone(), reader, writer, watch::Sender::new(0));
    if purpose == Purpose::Use {
        store.footing().await?;
        store.notice_restoration().await?;
    }
    Ok(Arc::new(store))
}
