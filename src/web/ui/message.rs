//! One message and every attempt at it, with the relay's own words.

use askama::Template;
use askama_web::WebTemplate;
use axum::extract::{Path, Query, State};
use axum::response::Redirect;

use super::broadcast;
use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::{Fields, normalised};
use super::{format, progress};
use crate::domain::broadcast::Broadcast;
use crate::domain::id::MessageId;
use crate::store::reports::{AttemptView, MessageView};
use crate::web::WebState;
use crate::web::session::SignedIn;

#[derive(Template, WebTemplate)]
#[template(path = "message.html")]
pub(super) struct MessagePage {
    chrome: Chrome,
    m: MessageView,
    b: Broadcast,
    attempts: Vec<AttemptView>,
    meaning: &'static str,
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<MessagePage, UiError> {
    let id: MessageId = id.parse().map_err(|_| UiError::NotFound)?;
    let m = state.store.message(id).await?.ok_or(UiError::NotFound)?;
    let b = state.store.broadcast(&m.broadcast_id).await?.ok_or(UiError::NotFound)?;
    let attempts = state.store.attempts(id).await?;
    Ok(MessagePage {
        chrome: Chrome::new(&signed, Section::Broadcasts),
        meaning: progress::meaning(m.status),
        m,
        b,
        attempts,
    })
}

/// Leads from an address to its message in one broadcast.
pub async fn find(
    _signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
    Query(query): Query<Fields>,
) -> Result<Redirect, UiError> {
    let b = broadcast::read(&state, &id).await?;
    let found = state.store.message_to(&b.id, &normalised(query.text("email"))).await?;
    Ok(match found {
        Some(m) => Redirect::to(&format!("/messages/{}", m.id)),
        None => Redirect::to(&format!("/broadcasts/{}?note=no-message#find", b.id)),
    })
}
