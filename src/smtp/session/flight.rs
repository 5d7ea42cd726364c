//! Flights: what is written ahead of the reply to an end of data. RFC 2920 3.1 gives that liberty where PIPELINING is announced,
//! and some relays take it back: they refuse the commands that came early, hang up, or forget them. Tells how the relay took a
//! flight, and never decides what follows from it.
//!
//! A RSET stands before the MAIL of a flight: Dovecot's submission server breaks off at a MAIL that comes before it has answered the
//! end of data, and does not at a RSET.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::failure::{Cause, Failure, Stage};
use super::super::reply::Reply;
use super::Connection;

/// While flights are on trial, each reply to what was written ahead must come within this: a relay that has forgotten the commands
/// would be waited for in vain, for minutes. A relay that works answers MAIL, RCPT and DATA in a fraction of it.
const TRIAL_PATIENCE: Duration = Duration::from_secs(5);

/// Whether anything is written ahead of the reply to an end of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flights {
    Off,
    /// To find out whether the relay takes it.
    Trial,
    On,
}

/// How a relay took a flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// It carried out a command that was written ahead.
    Taken,
    /// It refused, in these words, what was written ahead because it came early. The replies are in step.
    Refused(String),
    /// No reply came to the end of data: the message is in doubt. It may have been for another reason.
    Unanswered(String),
    /// The connection was lost, or out of step, after the reply to the end of data. It may have been for another reason.
    Lost(String),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Whether anything may be written ahead from now on, with DATA.
    pub fn set_flights(&mut self, flights: Flights) {
        self.flights = flights;
    }

    /// As [`Connection::set_flights`], for windows of CHUNKING.
    pub fn set_windows(&mut self, windows: Flights) {
        self.windows = windows;
    }

    /// How the last flight was taken; once told, it is forgotten. `None` also when the relay's answer says nothing about it.
    pub fn take_sign(&mut self) -> Option<Sign> {
        self.sign.take()
    }

    pub(super) fn may_write_ahead(&self) -> bool {
        self.pipelining && self.flights != Flights::Off
    }

    /// How many messages go in one window.
    pub(super) fn window_now(&self) -> u32 {
        match self.windows {
            Flights::On => self.chunking,
            Flights::Trial => self.chunking.min(1),
            Flights::Off => 0,
        }
    }

    /// The commands of the next message have left with the content whose verdict this is, unless the content did not leave itself.
    pub(super) fn wrote_ahead(&mut self, verdict: &Result<Reply, Failure>) {
        if let Err(failure) = verdict {
            if !failure.end_of_data_written {
                return;
            }
            self.sign = match &failure.cause {
                Cause::Reply(goodbye) if self.is_dead => Some(Sign::Lost(goodbye.to_string())),
                Cause::Reply(_) => None,
                cause => Some(Sign::Unanswered(format!("{cause}, in reply to the end of data"))),
            };
        }
        self.is_ahead = true;
        self.n_begun += 1;
    }

    /// The replies to what was written ahead.
    pub(super) async fn read_ahead(&mut self) -> Result<(), Failure> {
        self.is_ahead = false;
        let begun = match self.check_usable() {
            Ok(()) => {
                self.patience = (self.flights == Flights::Trial).then_some(TRIAL_PATIENCE);
                let begun = self.read_group(true).await;
                self.patience = None;
                begun
            }
            dead => dead,
        };
        if self.sign.is_none() {
            self.sign = sign_of(&begun);
        }
        begun
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// How a RSET was taken that was written ahead. Its reply is read here.
    pub(super) async fn sign_of_reset(&mut self) -> Sign {
        if self.is_dead {
            return Sign::Lost("the relay closed the connection, after its reply to the end of data".to_owned());
        }
        self.patience = Some(TRIAL_PATIENCE);
        let reset = self.read_reset().await;
        self.patience = None;
        match reset.map_err(|failure| failure.cause) {
            Ok(()) => Sign::Taken,
            Err(Cause::Reply(reply)) if !reply.is_closing() => Sign::Refused(reply.to_string()),
            Err(Cause::Reply(goodbye)) => Sign::Lost(goodbye.to_string()),
            Err(cause) => Sign::Lost(format!("{cause}, after its reply to the end of data")),
        }
    }
}

/// What the answer to MAIL, RCPT and DATA says about their coming early.
fn sign_of(begun: &Result<(), Failure>) -> Option<Sign> {
    let Err(failure) = begun else {
        return Some(Sign::Taken);
    };
    match &failure.cause {
        Cause::Reply(reply) if failure.stage == Stage::Mail && is_unwelcome(reply) => {
            Some(Sign::Refused(reply.to_string()))
        }
        Cause::Reply(reply) if reply.is_closing() => Some(Sign::Lost(reply.to_string())),
        // MAIL was carried out, and what is refused is the recipient.
        Cause::Reply(_) => (failure.stage > Stage::Mail).then_some(Sign::Taken),
        cause => Some(Sign::Lost(format!("{cause}, after its reply to the end of data"))),
    }
}

/// Whether a refusal of MAIL is about its coming early: the wrong moment, or in so many words.
pub(super) fn is_unwelcome(reply: &Reply) -> bool {
    let words = reply.text.to_lowercase();
    reply.code == 503
        || ["pipelin", "synchroni", "early talk"]
            .iter()
            .any(|word| words.contains(word))
}

#[cfg(test)]
mod tests {
    use super::super::super::reply::parse;
    use super::*;

    fn refused(stage: Stage, text: &str) -> Result<(), Failure> {
        let reply = parse(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0;
        Err(Failure::new(stage, Cause::Reply(reply)))
    }

    #[test]
    fn an_answer_to_what_was_written_ahead_says_how_it_was_taken() {
        let refusal = |text: &str| Some(Sign::Refused(text.to_owned()));
        let lost = |text: &str| Some(Sign::Lost(text.to_owned()));
        let haraka = "503 Bad sequence of commands - pipelined after end of DATA";
        let gone = "the relay closed the connection, after its reply to the end of data";
        for (begun, sign) in [
            (Ok(()), Some(Sign::Taken)),
            (refused(Stage::Mail, haraka), refusal(haraka)),
            (
                refused(Stage::Mail, "554 5.5.1 Error: SMTP protocol synchronization"),
                refusal("554 5.5.1 Error: SMTP protocol synchronization"),
            ),
            (refused(Stage::Mail, "421 4.3.2 bye"), lost("421 4.3.2 bye")),
            (refused(Stage::Rcpt, "421 4.3.2 bye"), lost("421 4.3.2 bye")),
            (refused(Stage::Mail, "550 5.7.1 this sender is not yours"), None),
            (refused(Stage::Mail, "452 4.5.3 too many messages"), None),
            (refused(Stage::Rcpt, "550 5.1.1 nobody here"), Some(Sign::Taken)),
            (refused(Stage::Data, "451 4.3.0 later"), Some(Sign::Taken)),
            (Err(Failure::new(Stage::Mail, Cause::Closed)), lost(gone)),
        ] {
            assert_eq!(sign_of(&begun), sign, "{begun:?}");
        }
    }
}
