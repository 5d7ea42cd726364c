//! One broadcast: how far it is, what went wrong, every message; pause, resume, cancel.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use askama_web::WebTemplate;
use axum::extract::{Path, Query, State};
use axum::response::{Redirect, Response};

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
use super::format;
use super::progress::{self, Law, Progress};
use crate::domain::broadcast::{Broadcast, BroadcastStatus};
use crate::domain::id::BroadcastId;
use crate::domain::message::MessageStatus;
use crate::domain::reason;
use crate::pipeline::control::{self, ControlError, control};
use crate::pipeline::outlook::outlook;
use crate::store::queue::Wish;
use crate::store::reports::{MessageView, Slice};
use crate::store::safety::Failures;
use crate::web::WebState;
use crate::web::api::messages_file;
use crate::web::session::SignedIn;

/// Messages on a page of the list.
const PAGE_SIZE: i64 = 25;
/// Messages of a status that are looked at to group what went wrong: enough to see what is common, and
/// still one small query.
const SAMPLE_MAX: i64 = 500;
/// Groups shown; more would no longer be an overview.
const GROUPS_MAX: usize = 8;

/// Messages that went wrong for the same reason.
pub(super) struct ErrorGroup {
    status: &'static str,
    class: String,
    code: String,
    n: i64,
    /// What a relay said to one of them.
    example: String,
    message_id: String,
    /// What a person can do about it; only for what has failed.
    advice: &'static str,
}

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
    progress: Progress,
    groups: Vec<ErrorGroup>,
    is_sample: bool,
    tabs: Vec<Tab>,
    shown: Option<MessageStatus>,
    messages: Slice<MessageView>,
    is_first_page: bool,
    can_pause: bool,
    can_resume: bool,
    can_cancel: bool,
    /// Whether something has failed that may pass another time.
    can_retry: bool,
}

#[derive(Template, WebTemplate)]
#[template(path = "_progress.html")]
pub(super) struct ProgressFragment {
    progress: Progress,
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
    Path(id): Path<String>,
    Query(query): Query<Fields>,
) -> Result<BroadcastPage, UiError> {
    let b = read(&state, &id).await?;
    let shown = query.filled("status").and_then(|s| s.parse::<MessageStatus>().ok());
    let after = query.filled("after");
    let messages = state.store.messages(&b.id, shown, after, PAGE_SIZE).await?;
    let (groups, is_sample) = error_groups(&state, &b).await?;
    let progress = read_progress(&state, &b).await?;
    Ok(BroadcastPage {
        chrome: Chrome::new(&signed, Section::Broadcasts).noting(query.text("note")),
        audience: progress::audience(&b.audience),
        can_retry: can_retry(&b, &groups),
        groups,
        is_sample,
        tabs: tabs(&b, shown),
        shown,
        messages,
        is_first_page: after.is_none(),
        can_pause: !b.status.is_final() && b.status != BroadcastStatus::Paused,
        can_resume: b.status == BroadcastStatus::Paused,
        can_cancel: !b.status.is_final(),
        progress,
        b,
    })
}

/// The progress alone, for the page that refreshes itself.
pub async fn fragment(
    _signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<ProgressFragment, UiError> {
    let b = read(&state, &id).await?;
    Ok(ProgressFragment {
        progress: read_progress(&state, &b).await?,
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

fn can_retry(b: &Broadcast, groups: &[ErrorGroup]) -> bool {
    let is_over = matches!(b.status, BroadcastStatus::Canceled | BroadcastStatus::Failed);
    let may_pass = |g: &ErrorGroup| g.status == MessageStatus::Failed.as_str() && reason::may_pass_later(&g.class);
    !is_over && groups.iter().any(may_pass)
}

/// What went wrong, grouped by reason, the most frequent first; and whether only a part was looked at.
async fn error_groups(state: &WebState, b: &Broadcast) -> Result<(Vec<ErrorGroup>, bool), UiError> {
    let mut groups: BTreeMap<(&'static str, String, String), ErrorGroup> = BTreeMap::new();
    let mut is_sample = false;
    for status in [MessageStatus::Deferred, MessageStatus::Uncertain] {
        if b.counts.get(status) == 0 {
            continue;
        }
        is_sample |= b.counts.get(status) > SAMPLE_MAX;
        for m in state.store.messages(&b.id, Some(status), None, SAMPLE_MAX).await?.rows {
            let group = group_of(&m);
            groups
                .entry((group.status, group.class.clone(), group.code.clone()))
                .and_modify(|g| g.n += 1)
                .or_insert(group);
        }
    }
    let mut groups: Vec<ErrorGroup> = groups.into_values().collect();
    if b.counts.failed > 0 {
        groups.extend(state.store.failures(&b.id).await?.into_iter().map(failed_group));
    }
    groups.sort_by_key(|g| std::cmp::Reverse(g.n));
    groups.truncate(GROUPS_MAX);
    Ok((groups, is_sample))
}

/// All that failed for one reason.
fn failed_group(f: Failures) -> ErrorGroup {
    let code = f.example.code.map(|c| c.to_string());
    ErrorGroup {
        status: MessageStatus::Failed.as_str(),
        advice: reason::find(&f.class).map_or("", |r| r.advice),
        class: f.class,
        code: [code, f.example.enhanced]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" "),
        n: f.n,
        example: f.example.text,
        message_id: f.example.message_id,
    }
}

fn group_of(m: &MessageView) -> ErrorGroup {
    let reply = m.reply.clone().unwrap_or_default();
    let code = reply.code.map(|c| c.to_string());
    ErrorGroup {
        status: m.status.as_str(),
        class: m.class.clone(),
        code: [code, reply.enhanced]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" "),
        n: 1,
        example: reply.text,
        message_id: m.id.to_string(),
        advice: "",
    }
}
