//! What a broadcast says: sender, subject, HTML and text sources, headers. Never compiled here.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::address::EmailAddress;

/// Most bytes of one template source (subject, HTML or text): Gmail clips mails beyond about 102 KB,
/// and what a template compiles to is kept in memory while its broadcast runs.
pub const SOURCE_BYTES_MAX: usize = 256 * 1024;
/// Most custom headers of a broadcast.
pub const HEADERS_MAX: usize = 20;

/// Most attachments of a broadcast.
pub const ATTACHMENTS_MAX: usize = 10;
/// Most bytes of all attachments of a broadcast together. Every recipient gets a copy: with this, a broadcast to a hundred
/// thousand is 280 GB on the wire, and each open connection holds one message in memory. What is larger belongs behind a link.
pub const ATTACHMENTS_BYTES_MAX: usize = 2 * 1024 * 1024;

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

/// A file that goes with every message of a broadcast, checked when it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub filename: String,
    /// Such as `application/pdf`, parameters allowed.
    pub content_type: String,
    /// The name under which the HTML shows it, as `<img src="cid:NAME">`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    /// Base64 without line breaks.
    pub content: String,
}

/// Data that all messages of a broadcast share: a JSON object, kept as text, so that every number stays as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SharedData(Box<RawValue>);

impl SharedData {
    /// `None` when the text is not a JSON object.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let raw = RawValue::from_string(text.trim().to_owned()).ok()?;
        raw.get().starts_with('{').then_some(Self(raw))
    }

    /// The JSON text.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

impl Default for SharedData {
    fn default() -> Self {
        serde_json::Map::new().into()
    }
}

impl From<serde_json::Map<String, serde_json::Value>> for SharedData {
    fn from(map: serde_json::Map<String, serde_json::Value>) -> Self {
        Self(serde_json::value::to_raw_value(&map).expect("a JSON object always serialises"))
    }
}

impl PartialEq for SharedData {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for SharedData {}

/// Everything that all messages of one broadcast have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    pub from: Mailbox,
    pub reply_to: Option<Mailbox>,
    pub content: Content,
    /// Custom headers, checked against the allow-list when they were accepted.
    pub headers: Vec<(String, String)>,
    /// The same for every recipient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Shared defaults for the template; a recipient's own data wins.
    pub data: SharedData,
}
