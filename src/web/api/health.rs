//! Whether this process lives, whether it can work, and what its problems mean. Open to everybody; tells nothing
//! about anybody.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use crate::web::error::{Kind, Problem, ProblemDocument};
use crate::web::extract::Id;

#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`
    status: &'static str,
}

/// The process answers; the database is not asked
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = Health)))]
pub async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The database answers, has the right schema, and is still this program's to write
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Health), (status = 503, body = ProblemDocument)))]
pub async fn ready(State(state): State<ApiState>) -> Result<Json<Health>, Problem> {
    state.store().ready().await?;
    state.store().footing().await?;
    Ok(Json(Health { status: "ok" }))
}

/// What the code of a problem means, in words
#[utoipa::path(get, path = "/problems/{code}", tag = "health", params(("code" = String, Path)),
    responses((status = 200, body = String), (status = 404, body = ProblemDocument)))]
pub async fn problem(Id(code): Id<String>) -> Result<String, Problem> {
    let kind = Kind::ALL.iter().find(|kind| kind.code == code);
    let kind = kind.ok_or_else(|| Problem::not_found("there is no problem of this name"))?;
    Ok(format!("{} ({})\n\n{}.\n{}\n", kind.code, kind.status, kind.title, kind.meaning))
}
