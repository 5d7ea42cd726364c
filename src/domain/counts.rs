//! The counts of a broadcast, and the law they obey. Never estimated: they come from rows.

use serde::{Deserialize, Serialize};

use super::message::MessageStatus;

/// Messages by status. Their sum is the number of accepted, de-duplicated recipients:
/// the conservation law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub queued: i64,
    pub deferred: i64,
    pub sent: i64,
    pub failed: i64,
    pub suppressed: i64,
    pub uncertain: i64,
    pub canceled: i64,
    pub expired: i64,
}

impl Counts {
    #[must_use]
    pub fn get(&self, status: MessageStatus) -> i64 {
        match status {
            MessageStatus::Queued => self.queued,
            MessageStatus::Deferred => self.deferred,
            MessageStatus::Sent => self.sent,
            MessageStatus::Failed => self.failed,
            MessageStatus::Suppressed => self.suppressed,
            MessageStatus::Uncertain => self.uncertain,
            MessageStatus::Canceled => self.canceled,
            MessageStatus::Expired => self.expired,
        }
    }

    /// Adds `by` (which may be negative) to the count of one status.
    pub fn add(&mut self, status: MessageStatus, by: i64) {
        let slot = match status {
            MessageStatus::Queued => &mut self.queued,
            MessageStatus::Deferred => &mut self.deferred,
            MessageStatus::Sent => &mut self.sent,
            MessageStatus::Failed => &mut self.failed,
            MessageStatus::Suppressed => &mut self.suppressed,
            MessageStatus::Uncertain => &mut self.uncertain,
            MessageStatus::Canceled => &mut self.canceled,
            MessageStatus::Expired => &mut self.expired,
        };
        *slot += by;
    }

    #[must_use]
    pub fn total(&self) -> i64 {
        MessageStatus::ALL.iter().map(|&s| self.get(s)).sum()
    }

    /// Messages for which nothing more will be tried.
    #[must_use]
    pub fn settled(&self) -> i64 {
        self.total() - self.queued - self.deferred
    }
}

/// What came in, before the law applies: `received - rejected - duplicates` is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Received {
    pub received: i64,
    pub rejected: i64,
    pub duplicates: i64,
}

impl Received {
    #[must_use]
    pub fn accepted(&self) -> i64 {
        self.received - self.rejected - self.duplicates
    }
}
