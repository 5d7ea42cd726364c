//! The steps of the store in SQL that both databases understand: `$1`, RETURNING, ON CONFLICT, JSON arrays
//! through `json_each`. Compiled once for each database; never branches on which one it is.
//!
//! Every statement opens with `-- name`, so that it is found in a database's statistics and by the test
//! that prepares each one. Rows hold integers, texts and bytes only.

mod access;
mod audience;
mod broadcasts;
mod chunks;
mod delivery;
mod dkim;
mod fan_out;
mod findings;
mod footing;
mod intake;
mod learnt;
mod library;
mod pacing;
mod pool;
mod queue;
mod relays;
mod reports;
mod retention;
mod safety;
mod stuck;
mod watched;
mod workers;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

pub use pool::{Connection, Pool, Transaction, Whole};

use super::{ANSWER_MAX, BEGIN, BEGIN_SNAPSHOT, BIRTHMARK, Brake, CLAIM, Db, EXCLUSIVE, GROUP, Raw, TIME, notify};
use crate::store::{Result, Store, StoreError};

/// Times that a step is repeated when another transaction was in its way. Each time one of the two gets
/// through, so that a handful is plenty.
const CONTENTION_RETRIES: usize = 8;
/// And no longer than this: a lock that somebody holds for longer is no contention, and whoever waits wants an answer.
const CONTENTION_MAX: Duration = Duration::from_secs(15);

pub struct SqlStore {
    /// All writes.
    writer: Pool,
    /// Reads that need not see a write in progress.
    reader: Pool,
    /// The heartbeat's own way to the database.
    heart: Pool,
    /// Tells this process's loops to look; shared with whoever hears of other processes.
    wake: watch::Sender<u64>,
    /// Held so that whoever hears of other processes can tell when this store is gone.
    _open: watch::Receiver<u64>,
}

impl SqlStore {
    pub fn new(writer: Pool, reader: Pool, heart: Pool, wake: watch::Sender<u64>) -> Self {
        Self {
            writer,
            reader,
            heart,
            _open: wake.subscribe(),
            wake,
        }
    }

    async fn begin(&self) -> Result<Transaction> {
        Ok(self.writer.begin_with(BEGIN).await?)
    }

    /// For one text that begins and commits by itself.
    async fn whole(&self) -> Result<Whole> {
        Ok(self.writer.whole().await?)
    }

    /// A transaction whose statements all see the database as it was at the first of them.
    async fn begin_snapshot(&self) -> Result<Transaction> {
        Ok(self.reader.begin_with(BEGIN_SNAPSHOT).await?)
    }

    /// Commits a transaction that made work or wishes, and wakes everybody who may want to know.
    async fn commit_and_wake(&self, mut tx: Transaction) -> Result<()> {
        notify(&mut tx).await?;
        tx.commit().await?;
        self.wake.send_modify(|n| *n += 1);
        Ok(())
    }
}

impl Store for SqlStore {
    fn is_exclusive(&self) -> bool {
        EXCLUSIVE
    }
}

/// Repeats a step that was rolled back to let another one pass.
async fn retrying<T, F>(mut step: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let begun = Instant::now();
    for _ in 1..CONTENTION_RETRIES {
        match step().await {
            Err(StoreError::Contended) if begun.elapsed() < CONTENTION_MAX => tokio::task::yield_now().await,
            other => return other,
        }
    }
    step().await
}

/// Texts as the JSON document that bulk statements read: objects, because the two databases unpack a bare
/// string in different ways.
fn json_texts<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    #[derive(Serialize)]
    struct Item<S: AsRef<str>> {
        #[serde(serialize_with = "as_text")]
        v: S,
    }
    fn as_text<S: AsRef<str>, Z: serde::Serializer>(text: &S, to: Z) -> std::result::Result<Z::Ok, Z::Error> {
        to.serialize_str(text.as_ref())
    }
    to_json(&texts.into_iter().map(|v| Item { v }).collect::<Vec<_>>())
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types always serialise")
}

/// Reads a JSON column, naming it when it is damaged.
fn from_json<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| StoreError::Corrupt(format!("{column}: {e}")))
}

/// Reads a column that holds one of our own words.
fn parsed<T: std::str::FromStr<Err = String>>(column: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|e| StoreError::Corrupt(format!("{column}: {e}")))
}
