//! `hikyaku backup` and `hikyaku restored`: a copy of an SQLite database while it is in use, and what to do after a database came
//! from a backup. Never restores anything: a restored file is put where the database was.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Failed, Outcome};
use super::settings::{DatabaseArgs, Overrides, database_url};
use super::terminal::{note, plural, say};
use crate::clock::{Clock, SystemClock};
use crate::domain::time::Timestamp;
use crate::store::{self, DatabaseUrl, backup};

/// Copies the SQLite database to a file, while it is in use.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku backup /backups/hikyaku-monday.db
  hikyaku backup --database-url sqlite:///var/lib/hikyaku/hikyaku.db copy.db

The copy is consistent, on the disk, and complete; a file that exists is not
overwritten. To restore it, stop hikyaku, put the copy in the place of the
database (and remove its -wal and -shm files), and start hikyaku again: its
unfinished broadcasts and its campaigns are then paused, because messages sent
since the backup would be sent again.

PostgreSQL has its own tools: pg_dump and pg_restore, or archived WAL. See
docs/operations.md.")]
pub struct Backup {
    /// The file to be made
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Pauses what is unfinished in a database that was restored without its noticing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku restored
  hikyaku restored --taken-at 2026-10-01T03:00:00Z

A copy made by `hikyaku backup` and a restored pg_dump are noticed at the next
start. A base backup, a recovery to a point in time and a snapshot of a disk
look like the database they were taken of: run this before anything else is
started on them.")]
pub struct Restored {
    /// When the backup was made; by default the last sign of life of a worker in it
    #[arg(long, value_name = "TIME")]
    taken_at: Option<String>,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Makes the copy.
///
/// # Errors
/// See [`Exit`].
pub async fn backup(args: Backup) -> Outcome {
    let config = Overrides::default().database(&args.database).load()?;
    let DatabaseUrl::Sqlite(path) = database_url(&config)? else {
        return Err(Failed::usage(
            "this is for SQLite; for PostgreSQL use pg_dump --format=custom --file=hikyaku.dump 'postgres://…'",
        ));
    };
    let bytes = backup::backup(&path, &args.file, SystemClock.now()).await?;
    say(format_args!("{}: {:.1} MB", args.file.display(), bytes as f64 / 1e6));
    Ok(Exit::Done)
}

/// Sets aside what is unfinished.
///
/// # Errors
/// See [`Exit`].
pub async fn restored(args: Restored) -> Outcome {
    let taken_at = args.taken_at.as_deref().map(Timestamp::parse).transpose();
    let taken_at = taken_at.map_err(|why| Failed::usage(format!("--taken-at: {why}")))?;
    let config = Overrides::default().database(&args.database).load()?;
    let store = store::open(&database_url(&config)?).await?;
    let done = store.set_aside_restored(taken_at).await?;
    say(format_args!(
        "paused {} and {}",
        plural(done.broadcasts as i64, "broadcast"),
        plural(done.campaigns as i64, "campaign")
    ));
    note("Messages sent after the backup would be sent again: resume or cancel each of them.");
    Ok(Exit::Done)
}
