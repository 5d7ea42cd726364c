//! Stage 4, compose: a broadcast's letter and a recipient → the bytes on the wire. Never twice per broadcast: what its
//! messages have in common is prepared once and kept while chunks of it are at hand. Never holds up the connections: what
//! takes long, as a signature does, is done on threads beside theirs.

use std::collections::HashMap;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::domain::broadcast::Brief;
use crate::domain::id::BroadcastId;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::domain::token::SecretKey;
use crate::mime::{Composed, Composer, Setup};
use crate::store::{Result, Store};
use crate::template::Newsletter;

/// Broadcasts kept prepared: more than a worker has jobs at once, few enough that even the largest
/// templates stay under some ten megabytes.
const PREPARED_MAX: usize = 32;

/// Bytes of encoded attachments that are kept with them, some twelve broadcasts with the most that each may have.
const HELD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A broadcast ready to be composed.
pub struct Prepared {
    pub composer: Composer,
    /// The planned start, else the acceptance; the age of its messages counts from here.
    pub date: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// The only relay that may carry it; `None` is any.
    pub relay: Option<String>,
    /// Room for costly messages of all broadcasts: one for each core, so that signing uses them all, and no more of it waits
    /// in threads than can be worked on.
    bench: Arc<Semaphore>,
}

impl Prepared {
    /// The message for one recipient, or a sentence that says why there is none. Plain messages take some 20 µs and are
    /// composed here and now; costly ones (signed, or with large attachments) on another thread, when there is room. A
    /// template that makes the program panic is a template that cannot be rendered: it costs its own messages only.
    ///
    /// # Errors
    /// The newsletter cannot be rendered for this recipient.
    pub async fn compose(self: &Arc<Self>, recipient: &Recipient) -> std::result::Result<Composed, String> {
        if !self.composer.is_costly() {
            return composed(&self.composer, recipient);
        }
        let room = Arc::clone(&self.bench).acquire_owned().await;
        let (this, recipient) = (Arc::clone(self), recipient.clone());
        let work = move || {
            let composed = composed(&this.composer, &recipient);
            drop(room);
            composed
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|_| Err("composing the message was broken off".to_owned()))
    }
}

fn composed(composer: &Composer, recipient: &Recipient) -> std::result::Result<Composed, String> {
    let compose = || composer.compose(recipient);
    let composed = catch_unwind(AssertUnwindSafe(compose)).map_err(|_| "composing the message broke".to_owned())?;
    composed.map_err(|e| e.to_string())
}

/// Prepares broadcasts and keeps the latest ones.
pub struct Desk {
    secret: SecretKey,
    public_url: Arc<str>,
    kept: Mutex<HashMap<BroadcastId, Arc<Prepared>>>,
    bench: Arc<Semaphore>,
}

impl Desk {
    #[must_use]
    pub fn new(secret: SecretKey, public_url: Arc<str>) -> Self {
        Self {
            secret,
            public_url,
            kept: Mutex::default(),
            bench: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get))),
        }
    }

    /// The broadcast, prepared; the inner error is a sentence that concerns all of its messages.
    ///
    /// # Errors
    /// Of the store.
    pub async fn prepare(
        &self,
        store: &dyn Store,
        id: &BroadcastId,
    ) -> Result<std::result::Result<Arc<Prepared>, String>> {
        if let Some(prepared) = self.kept().get(id) {
            return Ok(Ok(Arc::clone(prepared)));
        }
        let brief = store.brief(id).await?;
        Ok(self.compile(&brief).map(|prepared| {
            let prepared = Arc::new(prepared);
            let mut kept = self.kept();
            let held: usize = kept.values().map(|p| p.composer.held_bytes()).sum();
            if kept.len() >= PREPARED_MAX || held >= HELD_BYTES_MAX {
                kept.clear();
            }
            kept.insert(id.clone(), Arc::clone(&prepared));
            prepared
        }))
    }

    fn compile(&self, brief: &Brief) -> std::result::Result<Prepared, String> {
        let newsletter = Newsletter::compile(&brief.letter.content).map_err(|e| e.to_string())?;
        let setup = Setup {
            broadcast: &brief.id,
            letter: &brief.letter,
            newsletter: Arc::new(newsletter),
            date: brief.date,
            key: &self.secret,
            dkim_keys: &brief.dkim_keys,
            public_url: &self.public_url,
            unsubscribe_mailto: None,
        };
        let composer = Composer::new(&setup).map_err(|e| e.to_string())?;
        Ok(Prepared {
            composer,
            date: brief.date,
            expires_at: brief.expires_at,
            relay: brief.relay.clone(),
            bench: Arc::clone(&self.bench),
        })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<BroadcastId, Arc<Prepared>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
