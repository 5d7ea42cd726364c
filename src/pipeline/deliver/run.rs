//! A chunk in this worker's hands: what is still to do, what is on the wire, and when it is over. Never talks to
//! a relay or the store; connections take messages from it and bring them back.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::job::{Lease, Stop};
use crate::domain::message::MessageStatus;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::pipeline::compose::Prepared;
use crate::store::delivery::Earlier;

/// What earlier attempts of a message came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    pub status: MessageStatus,
    pub attempts: i64,
    pub burnt: i64,
    pub possible_duplicate: bool,
}

impl Past {
    const NONE: Past = Past {
        status: MessageStatus::Queued,
        attempts: 0,
        burnt: 0,
        possible_duplicate: false,
    };
}

/// Why a run takes no more messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// An operator wants it stopped.
    Stopped(Stop),
    /// This worker is going away in good order.
    Released,
    /// The lease is gone: everything at hand is dropped.
    Lost,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    Halted(Halt),
    /// Nothing is left, or only messages that wait for their next attempt.
    Through {
        next_at: Option<Timestamp>,
    },
}

/// One claimed chunk being delivered.
pub struct ChunkRun {
    pub lease: Lease,
    /// The chunk's number in its broadcast.
    pub seq: i64,
    pub prepared: Arc<Prepared>,
    recipients: Vec<Recipient>,
    past: Mutex<HashMap<u16, Past>>,
    state: Mutex<State>,
    over: Notify,
}

struct State {
    todo: VecDeque<u16>,
    /// Messages taken and not brought back.
    in_hand: usize,
    next_at: Option<Timestamp>,
    halt: Option<Halt>,
}

impl ChunkRun {
    /// A run over the messages of a chunk that are due: those without a final status whose time has come.
    #[must_use]
    pub fn new(
        lease: Lease,
        seq: i64,
        prepared: Arc<Prepared>,
        recipients: Vec<Recipient>,
        earlier: Vec<Earlier>,
        now: Timestamp,
    ) -> Self {
        let mut past = HashMap::with_capacity(earlier.len());
        let mut next_at = None;
        let mut waiting = HashMap::new();
        for e in earlier {
            if let Some(at) = e.next_at.filter(|at| *at > now && e.status == MessageStatus::Deferred) {
                next_at = earliest(next_at, at);
                waiting.insert(e.ordinal, at);
            }
            past.insert(
                e.ordinal,
                Past {
                    status: e.status,
                    attempts: e.attempts,
                    burnt: e.burnt,
                    possible_duplicate: e.possible_duplicate,
                },
            );
        }
        let is_due = |ordinal: &u16| {
            !waiting.contains_key(ordinal) && past.get(ordinal).is_none_or(|p: &Past| !p.status.is_final())
        };
        let todo = (0..recipients.len() as u16).filter(is_due).collect();
        let state = State {
            todo,
            in_hand: 0,
            next_at,
            halt: None,
        };
        Self {
            lease,
            seq,
            prepared,
            recipients,
            past: Mutex::new(past),
            state: Mutex::new(state),
            over: Notify::new(),
        }
    }

    #[must_use]
    pub fn recipient(&self, ordinal: u16) -> &Recipient {
        &self.recipients[usize::from(ordinal)]
    }

    #[must_use]
    pub fn past(&self, ordinal: u16) -> Past {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.get(&ordinal).copied().unwrap_or(Past::NONE)
    }

    /// Messages that nobody has taken yet.
    #[must_use]
    pub fn n_todo(&self) -> usize {
        self.state().todo.len()
    }

    /// The ordinals that nobody has taken yet.
    #[must_use]
    pub fn todo(&self) -> Vec<u16> {
        self.state().todo.iter().copied().collect()
    }

    /// Takes the next message. It must be brought back by one of [`ChunkRun::settled`],
    /// [`ChunkRun::deferred`] and [`ChunkRun::put_back`].
    #[must_use]
    pub fn take(&self) -> Option<u16> {
        let mut state = self.state();
        let ordinal = state.todo.pop_front()?;
        state.in_hand += 1;
        Some(ordinal)
    }

    /// Takes these messages off the list; they must be brought back like others.
    pub fn take_these(&self, ordinals: &[u16]) {
        let mut state = self.state();
        let before = state.todo.len();
        state.todo.retain(|o| !ordinals.contains(o));
        state.in_hand += before - state.todo.len();
    }

    /// A message has its final status, durably.
    pub fn settled(&self) {
        self.bring_back(|_| {});
    }

    /// A message is deferred, durably, until the given time.
    pub fn deferred(&self, until: Timestamp) {
        self.bring_back(|state| state.next_at = earliest(state.next_at, until));
    }

    /// A message was not tried after all: it is next again.
    pub fn put_back(&self, ordinal: u16) {
        self.bring_back(|state| {
            if state.halt.is_none() {
                state.todo.push_front(ordinal);
            }
        });
    }

    /// No message is handed out any more; those at hand are still brought back. A lost lease outweighs
    /// everything else, and otherwise the first reason stands.
    pub fn halt(&self, why: Halt) {
        let mut state = self.state();
        if state.halt.is_none() || why == Halt::Lost {
            state.halt = Some(why);
        }
        state.todo.clear();
        drop(state);
        self.over.notify_waiters();
    }

    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.state().halt.is_some()
    }

    /// Waits until every message was brought back or the lease is lost.
    pub async fn end(&self) -> RunEnd {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if let Some(end) = self.ended() {
                return end;
            }
            over.await;
        }
    }

    fn ended(&self) -> Option<RunEnd> {
        let state = self.state();
        match state.halt {
            Some(Halt::Lost) => Some(RunEnd::Halted(Halt::Lost)),
            _ if state.in_hand > 0 || !state.todo.is_empty() => None,
            Some(why) => Some(RunEnd::Halted(why)),
            None => Some(RunEnd::Through { next_at: state.next_at }),
        }
    }

    fn bring_back(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        state.in_hand = state.in_hand.saturating_sub(1);
        change(&mut state);
        let is_over = state.in_hand == 0 && state.todo.is_empty();
        drop(state);
        if is_over {
            self.over.notify_waiters();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn earliest(known: Option<Timestamp>, at: Timestamp) -> Option<Timestamp> {
    Some(known.map_or(at, |k| k.min(at)))
}
