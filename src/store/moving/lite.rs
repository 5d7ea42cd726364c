//! One side of a move on SQLite: its rows in the order of their keys, its seal, its counters. Also what the migrations make, asked
//! of a database in memory.

use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection, query::Query};

use super::row::{Cell, Column, Kind, Table, in_order, joined, quoted};
use crate::store::{Result, StoreError, schema};

/// How long another process's transaction is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Rows of one INSERT, and values: SQLite takes 32,766 at most.
const INSERT_ROWS_MAX: usize = 200;
const INSERT_VALUES_MAX: usize = 8_000;

/// A database file that exists.
pub(super) async fn open(path: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("cache_size", "-16384");
    Ok(options.connect().await?)
}

/// The tables that the migrations of this program make, parents first.
pub(super) async fn tables() -> Result<Vec<Table>> {
    let mut memory = SqliteConnectOptions::new().in_memory(true).connect().await?;
    schema::sqlite().run(&mut memory).await?;
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut memory)
    .await?;
    let mut tables = Vec::with_capacity(found.len());
    for (name, made) in found {
        tables.push(describe(&mut memory, name, made.contains("AUTOINCREMENT")).await?);
    }
    memory.close().await?;
    in_order(tables)
}

async fn describe(memory: &mut SqliteConnection, name: String, is_counted: bool) -> Result<Table> {
    let mut columns: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT name, type, pk FROM pragma_table_info($1) ORDER BY name")
            .bind(&name)
            .fetch_all(&mut *memory)
            .await?;
    columns.sort();
    let mut key: Vec<(i64, usize)> = (0..columns.len())
        .filter(|&at| columns[at].2 > 0)
        .map(|at| (columns[at].2, at))
        .collect();
    key.sort_unstable();
    if key.is_empty() {
        return Err(StoreError::Refused(format!("the table {name} has no key, and cannot be moved")));
    }
    let parents = sqlx::query_scalar("SELECT DISTINCT \"table\" FROM pragma_foreign_key_list($1)")
        .bind(&name)
        .fetch_all(&mut *memory)
        .await?;
    Ok(Table {
        counted: is_counted.then(|| columns[key[0].1].0.clone()),
        key: key.into_iter().map(|(_, at)| at).collect(),
        columns: columns
            .into_iter()
            .map(|(name, declared, _)| {
                Ok(Column {
                    kind: Kind::of(&declared)?,
                    name,
                })
            })
            .collect::<Result<_>>()?,
        parents,
        name,
    })
}

/// The names of all columns of all tables.
pub(super) async fn columns(lite: &mut SqliteConnection) -> Result<Vec<(String, String)>> {
    let found = sqlx::query_as(
        "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'",
    )
    .fetch_all(lite)
    .await?;
    Ok(found)
}

fn bound<'q>(
    mut query: Query<'q, sqlx::Sqlite, SqliteArguments>,
    cell: &Cell,
) -> Query<'q, sqlx::Sqlite, SqliteArguments> {
    query = match cell {
        Cell::Null => query.bind(None::<i64>),
        Cell::Int(n) => query.bind(*n),
        Cell::Text(text) => query.bind(text.clone()),
        Cell::Blob(bytes) => query.bind(bytes.clone()),
    };
    query
}

fn cells(table: &Table, row: &SqliteRow) -> Result<Vec<Cell>> {
    let cell = |(at, column): (usize, &Column)| {
        Ok(match column.kind {
            Kind::Int => row.try_get::<Option<i64>, _>(at)?.map_or(Cell::Null, Cell::Int),
            Kind::Text => row.try_get::<Option<String>, _>(at)?.map_or(Cell::Null, Cell::Text),
            Kind::Blob => row.try_get::<Option<Vec<u8>>, _>(at)?.map_or(Cell::Null, Cell::Blob),
        })
    };
    table.columns.iter().enumerate().map(cell).collect()
}

/// Rows after a key, until there are enough of them or of their bytes.
pub(super) async fn page(
    lite: &mut SqliteConnection,
    table: &Table,
    after: Option<&[Cell]>,
    limit: i64,
    bytes_max: usize,
) -> Result<Vec<Vec<Cell>>> {
    let mut query = sqlx::query(AssertSqlSafe(table.page(after, limit)));
    for cell in after.unwrap_or_default() {
        query = bound(query, cell);
    }
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut found = query.fetch(lite);
    while let Some(row) = found.try_next().await? {
        let row = cells(table, &row)?;
        bytes += row.iter().map(Cell::len).sum::<usize>();
        rows.push(row);
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(rows)
}

pub(super) async fn last(lite: &mut SqliteConnection, table: &Table) -> Result<Option<Vec<Cell>>> {
    let row = sqlx::query(AssertSqlSafe(table.last())).fetch_optional(lite).await?;
    row.map(|row| cells(table, &row)).transpose()
}

/// Writes rows in one transaction.
pub(super) async fn insert(lite: &mut SqliteConnection, table: &Table, rows: &[Vec<Cell>]) -> Result<()> {
    let mut tx = lite.begin_with("BEGIN IMMEDIATE").await?;
    let at_once = (INSERT_VALUES_MAX / table.columns.len()).clamp(1, INSERT_ROWS_MAX);
    for part in rows.chunks(at_once) {
        let line = format!("({})", joined(table.columns.iter().map(|_| "?".to_owned())));
        let text = format!(
            "INSERT INTO {} ({}) VALUES {}",
            quoted(&table.name),
            table.column_names(),
            joined(part.iter().map(|_| line.clone()))
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for cell in part.iter().flatten() {
            query = bound(query, cell);
        }
        query.execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}

/// The last number that a counted column was given.
pub(super) async fn last_id(lite: &mut SqliteConnection, table: &Table) -> Result<i64> {
    let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = $1")
        .bind(&table.name)
        .fetch_optional(lite)
        .await?;
    Ok(last.unwrap_or(0))
}

pub(super) async fn set_last_id(lite: &mut SqliteConnection, table: &Table, last: i64) -> Result<()> {
    let mut tx = lite.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("DELETE FROM sqlite_sequence WHERE name = $1")
        .bind(&table.name)
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)")
        .bind(&table.name)
        .bind(last)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// From here on every write to the table is refused with these words, whoever tries.
pub(super) async fn seal(lite: &mut SqliteConnection, table: &str, words: &str) -> Result<()> {
    unseal(lite, table).await?;
    for event in EVENTS {
        let text = format!(
            "CREATE TRIGGER {} BEFORE {event} ON {} BEGIN SELECT RAISE(ABORT, '{}'); END",
            trigger(table, event),
            quoted(table),
            words.replace('\'', "''")
        );
        sqlx::query(AssertSqlSafe(text)).execute(&mut *lite).await?;
    }
    Ok(())
}

pub(super) async fn unseal(lite: &mut SqliteConnection, table: &str) -> Result<()> {
    for event in EVENTS {
        let text = format!("DROP TRIGGER IF EXISTS {}", trigger(table, event));
        sqlx::query(AssertSqlSafe(text)).execute(&mut *lite).await?;
    }
    Ok(())
}

const EVENTS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

fn trigger(table: &str, event: &str) -> String {
    quoted(&format!("hikyaku_moved_{table}_{}", event.to_ascii_lowercase()))
}

pub(super) async fn is_sealed(lite: &mut SqliteConnection) -> Result<bool> {
    let sealed = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'hikyaku_moved_%')",
    )
    .fetch_one(lite)
    .await?;
    Ok(sealed)
}
