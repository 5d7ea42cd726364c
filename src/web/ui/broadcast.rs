//! One broadcast: how far it is, what went wrong, every message; pause, resume, cancel.

use std::sync::Arc;

use askama::Template;
use askama_web::WebTemplate;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::{Redirect, Response};

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
use super::format;
use super::groups::{Counted, Groups};
use super::progress::{self, Law, Progress};
use crate::domain::broadcast::{Broadcast, BroadcastStatus};
use crate::domain::id::BroadcastId;
use crate::domain::message::MessageStatus;
use crate::pipeline::control::{self, ControlError, control};
use crate::pipeline::outlook::outlook;
use crate::store::queue::Wish;
use crate::store::reports::{MessageView, Slice};
use crate::web::WebState;
use crate::web::api::messages_file;
use crate::web::session::SignedIn;

/// Messages on a page of the list.
const PAGE_SIZE: i64 = 25;
pub(super) struct Tab {
    label: &'static str,
    query: &'static str,
    n: i64,
    is_here: bool,
}

#[derive(Template, WebTemplate)]
#[template(path = "broadcast.html")]
pub(super) struct BroadcastPage {
    chrome: Chrome,
    b: Broadcast,
    audience: String,
    live: Live,
    /// What the live parts are asked for with.
    query: String,
    can_pause: bool,
    can_resume: bool,
    can_cancel: bool,
}

/// All that changes while a broadcast is on its way, of one look: its parts must not contradict each other.
struct Live {
    progress: Progress,
    groups: Groups,
    tabs: Vec<Tab>,
    shown: Option<MessageStatus>,
    messages: Slice<MessageView>,
    is_first_page: bool,
}

#[derive(Template, WebTemplate)]
#[template(path = "_live.html")]
pub(super) struct LiveFragment {
    live: Live,
}

#[derive(Template, WebTemplate)]
#[template(path = "broadcast_cancel.html")]
pub(super) struct CancelPage {
    chrome: Chrome,
    b: Broadcast,
    /// Messages that will not go out.
    left: i64,
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Extension(counted): Extension<Arc<Counted>>,
    Path(id): Path<String>,
    Query(query): Query<Fields>,
) -> Result<BroadcastPage, UiError> {
    let b = read(&state, &id).await?;
    Ok(BroadcastPage {
        chrome: Chrome::new(&signed, Section::Broadcasts).noting(query.text("note")),
        audience: progress::audience(&b.audience),
        live: look(&state, &counted, &b, &query).await?,
        query: query.query_with("note", ""),
        can_pause: !b.status.is_final() && b.status != BroadcastStatus::Paused,
        can_resume: b.status == BroadcastStatus::Paused,
        can_cancel: !b.status.is_final(),
        b,
    })
}

/// What changes by itself, for the page that refreshes it.
pub async fn fragment(
    _signed: SignedIn,
    State(state): State<WebState>,
    Extension(counted): Extension<Arc<Counted>>,
    Path(id): Path<String>,
    Query(query): Query<Fields>,
) -> Result<LiveFragment, UiError> {
    let b = read(&state, &id).await?;
    Ok(LiveFragment {
        live: look(&state, &counted, &b, &query).await?,
    })
}

async fn look(state: &WebState, counted: &Counted, b: &Broadcast, query: &Fields) -> Result<Live, UiError> {
    let shown = query.filled("status").and_then(|s| s.parse::<MessageStatus>().ok());
    let after = query.filled("after");
    Ok(Live {
        progress: read_progress(state, b).await?,
        groups: counted.groups(state, b).await?,
        tabs: tabs(b, shown),
        messages: state.store.messages(&b.id, shown, after, PAGE_SIZE).await?,
        is_first_page: after.is_none(),
        shown,
    })
}

/// All messages, or those of one status, as CSV.
pub async fn messages_csv(
    _signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
    Query(query): Query<Fields>,
) -> Result<Response, UiError> {
    let b = read(&state, &id).await?;
    let status = query.filled("status").and_then(|s| s.parse().ok());
    Ok(messages_file(Arc::clone(&state.store), b.id, status))
}

pub async fn pause(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<Redirect, UiError> {
    let wish = Wish::Pause {
        reason: format!("paused by {}", signed.user.email),
    };
    wish_for(&state, &id, &wish, "paused").await
}

pub async fn resume(_: SignedIn, State(state): State<WebState>, Path(id): Path<String>) -> Result<Redirect, UiError> {
    wish_for(&state, &id, &Wish::Resume, "resumed").await
}

/// Tries again what failed and may pass now.
pub async fn retry(_: SignedIn, State(state): State<WebState>, Path(id): Path<String>) -> Result<Redirect, UiError> {
    let b = read(&state, &id).await?;
    let (n, _) = control::retry(&*state.store, &b.id, None, state.clock.now())
        .await
        .map_err(refusal)?;
    let note = if n > 0 { "retried" } else { "none-to-retry" };
    Ok(Redirect::to(&format!("/broadcasts/{}?note={note}", b.id)))
}

pub async fn cancel(_: SignedIn, State(state): State<WebState>, Path(id): Path<String>) -> Result<Redirect, UiError> {
    wish_for(&state, &id, &Wish::Cancel, "canceled").await
}

/// Canceling cannot be undone, so it is asked for twice.
pub async fn confirm_cancel(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<CancelPage, UiError> {
    let b = read(&state, &id).await?;
    if b.status.is_final() {
        return Err(UiError::Refused(format!("This broadcast is {} already.", b.status)));
    }
    let left = b.counts.queued + b.counts.deferred;
    Ok(CancelPage {
        chrome: Chrome::new(&signed, Section::Broadcasts),
        b,
        left,
    })
}

async fn wish_for(state: &WebState, id: &str, wish: &Wish, note: &str) -> Result<Redirect, UiError> {
    let b = read(state, id).await?;
    control(&*state.store, &b.id, wish, state.clock.now())
        .await
        .map_err(refusal)?;
    Ok(Redirect::to(&format!("/broadcasts/{}?note={note}", b.id)))
}

fn refusal(error: ControlError) -> UiError {
    match error {
        ControlError::NotFound(_) => UiError::NotFound,
        ControlError::Over(status) => UiError::Refused(format!("This broadcast is {status} and stays so.")),
        ControlError::TooLate => UiError::Refused("Its time has passed: nothing of it is sent any more.".to_owned()),
        ControlError::Store(e) => e.into(),
    }
}

/// The broadcast that an address names.
pub(super) async fn read(state: &WebState, id: &str) -> Result<Broadcast, UiError> {
    let id: BroadcastId = id.parse().map_err(|_| UiError::NotFound)?;
    state.store.broadcast(&id).await?.ok_or(UiError::NotFound)
}

async fn read_progress(state: &WebState, b: &Broadcast) -> Result<Progress, UiError> {
    let now = state.clock.now();
    let rate = state.store.rate(&b.id, now).await?;
    let outlook = outlook(&*state.store, b, rate, now).await?;
    Ok(Progress::new(b, rate, outlook, now))
}

fn tabs(b: &Broadcast, shown: Option<MessageStatus>) -> Vec<Tab> {
    let all = Tab {
        label: "all",
        query: "",
        n: b.counts.total(),
        is_here: shown.is_none(),
    };
    let by_status = MessageStatus::ALL
        .into_iter()
        .filter(|&s| b.counts.get(s) > 0 || shown == Some(s))
        .map(|s| Tab {
            label: s.as_str(),
            query: s.as_str(),
            n: b.counts.get(s),
            is_here: shown == Some(s),
        });
    std::iter::once(all).chain(by_status).collect()
}
