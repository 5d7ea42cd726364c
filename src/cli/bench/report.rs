//! What is told of a benchmark: the figures of each party with their spread, its ratio to smtp-source round by round, and whether the
//! aims are met. Never a mean: one round that was disturbed must not carry the rest.

use std::time::Duration;

use super::super::exit::Exit;
use super::super::terminal::{Colour, mark, number, say, table};
use super::field::Slice;
use super::{Party, Smtp};

/// What is aimed at, as a multiple of smtp-source, with 20 ms a round trip, 32 connections and 8 messages in flight. Four round trips
/// a message against one would be 4, and against an eighth of one 32, if nothing but the line took time. For the sessions: the whole
/// program waits for its disk as well, which smtp-source does not have to.
const AIM_PIPELINING: f64 = 3.8;
const AIM_CHUNKING: f64 = 20.0;

/// What is measured, and where.
pub(super) fn head(args: &Smtp, round_trip: Duration) {
    say(format_args!(
        "{} connections over a line with {:.1} ms a round trip (asked for {:.1}), texts of {} bytes, seed {}, {} rounds",
        args.connections,
        round_trip.as_secs_f64() * 1e3,
        args.latency.as_secs_f64() * 1e3,
        number(args.size.into()),
        args.seed,
        args.rounds
    ));
    let n_cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    say(format_args!("on {n_cores} cores ({}), load before it {load}\n", std::env::consts::ARCH));
}

/// Tells everything, and whether it is good.
pub(super) fn tell(args: &Smtp, parties: &[Party], rounds: &[Vec<Slice>]) -> Exit {
    let mut rows = Vec::new();
    let mut checks = Vec::new();
    for (i, party) in parties.iter().enumerate() {
        let turns: Vec<&Slice> = rounds.iter().map(|round| &round[i]).collect();
        let speeds = Spread::of(turns.iter().map(|turn| turn.per_sec()));
        let ratios = Spread::of(rounds.iter().map(|round| round[i].per_sec() / round[0].per_sec()));
        let sum = |part: fn(&Slice) -> u64| turns.iter().map(|turn| part(turn)).sum::<u64>();
        let (n, lost, doubled) = (sum(|t| t.n_expected), sum(|t| t.n_lost), sum(|t| t.n_doubled));
        rows.push(vec![
            party.name().to_owned(),
            format!("{} ({}–{})", whole(speeds.median), whole(speeds.least), whole(speeds.most)),
            format!("{:.2} ({:.2}–{:.2})", ratios.median, ratios.least, ratios.most),
            number(n as i64),
            number((sum(|t| t.content_bytes) / n.max(1)) as i64),
            format!("{:.2}", sum(|t| t.n_answers) as f64 / n.max(1) as f64),
            number((sum(|t| t.n_connections) / turns.len() as u64) as i64),
            format!("{lost} / {doubled}"),
        ]);
        checks.push((
            lost == 0 && doubled == 0,
            format!("{}: {lost} lost, {doubled} doubled of {}", party.name(), number(n as i64)),
        ));
        if let Some(aim) = aim(args, *party) {
            let text = format!("{}: {:.2} times smtp-source, aimed at {aim}", party.name(), ratios.median);
            checks.push((ratios.median >= aim, text));
        }
    }
    let head = [
        "PARTY",
        "MESSAGES/S",
        "× SMTP-SOURCE",
        "MESSAGES",
        "BYTES EACH",
        "ANSWERS EACH",
        "CONNECTIONS",
        "LOST / DOUBLED",
    ];
    say(table(&head, &[1, 2, 3, 4, 5, 6], &rows));
    say("(medians of the rounds, and the least and the most)\n");
    judge(&checks)
}

/// Says what is as it should be, and what is not.
pub(super) fn judge(checks: &[(bool, String)]) -> Exit {
    for (is_good, text) in checks {
        let word = match is_good {
            true => mark("ok  ", Colour::Green),
            false => mark("FAIL", Colour::Red),
        };
        say(format_args!("  {word}  {text}"));
    }
    match checks.iter().all(|(is_good, _)| *is_good) {
        true => Exit::Done,
        false => Exit::Failed,
    }
}

fn whole(n: f64) -> String {
    number(n.round() as i64)
}

fn aim(args: &Smtp, party: Party) -> Option<f64> {
    let as_it_comes = (args.latency, args.connections, args.in_flight) == (Duration::from_millis(20), 32, 8);
    match party {
        Party::Sessions { chunking: false } if as_it_comes => Some(AIM_PIPELINING),
        Party::Sessions { chunking: true } if as_it_comes => Some(AIM_CHUNKING),
        _ => None,
    }
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let mid = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[mid - 1], values[mid]),
            _ => values[mid],
        };
        Self {
            least: values[0],
            median,
            most: values[values.len() - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_both_ends() {
        for (values, expected) in [
            (vec![3.0, 1.0, 2.0], [1.0, 2.0, 3.0]),
            (vec![4.0, 1.0], [1.0, 2.5, 4.0]),
        ] {
            let spread = Spread::of(values.into_iter());
            assert_eq!([spread.least, spread.median, spread.most], expected);
        }
    }
}
