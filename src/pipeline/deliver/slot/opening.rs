//! Opening a connection: what it means to be let in, to be one too many, and not to be let in. Never carries a message.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::super::News;
use super::super::allowances::Discovery;
use super::super::board::Item;
use super::super::fate;
use super::{Connection, FAILURES_MAX, Slot};
use crate::domain::brake::{Brake, BrakeKind};
use crate::domain::finding::FindingKind;
use crate::smtp::failure::Failure;

impl Slot {
    /// The open connection, or a new one. `None` when the relay does not let us in: the message was put back
    /// and this slot has waited.
    pub(super) async fn connected(&mut self, item: &Item) -> Option<Connection> {
        let session_max = self.deps.relay.allowances.session_max();
        if let Some(mut connection) = self.connection.take() {
            session_max.inspect(|n| connection.limit_messages(*n));
            if connection.is_usable() && connection.check_idle().await.is_ok() {
                return Some(connection);
            }
            self.connection = Some(connection);
            self.close().await;
        }
        let deps = Arc::clone(&self.deps);
        let is_first = !std::mem::replace(&mut self.has_opened, true);
        let open = async {
            if !is_first {
                deps.relay.opening.ready().await;
            }
            let _opening = deps.relay.allowances.opening();
            Connection::open(&deps.relay.config, &deps.relay.tls).await
        };
        let opened = tokio::select! {
            biased;
            opened = open => opened,
            () = deps.stop.cancelled() => {
                self.put_back(item);
                return None;
            }
        };
        match opened {
            Ok(mut connection) => {
                session_max.inspect(|n| connection.limit_messages(*n));
                self.deps.relay.opened();
                self.heed_offers(&connection);
                self.let_in();
                Some(connection)
            }
            Err(failure) if self.is_one_too_many(&failure) => {
                self.put_back(item);
                // The slots with a connection go on; this one waits until there is a place.
                self.place = None;
                self.pause().await;
                None
            }
            Err(failure) => {
                self.not_let_in(&failure);
                self.put_back(item);
                self.back_off(&failure).await;
                None
            }
        }
    }

    /// The relay let us in: whatever failed before is over.
    fn let_in(&self) {
        let relay = &self.deps.relay;
        relay.n_failed.store(0, Ordering::Relaxed);
        if relay.is_failing.swap(false, Ordering::Relaxed) {
            self.tell(News::Works {
                relay_id: relay.id,
                crew: relay.crew,
            });
        }
    }

    /// The relay let others in, and takes their mail, and not this one: it may be one connection too many.
    fn is_one_too_many(&self, failure: &Failure) -> bool {
        let relay = &self.deps.relay;
        let (is_open, is_opening) = relay.allowances.in_use();
        if !(is_open || is_opening) || !fate::may_be_one_too_many(failure) {
            return false;
        }
        let is_said = fate::speaks_of_connections(failure);
        // A relay that goes down hangs up on all; one that is full takes the others' mail.
        if !is_said && !is_opening && !relay.took_lately() {
            return false;
        }
        let turned_away = relay
            .allowances
            .turned_away(is_said, &failure.to_string(), Instant::now(), relay.taken_at());
        if let Some(discovery) = turned_away {
            self.tell_discovery(discovery);
        }
        true
    }

    /// What the relay announces may leave nothing to try.
    fn heed_offers(&self, connection: &Connection) {
        let allowances = &self.deps.relay.allowances;
        if !connection.offers_pipelining()
            && let Some(discovery) = allowances.not_announced(FindingKind::Flights, "it does not announce PIPELINING")
        {
            self.tell_discovery(discovery);
        }
        if !connection.offers_chunking()
            && let Some(discovery) =
                allowances.not_announced(FindingKind::Windows, "it does not announce CHUNKING with PIPELINING")
        {
            self.tell_discovery(discovery);
        }
    }

    /// A fresh connection has taken the message that the last one did not: that one had come to its end.
    pub(super) fn confirm_session_end(&mut self) {
        let Some(end) = self.session_end.take() else { return };
        let allowances = &self.deps.relay.allowances;
        if let Some(discovery) = allowances.session_ended(end.n, end.is_said, &end.words) {
            self.tell_discovery(discovery);
        }
    }

    pub(super) fn tell_discovery(&self, discovery: Discovery) {
        let relay = &self.deps.relay;
        tracing::info!(relay = %relay.name, kind = %discovery.kind, value = discovery.value, words = discovery.words, "Found out about a relay");
        self.tell(News::Found {
            relay_id: relay.id,
            crew: relay.crew,
            discovery,
        });
    }

    /// The relay did not let us in. One that refuses our login is left alone at once; any other failure may be an accident.
    pub(super) fn not_let_in(&self, failure: &Failure) {
        let relay = &self.deps.relay;
        let reason = failure.to_string();
        if fate::is_refusal_of_us(failure) {
            let brake = Brake::on_relay(BrakeKind::RelayPaused, &relay.name, reason.clone(), None);
            self.deps.board.shut(relay.id, brake);
            return self.tell(News::Refused {
                relay_id: relay.id,
                crew: relay.crew,
                reason,
            });
        }
        let n = relay.n_failed.fetch_add(1, Ordering::Relaxed) + 1;
        if n >= FAILURES_MAX || relay.is_failing.load(Ordering::Relaxed) {
            let brake = Brake::on_relay(BrakeKind::RelayFailing, &relay.name, reason.clone(), None);
            self.deps.board.shut(relay.id, brake);
            self.tell(News::Failed {
                relay_id: relay.id,
                crew: relay.crew,
                reason,
                at: self.deps.clock.now(),
            });
        }
    }
}
