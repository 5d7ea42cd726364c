//! What is wrong with a request, said so that the person who wrote it can mend it. Never a panic's or a
//! database's words: those are nobody's business outside.

use serde::Serialize;

use crate::domain::message::clip;
use crate::store::StoreError;

/// Most problems listed in one answer: enough to see the pattern, few enough to read.
pub const PROBLEMS_SHOWN_MAX: usize = 20;
/// Most bytes of somebody else's text that are repeated in an answer.
pub const QUOTED_BYTES_MAX: usize = 80;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldProblem {
    /// RFC 6901 pointer as a URI fragment, such as `#/recipients/12/email`. Recipients count from 0 in the
    /// order given, whatever the format of the body.
    pub pointer: String,
    /// Stable and made for programs, such as `invalid_address`.
    pub code: &'static str,
    /// A sentence that names the fix.
    pub detail: String,
    /// The line of an NDJSON or CSV body, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

impl FieldProblem {
    #[must_use]
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
            line: None,
        }
    }

    #[must_use]
    pub fn on_line(mut self, line: Option<u64>) -> Self {
        self.line = line;
        self
    }
}

/// Why a request was not taken. Nothing is stored in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The body does not have the form it claims to have: broken JSON, broken gzip.
    #[error("the body cannot be read: {}", .0.detail)]
    Malformed(FieldProblem),
    /// The body can be read, but not sent: the first problems, and how many there are.
    #[error("{total} problems")]
    Invalid { problems: Vec<FieldProblem>, total: i64 },
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// The client stopped sending, or never ends.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The client went away.
    #[error("the body ended before it was complete")]
    Disconnected,
    /// As many bodies are being read as there is room for.
    #[error("too many requests are being read")]
    Busy,
    /// A request with the same Idempotency-Key is being worked on.
    #[error("a request with this Idempotency-Key is still being worked on")]
    KeyInFlight,
    /// The Idempotency-Key was used for another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AcceptError {
    /// A request that is wrong in one place.
    #[must_use]
    pub fn invalid(problem: FieldProblem) -> Self {
        AcceptError::Invalid {
            problems: vec![problem],
            total: 1,
        }
    }
}

/// A pointer to a member: `#/headers` and `X-A/B` give `#/headers/X-A~1B`.
#[must_use]
pub fn member(pointer: &str, name: &str) -> String {
    let mut out = String::with_capacity(pointer.len() + name.len() + 1);
    out.push_str(pointer);
    out.push('/');
    for b in clip(name, QUOTED_BYTES_MAX).bytes() {
        match b {
            b'~' => out.push_str("~0"),
            b'/' => out.push_str("~1"),
            b'-' | b'_' | b'.' | b'@' | b'+' => out.push(char::from(b)),
            b if b.is_ascii_alphanumeric() => out.push(char::from(b)),
            // RFC 6901 6: what a URI fragment cannot hold is percent-encoded.
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Somebody else's text as it may be repeated in a sentence.
#[must_use]
pub fn quoted(text: &str) -> String {
    let cut = clip(text, QUOTED_BYTES_MAX);
    format!("'{}{}'", cut.escape_debug(), if cut.len() < text.len() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_survives_any_name() {
        assert_eq!(member("#", "email"), "#/email");
        assert_eq!(member("#/headers", "a/b~c d"), "#/headers/a~1b~0c%20d");
    }

    #[test]
    fn quotations_are_short_and_hold_no_control_characters() {
        let shown = quoted(&format!("a\nb{}", "x".repeat(500)));
        assert!(shown.len() < 100 && !shown.contains('\n') && shown.ends_with("…'"), "{shown}");
    }
}
