//! Weights while there is more mail than connections: who is ahead of its share waits for the others, as long as they keep up. A relay
//! that is very much slower than the fastest is not waited for: it takes what it can. Never gives a message to anybody.

use super::State;

/// A relay may be this many messages ahead of its share: enough for several connections to be served at once.
const AHEAD_MAX: f64 = 8.0;
/// A relay that takes this many times longer for a message than the fastest is not waited for: its share would cost the others
/// nearly all their speed.
const SLOWER_MAX: f64 = 10.0;
/// Who waits for another relay looks again after this, in microseconds: it may have got stuck.
pub(super) const LOOK_AGAIN_US: i64 = 5_000;

impl State {
    /// Whether weights have to be looked at: somebody has said that relays should not share equally. Shares count from a change on.
    pub(super) fn note_weights(&mut self) {
        let weights: Vec<u32> = self.ports.iter().map(|p| p.terms.weight).collect();
        if weights == self.weights {
            return;
        }
        let mut some = weights.iter().filter(|w| **w > 0);
        let first = some.next();
        self.is_weighed = some.any(|w| Some(w) != first);
        self.weights = weights;
        let pass = self.ports.iter().map(|p| p.pass).fold(0.0, f64::max);
        self.ports.iter_mut().for_each(|p| p.pass = pass);
    }

    /// Whether a relay has to wait with messages that any may take, since another one has had too little.
    pub(super) fn is_ahead(&self, at: usize) -> bool {
        if !self.is_weighed || self.ports[at].terms.weight == 0 {
            return false;
        }
        let fastest = self
            .ports
            .iter()
            .filter_map(|p| p.us_per_message())
            .fold(f64::INFINITY, f64::min);
        let port = &self.ports[at];
        let line = port.pass - AHEAD_MAX / f64::from(port.terms.weight);
        self.ports
            .iter()
            .enumerate()
            .any(|(other, p)| other != at && p.pass < line && self.keeps_up(other, fastest))
    }

    /// Whether a relay takes messages as fast as it can, and not too slowly.
    fn keeps_up(&self, at: usize, fastest_us: f64) -> bool {
        let port = &self.ports[at];
        let is_sated = !port.waiters.is_empty() && port.fruitless == Some(self.changes);
        let is_slow = port
            .us_per_message()
            .is_some_and(|us| us > SLOWER_MAX * fastest_us.max(1.0));
        port.is_open() && port.terms.weight > 0 && !is_sated && !is_slow
    }

    /// A relay took a message. Those that do not keep up gain no claim meanwhile.
    pub(super) fn note_take(&mut self, at: usize) {
        if !self.is_weighed {
            return;
        }
        let pass = self.ports[at].pass;
        let fastest = self
            .ports
            .iter()
            .filter_map(|p| p.us_per_message())
            .fold(f64::INFINITY, f64::min);
        for other in 0..self.ports.len() {
            if other != at && self.ports[other].pass < pass && !self.keeps_up(other, fastest) {
                self.ports[other].pass = pass;
            }
        }
    }
}
