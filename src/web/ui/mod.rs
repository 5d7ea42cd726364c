//! The pages for people: server-rendered, complete without JavaScript, better with it. A page is a
//! struct and its handler in one file, and a template of the same name; what a page refreshes by
//! itself is the very partial that it includes.
//!
//! Every page and every form demands a signed-in user (see [`SignedIn`](super::session::SignedIn)),
//! except the login, the set-up and the static files. Nothing here sends mail or does a worker's work.

pub mod assets;
pub mod error;
pub mod format;

mod broadcast;
mod broadcasts;
mod campaigns;
mod chrome;
mod confirm;
mod contacts;
mod draft;
mod find;
mod form;
mod groups;
mod import;
mod login;
mod login_limit;
mod mail_view;
mod mailbox;
mod message;
mod preflight;
mod preview;
mod progress;
mod relays;
mod send;
mod setup;
mod starter;
mod suppressions;
mod templates;
mod workers;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use axum::{Extension, Router};
use tower_http::csrf::{CsrfLayer, ProtectionError};
use tower_http::set_header::SetResponseHeaderLayer;

use self::error::UiError;
use self::groups::Counted;
use self::login_limit::LoginLimit;
use self::preflight::Preflights;
use super::WebState;

/// Nothing from elsewhere, nothing inline; frames only for previews of our own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// All pages, their fragments and the static files.
pub fn router() -> Router<WebState> {
    Router::new()
        .merge(open())
        .merge(broadcast_pages())
        .merge(library_pages())
        .merge(audience_pages())
        .merge(machine_pages())
        .fallback(async || UiError::NotFound)
        .layer(Extension(Arc::new(Preflights::default())))
        .layer(Extension(Arc::new(Counted::default())))
        .layer(map_response(error::as_page))
        .layer(CsrfLayer::new().with_rejection_response(|_: ProtectionError| UiError::CrossSite.into_response()))
        .layer(if_absent(CONTENT_SECURITY_POLICY, POLICY))
        .layer(if_absent(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // With no-referrer a browser would send `Origin: null` with our own forms.
        .layer(if_absent(REFERRER_POLICY, "same-origin"))
        .layer(if_absent(CACHE_CONTROL, "no-store"))
}

fn if_absent(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// What somebody who is not signed in may see.
fn open() -> Router<WebState> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/broadcasts") }))
        .route("/login", get(login::show).post(login::submit))
        .route("/logout", post(login::logout))
        .route("/setup", get(setup::show).post(setup::submit))
        .route("/static/{name}", get(assets::serve))
        .layer(Extension(Arc::new(LoginLimit::default())))
}

fn broadcast_pages() -> Router<WebState> {
    Router::new()
        .route("/broadcasts", get(broadcasts::show))
        .route("/broadcasts/rows", get(broadcasts::rows))
        .route("/broadcasts/{id}", get(broadcast::show))
        .route("/broadcasts/{id}/progress", get(broadcast::fragment))
        .route("/broadcasts/{id}/messages.csv", get(broadcast::messages_csv))
        .route("/broadcasts/{id}/find", get(message::find))
        .route("/broadcasts/{id}/pause", post(broadcast::pause))
        .route("/broadcasts/{id}/resume", post(broadcast::resume))
        .route("/broadcasts/{id}/retry", post(broadcast::retry))
        .route("/broadcasts/{id}/cancel", get(broadcast::confirm_cancel).post(broadcast::cancel))
        .route("/messages/{id}", get(message::show))
        .route("/send", get(send::show).post(send::submit))
        .route("/send/confirm", get(send::confirm))
        .route("/send/preflight", get(preflight::fragment))
}

fn library_pages() -> Router<WebState> {
    Router::new()
        .route("/templates", get(templates::list).post(templates::create))
        .route("/templates/new", get(templates::new))
        .route("/templates/preview", post(preview::unsaved))
        .route("/templates/{id}", get(templates::edit).post(templates::save))
        .route("/templates/{id}/preview", get(preview::stored))
        .route("/templates/{id}/delete", post(templates::delete))
        .route("/campaigns", get(campaigns::list).post(campaigns::create))
        .route("/campaigns/new", get(campaigns::new))
        .route("/campaigns/{id}", get(campaigns::show))
        .route("/campaigns/{id}/pause", post(campaigns::pause))
        .route("/campaigns/{id}/resume", post(campaigns::resume))
        .route("/campaigns/{id}/run", get(campaigns::confirm_run).post(campaigns::run_now))
        .route("/campaigns/{id}/preflight", get(campaigns::preflight))
        .route("/campaigns/{id}/delete", post(campaigns::delete))
}

fn audience_pages() -> Router<WebState> {
    Router::new()
        .route("/contacts", get(contacts::list).post(contacts::add))
        .route("/contacts/delete", post(contacts::delete))
        .route(
            "/contacts/import",
            get(import::show)
                .post(import::submit)
                .layer(DefaultBodyLimit::max(import::FORM_BYTES_MAX)),
        )
        .route("/lists", post(contacts::create_list))
        .route("/lists/{id}/delete", post(contacts::delete_list))
        .route("/suppressions", get(suppressions::list).post(suppressions::add))
        .route("/suppressions/remove", post(suppressions::remove))
        .route("/find", get(find::show))
}

fn machine_pages() -> Router<WebState> {
    Router::new()
        .route("/relays", get(relays::list).post(relays::create))
        // A relay's name has no plus sign.
        .route("/relays/+new", get(relays::new))
        .route("/relays/{name}", get(relays::show).post(relays::save))
        .route("/relays/{name}/edit", get(relays::edit))
        .route("/relays/{name}/test", post(relays::test))
        .route("/relays/{name}/pause", get(relays::confirm_pause).post(relays::pause))
        .route("/relays/{name}/resume", post(relays::resume))
        .route("/relays/{name}/forget", post(relays::forget))
        .route("/relays/{name}/remove", get(relays::confirm_remove).post(relays::remove))
        .route("/workers", get(workers::show))
        .route("/workers/now", get(workers::fragment))
        .route("/jobs/{id}/release", post(workers::release))
        .route("/mailbox", get(mailbox::list))
        .route("/mailbox/{id}", get(mailbox::show))
        .route("/mailbox/{id}/html", get(mailbox::html))
}
