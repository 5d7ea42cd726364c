//! All broadcasts, newest first; to a newcomer, the way to the first one.

use askama::Template;
use askama_web::WebTemplate;
use axum::extract::{Query, State};

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
use super::format;
use super::progress::{self, Segment};
use crate::domain::broadcast::Broadcast;
use crate::domain::time::Timestamp;
use crate::pipeline::outlet::Outlet;
use crate::template;
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Rows on a page: two screens, and a small query.
const PAGE_SIZE: i64 = 25;

struct Row {
    id: String,
    subject: String,
    status: &'static str,
    audience: String,
    by_campaign: bool,
    bar: Vec<Segment>,
    sent: i64,
    total: i64,
    failed: i64,
    /// When it was, or will be, started.
    at: Timestamp,
    is_planned: bool,
}

impl From<Broadcast> for Row {
    fn from(b: Broadcast) -> Self {
        Self {
            id: b.id.to_string(),
            subject: template::title(&b.subject),
            status: b.status.as_str(),
            audience: progress::audience(&b.audience),
            by_campaign: b.campaign_id.is_some(),
            bar: progress::bar(&b.counts),
            sent: b.counts.sent,
            total: b.counts.total(),
            failed: b.counts.failed,
            at: b.send_at.or(b.started_at).unwrap_or(b.created_at),
            is_planned: b.started_at.is_none() && b.send_at.is_some(),
        }
    }
}

/// The rows, and where the next page begins.
struct Rows {
    rows: Vec<Row>,
    next: Option<String>,
    is_live: bool,
    after: Option<String>,
}

/// What a newcomer still has to do before the first broadcast.
struct FirstSteps {
    contacts: i64,
    n_templates: i64,
    /// Where mail would go now.
    outlet: String,
    /// Whether captured mail can be looked at here.
    has_mailbox: bool,
}

#[derive(Template, WebTemplate)]
#[template(path = "broadcasts.html")]
pub(super) struct BroadcastsPage {
    chrome: Chrome,
    list: Rows,
    first_steps: Option<FirstSteps>,
}

#[derive(Template, WebTemplate)]
#[template(path = "_broadcast_rows.html")]
pub(super) struct RowsFragment {
    list: Rows,
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<BroadcastsPage, UiError> {
    let list = read(&state, query.filled("after")).await?;
    let first_steps = if list.rows.is_empty() && list.after.is_none() {
        let outlet = Outlet::read(&*state.store).await?;
        Some(FirstSteps {
            outlet: outlet.sentence(),
            has_mailbox: state.capture.is_some() && outlet.is_captured(),
            contacts: state.store.count_subscribed(None).await?,
            n_templates: state.store.templates().await?.len() as i64,
        })
    } else {
        None
    };
    let chrome = Chrome::new(&signed, Section::Broadcasts).noting(query.text("note"));
    Ok(BroadcastsPage {
        chrome,
        list,
        first_steps,
    })
}

/// The rows alone, for the page that refreshes itself.
pub async fn rows(
    _signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<RowsFragment, UiError> {
    Ok(RowsFragment {
        list: read(&state, query.filled("after")).await?,
    })
}

async fn read(state: &WebState, after: Option<&str>) -> Result<Rows, UiError> {
    let slice = state.store.broadcasts(after, PAGE_SIZE).await?;
    let is_live = slice.rows.iter().any(|b| !b.status.is_final());
    Ok(Rows {
        rows: slice.rows.into_iter().map(Row::from).collect(),
        next: slice.next,
        is_live,
        after: after.map(ToOwned::to_owned),
    })
}
