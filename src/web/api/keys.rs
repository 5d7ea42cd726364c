//! API keys. A key is shown once, when it is made; afterwards only its hash is known.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::shapes::Page;
use super::templates::check_title;
use crate::domain::time::Timestamp;
use crate::pipeline::accept::FieldProblem;
use crate::store::access::ApiKey;
use crate::web::auth::{Scope, new_key};
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::{Id, Json as Body};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    name: String,
    /// Any of `send`, `read`, `manage`, `admin`.
    scopes: Vec<String>,
}

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct KeyView {
    id: String,
    name: String,
    scopes: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// The key itself; only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl From<ApiKey> for KeyView {
    fn from(k: ApiKey) -> Self {
        Self {
            id: k.id,
            name: k.name,
            scopes: k.scopes,
            created_at: k.created_at,
            last_used_at: k.last_used_at,
            revoked_at: k.revoked_at,
            key: None,
        }
    }
}

/// Make an API key
#[utoipa::path(post, path = "/v1/keys", tag = "keys", operation_id = "create_key", request_body = KeyRequest,
    responses((status = 201, body = KeyView), (status = 422, body = ProblemDocument)))]
pub async fn create(
    State(state): State<ApiState>,
    Body(request): Body<KeyRequest>,
) -> Result<(StatusCode, Json<KeyView>), Problem> {
    let name = check_title(&request.name)?;
    let mut scopes = Vec::new();
    for (i, text) in request.scopes.iter().enumerate() {
        let scope: Scope = text
            .parse()
            .map_err(|why| Problem::field(FieldProblem::new(format!("#/scopes/{i}"), "invalid_value", why)))?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if scopes.is_empty() {
        let detail = "the key would have no scope; give at least one of send, read, manage, admin";
        return Err(Problem::field(FieldProblem::new("#/scopes", "required", detail)));
    }
    let (stored, shown) = new_key(&name, &scopes, state.now());
    state.store().create_api_key(&stored).await?;
    Ok((
        StatusCode::CREATED,
        Json(KeyView {
            key: Some(shown),
            ..stored.into()
        }),
    ))
}

/// All API keys, without their secrets
#[utoipa::path(get, path = "/v1/keys", tag = "keys", operation_id = "list_keys",
    responses((status = 200, body = Page<KeyView>)))]
pub async fn list(State(state): State<ApiState>) -> Result<Json<Page<KeyView>>, Problem> {
    Ok(Json(Page::whole(state.store().api_keys().await?, KeyView::from)))
}

/// Revoke an API key
///
/// It is refused at once by this process, and by all others within 15 seconds.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", operation_id = "revoke_key", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemDocument)))]
pub async fn revoke(State(state): State<ApiState>, Id(id): Id<String>) -> Result<StatusCode, Problem> {
    if id.contains('\0') || !state.store().revoke_api_key(&id, state.now()).await? {
        return Err(Problem::not_found("there is no such key, or it was revoked before"));
    }
    state.keys.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}
