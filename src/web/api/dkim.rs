//! Keys that mail is signed with. The private half never leaves the database.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::shapes::Page;
use crate::domain::dkim::{DkimAlgorithm, DkimKey};
use crate::domain::time::Timestamp;
use crate::pipeline::accept::FieldProblem;
use crate::pipeline::dkim::{self, DkimError, Unpublished};
use crate::store::StoreError;
use crate::web::error::{Kind, Problem, ProblemDocument};
use crate::web::extract::{Id, Json as Body};

/// What is said about a new key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DkimKeyRequest {
    /// The domain after the @ of the sender, or one above it.
    domain: String,
    /// A name for the key, unique within the domain: letters, digits and inner hyphens. The next free `hikyaku1`, `hikyaku2` … by
    /// default.
    selector: Option<String>,
    /// `rsa` (by default), which every receiver can check, or `ed25519`, which not every receiver knows. With a key of each, mail has
    /// two signatures.
    algorithm: Option<String>,
}

/// A key, without its private half.
#[derive(Serialize, ToSchema)]
#[schema(as = DkimKey)]
pub struct DkimKeyView {
    id: String,
    domain: String,
    selector: String,
    /// `rsa` or `ed25519`.
    algorithm: &'static str,
    record: DkimRecord,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Since when new broadcasts are signed with it; null while they are not.
    #[schema(value_type = Option<String>, format = DateTime)]
    enabled_at: Option<Timestamp>,
}

/// What the DNS must say for receivers to check the signatures.
#[derive(Serialize, ToSchema)]
pub struct DkimRecord {
    name: String,
    /// `TXT`
    r#type: &'static str,
    /// The whole text, as the forms of most providers take it.
    value: String,
    /// The same as a line of a zone file.
    zone_line: String,
}

impl From<DkimKey> for DkimKeyView {
    fn from(key: DkimKey) -> Self {
        Self {
            record: DkimRecord {
                name: key.record_name(),
                r#type: "TXT",
                value: key.record(),
                zone_line: key.zone_line(),
            },
            id: key.id.to_string(),
            algorithm: key.algorithm.as_str(),
            domain: key.domain,
            selector: key.selector,
            created_at: key.created_at,
            enabled_at: key.enabled_at,
        }
    }
}

impl From<DkimError> for Problem {
    fn from(e: DkimError) -> Self {
        match e {
            DkimError::NotFound(_) => Problem::not_found(e.to_string()),
            DkimError::Wrong { field, detail } => {
                Problem::field(FieldProblem::new(format!("#/{field}"), "invalid_value", detail))
            }
            DkimError::Unpublished { .. } => {
                let detail = format!("{e}. The key is not enabled; \"unchecked\": true enables it all the same");
                Problem::new(&Kind::CONFLICT, detail)
            }
            DkimError::NotMade(_) => Problem::new(&Kind::UNAVAILABLE, e.to_string()),
            // Its words name what is in the way, and what to do.
            DkimError::Store(StoreError::Conflict(why)) => Problem::new(&Kind::CONFLICT, why),
            DkimError::Store(e) => e.into(),
        }
    }
}

/// All DKIM keys, by domain and selector
#[utoipa::path(get, path = "/v1/dkim-keys", tag = "dkim", operation_id = "list_dkim_keys",
    responses((status = 200, body = Page<DkimKeyView>)))]
pub async fn list(State(state): State<ApiState>) -> Result<Json<Page<DkimKeyView>>, Problem> {
    Ok(Json(Page::whole(state.store().dkim_keys().await?, DkimKeyView::from)))
}

/// One DKIM key
#[utoipa::path(get, path = "/v1/dkim-keys/{id}", tag = "dkim", operation_id = "get_dkim_key", params(("id" = String, Path)),
    responses((status = 200, body = DkimKeyView), (status = 404, body = ProblemDocument)))]
pub async fn show(State(state): State<ApiState>, Id(id): Id<String>) -> Result<Json<DkimKeyView>, Problem> {
    Ok(Json(dkim::find(state.store(), &id).await?.into()))
}

/// A key that was made, and where it is.
type Made = (StatusCode, [(HeaderName, HeaderValue); 1], Json<DkimKeyView>);

/// Make a DKIM key
///
/// It signs nothing before it is enabled: first publish `record`.
#[utoipa::path(post, path = "/v1/dkim-keys", tag = "dkim", operation_id = "create_dkim_key", request_body = DkimKeyRequest,
    responses((status = 201, body = DkimKeyView), (status = 409, body = ProblemDocument), (status = 422, body = ProblemDocument)))]
pub async fn create(State(state): State<ApiState>, Body(request): Body<DkimKeyRequest>) -> Result<Made, Problem> {
    let algorithm = request.algorithm.as_deref().unwrap_or("rsa");
    let algorithm: DkimAlgorithm = algorithm
        .parse()
        .map_err(|why| Problem::field(FieldProblem::new("#/algorithm", "invalid_value", why)))?;
    let (domain, selector) = (&request.domain, request.selector.as_deref());
    let key = dkim::create(state.store(), domain, selector, algorithm, state.now()).await?;
    let location = HeaderValue::from_str(&format!("/v1/dkim-keys/{}", key.id)).expect("an id is ASCII");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(key.into())))
}

/// Whether receivers can check a key's signatures.
#[derive(Serialize, ToSchema)]
pub struct DkimCheck {
    /// Null when the DNS gave no answer.
    published: Option<bool>,
    /// What is wrong, with the fix.
    problem: Option<String>,
}

/// Look a DKIM key's record up in the DNS
#[utoipa::path(post, path = "/v1/dkim-keys/{id}/check", tag = "dkim", operation_id = "check_dkim_key",
    params(("id" = String, Path)), responses((status = 200, body = DkimCheck), (status = 404, body = ProblemDocument)))]
pub async fn check(State(state): State<ApiState>, Id(id): Id<String>) -> Result<Json<DkimCheck>, Problem> {
    let key = dkim::find(state.store(), &id).await?;
    let found = dkim::check(&state.web.dns, &key).await;
    Ok(Json(DkimCheck {
        published: match &found {
            Ok(()) => Some(true),
            Err(Unpublished::Absent | Unpublished::Wrong(_)) => Some(false),
            Err(Unpublished::Unknown(_)) => None,
        },
        problem: found.err().map(|why| why.to_string()),
    }))
}

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DkimEnableRequest {
    /// Do not look the record up first.
    #[serde(default)]
    unchecked: bool,
}

/// Sign new broadcasts with a DKIM key
///
/// Refused unless the DNS has its record. It takes the place of another key of its domain and algorithm; broadcasts that were accepted
/// before keep the keys they were accepted with.
#[utoipa::path(post, path = "/v1/dkim-keys/{id}/enable", tag = "dkim", operation_id = "enable_dkim_key",
    params(("id" = String, Path)), request_body = Option<DkimEnableRequest>,
    responses((status = 200, body = DkimKeyView), (status = 404, body = ProblemDocument), (status = 409, body = ProblemDocument)))]
pub async fn enable(
    State(state): State<ApiState>,
    Id(id): Id<String>,
    body: Option<Body<DkimEnableRequest>>,
) -> Result<Json<DkimKeyView>, Problem> {
    let is_unchecked = body.is_some_and(|Body(request)| request.unchecked);
    let dns = Some(&state.web.dns).filter(|_| !is_unchecked);
    Ok(Json(dkim::enable(state.store(), dns, &id, state.now()).await?.into()))
}

/// Sign new broadcasts no longer with a DKIM key
#[utoipa::path(post, path = "/v1/dkim-keys/{id}/disable", tag = "dkim", operation_id = "disable_dkim_key",
    params(("id" = String, Path)), responses((status = 200, body = DkimKeyView), (status = 404, body = ProblemDocument)))]
pub async fn disable(State(state): State<ApiState>, Id(id): Id<String>) -> Result<Json<DkimKeyView>, Problem> {
    Ok(Json(dkim::disable(state.store(), &id).await?.into()))
}

/// Remove a DKIM key
///
/// Refused while a broadcast that is not over is signed with it. Leave its record in the DNS for some days: mail on its way is checked
/// by it.
#[utoipa::path(delete, path = "/v1/dkim-keys/{id}", tag = "dkim", operation_id = "delete_dkim_key", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemDocument), (status = 409, body = ProblemDocument)))]
pub async fn remove(State(state): State<ApiState>, Id(id): Id<String>) -> Result<StatusCode, Problem> {
    dkim::remove(state.store(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
