//! Why a port, or a lane of it, takes no message now, in words. Changes nothing but permits whose moment is over.

use std::sync::Arc;

use super::terms::Door;
use super::{Learnt, Port};
use crate::domain::brake::{self, Brake, BrakeKind};
use crate::domain::ledger::Span;

impl Port {
    /// What keeps the relay as a whole from taking a message now.
    pub fn brake(&mut self, now_us: i64) -> Option<Brake> {
        if let Door::Shut(brake) = &self.terms.door {
            return Some(brake.clone());
        }
        let bucket = self.bucket.as_mut()?;
        if bucket.due(now_us).is_ok() {
            return None;
        }
        let name = &self.terms.name;
        let on = |kind, why: String, until| Some(Brake::on_relay(kind, name, why, until));
        match bucket.used_up {
            Some((Span::Day, end)) => {
                let kind = self.terms.day_kind;
                on(kind, brake::used_up(kind, bucket.quota.per_day.unwrap_or(0)), Some(end))
            }
            Some((Span::Hour, end)) => {
                let kind = BrakeKind::HourLimit;
                on(kind, brake::used_up(kind, bucket.quota.per_hour.unwrap_or(0)), Some(end))
            }
            None if self.terms.learnt.permille < 1_000 => {
                on(BrakeKind::RelaySlowed, self.terms.learnt.in_words(bucket.quota.period_us), None)
            }
            None => {
                let per_sec = self.terms.limits.per_sec?;
                on(BrakeKind::SecondLimit, format!("its limit is {per_sec} messages a second"), None)
            }
        }
    }

    /// As [`Port::brake`], for messages of one lane.
    pub fn lane_brake(&mut self, lane: &Arc<str>, now_us: i64) -> Option<Brake> {
        let learnt = self.terms.learnt_lanes.get(&**lane).cloned().unwrap_or(Learnt::NOTHING);
        let name = Arc::clone(&self.terms.name);
        let on = |kind, why: String, until| Some(Brake::on_relay(kind, &name, why, until).on_lane(lane));
        let gate = self.gate(lane)?;
        if let Some(until) = gate.suspended_until.filter(|at| at.0 * 1_000 > now_us) {
            let why = learnt.reason.as_deref().unwrap_or("it asked for less").to_owned();
            return on(BrakeKind::LaneSuspended, why, Some(until));
        }
        let cap = gate.cap.map(usize::from);
        if cap.is_some_and(|cap| gate.holders.0.len() >= cap) {
            let why = format!("each of the {} connections it may have is busy", gate.holders.0.len());
            return on(BrakeKind::LaneConnections, why, None);
        }
        let bucket = gate.bucket.as_mut()?;
        if bucket.due(now_us).is_ok() {
            return None;
        }
        match (bucket.used_up, bucket.quota.period_us) {
            (Some((Span::Day, end)), _) => {
                let limit = bucket.quota.per_day.unwrap_or(0);
                on(BrakeKind::LaneLimit, format!("the limit of {limit} messages a day is used up"), Some(end))
            }
            (Some((Span::Hour, end)), _) => {
                let limit = bucket.quota.per_hour.unwrap_or(0);
                on(BrakeKind::LaneLimit, format!("the limit of {limit} messages an hour is used up"), Some(end))
            }
            (None, period) if learnt.permille < 1_000 => on(BrakeKind::LaneSlowed, learnt.in_words(period), None),
            (None, Some(period)) => {
                let limit = 1_000_000 / period.max(1);
                on(BrakeKind::LaneLimit, format!("the limit is {limit} messages a second"), None)
            }
            (None, None) => None,
        }
    }
}
