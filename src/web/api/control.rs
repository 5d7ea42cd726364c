//! Pause, resume, cancel, retry. Each may be asked twice; what is over answers 409 with its status.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::broadcasts::view;
use super::shapes::BroadcastView;
use crate::domain::id::BroadcastId;
use crate::domain::message::clip;
use crate::domain::reason;
use crate::pipeline::accept::FieldProblem;
use crate::pipeline::control;
use crate::store::queue::Wish;
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::{Id, Json as Body};

/// Most bytes of a reason; it stands beside the status.
const REASON_BYTES_MAX: usize = 200;

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// Shown beside the status.
    reason: Option<String>,
}

/// Pause a broadcast
///
/// What is on the wire is finished; nothing else goes out until it is resumed.
#[utoipa::path(post, path = "/v1/broadcasts/{id}/pause", tag = "broadcasts", operation_id = "pause_broadcast",
    params(("id" = String, Path)), request_body = Option<PauseRequest>,
    responses((status = 200, body = BroadcastView), (status = 404, body = ProblemDocument),
        (status = 409, body = ProblemDocument)))]
pub async fn pause(
    State(state): State<ApiState>,
    Id(id): Id<BroadcastId>,
    body: Option<Body<PauseRequest>>,
) -> Result<Json<BroadcastView>, Problem> {
    let reason = body
        .and_then(|Body(b)| b.reason)
        .unwrap_or_else(|| "paused over the API".to_owned());
    wish(
        &state,
        &id,
        &Wish::Pause {
            reason: clip(&reason, REASON_BYTES_MAX),
        },
    )
    .await
}

/// Resume a paused broadcast
#[utoipa::path(post, path = "/v1/broadcasts/{id}/resume", tag = "broadcasts", operation_id = "resume_broadcast",
    params(("id" = String, Path)),
    responses((status = 200, body = BroadcastView), (status = 404, body = ProblemDocument),
        (status = 409, body = ProblemDocument)))]
pub async fn resume(State(state): State<ApiState>, Id(id): Id<BroadcastId>) -> Result<Json<BroadcastView>, Problem> {
    wish(&state, &id, &Wish::Resume).await
}

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// Reason classes, as in `failures`. By default those that may pass another time: what is the broadcast's or the relay's
    /// fault, or a policy.
    classes: Option<Vec<String>>,
}

/// What a retry put back.
#[derive(Serialize, ToSchema)]
pub struct RetriedView {
    /// Messages that were `failed` and are `deferred` now, due at once.
    retried: i64,
    broadcast: BroadcastView,
}

/// Try failed messages again
///
/// For the time after what was wrong has been put right. Messages of a chunk that is being worked on at this moment are left
/// out; ask again, or pause the broadcast before. A completed broadcast goes on.
#[utoipa::path(post, path = "/v1/broadcasts/{id}/retry", tag = "broadcasts", operation_id = "retry_broadcast",
    params(("id" = String, Path)), request_body = Option<RetryRequest>,
    responses((status = 200, body = RetriedView), (status = 404, body = ProblemDocument),
        (status = 409, body = ProblemDocument), (status = 422, body = ProblemDocument)))]
pub async fn retry(
    State(state): State<ApiState>,
    Id(id): Id<BroadcastId>,
    body: Option<Body<RetryRequest>>,
) -> Result<Json<RetriedView>, Problem> {
    let classes = body.and_then(|Body(b)| b.classes);
    for (i, class) in classes.iter().flatten().enumerate() {
        if reason::find(class).is_none() {
            let detail = format!("there is no reason class '{}'; docs/classes.md lists them", class.escape_debug());
            return Err(Problem::field(FieldProblem::new(format!("#/classes/{i}"), "invalid_value", detail)));
        }
    }
    let (retried, broadcast) = control::retry(state.store(), &id, classes, state.now()).await?;
    Ok(Json(RetriedView {
        retried,
        broadcast: view(&state, broadcast).await?,
    }))
}

/// Cancel a broadcast
///
/// What is on the wire is finished; everything not yet sent becomes `canceled`.
#[utoipa::path(post, path = "/v1/broadcasts/{id}/cancel", tag = "broadcasts", operation_id = "cancel_broadcast",
    params(("id" = String, Path)),
    responses((status = 200, body = BroadcastView), (status = 404, body = ProblemDocument),
        (status = 409, body = ProblemDocument)))]
pub async fn cancel(State(state): State<ApiState>, Id(id): Id<BroadcastId>) -> Result<Json<BroadcastView>, Problem> {
    wish(&state, &id, &Wish::Cancel).await
}

async fn wish(state: &ApiState, id: &BroadcastId, wish: &Wish) -> Result<Json<BroadcastView>, Problem> {
    let broadcast = control::control(state.store(), id, wish, state.now()).await?;
    Ok(Json(view(state, broadcast).await?))
}
