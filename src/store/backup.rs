//! A consistent copy of an SQLite database while it is in use. Never overwrites a file, and never leaves one under its final
//! name that is not whole and on the disk. PostgreSQL has its own tools: pg_dump, and archived WAL.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::footing::BACKUP;
use super::{Result, StoreError};
use crate::domain::time::Timestamp;

/// How long the copy waits for a lock. It only reads, so that this is for the moment of a checkpoint.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Copies the database file to `to` and marks the copy as a backup taken `now`, which its first start will heed. Returns
/// the bytes of the copy.
///
/// # Errors
/// `Conflict` when `to` exists or `from` does not; `Unavailable` or `Full` when it cannot be written.
pub async fn backup(from: &Path, to: &Path, now: Timestamp) -> Result<u64> {
    if !from.exists() {
        return Err(StoreError::Conflict(format!("there is no database {}", from.display())));
    }
    if to.exists() {
        return Err(exists(to));
    }
    let part = Part::create(to)?;
    let mut source = SqliteConnectOptions::new()
        .filename(from)
        .busy_timeout(BUSY_TIMEOUT)
        .connect()
        .await?;
    sqlx::query("VACUUM INTO $1")
        .bind(part.0.to_string_lossy().into_owned())
        .execute(&mut source)
        .await?;
    source.close().await?;
    mark(&part.0, now).await?;
    part.settle(to)
}

/// Writes into the copy that it is one, and asks SQLite whether it is whole.
async fn mark(copy: &Path, now: Timestamp) -> Result<()> {
    let mut copy = SqliteConnectOptions::new().filename(copy).connect().await?;
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(BACKUP)
    .bind(now.0.to_string())
    .execute(&mut copy)
    .await?;
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut copy).await?;
    copy.close().await?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(StoreError::Corrupt(format!("the copy is damaged: {found}"))),
    }
}

/// The copy under its unfinished name; removed when it does not come to its end.
struct Part(PathBuf);

impl Part {
    /// An empty file for its owner only: a backup holds addresses and secrets.
    fn create(to: &Path) -> Result<Self> {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let path = PathBuf::from(name);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map_err(|e| cannot("making", &path, &e))?;
        Ok(Self(path))
    }

    /// To the disk, and to its final name unless somebody took that meanwhile: a link does not overwrite.
    fn settle(self, to: &Path) -> Result<u64> {
        let written = File::open(&self.0).and_then(|file| file.sync_all().and_then(|()| file.metadata()));
        let bytes = written.map_err(|e| cannot("writing", &self.0, &e))?.len();
        match fs::hard_link(&self.0, to) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Err(exists(to)),
            linked => linked.map_err(|e| cannot("naming", to, &e))?,
        }
        let folder = to
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        drop(self);
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| cannot("writing", folder, &e))?;
        Ok(bytes)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What cannot be removed is named `.part-…` and tells what it is.
        drop(fs::remove_file(&self.0));
    }
}

fn exists(path: &Path) -> StoreError {
    StoreError::Conflict(format!("{} exists, and a backup overwrites nothing: choose another name", path.display()))
}

fn cannot(doing: &str, path: &Path, error: &std::io::Error) -> StoreError {
    let text = format!("{doing} {}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull => StoreError::Full(text),
        _ => StoreError::Unavailable(text),
    }
}
