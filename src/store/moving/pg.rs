//! One side of a move on PostgreSQL: its rows in the order of their keys, its seal, its counters.

use std::str::FromStr;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row, query::Query};

use super::row::{Cell, Column, Kind, Table, quoted};
use crate::store::{Result, StoreError};

/// Held by the one process that moves this database, for as long as it is connected.
const LOCK: i64 = 0x0068_696b_7961_6b75;

pub(super) async fn open(url: &str) -> Result<PgConnection> {
    let options = PgConnectOptions::from_str(url).map_err(|e| StoreError::Refused(format!("the database URL: {e}")))?;
    let mut connection = options
        .application_name("hikyaku migrate-store")
        .options([
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            // For the seal, which waits for everybody's transactions: it is tried again.
            ("lock_timeout", "5000"),
        ])
        .connect()
        .await?;
    let is_ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut connection)
        .await?;
    if !is_ours {
        return Err(StoreError::Conflict("another `hikyaku migrate-store` is at work on this database".to_owned()));
    }
    Ok(connection)
}

/// The names of all columns of all tables.
pub(super) async fn columns(pg: &mut PgConnection) -> Result<Vec<(String, String)>> {
    let found = sqlx::query_as(
        "SELECT CAST(table_name AS text), CAST(column_name AS text) FROM information_schema.columns
          WHERE table_schema = current_schema()",
    )
    .fetch_all(pg)
    .await?;
    Ok(found)
}

fn bound<'q>(query: Query<'q, sqlx::Postgres, PgArguments>, cell: &Cell) -> Query<'q, sqlx::Postgres, PgArguments> {
    match cell {
        Cell::Null => query.bind(None::<i64>),
        Cell::Int(n) => query.bind(*n),
        Cell::Text(text) => query.bind(text.clone()),
        Cell::Blob(bytes) => query.bind(bytes.clone()),
    }
}

fn cells(table: &Table, row: &PgRow) -> Result<Vec<Cell>> {
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
    pg: &mut PgConnection,
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
    let mut found = query.fetch(pg);
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

pub(super) async fn last(pg: &mut PgConnection, table: &Table) -> Result<Option<Vec<Cell>>> {
    let row = sqlx::query(AssertSqlSafe(table.last())).fetch_optional(pg).await?;
    row.map(|row| cells(table, &row)).transpose()
}

/// Writes rows in one transaction, as one binary COPY.
pub(super) async fn insert(pg: &mut PgConnection, table: &Table, rows: &[Vec<Cell>]) -> Result<()> {
    let document = copied(table, rows)?;
    let text = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", quoted(&table.name), table.column_names());
    let mut copy = pg.copy_in_raw(&text).await?;
    match copy.send(document).await {
        Ok(_) => copy.finish().await?,
        Err(error) => {
            // The connection is of no use without an end to the copy; what failed first is what counts.
            drop(copy.abort("the rows could not be sent").await);
            return Err(error.into());
        }
    };
    Ok(())
}

/// The format is told in PostgreSQL's documentation of COPY: a head, each row as its number of fields and each field with its
/// length, and a trailer.
fn copied(table: &Table, rows: &[Vec<Cell>]) -> Result<Vec<u8>> {
    let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    let n_columns = i16::try_from(table.columns.len()).expect("a table has few columns");
    for row in rows {
        out.extend(n_columns.to_be_bytes());
        for (cell, column) in row.iter().zip(&table.columns) {
            match cell {
                Cell::Null => out.extend((-1i32).to_be_bytes()),
                Cell::Int(n) => add_field(&mut out, &n.to_be_bytes())?,
                Cell::Text(text) if text.contains('\0') => return Err(unstorable(table, column, row)),
                Cell::Text(text) => add_field(&mut out, text.as_bytes())?,
                Cell::Blob(bytes) => add_field(&mut out, bytes)?,
            }
        }
    }
    out.extend((-1i16).to_be_bytes());
    Ok(out)
}

fn add_field(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    let length =
        i32::try_from(bytes.len()).map_err(|_| StoreError::Corrupt("a value of more than 2 GiB".to_owned()))?;
    out.extend(length.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

fn unstorable(table: &Table, column: &Column, row: &[Cell]) -> StoreError {
    let key: Vec<String> = table.key_of(row).iter().map(Cell::shown).collect();
    StoreError::Conflict(format!(
        "{}.{} of the row {} holds a character with the number 0, which PostgreSQL cannot store: change it first",
        table.name,
        column.name,
        key.join(", ")
    ))
}

/// The last number that a counted column was given.
pub(super) async fn last_id(pg: &mut PgConnection, table: &Table, counted: &str) -> Result<i64> {
    let sequence: String = sqlx::query_scalar("SELECT pg_get_serial_sequence($1, $2)")
        .bind(quoted(&table.name))
        .bind(counted)
        .fetch_one(&mut *pg)
        .await?;
    let text = format!("SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}");
    Ok(sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(pg).await?)
}

pub(super) async fn set_last_id(pg: &mut PgConnection, table: &Table, counted: &str, last: i64) -> Result<()> {
    sqlx::query("SELECT setval(pg_get_serial_sequence($1, $2), GREATEST($3, 1), $3 > 0)")
        .bind(quoted(&table.name))
        .bind(counted)
        .bind(last)
        .execute(pg)
        .await?;
    Ok(())
}

/// Waits for everybody's writes to these tables to end and keeps others from beginning, until the transaction ends.
pub(super) async fn lock(pg: &mut PgConnection, tables: &[Table]) -> Result<()> {
    let names = super::row::joined(tables.iter().map(|t| quoted(&t.name)));
    sqlx::query(AssertSqlSafe(format!("LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")))
        .execute(pg)
        .await?;
    Ok(())
}

/// From here on every write to the table is refused with these words, whoever tries.
pub(super) async fn seal(pg: &mut PgConnection, table: &str, words: &str) -> Result<()> {
    unseal(pg, table).await?;
    sqlx::query(
        "CREATE OR REPLACE FUNCTION hikyaku_moved() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'HKMVD'; END $$",
    )
    .execute(&mut *pg)
    .await?;
    let text = format!(
        "CREATE TRIGGER hikyaku_moved BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {}
         FOR EACH STATEMENT EXECUTE FUNCTION hikyaku_moved('{}')",
        quoted(table),
        words.replace('\'', "''")
    );
    sqlx::query(AssertSqlSafe(text)).execute(pg).await?;
    Ok(())
}

pub(super) async fn unseal(pg: &mut PgConnection, table: &str) -> Result<()> {
    let text = format!("DROP TRIGGER IF EXISTS hikyaku_moved ON {}", quoted(table));
    sqlx::query(AssertSqlSafe(text)).execute(pg).await?;
    Ok(())
}

pub(super) async fn is_sealed(pg: &mut PgConnection) -> Result<bool> {
    let sealed = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                         WHERE t.tgname = 'hikyaku_moved' AND c.relnamespace = current_schema()::regnamespace)",
    )
    .fetch_one(pg)
    .await?;
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_postgresql_cannot_store_is_named() {
        let column = |name: &str, kind| Column {
            name: name.to_owned(),
            kind,
        };
        let table = Table {
            name: "contacts".to_owned(),
            columns: vec![column("id", Kind::Int), column("name", Kind::Text)],
            key: vec![0],
            counted: None,
            parents: Vec::new(),
        };
        let row = vec![Cell::Int(7), Cell::Text("a\0b".to_owned())];
        let refused = copied(&table, &[row]).unwrap_err().to_string();
        assert!(refused.starts_with("contacts.name of the row 7 holds"), "{refused}");
    }
}
