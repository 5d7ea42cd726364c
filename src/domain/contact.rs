//! The stored audience: contacts and lists, and the addresses that must not be mailed.

use serde::Serialize;
use serde_json::value::RawValue;

use super::id::ListId;
use super::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContactStatus {
    Subscribed,
    Unsubscribed,
}

impl ContactStatus {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ContactStatus::Subscribed => "subscribed",
            ContactStatus::Unsubscribed => "unsubscribed",
        }
    }
}

/// What is said of a contact whose data the database has lost.
pub const DATA_DAMAGED: &str = "the contact's data cannot be read; import the contact anew with its data, or delete it";

/// One person of the stored audience.
#[derive(Debug, Clone, Serialize)]
pub struct Contact {
    pub email: String,
    pub name: Option<String>,
    /// A JSON object, as it was given.
    pub data: Box<RawValue>,
    /// What of it cannot be read, and what to do.
    pub damage: Option<&'static str>,
    pub status: ContactStatus,
    pub subscribed_at: Timestamp,
}

/// A named set of contacts.
#[derive(Debug, Clone, Serialize)]
pub struct List {
    pub id: ListId,
    pub name: String,
    /// Subscribed contacts on it.
    pub contacts: i64,
    pub created_at: Timestamp,
}

/// Why an address must not be mailed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SuppressionReason {
    Unsubscribed,
    HardBounce,
    Complaint,
    Manual,
}

impl SuppressionReason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SuppressionReason::Unsubscribed => "unsubscribed",
            SuppressionReason::HardBounce => "hard_bounce",
            SuppressionReason::Complaint => "complaint",
            SuppressionReason::Manual => "manual",
        }
    }
}

/// An address that must not be mailed, with reason and source.
#[derive(Debug, Clone, Serialize)]
pub struct Suppression {
    /// Normalised.
    pub email: String,
    pub reason: String,
    /// Where it came from: a broadcast's id, `api`, `ui`, `import`.
    pub source: String,
    pub created_at: Timestamp,
}
