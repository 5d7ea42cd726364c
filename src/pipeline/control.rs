//! An operator's wishes for a broadcast: pause, resume, cancel. Each may be said twice. Never waits until the
//! workers have heard of it: they do within one commit.

use crate::domain::broadcast::{Broadcast, BroadcastStatus};
use crate::domain::id::BroadcastId;
use crate::domain::reason;
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
    #[error("its time has passed: nothing of it is sent any more")]
    TooLate,
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

/// Puts the failed messages of these classes back, to be tried again now. Without classes: of those that may pass another
/// time, once somebody has put right what was wrong. Returns how many, and the broadcast as it then stands.
///
/// # Errors
/// `NotFound`; `Over` when the broadcast was canceled, could not be split, or its time has passed.
pub async fn retry(
    store: &dyn Store,
    id: &BroadcastId,
    classes: Option<Vec<String>>,
    now: Timestamp,
) -> Result<(i64, Broadcast), ControlError> {
    let before = find(store, id).await?;
    let classes = classes.unwrap_or_else(|| {
        let may_pass = |r: &&reason::Reason| reason::may_pass_later(r.class);
        reason::REASONS
            .iter()
            .filter(may_pass)
            .map(|r| r.class.to_owned())
            .collect()
    });
    let mut messages = 0;
    loop {
        match store.retry_failed(id, &classes, now).await {
            Ok(step) => {
                messages += step.messages;
                if !step.has_more {
                    break;
                }
            }
            Err(StoreError::Conflict(_)) if before.expires_at.is_some_and(|at| at <= now) => {
                return Err(ControlError::TooLate);
            }
            Err(StoreError::Conflict(_)) => return Err(ControlError::Over(find(store, id).await?.status)),
            Err(e) => return Err(e.into()),
        }
    }
    tracing::info!(broadcast.id = %id, n_messages = messages, "Failed messages are tried again");
    Ok((messages, find(store, id).await?))
}

async fn find(store: &dyn Store, id: &BroadcastId) -> Result<Broadcast, ControlError> {
    store
        .broadcast(id)
        .await?
        .ok_or_else(|| ControlError::NotFound(id.clone()))
}
