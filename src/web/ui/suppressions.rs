//! Addresses that must not be mailed, whoever asks for it.

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::Redirect;

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
use super::format;
use crate::domain::address::EmailAddress;
use crate::domain::contact::{Suppression, SuppressionReason};
use crate::store::reports::Slice;
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Rows on a page.
const PAGE_SIZE: i64 = 50;

#[derive(Template, WebTemplate)]
#[template(path = "suppressions.html")]
pub(super) struct SuppressionsPage {
    chrome: Chrome,
    suppressions: Slice<Suppression>,
    is_first_page: bool,
}

pub async fn list(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<SuppressionsPage, UiError> {
    let after = query.filled("after");
    Ok(SuppressionsPage {
        chrome: Chrome::new(&signed, Section::Suppressions).noting(query.text("note")),
        suppressions: state.store.suppressions(after, PAGE_SIZE).await?,
        is_first_page: after.is_none(),
    })
}

/// Adds one or more addresses, a line each.
pub async fn add(_: SignedIn, State(state): State<WebState>, Form(form): Form<Fields>) -> Result<Redirect, UiError> {
    let addresses = form
        .text("emails")
        .split_whitespace()
        .map(|text| EmailAddress::parse(text).map(|a| a.normalised()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| UiError::Refused(format!("Nothing was added: {why}.")))?;
    if addresses.is_empty() {
        return Err(UiError::Refused("Nothing was added: no address was given.".to_owned()));
    }
    state
        .store
        .suppress(&addresses, SuppressionReason::Manual, "ui", state.clock.now())
        .await?;
    Ok(Redirect::to("/suppressions?note=added"))
}

pub async fn remove(_: SignedIn, State(state): State<WebState>, Form(form): Form<Fields>) -> Result<Redirect, UiError> {
    if !state.store.unsuppress(&form.text("email").to_lowercase()).await? {
        return Err(UiError::NotFound);
    }
    Ok(Redirect::to("/suppressions?note=removed"))
}
