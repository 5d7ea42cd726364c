//! Every message's fate. Queued messages are listed too: nothing is invisible while it waits.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiState;
use super::shapes::{Message, MessageDetail, Page};
use crate::domain::address::EmailAddress;
use crate::domain::id::{BroadcastId, MessageId};
use crate::domain::message::MessageStatus;
use crate::pipeline::accept::FieldProblem;
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::{Id, Params, cursor, page_rows};

/// Which messages of a broadcast.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only messages with this status.
    pub status: Option<String>,
    /// Only the message to this address.
    pub email: Option<String>,
    /// 1 to 500; 50 by default.
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub after: Option<String>,
}

/// The messages of a broadcast
#[utoipa::path(get, path = "/v1/broadcasts/{id}/messages", tag = "messages", operation_id = "list_messages",
    params(("id" = String, Path), Filter),
    responses((status = 200, body = Page<Message>), (status = 404, body = ProblemDocument)))]
pub async fn of_broadcast(
    State(state): State<ApiState>,
    Id(id): Id<BroadcastId>,
    Params(filter): Params<Filter>,
) -> Result<Json<Page<Message>>, Problem> {
    let status = parse_status(filter.status.as_deref())?;
    let rows = page_rows(filter.limit)?;
    let after = cursor(filter.after.as_deref())?;
    must_exist(&state, &id).await?;
    if let Some(email) = &filter.email {
        let found = state.store().message_to(&id, &parse_email(email)?).await?;
        let found: Vec<_> = found
            .into_iter()
            .filter(|m| status.is_none_or(|s| s == m.status))
            .collect();
        return Ok(Json(Page::whole(found, Message::from)));
    }
    let slice = state.store().messages(&id, status, after, rows).await?;
    Ok(Json(Page::of(slice, Message::from)))
}

/// One message with all its attempts
#[utoipa::path(get, path = "/v1/messages/{id}", tag = "messages", operation_id = "get_message",
    params(("id" = String, Path)),
    responses((status = 200, body = MessageDetail), (status = 404, body = ProblemDocument)))]
pub async fn show(State(state): State<ApiState>, Id(id): Id<MessageId>) -> Result<Json<MessageDetail>, Problem> {
    let Some(message) = state.store().message(id).await? else {
        return Err(Problem::not_found(format!("there is no message {id}")));
    };
    let attempts = state.store().attempts(id).await?;
    Ok(Json(MessageDetail::new(message, attempts)))
}

/// To whom.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ToWhom {
    pub email: String,
    /// 1 to 500; 50 by default.
    pub limit: Option<i64>,
}

/// All messages to an address, newest broadcast first
#[utoipa::path(get, path = "/v1/messages", tag = "messages", operation_id = "find_messages", params(ToWhom),
    responses((status = 200, body = Page<Message>), (status = 422, body = ProblemDocument)))]
pub async fn by_address(
    State(state): State<ApiState>,
    Params(to): Params<ToWhom>,
) -> Result<Json<Page<Message>>, Problem> {
    let rows = page_rows(to.limit)?;
    // One more than is shown tells whether there are more; there is no page behind this one.
    let mut found = state.store().messages_to(&parse_email(&to.email)?, rows + 1).await?;
    let has_more = found.len() as i64 > rows;
    found.truncate(usize::try_from(rows).unwrap_or_default());
    Ok(Json(Page {
        has_more,
        ..Page::whole(found, Message::from)
    }))
}

/// Answers 404 for a broadcast that is unknown.
pub async fn must_exist(state: &ApiState, id: &BroadcastId) -> Result<(), Problem> {
    match state.store().broadcast(id).await? {
        Some(_) => Ok(()),
        None => Err(Problem::not_found(format!("there is no broadcast {id}"))),
    }
}

pub fn parse_status(text: Option<&str>) -> Result<Option<MessageStatus>, Problem> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|why: String| Problem::field(FieldProblem::new("#/status", "invalid_value", why)))
}

/// The normal form of an address in a query or path.
pub fn parse_email(text: &str) -> Result<String, Problem> {
    match EmailAddress::parse(text) {
        Ok(address) => Ok(address.normalised()),
        Err(why) => Err(Problem::field(FieldProblem::new("#/email", "invalid_address", why))),
    }
}
