//! `hikyaku bench`: what this machine does, beside what others do on it. Every party hands mail to the same relay over the same line, one
//! after the other, round after round, so that a machine that is slow for a while is slow for all of them. Never sends anything
//! beyond loopback, and never shows a figure without what was lost or doubled for it.

mod field;
mod letters;
mod limit;
mod nodes;
mod program;
mod relays;
mod report;
mod sessions;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failed, Outcome};
use super::signals;
use super::sink::duration;
use super::terminal::{note, number};
use field::Slice;

/// Longest round trip: beyond a second nobody waits for a benchmark.
const LATENCY_MAX: Duration = Duration::from_secs(1);

/// Measures how fast mail is handed to a relay, and what limits and bad relays do.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku bench smtp
  hikyaku bench smtp --rounds 1 --seconds 3
  hikyaku bench smtp --latency 50ms --connections 16
  hikyaku bench relays
  hikyaku bench limit --database-url postgres://hikyaku@localhost/bench")]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Smtp(Smtp),
    Limit(limit::Limit),
    Relays(relays::Relays),
}

/// SMTP sessions over a line with latency, against Postfix smtp-source.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku bench smtp
  hikyaku bench smtp --rounds 5 --seconds 8
  hikyaku bench smtp --in-flight 16 --size 2000

Five parties hand messages to a capture relay behind a line on loopback that
delays every byte by half the latency, each way, and holds nothing up:

  smtp-source             Postfix's load generator, which records nothing
  sessions, PIPELINING    this program's SMTP sessions alone
  sessions, CHUNKING      the same with several messages in flight
  program, PIPELINING     all of it: from the request over HTTP through
                          the database to the outcome on disk
  program, CHUNKING       the same with several messages in flight

Each round has a turn for each party, with a fresh relay. A turn is timed at
the relay, from the first connection to the last message taken, and every
address is counted there: a lost or doubled message fails the benchmark.
With the line and connections it comes with, so does missing the aim: the
sessions make 3.8 times the speed of smtp-source with PIPELINING, and 20 times
with CHUNKING. smtp-source neither composes nor records anything; what the
program's figures lack beside the sessions' is the price of both.

smtp-source comes with the package postfix; its daemon is not needed:
  apt-get install --no-install-recommends postfix

Exit codes:
  0    everything arrived once, and the aims are met where they apply
  1    something was lost or doubled, or an aim is missed")]
struct Smtp {
    /// The time of a round trip on the line
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = duration)]
    latency: Duration,

    /// Connections at once, for each party
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=500))]
    connections: u32,

    /// Messages in flight on a connection with CHUNKING
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: u32,

    /// Bytes of a message's text; its header comes on top
    #[arg(long, value_name = "BYTES", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    size: u32,

    /// How long a turn should last, at the least; it decides how many messages there are
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// Turns of each party
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// What the texts of the messages follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Postfix's smtp-source, if it is somewhere else
    #[arg(long, value_name = "FILE", default_value = source::PROGRAM)]
    source: PathBuf,

    /// Measure the sessions alone, and leave the whole program out
    #[arg(long)]
    sessions_only: bool,
}

/// Who hands mail over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Party {
    Source,
    Sessions { chunking: bool },
    Program { chunking: bool },
}

const PARTIES: [Party; 5] = [
    Party::Source,
    Party::Sessions { chunking: false },
    Party::Sessions { chunking: true },
    Party::Program { chunking: false },
    Party::Program { chunking: true },
];

impl Party {
    fn name(self) -> &'static str {
        match self {
            Party::Source => "smtp-source",
            Party::Sessions { chunking: false } => "sessions, PIPELINING",
            Party::Sessions { chunking: true } => "sessions, CHUNKING",
            Party::Program { chunking: false } => "program, PIPELINING",
            Party::Program { chunking: true } => "program, CHUNKING",
        }
    }

    fn is_chunking(self) -> bool {
        matches!(self, Party::Sessions { chunking: true } | Party::Program { chunking: true })
    }

    /// Messages in a turn: as many as fit into it when nothing but the line takes time. smtp-source makes four round trips a
    /// message, we one, or one for all that are in flight.
    fn n_messages(self, args: &Smtp) -> u64 {
        let trips_in_a_turn = f64::from(args.seconds) / args.latency.as_secs_f64();
        let for_each_connection = match self {
            Party::Source => trips_in_a_turn / 4.0,
            _ if self.is_chunking() => trips_in_a_turn * f64::from(args.in_flight),
            _ => trips_in_a_turn,
        };
        (for_each_connection.ceil() as u64).max(1) * u64::from(args.connections)
    }

    async fn turn(self, args: &Smtp) -> Result<Slice, Failed> {
        let n = self.n_messages(args);
        let in_flight = if self.is_chunking() { args.in_flight } else { 0 };
        match self {
            Party::Source => source::turn(args, n).await,
            Party::Sessions { .. } => sessions::turn(args, n, in_flight).await,
            Party::Program { .. } => program::turn(args, n, in_flight).await,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: Bench) -> Outcome {
    let stop = signals::listen(Some("Stopping."))?;
    let measured = async {
        match &args.what {
            What::Smtp(args) => {
                if args.latency.is_zero() || args.latency > LATENCY_MAX {
                    return Err(Failed::usage("--latency must be above zero and at most 1s"));
                }
                source::check(&args.source)?;
                smtp(args).await
            }
            What::Limit(args) => limit::run(args).await,
            What::Relays(args) => relays::run(args).await,
        }
    };
    tokio::select! {
        outcome = measured => outcome,
        () = stop.cancelled() => Ok(Exit::Interrupted),
    }
}

async fn smtp(args: &Smtp) -> Outcome {
    report::head(args, field::round_trip(args.latency).await?);
    let parties: Vec<Party> = PARTIES
        .into_iter()
        .filter(|p| !(args.sessions_only && matches!(p, Party::Program { .. })))
        .collect();
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        let mut slices = Vec::new();
        for party in &parties {
            let slice = party.turn(args).await?;
            note(format_args!(
                "round {round} of {}: {:<22} {:>9} messages in {:>5.1} s",
                args.rounds,
                party.name(),
                number(slice.n_expected as i64),
                slice.took.as_secs_f64()
            ));
            slices.push(slice);
        }
        rounds.push(slices);
    }
    Ok(report::tell(args, &parties, &rounds))
}
