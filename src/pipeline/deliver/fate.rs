//! What an attempt means for its message: one pure step from a relay's answer to the row that is written. Never
//! decides what a reply means: that is the verdict.

use std::time::Duration;

use crate::domain::address::EmailAddress;
use crate::domain::broadcast::OnUncertain;
use crate::domain::message::{MessageStatus, Outcome, ReplyNote};
use crate::domain::retry::RetryPolicy;
use crate::domain::time::Timestamp;
use crate::smtp::failure::{Cause, Failure, Stage};
use crate::smtp::verdict::{Fault, Verdict, verdict};
use crate::store::delivery::{Bounce, BounceKind, Settled};

use super::run::Past;

mod limits;

pub use self::limits::{is_said_to_be_full, may_be_end_of_session, may_be_one_too_many, speaks_of_connections};

/// What the fate of a message depends on besides the relay's answer.
pub struct Rules<'a> {
    pub retry: &'a RetryPolicy,
    pub on_uncertain: OnUncertain,
    /// When the broadcast began: age counts from there.
    pub started: Timestamp,
    /// No message waits longer than this: at that time it is found to have expired.
    pub expires_at: Option<Timestamp>,
    /// `None` when it is not known which it was.
    pub relay_id: Option<i64>,
    /// Whom the message is for.
    pub email: &'a EmailAddress,
    /// In -1 to 1.
    pub jitter: f64,
    /// A message that came into doubt is sent again after this and not by the plan, where it is sent again.
    pub doubt_wait: Option<Duration>,
    pub now: Timestamp,
}

/// What is to be done with a message that was at hand.
#[derive(Debug)]
pub enum Fate {
    /// Write this down.
    Settle(Settled),
    /// It was not the message that failed, and the relay had not heard of it: it is next again.
    PutBack,
}

/// The fate of a message whose end of data was answered with 2yz.
#[must_use]
pub fn sent(ordinal: u16, past: Past, reply: ReplyNote, rules: &Rules) -> Settled {
    settled(
        ordinal,
        past,
        rules,
        Attempt {
            verdict: Verdict::SENT,
            reply,
            status: MessageStatus::Sent,
            next_at: None,
        },
    )
}

/// The fate of a message that was refused before its content. Only what fails before the relay was told of this
/// very message is nobody's failure but the relay's: from RCPT on a message is deferred, so that one that the
/// relay never takes does not stand in the way of those behind it, and comes to an end with its age.
#[must_use]
pub fn refused(ordinal: u16, past: Past, failure: &Failure, rules: &Rules) -> Fate {
    match is_unheard_of(failure) {
        true => Fate::PutBack,
        false => Fate::Settle(failed(ordinal, past, failure, rules)),
    }
}

/// Whether it was not the message that failed, and the relay had not heard of it.
#[must_use]
pub fn is_unheard_of(failure: &Failure) -> bool {
    let verdict = verdict(failure);
    let is_before = failure.stage <= Stage::Mail || failure.stage == Stage::Reset;
    is_before && verdict.fault == Fault::Relay && !verdict.counts_as_attempt
}

/// Whether another relay may take the message at once: this one will not, and the message is not the reason. At RCPT only
/// where the answer speaks of us and not of the address.
#[must_use]
pub fn is_relays_alone(failure: &Failure) -> bool {
    let verdict = verdict(failure);
    let speaks_of_us = matches!(
        verdict.class,
        "relay_denied" | "auth_required" | "tls_required" | "missing_ptr" | "too_many_connections"
    );
    let is_closing = matches!(&failure.cause, Cause::Reply(reply) if reply.code == 421);
    let may_pass = is_unheard_of(failure) || (failure.stage <= Stage::Data && (speaks_of_us || is_closing));
    may_pass && verdict.fault == Fault::Relay && !verdict.counts_as_attempt
}

/// Whether the relay refuses who we are: it will go on to do so until somebody changes the password, and may lock us out
/// when we insist.
#[must_use]
pub fn is_refusal_of_us(failure: &Failure) -> bool {
    let Cause::Reply(reply) = &failure.cause else {
        return false;
    };
    let is_auth =
        failure.stage == Stage::Auth || (failure.stage == Stage::Mail && verdict(failure).class == "auth_required");
    // Some refuse the login of one connection too many with a 535.
    is_auth && reply.digit() == 5 && !speaks_of_connections(failure)
}

/// Whether a slower pace would help: the relay or the destination says that we send too much, or on too many connections.
/// Not a greylist, and not a single mailbox that gets too much (x.2.1).
#[must_use]
pub fn asks_for_less(failure: &Failure) -> bool {
    let Cause::Reply(reply) = &failure.cause else {
        return false;
    };
    let is_about_pace = matches!(verdict(failure).class, "rate_limited" | "too_many_connections");
    let is_about_us = reply.code == 421 || reply.enhanced.as_ref().is_none_or(|e| e.subject == 7 || e.subject == 3);
    is_about_pace && is_about_us && failure.stage > Stage::Connect && failure.stage != Stage::Auth
}

/// The fate of a message whose attempt failed.
#[must_use]
pub fn failed(ordinal: u16, past: Past, failure: &Failure, rules: &Rules) -> Settled {
    let verdict = verdict(failure);
    let burnt = past.burnt + i64::from(verdict.counts_as_attempt);
    let tries_again = match verdict.status {
        MessageStatus::Deferred => true,
        MessageStatus::Uncertain => rules.on_uncertain == OnUncertain::Resend,
        _ => false,
    };
    let next_at = tries_again
        .then(|| next_try(&verdict, burnt, rules))
        .flatten()
        .map(|at| rules.expires_at.map_or(at, |end| at.min(end)));
    let status = match verdict.status {
        // Out of time: a message in doubt stays in doubt, any other has failed.
        MessageStatus::Deferred if next_at.is_none() => MessageStatus::Failed,
        MessageStatus::Uncertain if next_at.is_some() => MessageStatus::Deferred,
        status => status,
    };
    settled(
        ordinal,
        past,
        rules,
        Attempt {
            verdict,
            reply: failure.note(),
            status,
            next_at,
        },
    )
}

/// When the message is tried again, if it may be.
fn next_try(verdict: &Verdict, burnt: i64, rules: &Rules) -> Option<Timestamp> {
    let is_deferred = verdict.status == MessageStatus::Deferred;
    if is_deferred && verdict.tries_max.is_some_and(|max| burnt >= max) {
        return None;
    }
    if is_deferred && verdict.at_once && burnt <= 1 {
        return Some(rules.now);
    }
    if let Some(wait) = rules.doubt_wait.filter(|_| !is_deferred) {
        return Some(rules.now + wait);
    }
    rules
        .retry
        .next_at(burnt, verdict.retry_after, rules.jitter, rules.started, rules.now)
}

/// What a failure teaches about the address.
fn bounce(status: MessageStatus, verdict: &Verdict, email: &EmailAddress) -> Option<Bounce> {
    let kind = match (status, verdict.class) {
        _ if verdict.suppress => BounceKind::Hard,
        (MessageStatus::Failed, "inactive_mailbox" | "mailbox_full") => BounceKind::Soft,
        _ => return None,
    };
    Some(Bounce {
        address: email.normalised(),
        kind,
    })
}

/// Whether the relay asked for less: whoever goes on at once would meet the same refusal. Not so at RCPT, where
/// it may be about the one address, and not for a connection that broke: a fresh one will tell.
#[must_use]
pub fn is_told_to_wait(failure: &Failure) -> bool {
    matches!(failure.cause, Cause::Reply(_)) && failure.stage != Stage::Rcpt && verdict(failure).fault == Fault::Relay
}

/// A message that may have been on the wire when its last owner died: in doubt, and by policy sent again at
/// once or held for a person. A canceled broadcast sends nothing again.
#[must_use]
pub fn ambiguous(ordinal: u16, past: Past, canceled: bool, rules: &Rules) -> Settled {
    let resend = rules.on_uncertain == OnUncertain::Resend && !canceled;
    let verdict = Verdict {
        status: MessageStatus::Uncertain,
        class: "worker_lost",
        counts_as_attempt: false,
        ..Verdict::SENT
    };
    let reply = ReplyNote {
        text: "the worker was lost while the message was on its way".to_owned(),
        ..ReplyNote::default()
    };
    let status = if resend {
        MessageStatus::Deferred
    } else {
        MessageStatus::Uncertain
    };
    let next_at = resend.then_some(rules.now);
    settled(
        ordinal,
        past,
        rules,
        Attempt {
            verdict,
            reply,
            status,
            next_at,
        },
    )
}

/// A message that ends without an attempt: suppressed, expired, or impossible to compose.
#[must_use]
pub fn untried(
    ordinal: u16,
    past: Past,
    status: MessageStatus,
    class: &'static str,
    why: String,
    now: Timestamp,
) -> Settled {
    Settled {
        ordinal,
        before: past.status,
        outcome: Outcome {
            status,
            class,
            reply: ReplyNote {
                text: why,
                ..ReplyNote::default()
            },
            next_at: None,
            counts_as_attempt: false,
            possible_duplicate: past.possible_duplicate,
        },
        attempts: past.attempts,
        burnt: past.burnt,
        attempt: None,
        newly_flagged: false,
        relay_id: None,
        at: now,
        bounce: None,
    }
}

struct Attempt {
    verdict: Verdict,
    reply: ReplyNote,
    /// What becomes of the message.
    status: MessageStatus,
    next_at: Option<Timestamp>,
}

fn settled(ordinal: u16, past: Past, rules: &Rules, attempt: Attempt) -> Settled {
    let in_doubt = attempt.verdict.status == MessageStatus::Uncertain;
    Settled {
        ordinal,
        before: past.status,
        outcome: Outcome {
            status: attempt.status,
            class: attempt.verdict.class,
            reply: attempt.reply,
            next_at: attempt.next_at,
            counts_as_attempt: attempt.verdict.counts_as_attempt,
            possible_duplicate: past.possible_duplicate || in_doubt,
        },
        attempts: past.attempts + 1,
        burnt: past.burnt + i64::from(attempt.verdict.counts_as_attempt),
        attempt: Some(attempt.verdict.status),
        newly_flagged: in_doubt && !past.possible_duplicate,
        relay_id: rules.relay_id,
        at: rules.now,
        bounce: bounce(attempt.status, &attempt.verdict, rules.email),
    }
}
