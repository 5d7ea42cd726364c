//! The chunks at hand and the connections that ask for work: messages are handed out in turn, one chunk after the
//! other, so that a chunk of ten is through long before a chunk of a thousand. Never holds a message itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::run::ChunkRun;

/// With fewer messages than this at hand the worker claims another chunk: some for every connection while
/// the claim is on its way, and no more, so that a chunk is not held long before its turn.
pub const LOW_WATER: usize = 256;

/// One message to deliver: a place in a chunk at hand.
#[derive(Clone)]
pub struct Item {
    pub run: Arc<ChunkRun>,
    pub ordinal: u16,
}

/// The chunks at hand.
#[derive(Default)]
pub struct Board {
    runs: Mutex<Runs>,
    more: Notify,
    low: Notify,
}

#[derive(Default)]
struct Runs {
    list: Vec<Arc<ChunkRun>>,
    /// Whose turn it is.
    turn: usize,
}

impl Board {
    pub fn put(&self, run: Arc<ChunkRun>) {
        self.runs().list.push(run);
        self.more.notify_waiters();
    }

    pub fn remove(&self, run: &Arc<ChunkRun>) {
        self.runs().list.retain(|r| !Arc::ptr_eq(r, run));
    }

    /// All chunks at hand.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ChunkRun>> {
        self.runs().list.clone()
    }

    /// Messages that nobody has taken yet.
    #[must_use]
    pub fn n_todo(&self) -> usize {
        self.runs().list.iter().map(|r| r.n_todo()).sum()
    }

    /// The next message, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<Item> {
        let mut runs = self.runs();
        for _ in 0..runs.list.len() {
            runs.turn = (runs.turn + 1) % runs.list.len();
            let run = &runs.list[runs.turn];
            if let Some(ordinal) = run.take() {
                let item = Item {
                    run: Arc::clone(run),
                    ordinal,
                };
                if runs.list.iter().map(|r| r.n_todo()).sum::<usize>() == LOW_WATER {
                    self.low.notify_one();
                }
                return Some(item);
            }
        }
        None
    }

    /// Waits until there is a message to take. Others may take it first.
    pub async fn has_work(&self) {
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if self.n_todo() > 0 {
                return;
            }
            more.await;
        }
    }

    /// Waits until the messages at hand have fallen to [`LOW_WATER`]: time for the next chunk.
    pub async fn is_low(&self) {
        self.low.notified().await;
    }

    /// More chunks may be wanted than the last look at the board said: one that was being read has arrived.
    pub fn look(&self) {
        if self.n_todo() <= LOW_WATER {
            self.low.notify_one();
        }
    }

    /// Messages were put back: waiting connections look again.
    pub fn call(&self) {
        self.more.notify_waiters();
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
