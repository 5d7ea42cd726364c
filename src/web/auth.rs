//! API keys: who asks, and what they may do. Never stores or logs a key, only the hash of its secret.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{constant_time, digest, rand};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{Kind, Problem};
use crate::clock::Clock;
use crate::domain::time::Timestamp;
use crate::store::Store;
use crate::store::access::ApiKey;

/// How long a key is believed without asking the store again: a revoked key dies on every node within this time,
/// and at once on the node that revoked it.
const BELIEVED_MS: i64 = 15_000;
/// A key's use is noted at most this often.
const TOUCHED_EVERY_MS: i64 = 60_000;
/// Keys held in memory; there are hardly ever more than a few.
const KEYS_HELD_MAX: usize = 10_000;
/// Random bytes of a secret. With 256 bits no slow hash is needed.
const SECRET_BYTES: usize = 32;
/// Random bytes of a key's public id.
const ID_BYTES: usize = 8;
/// Every key starts with this, so that it is found when it leaks into a repository.
const PREFIX: &str = "hk_";
/// The owner of what the bootstrap key does.
pub const BOOTSTRAP_OWNER: &str = "bootstrap";

/// What a key may do. None includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Cause mail to be sent, or stop it: broadcasts and campaigns.
    Send,
    /// See everything except keys.
    Read,
    /// Change templates, lists, contacts, suppressions, jobs; delete campaigns.
    Manage,
    /// Make and revoke API keys.
    Admin,
}

impl Scope {
    pub const ALL: [Scope; 4] = [Scope::Send, Scope::Read, Scope::Manage, Scope::Admin];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Send => "send",
            Scope::Read => "read",
            Scope::Manage => "manage",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("'{}' is not a scope; use send, read, manage or admin", text.escape_debug()))
    }
}

/// Makes a key: what is stored, and the text `hk_ID_SECRET` that is shown once.
#[must_use]
pub fn new_key(name: &str, scopes: &[Scope], now: Timestamp) -> (ApiKey, String) {
    let (id, secret) = (random_hex::<ID_BYTES>(), random_hex::<SECRET_BYTES>());
    let key = ApiKey {
        id: id.clone(),
        name: name.to_owned(),
        secret_hash: sha256_hex(secret.as_bytes()),
        scopes: scopes.iter().map(|s| s.as_str().to_owned()).collect(),
        created_at: now,
        last_used_at: None,
        revoked_at: None,
    };
    (key, format!("{PREFIX}{id}_{secret}"))
}

/// The hash under which a bootstrap key is compared: see [`super::WebState::bootstrap_key_hash`].
#[must_use]
pub fn bootstrap_hash(key: &str) -> String {
    sha256_hex(key.as_bytes())
}

/// Who asks. Handlers take it as an extension.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The key's id: Idempotency-Keys of different owners never meet.
    pub owner: Arc<str>,
    scopes: Vec<Scope>,
}

/// What the check of keys needs; clones share the memory of keys.
#[derive(Clone)]
pub struct Keys {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    bootstrap_hash: Option<Arc<str>>,
    held: Arc<Mutex<HashMap<String, Held>>>,
}

#[derive(Clone)]
struct Held {
    secret_hash: Arc<str>,
    caller: Caller,
    believed_until: Timestamp,
    touched_at: Timestamp,
}

impl Keys {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, bootstrap_hash: Option<Arc<str>>) -> Self {
        Self {
            store,
            clock,
            bootstrap_hash,
            held: Arc::default(),
        }
    }

    /// Forgets a key that was revoked on this node.
    pub fn forget(&self, id: &str) {
        self.held().remove(id);
    }

    /// Who presents this key, if it is good.
    async fn caller(&self, presented: &str) -> Result<Option<Caller>, Problem> {
        if let Some(hash) = &self.bootstrap_hash
            && is_same(&sha256_hex(presented.as_bytes()), hash)
        {
            return Ok(Some(Caller {
                owner: BOOTSTRAP_OWNER.into(),
                scopes: Scope::ALL.to_vec(),
            }));
        }
        let Some((id, secret)) = presented.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')) else {
            return Ok(None);
        };
        if id.len() != 2 * ID_BYTES || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let Some(held) = self.look_up(id).await? else {
            return Ok(None);
        };
        if !is_same(&sha256_hex(secret.as_bytes()), &held.secret_hash) {
            return Ok(None);
        }
        self.note_use(id);
        Ok(Some(held.caller))
    }

    async fn look_up(&self, id: &str) -> Result<Option<Held>, Problem> {
        let now = self.clock.now();
        let known = self.held().get(id).filter(|held| held.believed_until > now).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let Some(key) = self.store.api_key(id).await?.filter(|key| key.revoked_at.is_none()) else {
            self.forget(id);
            return Ok(None);
        };
        let held = Held {
            secret_hash: key.secret_hash.into(),
            caller: Caller {
                owner: key.id.as_str().into(),
                // A scope that this version does not know allows nothing.
                scopes: key.scopes.iter().filter_map(|s| s.parse().ok()).collect(),
            },
            believed_until: now.plus_ms(BELIEVED_MS),
            touched_at: key.last_used_at.unwrap_or_default(),
        };
        let mut all = self.held();
        if all.len() >= KEYS_HELD_MAX {
            all.clear();
        }
        all.insert(key.id, held.clone());
        Ok(Some(held))
    }

    /// Notes that a key was used, aside: the request does not wait for it.
    fn note_use(&self, id: &str) {
        let now = self.clock.now();
        match self.held().get_mut(id) {
            Some(held) if now - held.touched_at >= TOUCHED_EVERY_MS => held.touched_at = now,
            _ => return,
        }
        let (store, id) = (Arc::clone(&self.store), id.to_owned());
        tokio::spawn(async move {
            if let Err(e) = store.touch_api_key(&id, now).await {
                tracing::warn!(key.id = %id, error = %e, "Could not note the use of API key {id}");
            }
        });
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a request pass that shows a key with the scope; the layer of every route that is not public.
pub async fn require(State((keys, scope)): State<(Keys, Scope)>, mut request: Request, next: Next) -> Response {
    let caller = match presented(request.headers()) {
        Some(key) => match keys.caller(key).await {
            Ok(caller) => caller,
            Err(problem) => return problem.into_response(),
        },
        None => None,
    };
    let Some(caller) = caller else {
        let detail = "send a valid API key in the header `Authorization: Bearer KEY`";
        return Problem::new(&Kind::UNAUTHORIZED, detail).into_response();
    };
    if !caller.scopes.contains(&scope) {
        let detail = format!("the API key lacks the scope {scope}");
        return Problem::new(&Kind::FORBIDDEN, detail).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    // RFC 7235 2.1: the scheme's name has no case.
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn is_same(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

fn random_hex<const N: usize>() -> String {
    let mut bytes = [0u8; N];
    rand::fill(&mut bytes).expect("the system gives random bytes");
    hex(&bytes)
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_shows_its_secret_once_and_stores_its_hash() {
        let (stored, shown) = new_key("shop", &[Scope::Send, Scope::Read], Timestamp(5));
        let (id, secret) = shown.strip_prefix("hk_").unwrap().split_once('_').unwrap();
        assert_eq!(stored.id, id);
        assert_eq!(stored.secret_hash, sha256_hex(secret.as_bytes()));
        assert!(!format!("{stored:?}").contains(secret));
        assert_eq!(stored.scopes, ["send", "read"]);
        assert_ne!(new_key("shop", &[], Timestamp(5)).1, shown);
    }

    #[test]
    fn a_key_is_read_from_the_header_whatever_the_schemes_case() {
        let with = |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(presented(&with("bearer  abc")), Some("abc"));
        assert_eq!(presented(&with("Basic abc")), None);
        assert_eq!(presented(&HeaderMap::new()), None);
    }

    #[test]
    fn scopes_read_back_by_their_names() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse::<Scope>(), Ok(scope));
        }
        assert!("root".parse::<Scope>().is_err());
    }
}
