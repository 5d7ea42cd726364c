//! The relays that mail goes through: what is said about each, a pause, a test. What is typed about one is judged in `form`. Never
//! shows a password, and never puts one into a page.

mod form;
mod test;
mod texts;
mod words;

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

pub use self::form::{create, edit, new, save};
pub use self::test::test;
use self::test::{Tested, Wish};
use self::words::Words;
use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
use super::{draft, format};
use crate::domain::finding::Finding;
use crate::domain::relay::Relay;
use crate::pipeline::outlet::Outlet;
use crate::pipeline::relays::{self, REASON_BYTES_MAX, RelayError};
use crate::web::WebState;
use crate::web::session::SignedIn;

impl From<RelayError> for UiError {
    fn from(e: RelayError) -> Self {
        match e {
            RelayError::NotFound(_) => UiError::NotFound,
            RelayError::Wrong(wrong) => UiError::Refused(format::sentence(&wrong.detail)),
            RelayError::InUse(_) => UiError::Refused(format::sentence(&e.to_string())),
            RelayError::Store(e) => e.into(),
        }
    }
}

#[derive(Template, WebTemplate)]
#[template(path = "relays.html")]
pub(super) struct RelaysPage {
    chrome: Chrome,
    rows: Vec<Words>,
    /// Where mail goes without one.
    outlet: String,
    /// Whether captured mail can be looked at here.
    has_mailbox: bool,
}

#[derive(Template, WebTemplate)]
#[template(path = "relay.html")]
struct RelayPage {
    chrome: Chrome,
    r: Words,
    /// What was found out about it.
    findings: Vec<Finding>,
    /// Its address is put back at each start.
    is_configured: bool,
    wish: Wish,
    tested: Option<Tested>,
}

impl RelayPage {
    /// Whether anything is known that could be forgotten.
    fn has_findings(&self) -> bool {
        self.findings.iter().any(|finding| finding.value.is_some())
    }
}

#[derive(Template, WebTemplate)]
#[template(path = "relay_pause.html")]
struct PausePage {
    chrome: Chrome,
    name: String,
    reason: String,
    problem: Option<String>,
    /// Unfinished broadcasts that name it.
    bound: i64,
    /// Other relays that mail may take.
    others: i64,
}

#[derive(Template, WebTemplate)]
#[template(path = "relay_remove.html")]
pub(super) struct RemovePage {
    chrome: Chrome,
    name: String,
    bound: i64,
    is_last: bool,
}

pub async fn list(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<RelaysPage, UiError> {
    let (paces, now) = (state.store.paces().await?, state.clock.now());
    let outlet = Outlet::read(&*state.store).await?;
    let sentence = outlet.sentence();
    let has_mailbox = state.capture.is_some() && outlet.is_captured();
    let all = match outlet {
        Outlet::Relays(all) => all,
        Outlet::Captured | Outlet::Waits => Vec::new(),
    };
    Ok(RelaysPage {
        chrome: Chrome::new(&signed, Section::Relays).noting(query.text("note")),
        rows: all.iter().map(|relay| Words::of(relay, &all, &paces, now)).collect(),
        outlet: sentence,
        has_mailbox,
    })
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(name): Path<String>,
    Query(query): Query<Fields>,
) -> Result<Response, UiError> {
    let relay = relays::find(&*state.store, &name).await?;
    let chrome = Chrome::new(&signed, Section::Relays).noting(query.text("note"));
    let from = draft::last_sender(&state).await?.map(|sender| sender.email.to_string());
    let wish = Wish {
        from: from.unwrap_or_default(),
        ..Wish::default()
    };
    page(chrome, &state, &relay, wish, None).await
}

async fn page(
    chrome: Chrome,
    state: &WebState,
    relay: &Relay,
    wish: Wish,
    tested: Option<Tested>,
) -> Result<Response, UiError> {
    let all = state.store.relays().await?;
    let status = match wish.problems.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let page = RelayPage {
        chrome,
        r: Words::of(relay, &all, &state.store.paces().await?, state.clock.now()),
        findings: relays::findings(&*state.store, relay, state.clock.now()).await?,
        is_configured: is_configured(state, &relay.name),
        wish,
        tested,
    };
    Ok((status, page).into_response())
}

fn is_configured(state: &WebState, name: &str) -> bool {
    state.configured_relay.as_deref() == Some(name)
}

/// What a pause would do, and why it is made.
pub async fn confirm_pause(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(name): Path<String>,
) -> Result<Response, UiError> {
    let reason = format!("paused by {}", signed.user.email);
    pause_page(&signed, &state, &name, reason, None).await
}

async fn pause_page(
    signed: &SignedIn,
    state: &WebState,
    name: &str,
    reason: String,
    problem: Option<String>,
) -> Result<Response, UiError> {
    let relay = relays::find(&*state.store, name).await?;
    let all = state.store.relays().await?;
    let status = match problem {
        None => StatusCode::OK,
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let page = PausePage {
        chrome: Chrome::new(signed, Section::Relays),
        bound: state.store.broadcasts_bound_to(&relay.name).await?,
        others: all
            .iter()
            .filter(|r| r.name != relay.name && r.paused.is_none())
            .count() as i64,
        name: relay.name,
        reason,
        problem,
    };
    Ok((status, page).into_response())
}

pub async fn pause(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(name): Path<String>,
    Form(typed): Form<Fields>,
) -> Result<Response, UiError> {
    let reason = match typed.filled("reason") {
        Some(reason) => reason.to_owned(),
        None => format!("paused by {}", signed.user.email),
    };
    match relays::pause(&*state.store, &name, Some(&reason), state.clock.now()).await {
        Ok(relay) => Ok(to_page(&relay, "paused").into_response()),
        Err(RelayError::Wrong(wrong)) => {
            let problem = Some(format::sentence(&wrong.detail));
            let shown = reason.chars().take(REASON_BYTES_MAX * 2).collect();
            pause_page(&signed, &state, &name, shown, problem).await
        }
        Err(e) => Err(e.into()),
    }
}

pub async fn resume(_: SignedIn, State(state): State<WebState>, Path(name): Path<String>) -> Result<Redirect, UiError> {
    let relay = relays::pause(&*state.store, &name, None, state.clock.now()).await?;
    Ok(to_page(&relay, "resumed"))
}

/// Forgets what was found out about it.
pub async fn forget(_: SignedIn, State(state): State<WebState>, Path(name): Path<String>) -> Result<Redirect, UiError> {
    let relay = relays::forget_findings(&*state.store, &name).await?;
    Ok(to_page(&relay, "forgotten"))
}

/// Whether it can be removed, and what follows.
pub async fn confirm_remove(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(name): Path<String>,
) -> Result<RemovePage, UiError> {
    let relay = relays::find(&*state.store, &name).await?;
    Ok(RemovePage {
        chrome: Chrome::new(&signed, Section::Relays),
        bound: state.store.broadcasts_bound_to(&relay.name).await?,
        is_last: state.store.relays().await?.len() == 1,
        name: relay.name,
    })
}

pub async fn remove(_: SignedIn, State(state): State<WebState>, Path(name): Path<String>) -> Result<Redirect, UiError> {
    relays::remove(&*state.store, &name, state.clock.now()).await?;
    Ok(Redirect::to("/relays?note=removed"))
}

/// Back to a relay's page, with a word on what was done. Its name is of letters that need no encoding.
fn to_page(relay: &Relay, note: &str) -> Redirect {
    Redirect::to(&format!("/relays/{}?note={note}", relay.name))
}
