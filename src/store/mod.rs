//! Durable state. Its methods are the steps of the story, one transaction each, never tables' CRUD and
//! never a transaction handed around; `now` is always an argument.
//!
//! The SQL is written once, in [`sql`], and compiled twice: for SQLite and for PostgreSQL. What differs
//! is named in [`lite`] and [`pg`]: how a transaction begins, `FOR UPDATE SKIP LOCKED`, notification.

pub mod access;
pub mod audience;
pub mod backup;
pub mod delivery;
pub mod dkim;
pub mod error;
pub mod fan_out;
pub mod findings;
pub mod footing;
pub mod group;
pub mod intake;
pub mod library;
pub mod lock;
pub mod moving;
pub mod pacing;
pub mod queue;
pub mod relays;
pub mod reports;
pub mod retention;
pub mod safety;
pub mod schema;
pub mod scratch;
pub mod workers;

mod lite;
mod pg;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::{Result, StoreError};

/// All steps together; what the stages and the pages hold as `Arc<dyn Store>`.
pub trait Store:
    access::Access
    + audience::Audience
    + delivery::Delivery
    + dkim::Dkim
    + fan_out::FanOut
    + findings::Findings
    + footing::Footing
    + intake::Intake
    + library::Library
    + pacing::Pacing
    + queue::Queue
    + relays::Relays
    + reports::Reports
    + retention::Retention
    + safety::Safety
    + workers::Workers
{
    /// Whether a process that holds the database's lock is the only one that can be alive.
    fn is_exclusive(&self) -> bool;
}

/// Whether a database is opened to be used, or to be moved, which its marks do not keep from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Use,
    Move,
}

/// Where the data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    Sqlite(PathBuf),
    Postgres(String),
}

impl DatabaseUrl {
    /// Reads `sqlite:PATH`, `sqlite://PATH` or `postgres://…`.
    /// # Errors
    /// A sentence that names the forms.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:"));
        // Options such as `?mode=rwc` are what other programs need to create a file; this one always does.
        let path = path.map(|p| p.split_once('?').map_or(p, |(path, _)| path));
        let unescaped = path.map(|p| percent_encoding::percent_decode_str(p).decode_utf8_lossy().into_owned());
        match unescaped {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(PathBuf::from(path))),
            _ => Err("the database URL must be sqlite:PATH or postgres://user@host/name".to_owned()),
        }
    }
}

/// Without its password.
impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DatabaseUrl::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            DatabaseUrl::Postgres(url) => crate::config::SecretUrl::new(url.as_str()).fmt(f),
        }
    }
}

/// One database, for two who must not get in each other's way: however many requests wait for connections, the workers have
/// theirs, and the other way round.
pub struct Stores {
    /// For the workers, and for whoever is alone.
    pub work: Arc<dyn Store>,
    /// For requests.
    pub requests: Arc<dyn Store>,
}

/// What one step of a worker may take in the database, once it has a connection: a commit takes milliseconds, and a worker that
/// waits in vain for longer should try another connection.
const WORK_MAX: Duration = Duration::from_secs(15);
/// What one step of a request may take: it may remove a list of a million, or count one.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// What a heartbeat may take: another one must be possible before the lease ends.
const HEART_MAX: Duration = Duration::from_secs(3);

/// Connects, creates what is missing, and brings the schema up to date.
/// # Errors
/// `Unavailable` when the database cannot be reached; `Refused` when a migration fails.
pub async fn open(url: &DatabaseUrl) -> Result<Arc<dyn Store>> {
    Ok(open_with(url, CONNECTIONS_DEFAULT).await?.work)
}

/// Connections of one process when nobody says how many.
pub const CONNECTIONS_DEFAULT: u32 = 16;

/// As [`open`], for workers and requests, with so many connections at most. What is needed at least is opened in any case: for
/// each of the two one that writes and one that reads, and on PostgreSQL one for the heartbeat and one that listens.
/// # Errors
/// As [`open`].
pub async fn open_with(url: &DatabaseUrl, connections: u32) -> Result<Stores> {
    open_for(Purpose::Use, url, connections).await
}

async fn open_for(purpose: Purpose, url: &DatabaseUrl, connections: u32) -> Result<Stores> {
    match url {
        DatabaseUrl::Sqlite(path) => lite::open(purpose, path, (connections / 4).max(1)).await,
        DatabaseUrl::Postgres(url) => pg::open(purpose, url, connections).await,
    }
}

/// The claim, with the one clause that only one database knows.
macro_rules! claim_sql {
    ($skip_locked:literal) => {
        concat!(
            "-- claim
            WITH pick AS (
                SELECT id FROM jobs
                 WHERE state = 'ready' AND kind = $4 AND seq <= $5
                   AND EXISTS (SELECT 1 FROM workers w WHERE w.id = $1 AND w.state = 'live')
                 ORDER BY priority, seq, id LIMIT $3 ",
            $skip_locked,
            ")
            UPDATE jobs SET state = 'running', worker_id = $1, epoch = epoch + 1, commit_no = 0, claimed_at = $2, touched_at = $2,
                   settled_before = sent + failed + uncertain + expired
             WHERE id IN (SELECT id FROM pick)
            RETURNING id, epoch, broadcast_id, seq, priority, deaths, stop, cursor, inflight"
        )
    };
}
use claim_sql;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_names_a_file_or_a_server() {
        let file = |text: &str| match DatabaseUrl::parse(text) {
            Ok(DatabaseUrl::Sqlite(path)) => path.display().to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(file("sqlite:///var/lib/h.db"), "/var/lib/h.db");
        assert_eq!(file("sqlite:h.db?mode=rwc"), "h.db");
        assert_eq!(file("sqlite:///a%20b/100%25.db"), "/a b/100%.db");
        assert!(matches!(DatabaseUrl::parse("postgres://u@h/d"), Ok(DatabaseUrl::Postgres(_))));
        assert!(DatabaseUrl::parse("mysql://h/d").is_err());
        assert!(DatabaseUrl::parse("sqlite:").is_err());
    }
}
