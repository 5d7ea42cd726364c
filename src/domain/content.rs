//! What a broadcast says: sender, subject, HTML and text sources, headers. Never compiled here.

use serde::{Deserialize, Serialize};

use super::address::EmailAddress;

/// Most bytes of one template source (subject, HTML or text): Gmail clips mails beyond about 102 KB,
/// and what a template compiles to is kept in memory while its broadcast runs.
pub const SOURCE_BYTES_MAX: usize = 256 * 1024;
/// Most custom headers of a broadcast.
pub const HEADERS_MAX: usize = 20;

/// A mailbox with an optional display name, as in `From` and `Reply-To`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    pub email: EmailAddress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
}

/// The sources of a newsletter, written by people in minijinja's language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub subject: String,
    /// At least one of `html` and `text` is given; a missing text part is made from the HTML.
    pub html: Option<String>,
    pub text: Option<String>,
}

/// Everything that all messages of one broadcast have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    pub from: Mailbox,
    pub reply_to: Option<Mailbox>,
    pub content: Content,
    /// Custom headers, checked against the allow-list when they were accepted.
    pub headers: Vec<(String, String)>,
    /// Shared defaults for the template; a recipient's own data wins. A JSON object.
    pub data: serde_json::Map<String, serde_json::Value>,
}
