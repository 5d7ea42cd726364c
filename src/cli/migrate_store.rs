//! `hikyaku migrate-store`: moves everything from one database to another, from SQLite to PostgreSQL or back. Only reads the
//! command line, shows the progress and tells the end: `store::moving` does the work.

use std::time::{Duration, Instant};

use clap::Args;

use super::exit::{Exit, Failed, Outcome};
use super::signals;
use super::terminal::{Progress, note, number, plural, say, span, table};
use crate::clock::{Clock, SystemClock};
use crate::store::DatabaseUrl;
use crate::store::moving::{self, Ended, Manners, Moved, News, Plan, Route};

/// Moves everything from one database to another.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku migrate-store --dry-run sqlite:///var/lib/hikyaku/hikyaku.db \\
      postgres://hikyaku@db/hikyaku
  hikyaku migrate-store --stop-workers sqlite:///var/lib/hikyaku/hikyaku.db \\
      postgres://hikyaku@db/hikyaku
  hikyaku migrate-store --abandon sqlite:///var/lib/hikyaku/hikyaku.db

Every table is moved, whatever is in it, and compared row by row in the end. The
target must be empty. From the first moment nothing is sent from the source any
more, and nothing from the target before it is whole: nobody gets a mail twice.
Interrupted or killed, it goes on where it was when it is run again.

Afterwards start hikyaku with the target's URL. The source stays as it is, says
where it was moved to, and refuses to be used.

PGPASSWORD and ~/.pgpass keep a password off the command line.")]
pub struct MigrateStore {
    /// Where everything is: sqlite:///path/to/file.db or postgres://user@host/name
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Where it is to be: an empty database, or a file that does not exist
    #[arg(value_name = "TARGET", required_unless_present = "abandon")]
    target: Option<String>,

    /// Say what would be moved, and change nothing
    #[arg(long, conflicts_with = "abandon")]
    dry_run: bool,

    /// Let workers that send from the source step aside; without it they are a reason to refuse
    #[arg(long)]
    stop_workers: bool,

    /// How long to wait until the last worker has stepped aside
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait_secs: u64,

    /// Give up a move that has not come to its end: the source may be used again
    #[arg(long, conflicts_with = "target")]
    abandon: bool,
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: MigrateStore) -> Outcome {
    let url = |name: &str, text: &str| DatabaseUrl::parse(text).map_err(|why| Failed::usage(format!("{name}: {why}")));
    let source = url("SOURCE", &args.source)?;
    let Some(target) = &args.target else {
        moving::abandon(&source).await?;
        say(format_args!(
            "given up: {source} may be used again. What stands in the target is of no use; remove it."
        ));
        return Ok(Exit::Done);
    };
    let target = url("TARGET", target)?;
    let route = Route { source, target };
    if args.dry_run {
        tell_plan(&route, &moving::plan(&route).await?);
        return Ok(Exit::Done);
    }
    let manners = Manners {
        stop_workers: args.stop_workers,
        patience: Duration::from_secs(args.wait_secs),
    };
    carry_out(&route, manners).await
}

async fn carry_out(route: &Route, manners: Manners) -> Outcome {
    let stop = signals::listen(Some("Stopping: what was moved stays, and the next run goes on from there."))?;
    let started = Instant::now();
    let id = format!("mov_{:x}_{:x}", SystemClock.now().0, std::process::id());
    let mut shown = Shown::default();
    let mut watch = |news: News| {
        shown.show(&news);
        !stop.is_cancelled()
    };
    let ended = moving::carry_out(route, manners, &id, &|| SystemClock.now(), &mut watch).await;
    shown.end();
    match ended {
        Ok(Ended::WasOver) => say(format_args!("everything was in {} already", route.target)),
        Ok(Ended::Moved(moved)) => {
            tell_moved(route, &moved, started.elapsed());
            true
        }
        Err(_) if stop.is_cancelled() => return Ok(Exit::Interrupted),
        Err(error) => return Err(error.into()),
    };
    note(format_args!(
        "Start hikyaku with HIKYAKU_DATABASE_URL={}; the source refuses to be used from now on.",
        route.target
    ));
    Ok(Exit::Done)
}

/// Two pieces of work, one after the other, after a time of waiting.
#[derive(Default)]
struct Shown {
    waited_for: String,
    moving: Option<(Progress, u64)>,
    comparing: Option<(Progress, u64)>,
}

impl Shown {
    fn show(&mut self, news: &News) {
        match news {
            News::Waiting { whom } if *whom != self.waited_for => {
                note(format_args!("Waiting for {whom}"));
                self.waited_for.clone_from(whom);
            }
            News::Waiting { .. } => {}
            News::Moved { table, done, total } => step(&mut self.moving, "moving", table, *done, *total),
            News::Compared { table, done, total } => {
                finish(self.moving.take());
                step(&mut self.comparing, "comparing", table, *done, *total);
            }
        }
    }

    fn end(&mut self) {
        finish(self.moving.take());
        finish(self.comparing.take());
    }
}

fn step(part: &mut Option<(Progress, u64)>, label: &'static str, table: &str, done: u64, total: u64) {
    let (progress, at) = part.get_or_insert_with(|| (Progress::start(label, total), 0));
    progress.show(done, total, table);
    *at = done;
}

fn finish(part: Option<(Progress, u64)>) {
    if let Some((progress, done)) = part {
        progress.finish(done, "rows");
    }
}

fn tell_plan(route: &Route, plan: &Plan) {
    let rows: Vec<Vec<String>> = plan
        .tables
        .iter()
        .map(|(name, rows)| vec![name.clone(), number(*rows as i64)])
        .collect();
    say(table(&["TABLE", "ROWS"], &[1], &rows));
    let total: u64 = plan.tables.iter().map(|(_, rows)| rows).sum();
    say(format_args!("{} would go from {} to {}", plural(total as i64, "row"), route.source, route.target));
    if plan.is_begun {
        note("An earlier run has begun; this one would go on.");
    }
    if !plan.missing.is_empty() {
        note(format_args!(
            "First, {} would be applied to the source.",
            plural(plan.missing.len() as i64, "migration")
        ));
    }
    if let Some(whom) = &plan.in_the_way {
        note(format_args!("In the way, unless they have died or are stopped ({whom}): see --stop-workers."));
    }
}

fn tell_moved(route: &Route, moved: &[Moved], took: Duration) {
    let rows: Vec<Vec<String>> = moved
        .iter()
        .map(|m| vec![m.table.clone(), number(m.sum.rows as i64), m.sum.hash[..16].to_owned()])
        .collect();
    say(table(&["TABLE", "ROWS", "SHA-256, BOTH SIDES"], &[1], &rows));
    let total: u64 = moved.iter().map(|m| m.sum.rows).sum();
    say(format_args!(
        "moved {} to {} in {}",
        plural(total as i64, "row"),
        route.target,
        span(took.as_secs_f64())
    ));
}
