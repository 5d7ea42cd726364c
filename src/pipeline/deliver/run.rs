//! A chunk in this worker's hands: what is still to do, what is on the wire, and when it is over. Never talks to
//! a relay or the store; connections take messages from it and bring them back.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::lanes::Lanes;
use crate::domain::brake::Brake;
use crate::domain::broadcast::OnUncertain;
use crate::domain::chunk::Chunk;
use crate::domain::job::{Lease, Stop};
use crate::domain::message::MessageStatus;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::pipeline::compose::Prepared;
use crate::store::delivery::ChunkWork;

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
    /// Nothing of it may go before this time.
    Held(Timestamp),
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
    /// What becomes of messages in doubt, as it was decided when the chunk was claimed.
    pub on_uncertain: OnUncertain,
    recipients: Vec<Recipient>,
    /// The lane of each recipient, as its place in `lane_names`.
    lanes: Vec<u16>,
    lane_names: Vec<Arc<str>>,
    past: Mutex<HashMap<u16, Past>>,
    state: Mutex<State>,
    over: Notify,
}

/// How a run's messages stand, as far as relays and lanes are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// Whether there are messages, none is in hand, and none may go soon.
    pub is_held: bool,
    /// When the first may, in microseconds since the epoch, and what lane it is for.
    pub opens_us: i64,
    pub lane: Option<Arc<str>>,
}

struct State {
    /// Messages that nobody has taken yet, by lane.
    todo: Vec<VecDeque<u16>>,
    /// Lanes with messages, in the order in which they are handed out.
    turns: VecDeque<u16>,
    n_todo: usize,
    /// Of them, those that have to wait long for their lane.
    n_shut: usize,
    /// Messages that a relay did not take, and which relays those are.
    passed_on: VecDeque<(u16, Vec<i64>)>,
    avoided: HashMap<u16, Vec<i64>>,
    held_since: Option<Timestamp>,
    held_by: Option<Brake>,
    held_at: Option<u64>,
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
        work: ChunkWork,
        now: Timestamp,
        known: &Arc<Lanes>,
    ) -> Self {
        let ChunkWork {
            chunk: Chunk { recipients },
            earlier,
            on_uncertain,
        } = work;
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
        let (lanes, lane_names) = sort_into_lanes(&recipients, known);
        let mut state = State {
            todo: vec![VecDeque::new(); lane_names.len()],
            turns: VecDeque::new(),
            n_todo: 0,
            n_shut: 0,
            passed_on: VecDeque::new(),
            avoided: HashMap::new(),
            held_since: None,
            held_by: None,
            held_at: None,
            in_hand: 0,
            next_at,
            halt: None,
        };
        for ordinal in (0..recipients.len() as u16).filter(is_due) {
            state.push(lanes[usize::from(ordinal)], ordinal, false);
        }
        Self {
            lease,
            seq,
            prepared,
            on_uncertain,
            recipients,
            lanes,
            lane_names,
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
        self.state().n_todo
    }

    /// Of them, those that do not have to wait long for their lane.
    #[must_use]
    pub fn n_going(&self) -> usize {
        let state = self.state();
        state.n_todo.saturating_sub(state.n_shut)
    }

    /// The ordinals that nobody has taken yet.
    #[must_use]
    pub fn todo(&self) -> Vec<u16> {
        let state = self.state();
        let mut todo: Vec<u16> = state.todo.iter().flatten().copied().collect();
        todo.extend(state.passed_on.iter().map(|(ordinal, _)| ordinal));
        todo.sort_unstable();
        todo
    }

    /// Takes the next message whose lane fits, for this relay: lanes take turns; or only one that another relay did not take. It must be brought back by one of
    /// [`ChunkRun::settled`], [`ChunkRun::deferred`] and [`ChunkRun::put_back`].
    #[must_use]
    pub fn take(
        &self,
        relay_id: i64,
        only_passed_on: bool,
        mut fits: impl FnMut(&Arc<str>) -> bool,
    ) -> Option<(u16, Arc<str>)> {
        let mut state = self.state();
        let passed_on = state.passed_on.iter().position(|(ordinal, avoid)| {
            !avoid.contains(&relay_id) && fits(&self.lane_names[usize::from(self.lanes[usize::from(*ordinal)])])
        });
        if let Some((ordinal, avoid)) = passed_on.and_then(|at| state.passed_on.remove(at)) {
            state.avoided.insert(ordinal, avoid);
            state.took();
            return Some((ordinal, Arc::clone(self.lane(ordinal))));
        }
        if only_passed_on {
            return None;
        }
        for _ in 0..state.turns.len() {
            let lane = state.turns.pop_front()?;
            let name = &self.lane_names[usize::from(lane)];
            if !fits(name) {
                state.turns.push_back(lane);
                continue;
            }
            let ordinal = state.todo[usize::from(lane)].pop_front()?;
            if !state.todo[usize::from(lane)].is_empty() {
                state.turns.push_back(lane);
            }
            state.took();
            return Some((ordinal, Arc::clone(name)));
        }
        None
    }

    /// The destination that a message goes to.
    #[must_use]
    pub fn lane(&self, ordinal: u16) -> &Arc<str> {
        &self.lane_names[usize::from(self.lanes[usize::from(ordinal)])]
    }

    /// Relays that did not take a message in hand.
    #[must_use]
    pub fn avoided(&self, ordinal: u16) -> Vec<i64> {
        self.state().avoided.get(&ordinal).cloned().unwrap_or_default()
    }

    /// Adds the messages that wait to those of their lanes.
    pub fn count_lanes(&self, counts: &mut HashMap<Arc<str>, usize>) {
        let state = self.state();
        for lane in &state.turns {
            let lane = usize::from(*lane);
            *counts.entry(Arc::clone(&self.lane_names[lane])).or_default() += state.todo[lane].len();
        }
    }

    /// Counts what has to wait for its lane until after `soon_us`; `opens` says when a lane opens.
    pub fn weigh(&self, mut opens: impl FnMut(&Arc<str>) -> i64, soon_us: i64) -> Weight {
        let mut state = self.state();
        // Whoever avoids every relay that is left gets another chance with all of them.
        let (mut n_shut, mut first) = (0, (i64::MAX, None));
        let mut note = |lane: &Arc<str>, n: usize| {
            let at = opens(lane);
            if first.1.is_none() || at < first.0 {
                first = (at, Some(Arc::clone(lane)));
            }
            if at > soon_us {
                n_shut += n;
            }
        };
        for lane in &state.turns {
            let lane = usize::from(*lane);
            note(&self.lane_names[lane], state.todo[lane].len());
        }
        for (ordinal, _) in &state.passed_on {
            note(self.lane(*ordinal), 1);
        }
        let (opens_us, lane) = first;
        state.n_shut = n_shut;
        Weight {
            is_held: state.n_todo > 0 && n_shut == state.n_todo && state.in_hand == 0 && state.halt.is_none(),
            opens_us,
            lane,
        }
    }

    /// For how long it has been held, in milliseconds.
    pub fn held_for(&self, is_held: bool, now: Timestamp) -> i64 {
        let mut state = self.state();
        if !is_held {
            state.held_since = None;
        } else if state.held_since.is_none() {
            state.held_since = Some(now);
        }
        state.held_since.map_or(0, |since| now - since)
    }

    /// Messages in doubt that were to be sent again, and may not be any more.
    #[must_use]
    pub fn held_doubts(&self) -> Vec<u16> {
        let is_held = |ordinal: &u16| {
            let past = self.past(*ordinal);
            past.possible_duplicate && past.status == MessageStatus::Deferred
        };
        match self.on_uncertain {
            OnUncertain::Resend => Vec::new(),
            OnUncertain::Hold => self.todo().into_iter().filter(is_held).collect(),
        }
    }

    /// Takes these messages off the list; they must be brought back like others.
    pub fn take_these(&self, ordinals: &[u16]) {
        let mut state = self.state();
        let before = state.n_todo;
        for todo in &mut state.todo {
            todo.retain(|o| !ordinals.contains(o));
        }
        state.passed_on.retain(|(o, _)| !ordinals.contains(o));
        let State { todo, turns, .. } = &mut *state;
        turns.retain(|lane| !todo[usize::from(*lane)].is_empty());
        state.n_todo = state.todo.iter().map(VecDeque::len).sum::<usize>() + state.passed_on.len();
        state.in_hand += before - state.n_todo;
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
                state.push(self.lanes[usize::from(ordinal)], ordinal, true);
            }
        });
    }

    /// A relay did not take a message, through no fault of it: it is next again, for others.
    pub fn pass_on(&self, ordinal: u16, relay_id: i64) {
        self.bring_back(|state| {
            if state.halt.is_none() {
                let mut avoid = state.avoided.remove(&ordinal).unwrap_or_default();
                avoid.push(relay_id);
                state.passed_on.push_back((ordinal, avoid));
                state.n_todo += 1;
            }
        });
    }

    /// Messages that only relays which cannot have them could take are next again for all.
    pub fn forget_avoided(&self, mut is_hopeless: impl FnMut(&[i64]) -> bool) {
        let mut state = self.state();
        let (hopeless, rest) = std::mem::take(&mut state.passed_on)
            .into_iter()
            .partition(|(_, avoid)| is_hopeless(avoid));
        state.passed_on = rest;
        for (ordinal, _) in hopeless {
            state.n_todo -= 1;
            state.push(self.lanes[usize::from(ordinal)], ordinal, true);
        }
    }

    /// No message is handed out any more; those at hand are still brought back. A lost lease outweighs
    /// everything else, and otherwise the first reason stands.
    pub fn halt(&self, why: Halt) {
        let mut state = self.state();
        if state.halt.is_none() || why == Halt::Lost {
            state.halt = Some(why);
        }
        state.clear();
        drop(state);
        self.over.notify_waiters();
    }

    /// Nothing of it may go before this time, because of this; the relays have changed so often by now. As [`ChunkRun::halt`].
    pub fn hold(&self, until: Timestamp, by: Brake, n_changes: u64) {
        let mut state = self.state();
        (state.held_by, state.held_at) = (Some(by), Some(n_changes));
        drop(state);
        self.halt(Halt::Held(until));
    }

    /// What it is held by.
    #[must_use]
    pub fn held_by(&self) -> Option<Brake> {
        self.state().held_by.clone()
    }

    /// How often the relays had changed when it was held.
    #[must_use]
    pub fn held_at(&self) -> Option<u64> {
        self.state().held_at
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
            _ if state.in_hand > 0 || state.n_todo > 0 => None,
            // Messages of it that are tried again sooner are not held up by those that wait for a relay.
            Some(Halt::Held(at)) => Some(RunEnd::Halted(Halt::Held(state.next_at.map_or(at, |next| next.min(at))))),
            Some(why) => Some(RunEnd::Halted(why)),
            None => Some(RunEnd::Through { next_at: state.next_at }),
        }
    }

    fn bring_back(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        state.in_hand = state.in_hand.saturating_sub(1);
        change(&mut state);
        let is_over = state.in_hand == 0 && state.n_todo == 0;
        drop(state);
        if is_over {
            self.over.notify_waiters();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, lane: u16, ordinal: u16, is_next: bool) {
        let todo = &mut self.todo[usize::from(lane)];
        if todo.is_empty() {
            if is_next {
                self.turns.push_front(lane);
            } else {
                self.turns.push_back(lane);
            }
        }
        if is_next {
            todo.push_front(ordinal);
        } else {
            todo.push_back(ordinal);
        }
        self.n_todo += 1;
    }

    fn took(&mut self) {
        self.n_todo -= 1;
        self.in_hand += 1;
    }

    fn clear(&mut self) {
        self.todo.iter_mut().for_each(VecDeque::clear);
        self.turns.clear();
        self.passed_on.clear();
        self.n_todo = 0;
        self.n_shut = 0;
    }
}

/// The lane of each recipient, and the lanes.
fn sort_into_lanes(recipients: &[Recipient], all: &Arc<Lanes>) -> (Vec<u16>, Vec<Arc<str>>) {
    let mut known: HashMap<String, u16> = HashMap::new();
    let mut names: Vec<Arc<str>> = Vec::new();
    let lanes = recipients
        .iter()
        .map(|recipient| {
            let domain = recipient.email.domain().to_ascii_lowercase();
            let lane = all.of(&domain);
            if let Some(&place) = known.get(&*lane) {
                return place;
            }
            *known.entry(lane.clone().into_owned()).or_insert_with(|| {
                names.push(lane.into());
                (names.len() - 1) as u16
            })
        })
        .collect();
    (lanes, names)
}

fn earliest(known: Option<Timestamp>, at: Timestamp) -> Option<Timestamp> {
    Some(known.map_or(at, |k| k.min(at)))
}
