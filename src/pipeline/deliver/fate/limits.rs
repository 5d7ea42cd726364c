//! What a refusal says beside the message: that a session is over, or that there is one connection too many. Never decides what becomes of
//! the message.

use super::is_unheard_of;
use crate::smtp::failure::{Cause, Failure, Stage};
use crate::smtp::verdict::verdict;

/// Whether a refusal before the content, on a connection that has carried messages, may be about the session and not about the message:
/// then it is no attempt, and a fresh connection tells.
#[must_use]
pub fn may_be_end_of_session(failure: &Failure) -> bool {
    let is_between = matches!(failure.stage, Stage::Reset | Stage::Mail | Stage::Rcpt | Stage::Data);
    if !is_between || failure.end_of_data_written {
        return false;
    }
    let Cause::Reply(reply) = &failure.cause else {
        return is_unheard_of(failure) && matches!(failure.cause, Cause::Closed | Cause::Io(_));
    };
    let is_about_the_store = matches!(verdict(failure).class, "mailbox_full" | "system_full");
    let is_full = reply.code == 452 && !is_about_the_store;
    let has_code = |details: &[(u16, u16)]| reply.enhanced.is_some_and(|e| details.contains(&(e.subject, e.detail)));
    let is_congestion = reply.digit() == 4 && has_code(&[(4, 5), (5, 3)]);
    reply.code == 421 || is_full || is_congestion || speaks_of_session(&reply.text)
}

/// Whether the relay itself says that a session has come to its end: one such refusal is enough to know the limit.
#[must_use]
pub fn is_said_to_be_full(failure: &Failure) -> bool {
    let Cause::Reply(reply) = &failure.cause else {
        return false;
    };
    // At RCPT it may be the recipient's side that has had enough.
    (reply.code == 452 && failure.stage != Stage::Rcpt) || speaks_of_session(&reply.text)
}

fn speaks_of_session(text: &str) -> bool {
    const WORDS: [&str; 9] = [
        "too many messages",
        "too many mails",
        "too many transactions",
        "messages per session",
        "per connection",
        "this session",
        "this connection",
        "session limit",
        "connection limit",
    ];
    let text = text.to_lowercase();
    WORDS.iter().any(|words| text.contains(words))
}

/// Whether a connection that was not let in may be one too many, while others are open: the relay hung up before its greeting was over,
/// or refused.
#[must_use]
pub fn may_be_one_too_many(failure: &Failure) -> bool {
    match &failure.cause {
        Cause::Reply(_) => failure.stage <= Stage::Auth && speaks_of_connections(failure),
        Cause::Closed | Cause::Io(_) => (Stage::Banner..=Stage::Ehlo).contains(&failure.stage),
        _ => false,
    }
}

/// Whether the relay itself says that there are too many connections. How fast they come is another matter.
#[must_use]
pub fn speaks_of_connections(failure: &Failure) -> bool {
    let Cause::Reply(reply) = &failure.cause else {
        return false;
    };
    let text = reply.text.to_lowercase();
    let is_rate = ["rate", "per minute", "per second", "too fast"]
        .iter()
        .any(|word| text.contains(word));
    !is_rate
        && ["connections", "concurrent", "simultaneous", "sessions"]
            .iter()
            .any(|word| text.contains(word))
}

#[cfg(test)]
mod tests;
