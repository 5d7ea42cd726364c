//! What a port goes by: what is said about its relay, and what was learnt from refusals. Never counts anything.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::brake::{Brake, BrakeKind};
use crate::domain::ledger::period_us;
use crate::domain::relay::{LaneLimit, Limits};
use crate::domain::time::Timestamp;
use crate::pipeline::deliver::permits::Quota;

/// Whether a relay takes mail now.
#[derive(Debug, Clone, PartialEq)]
pub enum Door {
    Open,
    /// One message at a time, to see whether it works again.
    Probe,
    Shut(Brake),
}

/// What is said and known about a relay, as its port needs it.
#[derive(Debug, Clone)]
pub struct Terms {
    pub relay_id: i64,
    pub name: Arc<str>,
    pub weight: u32,
    pub connections: u16,
    pub limits: Limits,
    /// Of the day, and whether warming up or a limit says so.
    pub per_day: Option<u32>,
    pub day_kind: BrakeKind,
    pub lanes: Vec<LaneLimit>,
    /// Of the relay itself.
    pub learnt: Learnt,
    pub learnt_lanes: HashMap<String, Learnt>,
    pub door: Door,
}

/// What was learnt from refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learnt {
    pub permille: i64,
    pub base_us: i64,
    pub suspended_until: Option<Timestamp>,
    /// What was said.
    pub reason: Option<Arc<str>>,
}

impl Learnt {
    pub const NOTHING: Self = Self {
        permille: 1_000,
        base_us: 0,
        suspended_until: None,
        reason: None,
    };

    pub(super) fn quota(&self, limits: Limits, per_day: Option<u32>) -> Quota {
        let mut period = limits.per_sec.map(period_us);
        if self.permille < 1_000 {
            let base = period.unwrap_or(0).max(self.base_us).max(1);
            period = Some(base * 1_000 / self.permille.max(1));
        }
        Quota {
            period_us: period,
            per_hour: limits.per_hour.map(i64::from),
            per_day: per_day.map(i64::from),
        }
    }

    /// What the pace is now, and why.
    pub(super) fn in_words(&self, period_us: Option<i64>) -> String {
        let pace = match 1_000_000.0 / period_us.unwrap_or(1).max(1) as f64 {
            per_sec if per_sec < 10.0 => format!("{per_sec:.1}"),
            per_sec => format!("{per_sec:.0}"),
        };
        let why = self.reason.as_deref().unwrap_or("it asked for less");
        format!("the pace is lowered to {pace} a second for now: {why}")
    }

    pub(super) fn cap(&self, connections: Option<u16>, all: u16) -> Option<u16> {
        if self.permille >= 1_000 {
            return connections;
        }
        let of = i64::from(connections.unwrap_or(all));
        Some(u16::try_from((of * self.permille / 1_000).max(1)).unwrap_or(u16::MAX))
    }
}
