//! What became of broadcasts. Reads only; cheap enough to be asked every second.

use aws_lc_rs::digest;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiState;
use super::shapes::{BroadcastView, Page};
use crate::domain::broadcast::Broadcast;
use crate::domain::id::BroadcastId;
use crate::pipeline::outlook::{Outlook, outlook};
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::{Id, Params, cursor, page_rows};

/// A client may keep the answer, if it asks each time whether it still holds.
const REVALIDATE: (HeaderName, &str) = (header::CACHE_CONTROL, "private, no-cache");

/// A page of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// 1 to 500; 50 by default.
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub after: Option<String>,
}

/// All broadcasts, newest first
///
/// The rate, the outlook, the failures and the number of possible duplicates stand only with a single broadcast; here they are `null`.
#[utoipa::path(get, path = "/v1/broadcasts", tag = "broadcasts", operation_id = "list_broadcasts", params(Paging),
    responses((status = 200, body = Page<BroadcastView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<BroadcastView>>, Problem> {
    let slice = state
        .store()
        .broadcasts(cursor(paging.after.as_deref())?, page_rows(paging.limit)?)
        .await?;
    Ok(Json(Page::of(slice, |b| BroadcastView::new(b, None, None, Outlook::default()))))
}

/// One broadcast with its counts
///
/// Has an `ETag`: with `If-None-Match` the answer is 304 while nothing changes.
#[utoipa::path(get, path = "/v1/broadcasts/{id}", tag = "broadcasts", operation_id = "get_broadcast",
    params(("id" = String, Path)),
    responses((status = 200, body = BroadcastView), (status = 304), (status = 404, body = ProblemDocument)))]
pub async fn show(
    State(state): State<ApiState>,
    Id(id): Id<BroadcastId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(broadcast) = state.store().broadcast(&id).await? else {
        return Err(Problem::not_found(format!("there is no broadcast {id}")));
    };
    let view = view(&state, broadcast).await?;
    let body = serde_json::to_vec(&view).expect("strings and numbers always serialise");
    let tag = etag(&body);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if known.split(',').any(|t| t.trim() == tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag.as_str()), REVALIDATE]).into_response());
    }
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::ETAG, tag.as_str()),
        REVALIDATE,
    ];
    Ok((headers, body).into_response())
}

/// A broadcast as it is shown, with its present rate.
pub async fn view(state: &ApiState, broadcast: Broadcast) -> Result<BroadcastView, Problem> {
    let now = state.now();
    let rate = state.store().rate(&broadcast.id, now).await?;
    let outlook = outlook(state.store(), &broadcast, rate, now).await?;
    let failures = match broadcast.counts.failed {
        0 => Vec::new(),
        _ => state.store().failures(&broadcast.id).await?,
    };
    Ok(BroadcastView::new(broadcast, Some(rate), Some(failures), outlook))
}

fn etag(body: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, body);
    let head: String = hash.as_ref()[..12].iter().map(|b| format!("{b:02x}")).collect();
    format!("W/\"{head}\"")
}
