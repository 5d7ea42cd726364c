//! The field: a capture relay behind a long line, and the clock at its far end. The same for every party. Never believes a party about
//! what it has handed over: the relay counts.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::super::exit::Failed;
use crate::sink::line::Line;
use crate::sink::{Sink, SinkHandle, SinkOptions};

/// Between two looks at what the relay has taken: a fraction of the shortest turn.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A party that has handed nothing over for this long is given up.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Round trips that are measured before everything else.
const PROBES: usize = 21;

/// A relay behind a line.
pub(super) struct Field {
    sink: SinkHandle,
    line: Line,
}

/// One turn of one party, as the relay saw it.
pub(super) struct Slice {
    /// From the first connection to the last message taken.
    pub took: Duration,
    pub n_expected: u64,
    /// Addresses that got nothing.
    pub n_lost: u64,
    /// Copies beyond the first.
    pub n_doubled: u64,
    pub content_bytes: u64,
    /// How often the relay had to answer.
    pub n_answers: u64,
    pub n_connections: u64,
}

impl Slice {
    pub fn per_sec(&self) -> f64 {
        self.n_expected as f64 / self.took.as_secs_f64().max(0.001)
    }
}

impl Field {
    pub async fn lay(latency: Duration) -> Result<Self, Failed> {
        let options = SinkOptions {
            keep_mailbox: false,
            count_recipients: true,
            ..SinkOptions::default()
        };
        let here = |e: std::io::Error| Failed::here(format!("a relay on loopback cannot be started: {e}"));
        let sink = Sink::start(options).await.map_err(here)?;
        let line = Line::lay(sink.addr(), latency).await.map_err(here)?;
        Ok(Self { sink, line })
    }

    /// Where a party connects to.
    pub fn addr(&self) -> std::net::SocketAddr {
        self.line.addr()
    }

    /// Times a party that hands over `n` messages to as many addresses, and waits for its end.
    pub async fn time<T>(self, n: u64, party: impl Future<Output = Result<T, Failed>>) -> Result<(Slice, T), Failed> {
        let (took, done) = tokio::try_join!(self.watch(n), party)?;
        let stats = self.sink.sink().stats();
        let copies = self.sink.sink().copies();
        let n_copies: u64 = copies.values().map(|&n| u64::from(n)).sum();
        let slice = Slice {
            took,
            n_expected: n,
            n_lost: n.saturating_sub(copies.len() as u64),
            n_doubled: n_copies - copies.len() as u64,
            content_bytes: stats.content_bytes,
            n_answers: stats.flushes,
            n_connections: stats.connections,
        };
        self.sink.stop().await;
        Ok((slice, done))
    }

    async fn watch(&self, n: u64) -> Result<Duration, Failed> {
        let (mut began, mut moved) = (None, (0, Instant::now()));
        loop {
            let stats = self.sink.sink().stats();
            let now = Instant::now();
            if stats.connections > 0 && began.is_none() {
                began = Some(now);
            }
            if stats.accepted >= n {
                return Ok(began.map_or(Duration::ZERO, |began| now - began));
            }
            if stats.accepted > moved.0 {
                moved = (stats.accepted, now);
            } else if now - moved.1 > STUCK_AFTER {
                return Err(Failed::here(format!(
                    "a party has handed over {} of {n} messages, and nothing for {} s",
                    stats.accepted,
                    STUCK_AFTER.as_secs()
                )));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// What a round trip on such a line really takes: the system's timers come on top. The median.
pub(super) async fn round_trip(latency: Duration) -> Result<Duration, Failed> {
    let field = Field::lay(latency).await?;
    let probe = async {
        let mut stream = BufReader::new(TcpStream::connect(field.addr()).await?);
        let mut reply = String::new();
        stream.read_line(&mut reply).await?;
        let mut trips = Vec::with_capacity(PROBES);
        for _ in 0..PROBES {
            let start = Instant::now();
            stream.write_all(b"NOOP\r\n").await?;
            stream.read_line(&mut reply).await?;
            trips.push(start.elapsed());
        }
        trips.sort_unstable();
        std::io::Result::Ok(trips[PROBES / 2])
    };
    probe
        .await
        .map_err(|e| Failed::here(format!("the line on loopback cannot be measured: {e}")))
}
