//! Looking at a database without changing it: does it answer, is its schema the one this program needs, and does its clock agree.
//! For `doctor` and `migrate`; the steps of the story are elsewhere. Never creates a file and never migrates.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::{DatabaseUrl, Result, StoreError};
use crate::domain::time::Timestamp;

/// How long a database may take to answer before it counts as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The newest migration of each engine is the same: the tests compare their names.
static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// The newest migration this program knows.
#[must_use]
pub fn newest() -> i64 {
    SQLITE.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Migrations that a newer program has added do not keep this one from starting: whether it may write is told by
/// [`super::footing`].
pub(super) fn sqlite() -> Migrator {
    let mut migrator = sqlx::migrate!("migrations/sqlite");
    migrator.set_ignore_missing(true);
    migrator
}

/// As [`sqlite`].
pub(super) fn postgres() -> Migrator {
    let mut migrator = sqlx::migrate!("migrations/postgres");
    migrator.set_ignore_missing(true);
    migrator
}

/// What a database says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Such as `PostgreSQL 17.2` or `SQLite 3.50.4`.
    pub engine: String,
    /// Migrations this program has and the database has not, oldest first.
    pub missing: Vec<i64>,
    /// Migrations the database has and this program does not know: it was used by a newer program.
    pub unknown: Vec<i64>,
    /// The smallest migration that a program must know to write to it, where one is named.
    pub needs: Option<i64>,
    /// The server's clock; SQLite has none of its own.
    pub server_now: Option<Timestamp>,
}

impl Inspection {
    /// Whether the database was changed by a newer program so that this one must not write to it.
    #[must_use]
    pub fn is_too_new(&self) -> bool {
        self.needs.is_some_and(|needs| needs > newest())
    }

    /// Whether it is as this program would leave it, so that opening it changes nothing.
    #[must_use]
    pub fn is_current(&self) -> bool {
        !self.is_too_new() && self.missing.is_empty()
    }
}

/// Looks. `None` when the database file does not exist yet, which is no fault: it is made at the first start.
///
/// # Errors
/// `Unavailable` when the database does not answer; `Refused` when the URL has another form.
pub async fn inspect(url: &DatabaseUrl) -> Result<Option<Inspection>> {
    let looked = async {
        match url {
            DatabaseUrl::Sqlite(path) => look_sqlite(path).await,
            DatabaseUrl::Postgres(url) => look_postgres(url).await.map(Some),
        }
    };
    let too_long = |_| StoreError::Unavailable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
    tokio::time::timeout(ANSWER_TIMEOUT, looked).await.map_err(too_long)?
}

async fn look_sqlite(path: &Path) -> Result<Option<Inspection>> {
    if !path.exists() {
        return Ok(None);
    }
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .connect()
        .await?;
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(&mut connection)
        .await?;
    let has_table: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations')")
            .fetch_one(&mut connection)
            .await?;
    let applied: Vec<i64> = match has_table {
        true => sqlx::query_scalar(APPLIED).fetch_all(&mut connection).await?,
        false => Vec::new(),
    };
    let needs = match applied.is_empty() {
        true => None,
        false => sqlx::query_scalar(NEEDS).fetch_optional(&mut connection).await?,
    };
    connection.close().await?;
    let found = inspection(format!("SQLite {version}"), &SQLITE, &applied, None);
    Ok(Some(Inspection { needs, ..found }))
}

async fn look_postgres(url: &str) -> Result<Inspection> {
    let options = PgConnectOptions::from_str(url).map_err(|e| StoreError::Refused(format!("the database URL: {e}")))?;
    let mut connection = options.application_name("hikyaku").connect().await?;
    let version: String = sqlx::query_scalar("SELECT current_setting('server_version')")
        .fetch_one(&mut connection)
        .await?;
    // The one place that asks a server for its time: to compare it, never to write it.
    let now: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .fetch_one(&mut connection)
        .await?;
    let has_table: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut connection)
        .await?;
    let applied: Vec<i64> = match has_table {
        true => sqlx::query_scalar(APPLIED).fetch_all(&mut connection).await?,
        false => Vec::new(),
    };
    let needs = match applied.is_empty() {
        true => None,
        false => sqlx::query_scalar(NEEDS).fetch_optional(&mut connection).await?,
    };
    connection.close().await?;
    // The version is followed by the packager's words.
    let version = version.split(' ').next().unwrap_or_default();
    let found = inspection(format!("PostgreSQL {version}"), &POSTGRES, &applied, Some(Timestamp(now)));
    Ok(Inspection { needs, ..found })
}

const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";

/// See [`super::footing::NEEDS`].
const NEEDS: &str = "SELECT CAST(value AS BIGINT) AS needs FROM settings WHERE name = 'schema_needs'";

fn inspection(engine: String, ours: &Migrator, applied: &[i64], server_now: Option<Timestamp>) -> Inspection {
    let known: BTreeSet<i64> = ours.iter().map(|migration| migration.version).collect();
    let applied: BTreeSet<i64> = applied.iter().copied().collect();
    Inspection {
        engine,
        missing: known.difference(&applied).copied().collect(),
        unknown: applied.difference(&known).copied().collect(),
        needs: None,
        server_now,
    }
}
