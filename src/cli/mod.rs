//! The command line: one file for each command. Reads what was typed, calls what does the work, tells the result, and ends with
//! an exit code that means something. Never does a worker's or a server's work itself.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod backup;
mod bench;
mod client;
mod demo;
mod dkim;
mod doctor;
mod exit;
mod key;
mod migrate;
mod migrate_store;
mod openapi;
mod relay;
mod selftest;
mod send;
mod serve;
mod settings;
mod signals;
mod sink;
mod status;
mod terminal;
mod view;
mod watch;

use exit::{Exit, Outcome};
use terminal::note;

/// Mail to very many people: one queue in the database, nothing lost, every message's fate visible.
#[derive(Debug, Parser)]
#[command(name = "hikyaku", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Web(serve::Web),
    Worker(serve::Worker),
    Send(Box<send::Send>),
    Status(status::Status),
    Key(key::Key),
    Relay(relay::RelayCommand),
    Dkim(dkim::Dkim),
    Doctor(doctor::Doctor),
    Migrate(migrate::Migrate),
    MigrateStore(migrate_store::MigrateStore),
    Backup(backup::Backup),
    Restored(backup::Restored),
    Openapi(openapi::Openapi),
    Sink(sink::Sink),
    Bench(bench::Bench),
    Selftest(selftest::Selftest),
}

/// The commands by what a person wants to do; every command stands in one group, which a test holds.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Try it", &["demo", "bench"]),
    ("Run it", &["serve", "web", "worker"]),
    ("Use it", &["send", "status"]),
    (
        "Look after it",
        &[
            "relay",
            "key",
            "dkim",
            "doctor",
            "migrate",
            "migrate-store",
            "backup",
            "restored",
            "openapi",
            "sink",
            "selftest",
        ],
    ),
];

/// Reads the command line of this process, does what it says, and tells how it ended.
#[must_use]
pub fn run() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _armed = crate::failpoint::arm();
    let cli = match Cli::from_arg_matches(&command().get_matches()) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            note(format_args!("hikyaku: threads cannot be started: {e}"));
            return Exit::Failed.into();
        }
    };
    let outcome = runtime.block_on(dispatch(cli.command));
    // Not waited for: a thread that reads from a pipe may never come back.
    runtime.shutdown_background();
    match outcome {
        Ok(exit) => exit.into(),
        Err(failed) => {
            note(format_args!("hikyaku: {failed}"));
            failed.exit.into()
        }
    }
}

async fn dispatch(command: Option<Command>) -> Outcome {
    match command {
        None => {
            // Who does not read it needs no complaint.
            drop(self::command().print_help());
            Ok(Exit::Done)
        }
        Some(Command::Demo(args)) => demo::run(args).await,
        Some(Command::Serve(args)) => serve::serve(args).await,
        Some(Command::Web(args)) => serve::web(args).await,
        Some(Command::Worker(args)) => serve::worker(args).await,
        Some(Command::Send(args)) => send::run(*args).await,
        Some(Command::Status(args)) => status::run(args).await,
        Some(Command::Key(args)) => key::run(args).await,
        Some(Command::Relay(args)) => relay::run(args).await,
        Some(Command::Dkim(args)) => dkim::run(args).await,
        Some(Command::Doctor(args)) => doctor::run(args).await,
        Some(Command::Migrate(args)) => migrate::run(args).await,
        Some(Command::MigrateStore(args)) => migrate_store::run(args).await,
        Some(Command::Backup(args)) => backup::backup(args).await,
        Some(Command::Restored(args)) => backup::restored(args).await,
        Some(Command::Openapi(_)) => openapi::run(),
        Some(Command::Sink(args)) => sink::run(args).await,
        Some(Command::Bench(args)) => bench::run(args).await,
        Some(Command::Selftest(args)) => selftest::run(args).await,
    }
}

/// The parser, with a help page that is ordered by what people want.
fn command() -> clap::Command {
    let command = Cli::command();
    let help = help_page(&command);
    command
        .help_template("{about}\n\n{usage-heading} hikyaku <COMMAND> [OPTIONS]{after-help}")
        .after_help(help)
}

fn help_page(command: &clap::Command) -> String {
    let mut page = String::new();
    for (group, names) in GROUPS {
        page.push_str(&format!("{group}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map_or_else(String::new, ToString::to_string);
            page.push_str(&format!("  {name:<13} {about}\n"));
        }
        page.push('\n');
    }
    page.push_str(
        "Examples:
  hikyaku demo
  hikyaku serve --listen 0.0.0.0:8025
  hikyaku send --from 'News <news@example.org>' --subject Hello \\
      --html body.html --to people.csv

Each command explains itself: hikyaku send --help. Settings are read from
config.toml in the data directory, from HIKYAKU_… variables and from options;
the later ones win.

Exit codes:\n",
    );
    for (exit, meaning) in Exit::ALL {
        page.push_str(&format!("  {:<4} {meaning}\n", exit.code()));
    }
    page.truncate(page.trim_end().len());
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_command_stands_in_one_group_and_has_examples() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        grouped.sort_unstable();
        let command = command();
        let mut names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        names.sort_unstable();
        assert_eq!(grouped, names);
        for sub in command.get_subcommands() {
            let more = sub.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            let examples = more.lines().filter(|line| line.contains("hikyaku ")).count();
            assert!(examples >= 2, "{} shows {examples} examples", sub.get_name());
        }
    }
}
