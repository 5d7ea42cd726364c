//! The stored audience: contacts and lists, and the addresses that must not be mailed.

use serde::Serialize;

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

/// One person of the stored audience.
#[derive(Debug, Clone, Serialize)]
pub struct Contact {
    pub email: String,
    pub name: Option<String>,
    pub data: serde_json::Map<String, serde_json::Value>,
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
