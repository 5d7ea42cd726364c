//! The stored audience. Contacts come in as streams, as recipients do.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::intake::{ColumnView, RecipientRequest, Rejected, parse_charset};
use super::messages::parse_email;
use super::shapes::Page;
use crate::domain::contact::Contact;
use crate::domain::id::ListId;
use crate::domain::time::Timestamp;
use crate::pipeline::accept::{FieldProblem, TableOptions};
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::{Id, Params, Streamed, cursor, page_rows};

/// One person of the stored audience.
#[derive(Serialize, ToSchema)]
#[schema(as = Contact)]
pub struct ContactView {
    email: String,
    name: Option<String>,
    #[schema(value_type = Object)]
    data: Box<RawValue>,
    /// What of the contact cannot be read, and what to do; absent for nearly all.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<&'static str>,
    /// `subscribed` or `unsubscribed`.
    status: &'static str,
    #[schema(value_type = String, format = DateTime)]
    subscribed_at: Timestamp,
}

impl From<Contact> for ContactView {
    fn from(c: Contact) -> Self {
        Self {
            email: c.email,
            name: c.name,
            data: c.data,
            damaged: c.damage,
            status: c.status.as_str(),
            subscribed_at: c.subscribed_at,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportParams {
    /// Puts the contacts on this list.
    list_id: Option<String>,
    /// The character set of a CSV body, such as `windows-1252`.
    charset: Option<String>,
}

/// What became of imported contacts.
#[derive(Serialize, ToSchema)]
pub struct ImportAnswer {
    received: i64,
    /// Contacts that were not known before.
    created: i64,
    rejected_count: i64,
    /// The first hundred.
    rejected: Vec<Rejected>,
    /// The columns of a CSV body; absent for other bodies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    columns: Vec<ColumnView>,
}

/// A JSON body of contacts.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the pipeline reads contact by contact")]
pub struct ContactsRequest {
    contacts: Vec<RecipientRequest>,
}

/// Add or update contacts
///
/// The body is JSON (`{"contacts": […]}`), NDJSON (one contact a line) or CSV, of any length, plain or gzip. Contacts are
/// stored as they come; wrong ones are listed and the others stay. Somebody who unsubscribed stays unsubscribed. When a
/// body cannot be read to its end, contacts before that place are stored a thousand at a time; the answer says how many. What a CSV
/// body may look like is said at `POST /v1/broadcasts`.
#[utoipa::path(post, path = "/v1/contacts", tag = "contacts", operation_id = "import_contacts", params(ImportParams),
    request_body(content(
        (ContactsRequest = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    )),
    responses((status = 200, body = ImportAnswer), (status = 400, body = ProblemDocument),
        (status = 422, body = ProblemDocument)))]
pub async fn import(
    State(state): State<ApiState>,
    Params(params): Params<ImportParams>,
    body: Streamed,
) -> Result<Json<ImportAnswer>, Problem> {
    let list = parse_list(&state, params.list_id.as_deref()).await?;
    let (format, is_gzip) = (body.format, body.is_gzip);
    let said = params.charset.as_deref().map(parse_charset).transpose()?;
    let table = TableOptions {
        charset: said.or(body.charset),
        may_be_headless: false,
    };
    let done = state
        .acceptor
        .import_contacts(format, is_gzip, table, list.as_ref(), body.into_reader())
        .await?;
    Ok(Json(ImportAnswer {
        received: done.received,
        created: done.created,
        rejected_count: done.rejected,
        rejected: done.rejections.iter().map(Rejected::from).collect(),
        columns: done.columns.iter().map(ColumnView::from).collect(),
    }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ContactFilter {
    /// Only contacts on this list.
    list_id: Option<String>,
    /// 1 to 500; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before.
    after: Option<String>,
}

/// All contacts, or those of a list
#[utoipa::path(get, path = "/v1/contacts", tag = "contacts", operation_id = "list_contacts", params(ContactFilter),
    responses((status = 200, body = Page<ContactView>), (status = 422, body = ProblemDocument)))]
pub async fn list(
    State(state): State<ApiState>,
    Params(filter): Params<ContactFilter>,
) -> Result<Json<Page<ContactView>>, Problem> {
    let rows = page_rows(filter.limit)?;
    let after = cursor(filter.after.as_deref())?;
    let list = parse_list(&state, filter.list_id.as_deref()).await?;
    let slice = state.store().contacts(list.as_ref(), after, rows).await?;
    Ok(Json(Page::of(slice, ContactView::from)))
}

/// One contact
#[utoipa::path(get, path = "/v1/contacts/{email}", tag = "contacts", operation_id = "get_contact",
    params(("email" = String, Path)),
    responses((status = 200, body = ContactView), (status = 404, body = ProblemDocument)))]
pub async fn show(State(state): State<ApiState>, Id(email): Id<String>) -> Result<Json<ContactView>, Problem> {
    match state.store().contact(&parse_email(&email)?).await? {
        Some(contact) => Ok(Json(contact.into())),
        None => Err(Problem::not_found("there is no contact with this address")),
    }
}

/// Delete a contact
///
/// Nothing is remembered of it; to keep an address from being mailed, suppress it.
#[utoipa::path(delete, path = "/v1/contacts/{email}", tag = "contacts", operation_id = "delete_contact",
    params(("email" = String, Path)), responses((status = 204), (status = 404, body = ProblemDocument)))]
pub async fn remove(State(state): State<ApiState>, Id(email): Id<String>) -> Result<StatusCode, Problem> {
    match state.store().delete_contact(&parse_email(&email)?).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found("there is no contact with this address")),
    }
}

/// The list named in a query, which must exist.
async fn parse_list(state: &ApiState, id: Option<&str>) -> Result<Option<ListId>, Problem> {
    let Some(id) = id else {
        return Ok(None);
    };
    let wrong = |code, why| Problem::field(FieldProblem::new("#/list_id", code, why));
    let id: ListId = id.parse().map_err(|why| wrong("invalid_value", why))?;
    match state.store().list(&id).await? {
        Some(_) => Ok(Some(id)),
        None => Err(wrong("not_found", format!("there is no list {id}"))),
    }
}
