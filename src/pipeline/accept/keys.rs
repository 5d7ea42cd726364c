//! Idempotency-Keys in this process: which are being worked on. What was answered before stands in the store,
//! and two nodes that race are settled there.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::problem::FieldProblem;

/// Longest Idempotency-Key in characters: it is part of a primary key.
pub const KEY_CHARS_MAX: usize = 255;

/// An Idempotency-Key and whose it is. Keys of different owners never meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    pub owner: String,
    pub key: String,
}

impl IdempotencyKey {
    /// # Errors
    /// The key is empty, longer than [`KEY_CHARS_MAX`], or not printable ASCII.
    pub fn parse(owner: &str, key: &str) -> Result<Self, FieldProblem> {
        if key.is_empty() || key.len() > KEY_CHARS_MAX || !key.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            let detail = format!("the Idempotency-Key must have 1 to {KEY_CHARS_MAX} printable ASCII characters");
            return Err(FieldProblem::new("#", "invalid_idempotency_key", detail));
        }
        Ok(Self {
            owner: owner.to_owned(),
            key: key.to_owned(),
        })
    }
}

/// The keys that are being worked on. Clones share the set.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<HashSet<IdempotencyKey>>>);

impl InFlight {
    /// Enters a key until the guard is dropped, which happens however the request ends. `None` when somebody
    /// else works on it.
    pub fn enter(&self, key: &IdempotencyKey) -> Option<Entered> {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.insert(key.clone()).then(|| Entered {
            set: self.clone(),
            key: key.clone(),
        })
    }
}

/// A key that is being worked on.
#[derive(Debug)]
pub(super) struct Entered {
    set: InFlight,
    key: IdempotencyKey,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.set
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_free_again_when_its_request_ends() {
        let keys = InFlight::default();
        let key = IdempotencyKey::parse("k1", "order-7").unwrap();
        let entered = keys.enter(&key);
        assert!(entered.is_some() && keys.enter(&key).is_none());
        assert!(keys.enter(&IdempotencyKey::parse("k2", "order-7").unwrap()).is_some());
        drop(entered);
        assert!(keys.enter(&key).is_some());
    }

    #[test]
    fn keys_are_short_and_printable() {
        assert!(IdempotencyKey::parse("k", "").is_err());
        assert!(IdempotencyKey::parse("k", "a\u{7}").is_err());
        assert!(IdempotencyKey::parse("k", &"x".repeat(256)).is_err());
        assert!(IdempotencyKey::parse("k", &"x".repeat(255)).is_ok());
    }
}
