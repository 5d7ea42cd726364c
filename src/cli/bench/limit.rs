//! `hikyaku bench limit`: whether nodes on one PostgreSQL keep a limit together, and use it. Never believes the nodes: the relay notes
//! the moment of each message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::super::exit::{Failed, Outcome};
use super::super::terminal::{note, number, say, table};
use super::nodes::Nodes;
use super::report::judge;
use crate::config::SecretUrl;
use crate::domain::ledger::{LATE_US_MAX, period_us};
use crate::sink::{Sink, SinkHandle, SinkOptions};

/// The relay's name in the database.
const RELAY: &str = "bench";
/// Connections of each node.
const CONNECTIONS: u32 = 8;
/// The share of the limit that is to be used, at the least.
const USED_MIN: f64 = 0.95;
/// Between two looks at what the relay has taken.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Without a message for this long it is given up.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Several nodes on one PostgreSQL under one limit per second.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku bench limit --database-url postgres://hikyaku@localhost/bench
  hikyaku bench limit --database-url postgres://… --nodes 8 --seconds 60

Two nodes, and then four, send to one capture relay that may have 200 messages
a second, whoever sends them. The relay notes when each message came. In every
window of a second there may be the limit and the burst: what falls due in a
twentieth of a second, and two. The mean must be 95 % of the limit or more.

The database must be an empty one that is there for this; relays or unfinished
work of somebody else's in it are refused.

Exit codes:
  0    the limit was kept, and used
  1    it was not, or something was lost or doubled")]
pub(super) struct Limit {
    /// The PostgreSQL database that the nodes share
    #[arg(long, value_name = "URL")]
    database_url: String,

    /// How many nodes, one number a turn
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "2,4", value_parser = clap::value_parser!(u32).range(1..=16))]
    nodes: Vec<u32>,

    /// Messages a second that all nodes together may send
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=5_000))]
    per_sec: u32,

    /// How long a turn lasts
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=3_600))]
    seconds: u32,

    /// What the recipients follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// When the relay took what, since it was started.
struct Record {
    sink: SinkHandle,
    taken: Arc<Mutex<Vec<Duration>>>,
}

/// What came of a turn.
#[derive(Debug, PartialEq)]
struct Account {
    n: u64,
    /// The most in any window of a second.
    most: usize,
    /// Messages a second from the first to the last.
    mean: f64,
    n_wrong: u64,
}

pub(super) async fn run(args: &Limit) -> Outcome {
    if !args.database_url.starts_with("postgres") {
        return Err(Failed::usage("--database-url must be postgres://…: one SQLite file has one sending process"));
    }
    let url = SecretUrl::new(&args.database_url);
    check_is_ours(&url).await?;
    let burst = LATE_US_MAX / period_us(args.per_sec) + 2;
    say(format_args!(
        "{} messages a second for all nodes together, burst {burst}; {} messages a turn, seed {}",
        args.per_sec,
        number(i64::from(args.per_sec * args.seconds)),
        args.seed
    ));
    let (mut rows, mut checks) = (Vec::new(), Vec::new());
    for &nodes in &args.nodes {
        note(format_args!("{nodes} nodes …"));
        let account = turn(args, &url, nodes).await?;
        rows.push(vec![
            nodes.to_string(),
            number(account.n as i64),
            account.most.to_string(),
            format!("{:.1}", account.mean),
            account.n_wrong.to_string(),
        ]);
        let most = i64::from(args.per_sec) + burst;
        let least = f64::from(args.per_sec) * USED_MIN;
        checks.push((
            account.most as i64 <= most,
            format!("{nodes} nodes: at most {} in any second, {most} allowed", account.most),
        ));
        checks
            .push((account.mean >= least, format!("{nodes} nodes: {:.1} a second, {least:.0} aimed at", account.mean)));
        checks.push((
            account.n_wrong == 0,
            format!("{nodes} nodes: {} lost or doubled of {}", account.n_wrong, account.n),
        ));
    }
    say(table(
        &["NODES", "MESSAGES", "MOST IN A SECOND", "MEAN", "LOST OR DOUBLED"],
        &[0, 1, 2, 3, 4],
        &rows,
    ));
    Ok(judge(&checks))
}

/// A database that somebody works with must not send its mail to a benchmark.
async fn check_is_ours(url: &SecretUrl) -> Result<(), Failed> {
    let parsed = crate::store::DatabaseUrl::parse(url.expose()).map_err(Failed::usage)?;
    let store = crate::store::open(&parsed).await?;
    let mut is_ours = store.relays().await?.iter().all(|relay| relay.name == RELAY);
    for state in ["ready", "waiting", "running", "held"] {
        is_ours &= store.jobs(Some(state), 1).await?.is_empty();
    }
    match is_ours {
        true => Ok(()),
        false => Err(Failed::usage(
            "--database-url must name a database of the benchmark's own: this one has relays or work in it",
        )),
    }
}

async fn turn(args: &Limit, url: &SecretUrl, n_nodes: u32) -> Result<Account, Failed> {
    let record = Record::start().await?;
    let relay = format!("smtp://{}?connections={CONNECTIONS}&rate={}&name={RELAY}", record.sink.addr(), args.per_sec);
    let n = u64::from(args.per_sec) * u64::from(args.seconds);
    let nodes = Nodes::start(n_nodes, &relay, Some(url)).await?;
    nodes.send(n, args.seed).await?;
    record.wait_for(n).await?;
    nodes.stop().await?;
    Ok(record.account(n))
}

impl Record {
    async fn start() -> Result<Self, Failed> {
        let (started, taken) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let notes = Arc::clone(&taken);
        let options = SinkOptions {
            keep_mailbox: false,
            count_recipients: true,
            on_taken: Some(Arc::new(move |_| {
                notes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(started.elapsed());
            })),
            ..SinkOptions::default()
        };
        let sink = Sink::start(options)
            .await
            .map_err(|e| Failed::here(format!("a relay on loopback cannot be started: {e}")))?;
        Ok(Self { sink, taken })
    }

    async fn wait_for(&self, n: u64) -> Result<(), Failed> {
        let mut moved = (0, Instant::now());
        loop {
            let taken = self.sink.sink().stats().accepted;
            if taken >= n {
                return Ok(());
            }
            if taken > moved.0 {
                moved = (taken, Instant::now());
            } else if moved.1.elapsed() > STUCK_AFTER {
                return Err(Failed::here(format!("the relay got {taken} of {n} messages, and nothing for a while")));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn account(&self, n: u64) -> Account {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        taken.sort_unstable();
        let copies = self.sink.sink().copies();
        let n_copies: u64 = copies.values().map(|&c| u64::from(c)).sum();
        let n_wrong = n.saturating_sub(copies.len() as u64) + (n_copies - copies.len() as u64);
        let (most, mean) = paces(&taken);
        Account { n, most, mean, n_wrong }
    }
}

/// The most in any window of a second, and the mean; of moments in their order.
fn paces(taken: &[Duration]) -> (usize, f64) {
    let within = |from: usize| taken[from..].partition_point(|at| *at < taken[from] + Duration::from_secs(1));
    let most = (0..taken.len()).map(within).max().unwrap_or(0);
    let took = match (taken.first(), taken.last()) {
        (Some(first), Some(last)) => (*last - *first).as_secs_f64(),
        _ => 0.0,
    };
    (most, taken.len().saturating_sub(1) as f64 / took.max(0.001))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_with_any_message() {
        let at = |ms: &[u64]| ms.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        assert_eq!(paces(&[]).0, 0);
        assert_eq!(paces(&at(&[0, 900, 950, 1_000, 1_899, 1_900])), (4, 5.0 / 1.9));
        assert_eq!(paces(&at(&[0, 1_000, 2_000])), (1, 1.0));
    }
}
