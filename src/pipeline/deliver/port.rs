//! What the board knows of one relay: whether it takes mail now, its permits, its lanes, and the connections that wait for a
//! message. Never holds a message and never asks the database: others bring it what they learnt.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use self::meters::{Busy, Meter};
pub use self::terms::{Door, Learnt, Terms};
use super::board::Item;
use super::permits::{Bucket, Quota};
use crate::domain::ledger::Ask;
use crate::domain::relay::{EVERY_LANE, LaneLimit, Limits};
use crate::domain::time::Timestamp;

mod brake;
mod meters;
mod terms;

/// Lanes asked for in one transaction: it stays in the milliseconds, and the others have their turn with the next one.
const ASKS_MAX: usize = 500;
/// Lanes remembered for one relay before those that nobody uses are forgotten.
const LANES_KEPT: usize = 4_096;

/// One connection slot of one relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    pub relay_id: i64,
    pub slot: u64,
}

/// Who carries messages under a cap at the moment.
#[derive(Debug, Default)]
struct Holders(Vec<(u64, u32)>);

impl Holders {
    fn may_add(&self, slot: u64, cap: Option<u16>) -> bool {
        cap.is_none_or(|cap| self.0.len() < usize::from(cap) || self.0.iter().any(|(s, _)| *s == slot))
    }

    fn add(&mut self, slot: u64) {
        match self.0.iter_mut().find(|(s, _)| *s == slot) {
            Some((_, n)) => *n += 1,
            None => self.0.push((slot, 1)),
        }
    }

    fn remove(&mut self, slot: u64) {
        if let Some((_, n)) = self.0.iter_mut().find(|(s, _)| *s == slot) {
            *n -= 1;
        }
        self.0.retain(|(_, n)| *n > 0);
    }
}

/// The permits that a message took, and when, in microseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permits {
    of_relay: bool,
    of_lane: bool,
    at_us: i64,
}

/// A lane that has a limit on this relay, or was slowed down.
struct Gate {
    bucket: Option<Bucket>,
    cap: Option<u16>,
    suspended_until: Option<Timestamp>,
    holders: Holders,
}

/// A connection that waits for a message.
pub(super) struct Waiter {
    pub seat: Seat,
    pub answer: oneshot::Sender<Item>,
}

/// A relay on the board.
pub(super) struct Port {
    pub terms: Terms,
    bucket: Option<Bucket>,
    cap: Option<u16>,
    holders: Holders,
    gates: HashMap<Arc<str>, Gate>,
    meters: HashMap<Arc<str>, Meter>,
    pub waiters: VecDeque<Waiter>,
    /// Rises by 1 ÷ weight with every message: whoever is lowest goes first.
    pub pass: f64,
    /// The state of the board in which nothing fitted.
    pub fruitless: Option<u64>,
    /// When something may fit that did not, in microseconds since the epoch.
    pub opens_us: Option<i64>,
    probe_out: bool,
    is_capped: bool,
    /// Whether it waits for others to have their share.
    pub is_ahead: bool,
    busy: Busy,
}

impl Port {
    pub fn new(terms: Terms, pass: f64) -> Self {
        let mut port = Self {
            terms: Terms {
                door: Door::Open,
                ..terms.clone()
            },
            bucket: None,
            cap: None,
            holders: Holders::default(),
            gates: HashMap::new(),
            meters: HashMap::new(),
            waiters: VecDeque::new(),
            pass,
            fruitless: None,
            opens_us: None,
            probe_out: false,
            is_capped: false,
            is_ahead: false,
            busy: Busy::default(),
        };
        port.learn(terms);
        port
    }

    /// Takes what is said about the relay now.
    pub fn learn(&mut self, terms: Terms) {
        let quota = terms.learnt.quota(terms.limits, terms.per_day);
        requote(&mut self.bucket, quota);
        self.cap = terms.learnt.cap(None, terms.connections);
        if terms.door != Door::Probe {
            self.probe_out = false;
        }
        self.is_capped = self.cap.is_some()
            || terms.door == Door::Probe
            || !terms.learnt_lanes.is_empty()
            || terms.lanes.iter().any(|rule| rule.connections.is_some());
        self.terms = terms;
        let mut gates = std::mem::take(&mut self.gates);
        for (lane, gate) in &mut gates {
            let (quota, cap, suspended_until) = self.rules_of(lane);
            requote(&mut gate.bucket, quota);
            (gate.cap, gate.suspended_until) = (cap, suspended_until);
        }
        gates.retain(|lane, gate| !gate.holders.0.is_empty() || self.has_rules(lane));
        if gates.len() > LANES_KEPT {
            gates.retain(|_, gate| !gate.holders.0.is_empty());
        }
        self.gates = gates;
        if self.meters.len() > LANES_KEPT {
            self.meters.clear();
        }
        self.fruitless = None;
    }

    pub fn is_open(&self) -> bool {
        match self.terms.door {
            Door::Open => true,
            Door::Probe => !self.probe_out,
            Door::Shut(_) => false,
        }
    }

    pub fn is_limited(&self) -> bool {
        self.bucket.is_some() || !self.terms.lanes.is_empty() || !self.terms.learnt_lanes.is_empty()
    }

    /// Whether the relay as a whole takes one more message from this slot.
    pub fn admits(&mut self, slot: u64, now_us: i64) -> bool {
        if !self.is_open() || !self.holders.may_add(slot, self.cap) {
            return false;
        }
        match self.bucket.as_mut().map(|b| b.due(now_us)) {
            Some(Err(at)) => {
                self.note_opening(at);
                false
            }
            _ => true,
        }
    }

    /// Whether a message of this lane may go.
    pub fn fits(&mut self, lane: &Arc<str>, slot: u64, now_us: i64) -> bool {
        if self.terms.lanes.is_empty() && self.terms.learnt_lanes.is_empty() {
            return true;
        }
        let opening = match self.gate(lane) {
            None => return true,
            Some(gate) => {
                if gate.suspended_until.is_some_and(|at| at.0 * 1_000 > now_us) {
                    gate.suspended_until.map(|at| at.0 * 1_000)
                } else if !gate.holders.may_add(slot, gate.cap) {
                    None
                } else {
                    match gate.bucket.as_mut().map(|b| b.due(now_us)) {
                        Some(Err(at)) => at,
                        _ => return true,
                    }
                }
            }
        };
        self.note_opening(opening);
        false
    }

    /// A message of this lane goes with this slot. Its end is reported by [`Port::release`].
    pub fn take(&mut self, lane: &Arc<str>, slot: u64, now_us: i64) -> Permits {
        self.pass += 1.0 / f64::from(self.terms.weight.max(1));
        self.meters
            .entry(Arc::clone(lane))
            .or_insert(Meter::at(now_us))
            .count(now_us);
        let mut permits = Permits {
            of_relay: false,
            of_lane: false,
            at_us: now_us,
        };
        if let Some(bucket) = &mut self.bucket {
            bucket.take();
            permits.of_relay = true;
        }
        let is_probe = self.terms.door == Door::Probe;
        self.probe_out |= is_probe;
        self.holders.add(slot);
        self.busy.begun();
        if let Some(gate) = self.gates.get_mut(lane) {
            if let Some(bucket) = &mut gate.bucket {
                bucket.take();
                permits.of_lane = true;
            }
            gate.holders.add(slot);
        }
        permits
    }

    /// A message was not sent after all.
    pub fn return_permits(&mut self, lane: &Arc<str>, permits: &Permits, now_us: i64) {
        if let Some(bucket) = self.bucket.as_mut().filter(|_| permits.of_relay) {
            bucket.put_back(permits.at_us, now_us);
        }
        let gate = self.gates.get_mut(lane).filter(|_| permits.of_lane);
        if let Some(bucket) = gate.and_then(|gate| gate.bucket.as_mut()) {
            bucket.put_back(permits.at_us, now_us);
        }
    }

    /// A message of this lane is off this slot's hands.
    pub fn release(&mut self, lane: &Arc<str>, slot: u64, held: Duration) {
        self.holders.remove(slot);
        self.busy.ended(held);
        self.probe_out = false;
        if let Some(gate) = self.gates.get_mut(lane) {
            gate.holders.remove(slot);
        }
    }

    /// Whether the end of a message may let another one go.
    pub fn has_caps(&self) -> bool {
        self.is_capped
    }

    /// When a message of this lane may go, in microseconds since the epoch: 0 is now or soon.
    pub fn opens_at(&mut self, lane: &Arc<str>) -> i64 {
        if let Door::Shut(brake) = &self.terms.door {
            return brake.until.map_or(i64::MAX, |at| at.0 * 1_000);
        }
        let of_relay = self.bucket.as_ref().map_or(0, Bucket::opens_us);
        let Some(gate) = self.gate(lane) else {
            return of_relay;
        };
        let suspended = gate.suspended_until.map_or(0, |at| at.0 * 1_000);
        let of_lane = gate.bucket.as_ref().map_or(0, Bucket::opens_us);
        of_relay.max(suspended).max(of_lane)
    }

    /// What to ask of the ledger: `waiting` says how many messages of each lane wait, `all` how many in all.
    pub fn asks(&mut self, waiting: &HashMap<Arc<str>, usize>, all: usize, now_us: i64) -> Vec<Ask> {
        let mut asks = Vec::new();
        if !self.is_open() {
            return asks;
        }
        let free = self.waiters.len();
        asks.extend(self.bucket.as_mut().and_then(|b| b.ask("", all, free, now_us)));
        if self.terms.lanes.is_empty() && self.terms.learnt_lanes.is_empty() {
            return asks;
        }
        for (lane, n) in waiting {
            if asks.len() >= ASKS_MAX {
                break;
            }
            let gate = self.gate(lane);
            asks.extend(
                gate.and_then(|g| g.bucket.as_mut())
                    .and_then(|b| b.ask(lane, *n, free, now_us)),
            );
        }
        asks
    }

    /// The bucket of a lane, or of the relay itself (`""`).
    pub fn bucket(&mut self, lane: &str) -> Option<&mut Bucket> {
        if lane.is_empty() {
            self.bucket.as_mut()
        } else {
            self.gates.get_mut(lane).and_then(|g| g.bucket.as_mut())
        }
    }

    /// What was not used and counts in an hour or a day.
    pub fn leftovers(&mut self, now_us: i64) -> Vec<Ask> {
        let own = self.bucket.as_mut().and_then(|b| b.leftover("", now_us));
        let lanes = self.gates.iter_mut();
        let of_lanes = lanes.filter_map(|(lane, gate)| gate.bucket.as_mut().and_then(|b| b.leftover(lane, now_us)));
        own.into_iter().chain(of_lanes).collect()
    }

    /// Microseconds between two messages of a lane (or of the whole relay) from this worker at present.
    pub fn measured_us(&self, lane: &str, now_us: i64) -> Option<i64> {
        if lane.is_empty() {
            let per_us: f64 = self.meters.values().map(|m| m.per_us(now_us)).sum();
            (per_us > 0.0).then(|| (1.0 / per_us) as i64)
        } else {
            self.meters.get(lane).map(|m| (1.0 / m.per_us(now_us)) as i64)
        }
    }

    pub fn is_shut(&self) -> bool {
        matches!(self.terms.door, Door::Shut(_))
    }

    /// Microseconds from one message to the next at full load; `None` while that is not known.
    pub fn us_per_message(&self) -> Option<f64> {
        self.busy.us().map(|us| us / f64::from(self.terms.connections.max(1)))
    }

    pub(super) fn note_opening(&mut self, at: Option<i64>) {
        self.opens_us = match (self.opens_us, at) {
            (Some(known), Some(at)) => Some(known.min(at)),
            (known, at) => known.or(at),
        };
    }

    fn gate(&mut self, lane: &Arc<str>) -> Option<&mut Gate> {
        if !self.gates.contains_key(lane) {
            if !self.has_rules(lane) {
                return None;
            }
            let (quota, cap, suspended_until) = self.rules_of(lane);
            let mut bucket = None;
            requote(&mut bucket, quota);
            let gate = Gate {
                bucket,
                cap,
                suspended_until,
                holders: Holders::default(),
            };
            self.gates.insert(Arc::clone(lane), gate);
        }
        self.gates.get_mut(lane)
    }

    fn rule(&self, lane: &str) -> Option<&LaneLimit> {
        self.terms
            .lanes
            .iter()
            .find(|rule| rule.lane == lane || rule.lane == EVERY_LANE)
    }

    fn has_rules(&self, lane: &str) -> bool {
        self.rule(lane).is_some() || self.terms.learnt_lanes.contains_key(lane)
    }

    fn rules_of(&self, lane: &str) -> (Quota, Option<u16>, Option<Timestamp>) {
        let rule = self.rule(lane);
        let learnt = self.terms.learnt_lanes.get(lane).unwrap_or(&Learnt::NOTHING);
        let limits = rule.map_or(Limits::default(), |r| r.limits);
        let cap = learnt.cap(rule.and_then(|r| r.connections), self.terms.connections);
        (learnt.quota(limits, limits.per_day), cap, learnt.suspended_until)
    }
}

/// A changed quota begins without permits: those at hand were dealt out under the old one, and are given back.
fn requote(bucket: &mut Option<Bucket>, quota: Quota) {
    match bucket {
        _ if quota.is_none() => *bucket = None,
        Some(old) if old.quota == quota => {}
        Some(old) => *bucket = Some(Bucket::instead_of(old, quota)),
        None => *bucket = Some(Bucket::of(quota)),
    }
}
