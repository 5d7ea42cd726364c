//! The board as those see it who look after the relays: what holds for each, which permits to ask for, and which chunks cannot go for
//! some time. Never asks the database itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Board;
use crate::domain::brake::Brake;
use crate::domain::ledger::{Ask, Grant};
use crate::domain::time::Timestamp;
use crate::pipeline::deliver::port::{Door, Port, Terms};
use crate::pipeline::deliver::run::ChunkRun;

/// A lane that opens later than this is shut, and its messages do not count as at hand.
const SOON_MS: i64 = 3_000;
/// A chunk of which nothing may go for this long is given back.
const HELD_MS: i64 = 3_000;
/// A chunk that waits for somebody's doing is looked at again after this; a change of a relay wakes it at once.
const HELD_FAR_MS: i64 = 600_000;

impl Board {
    /// Says what holds for a relay now, or for a new one.
    pub fn learn(&self, terms: Terms) {
        let mut state = self.state();
        let first = state.ports.iter().map(|p| p.pass).fold(0.0, f64::max);
        match state.port(terms.relay_id) {
            Some(port) => port.learn(terms),
            None => state.ports.push(Port::new(terms, first)),
        }
        state.note_weights();
        self.serve(&mut state);
    }

    /// The relay is gone.
    pub fn forget(&self, relay_id: i64) {
        let gone: Vec<Port> = {
            let mut state = self.state();
            let gone = state.ports.extract_if(.., |p| p.terms.relay_id == relay_id).collect();
            state.note_weights();
            gone
        };
        drop(gone);
        self.call();
    }

    /// The relays have changed, or one works again: what was held before this waits no longer.
    pub fn note_change(&self) {
        self.n_changes.fetch_add(1, Ordering::SeqCst);
    }

    /// How often [`Board::note_change`] was called.
    #[must_use]
    pub fn n_changes(&self) -> u64 {
        self.n_changes.load(Ordering::SeqCst)
    }

    /// Nothing more goes through this relay until something else is said.
    pub fn shut(&self, relay_id: i64, brake: Brake) {
        let mut state = self.state();
        if let Some(port) = state.port(relay_id) {
            port.terms.door = Door::Shut(brake);
        }
        self.serve(&mut state);
    }

    /// Whether any message at hand may go through this relay if it is open.
    #[must_use]
    pub fn has_work_for(&self, relay_id: i64) -> bool {
        let state = self.state();
        let name = state
            .ports
            .iter()
            .find(|p| p.terms.relay_id == relay_id)
            .map(|p| &p.terms.name);
        let Some(name) = name else { return false };
        let fits = |run: &Arc<ChunkRun>| run.prepared.relay.as_deref().is_none_or(|named| named == &**name);
        state.runs.iter().any(|run| run.n_todo() > 0 && fits(run))
    }

    /// What to ask of the ledger now, by relay.
    #[must_use]
    pub fn asks(&self) -> Vec<(i64, Vec<Ask>)> {
        let now_us = self.clock.now().0 * 1_000;
        let mut state = self.state();
        let mut asked = Vec::new();
        for at in 0..state.ports.len() {
            let (mut waiting, mut all) = (HashMap::new(), 0);
            for run in &state.runs {
                if state.may_carry(at, run.prepared.relay.as_deref()) {
                    all += run.n_todo();
                    run.count_lanes(&mut waiting);
                }
            }
            let port = &mut state.ports[at];
            let asks = port.asks(&waiting, all, now_us);
            if !asks.is_empty() {
                asked.push((port.terms.relay_id, asks));
            }
        }
        asked
    }

    /// The ledger's answer; `None` when there was none.
    pub fn granted(&self, relay_id: i64, asks: &[Ask], grants: Option<&[Grant]>) {
        let now_us = self.clock.now().0 * 1_000;
        let mut state = self.state();
        let Some(port) = state.port(relay_id) else { return };
        for (n, ask) in asks.iter().enumerate() {
            let Some(bucket) = port.bucket(&ask.lane) else { continue };
            match grants.and_then(|g| g.get(n)) {
                Some(grant) => bucket.granted(grant),
                None => bucket.not_granted(now_us),
            }
        }
        self.serve(&mut state);
    }

    /// Permits that will not be used any more, by relay.
    #[must_use]
    pub fn leftovers(&self) -> Vec<(i64, Vec<Ask>)> {
        let now_us = self.clock.now().0 * 1_000;
        let mut state = self.state();
        let ports = state.ports.iter_mut();
        ports
            .map(|p| (p.terms.relay_id, p.leftovers(now_us)))
            .filter(|(_, asks)| !asks.is_empty())
            .collect()
    }

    /// Microseconds between two messages of a lane from this worker at present.
    #[must_use]
    pub fn measured_us(&self, relay_id: i64, lane: &str) -> Option<i64> {
        let now_us = self.clock.now().0 * 1_000;
        self.state().port(relay_id).and_then(|p| p.measured_us(lane, now_us))
    }

    /// Counts what may go, and gives chunks back of which nothing may for some time.
    pub fn weigh(&self) {
        let (now, n_changes) = (self.clock.now(), self.n_changes());
        let mut state = self.state();
        let runs = state.runs.clone();
        let mut held = Vec::new();
        for run in &runs {
            let named = run.prepared.relay.as_deref();
            let carriers: Vec<usize> = (0..state.ports.len()).filter(|p| state.is_for(*p, named)).collect();
            let ports = &mut state.ports;
            let soon_us = now.plus_ms(SOON_MS).0 * 1_000;
            let opens = |lane: &Arc<str>| {
                carriers
                    .iter()
                    .map(|p| ports[*p].opens_at(lane))
                    .min()
                    .unwrap_or(i64::MAX)
            };
            let weight = run.weigh(opens, soon_us);
            run.forget_avoided(|avoid| {
                !carriers.iter().any(|p| {
                    let port = &ports[*p];
                    port.is_open() && !avoid.contains(&port.terms.relay_id)
                })
            });
            if run.held_for(weight.is_held, now) >= HELD_MS && weight.is_held {
                let by = state.held_by(&carriers, named, weight.lane.as_ref(), now.0 * 1_000);
                held.push((run, weight.opens_us, by));
            }
        }
        self.serve(&mut state);
        drop(state);
        for (run, opens_us, by) in held {
            run.hold(Timestamp(opens_us / 1_000).min(now.plus_ms(HELD_FAR_MS)), by, n_changes);
        }
        self.look();
    }
}
