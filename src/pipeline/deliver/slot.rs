//! One connection slot: a task that opens connections to the relay as they are needed and carries messages over
//! them, in order. Never shares a connection.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::allowances::Place;
use super::board::{Board, Item};
use super::fate::{self, Fate, Rules};
use super::port::Seat;
use super::run::Halt;
use super::{News, Relay};
use crate::clock::Clock;
use crate::domain::id::MessageId;
use crate::domain::message::MessageStatus;
use crate::domain::retry::RetryPolicy;
use crate::domain::time::Timestamp;
use crate::pipeline::lease::LeaseWatch;
use crate::pipeline::settle::{Durable, Note, Settler};
use crate::smtp::failure::{Failure, Stage};
use crate::smtp::session::{Connection, Envelope, Mail};
use crate::smtp::verdict::verdict;
use crate::store::delivery::Settled;

mod carry;
mod opening;

/// An idle connection is closed after this: relays drop idle clients after minutes, and a fresh connection
/// costs milliseconds.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Pauses between tries of a slot while the relay does not let us in.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Failures to be let in, in a row, after which the whole cluster leaves the relay alone for a while. One may be an accident of
/// the network.
const FAILURES_MAX: u32 = 3;

/// What all slots of a worker share.
pub struct SlotDeps {
    pub relay: Arc<Relay>,
    pub board: Arc<Board>,
    pub settler: Settler,
    pub clock: Arc<dyn Clock>,
    pub lease: Arc<LeaseWatch>,
    pub retry: RetryPolicy,
    /// To who looks after the relays.
    pub news: mpsc::Sender<News>,
    /// No message is begun after this; those on the wire are finished.
    pub stop: CancellationToken,
}

/// One connection slot.
pub struct Slot {
    deps: Arc<SlotDeps>,
    seat: Seat,
    connection: Option<Connection>,
    /// Its place among the connections that may be open; it waits for none without one.
    place: Option<Place>,
    /// A message that goes next, on this slot: the last connection did not take it, through no fault of it.
    again: Option<Parcel>,
    /// How the last connection ended, until a fresh one has taken what it did not.
    session_end: Option<SessionEnd>,
    /// Whether it has opened a connection yet: the first one waits for nobody.
    has_opened: bool,
    backoff: Duration,
}

/// A session that may have ended by its relay's limit.
struct SessionEnd {
    /// Messages that it took.
    n: u32,
    /// The relay spoke of a limit.
    is_said: bool,
    words: String,
}

/// A message composed and addressed.
struct Parcel {
    item: Item,
    envelope: Envelope,
    bytes: Vec<u8>,
}

impl Parcel {
    fn mail(&self) -> Mail<'_> {
        Mail {
            envelope: &self.envelope,
            body: &self.bytes,
        }
    }
}

impl Slot {
    #[must_use]
    pub fn new(deps: Arc<SlotDeps>, slot: u64) -> Self {
        let seat = Seat {
            relay_id: deps.relay.id,
            slot,
        };
        Self {
            deps,
            seat,
            connection: None,
            place: None,
            again: None,
            session_end: None,
            has_opened: false,
            backoff: BACKOFF_FIRST,
        }
    }

    /// Carries messages until told to stop; then what is on the wire is finished and the connection closed.
    pub async fn run(mut self) {
        while let Some(parcel) = self.next_parcel().await {
            self.carry(parcel).await;
        }
        if let Some(parcel) = self.again.take() {
            self.put_back(&parcel.item);
        }
        self.close().await;
    }

    /// Waits for a message that may go now. What may not stays where a pause finds it. A slot with nothing to do closes
    /// its connection after a while.
    async fn next_parcel(&mut self) -> Option<Parcel> {
        let deps = Arc::clone(&self.deps);
        if let Some(parcel) = self.again.take() {
            if !deps.stop.is_cancelled() && carry::may_go(&parcel.item, deps.clock.now()) {
                return Some(parcel);
            }
            self.put_back(&parcel.item);
        }
        loop {
            if self.place.is_none() {
                tokio::select! {
                    biased;
                    () = deps.stop.cancelled() => return None,
                    place = deps.relay.allowances.place() => self.place = Some(place),
                }
            }
            let item = tokio::select! {
                biased;
                () = deps.stop.cancelled() => return None,
                item = deps.board.next(self.seat) => item,
                () = tokio::time::sleep(IDLE_MAX), if self.connection.is_some() => {
                    self.close().await;
                    continue;
                }
            };
            if let Some(parcel) = self.pack(item).await {
                return Some(parcel);
            }
        }
    }

    /// A message for the same round trip, if one is there and may go now.
    async fn next_parcel_now(&self) -> Option<Parcel> {
        while !self.deps.stop.is_cancelled() {
            let item = self.deps.board.next_now(self.seat)?;
            if let Some(parcel) = self.pack(item).await {
                return Some(parcel);
            }
        }
        None
    }

    /// Composes a message, or settles it when there is nothing to send.
    async fn pack(&self, item: Item) -> Option<Parcel> {
        if item.run.is_halted() {
            self.put_back(&item);
            return None;
        }
        let now = self.deps.clock.now();
        let past = item.run.past(item.ordinal);
        if item.run.prepared.expires_at.is_some_and(|at| at <= now) {
            let why = "its time had passed".to_owned();
            let expired = fate::untried(item.ordinal, past, MessageStatus::Expired, "expired", why, now);
            self.settle(&item, expired).await;
            return None;
        }
        match compose(&item).await {
            Ok((envelope, bytes)) => {
                point!("composed");
                Some(Parcel { item, envelope, bytes })
            }
            Err(why) => {
                let failed = fate::untried(item.ordinal, past, MessageStatus::Failed, "template_error", why, now);
                self.settle(&item, failed).await;
                None
            }
        }
    }

    /// The relay takes mail.
    fn all_well(&mut self) {
        self.backoff = BACKOFF_FIRST;
        self.deps.relay.gauges.set_trouble(None);
        let taken_at = &self.deps.relay.taken_at;
        *taken_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// A message that the relay refused before its content. A connection that has carried messages may end at any
    /// time, which says nothing of the relay or the message: a fresh one will tell whether it still takes mail.
    async fn refused(&mut self, parcel: Parcel, failure: &Failure) {
        let n_sent = self.connection.as_ref().map_or(0, Connection::messages_sent);
        if n_sent > 0 && fate::may_be_end_of_session(failure) {
            self.session_end = Some(SessionEnd {
                n: n_sent,
                is_said: fate::is_said_to_be_full(failure),
                words: failure.to_string(),
            });
            self.close().await;
            self.again = Some(parcel);
            return;
        }
        self.session_end = None;
        let item = &parcel.item;
        let past = item.run.past(item.ordinal);
        let relay_id = self.deps.relay.id;
        self.heed_refusal(item.run.lane(item.ordinal), failure);
        let is_relays = fate::is_relays_alone(failure);
        if is_relays && self.deps.board.pass_on(item, relay_id) {
            return self.wait_if_told(failure).await;
        }
        match fate::refused(item.ordinal, past, failure, &self.rules(item)) {
            Fate::Settle(settled) => self.settle(item, settled).await,
            Fate::PutBack => self.put_back(item),
        }
        self.wait_if_told(failure).await;
    }

    async fn wait_if_told(&mut self, failure: &Failure) {
        let is_usable = self.connection.as_ref().is_some_and(Connection::is_usable);
        let is_fresh = self.connection.as_ref().is_none_or(|c| c.messages_sent() == 0);
        let waits = match fate::is_unheard_of(failure) {
            true => is_fresh || is_usable,
            false => fate::is_told_to_wait(failure),
        };
        if waits {
            self.back_off(failure).await;
        }
    }

    async fn settle(&self, item: &Item, settled: Settled) {
        let (status, next_at) = (settled.outcome.status, settled.outcome.next_at);
        let answer = self
            .deps
            .settler
            .settle_one(item.run.lease, Note::Outcome(settled))
            .await;
        self.written(item, answer, status, next_at);
    }

    /// An outcome is durable, or will never be.
    fn written(&self, item: &Item, answer: Durable, status: MessageStatus, next_at: Option<Timestamp>) {
        self.heed(item, answer);
        match (answer, next_at) {
            (Durable::No, _) => {}
            (Durable::Yes { .. }, Some(at)) if status == MessageStatus::Deferred => item.run.deferred(at),
            (Durable::Yes { .. }, _) => item.run.settled(),
        }
        self.deps.relay.gauges.settled();
    }

    /// What a commit's answer says about the job.
    fn heed(&self, item: &Item, answer: Durable) {
        match answer {
            Durable::No => item.run.halt(Halt::Lost),
            Durable::Yes { stop: Some(stop) } => item.run.halt(Halt::Stopped(stop)),
            Durable::Yes { stop: None } => {}
        }
    }

    /// What a refusal says about the pace, of the relay or of the destination behind it.
    fn heed_refusal(&self, lane: &Arc<str>, failure: &Failure) {
        let relay = &self.deps.relay;
        if fate::is_refusal_of_us(failure) {
            return self.not_let_in(failure);
        }
        if !fate::asks_for_less(failure) {
            return;
        }
        let lane = if failure.stage <= Stage::Mail {
            "".into()
        } else {
            Arc::clone(lane)
        };
        let wait = verdict(failure).retry_after;
        self.tell(News::Slower {
            relay_id: relay.id,
            lane,
            reason: failure.to_string(),
            wait,
        });
    }

    /// Never waits: news that does not get through is told again by the next failure.
    fn tell(&self, news: News) {
        let _ = self.deps.news.try_send(news);
    }

    /// The relay's failure costs no message an attempt; it costs this slot its turn.
    async fn back_off(&mut self, failure: &Failure) {
        tracing::warn!(relay = %self.deps.relay.name, %failure, retry_ms = self.backoff.as_millis() as u64, "The relay does not take mail");
        self.deps.relay.gauges.set_trouble(Some(failure));
        self.pause().await;
    }

    async fn pause(&mut self) {
        let pause = self.backoff.mul_f64(0.5 + fastrand::f64());
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = self.deps.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    fn put_back(&self, item: &Item) {
        self.deps.board.put_back(item);
    }

    fn rules<'a>(&'a self, item: &'a Item) -> Rules<'a> {
        Rules {
            retry: &self.deps.retry,
            on_uncertain: item.run.on_uncertain,
            started: item.run.prepared.date,
            expires_at: item.run.prepared.expires_at,
            relay_id: Some(self.deps.relay.id),
            email: &item.run.recipient(item.ordinal).email,
            jitter: fastrand::f64() * 2.0 - 1.0,
            doubt_wait: None,
            now: self.deps.clock.now(),
        }
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.deps.relay.closed();
            if connection.is_usable() {
                connection.quit().await;
            }
        }
    }
}

/// The bytes of a message and its envelope, or why there are none.
async fn compose(item: &Item) -> Result<(Envelope, Vec<u8>), String> {
    let composed = item.run.prepared.compose(item.run.recipient(item.ordinal)).await?;
    let id = MessageId {
        job_id: item.run.lease.job_id,
        ordinal: item.ordinal,
    };
    let envelope = Envelope::new(composed.envelope_from.as_str(), composed.to)?.with_id(id.to_string());
    Ok((envelope, composed.bytes))
}
