//! The rows of the classification, facts only: codes of RFC 3463 and its registry, and the words that
//! relays and mailbox providers use. Never decides what a class means.

use super::super::failure::Stage;
use super::{At, Class, Codes, Rule, rule};

/// The table; the first row that fits decides.
pub(super) static RULES: &[Rule] = &[
    // What names itself beyond doubt.
    Rule {
        words: &["greylist", "graylist", "grey list", "gray list", "postgrey"],
        ..rule(4, Class::Greylisted)
    },
    Rule {
        words: &[
            "too many connections",
            "too many concurrent",
            "concurrent connections limit",
            "connection limit",
            "maximum number of concurrent",
            "too many sessions",
        ],
        ..rule(0, Class::TooManyConnections)
    },
    Rule {
        enhanced: Codes::Of(&[(5, 3)]),
        ..rule(0, Class::TooManyRecipients)
    },
    Rule {
        words: &["too many recipients"],
        ..rule(0, Class::TooManyRecipients)
    },
    Rule {
        words: &["synchronization error"],
        ..rule(0, Class::ProtocolError)
    },
    // Ahead of 5.7.9, which one large provider uses for its own policy.
    Rule {
        at: At::AfterMail,
        words: &["not accepted for policy reasons", "delivery restriction check failed"],
        ..rule(5, Class::PolicyOther)
    },
    // Our own quota with a relay for hire: it comes back.
    Rule {
        words: &[
            "sending limit",
            "sending quota",
            "daily message quota",
            "relay limit exceeded",
            "messages per second limit",
        ],
        ..rule(0, Class::RateLimited)
    },
    // Our own set-up towards this relay.
    Rule {
        words: &[
            "must issue a starttls",
            "starttls first",
            "tls required",
            "requires tls",
        ],
        ..rule(0, Class::TlsRequired)
    },
    Rule {
        enhanced: Codes::Of(&[(7, 10), (7, 29)]),
        ..rule(0, Class::TlsRequired)
    },
    Rule {
        codes: &[530, 534, 535, 538],
        ..rule(5, Class::AuthRequired)
    },
    Rule {
        enhanced: Codes::Of(&[(7, 8), (7, 9), (7, 11)]),
        ..rule(0, Class::AuthRequired)
    },
    Rule {
        words: &[
            "authentication required",
            "must authenticate",
            "not authenticated",
            "please authenticate",
        ],
        ..rule(5, Class::AuthRequired)
    },
    Rule {
        words: &[
            "relay access denied",
            "relaying denied",
            "relay denied",
            "unable to relay",
            "relaying not allowed",
            "not permitted to relay",
            "not allowed to relay",
            "relay not permitted",
            "relaying prohibited",
            "we do not relay",
            "no relaying",
            "relaying disallowed",
            "allowed rcpthosts",
        ],
        ..rule(5, Class::RelayDenied)
    },
    Rule {
        enhanced: Codes::Of(&[(7, 25)]),
        ..rule(0, Class::MissingPtr)
    },
    Rule {
        words: &[
            "reverse dns",
            "reverse hostname",
            "ptr record",
            "ptr resource",
            "no ptr",
            "rdns",
        ],
        ..rule(0, Class::MissingPtr)
    },
    // The sender, also when a relay only says so at RCPT.
    Rule {
        enhanced: Codes::Of(&[(1, 7), (1, 8)]),
        ..rule(0, Class::SenderRejected)
    },
    Rule {
        words: &[
            "sender address rejected",
            "sender rejected",
            "sender denied",
            "sender verify failed",
            "invalid sender",
            "permissions to send as this sender",
            "email address is not verified",
            "verified sender identity",
        ],
        ..rule(0, Class::SenderRejected)
    },
    // The sending domain's own records. 5.7.27 is a null MX of the sender (RFC 7505 4.2).
    Rule {
        enhanced: Codes::Range(7, 20, 27),
        ..rule(0, Class::AuthPolicy)
    },
    Rule {
        enhanced: Codes::Of(&[(7, 30), (7, 31), (7, 32), (7, 40), (7, 509), (7, 515)]),
        ..rule(0, Class::AuthPolicy)
    },
    Rule {
        words: &["dmarc", "dkim", "spf check", "spf fail", " spf "],
        ..rule(0, Class::AuthPolicy)
    },
    // Pace. Providers' own words and codes stand beside the standard's.
    Rule {
        enhanced: Codes::Of(&[(7, 0), (7, 28), (2, 1)]),
        ..rule(4, Class::RateLimited)
    },
    Rule {
        enhanced: Codes::Range(7, 500, 699),
        ..rule(4, Class::RateLimited)
    },
    Rule {
        words: &[
            "rate limit",
            "too many messages",
            "throttl",
            "ts04",
            "ts03",
            "rl0000",
            "too fast",
            "too quickly",
            "unusual rate",
            "temporarily deferred",
            "rate exceeded",
            "exceeded the rate",
            "message limit",
        ],
        ..rule(4, Class::RateLimited)
    },
    // Reputation and content.
    Rule {
        enhanced: Codes::Of(&[(7, 28), (7, 511)]),
        ..rule(5, Class::ReputationBlock)
    },
    Rule {
        words: &[
            "spamhaus",
            "blocklist",
            "block list",
            "blacklist",
            "black list",
            "dnsbl",
            " rbl",
            "s3150",
            "reputation",
            "barracuda",
            "spamcop",
            "sorbs",
            "blocked using",
            "is listed",
            "banned sending ip",
            "traffic not accepted from this ip",
            "ipcheck.proofpoint",
        ],
        ..rule(0, Class::ReputationBlock)
    },
    Rule {
        words: &[
            "spam",
            "virus",
            "malware",
            "phish",
            "unsolicited",
            "content rejected",
            "content denied",
            "potential security issue",
            "message content",
        ],
        ..rule(0, Class::SpamContent)
    },
    // The mailbox.
    Rule {
        enhanced: Codes::Of(&[(2, 2)]),
        ..rule(0, Class::MailboxFull)
    },
    Rule {
        words: &[
            "mailbox full",
            "mailbox is full",
            "over quota",
            "overquota",
            "quota exceeded",
            "exceeded storage",
            "inbox is full",
        ],
        ..rule(0, Class::MailboxFull)
    },
    Rule {
        enhanced: Codes::Of(&[(2, 3), (3, 4)]),
        ..rule(5, Class::MessageTooLarge)
    },
    Rule {
        words: &[
            "message size exceeds",
            "message too large",
            "message too big",
            "size limit",
            "maximum message size",
        ],
        ..rule(5, Class::MessageTooLarge)
    },
    Rule {
        enhanced: Codes::Of(&[(2, 1), (7, 13)]),
        ..rule(5, Class::InactiveMailbox)
    },
    // Ahead of 5.1.10, which is a null MX (RFC 7505) to all but one.
    Rule {
        at: At::AfterMail,
        words: &["recipientnotfound"],
        ..rule(5, Class::InvalidRecipient)
    },
    // "No such", first of domains: "domain does not exist" holds the words of the other.
    Rule {
        at: At::AfterMail,
        enhanced: Codes::Of(&[(1, 2), (1, 10), (4, 4)]),
        ..rule(5, Class::BadDomain)
    },
    Rule {
        at: At::AfterMail,
        codes: &[556],
        ..rule(5, Class::BadDomain)
    },
    Rule {
        at: At::AfterMail,
        words: &[
            "domain not found",
            "host not found",
            "no such domain",
            "domain does not exist",
            "unknown domain",
            "nxdomain",
            "null mx",
            "nullmx",
            "host or domain name not found",
        ],
        ..rule(5, Class::BadDomain)
    },
    Rule {
        at: At::AfterMail,
        enhanced: Codes::Of(&[(1, 1), (1, 3), (1, 6)]),
        ..rule(5, Class::InvalidRecipient)
    },
    Rule {
        at: At::AfterMail,
        enhanced: Codes::Of(&[(4, 1)]),
        words: &["access denied"],
        ..rule(5, Class::InvalidRecipient)
    },
    Rule {
        at: At::AfterMail,
        words: &[
            "account disabled",
            "account is disabled",
            "mailbox disabled",
            "mailbox is disabled",
            "suspended",
            "inactive",
            "deactivated",
            "no longer active",
        ],
        ..rule(5, Class::InactiveMailbox)
    },
    Rule {
        at: At::AfterMail,
        words: &[
            "user unknown",
            "unknown user",
            "no such user",
            "no such recipient",
            "no such mailbox",
            "no such address",
            "no such account",
            "does not exist",
            "doesn't exist",
            "user not found",
            "mailbox not found",
            "recipient not found",
            "unknown recipient",
            "invalid recipient",
            "invalid mailbox",
            "no mailbox here",
            "unknown mailbox",
            "not a known user",
            "recipient unknown",
            "unrouteable address",
            "doesn't have a",
        ],
        ..rule(5, Class::InvalidRecipient)
    },
    // Everything else by what the codes say.
    // RFC 5321 4.5.3.1.10: a bare 552 to RCPT is an old way to say 452.
    Rule {
        at: At::Only(Stage::Rcpt),
        codes: &[552],
        enhanced: Codes::Missing,
        ..rule(5, Class::TooManyRecipients)
    },
    Rule {
        codes: &[552],
        ..rule(5, Class::MessageTooLarge)
    },
    Rule {
        enhanced: Codes::Range(6, 0, 999),
        ..rule(0, Class::ContentEncoding)
    },
    Rule {
        codes: &[500, 501, 502, 503, 504, 555],
        ..rule(5, Class::ProtocolError)
    },
    Rule {
        // Not 5.5.0: it stands beside refusals of every kind.
        enhanced: Codes::Range(5, 1, 999),
        ..rule(0, Class::ProtocolError)
    },
    Rule {
        at: At::Only(Stage::Mail),
        ..rule(5, Class::SenderRejected)
    },
    Rule {
        enhanced: Codes::Of(&[(3, 1)]),
        ..rule(4, Class::SystemFull)
    },
    Rule {
        words: &["insufficient system", "disk full", "no space"],
        ..rule(4, Class::SystemFull)
    },
    Rule {
        enhanced: Codes::Range(7, 0, 999),
        ..rule(0, Class::PolicyOther)
    },
    Rule {
        enhanced: Codes::Range(3, 0, 999),
        ..rule(0, Class::SystemError)
    },
    Rule {
        enhanced: Codes::Of(&[(4, 1), (4, 2)]),
        ..rule(4, Class::Network)
    },
    Rule {
        enhanced: Codes::Range(4, 0, 999),
        ..rule(0, Class::Routing)
    },
    Rule {
        at: At::Only(Stage::Banner),
        ..rule(5, Class::ReputationBlock)
    },
    Rule {
        codes: &[421, 451, 452],
        ..rule(4, Class::SystemError)
    },
];
