//! Addresses that must not be mailed, whoever asks for it.

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

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
    /// What was typed and could not be read, and why.
    emails: String,
    problem: Option<String>,
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
        emails: String::new(),
        problem: None,
    })
}

/// Adds one or more addresses, a line each. When one cannot be read, none is added, and all stay in the field.
pub async fn add(
    signed: SignedIn,
    State(state): State<WebState>,
    Form(form): Form<Fields>,
) -> Result<Response, UiError> {
    let read = form
        .text("emails")
        .split_whitespace()
        .map(|text| EmailAddress::parse(text).map(|a| a.normalised()))
        .collect::<Result<Vec<_>, _>>();
    let wrong = match &read {
        Ok(addresses) if addresses.is_empty() => Some("no address was given".to_owned()),
        Ok(_) => None,
        Err(why) => Some(why.clone()),
    };
    if let Some(why) = wrong {
        let page = SuppressionsPage {
            chrome: Chrome::new(&signed, Section::Suppressions),
            suppressions: state.store.suppressions(None, PAGE_SIZE).await?,
            is_first_page: true,
            emails: form.raw("emails").to_owned(),
            problem: Some(format!("Nothing was added: {why}.")),
        };
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    state
        .store
        .suppress(&read.unwrap_or_default(), SuppressionReason::Manual, "ui", state.clock.now())
        .await?;
    Ok(Redirect::to("/suppressions?note=added").into_response())
}

pub async fn remove(_: SignedIn, State(state): State<WebState>, Form(form): Form<Fields>) -> Result<Redirect, UiError> {
    if !state.store.unsuppress(&form.text("email").to_lowercase()).await? {
        return Err(UiError::NotFound);
    }
    Ok(Redirect::to("/suppressions?note=removed"))
}
