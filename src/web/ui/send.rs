//! "Send to all": choose, see the number, confirm, land on the status page. A double click, a reload or
//! a second press of the button never makes a second broadcast: the confirmation carries its key.

use std::sync::Arc;

use askama::Template;
use askama_web::WebTemplate;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Form};

use super::chrome::{Chrome, Section};
use super::draft::{self, DraftForm};
use super::error::UiError;
use super::form::{Fields, Problems, parse_time};
use super::preflight::{Preflight, Preflights};
use super::{format, progress};
use crate::domain::campaign::Draft;
use crate::domain::content::Content;
use crate::domain::id::BroadcastId;
use crate::domain::time::Timestamp;
use crate::pipeline::accept::{AcceptError, IdempotencyKey, accept_draft};
use crate::web::WebState;
use crate::web::session::{self, SignedIn};

#[derive(Template, WebTemplate)]
#[template(path = "send.html")]
struct SendPage {
    chrome: Chrome,
    f: DraftForm,
    is_later: bool,
    send_at: String,
}

#[derive(Template, WebTemplate)]
#[template(path = "send_confirm.html")]
struct ConfirmPage {
    chrome: Chrome,
    key: String,
    recipients: i64,
    audience: String,
    template_name: String,
    subject: String,
    draft: Draft,
    send_at: Option<Timestamp>,
    /// Why the relay that is chosen stands still.
    relay_paused: Option<String>,
    preflight: Preflight,
    /// Where the rest of the look ahead is.
    live_query: String,
    /// What was chosen, for the way back and for the form.
    query: String,
    fields: Vec<(String, String)>,
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(typed): Query<Fields>,
) -> Result<Response, UiError> {
    Ok(form_page(&signed, &state, &typed, Problems::default())
        .await?
        .into_response())
}

async fn form_page(
    signed: &SignedIn,
    state: &WebState,
    typed: &Fields,
    problems: Problems,
) -> Result<SendPage, UiError> {
    Ok(SendPage {
        chrome: Chrome::new(signed, Section::Send),
        f: DraftForm::load(state, typed, problems).await?,
        is_later: typed.text("when") == "later",
        send_at: typed.text("send_at").to_owned(),
    })
}

/// What the form says, checked.
struct Wanted {
    draft: Draft,
    send_at: Option<Timestamp>,
}

fn parse(typed: &Fields, now: Timestamp) -> Result<Wanted, Problems> {
    let mut problems = Problems::default();
    let draft = draft::parse(typed, &mut problems);
    let send_at = match typed.text("when") {
        "later" => problems.take("send_at", parse_time(typed.text("send_at"))),
        _ => None,
    };
    if send_at.is_some_and(|at| at <= now) {
        problems.add("send_at", "This time has passed. Choose a later one, or send now.");
    }
    match draft {
        Some(draft) if problems.is_empty() => Ok(Wanted { draft, send_at }),
        _ => Err(problems),
    }
}

/// Shows what would happen. The first time it gives the page its key and comes back with it in the
/// address, so that a reload has the same one.
pub async fn confirm(
    signed: SignedIn,
    State(state): State<WebState>,
    Extension(preflights): Extension<Arc<Preflights>>,
    Query(typed): Query<Fields>,
) -> Result<Response, UiError> {
    let mut wanted = parse(&typed, state.clock.now());
    let recipients = match &wanted {
        Ok(w) => draft::count(&state, &w.draft.audience).await?,
        Err(_) => 0,
    };
    if wanted.is_ok() && recipients == 0 {
        let mut problems = Problems::default();
        problems.add("audience", "Nobody is subscribed here. Add contacts first.");
        wanted = Err(problems);
    }
    let mut relay = None;
    if let Ok(w) = &wanted {
        let mut problems = Problems::default();
        relay = draft::find_relay(&state, &w.draft, &mut problems).await?;
        if !problems.is_empty() {
            wanted = Err(problems);
        }
    }
    let Wanted { draft, send_at } = match wanted {
        Ok(wanted) => wanted,
        Err(problems) => {
            let page = form_page(&signed, &state, &typed, problems).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
        }
    };
    let Some(key) = typed.filled("key") else {
        let query = typed.query_with("key", &session::new_token());
        return Ok(Redirect::to(&format!("/send/confirm?{query}")).into_response());
    };
    let template = state
        .store
        .template(&draft.template_id)
        .await?
        .ok_or(UiError::NotFound)?;
    Ok(ConfirmPage {
        chrome: Chrome::new(&signed, Section::Send),
        key: key.to_owned(),
        recipients,
        audience: progress::audience(&draft.audience),
        template_name: template.name,
        preflight: preflights.look(&state, key, &draft, template.content.clone()).await,
        live_query: typed.query_with("key", key),
        subject: template.content.subject,
        draft,
        send_at,
        relay_paused: relay.and_then(|relay| relay.paused),
        query: typed.query_with("key", ""),
        fields: typed.without("key"),
    }
    .into_response())
}

/// What a form of this page means, for whoever looks ahead.
pub(super) async fn chosen(state: &WebState, typed: &Fields) -> Result<(Draft, Content), UiError> {
    let wanted = parse(typed, state.clock.now()).map_err(|_| UiError::NotFound)?;
    let template = state.store.template(&wanted.draft.template_id).await?;
    Ok((wanted.draft, template.ok_or(UiError::NotFound)?.content))
}

pub async fn submit(
    signed: SignedIn,
    State(state): State<WebState>,
    Form(typed): Form<Fields>,
) -> Result<Response, UiError> {
    let Wanted { draft, send_at } = match parse(&typed, state.clock.now()) {
        Ok(wanted) => wanted,
        Err(problems) => {
            let page = form_page(&signed, &state, &typed, problems).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
        }
    };
    draft::remember_sender(&state, &draft.from).await?;
    Ok(start(&signed, &state, &draft, send_at, typed.text("key"))
        .await?
        .into_response())
}

/// Makes a draft a durable broadcast, once for each key, and leads to its status page.
async fn start(
    signed: &SignedIn,
    state: &WebState,
    draft: &Draft,
    send_at: Option<Timestamp>,
    key: &str,
) -> Result<Redirect, UiError> {
    let (key, now) = (key_of(signed, key)?, state.clock.now());
    let accepted = accept_draft(&*state.store, draft, send_at, Some(key), now, fastrand::u128(..)).await;
    to_status_page(accepted)
}

/// The Idempotency-Key that a form carries.
pub(super) fn key_of(signed: &SignedIn, key: &str) -> Result<IdempotencyKey, UiError> {
    IdempotencyKey::parse(&format!("user:{}", signed.user.id), key)
        .map_err(|_| UiError::Refused("The form is incomplete. Go back, load the page anew and try again.".to_owned()))
}

pub(super) fn to_status_page(accepted: Result<BroadcastId, AcceptError>) -> Result<Redirect, UiError> {
    match accepted {
        Ok(id) => Ok(Redirect::to(&format!("/broadcasts/{id}?note=accepted"))),
        Err(AcceptError::Store(e)) => Err(e.into()),
        Err(AcceptError::Invalid { problems, .. }) => {
            let details: Vec<String> = problems.into_iter().map(|p| p.detail).collect();
            Err(UiError::Refused(format!("Nothing was sent: {}.", details.join("; "))))
        }
        Err(e) => Err(UiError::Refused(format!("Nothing was sent: {e}."))),
    }
}
