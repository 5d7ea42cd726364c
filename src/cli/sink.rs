//! `hikyaku sink`: the capture relay by itself, for trying things out and for measuring: it takes mail at full speed, or with the
//! faults that real relays have. Never passes anything on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::Instant;

use super::exit::{Exit, Failed, Outcome};
use super::signals;
use super::terminal::{Progress, note, number, say, span, table};
use super::view::Speed;
use crate::sink::{Extensions, Script, Sink as Relay, SinkCertificate, SinkOptions, SinkStats, SinkTls};

/// Between two counts on a terminal.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Runs the capture relay alone, with faults on request.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku sink
  hikyaku sink --latency 20ms --reject-rate 0.02 --log truth.ndjson
  hikyaku sink --rule 'rcpt/@slow.example=450 4.2.1 too fast' --rule dot#5=close
  HIKYAKU_RELAY_URL=smtp://127.0.0.1:2525 hikyaku serve

It is an SMTP server that takes everything and passes nothing on.

A recipient can ask for a fault by its address: reject-550-5.1.1@…,
defer-451@…, defer-once@…, drop-after-dot@…, close-at-data@…, stall@…; a +tag
may follow, as in defer-once+17@example.org.

A --rule does so by stage: STAGE[/ADDRESS][#N]=ACT. Stages are banner, ehlo,
starttls, auth, mail, rcpt, data, dot, rset and quit; with rcpt, data and dot an
address, or @domain, may be named; #N is the Nth time only. The act is a reply
such as '451 4.3.0 busy', or close, reset, silence, bye:REPLY (and closed), or
drip:REPLY (a byte in ten seconds).

Ctrl-C prints what was counted and exits with 0.")]
pub struct Sink {
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2525")]
    listen: SocketAddr,

    /// Listen on an address that others can reach, too: it takes mail from anybody
    #[arg(long)]
    allow_outside: bool,

    /// Let each reply leave this much later, as over a long line: 20ms, 1.5s
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = duration)]
    latency: Duration,

    /// The share of addresses that are refused for good (550), 0 to 1; the same ones for each seed
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    reject_rate: f64,

    /// The share of recipients that are put off (451), 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    defer_rate: f64,

    /// The share of messages that are taken while the connection breaks instead of the reply, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    drop_after_data_rate: f64,

    /// Behave otherwise at a stage; see below. May be given more than once, and the first that fits counts
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,

    /// Extensions that are not offered: pipelining, chunking, smtputf8, dsn, size, ehlo
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    without: Vec<Extension>,

    /// Makes the same faults happen again
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// How connections are encrypted; other than none needs --cert and --key
    #[arg(long, value_enum, default_value_t = Tls::None)]
    tls: Tls,

    /// The certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Take nothing without this login
    #[arg(long, value_name = "USER:PASSWORD", value_parser = login)]
    auth: Option<(String, String)>,

    /// Write what really happened to this file, a JSON object a line; it is written anew
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tls {
    None,
    Starttls,
    Implicit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Extension {
    Pipelining,
    Chunking,
    Smtputf8,
    Dsn,
    Size,
    Ehlo,
}

fn extensions(without: &[Extension]) -> Extensions {
    let has = |extension| !without.contains(&extension);
    let all = Extensions::default();
    Extensions {
        pipelining: has(Extension::Pipelining),
        chunking: has(Extension::Chunking),
        smtputf8: has(Extension::Smtputf8),
        dsn: has(Extension::Dsn),
        size: all.size.filter(|_| has(Extension::Size)),
        ehlo: has(Extension::Ehlo),
        ..all
    }
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: Sink) -> Outcome {
    let listen = args.listen;
    let stop = signals::listen(None)?;
    let relay = Relay::start(options(args)?)
        .await
        .map_err(|e| Failed::here(format!("{listen}: {e}; choose another with --listen, or say --allow-outside")))?;
    say(format_args!(
        "Listening on {0}, passing nothing on. Use it with HIKYAKU_RELAY_URL=smtp://{0}",
        relay.addr()
    ));
    let started = Instant::now();
    let mut progress = Progress::start("Taken", 0);
    let mut speed = Speed::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(COUNT_EVERY) => {}
        }
        let stats = relay.sink().stats();
        let rate = speed.note(taken(&stats) as i64);
        progress.show_text(0, 0, in_a_line(&stats, rate));
    }
    progress.clear();
    let stats = relay.sink().stats();
    relay.stop().await;
    tell_all(&stats, started.elapsed());
    Ok(Exit::Done)
}

fn options(args: Sink) -> Result<SinkOptions, Failed> {
    let certificate = match (&args.cert, &args.key) {
        (Some(chain), Some(key)) => Some(SinkCertificate {
            chain_pem: read(chain)?,
            key_pem: read(key)?,
        }),
        _ => None,
    };
    let tls = match (args.tls, certificate) {
        (Tls::None, _) => SinkTls::None,
        (Tls::Starttls, Some(certificate)) => SinkTls::StartTls(certificate),
        (Tls::Implicit, Some(certificate)) => SinkTls::Implicit(certificate),
        (_, None) => {
            return Err(Failed::usage(
                "--tls needs a certificate: give --cert and --key, made for instance by `openssl req -x509`",
            ));
        }
    };
    if args.allow_outside && !args.listen.ip().is_loopback() {
        note("Others can reach this address, and it takes mail from anybody.");
    }
    let script = args
        .rules
        .iter()
        .try_fold(Script::default(), |script, rule| script.parse(rule));
    Ok(SinkOptions {
        script: script.map_err(|why| Failed::usage(format!("--rule: {why}")))?,
        extensions: extensions(&args.without),
        listen: args.listen,
        allow_outside: args.allow_outside,
        latency: args.latency,
        reject_rate: args.reject_rate,
        defer_rate: args.defer_rate,
        drop_after_data_rate: args.drop_after_data_rate,
        seed: args.seed,
        tls,
        require_auth: args.auth,
        log: args.log,
        keep_mailbox: false,
        ..SinkOptions::default()
    })
}

fn read(path: &std::path::Path) -> Result<String, Failed> {
    std::fs::read_to_string(path).map_err(|e| Failed::usage(format!("{}: {e}", path.display())))
}

/// Messages that are here, with or without a reply.
fn taken(stats: &SinkStats) -> u64 {
    stats.accepted + stats.taken_unanswered
}

fn in_a_line(stats: &SinkStats, rate: f64) -> String {
    format!(
        "{} messages, {}/s, {} refused, {} deferred, {} connections so far",
        number(taken(stats) as i64),
        number(rate.round() as i64),
        number(stats.refused as i64),
        number(stats.deferred as i64),
        number(stats.connections as i64)
    )
}

fn tell_all(stats: &SinkStats, ran: Duration) {
    let row = |n: u64, meaning: &str| vec![number(n as i64), meaning.to_owned()];
    let rows = [
        row(stats.accepted, "messages answered with 250"),
        row(stats.taken_unanswered, "messages taken whose reply was held back on purpose"),
        row(stats.refused, "answers of 5yz"),
        row(stats.deferred, "answers of 4yz"),
        row(stats.connections, "connections"),
        row(stats.violations, "things a client must not do"),
    ];
    say(table(&["COUNT", "WHAT"], &[0], &rows));
    say(format_args!("in {}", span(ran.as_secs_f64())));
}

/// Reads `20ms`, `1.5s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a time such as 20ms or 1.5s");
    let (number, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1.0),
        (None, Some(number)) => (number, 1_000.0),
        (None, None) => return Err(bad()),
    };
    let ms = number.trim().parse::<f64>().map_err(|_| bad())? * unit_ms;
    if !(0.0..=600_000.0).contains(&ms) {
        return Err(format!("'{text}' is not between 0 and 10 minutes"));
    }
    Ok(Duration::from_secs_f64(ms / 1_000.0))
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share lies between 0 and 1, such as 0.02".to_owned()),
    }
}

fn login(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => Ok((user.to_owned(), password.to_owned())),
        _ => Err("a login is USER:PASSWORD".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_are_read_or_refused() {
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(share("0.02"), Ok(0.02));
        for bad in ["20", "-1s", "fast", "1h", "NaNs"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["1.5", "-0.1", "NaN", "2%"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
