//! Captured mail: what the built-in capture relay took instead of the world, as long as there never was another
//! relay. It is in memory and belongs to this process.

use std::sync::Arc;

use askama::Template;
use askama_web::WebTemplate;
use axum::extract::{Path, State};
use axum::response::Response;

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::mail_view::MailView;
use super::{format, preview};
use crate::domain::time::Timestamp;
use crate::pipeline::outlet::Outlet;
use crate::sink::Captured;
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Messages listed: the newest, to look at; what became of all is on the broadcasts' pages.
const SHOWN_MAX: usize = 100;
/// Most bytes of a message's source on its page.
const SOURCE_BYTES_MAX: usize = 256 * 1024;

struct Row {
    id: u64,
    at: Timestamp,
    to: String,
    subject: String,
}

#[derive(Template, WebTemplate)]
#[template(path = "mailbox.html")]
pub(super) struct MailboxPage {
    chrome: Chrome,
    rows: Vec<Row>,
    /// All messages taken since the start.
    taken: i64,
    /// Whether this process has a capture relay.
    has_relay: bool,
    /// Whether mail goes to it.
    is_capturing: bool,
    /// Where mail goes now.
    outlet: String,
}

#[derive(Template, WebTemplate)]
#[template(path = "captured.html")]
pub(super) struct CapturedPage {
    chrome: Chrome,
    id: u64,
    at: Timestamp,
    view: MailView,
    envelope_from: String,
    envelope_to: String,
    source: String,
}

pub async fn list(signed: SignedIn, State(state): State<WebState>) -> Result<MailboxPage, UiError> {
    let outlet = Outlet::read(&*state.store).await?;
    let sink = state.capture.as_ref().map(|relay| relay.sink());
    let taken = sink.map_or(0, |s| s.stats().accepted);
    Ok(MailboxPage {
        chrome: Chrome::new(&signed, Section::Mailbox),
        rows: sink
            .map(|s| s.newest(SHOWN_MAX).iter().map(|m| row(m)).collect())
            .unwrap_or_default(),
        taken: i64::try_from(taken).unwrap_or(i64::MAX),
        has_relay: sink.is_some(),
        is_capturing: outlet.is_captured(),
        outlet: outlet.sentence(),
    })
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<CapturedPage, UiError> {
    let m = read(&state, &id)?;
    let head = &m.raw[..m.raw.len().min(SOURCE_BYTES_MAX)];
    Ok(CapturedPage {
        chrome: Chrome::new(&signed, Section::Mailbox),
        id: m.id,
        at: m.at,
        view: MailView::read(&m.raw),
        envelope_from: m.from.clone(),
        envelope_to: m.to.join(", "),
        source: String::from_utf8_lossy(head).into_owned(),
    })
}

/// The mail itself, for the locked-in frame of its page.
pub async fn html(_: SignedIn, State(state): State<WebState>, Path(id): Path<String>) -> Result<Response, UiError> {
    let view = MailView::read(&read(&state, &id)?.raw);
    let page = match (view.html, view.text) {
        (Some(html), _) => html,
        (None, text) => preview::text_page(&text.unwrap_or_default()),
    };
    Ok(preview::locked_in(page))
}

fn read(state: &WebState, id: &str) -> Result<Arc<Captured>, UiError> {
    let id: u64 = id.parse().map_err(|_| UiError::NotFound)?;
    let relay = state.capture.as_ref().ok_or(UiError::NotFound)?;
    relay.sink().message(id).ok_or(UiError::NotFound)
}

fn row(m: &Captured) -> Row {
    Row {
        id: m.id,
        at: m.at,
        to: m.to.join(", "),
        subject: MailView::read(&m.raw).subject,
    }
}
