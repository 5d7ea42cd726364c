//! Stage 5, deliver: messages of the chunks at hand → the relay, over this worker's connections. Each connection owns
//! its session, its message and nothing else; it asks for a permit before it takes a message, and it never
//! writes an end of data before the intent, and the outcome before it, are durable.
//!
//! ```text
//!   permit → take → compose → MAIL RCPT DATA → 354
//!                                               │   ┌──────────────────────────────────────────────┐
//!                                               ▼   ▼                                              │
//!                     commit(outcome of the one before, intent of this one)                        │
//!                                               │     beside it: permit, take, compose the next one│
//!                       content, end of data, MAIL RCPT DATA of the next one  ── one round trip ───┘
//!
//!   With CHUNKING, once the first message has shown how the relay answers:
//!
//!   permits → take → compose → commit(outcomes of the window before, intents of this one)  ◄───────┐
//!                                               │                                                  │
//!                       MAIL RCPT BDAT of each message of the window          ── one round trip ───┘
//! ```

pub mod allowances;
pub mod board;
pub mod fate;
pub mod lanes;
pub mod permits;
pub mod port;
pub mod run;

mod slot;

pub use slot::{Slot, SlotDeps};

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use self::allowances::{Allowances, Discovery};
use crate::domain::time::Timestamp;
use crate::smtp::config::RelayConfig;
use crate::smtp::failure::Failure;
use crate::smtp::pace::Pace;
use crate::smtp::tls::TlsContext;

/// A relay as the connections of this worker share it.
pub struct Relay {
    pub config: RelayConfig,
    pub tls: TlsContext,
    /// Between two connections that are opened, but for each slot's first: a relay that closes each one at once would eat this
    /// machine's ports.
    pub opening: Pace,
    /// What people call it, and under which number it stands in message rows.
    pub name: Arc<str>,
    pub id: i64,
    /// What it allows, as far as it is known.
    pub allowances: Arc<Allowances>,
    /// When it took a message last, by the machine's steady clock.
    pub taken_at: Mutex<Option<Instant>>,
    /// Of the worker.
    pub gauges: Arc<Gauges>,
    /// Failures to be let in, in a row.
    pub n_failed: AtomicU32,
    /// Whether the cluster takes it for failing: the next success is news.
    pub is_failing: AtomicBool,
    /// Which connections these are: what those of an earlier address tell says nothing about this one.
    pub crew: u64,
}

/// Others are at work when a message was taken within this time: a relay that fails takes none.
const LATELY: Duration = Duration::from_secs(5);

impl Relay {
    fn opened(&self) {
        self.gauges.opened();
        self.allowances.opened();
    }

    fn closed(&self) {
        self.gauges.closed();
        self.allowances.closed();
    }

    fn taken_at(&self) -> Option<Instant> {
        *self.taken_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it took a message a moment ago.
    fn took_lately(&self) -> bool {
        self.taken_at().is_some_and(|at| at.elapsed() < LATELY)
    }
}

/// Connections opened to one relay by one worker, a second. A machine has some 28,000 ports for them and keeps each for a minute.
pub const OPENED_PER_SEC_MAX: f64 = 200.0;

/// What a connection learnt that concerns all workers.
#[derive(Debug, Clone)]
pub enum News {
    /// The relay did not let us in at this time. Who tells of it late says nothing about a suspension that has begun since.
    Failed {
        relay_id: i64,
        crew: u64,
        reason: String,
        at: Timestamp,
    },
    /// It refuses who we are: nobody should knock again before a person has looked.
    Refused { relay_id: i64, crew: u64, reason: String },
    /// It, or a destination behind it (`""` is the relay itself), asks for less.
    Slower {
        relay_id: i64,
        lane: Arc<str>,
        reason: String,
        wait: Option<std::time::Duration>,
    },
    /// It works again.
    Works { relay_id: i64, crew: u64 },
    /// It was found out what it allows.
    Found {
        relay_id: i64,
        crew: u64,
        discovery: Discovery,
    },
}

/// What the connections of a relay tell the worker's heartbeat.
#[derive(Default)]
pub struct Gauges {
    connections_open: AtomicU32,
    n_settled: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Gauges {
    #[must_use]
    pub fn connections_open(&self) -> u32 {
        self.connections_open.load(Ordering::Relaxed)
    }

    /// Messages settled since the start.
    #[must_use]
    pub fn n_settled(&self) -> u64 {
        self.n_settled.load(Ordering::Relaxed)
    }

    /// What stands in the way now, in words.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<&Failure>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble.map(ToString::to_string);
    }

    fn opened(&self) {
        self.connections_open.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.connections_open.fetch_sub(1, Ordering::Relaxed);
    }

    fn settled(&self) {
        self.n_settled.fetch_add(1, Ordering::Relaxed);
    }
}
