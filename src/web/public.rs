//! What recipients may reach without an account: the end of their subscription. Reading an address never
//! changes anything, because mail scanners open every link; only a POST does (RFC 8058).

use askama::Template;
use askama_web::WebTemplate;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;

use super::WebState;
use crate::domain::contact::SuppressionReason;
use crate::domain::token::UnsubscribeToken;

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";
/// `List-Unsubscribe=One-Click` has 26 bytes; nobody sends more to this address for a good reason.
const BODY_BYTES_MAX: usize = 4 * 1024;

#[derive(Template, WebTemplate)]
#[template(path = "unsubscribe.html")]
struct UnsubscribePage {
    title: &'static str,
    text: &'static str,
    /// Of the form; without it there is nothing left to do.
    token: Option<String>,
}

/// The unsubscribe endpoint: `/u/{token}`.
pub fn router() -> Router<WebState> {
    Router::new()
        .route("/u/{token}", get(ask).post(unsubscribe))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(always(CONTENT_SECURITY_POLICY, POLICY))
        .layer(always(REFERRER_POLICY, "no-referrer"))
        .layer(always(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(always(CACHE_CONTROL, "no-store"))
        .layer(always(HeaderName::from_static("x-robots-tag"), "noindex"))
}

fn always(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// `GET`: a page with a button. Changes nothing.
async fn ask(State(state): State<WebState>, Path(token): Path<String>) -> Response {
    if UnsubscribeToken::verify(&state.secret, &token).is_none() {
        return unknown();
    }
    UnsubscribePage {
        title: "Unsubscribe?",
        text: "You will get no more newsletters from here, of any kind, at the address that this link was sent to.",
        token: Some(token),
    }
    .into_response()
}

/// `POST`: from the page's button or from a mail provider (`List-Unsubscribe=One-Click`). The token says
/// everything, so the body is not looked at, and no cookie is asked for. Doing it twice is no error.
async fn unsubscribe(State(state): State<WebState>, Path(token): Path<String>) -> Response {
    let Some((broadcast, address)) = UnsubscribeToken::verify(&state.secret, &token) else {
        return unknown();
    };
    let done = state
        .store
        .suppress(&[address], SuppressionReason::Unsubscribed, broadcast.as_str(), state.clock.now())
        .await;
    match done {
        Ok(_) => UnsubscribePage {
            title: "You are unsubscribed",
            text: "No newsletter of any kind will be sent to you from here any more. What is on its way at this very moment may still arrive.",
            token: None,
        }
        .into_response(),
        Err(e) => {
            tracing::error!(error = %e, broadcast.id = %broadcast, "An unsubscription could not be stored");
            let page = UnsubscribePage {
                title: "That did not work",
                text: "It could not be written down just now. Please try again in a moment.",
                token: Some(token),
            };
            (StatusCode::SERVICE_UNAVAILABLE, page).into_response()
        }
    }
}

/// The same for every wrong token, so that nobody learns anything from it.
fn unknown() -> Response {
    let page = UnsubscribePage {
        title: "This link is not complete",
        text: "Please open the link in the mail again, or copy all of it. To leave, you can also answer the mail.",
        token: None,
    };
    (StatusCode::NOT_FOUND, page).into_response()
}
