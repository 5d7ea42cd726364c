//! `hikyaku relay`: the relays that mail goes through, kept on the database itself, whether a server runs or not. Running workers
//! hear of each change within a second. Never shows a password.

mod put;
mod test;

use std::sync::Arc;

use clap::{Args, Subcommand};

use self::put::{Change, from_input, put, read_spec};
use self::test::test;

use super::exit::{Exit, Failed, Outcome};
use super::settings::{DatabaseArgs, Overrides, database_url};
use super::terminal::{note, say, table};
use crate::clock::{Clock, SystemClock};
use crate::domain::finding::Finding;
use crate::domain::relay::Relay;
use crate::pipeline::probe::SESSION_TRIED_MAX;
use crate::pipeline::relays::{self, RelayError};
use crate::store::{self, Store};

/// Adds, changes, pauses and tests the relays that mail goes through.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku relay put primary --url 'smtp://user:password@mail.example.org:587'
  hikyaku relay put primary --per-second 20 --per-day 50000
  hikyaku relay test primary --to me@example.org --from news@example.org
  hikyaku relay pause primary --reason 'provider is moving'

Changes reach running workers within a second. Several relays share the mail by
weight, and take over from one that fails.")]
pub struct RelayCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists all relays, without their passwords.
    List {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Adds a relay, or changes what is said about one: what is not given stays as it was.
    #[command(after_long_help = "\
Examples:
  hikyaku relay put primary --url 'smtp://user:password@mail.example.org:587'
  hikyaku relay put primary --weight 3 --per-second 20
  hikyaku relay put primary --per-day 0
  read-secret mail-url | hikyaku relay put primary --url -
  hikyaku relay show primary > primary.json
  hikyaku relay put primary --spec primary.json

In the URL, *** for the password keeps the stored one. Other users of the
machine can read a command line: --url - takes the URL from standard input.

Lanes, warm-up and quiet hours stand in the JSON of --spec, which replaces all:
  {\"url\": \"smtp://user:***@mail.example.org:587\",
   \"weight\": 1,
   \"limits\": {\"per_sec\": 20, \"per_hour\": 20000, \"per_day\": 50000},
   \"lanes\": [{\"lane\": \"google\", \"limits\": {\"per_sec\": 5}, \"connections\": 2}],
   \"warm_up\": {\"started_at\": \"2026-10-01T00:00:00Z\", \"start_per_day\": 50,
               \"factor\": 1.5, \"ceiling_per_day\": 50000},
   \"quiet_hours\": {\"from\": \"22:00\", \"until\": \"07:00\",
                   \"time_zone\": \"Europe/Berlin\"}}

Exit codes:
  0    stored
  1    the database failed
  2    something given cannot be; nothing was stored")]
    Put {
        /// Its name, in letters, digits, dots, colons, dashes and underscores
        name: String,
        /// smtp://user:password@host:port?tls=none|starttls|implicit&connections=N; - reads it from standard input
        #[arg(long, value_name = "URL", conflicts_with = "spec")]
        url: Option<String>,
        /// Its share of the messages, 0 to 100; with 0 only where it is named or nothing else works
        #[arg(long, value_name = "N", conflicts_with = "spec")]
        weight: Option<u32>,
        /// Most messages a second, for all workers together; 0 is no limit
        #[arg(long, value_name = "N", conflicts_with = "spec")]
        per_second: Option<u32>,
        /// Most messages an hour; 0 is no limit
        #[arg(long, value_name = "N", conflicts_with = "spec")]
        per_hour: Option<u32>,
        /// Most messages a day; 0 is no limit
        #[arg(long, value_name = "N", conflicts_with = "spec")]
        per_day: Option<u32>,
        /// A file with the whole description as JSON; - reads it from standard input
        #[arg(long, value_name = "FILE")]
        spec: Option<String>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Shows a relay as JSON, as `put --spec` takes it, without its password.
    Show {
        /// Its name, as `relay list` shows it
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Pauses a relay: what is on the wire is finished, the rest takes other relays or waits.
    Pause {
        /// Its name
        name: String,
        /// Why, for whoever looks at it
        #[arg(long, default_value = "paused from the command line")]
        reason: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Lets a paused relay go on.
    Resume {
        /// Its name
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Removes a relay; its name stays in what it has sent.
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Forgets what was found out about a relay, so that workers try it anew.
    Forget {
        /// Its name
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Opens a connection from this machine and shows what is said; sends nothing without --to.
    #[command(after_long_help = "\
Examples:
  hikyaku relay test primary
  hikyaku relay test primary --to me@example.org --from news@example.org
  hikyaku relay test primary --to me@example.org --from news@example.org --session 200

With a test message it is found out whether the relay takes commands ahead of
its reply to the end of data, and with --session how many messages one session
takes: others are begun and forgotten. Workers go by it from then on.

Lines of ours begin with >, the relay's with <. Passwords are masked. It takes
a minute at most.

Exit codes:
  0    everything that was tried went well
  1    it did not; the last lines say why and what to do")]
    Test {
        /// Its name
        name: String,
        /// Where one test message goes
        #[arg(long, value_name = "ADDRESS", requires = "from")]
        to: Option<String>,
        /// The sender of the test message
        #[arg(long, value_name = "ADDRESS", requires = "to")]
        from: Option<String>,
        /// Begin and forget up to so many messages, to see how many a session takes
        #[arg(long, value_name = "N", requires = "to", value_parser = clap::value_parser!(u32).range(1..=i64::from(SESSION_TRIED_MAX)))]
        session: Option<u32>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: RelayCommand) -> Outcome {
    match args.action {
        Action::List { database } => list(&*open(&database).await?).await,
        Action::Put {
            name,
            url,
            weight,
            per_second,
            per_hour,
            per_day,
            spec,
            database,
        } => {
            let change = Change {
                url: url.map(|url| from_input(&url, "--url")).transpose()?,
                weight,
                limits: [per_second, per_hour, per_day],
                whole: spec.map(|file| read_spec(&file)).transpose()?,
            };
            put(&*open(&database).await?, &name, change).await
        }
        Action::Show { name, database } => show(&*open(&database).await?, &name).await,
        Action::Pause { name, reason, database } => pause(&*open(&database).await?, &name, Some(&reason)).await,
        Action::Resume { name, database } => pause(&*open(&database).await?, &name, None).await,
        Action::Remove { name, database } => remove(&*open(&database).await?, &name).await,
        Action::Test {
            name,
            to,
            from,
            session,
            database,
        } => test(&*open(&database).await?, &name, to.zip(from), session).await,
        Action::Forget { name, database } => forget(&*open(&database).await?, &name).await,
    }
}

async fn open(args: &DatabaseArgs) -> Result<Arc<dyn Store>, Failed> {
    let config = Overrides::default().database(args).load()?;
    Ok(store::open(&database_url(&config)?).await?)
}

async fn list(store: &dyn Store) -> Outcome {
    let all = store.relays().await?;
    if all.is_empty() {
        say("No relay is stored; `hikyaku relay put NAME --url smtp://…` adds one.");
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = all.into_iter().map(row).collect();
    say(table(&["NAME", "STATE", "WEIGHT", "LIMITS", "URL", "REASON"], &[2], &rows));
    Ok(Exit::Done)
}

fn row(relay: Relay) -> Vec<String> {
    let l = relay.spec.limits;
    let limits: Vec<String> = [("s", l.per_sec), ("h", l.per_hour), ("d", l.per_day)]
        .into_iter()
        .filter_map(|(unit, limit)| limit.map(|n| format!("{n}/{unit}")))
        .collect();
    let limits = match limits.is_empty() {
        true => "none".to_owned(),
        false => limits.join(" "),
    };
    let state = if relay.paused.is_some() { "paused" } else { "active" };
    vec![
        relay.name,
        state.to_owned(),
        relay.spec.weight.to_string(),
        limits,
        relays::shown(&relay.spec).url,
        relay.paused.unwrap_or_default(),
    ]
}

async fn show(store: &dyn Store, name: &str) -> Outcome {
    let relay = relays::find(store, name).await.map_err(refused)?;
    let shown = serde_json::to_string_pretty(&relays::shown(&relay.spec)).expect("a description always serialises");
    say(shown);
    for finding in relays::findings(store, &relay, SystemClock.now()).await? {
        note(finding_in_words(&finding));
    }
    if let Some(reason) = relay.paused {
        note(format_args!("It is paused: {reason}"));
    }
    Ok(Exit::Done)
}

/// `Found on 2026-11-27: it takes 100 messages in one session, … (452 too many messages)`
fn finding_in_words(finding: &Finding) -> String {
    let day = finding.found_at.to_jiff().strftime("%Y-%m-%d");
    let said = match finding.words.as_str() {
        "" => String::new(),
        words => format!(" ({words})"),
    };
    match finding.value {
        None => format!("Not known yet: {}.", finding.in_words()),
        Some(_) => format!("Found on {day}: {}{said}.", finding.in_words()),
    }
}

async fn forget(store: &dyn Store, name: &str) -> Outcome {
    relays::forget_findings(store, name).await.map_err(refused)?;
    say(format_args!("What was found out about relay {name} is forgotten; workers try it anew."));
    Ok(Exit::Done)
}

async fn pause(store: &dyn Store, name: &str, reason: Option<&str>) -> Outcome {
    relays::pause(store, name, reason, SystemClock.now())
        .await
        .map_err(refused)?;
    match reason {
        Some(reason) => say(format_args!("Relay {name} is paused: {reason}")),
        None => say(format_args!("Relay {name} goes on.")),
    };
    Ok(Exit::Done)
}

async fn remove(store: &dyn Store, name: &str) -> Outcome {
    relays::remove(store, name, SystemClock.now()).await.map_err(refused)?;
    say(format_args!("Relay {name} is removed."));
    Ok(Exit::Done)
}

/// What cannot be done with a relay, in the words of the command line.
fn refused(e: RelayError) -> Failed {
    match e {
        RelayError::Store(e) => e.into(),
        RelayError::NotFound(_) => Failed::usage(format!("{e}; `hikyaku relay list` shows all")),
        RelayError::Wrong(wrong) => Failed::usage(format!("{}: {}", wrong.field, wrong.detail)),
        RelayError::InUse(_) => Failed::here(e.to_string()),
    }
}
