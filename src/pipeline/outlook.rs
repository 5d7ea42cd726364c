//! Why a broadcast is not faster, and when it will be through: what is stored of relays, pace, workers and waiting chunks, put
//! together. Only looks; cheap enough to be asked every second.

use crate::domain::brake::{self, Brake, BrakeKind};
use crate::domain::broadcast::{Broadcast, BroadcastStatus};
use crate::domain::ledger::PaceRow;
use crate::domain::outlook::{Rest, eta_ms};
use crate::domain::relay::Relay;
use crate::domain::time::Timestamp;
use crate::domain::worker::Worker;
use crate::pipeline::outlet::Outlet;
use crate::store::reports::{Rate, Waiting};
use crate::store::{Result, Store};

/// How a broadcast goes on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outlook {
    /// The one limit that binds now; `None` while none is known, and when nothing is to be sent now.
    pub slowed_by: Option<Brake>,
    /// Milliseconds until the end; `None` when nobody can say.
    pub eta_ms: Option<i64>,
}

/// Looks at what stands in the way of a broadcast.
///
/// # Errors
/// When the database does not answer.
pub async fn outlook(store: &dyn Store, broadcast: &Broadcast, rate: Rate, now: Timestamp) -> Result<Outlook> {
    let n = broadcast.counts.queued + broadcast.counts.deferred;
    let is_under_way =
        matches!(broadcast.status, BroadcastStatus::Accepted | BroadcastStatus::FanningOut | BroadcastStatus::Sending);
    if !is_under_way || (n == 0 && broadcast.status == BroadcastStatus::Sending) {
        return Ok(Outlook::default());
    }
    let workers = store.workers(now).await?;
    let outlet = Outlet::read(store).await?;
    let relays: &[Relay] = match &outlet {
        Outlet::Relays(relays) => relays,
        Outlet::Captured | Outlet::Waits => &[],
    };
    let paces = store.paces().await?;
    let waiting = store.waiting(&broadcast.id).await?;
    let own = |relay: &Relay| paces.iter().find(|p| p.relay_id == relay.id && p.lane.is_empty());
    let known: Vec<(&Relay, Option<&PaceRow>)> = relays.iter().map(|r| (r, own(r))).collect();
    let named = broadcast.relay.as_deref();
    // The capture relay takes everything.
    let is_capture = named.is_none() && outlet.is_captured();
    let standstill = (!is_capture).then(|| brake::standstill(named, &known, now)).flatten();
    let slowed_by = no_worker(&workers)
        .or(standstill)
        .or_else(|| waits(broadcast, &waiting, now))
        .or_else(|| reported(&workers, named));
    let is_stopped = slowed_by
        .as_ref()
        .is_some_and(|b| b.until.is_none() && b.kind.is_full_stop());
    let all_wait = waiting.n_active == 0 && broadcast.status == BroadcastStatus::Sending;
    let rest = Rest {
        n,
        per_sec: Some(rate.per_sec),
        not_before: waiting.until.filter(|_| all_wait).unwrap_or(now),
    };
    let carriers: Vec<_> = known
        .into_iter()
        .filter(|(r, _)| named.is_none_or(|name| name == r.name))
        .collect();
    let is_counted = broadcast.status == BroadcastStatus::Sending || rate.per_sec > 0.0;
    Ok(Outlook {
        eta_ms: (is_counted && !is_stopped)
            .then(|| eta_ms(&rest, &carriers, now))
            .flatten(),
        slowed_by,
    })
}

fn no_worker(workers: &[Worker]) -> Option<Brake> {
    let none = !workers.iter().any(|w| w.state == "live");
    none.then(|| Brake::at_large(BrakeKind::NoWorker, "no worker is running; start one with hikyaku worker", None))
}

/// What all chunks of a broadcast wait for.
fn waits(broadcast: &Broadcast, waiting: &Waiting, now: Timestamp) -> Option<Brake> {
    let until = waiting.until.filter(|at| *at > now)?;
    if waiting.n_active > 0 {
        return None;
    }
    Some(match &waiting.by {
        Some(by) => by.clone(),
        None => {
            let n = broadcast.counts.deferred;
            let why = format!("what is left was deferred by a relay ({n} messages) and waits for its next attempt");
            Brake::at_large(BrakeKind::Retries, why, Some(until))
        }
    })
}

/// What the workers say that holds them up: whatever most of them say.
fn reported(workers: &[Worker], named: Option<&str>) -> Option<Brake> {
    let fits = |b: &&Brake| !b.kind.is_full_stop() && named.is_none_or(|name| b.relay.as_deref() == Some(name));
    let live = workers.iter().filter(|w| w.state == "live" && w.jobs > 0);
    let said: Vec<&Brake> = live.flat_map(|w| &w.stats.brakes).filter(fits).collect();
    let votes = |brake: &Brake| {
        said.iter()
            .filter(|b| (b.kind, &b.relay) == (brake.kind, &brake.relay))
            .count()
    };
    said.iter().copied().max_by_key(|b| votes(b)).cloned()
}
