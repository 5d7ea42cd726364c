//! The chunks at hand and the connections that wait: whoever is free gets the next message that may go with it now. Chunks take
//! turns, and within a chunk its lanes, so that a chunk of ten is through long before a chunk of a thousand, and a lane
//! that has to wait holds up no other. Never holds a message itself, and never waits.
//!
//! Messages are shared by weight (`weights`); with equal weights each relay takes what it can. A relay that does not keep up
//! holds up no other.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::port::{Permits, Port, Seat, Waiter};
use super::run::ChunkRun;
use crate::clock::Clock;
use crate::pipeline::lease::LeaseWatch;

mod brakes;
mod upkeep;
mod weights;

/// With fewer messages than this at hand that may go, the worker claims another chunk: some for every connection while
/// the claim is on its way, and no more, so that a chunk is not held long before its turn.
pub const LOW_WATER: usize = 256;

/// One message to deliver: a place in a chunk at hand.
#[derive(Clone)]
pub struct Item {
    pub run: Arc<ChunkRun>,
    pub ordinal: u16,
    /// Counts against the relay's and the lane's connections while any copy of the item lives.
    _pass: Arc<Pass>,
}

struct Pass {
    board: std::sync::Weak<Board>,
    seat: Seat,
    lane: Arc<str>,
    since: Instant,
    permits: Permits,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(board) = self.board.upgrade() {
            board.release(self.seat, &self.lane, self.since.elapsed());
        }
    }
}

/// The chunks at hand and the relays they may go through.
pub struct Board {
    state: Mutex<State>,
    low: Notify,
    /// Something is to be had at another time than was thought.
    timing: Notify,
    clock: Arc<dyn Clock>,
    lease: Arc<LeaseWatch>,
    /// How often the relays were changed, or one of them came to work again.
    n_changes: AtomicU64,
    me: std::sync::Weak<Board>,
}

#[derive(Default)]
struct State {
    runs: Vec<Arc<ChunkRun>>,
    /// Whose turn it is.
    turn: usize,
    ports: Vec<Port>,
    /// Of each port, and whether they differ.
    weights: Vec<u32>,
    is_weighed: bool,
    /// Rises whenever something may fit that did not fit before.
    changes: u64,
}

impl Board {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, lease: Arc<LeaseWatch>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            state: Mutex::default(),
            low: Notify::new(),
            timing: Notify::new(),
            clock,
            lease,
            n_changes: AtomicU64::new(0),
            me: me.clone(),
        })
    }

    pub fn put(&self, run: Arc<ChunkRun>) {
        let mut state = self.state();
        state.runs.push(run);
        self.serve(&mut state);
    }

    pub fn remove(&self, run: &Arc<ChunkRun>) {
        self.state().runs.retain(|r| !Arc::ptr_eq(r, run));
    }

    /// All chunks at hand.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ChunkRun>> {
        self.state().runs.clone()
    }

    /// Connections that the relays allow this worker.
    #[must_use]
    pub fn connections(&self) -> i64 {
        self.state().ports.iter().map(|p| i64::from(p.terms.connections)).sum()
    }

    /// Messages that nobody has taken yet and that do not have to wait long.
    #[must_use]
    pub fn n_todo(&self) -> usize {
        self.state().runs.iter().map(|r| r.n_going()).sum()
    }

    /// Waits for a message. Dropped while waiting, it takes none.
    pub async fn next(&self, seat: Seat) -> Item {
        let mut ticket = {
            let mut state = self.state();
            if let Some(item) = self.take_and_tell(&mut state, seat) {
                return item;
            }
            let (answer, answered) = oneshot::channel();
            if let Some(port) = state.port(seat.relay_id) {
                port.waiters.push_back(Waiter { seat, answer });
            }
            drop(state);
            self.timing.notify_one();
            Ticket { board: self, answered }
        };
        match (&mut ticket.answered).await {
            Ok(item) => item,
            // The relay is gone from the board: its slots are told to end.
            Err(_) => std::future::pending().await,
        }
    }

    /// A message that may go now, if there is one.
    #[must_use]
    pub fn next_now(&self, seat: Seat) -> Option<Item> {
        self.take_and_tell(&mut self.state(), seat)
    }

    /// Brings a message back that was not tried: it is next again.
    pub fn put_back(&self, item: &Item) {
        item.run.put_back(item.ordinal);
        let mut state = self.state();
        self.return_permits(&mut state, item);
        self.serve(&mut state);
    }

    /// Brings a message back that this relay does not take, for another one. `false` when there is no other that may have
    /// it now: then it stays in hand.
    pub fn pass_on(&self, item: &Item, relay_id: i64) -> bool {
        let mut state = self.state();
        let avoided = item.run.avoided(item.ordinal);
        let named = item.run.prepared.relay.as_deref();
        let another = (0..state.ports.len()).any(|p| {
            let id = state.ports[p].terms.relay_id;
            id != relay_id && !avoided.contains(&id) && state.may_carry(p, named)
        });
        if another {
            self.return_permits(&mut state, item);
            item.run.pass_on(item.ordinal, relay_id);
            self.serve(&mut state);
        }
        another
    }

    /// A message that was not sent after all has used up nothing of an hour or a day.
    fn return_permits(&self, state: &mut State, item: &Item) {
        let now_us = self.clock.now().0 * 1_000;
        let Pass {
            seat, lane, permits, ..
        } = &*item._pass;
        if let Some(port) = state.port(seat.relay_id) {
            port.return_permits(lane, permits, now_us);
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

    /// Something may go now that could not before: the lease is there again, or its time has come.
    pub fn call(&self) {
        self.serve(&mut self.state());
    }

    /// Waits until there may be another time to wait for than was known.
    pub async fn timing(&self) {
        self.timing.notified().await;
    }

    /// As [`Board::call`], if anybody waits for a time that has come.
    pub fn call_if_due(&self) {
        let now_us = self.clock.now().0 * 1_000;
        if self.opens_us().is_some_and(|at| at <= now_us) {
            self.call();
        }
    }

    /// Whether any relay has a limit that permits are needed for.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.state().ports.iter().any(Port::is_limited)
    }

    /// When something falls due that somebody waits for.
    #[must_use]
    pub fn opens_us(&self) -> Option<i64> {
        let state = self.state();
        let waiting = state.ports.iter().filter(|p| !p.waiters.is_empty());
        waiting.filter_map(|p| p.opens_us).min()
    }

    fn release(&self, seat: Seat, lane: &Arc<str>, held: Duration) {
        let mut state = self.state();
        let Some(port) = state.port(seat.relay_id) else { return };
        let had_caps = port.has_caps();
        port.release(lane, seat.slot, held);
        if had_caps {
            self.serve(&mut state);
        }
    }

    /// The next message for this seat. Who waited for this relay to have its share may go on.
    fn take_and_tell(&self, state: &mut State, seat: Seat) -> Option<Item> {
        let taken = self.take(state, seat);
        if taken.is_some() && state.ports.iter().any(|p| p.is_ahead && !p.waiters.is_empty()) {
            self.serve(state);
        }
        taken
    }

    /// The next message for this seat.
    fn take(&self, state: &mut State, seat: Seat) -> Option<Item> {
        if !self.lease.holds(self.clock.now()) {
            return None;
        }
        let now_us = self.clock.now().0 * 1_000;
        let at = state.ports.iter().position(|p| p.terms.relay_id == seat.relay_id)?;
        let changes = state.changes;
        let port = &mut state.ports[at];
        let is_time = port.opens_us.is_some_and(|at| at <= now_us);
        if port.fruitless == Some(changes) && !is_time && !port.has_caps() {
            return None;
        }
        port.opens_us = None;
        let found = state.find(at, seat.slot, now_us);
        match found {
            None => {
                state.ports[at].fruitless = Some(changes);
                None
            }
            Some((run, ordinal, lane)) => {
                state.ports[at].fruitless = None;
                let permits = state.ports[at].take(&lane, seat.slot, now_us);
                state.note_take(at);
                if state.runs.iter().map(|r| r.n_going()).sum::<usize>() == LOW_WATER {
                    self.low.notify_one();
                }
                let pass = Pass {
                    board: self.me.clone(),
                    seat,
                    lane,
                    since: Instant::now(),
                    permits,
                };
                Some(Item {
                    run,
                    ordinal,
                    _pass: Arc::new(pass),
                })
            }
        }
    }

    /// Gives everybody who waits what may go now.
    fn serve(&self, state: &mut State) {
        state.changes += 1;
        loop {
            let changes = state.changes;
            let waiting = state.ports.iter().enumerate();
            let next = waiting
                .filter(|(_, p)| !p.waiters.is_empty() && p.fruitless != Some(changes))
                .min_by(|a, b| a.1.pass.total_cmp(&b.1.pass))
                .map(|(at, p)| (at, p.waiters[0].seat));
            let Some((at, seat)) = next else { break };
            match self.take(state, seat) {
                Some(item) => {
                    let is_told = state.ports.iter().any(|p| p.is_ahead && !p.waiters.is_empty());
                    state.changes += u64::from(is_told);
                    let waiter = state.ports[at].waiters.pop_front();
                    if let Some(Err(item)) = waiter.map(|w| w.answer.send(item)) {
                        // It went away meanwhile. Let go of outside the lock.
                        item.run.put_back(item.ordinal);
                        self.return_permits(state, &item);
                        let board = self.me.clone();
                        tokio::spawn(async move {
                            drop(item);
                            board.upgrade().inspect(|b| b.call());
                        });
                    }
                }
                None => state.ports[at].fruitless = Some(changes),
            }
        }
        // What is to be had at a certain time is somebody's to wait for.
        if state
            .ports
            .iter()
            .any(|p| !p.waiters.is_empty() && p.opens_us.is_some())
        {
            self.timing.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn port(&mut self, relay_id: i64) -> Option<&mut Port> {
        self.ports.iter_mut().find(|p| p.terms.relay_id == relay_id)
    }

    /// Whether a message that names this relay, or none, may ever go through it. Without a weight a relay stands in only
    /// while no other takes mail.
    fn is_for(&self, at: usize, named: Option<&str>) -> bool {
        let terms = &self.ports[at].terms;
        match named {
            Some(name) => *name == *terms.name,
            None => terms.weight > 0 || !self.ports.iter().any(|p| p.terms.weight > 0 && p.is_open()),
        }
    }

    fn may_carry(&self, at: usize, named: Option<&str>) -> bool {
        self.ports[at].is_open() && self.is_for(at, named)
    }

    fn find(&mut self, at: usize, slot: u64, now_us: i64) -> Option<(Arc<ChunkRun>, u16, Arc<str>)> {
        if !self.ports[at].admits(slot, now_us) {
            return None;
        }
        let takes_unnamed = self.is_for(at, None);
        let is_ahead = takes_unnamed && self.is_ahead(at);
        let n = self.runs.len();
        let port = &mut self.ports[at];
        port.is_ahead = is_ahead;
        if is_ahead {
            port.note_opening(Some(now_us + weights::LOOK_AGAIN_US));
        }
        for _ in 0..n {
            self.turn = (self.turn + 1) % n;
            let run = &self.runs[self.turn];
            let is_for = match run.prepared.relay.as_deref() {
                Some(named) => *named == *port.terms.name,
                None => takes_unnamed,
            };
            if !is_for {
                continue;
            }
            let relay_id = port.terms.relay_id;
            // What another relay did not take is nobody's share.
            let only_passed_on = is_ahead && run.prepared.relay.is_none();
            if let Some((ordinal, lane)) = run.take(relay_id, only_passed_on, |lane| port.fits(lane, slot, now_us)) {
                return Some((Arc::clone(run), ordinal, lane));
            }
        }
        None
    }
}

/// A place among those who wait. A message that was given to it at the very moment it left goes back.
struct Ticket<'a> {
    board: &'a Board,
    answered: oneshot::Receiver<Item>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.answered.close();
        if let Ok(item) = self.answered.try_recv() {
            self.board.put_back(&item);
        }
    }
}
