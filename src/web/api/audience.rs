//! Lists of contacts.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::shapes::Page;
use super::templates::check_title;
use crate::domain::contact::List;
use crate::domain::id::ListId;
use crate::domain::time::Timestamp;
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::{Id, Json as Body};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    name: String,
}

/// A named set of contacts.
#[derive(Serialize, ToSchema)]
#[schema(as = List)]
pub struct ListView {
    id: String,
    name: String,
    /// Subscribed contacts on it.
    contacts: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<List> for ListView {
    fn from(l: List) -> Self {
        Self {
            id: l.id.to_string(),
            name: l.name,
            contacts: l.contacts,
            created_at: l.created_at,
        }
    }
}

/// Make a list
#[utoipa::path(post, path = "/v1/lists", tag = "contacts", operation_id = "create_list", request_body = ListRequest,
    responses((status = 201, body = ListView), (status = 422, body = ProblemDocument)))]
pub async fn create(
    State(state): State<ApiState>,
    Body(request): Body<ListRequest>,
) -> Result<impl IntoResponse, Problem> {
    let name = check_title(&request.name)?;
    let now = state.now();
    let id = ListId::new(now, fastrand::u128(..));
    state.store().create_list(&id, &name, now).await?;
    let location = HeaderValue::from_str(&format!("/v1/lists/{id}")).expect("an id is ASCII");
    let view = ListView {
        id: id.to_string(),
        name,
        contacts: 0,
        created_at: now,
    };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)))
}

/// All lists
#[utoipa::path(get, path = "/v1/lists", tag = "contacts", operation_id = "list_lists",
    responses((status = 200, body = Page<ListView>)))]
pub async fn list(State(state): State<ApiState>) -> Result<Json<Page<ListView>>, Problem> {
    Ok(Json(Page::whole(state.store().lists().await?, ListView::from)))
}

/// One list of contacts
#[utoipa::path(get, path = "/v1/lists/{id}", tag = "contacts", operation_id = "get_list", params(("id" = String, Path)),
    responses((status = 200, body = ListView), (status = 404, body = ProblemDocument)))]
pub async fn show(State(state): State<ApiState>, Id(id): Id<ListId>) -> Result<Json<ListView>, Problem> {
    match state.store().list(&id).await? {
        Some(list) => Ok(Json(list.into())),
        None => Err(Problem::not_found(format!("there is no list {id}"))),
    }
}

/// Delete a list
///
/// Its contacts stay.
#[utoipa::path(delete, path = "/v1/lists/{id}", tag = "contacts", operation_id = "delete_list",
    params(("id" = String, Path)), responses((status = 204), (status = 404, body = ProblemDocument)))]
pub async fn remove(State(state): State<ApiState>, Id(id): Id<ListId>) -> Result<StatusCode, Problem> {
    match state.store().delete_list(&id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found(format!("there is no list {id}"))),
    }
}
