//! An operator's wishes for a broadcast: pause, resume, cancel. Each may be said twice. Never waits until the
//! workers have heard of it: they do within one commit.

use crate::domain::broadcast::{Broadcast, BroadcastStatus};
use crate::domain::id::BroadcastId;
use crate::domain::time::Timestamp;
use crate::store::queue::Wish;
use crate::store::{Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("there is no broadcast {0}")]
    NotFound(BroadcastId),
    /// The broadcast is over; its status says how.
    #[error("a broadcast that is {0} cannot be changed any more")]
    Over(BroadcastStatus),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Does what the operator wishes, and returns the broadcast as it then stands.
///
/// # Errors
/// `NotFound`; `Over` when the broadcast has come to another end before. Canceling what is canceled is no error.
pub async fn control(
    store: &dyn Store,
    id: &BroadcastId,
    wish: &Wish,
    now: Timestamp,
) -> Result<Broadcast, ControlError> {
    let before = find(store, id).await?;
    if before.status == BroadcastStatus::Canceled && *wish == Wish::Cancel {
        return Ok(before);
    }
    if before.status.is_final() {
        return Err(ControlError::Over(before.status));
    }
    match store.control(id, wish, now).await {
        Ok(()) => find(store, id).await,
        // It came to its end in between.
        Err(StoreError::Conflict(_)) => Err(ControlError::Over(find(store, id).await?.status)),
        Err(e) => Err(e.into()),
    }
}

async fn find(store: &dyn Store, id: &BroadcastId) -> Result<Broadcast, ControlError> {
    store
        .broadcast(id)
        .await?
        .ok_or_else(|| ControlError::NotFound(id.clone()))
}
