//! Moving everything from one database to another, in either direction: every row of every table, in the order of keys, then
//! compared by a hash of each table. What is never allowed: that both databases let somebody send, at any moment, however often
//! this process is killed.
//!
//! The source is marked first, so that workers step aside; when the last one has, it is sealed: every table refuses
//! writes, whoever tries and with whatever version. Only then are rows read, so that nothing that is read can change. The
//! target bears a mark, too, which keeps everybody off until it is whole. Between the two the source is marked as moved.
//!
//! Going on after a kill needs no notes: pages are committed in the order of keys, so that the last row of the
//! target says where to go on.

mod lite;
mod mark;
mod pg;
mod row;
mod side;

use std::fs::File;
use std::time::Duration;

use mark::{Found, Mark, Stage, stage};
pub use row::Sum;
use row::Table;
use side::{Pages, Side, first_difference};

use super::footing::{MOVED_TO, MOVING_FROM, MOVING_TO, moved_to};
use super::schema::{self, Inspection};
use super::{CONNECTIONS_DEFAULT, DatabaseUrl, Purpose, Result, Store, StoreError, lock, open, open_for};
use crate::domain::time::Timestamp;

/// Between two looks whether the last worker has gone.
const LOOK: Duration = Duration::from_millis(200);
/// The number of no worker: whoever rescues by it spares nobody.
const NOBODY: i64 = 0;

/// From where to where.
#[derive(Debug, Clone)]
pub struct Route {
    pub source: DatabaseUrl,
    pub target: DatabaseUrl,
}

/// How to deal with who is in the way.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Make running workers step aside; otherwise they are a reason to refuse.
    pub stop_workers: bool,
    /// How long to wait for them.
    pub patience: Duration,
}

/// What is going on, for who watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Somebody is still at work on the source.
    Waiting { whom: String },
    /// Rows of a table that stand in the target; of all tables `done` of `total`.
    Moved { table: String, done: u64, total: u64 },
    /// Rows that were read to compare both sides.
    Compared { table: String, done: u64, total: u64 },
}

/// Hears the news. Its `false` ends the move where it is, as a kill would.
pub type Watch<'a> = &'a mut (dyn FnMut(News) -> bool + Send);

/// A table that was moved, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub table: String,
    pub sum: Sum,
}

/// What a move would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Each table with its rows.
    pub tables: Vec<(String, u64)>,
    /// Who would have to step aside.
    pub in_the_way: Option<String>,
    /// Whether an earlier run has begun it.
    pub is_begun: bool,
    /// Migrations that the source lacks: they come first.
    pub missing: Vec<i64>,
}

/// How a move ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Everything is in the target, compared row by row.
    Moved(Vec<Moved>),
    /// An earlier run had done everything.
    WasOver,
}

/// What `carry_out` would find and do. Changes nothing.
///
/// # Errors
/// `Conflict` with the reason when the move would be refused.
pub async fn plan(route: &Route) -> Result<Plan> {
    let missing = look_at_source(route).await?.missing;
    let tables = lite::tables().await?;
    let mut source = Side::open(&route.source).await?;
    let begun =
        stage(&marks_of(&mut source).await?, &look_at_target(route, &tables).await?, &route.target.to_string())?;
    let there = source.columns().await?;
    let mut counted = Vec::new();
    for table in tables.iter().filter(|t| there.contains_key(&t.name)) {
        counted.push((table.name.clone(), source.count(table).await? as u64));
    }
    let in_the_way = match there.is_empty() {
        true => None,
        false => source.at_work().await?,
    };
    source.close().await;
    Ok(Plan {
        tables: counted,
        in_the_way,
        is_begun: begun != Stage::Begin,
        missing,
    })
}

/// Moves everything, or goes on where an earlier run was interrupted. `id` names a new move, `now` tells the time whenever it
/// is asked.
///
/// # Errors
/// `Conflict` when the move is refused, with the reason, or when the two sides differ in the end. What was begun stays as it is.
pub async fn carry_out(
    route: &Route,
    manners: Manners,
    id: &str,
    now: &(dyn Fn() -> Timestamp + Sync),
    watch: Watch<'_>,
) -> Result<Ended> {
    look_at_source(route).await?;
    let tables = lite::tables().await?;
    let target_url = route.target.to_string();
    let mut source = Side::open(&route.source).await?;
    let begun = stage(&marks_of(&mut source).await?, &look_at_target(route, &tables).await?, &target_url)?;
    let id = match begun {
        Stage::Over => return Ok(Ended::WasOver),
        Stage::Open => {
            let mut target = Side::open(&route.target).await?;
            target.unmark(MOVING_FROM).await?;
            return Ok(Ended::WasOver);
        }
        Stage::Begin => id.to_owned(),
        Stage::GoOn(id) => id,
    };
    let mark = |url: &DatabaseUrl| Mark {
        id: id.clone(),
        url: url.to_string(),
    };
    // For its end, so that nobody sends from either file meanwhile.
    let _target_lock = lock::take(&route.target)?;
    let _source_lock = match source.is_sealed().await? {
        true => lock::take(&route.source)?,
        false => Some(silence(route, &mut source, &tables, &mark(&route.target), manners, now, watch).await?).flatten(),
    };
    source.expect_schema("source", &tables).await?;
    let mut target = prepare(route, &tables, &mark(&route.source)).await?;

    let total = total(&mut source, &tables).await?;
    copy(&mut source, &mut target, &tables, total, watch).await?;
    let moved = compare(&mut source, &mut target, &tables, total, watch).await?;

    // From here on the source is the past. A kill between the two leaves a target that the next run opens.
    let after = mark(&route.target);
    source
        .mark_moved(&tables, MOVING_TO, MOVED_TO, &after.value(), &moved_to(&after.url))
        .await?;
    target.analyze().await?;
    target.unmark(MOVING_FROM).await?;
    source.close().await;
    target.close().await;
    Ok(Ended::Moved(moved))
}

/// Gives a move up that has not come to its end: the source may be used again, and the target stays unusable.
///
/// # Errors
/// `Conflict` when the source was moved already, or when nothing was begun.
pub async fn abandon(source: &DatabaseUrl) -> Result<()> {
    let tables = lite::tables().await?;
    let mut side = Side::open(source).await?;
    let marks = marks_of(&mut side).await?;
    if let Some(to) = marks.moved_to {
        return Err(StoreError::Conflict(format!(
            "the move to {} has come to its end: there is nothing to give up",
            to.url
        )));
    }
    if marks.moving_to.is_none() {
        return Err(StoreError::Conflict("no move of this database has begun".to_owned()));
    }
    side.give_back(&tables, MOVING_TO).await?;
    side.close().await;
    Ok(())
}

/// A source must be there, and known to this program.
async fn look_at_source(route: &Route) -> Result<Inspection> {
    if route.source == route.target {
        return Err(StoreError::Conflict("source and target are the same database".to_owned()));
    }
    let found = schema::inspect(&route.source).await?;
    let found = found.ok_or_else(|| StoreError::Conflict(format!("there is no database {}", route.source)))?;
    if !found.unknown.is_empty() {
        return Err(StoreError::Aside(
            "the source was used by a newer program, which may keep there what this one does not know: use that version".to_owned(),
        ));
    }
    Ok(found)
}

async fn marks_of(side: &mut Side) -> Result<mark::Marks> {
    match side.columns().await?.contains_key("settings") {
        true => side.marks().await,
        false => Ok(mark::Marks::default()),
    }
}

/// What a target holds, before anything of it is changed. A file that does not exist holds nothing.
async fn look_at_target(route: &Route, tables: &[Table]) -> Result<Found> {
    let mut found = Found {
        marks: mark::Marks::default(),
        has_rows: false,
    };
    if schema::inspect(&route.target).await?.is_none() {
        return Ok(found);
    }
    let mut target = Side::open(&route.target).await?;
    found.marks = marks_of(&mut target).await?;
    let there = target.columns().await?;
    for table in tables.iter().filter(|t| there.contains_key(&t.name)) {
        found.has_rows |= target.has_rows(table).await?;
    }
    target.close().await;
    Ok(found)
}

/// Marks the source, waits until nobody is at work on it any more, and seals it. Returns the lock of its file.
async fn silence(
    route: &Route,
    source: &mut Side,
    tables: &[Table],
    mark: &Mark,
    manners: Manners,
    now: &(dyn Fn() -> Timestamp + Sync),
    watch: Watch<'_>,
) -> Result<Option<File>> {
    // Brings the schema up to date, and notices that it was restored, unless the mark is there already.
    let is_marked = marks_of(source).await?.moving_to.is_some();
    let store = match is_marked {
        true => open_for(Purpose::Move, &route.source, CONNECTIONS_DEFAULT).await?.work,
        false => open(&route.source).await?,
    };
    let mut lock = None;
    if !manners.stop_workers
        && let Some(whom) = still_there(route, &*store, source, &mut lock, now()).await?
    {
        return Err(StoreError::Conflict(format!(
            "somebody sends from the source ({whom}): stop that first, or let it step aside with --stop-workers"
        )));
    }
    source.mark(MOVING_TO, &mark.value()).await?;
    let words = format!("the database is being moved to {}", mark.url);
    let silent = async {
        loop {
            let busy = match still_there(route, &*store, source, &mut lock, now()).await? {
                Some(whom) => Some(whom),
                None => match source.seal(tables, &words).await {
                    Err(StoreError::Contended) => Some("transactions that have not ended".to_owned()),
                    sealed => sealed?,
                },
            };
            let Some(whom) = busy else { return Ok(()) };
            if !watch(News::Waiting { whom }) {
                return Err(interrupted());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let Ok(silent) = tokio::time::timeout(manners.patience, silent).await else {
        return Err(StoreError::Conflict(
            "somebody is still at work on the source: stop it and run this again, or give the move up with --abandon"
                .to_owned(),
        ));
    };
    silent.map(|()| lock)
}

/// Who is still at work. What the dead left is given back, and is for the target's workers.
async fn still_there(
    route: &Route,
    store: &dyn Store,
    source: &mut Side,
    lock: &mut Option<File>,
    now: Timestamp,
) -> Result<Option<String>> {
    if let DatabaseUrl::Sqlite(path) = &route.source {
        if lock.is_none() {
            *lock = lock::try_take(path)?;
        }
        if lock.is_none() {
            return Ok(Some("a process that holds its lock".to_owned()));
        }
        store.void_other_workers(NOBODY).await?;
    } else {
        store.rescue(NOBODY, now).await?;
    }
    source.at_work().await
}

/// Makes the target's schema and marks it, so that nobody works on what is not whole.
async fn prepare(route: &Route, tables: &[Table], mark: &Mark) -> Result<Side> {
    drop(open_for(Purpose::Move, &route.target, CONNECTIONS_DEFAULT).await?);
    let mut target = Side::open(&route.target).await?;
    target.expect_schema("target", tables).await?;
    if target.marks().await?.moving_from.is_none() {
        target.mark(MOVING_FROM, &mark.value()).await?;
        // Somebody may have been faster than the mark.
        for table in tables {
            if target.has_rows(table).await? {
                return Err(StoreError::Conflict(format!(
                    "somebody uses the target: {} was empty a moment ago",
                    table.name
                )));
            }
        }
    }
    Ok(target)
}

async fn total(source: &mut Side, tables: &[Table]) -> Result<u64> {
    let mut total = 0;
    for table in tables {
        total += source.count(table).await? as u64;
    }
    Ok(total)
}

async fn copy(source: &mut Side, target: &mut Side, tables: &[Table], total: u64, watch: Watch<'_>) -> Result<()> {
    let mut done = 0;
    for table in tables {
        let last = target.last(table).await?;
        if last.is_some() {
            done += target.count(table).await? as u64;
        }
        let mut pages = Pages::after(last.map(|row| table.key_of(&row)));
        while let Some(rows) = pages.next(source, table).await? {
            target.insert(table, &rows).await?;
            done += rows.len() as u64;
            let table = table.name.clone();
            if !watch(News::Moved { table, done, total }) {
                return Err(interrupted());
            }
        }
        let last_id = source.last_id(table).await?;
        target.set_last_id(table, last_id).await?;
    }
    Ok(())
}

/// Reads both sides again, from their tables.
async fn compare(
    source: &mut Side,
    target: &mut Side,
    tables: &[Table],
    total: u64,
    watch: Watch<'_>,
) -> Result<Vec<Moved>> {
    let (mut done, mut moved) = (0, Vec::new());
    for table in tables {
        let mut goes_on = true;
        let told = |n: u64| {
            done += n;
            let table = table.name.clone();
            goes_on &= watch(News::Compared { table, done, total });
        };
        let (mine, theirs) = tokio::try_join!(source.sum(table, told), target.sum(table, |_| {}))?;
        if !goes_on {
            return Err(interrupted());
        }
        if mine != theirs {
            let key = first_difference(source, target, table).await?;
            return Err(StoreError::Conflict(format!(
                "{} differs: {} rows in the source and {} in the target; the first that differs is {key}. Somebody wrote to the \
                 target: make it anew, give the move up with --abandon, and begin again",
                table.name, mine.rows, theirs.rows
            )));
        }
        if source.last_id(table).await? != target.last_id(table).await? {
            return Err(StoreError::Conflict(format!("the target would give out numbers of {} again", table.name)));
        }
        moved.push(Moved {
            table: table.name.clone(),
            sum: mine,
        });
    }
    Ok(moved)
}

fn interrupted() -> StoreError {
    StoreError::Unavailable("the move was interrupted; it goes on when it is run again".to_owned())
}
