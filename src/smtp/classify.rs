//! The reason class of a refusal: one table from what a relay said to a stable name. Never decides
//! what happens to the message; `verdict` does.
//!
//! The names are part of the API. Enhanced codes are looked at before words, words before bare
//! codes: a bare code says least, and a fifth of all relays uses one code for everything. An unknown
//! refusal is `unknown`, which suppresses nobody: to call every 5yz a bad address condemns more good
//! addresses than bad ones.

use std::fmt;
use std::time::Duration;

use super::failure::Stage;
use super::reply::Reply;

mod rules;

/// Why a message or a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    InvalidRecipient,
    BadDomain,
    InactiveMailbox,
    MailboxFull,
    MessageTooLarge,
    SystemFull,
    SystemError,
    Greylisted,
    RateLimited,
    TooManyRecipients,
    TooManyConnections,
    ReputationBlock,
    SpamContent,
    AuthPolicy,
    MissingPtr,
    TlsRequired,
    RelayDenied,
    AuthRequired,
    SenderRejected,
    PolicyOther,
    ContentEncoding,
    ProtocolError,
    Routing,
    /// No reply at all: connect, time-out, closed, TLS.
    Network,
    Unknown,
}

impl Class {
    pub const ALL: [Class; 25] = [
        Class::InvalidRecipient,
        Class::BadDomain,
        Class::InactiveMailbox,
        Class::MailboxFull,
        Class::MessageTooLarge,
        Class::SystemFull,
        Class::SystemError,
        Class::Greylisted,
        Class::RateLimited,
        Class::TooManyRecipients,
        Class::TooManyConnections,
        Class::ReputationBlock,
        Class::SpamContent,
        Class::AuthPolicy,
        Class::MissingPtr,
        Class::TlsRequired,
        Class::RelayDenied,
        Class::AuthRequired,
        Class::SenderRejected,
        Class::PolicyOther,
        Class::ContentEncoding,
        Class::ProtocolError,
        Class::Routing,
        Class::Network,
        Class::Unknown,
    ];

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::InvalidRecipient => "invalid_recipient",
            Class::BadDomain => "bad_domain",
            Class::InactiveMailbox => "inactive_mailbox",
            Class::MailboxFull => "mailbox_full",
            Class::MessageTooLarge => "message_too_large",
            Class::SystemFull => "system_full",
            Class::SystemError => "system_error",
            Class::Greylisted => "greylisted",
            Class::RateLimited => "rate_limited",
            Class::TooManyRecipients => "too_many_recipients",
            Class::TooManyConnections => "too_many_connections",
            Class::ReputationBlock => "reputation_block",
            Class::SpamContent => "spam_content",
            Class::AuthPolicy => "auth_policy",
            Class::MissingPtr => "missing_ptr",
            Class::TlsRequired => "tls_required",
            Class::RelayDenied => "relay_denied",
            Class::AuthRequired => "auth_required",
            Class::SenderRejected => "sender_rejected",
            Class::PolicyOther => "policy_other",
            Class::ContentEncoding => "content_encoding",
            Class::ProtocolError => "protocol_error",
            Class::Routing => "routing",
            Class::Network => "network",
            Class::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One row: all that is given must hold.
struct Rule {
    /// `4` or `5`; `0` is either.
    digit: u8,
    at: At,
    /// Any of these codes; empty is any code.
    codes: &'static [u16],
    enhanced: Codes,
    /// Any of these, in lower case, within the text; empty is any text.
    words: &'static [&'static str],
    class: Class,
}

/// Where in the session a rule holds.
enum At {
    Anywhere,
    Only(Stage),
    /// Where the recipient or the content is judged.
    AfterMail,
}

/// Which enhanced codes a rule is about, as (subject, detail).
enum Codes {
    Any,
    /// There is none: the reply has only its bare code.
    Missing,
    Of(&'static [(u16, u16)]),
    /// A range of details of one subject, both ends included.
    Range(u16, u16, u16),
}

const fn rule(digit: u8, class: Class) -> Rule {
    Rule {
        digit,
        at: At::Anywhere,
        codes: &[],
        enhanced: Codes::Any,
        words: &[],
        class,
    }
}

/// The class of a 4yz or 5yz reply at a stage.
#[must_use]
pub fn classify(stage: Stage, reply: &Reply) -> Class {
    let text = reply.text.to_lowercase();
    let fits = |rule: &&Rule| rule.fits(stage, reply, &text);
    rules::RULES.iter().find(fits).map_or(Class::Unknown, |rule| rule.class)
}

impl Rule {
    fn fits(&self, stage: Stage, reply: &Reply, text: &str) -> bool {
        (self.digit == 0 || self.digit == reply.digit())
            && self.at.holds(stage)
            && (self.codes.is_empty() || self.codes.contains(&reply.code))
            && self.enhanced.fits(reply)
            && (self.words.is_empty() || self.words.iter().any(|word| text.contains(word)))
    }
}

impl At {
    fn holds(&self, stage: Stage) -> bool {
        match self {
            At::Anywhere => true,
            At::Only(only) => *only == stage,
            At::AfterMail => stage > Stage::Mail,
        }
    }
}

impl Codes {
    fn fits(&self, reply: &Reply) -> bool {
        let code = reply.enhanced.map(|e| (e.subject, e.detail));
        match (self, code) {
            (Codes::Any, _) | (Codes::Missing, None) => true,
            (Codes::Of(list), Some(code)) => list.contains(&code),
            (Codes::Range(subject, first, last), Some((s, d))) => s == *subject && (*first..=*last).contains(&d),
            _ => false,
        }
    }
}

/// Longest wait a relay may ask for. What asks for more is not a pause but a refusal in disguise.
const HINT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Added to what the relay asks for: its clock and ours start at different moments.
const HINT_MARGIN: Duration = Duration::from_secs(10);

/// How long the relay asks us to wait: "try again in 5 minutes", "greylisted for 300 seconds". A little
/// is added. `None` when the text names no time.
#[must_use]
pub fn retry_hint(text: &str) -> Option<Duration> {
    let text = text.to_lowercase();
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || "()[],;:".contains(c))
        .collect();
    let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
    let wait = (0..words.len()).find_map(|n| match &words[n..] {
        ["in" | "after" | "for" | "within", amount, rest @ ..] => span(amount, rest.first().copied().unwrap_or("")),
        _ => None,
    })?;
    (wait <= HINT_MAX).then_some(wait + HINT_MARGIN)
}

/// "5 minutes" or "300s".
fn span(amount: &str, next_word: &str) -> Option<Duration> {
    let n_digits = amount.find(|c: char| !c.is_ascii_digit()).unwrap_or(amount.len());
    let (amount, unit) = amount.split_at(n_digits);
    let unit = if unit.is_empty() { next_word } else { unit };
    let secs = amount.parse::<u64>().ok()?.checked_mul(unit_secs(unit)?)?;
    Some(Duration::from_secs(secs))
}

fn unit_secs(unit: &str) -> Option<u64> {
    match unit.trim_end_matches('.') {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(3600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::rules::RULES;
    use super::*;

    #[test]
    fn a_wait_that_is_asked_for_is_understood() {
        for (text, secs) in [
            ("Greylisted, please try again in 300 seconds", 310),
            ("try again in 5 minutes.", 310),
            ("4.7.1 greylisted for 60s, see https://example.org", 70),
            ("Retry after 1 hour", 3610),
            ("throttled (in 2 min)", 130),
        ] {
            assert_eq!(retry_hint(text), Some(Duration::from_secs(secs)), "{text}");
        }
        for text in [
            "try again later",
            "in a moment",
            "in 5 business days",
            "in 99999999999999999999 s",
            "after 900 hours",
            "in 5",
        ] {
            assert_eq!(retry_hint(text), None, "{text}");
        }
    }

    #[test]
    fn every_row_of_the_table_can_be_reached() {
        // A row that an earlier one always beats is a mistake in the order.
        let words_of = |rule: &Rule| rule.words.iter().map(|w| format!("x {w} x")).collect::<Vec<_>>();
        for (n, rule) in RULES.iter().enumerate() {
            let texts = if rule.words.is_empty() {
                vec!["x".to_owned()]
            } else {
                words_of(rule)
            };
            let stage = match rule.at {
                At::Only(stage) => stage,
                At::Anywhere | At::AfterMail => Stage::FinalDot,
            };
            let digit = if rule.digit == 0 { 5 } else { rule.digit };
            let code = rule.codes.last().copied().unwrap_or(u16::from(digit) * 100 + 50);
            let enhanced = match rule.enhanced {
                Codes::Any | Codes::Missing => None,
                Codes::Of(list) => list.last().copied(),
                Codes::Range(subject, _, last) => Some((subject, last)),
            };
            let enhanced = enhanced.map(|(subject, detail)| super::super::reply::Enhanced {
                class: digit,
                subject,
                detail,
            });
            for text in texts {
                let reply = Reply { code, enhanced, text };
                let first = RULES.iter().position(|r| r.fits(stage, &reply, &reply.text)).unwrap();
                assert_eq!(first, n, "row {first} comes before row {n} for {reply}");
            }
        }
    }
}
