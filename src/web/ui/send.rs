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
use super::confirm::{self, Asked, Way};
use super::draft::{self, DraftForm};
use super::error::UiError;
use super::form::{Fields, Problems, parse_time};
use super::format;
use super::preflight::Preflights;
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
    let way = Way {
        key: key.to_owned(),
        action: "/send".to_owned(),
        fields: typed.without("key"),
        live: format!("/send/preflight?{}", typed.query_with("key", key)),
        back: format!("/send?{}", typed.query_with("key", "")),
        back_label: "Send to all".to_owned(),
    };
    let asked = Asked {
        section: Section::Send,
        draft,
        template,
        send_at,
        recipients,
        relay,
        way,
    };
    Ok(confirm::page(&signed, &state, &preflights, asked)
        .await?
        .into_response())
}

/// What a form of this page means, for the look ahead.
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
    // Once for each key.
    let (key, now) = (key_of(&signed, typed.text("key"))?, state.clock.now());
    let accepted = accept_draft(&*state.store, &draft, send_at, Some(key), now, fastrand::u128(..)).await;
    match to_status_page(accepted) {
        // What was chosen is there to be mended.
        Err(UiError::Refused(why)) => {
            let mut problems = Problems::default();
            problems.add("form", why);
            let page = form_page(&signed, &state, &typed, problems).await?;
            Ok((StatusCode::CONFLICT, page).into_response())
        }
        other => Ok(other?.into_response()),
    }
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
