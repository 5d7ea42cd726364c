//! What a failure means: the message's status, whose failure it is, and what may be done next. One
//! pure function over one table; never asks the clock, the database or the past.

use std::time::Duration;

use super::classify::{Class, classify, retry_hint};
use super::failure::{Cause, Failure, Stage};
use super::reply::Reply;
use crate::domain::message::MessageStatus;

/// Before a greylisting relay is tried again when it names no time: most of them wait for five minutes.
pub const GREYLIST_WAIT: Duration = Duration::from_secs(300);

/// A dialogue that broke its rules is tried on a fresh connection, and no more often than this: then it is us or the relay, and
/// time does not help.
pub const PROTOCOL_TRIES_MAX: i64 = 3;

/// Whose failure it is, and so what else is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// This address only.
    Recipient,
    /// This message's content, or its fate on the way.
    Message,
    /// The sender, the content or the sending domain: the rest of the broadcast would fail too.
    Broadcast,
    /// The relay, the way to it, or our set-up towards it: other messages would fail there too, and
    /// other relays may work.
    Relay,
}

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// `Sent`, `Deferred`, `Failed` or `Uncertain`.
    pub status: MessageStatus,
    /// The reason class, a stable name; empty for `Sent`.
    pub class: &'static str,
    pub fault: Fault,
    /// Whether the try counts against the message. A relay's failure does not.
    pub counts_as_attempt: bool,
    /// The least time before another try, when the relay asks for one.
    pub retry_after: Option<Duration>,
    /// Whether the connection may carry the next message.
    pub keep_connection: bool,
    /// Whether the address must not be mailed again: it is certain that nobody is there.
    pub suppress: bool,
    /// Whether the first such refusal is followed by another try at once, in a transaction of its own.
    pub at_once: bool,
    /// Counted tries after which it has failed, where waiting longer would not help.
    pub tries_max: Option<i64>,
}

impl Verdict {
    /// A 2yz to the end of data.
    pub const SENT: Self = Self {
        status: MessageStatus::Sent,
        class: "",
        fault: Fault::Message,
        counts_as_attempt: true,
        retry_after: None,
        keep_connection: true,
        suppress: false,
        at_once: false,
        tries_max: None,
    };

    /// A verdict from which the others differ by what they name.
    const fn new(status: MessageStatus, class: &'static str, fault: Fault) -> Self {
        Self {
            status,
            class,
            fault,
            keep_connection: false,
            ..Self::SENT
        }
    }
}

/// What `failure` means for the message that was at hand.
///
/// - No valid reply after the end of data: `Uncertain`, always and only then.
/// - The relay failed before the message was in its hands: `Deferred`, and no attempt is counted.
/// - 4yz is `Deferred`. 5yz is `Failed`, except where it says more about our set-up or about the
///   dialogue than about the message.
#[must_use]
pub fn verdict(failure: &Failure) -> Verdict {
    use MessageStatus::{Deferred, Failed, Uncertain};
    match &failure.cause {
        Cause::Reply(reply) if failure.stage < Stage::Mail || failure.stage == Stage::Reset => {
            refused_by_relay(failure.stage, reply)
        }
        Cause::Reply(reply) => refused(failure.stage, reply),
        Cause::TooLarge { .. } => Verdict {
            keep_connection: true,
            ..Verdict::new(Failed, Class::MessageTooLarge.as_str(), Fault::Broadcast)
        },
        Cause::NoSmtpUtf8 => Verdict {
            keep_connection: true,
            ..Verdict::new(Failed, Class::ContentEncoding.as_str(), Fault::Recipient)
        },
        Cause::Unsupported(_) => Verdict {
            counts_as_attempt: false,
            ..Verdict::new(Deferred, unsupported(failure.stage).as_str(), Fault::Relay)
        },
        Cause::Io(_) | Cause::Timeout(_) | Cause::Closed | Cause::Tls(_) | Cause::Desync(_) => {
            let status = if failure.end_of_data_written {
                Uncertain
            } else {
                Deferred
            };
            Verdict {
                // From RCPT on it may be this message that breaks connections, and such a one must
                // come to an end. Before, it cannot be.
                counts_as_attempt: failure.stage > Stage::Mail && failure.stage != Stage::Reset,
                ..Verdict::new(status, no_reply(&failure.cause).as_str(), Fault::Relay)
            }
        }
    }
}

fn unsupported(stage: Stage) -> Class {
    match stage {
        Stage::StartTls => Class::TlsRequired,
        Stage::Auth => Class::AuthRequired,
        _ => Class::ProtocolError,
    }
}

fn no_reply(cause: &Cause) -> Class {
    match cause {
        Cause::Desync(_) => Class::ProtocolError,
        _ => Class::Network,
    }
}

/// A refusal before any message was named: every message would meet it.
fn refused_by_relay(stage: Stage, reply: &Reply) -> Verdict {
    let class = match stage {
        Stage::StartTls => Class::TlsRequired,
        Stage::Auth if reply.digit() == 5 => Class::AuthRequired,
        _ => classify(stage, reply),
    };
    Verdict {
        counts_as_attempt: false,
        retry_after: retry_hint(&reply.text),
        ..Verdict::new(MessageStatus::Deferred, class.as_str(), Fault::Relay)
    }
}

/// A refusal of MAIL, RCPT, DATA or the content.
fn refused(stage: Stage, reply: &Reply) -> Verdict {
    let class = classify(stage, reply);
    let fault = fault(class, stage, reply);
    let hard = reply.digit() == 5 && !is_about_the_dialogue(class);
    let status = if hard {
        MessageStatus::Failed
    } else {
        MessageStatus::Deferred
    };
    let before_the_message = stage == Stage::Mail && fault == Fault::Relay;
    let wait = match class {
        _ if hard => None,
        Class::Greylisted => Some(retry_hint(&reply.text).unwrap_or(GREYLIST_WAIT)),
        _ => retry_hint(&reply.text),
    };
    Verdict {
        status,
        class: class.as_str(),
        fault,
        counts_as_attempt: hard || !(before_the_message || is_a_matter_of_time(class)),
        retry_after: wait,
        keep_connection: !reply.is_closing() && class != Class::ProtocolError && stage != Stage::Body,
        suppress: hard && stage > Stage::Mail && matches!(class, Class::InvalidRecipient | Class::BadDomain),
        at_once: class == Class::TooManyRecipients,
        tries_max: (class == Class::ProtocolError).then_some(PROTOCOL_TRIES_MAX),
    }
}

/// Refusals that stay temporary with a 5yz: they speak of our set-up, which somebody will put right, of our
/// quota, which comes back, or of the dialogue, which a fresh connection may mend.
fn is_about_the_dialogue(class: Class) -> bool {
    matches!(
        class,
        Class::TlsRequired
            | Class::AuthRequired
            | Class::RelayDenied
            | Class::MissingPtr
            | Class::TooManyConnections
            | Class::TooManyRecipients
            | Class::RateLimited
            | Class::ProtocolError
    )
}

/// Refusals that say nothing of the message: it waits, and has not been tried.
fn is_a_matter_of_time(class: Class) -> bool {
    matches!(
        class,
        Class::Greylisted
            | Class::RateLimited
            | Class::TooManyConnections
            | Class::TlsRequired
            | Class::AuthRequired
            | Class::RelayDenied
            | Class::MissingPtr
    )
}

fn fault(class: Class, stage: Stage, reply: &Reply) -> Fault {
    match class {
        Class::TlsRequired
        | Class::AuthRequired
        | Class::RelayDenied
        | Class::MissingPtr
        | Class::TooManyConnections
        | Class::RateLimited
        | Class::ReputationBlock
        | Class::Network => Fault::Relay,
        Class::SenderRejected | Class::AuthPolicy | Class::SpamContent | Class::MessageTooLarge => Fault::Broadcast,
        Class::InvalidRecipient
        | Class::BadDomain
        | Class::InactiveMailbox
        | Class::MailboxFull
        | Class::Greylisted
        | Class::TooManyRecipients => Fault::Recipient,
        Class::ContentEncoding => Fault::Message,
        Class::SystemFull
        | Class::SystemError
        | Class::Routing
        | Class::PolicyOther
        | Class::ProtocolError
        | Class::Unknown => match stage {
            // Nothing but the sender is known to the relay yet.
            Stage::Mail if reply.digit() == 4 || class == Class::ProtocolError => Fault::Relay,
            Stage::Mail => Fault::Broadcast,
            Stage::Rcpt => Fault::Recipient,
            _ => Fault::Message,
        },
    }
}

#[cfg(test)]
mod replies;
#[cfg(test)]
mod tests {
    use MessageStatus::{Deferred, Failed, Uncertain};

    use super::super::reply::parse;
    use super::replies::REPLIES;
    use super::*;

    fn reply(text: &str) -> Reply {
        parse(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0
    }

    fn of_reply(stage: Stage, text: &str) -> Verdict {
        let end_of_data_written = stage == Stage::FinalDot;
        verdict(&Failure {
            stage,
            cause: Cause::Reply(reply(text)),
            end_of_data_written,
        })
    }

    #[test]
    fn real_replies_mean_what_they_say() {
        let mut wrong = Vec::new();
        for (stage, text, status, class, fault, counted, suppress) in REPLIES {
            let v = of_reply(*stage, text);
            let got = (v.status, v.class, v.fault, v.counts_as_attempt, v.suppress);
            if got != (*status, *class, *fault, *counted, *suppress) {
                wrong.push(format!("{stage}: {text}\n  is {got:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(REPLIES.len() >= 120, "{} rows", REPLIES.len());
    }

    /// Names that are documented are names that are given, and the other way round.
    #[test]
    fn every_class_is_a_documented_reason() {
        use crate::domain::reason::{self, Whose};
        let ours = ["template_error", "suppressed", "expired", "worker_lost"];
        let mut given: Vec<&str> = Class::ALL.iter().map(|c| c.as_str()).chain(ours).collect();
        let mut documented: Vec<&str> = reason::REASONS.iter().map(|r| r.class).collect();
        given.sort_unstable();
        documented.sort_unstable();
        assert_eq!(given, documented);
        for class in Class::ALL {
            let whose = reason::find(class.as_str()).unwrap().whose;
            // Where a class says whose it is, wherever in the dialogue it comes.
            let at = |stage| fault(class, stage, &reply("550 no"));
            if at(Stage::Mail) == at(Stage::Rcpt) && at(Stage::Rcpt) == at(Stage::FinalDot) {
                let expected = match at(Stage::Rcpt) {
                    Fault::Recipient => Whose::Recipient,
                    Fault::Message => Whose::Message,
                    Fault::Broadcast => Whose::Broadcast,
                    Fault::Relay => Whose::Relay,
                };
                assert_eq!(whose, expected, "{class}");
            }
        }
    }

    #[test]
    fn a_plain_refusal_keeps_the_connection_and_a_421_never_does() {
        assert!(of_reply(Stage::Rcpt, "550 5.1.1 no such user").keep_connection);
        assert!(of_reply(Stage::FinalDot, "451 later").keep_connection);
        for stage in [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::FinalDot] {
            assert!(!of_reply(stage, "421 bye").keep_connection);
        }
        assert!(!of_reply(Stage::Auth, "535 no").keep_connection);
    }

    #[test]
    fn uncertain_is_exactly_no_valid_reply_after_the_end_of_data() {
        let silent = [
            Cause::Io("reset".into()),
            Cause::Timeout(Duration::from_secs(600)),
            Cause::Closed,
            Cause::Desync("354 to the end of data".into()),
            Cause::Tls("bad record".into()),
        ];
        for cause in silent {
            let after = Failure {
                stage: Stage::FinalDot,
                cause: cause.clone(),
                end_of_data_written: true,
            };
            assert_eq!(verdict(&after).status, Uncertain, "{after}");
            for stage in [
                Stage::Connect,
                Stage::Banner,
                Stage::Auth,
                Stage::Mail,
                Stage::Rcpt,
                Stage::Body,
            ] {
                let before = Failure::new(stage, cause.clone());
                let v = verdict(&before);
                assert_eq!((v.status, v.fault, v.keep_connection), (Deferred, Fault::Relay, false), "{before}");
                assert_eq!(v.counts_as_attempt, stage > Stage::Mail, "{before}");
            }
        }
        assert_eq!(of_reply(Stage::FinalDot, "451 no").status, Deferred);
        assert_eq!(of_reply(Stage::FinalDot, "554 no").status, Failed);
    }

    #[test]
    fn a_wait_the_relay_asks_for_is_kept() {
        let asked = of_reply(Stage::Rcpt, "451 4.7.1 Greylisted, try again in 10 minutes");
        assert_eq!(asked.retry_after, Some(Duration::from_secs(610)));
        assert_eq!(of_reply(Stage::Rcpt, "451 4.7.1 Greylisted").retry_after, Some(GREYLIST_WAIT));
        assert_eq!(of_reply(Stage::Rcpt, "550 5.1.1 no such user, retry in 5 minutes").retry_after, None);
    }

    #[test]
    fn what_the_relay_cannot_take_keeps_the_connection() {
        let large = verdict(&Failure::new(Stage::Mail, Cause::TooLarge { size: 2, limit: 1 }));
        assert_eq!((large.status, large.fault, large.keep_connection), (Failed, Fault::Broadcast, true));
        let utf8 = verdict(&Failure::new(Stage::Mail, Cause::NoSmtpUtf8));
        assert_eq!((utf8.status, utf8.fault, utf8.keep_connection), (Failed, Fault::Recipient, true));
    }
}
