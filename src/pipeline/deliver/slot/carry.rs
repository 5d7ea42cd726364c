//! Messages over one open connection, from the first that is begun to the last that can share its round trips. The same loop serves
//! DATA, where the next message is begun behind the content of the one at hand, and a window of CHUNKING, where several are at
//! hand. Never writes an end of data whose intent is not durable, and never leaves an outcome unwritten.

use super::fate::{self, Fate};
use super::{Connection, Item, Parcel, Slot};
use crate::domain::time::Timestamp;
use crate::pipeline::settle::{Durable, Entry, Note};
use crate::smtp::failure::Failure;
use crate::smtp::reply::Reply;
use crate::smtp::session::{Mail, Sent};
use crate::store::delivery::Settled;

/// A window takes no more messages beyond this many bytes: the round trip is no longer what costs time then, and a connection
/// that breaks should not leave many megabytes in doubt.
const WINDOW_LEN_MAX: usize = 512 * 1024;

/// What a message that was at hand has come to, before that is durable. `None`: it was announced, and the relay never heard of it.
struct Ended {
    item: Item,
    outcome: Option<Settled>,
}

impl Slot {
    /// Hands a message to the relay, and every next one that can share its round trips.
    pub(super) async fn carry(&mut self, parcel: Parcel) {
        let Some(mut connection) = self.connected(&parcel.item).await else {
            return;
        };
        if connection.window() == 0 {
            let Some(begun) = self.begin(connection, &parcel).await else {
                return;
            };
            connection = begun;
        }
        let mut at_hand = vec![parcel];
        let mut ended = Vec::new();
        loop {
            self.fill(&mut at_hand, connection.window()).await;
            // The next message is composed while the commit runs: the round trip waits for the longer of the two.
            let committed = self.commit(std::mem::take(&mut ended), &at_hand);
            let ((), next) = tokio::join!(committed, self.next_of(&connection));
            // Behind this nothing may wait, or the lease might end before the end of data.
            at_hand = self.let_go(at_hand).await;
            if at_hand.is_empty() {
                if let Some(next) = next {
                    self.put_back(&next.item);
                }
                return self.keep(connection);
            }
            let load: Vec<Mail> = at_hand.iter().map(Parcel::mail).collect();
            let with_next = next.as_ref().map(|p| (&p.envelope, p.bytes.len()));
            let Sent { verdicts, next: begun } = connection.send(&load, with_next).await;
            let trouble = trouble(&verdicts, connection.is_usable());
            let items = std::mem::take(&mut at_hand).into_iter().map(|p| p.item);
            ended = items
                .zip(verdicts)
                .map(|(item, verdict)| self.judge(item, verdict))
                .collect();
            match (begun, next) {
                (Some(Ok(())), Some(next)) => at_hand = vec![next],
                (Some(Err(failure)), Some(next)) => {
                    self.keep(connection);
                    self.commit(ended, &[]).await;
                    return self.refused(&next.item, &failure).await;
                }
                _ => {
                    if trouble.is_none() {
                        self.fill(&mut at_hand, connection.window()).await;
                    }
                    if at_hand.is_empty() {
                        self.keep(connection);
                        self.commit(ended, &[]).await;
                        if let Some(failure) = trouble {
                            self.back_off(&failure).await;
                        }
                        return;
                    }
                }
            }
        }
    }

    /// MAIL, RCPT and DATA for the first message. `None` when it does not go on: then everything about it is done.
    async fn begin(&mut self, mut connection: Connection, parcel: &Parcel) -> Option<Connection> {
        let begun = tokio::select! {
            biased;
            begun = connection.begin(&parcel.envelope, parcel.bytes.len()) => begun,
            // Nothing is at stake before the content, and a slow relay must not hold up our end.
            () = self.deps.stop.cancelled() => {
                drop(connection);
                self.deps.relay.gauges.closed();
                self.put_back(&parcel.item);
                return None;
            }
        };
        match begun {
            Ok(()) => Some(connection),
            Err(failure) => {
                self.connection = Some(connection);
                self.refused(&parcel.item, &failure).await;
                None
            }
        }
    }

    /// The message to begin behind the content of the one at hand, if the connection takes one.
    async fn next_of(&self, connection: &Connection) -> Option<Parcel> {
        match connection.takes_next() {
            true => self.next_parcel_now().await,
            false => None,
        }
    }

    /// Takes messages until a window is full, as far as there are some that may go now.
    async fn fill(&self, at_hand: &mut Vec<Parcel>, window: usize) {
        let mut len: usize = at_hand.iter().map(|p| p.bytes.len()).sum();
        while at_hand.len() < window && len < WINDOW_LEN_MAX {
            let Some(parcel) = self.next_parcel_now().await else {
                return;
            };
            len += parcel.bytes.len();
            at_hand.push(parcel);
        }
    }

    /// For the next message, unless the relay waits for content that will not come: then the connection is of no use any more.
    fn keep(&mut self, connection: Connection) {
        if connection.awaits_content() {
            drop(connection);
            self.deps.relay.gauges.closed();
        } else {
            self.connection = Some(connection);
        }
    }

    /// What a message has come to whose content was written, or would have been.
    fn judge(&mut self, item: Item, verdict: Result<Reply, Failure>) -> Ended {
        let past = item.run.past(item.ordinal);
        let fate = match verdict {
            Ok(reply) => {
                self.all_well();
                Fate::Settle(fate::sent(item.ordinal, past, reply.note(), &self.rules(&item)))
            }
            Err(failure) => {
                self.heed_refusal(item.run.lane(item.ordinal), &failure);
                fate::refused(item.ordinal, past, &failure, &self.rules(&item))
            }
        };
        let outcome = match fate {
            Fate::Settle(settled) => Some(settled),
            Fate::PutBack => None,
        };
        Ended { item, outcome }
    }

    /// Makes the outcomes of the messages before and the intents of those at hand durable, in one commit.
    async fn commit(&self, ended: Vec<Ended>, at_hand: &[Parcel]) {
        if ended.is_empty() && at_hand.is_empty() {
            return;
        }
        let mut entries = Vec::with_capacity(ended.len() + at_hand.len());
        let mut tails = Vec::with_capacity(ended.len());
        for Ended { item, outcome } in ended {
            let (tail, note) = match outcome {
                Some(settled) => {
                    let tail = (settled.outcome.status, settled.outcome.next_at);
                    (Some(tail), Note::Outcome(settled))
                }
                None => (None, Note::Retraction(item.ordinal)),
            };
            entries.push(entry(&item, note));
            tails.push((item, tail));
        }
        entries.extend(at_hand.iter().map(|p| entry(&p.item, Note::Intent(p.item.ordinal))));
        let mut answers = self.deps.settler.settle(entries).await.into_iter();
        for ((item, tail), answer) in tails.iter().zip(&mut answers) {
            match tail {
                Some((status, next_at)) => self.written(item, answer, *status, *next_at),
                None => {
                    self.heed(item, answer);
                    self.put_back(item);
                }
            }
        }
        for (parcel, answer) in at_hand.iter().zip(&mut answers) {
            self.heed(&parcel.item, answer);
        }
    }

    /// Of the messages whose intents were committed, those that may go out: the others' jobs were stopped or lost, or the lease is
    /// about to end, and they are put back.
    async fn let_go(&self, at_hand: Vec<Parcel>) -> Vec<Parcel> {
        let now = self.deps.clock.now();
        let holds = self.deps.lease.holds(now);
        let (go, stay): (Vec<_>, Vec<_>) = at_hand.into_iter().partition(|p| holds && may_go(&p.item, now));
        self.retract(stay).await;
        go
    }

    /// Takes intents back that are not carried out, so that they are not taken for messages in doubt.
    async fn retract(&self, parcels: Vec<Parcel>) {
        if parcels.is_empty() {
            return;
        }
        let entries = parcels
            .iter()
            .map(|p| entry(&p.item, Note::Retraction(p.item.ordinal)))
            .collect();
        let answers: Vec<Durable> = self.deps.settler.settle(entries).await;
        for (parcel, answer) in parcels.iter().zip(answers) {
            self.heed(&parcel.item, answer);
            self.put_back(&parcel.item);
        }
    }
}

fn entry(item: &Item, note: Note) -> Entry {
    Entry {
        lease: item.run.lease,
        note,
    }
}

fn may_go(item: &Item, now: Timestamp) -> bool {
    let is_expired = item.run.prepared.expires_at.is_some_and(|at| at <= now);
    !item.run.is_halted() && !is_expired
}

/// Why this connection should wait before it goes on: the relay asked for less, or it refuses what is no message's fault while
/// the connection is in order, and so would refuse the next one too.
fn trouble(verdicts: &[Result<Reply, Failure>], is_usable: bool) -> Option<Failure> {
    let waits = |failure: &&Failure| fate::is_told_to_wait(failure) || (is_usable && fate::is_unheard_of(failure));
    verdicts.iter().filter_map(|v| v.as_ref().err()).find(waits).cloned()
}
