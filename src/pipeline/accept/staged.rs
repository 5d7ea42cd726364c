//! What a request has stored before it is durable: staged runs, and the commit that makes them a broadcast.
//! Never leaves runs behind, however the request ends, except when nobody can know whether the commit took
//! effect: then they stay for the sweep, which removes only what no broadcast refers to.

use std::sync::Arc;

use super::keys::IdempotencyKey;
use super::problem::AcceptError;
use super::run::Run;
use super::{Checked, Taken, same_or_reused};
use crate::domain::broadcast::Audience;
use crate::domain::id::BroadcastId;
use crate::domain::time::Timestamp;
use crate::store::intake::{Accepted, IdempotencyClaim};
use crate::store::{Store, StoreError};

/// The staged runs of one request. Dropped without a word, they are discarded.
pub(super) struct Staged {
    store: Arc<dyn Store>,
    id: BroadcastId,
    /// Runs that may be in the store.
    runs: i64,
    /// Repeated addresses that were dropped from them.
    duplicates: i64,
}

impl Staged {
    pub fn new(store: Arc<dyn Store>, id: BroadcastId) -> Self {
        Self {
            store,
            id,
            runs: 0,
            duplicates: 0,
        }
    }

    /// Runs that are in the store.
    pub fn runs(&self) -> i64 {
        self.runs
    }

    pub async fn stage(&mut self, run: &Run, now: Timestamp) -> Result<(), AcceptError> {
        let number = self.runs;
        // Counted first: when this future is dropped half way, the run may be there.
        self.runs += 1;
        self.duplicates += run.duplicates;
        Ok(self.store.stage_run(&self.id, number, &run.pages, now).await?)
    }

    /// Makes the request durable.
    pub async fn commit(
        mut self,
        checked: Checked,
        key: Option<IdempotencyKey>,
        answer: String,
    ) -> Result<Taken, AcceptError> {
        if let Some(run) = &checked.last_run
            && let Err(e) = self.stage(run, checked.now).await
        {
            self.discard().await;
            return Err(e);
        }
        let mut broadcast = checked.broadcast;
        if let Audience::Inline { runs } = &mut broadcast.audience {
            *runs = self.runs;
            broadcast.duplicates = self.duplicates;
        }
        let claim = key.map(|key| IdempotencyClaim {
            owner: key.owner,
            key: key.key,
            body_hash: checked.hash.clone(),
            answer: answer.clone(),
        });
        match self.store.accept(&broadcast, claim.as_ref(), checked.now).await {
            Ok(Accepted::New) => {
                self.keep();
                Ok(Taken::Accepted {
                    id: broadcast.id.to_string(),
                    answer,
                })
            }
            Ok(Accepted::Replay(earlier)) => {
                self.discard().await;
                same_or_reused(&checked.hash, earlier)
            }
            Err(e @ StoreError::Unavailable(_)) => {
                self.keep();
                Err(e.into())
            }
            Err(e) => {
                self.discard().await;
                Err(e.into())
            }
        }
    }

    /// Removes what was staged. When that fails, the sweep does it.
    pub async fn discard(mut self) {
        if self.runs > 0 {
            self.runs = 0;
            discard(&*self.store, &self.id).await;
        }
    }

    fn keep(mut self) {
        self.runs = 0;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.runs == 0 {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (store, id) = (Arc::clone(&self.store), self.id.clone());
            runtime.spawn(async move { discard(&*store, &id).await });
        }
    }
}

async fn discard(store: &dyn Store, id: &BroadcastId) {
    if let Err(e) = store.discard_staged(id).await {
        tracing::warn!(broadcast.id = %id, error = %e, "Left staged recipients of broadcast {id} to the sweep");
    }
}
