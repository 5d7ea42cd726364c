//! `hikyaku selftest`: harm done to the program itself, and the account of it. Prints; the work is in `selftest`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit::{Exit, Failed, Outcome};
use super::signals;
use super::terminal::{Colour, mark, number, say, table};
use crate::selftest::oracle::quantile;
use crate::selftest::{self, Claim, Database, Fault, Length, Plan, Row};

/// Kills and freezes the program, takes its database away, and counts.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku selftest
  hikyaku selftest --minutes 5
  hikyaku selftest --fault kill --times 200
  hikyaku selftest --database-url postgres://user:password@host/postgres
  hikyaku selftest --own-postgres --faults crash,freeze,failover

Starts this very program as processes of their own, on a database that is made
for it and thrown away, with a relay inside that knows what it took. Does harm
to them, and holds what the API says of every message against the relay. That
the counts add up is looked at all the while. What was to be shown is printed
with what was measured, and whether it held.

Faults: kill (SIGKILL), accept (SIGKILL while a request is read), term
(SIGTERM), twice (SIGTERM twice), stop (SIGSTOP past the lease, SIGCONT), relay
(the relay breaks every connection), clock (a node's clock jumps by hours and
days; needs libfaketime); on PostgreSQL cut and hang (the line to it); with
--own-postgres crash, freeze and failover; on SQLite io (writes and syncs fail;
needs fiu-utils) and, as root, disk (it is full).

Exit codes:
  0    every rule held
  1    one did not")]
pub struct Selftest {
    /// What is done to the program, in this order [default: all that fit the database and need nothing more, but stop]
    #[arg(long, alias = "fault", value_name = "NAME,…", value_delimiter = ',', value_parser = fault)]
    faults: Vec<Fault>,

    /// How often each of them is done
    #[arg(long, alias = "kills", value_name = "N", default_value_t = 10)]
    times: u64,

    /// Mix them by lot for so many minutes instead
    #[arg(long, value_name = "N", conflicts_with = "times")]
    minutes: Option<u64>,

    /// Tell times, and do not hold them against the program: for a machine that is busy with other things
    #[arg(long)]
    untimed: bool,

    /// The relay's limit for all processes together, in messages a second; that it is kept is looked at
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    /// Recipients of each broadcast
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=200_000))]
    recipients: u64,

    /// Processes on PostgreSQL; on SQLite it is always one
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=16))]
    nodes: u64,

    /// Connections of each process to the relay
    #[arg(long, value_name = "N", default_value_t = 16)]
    connections: u16,

    /// How late each reply of the relay leaves, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5)]
    latency_ms: u64,

    /// The lease of the processes, in seconds; without it the one that the program comes with
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(4..=3_600))]
    lease_secs: u64,

    /// How long the database stays away, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    outage_secs: u64,

    /// Makes the same instants and victims again
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// A PostgreSQL server where a database may be made, instead of SQLite
    #[arg(long, value_name = "URL", conflicts_with = "own_postgres")]
    database_url: Option<String>,

    /// Start a PostgreSQL server for it, from the programs that are installed here
    #[arg(long)]
    own_postgres: bool,
}

/// Runs the command.
///
/// # Errors
/// When the test itself cannot be done.
pub async fn run(args: Selftest) -> Outcome {
    let plan = plan(args)?;
    let stop = signals::listen(None)?;
    let names: Vec<&str> = plan.faults.iter().map(|fault| fault.name()).collect();
    let on = match &plan.database {
        Database::Sqlite => "one process on SQLite".to_owned(),
        _ => format!("{} processes on PostgreSQL", plan.nodes),
    };
    let how_long = match plan.length {
        Length::Times(times) => format!("{times} times each"),
        Length::Minutes(minutes) => format!("mixed for {minutes} minutes"),
    };
    say(format_args!(
        "{} {how_long}: {on}, {} recipients a broadcast, {} connections each, lease {} s; repeat it with --seed {}",
        names.join(", "),
        number(plan.recipients as i64),
        plan.connections,
        plan.lease_secs,
        plan.seed
    ));
    let told = tokio::select! {
        told = selftest::run(&plan, tell) => told,
        () = stop.cancelled() => return Ok(Exit::Interrupted),
    };
    let rows = told.map_err(Failed::here)?;
    say(summary(&rows));
    let holds = rows.iter().all(Row::holds);
    let (word, colour) = if holds {
        ("every rule held", Colour::Green)
    } else {
        ("a rule was broken", Colour::Red)
    };
    say(mark(word, colour));
    Ok(if holds { Exit::Done } else { Exit::Failed })
}

fn plan(args: Selftest) -> Result<Plan, Failed> {
    let database = match (args.database_url, args.own_postgres) {
        (Some(url), _) => Database::Server(url),
        (None, true) => Database::Own(postgres_programs()?),
        (None, false) => Database::Sqlite,
    };
    let fits = |fault: Fault| fault.fits(&database);
    if let Some(odd) = args.faults.iter().find(|fault| !fits(**fault)) {
        return Err(Failed::usage(format!("--faults {}: not on this database; see --help", odd.name())));
    }
    let faults = if args.faults.is_empty() {
        let all = Fault::ALL.iter().map(|(fault, ..)| *fault);
        // Those take their time, or root, or a library.
        let is_costly = |f: &Fault| matches!(f, Fault::Stop | Fault::Disk | Fault::Io | Fault::Clock | Fault::Freeze);
        all.filter(|f| fits(*f) && !is_costly(f)).collect()
    } else {
        args.faults
    };
    Ok(Plan {
        program: std::env::current_exe().map_err(|e| Failed::here(format!("this program is not found: {e}")))?,
        database,
        faults,
        length: args.minutes.map_or(Length::Times(args.times), Length::Minutes),
        is_untimed: args.untimed,
        rate_per_sec: args.rate,
        recipients: args.recipients as usize,
        nodes: args.nodes as usize,
        connections: args.connections,
        latency: Duration::from_millis(args.latency_ms),
        lease_secs: args.lease_secs,
        outage: Duration::from_secs(args.outage_secs),
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
    })
}

/// Where PostgreSQL's server programs are: Debian keeps them off the PATH, one directory for each version.
fn postgres_programs() -> Result<PathBuf, Failed> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.path().join("bin"))
        .chain(on_path)
        .collect();
    found.retain(|dir| {
        ["initdb", "pg_ctl", "pg_basebackup", "psql"]
            .iter()
            .all(|name| dir.join(name).exists())
    });
    found.sort();
    found.pop().ok_or_else(|| {
        Failed::usage("--own-postgres: no initdb in /usr/lib/postgresql or on the PATH; install PostgreSQL")
    })
}

fn tell(row: &Row) {
    let by_fault: Vec<String> = row.by_fault.iter().map(|(name, n)| format!("{name} {n}")).collect();
    say(format_args!(
        "{}: {}; {} broadcasts, {} messages",
        row.title,
        by_fault.join(", "),
        row.broadcasts,
        number(row.findings.messages as i64),
    ));
    for Claim {
        what,
        measured,
        holds,
        is_timed,
    } in row.claims()
    {
        let verdict = match holds {
            true => mark("pass", Colour::Green),
            false if is_timed && row.is_untimed => mark("slow", Colour::Yellow),
            false => mark("FAIL", Colour::Red),
        };
        say(format_args!("  {verdict}  {what}: {measured}"));
    }
    for remark in &row.remarks {
        say(format_args!("        {remark}"));
    }
    for example in &row.findings.examples {
        say(format_args!("        {} {example}", mark("wrong:", Colour::Red)));
    }
}

fn summary(rows: &[Row]) -> String {
    let head = [
        "FAULT",
        "N",
        "LOST",
        "COPIES>1",
        "BOUND",
        "FLAGGED",
        "UNFLAGGED",
        "FALSE SENT",
        "OTHER",
        "NEXT p50",
        "p99",
        "TAKEN OVER p50",
        "p99",
    ];
    let ms = |times: &[u64], q: f64| quantile(times, q).map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let line = |row: &Row| {
        let f = &row.findings;
        let n = |n: u64| number(n as i64);
        vec![
            row.title.clone(),
            n(row.n()),
            n(f.lost),
            n(f.extra),
            n(row.bound),
            n(f.flagged),
            n(f.unflagged),
            n(f.false_sent),
            n(f.broken + f.forbidden),
            ms(&row.next_ms, 0.5),
            ms(&row.next_ms, 0.99),
            ms(&row.taken_over_ms, 0.5),
            ms(&row.taken_over_ms, 0.99),
        ]
    };
    let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    let right: Vec<usize> = (1..head.len()).collect();
    table(&head, &right, &lines)
}

fn fault(text: &str) -> Result<Fault, String> {
    let known = Fault::ALL.iter().find(|(_, name, _)| *name == text);
    known.map(|(fault, ..)| *fault).ok_or_else(|| {
        let names: Vec<&str> = Fault::ALL.iter().map(|(_, name, _)| *name).collect();
        format!("there is no fault '{text}'; there are {}", names.join(", "))
    })
}
