//! One person: contact, suppression, and every message to that address in all broadcasts.

use askama::Template;
use askama_web::WebTemplate;
use axum::extract::{Query, State};

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::{Fields, normalised};
use super::format;
use crate::domain::address::EmailAddress;
use crate::domain::contact::{Contact, Suppression};
use crate::store::reports::MessageView;
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Messages shown: the latest ones are what somebody asks about.
const MESSAGES_MAX: i64 = 100;

#[derive(Template, WebTemplate)]
#[template(path = "find.html")]
pub(super) struct FindPage {
    chrome: Chrome,
    email: String,
    /// Whether it can be anybody's at all.
    is_address: bool,
    contact: Option<Contact>,
    suppression: Option<Suppression>,
    messages: Vec<MessageView>,
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<FindPage, UiError> {
    let email = normalised(query.text("email"));
    let mut page = FindPage {
        chrome: Chrome::new(&signed, Section::Find),
        contact: None,
        suppression: None,
        messages: Vec::new(),
        is_address: EmailAddress::parse(&email).is_ok(),
        email: email.clone(),
    };
    if !email.is_empty() {
        page.contact = state.store.contact(&email).await?;
        page.suppression = state.store.suppression(&email).await?;
        page.messages = state.store.messages_to(&email, MESSAGES_MAX).await?;
    }
    Ok(page)
}
