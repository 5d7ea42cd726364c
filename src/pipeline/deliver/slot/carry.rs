//! Messages over one open connection, from the first that is begun to the last that can share its round trips. The same loop serves
//! DATA, where the next message is begun behind the content of the one at hand, and a window of CHUNKING, where several are at
//! hand. Never writes an end of data whose intent is not durable, and never leaves an outcome unwritten.

use std::sync::Arc;
use std::time::Duration;

use super::super::allowances::Leave;
use super::fate::{self, Fate, Rules};
use super::{Connection, Item, Parcel, Relay, Slot};
use crate::domain::finding::FindingKind;
use crate::domain::time::Timestamp;
use crate::pipeline::settle::{Durable, Entry, Note};
use crate::smtp::failure::Failure;
use crate::smtp::reply::Reply;
use crate::smtp::session::{Flights, Mail, Sign};
use crate::store::delivery::Settled;

/// A window takes no more messages beyond this many bytes: the round trip is no longer what costs time then, and a connection
/// that breaks should not leave many megabytes in doubt.
const WINDOW_LEN_MAX: usize = 512 * 1024;

/// What became of a message waits no longer than this for the relay's answer to the next one, and is written down by itself then.
const UNWRITTEN_MAX: Duration = Duration::from_secs(1);

/// A message that came into doubt by a trial of flights is sent again after this, where the policy says so.
const TRIAL_DOUBT_WAIT: Duration = Duration::from_secs(5);

/// What the message behind the one at hand has come to.
enum Begun {
    /// There is none.
    Nothing,
    /// The relay waits for its content.
    Accepted,
    Refused(Failure),
    /// This worker was told to stop.
    Stopped,
}

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
        let relay = Arc::clone(&self.deps.relay);
        let mut leave = Some(leave_for_windows(&relay, &mut connection));
        let mut parcel = parcel;
        if connection.window() == 0 {
            let Some(begun) = self.begin(connection, parcel).await else {
                return;
            };
            (connection, parcel) = begun;
        }
        let mut at_hand = vec![parcel];
        let mut ended = Vec::new();
        loop {
            // Windows begin behind this message as soon as they may.
            let mut windows = None;
            if connection.awaits_content() {
                drop(leave.take());
                windows = Some(leave_for_windows(&relay, &mut connection));
                leave = Some(leave_for_flights(&relay, &mut connection));
            }
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
            let verdicts = connection.send(&load, with_next).await;
            let trouble = trouble(&verdicts, connection.is_usable());
            let is_ahead = next.is_some() || windows.is_none();
            let is_trial = is_ahead && leave.as_ref().is_some_and(|leave| leave.flights == Flights::Trial);
            let items = std::mem::take(&mut at_hand).into_iter().map(|p| p.item);
            ended = items
                .zip(verdicts)
                .map(|(item, verdict)| self.judge(item, verdict, is_trial))
                .collect();
            let begun = match &next {
                Some(next) => self.begin_next(&mut connection, next, &mut ended).await,
                None => Begun::Nothing,
            };
            let sign = self.heed_sign(&mut connection, leave.take());
            match (begun, next) {
                (Begun::Accepted, Some(next)) => at_hand = vec![next],
                (Begun::Refused(failure), Some(next)) => {
                    self.keep(connection);
                    self.commit(ended, &[]).await;
                    return match sign {
                        // It came early, and is said again now.
                        Some(Sign::Refused(_) | Sign::Unanswered(_) | Sign::Lost(_)) if is_trial => {
                            self.again = Some(next);
                        }
                        Some(Sign::Refused(_)) => self.again = Some(next),
                        _ => self.refused(next, &failure).await,
                    };
                }
                (Begun::Stopped, Some(next)) => {
                    drop(connection);
                    self.deps.relay.closed();
                    self.put_back(&next.item);
                    return self.commit(ended, &[]).await;
                }
                _ => {
                    if trouble.is_none() {
                        leave = windows.or_else(|| Some(leave_for_windows(&relay, &mut connection)));
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
    async fn begin(&mut self, mut connection: Connection, parcel: Parcel) -> Option<(Connection, Parcel)> {
        let begun = tokio::select! {
            biased;
            begun = connection.begin(&parcel.envelope, parcel.bytes.len()) => begun,
            // Nothing is at stake before the content, and a slow relay must not hold up our end.
            () = self.deps.stop.cancelled() => {
                drop(connection);
                self.deps.relay.closed();
                self.put_back(&parcel.item);
                return None;
            }
        };
        match begun {
            Ok(()) => {
                self.confirm_session_end();
                Some((connection, parcel))
            }
            Err(failure) => {
                self.connection = Some(connection);
                self.refused(parcel, &failure).await;
                None
            }
        }
    }

    /// As [`Slot::begin`], for the message behind the one at hand. What that one came to must not wait for long: a relay that has fallen
    /// silent would keep it from being written down.
    async fn begin_next(&self, connection: &mut Connection, next: &Parcel, ended: &mut Vec<Ended>) -> Begun {
        let begun = connection.begin(&next.envelope, next.bytes.len());
        tokio::pin!(begun);
        let in_time = tokio::select! {
            biased;
            begun = &mut begun => Some(begun),
            () = self.deps.stop.cancelled() => return Begun::Stopped,
            () = tokio::time::sleep(UNWRITTEN_MAX) => None,
        };
        let begun = match in_time {
            Some(begun) => begun,
            None => {
                self.commit(std::mem::take(ended), &[]).await;
                tokio::select! {
                    biased;
                    begun = begun => begun,
                    () = self.deps.stop.cancelled() => return Begun::Stopped,
                }
            }
        };
        begun.map_or_else(Begun::Refused, |()| Begun::Accepted)
    }

    /// How the relay took what was written ahead, which may be news for all workers.
    fn heed_sign(&self, connection: &mut Connection, leave: Option<Leave<'_>>) -> Option<Sign> {
        let sign = connection.take_sign()?;
        let discovery = self.deps.relay.allowances.heed(&leave?, &sign);
        if let Some(discovery) = discovery {
            self.tell_discovery(discovery);
        }
        Some(sign)
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
            self.deps.relay.closed();
        } else {
            self.connection = Some(connection);
        }
    }

    /// What a message has come to whose content was written, or would have been.
    fn judge(&mut self, item: Item, verdict: Result<Reply, Failure>, is_trial: bool) -> Ended {
        let past = item.run.past(item.ordinal);
        let fate = match verdict {
            Ok(reply) => {
                self.all_well();
                Fate::Settle(fate::sent(item.ordinal, past, reply.note(), &self.rules(&item)))
            }
            Err(failure) => {
                self.heed_refusal(item.run.lane(item.ordinal), &failure);
                let rules = Rules {
                    // The relay did not like the trial, and it is known why: nothing is learnt by waiting.
                    doubt_wait: is_trial.then_some(TRIAL_DOUBT_WAIT),
                    ..self.rules(&item)
                };
                fate::refused(item.ordinal, past, &failure, &rules)
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

/// How this connection may send a window now.
fn leave_for_windows<'a>(relay: &'a Relay, connection: &mut Connection) -> Leave<'a> {
    let leave = relay.allowances.leave(FindingKind::Windows);
    connection.set_windows(leave.flights);
    leave
}

/// Whether this connection may write the next message's commands ahead now.
fn leave_for_flights<'a>(relay: &'a Relay, connection: &mut Connection) -> Leave<'a> {
    let leave = relay.allowances.leave(FindingKind::Flights);
    connection.set_flights(leave.flights);
    leave
}

fn entry(item: &Item, note: Note) -> Entry {
    Entry {
        lease: item.run.lease,
        note,
    }
}

pub(super) fn may_go(item: &Item, now: Timestamp) -> bool {
    let is_expired = item.run.prepared.expires_at.is_some_and(|at| at <= now);
    !item.run.is_halted() && !is_expired
}

/// Why this connection should wait before it goes on: the relay asked for less, or it refuses what is no message's fault while
/// the connection is in order, and so would refuse the next one too.
fn trouble(verdicts: &[Result<Reply, Failure>], is_usable: bool) -> Option<Failure> {
    let waits = |failure: &&Failure| fate::is_told_to_wait(failure) || (is_usable && fate::is_unheard_of(failure));
    verdicts.iter().filter_map(|v| v.as_ref().err()).find(waits).cloned()
}
