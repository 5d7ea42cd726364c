//! Stage 4, compose: a broadcast's letter and a recipient → the bytes on the wire. Never twice per broadcast: what its
//! messages have in common is prepared once and kept while chunks of it are at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::broadcast::{Brief, OnUncertain};
use crate::domain::id::BroadcastId;
use crate::domain::time::Timestamp;
use crate::domain::token::SecretKey;
use crate::mime::{Composer, Setup};
use crate::store::{Result, Store};
use crate::template::Newsletter;

/// Broadcasts kept prepared: more than a worker has jobs at once, few enough that even the largest
/// templates stay under some ten megabytes.
const PREPARED_MAX: usize = 32;

/// A broadcast ready to be composed.
pub struct Prepared {
    pub composer: Composer,
    /// The planned start, else the acceptance; the age of its messages counts from here.
    pub date: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub on_uncertain: OnUncertain,
}

/// Prepares broadcasts and keeps the latest ones.
pub struct Desk {
    secret: SecretKey,
    public_url: Arc<str>,
    kept: Mutex<HashMap<BroadcastId, Arc<Prepared>>>,
}

impl Desk {
    #[must_use]
    pub fn new(secret: SecretKey, public_url: Arc<str>) -> Self {
        Self {
            secret,
            public_url,
            kept: Mutex::default(),
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
            if kept.len() >= PREPARED_MAX {
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
            public_url: &self.public_url,
            unsubscribe_mailto: None,
        };
        let composer = Composer::new(&setup).map_err(|e| e.to_string())?;
        Ok(Prepared {
            composer,
            date: brief.date,
            expires_at: brief.expires_at,
            on_uncertain: brief.on_uncertain,
        })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<BroadcastId, Arc<Prepared>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
