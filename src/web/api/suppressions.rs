//! Addresses that must not be mailed, whatever a broadcast says.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::broadcasts::Paging;
use super::messages::parse_email;
use super::shapes::Page;
use crate::domain::address::EmailAddress;
use crate::domain::contact::{Suppression, SuppressionReason};
use crate::domain::time::Timestamp;
use crate::pipeline::accept::{FieldProblem, PROBLEMS_SHOWN_MAX, quoted};
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::{Id, Json as Body, Params, cursor, page_rows};

/// Most addresses of one request: one short transaction.
const ADDRESSES_MAX: usize = 10_000;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SuppressRequest {
    /// At most 10,000.
    emails: Vec<String>,
    /// `manual` (default), `unsubscribed`, `hard_bounce` or `complaint`.
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct SuppressAnswer {
    /// Addresses that were not suppressed before.
    added: u64,
}

/// An address that must not be mailed.
#[derive(Serialize, ToSchema)]
#[schema(as = Suppression)]
pub struct SuppressionView {
    email: String,
    reason: String,
    /// Where it came from: a broadcast's id, `api`, `ui`, `import`.
    source: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Suppression> for SuppressionView {
    fn from(s: Suppression) -> Self {
        Self {
            email: s.email,
            reason: s.reason,
            source: s.source,
            created_at: s.created_at,
        }
    }
}

/// Suppress addresses
///
/// One that is suppressed already keeps its first reason.
#[utoipa::path(post, path = "/v1/suppressions", tag = "suppressions", operation_id = "suppress",
    request_body = SuppressRequest,
    responses((status = 200, body = SuppressAnswer), (status = 422, body = ProblemDocument)))]
pub async fn add(
    State(state): State<ApiState>,
    Body(request): Body<SuppressRequest>,
) -> Result<Json<SuppressAnswer>, Problem> {
    let reason = parse_reason(request.reason.as_deref())?;
    let n = request.emails.len();
    if n == 0 || n > ADDRESSES_MAX {
        let detail = format!("{n} addresses are given; give 1 to {ADDRESSES_MAX}");
        return Err(Problem::field(FieldProblem::new("#/emails", "invalid_value", detail)));
    }
    let (mut addresses, mut problems) = (Vec::with_capacity(n), Vec::new());
    for (i, text) in request.emails.iter().enumerate() {
        match EmailAddress::parse(text) {
            Ok(address) => addresses.push(address.normalised()),
            Err(why) => problems.push(FieldProblem::new(format!("#/emails/{i}"), "invalid_address", why)),
        }
    }
    if !problems.is_empty() {
        let total = problems.len() as i64;
        problems.truncate(PROBLEMS_SHOWN_MAX);
        return Err(Problem::fields(problems, total));
    }
    let added = state.store().suppress(&addresses, reason, "api", state.now()).await?;
    Ok(Json(SuppressAnswer { added }))
}

/// All suppressed addresses
#[utoipa::path(get, path = "/v1/suppressions", tag = "suppressions", operation_id = "list_suppressions", params(Paging),
    responses((status = 200, body = Page<SuppressionView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<SuppressionView>>, Problem> {
    let slice = state
        .store()
        .suppressions(cursor(paging.after.as_deref())?, page_rows(paging.limit)?)
        .await?;
    Ok(Json(Page::of(slice, SuppressionView::from)))
}

/// Whether and why an address is suppressed
#[utoipa::path(get, path = "/v1/suppressions/{email}", tag = "suppressions", operation_id = "get_suppression",
    params(("email" = String, Path)),
    responses((status = 200, body = SuppressionView), (status = 404, body = ProblemDocument)))]
pub async fn show(State(state): State<ApiState>, Id(email): Id<String>) -> Result<Json<SuppressionView>, Problem> {
    match state.store().suppression(&parse_email(&email)?).await? {
        Some(found) => Ok(Json(found.into())),
        None => Err(Problem::not_found("this address is not suppressed")),
    }
}

/// Let an address be mailed again
#[utoipa::path(delete, path = "/v1/suppressions/{email}", tag = "suppressions", operation_id = "unsuppress",
    params(("email" = String, Path)), responses((status = 204), (status = 404, body = ProblemDocument)))]
pub async fn remove(State(state): State<ApiState>, Id(email): Id<String>) -> Result<StatusCode, Problem> {
    match state.store().unsuppress(&parse_email(&email)?).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found("this address is not suppressed")),
    }
}

fn parse_reason(text: Option<&str>) -> Result<SuppressionReason, Problem> {
    use SuppressionReason::{Complaint, HardBounce, Manual, Unsubscribed};
    let Some(text) = text else {
        return Ok(Manual);
    };
    let all = [Manual, Unsubscribed, HardBounce, Complaint];
    all.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
        let detail = format!("{} is not a reason; use manual, unsubscribed, hard_bounce or complaint", quoted(text));
        Problem::field(FieldProblem::new("#/reason", "invalid_value", detail))
    })
}
