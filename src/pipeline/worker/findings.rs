//! What the connections of this worker find out about relays, to the database and back to all workers. Never speaks to a relay.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use crate::domain::finding::{Finding, FindingKind};
use crate::domain::relay::Relay as Said;
use crate::domain::time::Timestamp;
use crate::pipeline::deliver::Relay;
use crate::pipeline::deliver::allowances::{Discovery, Known};
use crate::store::Result;
use crate::store::findings::Found;
use crate::store::pacing::RelayAt;

/// Another worker's trial is looked after again when it is this old: whether that worker still lives is asked then, and not each second.
const TRIAL_LOOK_MS: i64 = 10_000;

/// What was found out and is not in the database yet.
pub(super) struct Findings {
    shared: Arc<Shared>,
    unwritten: Vec<(RelayAt, Found)>,
}

impl Findings {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            unwritten: Vec::new(),
        }
    }

    /// Takes what a connection found out about this relay.
    pub async fn found(&mut self, said: &Said, relay: &Relay, discovery: Discovery) {
        let workers = self.shared.n_live.load(Ordering::Relaxed).max(1);
        let value = match discovery.kind {
            // The others have as many.
            FindingKind::Connections => discovery.value.map(|n| n * workers),
            _ => discovery.value,
        };
        self.unwritten.push((
            at(said),
            Found {
                kind: discovery.kind,
                address: relay.config.address(),
                value,
                words: discovery.words,
            },
        ));
        self.write().await;
    }

    /// Writes down what is not written yet. What cannot be written now is kept.
    pub async fn write(&mut self) {
        for (relay, found) in std::mem::take(&mut self.unwritten) {
            let now = self.shared.deps.clock.now();
            if let Err(error) = self.shared.deps.store.write_finding(relay, &found, now).await {
                tracing::warn!(%error, relay.id = relay.id, "What was found out about a relay waits for the database");
                self.unwritten.push((relay, found));
            }
        }
    }

    /// Makes what all workers know hold for the connections to this relay.
    ///
    /// # Errors
    /// Of the store.
    pub async fn apply(&self, said: &Said, relay: &Relay, all: &[Finding], now: Timestamp) -> Result<()> {
        let config = &relay.config;
        for (kind, is_wanted) in [
            (FindingKind::Flights, config.pipelining),
            (FindingKind::Windows, config.pipelining && config.chunking > 0),
        ] {
            // A window is a flight as well: one trial at a time, so that one message at most comes into doubt.
            let is_its_turn =
                kind == FindingKind::Flights || relay.allowances.known(FindingKind::Flights) == Known::Taken;
            if is_wanted && is_its_turn && !self.is_unwritten(said.id, kind) {
                let known = self.known(said, relay, find(all, said.id, kind), kind, now).await?;
                relay.allowances.learn(kind, known);
            }
        }
        if self.is_unwritten(said.id, FindingKind::SessionMessages)
            || self.is_unwritten(said.id, FindingKind::Connections)
        {
            return Ok(());
        }
        let limit = |kind| {
            let value = find(all, said.id, kind).and_then(|f| f.value_at(&config.address(), now));
            value.and_then(|n| u32::try_from(n).ok())
        };
        let workers = u32::try_from(self.shared.n_live.load(Ordering::Relaxed))
            .unwrap_or(1)
            .max(1);
        let own = u32::from(config.connections);
        let places = limit(FindingKind::Connections).map_or(own, |all| own.min(all / workers));
        relay.allowances.limit(limit(FindingKind::SessionMessages), places);
        Ok(())
    }

    /// What is known of a liberty; where nothing is, one worker of all tries it: one that has mail for the relay.
    async fn known(
        &self,
        said: &Said,
        relay: &Relay,
        finding: Option<&Finding>,
        kind: FindingKind,
        now: Timestamp,
    ) -> Result<Known> {
        let (shared, address) = (&self.shared, relay.config.address());
        let here = finding.filter(|f| f.address == address);
        match here.and_then(|f| f.value_at(&address, now)) {
            Some(1..) => return Ok(Known::Taken),
            Some(_) => return Ok(Known::Refused),
            None => {}
        }
        let is_alone = shared.n_live.load(Ordering::Relaxed) <= 1;
        let has_work = is_alone || shared.board.has_work_for(said.id);
        let trial = here.filter(|f| f.value.is_none());
        let store = &shared.deps.store;
        match trial.map(|t| (t.trial_worker == Some(shared.id()), now - t.found_at)) {
            Some((true, _)) if has_work || relay.allowances.is_on_the_wire(kind) => Ok(Known::OnTrial),
            Some((true, _)) => {
                store.give_up_trial(said.id, kind, shared.id()).await?;
                Ok(Known::Nothing)
            }
            Some((false, age_ms)) if age_ms < TRIAL_LOOK_MS => Ok(Known::Nothing),
            _ if !has_work => Ok(Known::Nothing),
            _ => match store.try_out(at(said), kind, &address, shared.id(), now).await? {
                true => Ok(Known::OnTrial),
                false => Ok(Known::Nothing),
            },
        }
    }

    fn is_unwritten(&self, relay_id: i64, kind: FindingKind) -> bool {
        self.unwritten
            .iter()
            .any(|(relay, found)| relay.id == relay_id && found.kind == kind)
    }
}

fn at(said: &Said) -> RelayAt {
    RelayAt {
        id: said.id,
        version: said.version,
    }
}

fn find(all: &[Finding], relay_id: i64, kind: FindingKind) -> Option<&Finding> {
    all.iter().find(|f| f.relay_id == relay_id && f.kind == kind)
}
