//! Stage 5, deliver: messages of the chunks at hand → the relay, over this worker's connections. Each connection owns
//! its session, its message and nothing else; it asks for a permit before it takes a message, and it never
//! writes an end of data before the intent, and the outcome before it, are durable.
//!
//! ```text
//!   permit → take → compose → MAIL RCPT DATA → 354
//!                                               │   ┌──────────────────────────────────────────────┐
//!                                               ▼   ▼                                              │
//!                     commit(outcome of the one before, intent of this one)                        │
//!                                               │                                                  │
//!                       content, end of data, MAIL RCPT DATA of the next one  ── one round trip ───┘
//!
//!   With CHUNKING, once the first message has shown how the relay answers:
//!
//!   permits → take → compose → commit(outcomes of the window before, intents of this one)  ◄───────┐
//!                                               │                                                  │
//!                       MAIL RCPT BDAT of each message of the window          ── one round trip ───┘
//! ```

pub mod board;
pub mod fate;
pub mod run;

mod slot;

pub use slot::{Slot, SlotDeps};

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::smtp::config::RelayConfig;
use crate::smtp::failure::Failure;
use crate::smtp::pace::{Pace, RATE_PER_SEC_MIN};
use crate::smtp::tls::TlsContext;

/// A relay as the connections of this worker share it.
pub struct Relay {
    pub config: RelayConfig,
    pub tls: TlsContext,
    pub pace: Pace,
    /// Under which its name stands in message rows.
    pub id: i64,
    pub gauges: Gauges,
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

impl Relay {
    /// Takes this worker's share of the relay's limit: the limit is for all of them together. `None` is no share
    /// yet: next to nothing.
    pub fn share_pace(&self, among: Option<i64>) {
        let share = self.config.rate_per_sec.map(|limit| match among {
            Some(workers) => f64::from(limit) / workers.max(1) as f64,
            None => RATE_PER_SEC_MIN,
        });
        self.pace.set_rate(share);
    }
}
