//! One recipient's copy of a broadcast, and what became of it. Never decides: `smtp::verdict` does.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::time::Timestamp;

/// Longest reply text kept, in bytes: enough for a relay's sentence and its queue id.
pub const REPLY_TEXT_MAX: usize = 300;

/// The status of a message. `Queued` has no row: the chunk is the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    Queued,
    /// 4yz or no connection: another attempt is planned.
    Deferred,
    /// A relay answered 2yz to the end of data. Nothing less.
    Sent,
    /// 5yz, or our side gave up, with the reason class.
    Failed,
    /// The address must not be mailed.
    Suppressed,
    /// The end of data was written and no reply is known; policy `hold`.
    Uncertain,
    Canceled,
    Expired,
}

impl MessageStatus {
    pub const ALL: [MessageStatus; 8] = [
        MessageStatus::Queued,
        MessageStatus::Deferred,
        MessageStatus::Sent,
        MessageStatus::Failed,
        MessageStatus::Suppressed,
        MessageStatus::Uncertain,
        MessageStatus::Canceled,
        MessageStatus::Expired,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MessageStatus::Queued => "queued",
            MessageStatus::Deferred => "deferred",
            MessageStatus::Sent => "sent",
            MessageStatus::Failed => "failed",
            MessageStatus::Suppressed => "suppressed",
            MessageStatus::Uncertain => "uncertain",
            MessageStatus::Canceled => "canceled",
            MessageStatus::Expired => "expired",
        }
    }

    /// Whether nothing more will be tried for the message.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, MessageStatus::Queued | MessageStatus::Deferred)
    }
}

impl fmt::Display for MessageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MessageStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.iter().map(|s| s.as_str()).collect();
            format!("'{}' is not a message status; use one of {}", text.escape_debug(), all.join(", "))
        })
    }
}

/// What the relay said, as far as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReplyNote {
    /// The SMTP code; absent when no reply came.
    pub code: Option<u16>,
    /// The enhanced status code of RFC 3463, such as `5.1.1`.
    pub enhanced: Option<String>,
    /// The reply's text, or what happened instead of a reply; at most [`REPLY_TEXT_MAX`] bytes.
    pub text: String,
}

/// What one attempt came to, ready to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: MessageStatus,
    /// The reason class, a stable name such as `invalid_recipient`; empty for `sent`.
    pub class: &'static str,
    pub reply: ReplyNote,
    /// When to try again; only for `deferred`.
    pub next_at: Option<Timestamp>,
    /// Whether this try counts against the message (a relay's failure does not).
    pub counts_as_attempt: bool,
    /// Whether a copy may already have been accepted somewhere.
    pub possible_duplicate: bool,
}

/// Cuts a text to at most `max` bytes without splitting a character, dropping control characters.
#[must_use]
pub fn clip(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_back_by_their_names() {
        for s in MessageStatus::ALL {
            assert_eq!(s.as_str().parse::<MessageStatus>(), Ok(s));
        }
        assert!("delivered".parse::<MessageStatus>().is_err());
    }

    #[test]
    fn clipping_never_splits_a_character_and_drops_controls() {
        assert_eq!(clip("añb", 2), "a");
        assert_eq!(clip("a\r\nb", 10), "a  b");
    }
}
