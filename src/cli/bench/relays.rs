//! `hikyaku bench relays`: what two relays lose when a third one becomes a tarpit. Never believes the program: the relays count.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::super::exit::{Failed, Outcome};
use super::super::sink::duration;
use super::super::terminal::{note, number, say};
use super::nodes::Nodes;
use super::report::judge;
use crate::domain::relay::RelaySpec;
use crate::sink::{Act, At, Script, Sink, SinkHandle, SinkOptions};

/// The share of their pace that the others must keep.
const KEPT_MIN: f64 = 0.95;
/// A tarpit's reply to MAIL comes a byte at a time, with this between two.
const DRIP: Duration = Duration::from_secs(1);
/// Before it is counted: all connections are open and every relay has had its turn.
const WARM_UP: Duration = Duration::from_secs(1);
/// Without a message for this long it is given up.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Three relays, of which one becomes a tarpit.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku bench relays
  hikyaku bench relays --rounds 5 --seconds 20

The whole program, on an SQLite file in a fresh directory, shares its mail
among three capture relays of equal weight. In each round all three are well
in one turn, and in the next the third one answers MAIL at one byte a second.
What the other two take is counted in the middle of each turn: they must keep
95 % of their pace, in the median of the rounds.

Exit codes:
  0    the two kept their pace
  1    they did not, or somebody got a second copy")]
pub(super) struct Relays {
    /// Connections to each relay
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    connections: u32,

    /// How long each relay takes for a reply
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = duration)]
    latency: Duration,

    /// How long is counted in a turn
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// Rounds of two turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// What the recipients follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What the two took in a turn.
struct Turn {
    per_sec: f64,
    n: u64,
    n_doubled: u64,
}

pub(super) async fn run(args: &Relays) -> Outcome {
    if args.latency.is_zero() || args.latency > Duration::from_secs(1) {
        return Err(Failed::usage("--latency must be above zero and at most 1s"));
    }
    say(format_args!(
        "three relays with {} connections each and replies after {} ms; {} rounds of {} s a turn, seed {}",
        args.connections,
        args.latency.as_millis(),
        args.rounds,
        args.seconds,
        args.seed
    ));
    let (mut kept, mut n, mut n_doubled) = (Vec::new(), 0, 0);
    for round in 1..=args.rounds {
        let well = turn(args, false).await?;
        let beside = turn(args, true).await?;
        kept.push(beside.per_sec / well.per_sec);
        n += well.n + beside.n;
        n_doubled += well.n_doubled + beside.n_doubled;
        note(format_args!(
            "round {round}: the two took {:.0} a second, and {:.0} beside the tarpit",
            well.per_sec, beside.per_sec
        ));
    }
    kept.sort_by(f64::total_cmp);
    let median = kept[kept.len() / 2];
    say(format_args!("{} messages counted at the two", number(n as i64)));
    Ok(judge(&[
        (
            median >= KEPT_MIN,
            format!(
                "beside a tarpit the two keep {:.1} % of their pace ({:.1} to {:.1}), {:.0} aimed at",
                median * 100.0,
                kept[0] * 100.0,
                kept[kept.len() - 1] * 100.0,
                KEPT_MIN * 100.0
            ),
        ),
        (n_doubled == 0, format!("{n_doubled} addresses got a second copy")),
    ]))
}

async fn turn(args: &Relays, with_tarpit: bool) -> Result<Turn, Failed> {
    let well = Script::default();
    let third = match with_tarpit {
        true => Script::default().always(At::Mail, Act::Drip(b"250 2.1.0 in a while\r\n".to_vec(), DRIP)),
        false => well.clone(),
    };
    let two = [relay(args, well.clone()).await?, relay(args, well).await?];
    let third = relay(args, third).await?;
    let url = |sink: &SinkHandle| format!("smtp://{}?connections={}", sink.addr(), args.connections);
    let nodes = Nodes::start(1, &url(&two[0]), None).await?;
    let now = nodes.now();
    nodes
        .store()
        .put_relay("second", &RelaySpec::of(url(&two[1])), now)
        .await?;
    nodes
        .store()
        .put_relay("third", &RelaySpec::of(url(&third)), now)
        .await?;
    // As many as three relays take when nothing but their replies takes time, and more.
    let trips = (f64::from(args.seconds) + 4.0) / args.latency.as_secs_f64();
    nodes
        .send((trips * 3.5 * f64::from(args.connections)) as u64, args.seed)
        .await?;
    let (from, per_sec) = count(args, &two).await?;
    nodes.stop().await?;
    let copies: Vec<u32> = [&two[0], &two[1], &third]
        .iter()
        .flat_map(|sink| sink.sink().copies())
        .fold(std::collections::HashMap::new(), |mut all, (address, n)| {
            *all.entry(address).or_insert(0) += n;
            all
        })
        .into_values()
        .collect();
    Ok(Turn {
        per_sec,
        n: taken(&two) - from,
        n_doubled: copies.iter().filter(|n| **n > 1).count() as u64,
    })
}

async fn relay(args: &Relays, script: Script) -> Result<SinkHandle, Failed> {
    let options = SinkOptions {
        keep_mailbox: false,
        count_recipients: true,
        latency: args.latency,
        script,
        ..SinkOptions::default()
    };
    Sink::start(options)
        .await
        .map_err(|e| Failed::here(format!("a relay on loopback cannot be started: {e}")))
}

fn taken(two: &[SinkHandle]) -> u64 {
    two.iter().map(|sink| sink.sink().stats().accepted).sum()
}

/// What the two take a second, and what they had before it was counted.
async fn count(args: &Relays, two: &[SinkHandle]) -> Result<(u64, f64), Failed> {
    let waiting = Instant::now();
    while two.iter().any(|sink| sink.sink().stats().accepted == 0) {
        if waiting.elapsed() > STUCK_AFTER {
            return Err(Failed::here("a relay that is well got no message at all"));
        }
        sleep(Duration::from_millis(5)).await;
    }
    sleep(WARM_UP).await;
    let (start, from) = (Instant::now(), taken(two));
    sleep(Duration::from_secs(args.seconds.into())).await;
    let per_sec = (taken(two) - from) as f64 / start.elapsed().as_secs_f64();
    if per_sec == 0.0 {
        return Err(Failed::here("the relays that are well got nothing while it was counted"));
    }
    Ok((from, per_sec))
}
