//! Stored templates, and what becomes of one for a recipient. A broadcast copies its template when it is accepted:
//! a change never reaches one that is on its way.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::ApiState;
use super::shapes::Page;
use crate::domain::address::EmailAddress;
use crate::domain::content::{Content, SharedData};
use crate::domain::id::{BroadcastId, TemplateId};
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::pipeline::accept::{FieldProblem, check_wording, template_problem};
use crate::store::StoreError;
use crate::store::library::Template;
use crate::template::{Context, Newsletter, Shared};
use crate::web::error::{Kind, Problem, ProblemDocument};
use crate::web::extract::{Id, Json as Body};

/// Most characters of the name of a template, a list, a campaign or a key.
const TITLE_CHARS_MAX: usize = 200;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateRequest {
    name: String,
    subject: String,
    html: Option<String>,
    /// Made from `html` when absent.
    text: Option<String>,
}

/// A stored template.
#[derive(Serialize, ToSchema)]
#[schema(as = Template)]
pub struct TemplateView {
    id: String,
    name: String,
    subject: String,
    html: Option<String>,
    text: Option<String>,
    /// Rises with every change.
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Template> for TemplateView {
    fn from(t: Template) -> Self {
        Self {
            id: t.id.to_string(),
            name: t.name,
            subject: t.content.subject,
            html: t.content.html,
            text: t.content.text,
            version: t.version,
            created_at: t.created_at,
            updated_at: t.updated_at,
        }
    }
}

/// Store a template
#[utoipa::path(post, path = "/v1/templates", tag = "templates", operation_id = "create_template",
    request_body = TemplateRequest,
    responses((status = 201, body = TemplateView), (status = 422, body = ProblemDocument)))]
pub async fn create(
    State(state): State<ApiState>,
    Body(request): Body<TemplateRequest>,
) -> Result<impl IntoResponse, Problem> {
    let id = TemplateId::new(state.now(), fastrand::u128(..));
    let template = put(&state, &id, request).await?;
    let location = HeaderValue::from_str(&format!("/v1/templates/{id}")).expect("an id is ASCII");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(TemplateView::from(template))))
}

/// All templates by name
#[utoipa::path(get, path = "/v1/templates", tag = "templates", operation_id = "list_templates",
    responses((status = 200, body = Page<TemplateView>)))]
pub async fn list(State(state): State<ApiState>) -> Result<Json<Page<TemplateView>>, Problem> {
    Ok(Json(Page::whole(state.store().templates().await?, TemplateView::from)))
}

/// One template
#[utoipa::path(get, path = "/v1/templates/{id}", tag = "templates", operation_id = "get_template",
    params(("id" = String, Path)),
    responses((status = 200, body = TemplateView), (status = 404, body = ProblemDocument)))]
pub async fn show(State(state): State<ApiState>, Id(id): Id<TemplateId>) -> Result<Json<TemplateView>, Problem> {
    Ok(Json(find(&state, &id).await?.into()))
}

/// Replace a template
#[utoipa::path(put, path = "/v1/templates/{id}", tag = "templates", operation_id = "replace_template",
    params(("id" = String, Path)), request_body = TemplateRequest,
    responses((status = 200, body = TemplateView), (status = 404, body = ProblemDocument),
        (status = 422, body = ProblemDocument)))]
pub async fn replace(
    State(state): State<ApiState>,
    Id(id): Id<TemplateId>,
    Body(request): Body<TemplateRequest>,
) -> Result<Json<TemplateView>, Problem> {
    find(&state, &id).await?;
    Ok(Json(put(&state, &id, request).await?.into()))
}

/// Delete a template
#[utoipa::path(delete, path = "/v1/templates/{id}", tag = "templates", operation_id = "delete_template",
    params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemDocument), (status = 409, body = ProblemDocument)))]
pub async fn remove(State(state): State<ApiState>, Id(id): Id<TemplateId>) -> Result<StatusCode, Problem> {
    match state.store().delete_template(&id).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Problem::not_found(format!("there is no template {id}"))),
        Err(StoreError::Conflict(_)) => Err(Problem::new(
            &Kind::CONFLICT,
            "an active campaign uses the template; pause or delete the campaign first",
        )),
        Err(e) => Err(e.into()),
    }
}

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreviewRequest {
    /// The recipient's address; one at example.org by default.
    email: Option<String>,
    name: Option<String>,
    /// The recipient's data; by default every variable holds its own name.
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
}

/// What one recipient would get.
#[derive(Serialize, ToSchema)]
pub struct Preview {
    subject: String,
    html: Option<String>,
    text: String,
}

/// Render a template for one recipient
#[utoipa::path(post, path = "/v1/templates/{id}/preview", tag = "templates", operation_id = "preview_template",
    params(("id" = String, Path)), request_body = Option<PreviewRequest>,
    responses((status = 200, body = Preview), (status = 404, body = ProblemDocument),
        (status = 422, body = ProblemDocument)))]
pub async fn preview(
    State(state): State<ApiState>,
    Id(id): Id<TemplateId>,
    body: Option<Body<PreviewRequest>>,
) -> Result<Json<Preview>, Problem> {
    let request = body.map(|Body(request)| request).unwrap_or_default();
    let content = find(&state, &id).await?.content;
    let wrong = |field: &'static str, code| move |why| Problem::field(FieldProblem::new(field, code, why));
    let email = request.email.as_deref().unwrap_or("anna@example.org");
    let email = EmailAddress::parse(email).map_err(wrong("#/email", "invalid_address"))?;
    let name = Recipient::parse_name(request.name.as_deref().unwrap_or("")).map_err(wrong("#/name", "invalid_name"))?;
    let newsletter = Newsletter::compile(&content).map_err(|e| Problem::field(template_problem(e)))?;
    let data = match request.data {
        Some(data) => data,
        None => to_raw_value(&newsletter.sample_data()).expect("a JSON object always serialises"),
    };
    let recipient = Recipient {
        email,
        name,
        data: Some(data),
    };
    // Nobody's link: a preview must not be able to unsubscribe anybody.
    let link = format!("{}/u/preview", state.web.public_url);
    let shared = Shared::new(&BroadcastId::new(state.now(), 0), &SharedData::default());
    let rendered = Context::new(&shared, &recipient, &link)
        .and_then(|context| newsletter.render(&context))
        .map_err(|e| Problem::field(template_problem(e)))?;
    Ok(Json(Preview {
        subject: rendered.subject,
        html: rendered.html,
        text: rendered.text,
    }))
}

async fn find(state: &ApiState, id: &TemplateId) -> Result<Template, Problem> {
    let found = state.store().template(id).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no template {id}")))
}

async fn put(state: &ApiState, id: &TemplateId, request: TemplateRequest) -> Result<Template, Problem> {
    let name = check_title(&request.name)?;
    let content = Content {
        subject: request.subject,
        html: request.html,
        text: request.text,
    };
    check_wording(&content).map_err(Problem::field)?;
    Ok(state.store().put_template(id, &name, &content, state.now()).await?)
}

/// The name of a stored thing.
pub fn check_title(name: &str) -> Result<String, Problem> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > TITLE_CHARS_MAX || name.chars().any(char::is_control) {
        let detail = format!("the name must have 1 to {TITLE_CHARS_MAX} characters, none of them a control character");
        return Err(Problem::field(FieldProblem::new("#/name", "invalid_name", detail)));
    }
    Ok(name.to_owned())
}
