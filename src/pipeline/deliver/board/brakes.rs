//! What keeps the messages at hand from going faster, as the board sees it. Only looks.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Board, Port, State};
use crate::domain::brake::{Brake, BrakeKind};

/// Lanes of one relay that are told of, those with the most messages first: enough to see what is slow.
const LANES_TOLD: usize = 3;

impl Board {
    /// What keeps mail from going faster, by relay; nothing where a connection waits for work.
    #[must_use]
    pub fn brakes(&self) -> Vec<Brake> {
        let now_us = self.clock.now().0 * 1_000;
        let mut state = self.state();
        let mut brakes = Vec::new();
        for at in 0..state.ports.len() {
            let mut lanes = HashMap::new();
            for run in &state.runs {
                if state.is_for(at, run.prepared.relay.as_deref()) {
                    run.count_lanes(&mut lanes);
                }
            }
            let mut lanes: Vec<(Arc<str>, usize)> = lanes.into_iter().filter(|(_, n)| *n > 0).collect();
            if lanes.is_empty() {
                continue;
            }
            lanes.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            brakes.extend(of_port(&mut state.ports[at], &lanes, now_us));
        }
        brakes
    }
}

/// A relay whose connections are all busy is held up by nothing else.
fn of_port(port: &mut Port, lanes: &[(Arc<str>, usize)], now_us: i64) -> Vec<Brake> {
    if !port.is_shut() && port.waiters.is_empty() {
        let why = format!("each of its {} connections is busy", port.terms.connections);
        return vec![Brake::on_relay(BrakeKind::ConnectionsBusy, &port.terms.name, why, None)];
    }
    if let Some(brake) = port.brake(now_us) {
        return vec![brake];
    }
    let of_lanes = lanes.iter().filter_map(|(lane, _)| port.lane_brake(lane, now_us));
    of_lanes.take(LANES_TOLD).collect()
}

impl State {
    /// What holds messages of a lane, with the relay that opens first.
    pub(super) fn held_by(
        &mut self,
        carriers: &[usize],
        named: Option<&str>,
        lane: Option<&Arc<str>>,
        now_us: i64,
    ) -> Brake {
        let first = carriers
            .iter()
            .copied()
            .min_by_key(|at| lane.map_or(0, |lane| self.ports[*at].opens_at(lane)));
        let brake = first.zip(lane).and_then(|(at, lane)| {
            let port = &mut self.ports[at];
            port.brake(now_us).or_else(|| port.lane_brake(lane, now_us))
        });
        brake.unwrap_or_else(|| {
            let why = match named {
                Some(name) => format!("there is no relay {name}"),
                None => "no relay takes mail".to_owned(),
            };
            Brake::at_large(BrakeKind::NoRelay, why, None)
        })
    }
}
