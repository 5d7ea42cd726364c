//! HTTP: the JSON API, the pages, and the public unsubscribe endpoint. Never sends mail and never does a
//! worker's work inside a request.

pub mod api;
pub mod auth;
pub mod error;
pub mod extract;
pub mod public;
pub mod session;
pub mod ui;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::serve::ListenerExt as _;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::clock::Clock;
use crate::dns::Dns;
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
    pub limits: Limits,
    pub dns: Dns,
    /// The built-in capture relay, while mail goes to it.
    pub capture: Option<Arc<SinkHandle>>,
    /// The relay whose address the configuration puts back at each start.
    pub configured_relay: Option<Arc<str>>,
}

/// How much one request may bring.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of a JSON body that is not a list of recipients.
    pub json_bytes_max: usize,
    /// Most bytes of a streamed body, unpacked.
    pub stream_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            json_bytes_max: extract::JSON_BYTES_MAX,
            stream_bytes_max: extract::STREAM_BYTES_MAX,
        }
    }
}

/// How long requests that are under way may take to end once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Answers requests until `stop`; those under way are ended first, within a bound.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, state: WebState, stop: CancellationToken) -> std::io::Result<()> {
    // Answers are small and somebody waits for each: they must not wait for a full packet.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "A connection keeps its delay");
        }
    });
    let drained = stop.clone();
    // The login counts failures by the address they come from.
    let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        ended = server.into_future() => ended,
        () = async { drained.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}

/// Everything this program answers over HTTP.
pub fn router(state: WebState) -> Router {
    Router::new()
        .merge(api::router(&state))
        .merge(ui::router().merge(public::router()).with_state(state))
        .layer(CatchPanicLayer::custom(error::from_panic))
        .layer(if_not_set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(if_not_set(header::REFERRER_POLICY, "no-referrer"))
        .layer(if_not_set(header::X_FRAME_OPTIONS, "DENY"))
        .layer(if_not_set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
        .layer(middleware::from_fn(error::dress))
}

/// A header that browsers heed, unless the handler knows better.
fn if_not_set(name: header::HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}
