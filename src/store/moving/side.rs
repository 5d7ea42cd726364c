//! One side of a move, whichever database it is: pages of rows, sums, marks and the seal. Only passes on what differs.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use super::mark::{Marks, NAMES};
use super::row::{Cell, Sum, Summing, Table};
use super::{lite, pg};
use crate::store::{DatabaseUrl, Result, StoreError};

/// Rows of a page at most, and about how many of their bytes: letters and chunks can be large.
const PAGE_ROWS_MAX: i64 = 5_000;
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The first page of a table finds out how large its rows are.
const PAGE_ROWS_FIRST: i64 = 16;

pub(super) enum Side {
    Lite(SqliteConnection),
    Pg(PgConnection),
}

/// The same words for both drivers.
macro_rules! on {
    ($side:expr, $connection:ident => $does:expr) => {
        match $side {
            Side::Lite($connection) => $does,
            Side::Pg($connection) => $does,
        }
    };
}

impl Side {
    /// Connects to a database that is there.
    pub async fn open(url: &DatabaseUrl) -> Result<Self> {
        Ok(match url {
            DatabaseUrl::Sqlite(path) => Side::Lite(lite::open(path).await?),
            DatabaseUrl::Postgres(url) => Side::Pg(pg::open(url).await?),
        })
    }

    pub async fn close(self) {
        // Everything is committed by now: what fails here has lost nothing.
        let closed = on!(self, connection => connection.close().await);
        if let Err(error) = closed {
            tracing::debug!(%error, "A connection was not closed in good order");
        }
    }

    /// The columns of all tables there are.
    pub async fn columns(&mut self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let found = match self {
            Side::Lite(lite) => lite::columns(lite).await?,
            Side::Pg(pg) => pg::columns(pg).await?,
        };
        let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (table, column) in found {
            tables.entry(table).or_default().insert(column);
        }
        Ok(tables)
    }

    pub async fn count(&mut self, table: &Table) -> Result<i64> {
        on!(self, c => Ok(sqlx::query_scalar(AssertSqlSafe(table.count())).fetch_one(c).await?))
    }

    pub async fn has_rows(&mut self, table: &Table) -> Result<bool> {
        let n: i64 = on!(self, c => sqlx::query_scalar(AssertSqlSafe(table.has_rows())).fetch_one(c).await?);
        Ok(n > 0)
    }

    pub async fn page(&mut self, table: &Table, after: Option<&[Cell]>, limit: i64) -> Result<Vec<Vec<Cell>>> {
        match self {
            Side::Lite(lite) => lite::page(lite, table, after, limit, PAGE_BYTES_MAX).await,
            Side::Pg(pg) => pg::page(pg, table, after, limit, PAGE_BYTES_MAX).await,
        }
    }

    /// The row with the greatest key.
    pub async fn last(&mut self, table: &Table) -> Result<Option<Vec<Cell>>> {
        match self {
            Side::Lite(lite) => lite::last(lite, table).await,
            Side::Pg(pg) => pg::last(pg, table).await,
        }
    }

    /// Writes a page in one transaction.
    pub async fn insert(&mut self, table: &Table, rows: &[Vec<Cell>]) -> Result<()> {
        match self {
            Side::Lite(lite) => lite::insert(lite, table, rows).await,
            Side::Pg(pg) => pg::insert(pg, table, rows).await,
        }
    }

    /// Adds a whole table up, telling how far it is.
    pub async fn sum(&mut self, table: &Table, mut told: impl FnMut(u64)) -> Result<Sum> {
        let (mut summing, mut pages) = (Summing::start(), Pages::default());
        while let Some(rows) = pages.next(self, table).await? {
            for row in &rows {
                summing.add(row);
            }
            told(rows.len() as u64);
        }
        Ok(summing.end())
    }

    /// The last number that was given out for a table that counts its rows.
    pub async fn last_id(&mut self, table: &Table) -> Result<i64> {
        let Some(counted) = &table.counted else { return Ok(0) };
        let given = match self {
            Side::Lite(lite) => lite::last_id(lite, table).await?,
            Side::Pg(pg) => pg::last_id(pg, table, counted).await?,
        };
        let greatest: i64 =
            on!(self, c => sqlx::query_scalar(AssertSqlSafe(table.greatest(counted))).fetch_one(c).await?);
        Ok(given.max(greatest))
    }

    pub async fn set_last_id(&mut self, table: &Table, last: i64) -> Result<()> {
        match (&table.counted, self) {
            (None, _) => Ok(()),
            (Some(_), Side::Lite(lite)) => lite::set_last_id(lite, table, last).await,
            (Some(counted), Side::Pg(pg)) => pg::set_last_id(pg, table, counted, last).await,
        }
    }

    pub async fn marks(&mut self) -> Result<Marks> {
        let mut marks = Marks::default();
        for name in NAMES {
            let value: Option<String> = on!(self, c => {
                sqlx::query_scalar("SELECT value FROM settings WHERE name = $1").bind(name).fetch_optional(c).await?
            });
            marks.set(name, value.as_deref())?;
        }
        Ok(marks)
    }

    /// Writes a mark of an unsealed database.
    pub async fn mark(&mut self, name: &str, value: &str) -> Result<()> {
        on!(self, c => put_mark!(c, name, value));
        Ok(())
    }

    pub async fn unmark(&mut self, name: &str) -> Result<()> {
        on!(self, c => take_mark!(c, name));
        Ok(())
    }

    /// Workers that may be at work, and jobs that are not given back: as a sentence, or `None` when there are none.
    pub async fn at_work(&mut self) -> Result<Option<String>> {
        on!(self, c => {
            let workers: Vec<(String, i64)> =
                sqlx::query_as("SELECT host, pid FROM workers WHERE state IN ('live', 'draining') ORDER BY id LIMIT 20")
                    .fetch_all(&mut *c)
                    .await?;
            let jobs: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE state = 'running'").fetch_one(&mut *c).await?;
            Ok(told(&workers, jobs))
        })
    }

    /// Seals every table, in one transaction in which nobody writes. `Some` when somebody is at work after all: then nothing
    /// was sealed.
    ///
    /// # Errors
    /// `Contended` when others' transactions did not end in time.
    pub async fn seal(&mut self, tables: &[Table], words: &str) -> Result<Option<String>> {
        self.begin().await?;
        match self.try_seal(tables, words).await {
            Ok(None) => self.end("COMMIT").await.map(|()| None),
            Ok(busy) => self.end("ROLLBACK").await.map(|()| busy),
            Err(error) => {
                self.end("ROLLBACK").await?;
                Err(error)
            }
        }
    }

    async fn try_seal(&mut self, tables: &[Table], words: &str) -> Result<Option<String>> {
        if let Side::Pg(pg) = self {
            pg::lock(pg, tables).await?;
        }
        if let Some(busy) = self.at_work().await? {
            return Ok(Some(busy));
        }
        for table in tables {
            self.seal_table(&table.name, words).await?;
        }
        Ok(None)
    }

    /// Breaks the seal, and takes the mark away, in one transaction.
    pub async fn give_back(&mut self, tables: &[Table], mark: &str) -> Result<()> {
        self.begin().await?;
        for table in tables {
            self.unseal_table(&table.name).await?;
        }
        on!(self, c => take_mark!(c, mark));
        self.end("COMMIT").await
    }

    /// Changes the mark of a sealed database, and the words of its seal, in one transaction.
    pub async fn mark_moved(
        &mut self,
        tables: &[Table],
        before: &str,
        after: &str,
        value: &str,
        words: &str,
    ) -> Result<()> {
        self.begin().await?;
        self.unseal_table("settings").await?;
        on!(self, c => take_mark!(c, before));
        on!(self, c => put_mark!(c, after, value));
        for table in tables {
            self.seal_table(&table.name, words).await?;
        }
        self.end("COMMIT").await
    }

    pub async fn is_sealed(&mut self) -> Result<bool> {
        match self {
            Side::Lite(lite) => lite::is_sealed(lite).await,
            Side::Pg(pg) => pg::is_sealed(pg).await,
        }
    }

    /// So that the first statements on a PostgreSQL that was filled at once find good plans. SQLite plans without.
    pub async fn analyze(&mut self) -> Result<()> {
        if let Side::Pg(pg) = self {
            sqlx::query("ANALYZE").execute(pg).await?;
        }
        Ok(())
    }

    async fn seal_table(&mut self, table: &str, words: &str) -> Result<()> {
        match self {
            Side::Lite(lite) => lite::seal(lite, table, words).await,
            Side::Pg(pg) => pg::seal(pg, table, words).await,
        }
    }

    async fn unseal_table(&mut self, table: &str) -> Result<()> {
        match self {
            Side::Lite(lite) => lite::unseal(lite, table).await,
            Side::Pg(pg) => pg::unseal(pg, table).await,
        }
    }

    async fn begin(&mut self) -> Result<()> {
        match self {
            Side::Lite(lite) => sqlx::query("BEGIN IMMEDIATE").execute(lite).await.map(drop)?,
            Side::Pg(pg) => sqlx::query("BEGIN").execute(pg).await.map(drop)?,
        }
        Ok(())
    }

    async fn end(&mut self, how: &'static str) -> Result<()> {
        on!(self, c => sqlx::query(how).execute(c).await.map(drop)?);
        Ok(())
    }
}

macro_rules! put_mark {
    ($connection:expr, $name:expr, $value:expr) => {
        sqlx::query(
            "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind($name)
        .bind($value)
        .execute(&mut *$connection)
        .await
        .map(drop)?
    };
}
use put_mark;

macro_rules! take_mark {
    ($connection:expr, $name:expr) => {
        sqlx::query("DELETE FROM settings WHERE name = $1")
            .bind($name)
            .execute(&mut *$connection)
            .await
            .map(drop)?
    };
}
use take_mark;

fn told(workers: &[(String, i64)], jobs: i64) -> Option<String> {
    if workers.is_empty() && jobs == 0 {
        return None;
    }
    let names: Vec<String> = workers
        .iter()
        .map(|(host, pid)| format!("{host} (process {pid})"))
        .collect();
    Some(match names.is_empty() {
        true => format!("{jobs} jobs are not given back yet"),
        false => format!("workers: {}", names.join(", ")),
    })
}

/// A walk through a table. Pages grow while rows are small.
pub(super) struct Pages {
    after: Option<Vec<Cell>>,
    limit: i64,
}

impl Default for Pages {
    fn default() -> Self {
        Self::after(None)
    }
}

impl Pages {
    pub fn after(key: Option<Vec<Cell>>) -> Self {
        Self {
            after: key,
            limit: PAGE_ROWS_FIRST,
        }
    }

    /// The next page; `None` at the end.
    pub async fn next(&mut self, side: &mut Side, table: &Table) -> Result<Option<Vec<Vec<Cell>>>> {
        let rows = side.page(table, self.after.as_deref(), self.limit).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.after = Some(table.key_of(last));
        let n = rows.len() as i64;
        let bytes: usize = rows.iter().flatten().map(Cell::len).sum();
        // What fits is asked for: rows that were sent in vain cost the most where they are largest.
        let fit = (PAGE_BYTES_MAX / (bytes / rows.len()).max(1)) as i64;
        self.limit = fit.clamp(1, (n * 4).clamp(PAGE_ROWS_FIRST, PAGE_ROWS_MAX));
        Ok(Some(rows))
    }
}

/// The key of the first row that the two sides do not have alike, for a person to look at.
pub(super) async fn first_difference(one: &mut Side, other: &mut Side, table: &Table) -> Result<String> {
    let (mut mine, mut theirs) = (Rows::default(), Rows::default());
    loop {
        let pair = (mine.next(one, table).await?, theirs.next(other, table).await?);
        let key = match &pair {
            (None, None) => return Ok("none that could be found again".to_owned()),
            (Some(a), Some(b)) if a == b => continue,
            (Some(a), Some(b)) => table.key_of(a).min(table.key_of(b)),
            (Some(row), None) | (None, Some(row)) => table.key_of(row),
        };
        return Ok(key.iter().map(Cell::shown).collect::<Vec<_>>().join(", "));
    }
}

/// Pages as single rows.
#[derive(Default)]
struct Rows {
    pages: Pages,
    here: std::vec::IntoIter<Vec<Cell>>,
}

impl Rows {
    async fn next(&mut self, side: &mut Side, table: &Table) -> Result<Option<Vec<Cell>>> {
        if self.here.len() == 0 {
            self.here = self.pages.next(side, table).await?.unwrap_or_default().into_iter();
        }
        Ok(self.here.next())
    }
}

impl Side {
    /// Whether the database has every table and column that this program knows, and no other column in them.
    ///
    /// # Errors
    /// `Conflict` with the first difference.
    pub async fn expect_schema(&mut self, which: &str, tables: &[Table]) -> Result<()> {
        let found = self.columns().await?;
        for table in tables {
            let known: BTreeSet<String> = table.columns.iter().map(|c| c.name.clone()).collect();
            if found.get(&table.name) != Some(&known) {
                return Err(StoreError::Conflict(format!(
                    "the table {} of the {which} is not as this program knows it: use the version that last ran on it",
                    table.name
                )));
            }
        }
        Ok(())
    }
}
