//! What went wrong when a message was handed over: at which stage, and why. Never says what to do
//! about it: that is `verdict`.

use std::fmt;
use std::time::Duration;

use super::reply::Reply;
use crate::domain::message::{REPLY_TEXT_MAX, ReplyNote, clip};

/// How far a session had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Name lookup and TCP.
    Connect,
    Banner,
    Ehlo,
    /// The STARTTLS command and every TLS handshake.
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The content is being written; its end is not out.
    Body,
    /// The end of data is out.
    FinalDot,
    Reset,
}

impl Stage {
    /// As shown and logged.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Connect => "connect",
            Stage::Banner => "banner",
            Stage::Ehlo => "EHLO",
            Stage::StartTls => "STARTTLS",
            Stage::Auth => "AUTH",
            Stage::Mail => "MAIL",
            Stage::Rcpt => "RCPT",
            Stage::Data => "DATA",
            Stage::Body => "message content",
            Stage::FinalDot => "end of data",
            Stage::Reset => "RSET",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a stage failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The relay refused: a valid 4yz or 5yz reply.
    Reply(Reply),
    /// The operating system said so: refused, reset, unreachable, unknown host.
    Io(String),
    /// Nothing came (or nothing could be written) for this long.
    Timeout(Duration),
    /// The relay closed the connection, or it was closed already.
    Closed,
    /// The relay's answers do not fit our commands: which answer belongs to what is unknown, and
    /// none of them may be believed.
    Desync(String),
    /// The handshake failed, the certificate is not good, or the encryption broke.
    Tls(String),
    /// The relay does not offer what the configuration demands.
    Unsupported(String),
    /// The message is larger than the relay said it takes (RFC 1870). Bytes.
    TooLarge { size: usize, limit: usize },
    /// The envelope needs SMTPUTF8 (RFC 6531) and the relay does not offer it.
    NoSmtpUtf8,
}

/// A failed stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {cause}")]
pub struct Failure {
    pub stage: Stage,
    pub cause: Cause,
    /// Whether the last byte of the end of data may have reached the relay. From then on only a
    /// valid reply tells whether the message was taken.
    pub end_of_data_written: bool,
}

impl Failure {
    /// A failure before any end of data.
    #[must_use]
    pub fn new(stage: Stage, cause: Cause) -> Self {
        Self {
            stage,
            cause,
            end_of_data_written: false,
        }
    }

    /// As it is kept and shown: the reply, or what happened instead of one.
    #[must_use]
    pub fn note(&self) -> ReplyNote {
        match &self.cause {
            Cause::Reply(reply) => reply.note(),
            _ => ReplyNote {
                text: clip(&self.to_string(), REPLY_TEXT_MAX),
                ..ReplyNote::default()
            },
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Reply(reply) => write!(f, "{reply}"),
            Cause::Io(what) | Cause::Unsupported(what) => f.write_str(what),
            Cause::Timeout(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Cause::Closed => f.write_str("the relay closed the connection"),
            Cause::Desync(what) => write!(f, "the relay's replies are out of step: {what}"),
            Cause::Tls(what) => write!(f, "TLS: {what}"),
            Cause::TooLarge { size, limit } => {
                write!(f, "the message has {size} bytes and the relay takes {limit}")
            }
            Cause::NoSmtpUtf8 => f.write_str("the address needs SMTPUTF8, which the relay does not offer"),
        }
    }
}
