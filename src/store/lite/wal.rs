//! Keeps SQLite's write-ahead log small. Never waits for a reader for long: the writers would wait with it.
//!
//! SQLite copies the log into the database by itself after a thousand pages, but begins it anew only when no reader looks at it.
//! Where readers follow each other without a gap, that moment never comes, and the log grows until the disk is full.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// What the file keeps when it is begun anew, so that it need not grow again; above it, it is emptied by force.
pub const KEPT_BYTES: u64 = 64 << 20;
/// How often it is looked at: a writer makes less than a hundred megabytes in that time.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long readers are waited for. The writers wait as long, which is a moment; readers of this program read for longer only
/// when they count something large.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// The longest pause after a reader stood in the way.
const AGAIN_MAX: Duration = Duration::from_secs(16);
/// Opening, waiting and copying together.
const EMPTYING_MAX: Duration = Duration::from_secs(60);

/// Looks after the log of a database until its store is gone.
pub async fn tend(database: PathBuf, options: SqliteConnectOptions, waker: watch::Sender<u64>) {
    let log = log_of(&database);
    let options = options.busy_timeout(WAIT_MAX).disable_statement_logging();
    let mut pause = LOOK_EVERY;
    loop {
        tokio::select! {
            () = waker.closed() => return,
            () = sleep(pause) => {}
        }
        pause = LOOK_EVERY;
        let bytes = tokio::fs::metadata(&log).await.map_or(0, |found| found.len());
        if bytes <= KEPT_BYTES {
            continue;
        }
        let emptied = timeout(EMPTYING_MAX, empty(&options)).await;
        if !matches!(emptied, Ok(Ok(true))) {
            pause = (pause * 2).min(AGAIN_MAX);
            tracing::warn!(
                bytes,
                "The write-ahead log {} grows: somebody has been reading the database for long, or its disk is full",
                log.display()
            );
        }
    }
}

fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// `false` when a reader was in the way.
async fn empty(options: &SqliteConnectOptions) -> sqlx::Result<bool> {
    let mut connection = options.connect().await?;
    let (is_busy, _, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(is_busy == 0)
}
