//! HTTP: the JSON API, the pages, and the public unsubscribe endpoint. Never sends mail and never does a
//! worker's work inside a request.

pub mod public;
pub mod session;
pub mod ui;

use std::sync::Arc;

use crate::clock::Clock;
use crate::domain::token::SecretKey;
use crate::sink::SinkHandle;
use crate::store::Store;

/// What every handler may use.
#[derive(Clone)]
pub struct WebState {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// Signs unsubscribe tokens.
    pub secret: SecretKey,
    /// Where this installation is reached from outside, without a slash at the end.
    pub public_url: Arc<str>,
    /// SHA-256 of the bootstrap key in hex, when one is configured. It has all scopes.
    pub bootstrap_key_hash: Option<Arc<str>>,
    /// The built-in capture relay, while mail goes to it.
    pub capture: Option<Arc<SinkHandle>>,
}
