//! The store on SQLite: one file, no other service. Differs from [`super::pg`] in how it is opened, how a
//! transaction begins, and that one process owns the file, so that it needs no notification.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use tokio::sync::watch;

use super::footing::Footing as _;
use super::{HEART_MAX, Purpose, REQUEST_MAX, Result, StoreError, Stores, WORK_MAX, claim_sql, group, schema};

#[path = "sql/mod.rs"]
mod sql;
mod wal;

type Db = sqlx::Sqlite;
type Raw = sqlx::SqliteConnection;
use sql::Connection;

/// A deferred transaction that reads and then writes can fail at once with SQLITE_BUSY_SNAPSHOT, past
/// any timeout; one that says at the start that it will write cannot.
const BEGIN: &str = "BEGIN IMMEDIATE";
const BEGIN_SNAPSHOT: &str = "BEGIN";
const CLAIM: &str = claim_sql!("");
/// The usual group commit, which begins and ends by itself.
const GROUP: &str = group::AT_ONCE_ON_SQLITE;
/// A copied file cannot be told from the one it was copied from; the copies of `hikyaku backup` say it themselves.
const BIRTHMARK: Option<&str> = None;
/// The file is on this machine.
const TIME: Option<&str> = None;
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

/// The file holds addresses, the passwords of relays and the keys that mail is signed with: a new one is for its owner only. SQLite
/// gives the files beside it the same rights.
fn make_private(path: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            Err(StoreError::Unavailable(format!("creating {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
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
pub(super) async fn open(purpose: Purpose, path: &Path, readers: u32) -> Result<Stores> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|e| StoreError::Unavailable(format!("creating {}: {e}", folder.display())))?;
    }
    make_private(path)?;
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
        .pragma("journal_size_limit", wal::KEPT_BYTES.to_string());
    // SQLite has no lock that outlasts a transaction, and a web process and a worker may start at once.
    let migrating = wait_to_migrate(path.to_owned()).await?;
    let first = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(writing.clone())
        .await?;
    schema::sqlite().run(&first).await?;
    drop(migrating);
    // All writes go through one connection, first come first served: SQLite's own waiters have no order.
    let writer = sql::Pool::new(writing.clone(), 1, WORK_MAX);
    let reading = shared.read_only(true);
    let wake = watch::Sender::new(0);
    let store = |limit: Duration| {
        let reader = sql::Pool::new(reading.clone(), readers, limit);
        // The heartbeat waits for the transaction under way and for nobody else.
        let heart = writer.passing().within(HEART_MAX);
        sql::SqlStore::new(writer.within(limit), reader, heart, wake.clone())
    };
    let (work, requests) = (store(WORK_MAX), store(REQUEST_MAX));
    tokio::spawn(wal::tend(path.to_owned(), writing, wake.clone()));
    if purpose == Purpose::Use {
        work.footing().await?;
        work.notice_restoration().await?;
    }
    // Not before there is another connection: the last one that is closed removes the write-ahead log.
    first.close().await;
    Ok(Stores {
        work: Arc::new(work),
        requests: Arc::new(requests),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that fill a page each.
    const FILL: &str = "INSERT INTO filled (bytes) SELECT zeroblob(4000) FROM json_each($1)";

    struct Small {
        pool: sql::Pool,
        _dir: tempfile::TempDir,
    }

    /// A file that may not grow beyond 40 pages, with one table.
    async fn small() -> Small {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(dir.path().join("small.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .pragma("max_page_count", "40");
        let pool = sql::Pool::new(options, 1, Duration::from_secs(60));
        sqlx::query("CREATE TABLE filled (bytes BLOB NOT NULL)")
            .execute(&pool)
            .await
            .unwrap();
        Small { pool, _dir: dir }
    }

    async fn n_rows(pool: &sql::Pool) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM filled")
            .fetch_one(pool)
            .await
            .unwrap()
    }

    fn json(n: usize) -> String {
        serde_json::to_string(&vec![0; n]).unwrap()
    }

    #[tokio::test]
    async fn a_full_disk_undoes_a_transaction_as_a_whole_and_spoils_nothing_else() {
        let Small { pool, _dir } = small().await;
        for round in 0..3 {
            let mut tx = pool.begin_with(BEGIN).await.unwrap();
            sqlx::query(FILL).bind(json(3)).execute(&mut *tx).await.unwrap();
            let full = sqlx::query(FILL).bind(json(100)).execute(&mut *tx).await;
            let full = StoreError::from(full.unwrap_err());
            assert!(matches!(full, StoreError::Full(_)), "{full:?}");
            // SQLite has left the transaction: what comes now would stand on its own.
            let more = sqlx::query(FILL).bind(json(1)).execute(&mut *tx).await;
            assert!(more.is_err(), "round {round}: a statement after the failed one was taken");
            if round == 1 {
                assert!(tx.commit().await.is_err(), "a commit of nothing was called a success");
            } else {
                drop(tx);
            }
            assert_eq!(n_rows(&pool).await, 0, "round {round}");
        }
        let mut tx = pool.begin_with(BEGIN).await.unwrap();
        sqlx::query(FILL).bind(json(3)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(n_rows(&pool).await, 3);
    }

    #[tokio::test]
    async fn a_single_statement_that_meets_a_full_disk_leaves_a_sound_connection() {
        let Small { pool, _dir } = small().await;
        assert!(sqlx::query(FILL).bind(json(100)).execute(&pool).await.is_err());
        let mut tx = pool.begin_with(BEGIN).await.unwrap();
        sqlx::query(FILL).bind(json(1)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(n_rows(&pool).await, 1);
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_is_undone_before_the_next_begins() {
        let Small { pool, _dir } = small().await;
        for _ in 0..20 {
            let mut tx = pool.begin_with(BEGIN).await.unwrap();
            sqlx::query(FILL).bind(json(1)).execute(&mut *tx).await.unwrap();
            drop(tx);
            assert_eq!(n_rows(&pool).await, 0);
        }
    }

    /// A reader that never ends would keep the write-ahead log from being emptied.
    #[tokio::test]
    async fn a_statement_without_end_is_ended() {
        const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n";
        let Small { pool, _dir } = small().await;
        let hasty = pool.within(Duration::from_millis(300));
        let ended = sqlx::query(ENDLESS).fetch_one(&hasty).await;
        let ended = StoreError::from(ended.unwrap_err());
        assert!(matches!(ended, StoreError::Unavailable(_)), "{ended:?}");
        // In a transaction: it held the lock that the next one needs, and lets go of it.
        let mut tx = hasty.begin_with(BEGIN).await.unwrap();
        assert!(sqlx::query(ENDLESS).fetch_one(&mut *tx).await.is_err());
        assert!(tx.commit().await.is_err());
        let mut tx = pool.begin_with(BEGIN).await.unwrap();
        sqlx::query(FILL).bind(json(1)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(n_rows(&pool).await, 1);
    }

    #[tokio::test]
    async fn a_step_that_is_cancelled_leaves_no_transaction_behind() {
        let Small { pool, _dir } = small().await;
        for n in 0..50_u64 {
            let step = async {
                let mut tx = pool.begin_with(BEGIN).await?;
                sqlx::query(FILL).bind(json(2)).execute(&mut *tx).await?;
                sqlx::query("DELETE FROM filled").execute(&mut *tx).await?;
                tx.commit().await
            };
            drop(tokio::time::timeout(Duration::from_micros(n * 20), step).await);
        }
        assert_eq!(n_rows(&pool).await, 0);
        let mut tx = pool.begin_with(BEGIN).await.unwrap();
        sqlx::query(FILL).bind(json(1)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(n_rows(&pool).await, 1);
    }

    /// Of many who wait, the heartbeat waits for one or two.
    #[tokio::test]
    async fn who_passes_the_line_is_before_those_who_stand_in_it() {
        let Small { pool, _dir } = small().await;
        let held = pool.begin_with(BEGIN).await.unwrap();
        let done = Arc::new(std::sync::Mutex::new(Vec::new()));
        let waiting = (0..30).map(|n| {
            let (pool, done) = (pool.clone(), Arc::clone(&done));
            async move {
                let tx = pool.begin_with(BEGIN).await.unwrap();
                done.lock().unwrap().push(n);
                tx.rollback().await.unwrap();
            }
        });
        let waiting = futures_util::future::join_all(waiting);
        let heart = async {
            let tx = pool.passing().begin_with(BEGIN).await.unwrap();
            done.lock().unwrap().push(100);
            tx.rollback().await.unwrap();
        };
        let release = async { held.rollback().await.unwrap() };
        // All stand in the line before the heart comes, and the lock is let go of after that.
        futures_util::future::join3(waiting, heart, release).await;
        let place = done.lock().unwrap().iter().position(|&n| n == 100).unwrap();
        assert!(place <= 1, "the heartbeat came after {place}");
    }
}
