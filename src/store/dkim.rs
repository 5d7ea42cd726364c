//! Keys that mail is signed with. Which of them sign a broadcast is decided once, when it is accepted, and stands beside its
//! letter; a key enabled or disabled later is for later broadcasts. Never gives a key away that a broadcast under way needs.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::dkim::DkimKey;
use crate::domain::id::DkimKeyId;
use crate::domain::time::Timestamp;

#[async_trait]
pub trait Dkim: Send + Sync {
    /// # Errors
    /// `Conflict` when the domain has a key under this selector.
    async fn create_dkim_key(&self, key: &DkimKey) -> Result<()>;

    /// All keys, by domain and selector.
    async fn dkim_keys(&self) -> Result<Vec<DkimKey>>;

    /// New broadcasts are signed with this key, and no longer with another one of the same domain and algorithm. `false`
    /// when there is no such key. Idempotent.
    async fn enable_dkim_key(&self, id: &DkimKeyId, now: Timestamp) -> Result<bool>;

    /// New broadcasts are not signed with this key any more. `false` when there is no such key. Idempotent.
    async fn disable_dkim_key(&self, id: &DkimKeyId) -> Result<bool>;

    /// Forgets a key. `false` when there is no such key.
    ///
    /// # Errors
    /// `Conflict` while a broadcast that is not over is signed with it: its later attempts would have other bytes than its
    /// first ones.
    async fn remove_dkim_key(&self, id: &DkimKeyId) -> Result<bool>;
}
