//! The stored audience: contacts, lists, suppressions. Never decides who gets a broadcast: the fan-out
//! reads, and a claim reads suppressions again.

use async_trait::async_trait;

use super::error::Result;
use super::reports::Slice;
use crate::domain::contact::{Contact, List, Suppression, SuppressionReason};
use crate::domain::id::ListId;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;

#[async_trait]
pub trait Audience: Send + Sync {
    async fn create_list(&self, id: &ListId, name: &str, now: Timestamp) -> Result<()>;

    async fn lists(&self) -> Result<Vec<List>>;

    async fn list(&self, id: &ListId) -> Result<Option<List>>;

    async fn delete_list(&self, id: &ListId) -> Result<bool>;

    /// Adds or updates contacts, and puts them on a list if one is named. Somebody who unsubscribed
    /// stays unsubscribed. Returns how many contacts were new.
    async fn put_contacts(&self, contacts: &[Recipient], list: Option<&ListId>, now: Timestamp) -> Result<u64>;

    async fn contact(&self, normalised: &str) -> Result<Option<Contact>>;

    /// Contacts (of one list, or all) in the order of their sort keys.
    async fn contacts(&self, list: Option<&ListId>, after: Option<&str>, limit: i64) -> Result<Slice<Contact>>;

    async fn delete_contact(&self, normalised: &str) -> Result<bool>;

    /// Subscribed contacts on any of these lists, each counted once; all when `lists` is `None`.
    async fn count_subscribed(&self, lists: Option<&[ListId]>) -> Result<i64>;

    /// Suppresses addresses (normalised). One that is suppressed already keeps its first reason.
    /// A contact with the address becomes unsubscribed when that is the reason.
    async fn suppress(
        &self,
        addresses: &[String],
        reason: SuppressionReason,
        source: &str,
        now: Timestamp,
    ) -> Result<u64>;

    async fn unsuppress(&self, normalised: &str) -> Result<bool>;

    /// Suppressions in the order of addresses.
    async fn suppressions(&self, after: Option<&str>, limit: i64) -> Result<Slice<Suppression>>;

    async fn suppression(&self, normalised: &str) -> Result<Option<Suppression>>;
}
