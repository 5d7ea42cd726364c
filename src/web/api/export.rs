//! The messages of a broadcast as a CSV file of any length, made page by page. A file that could not be finished
//! ends in a broken connection, never in a file that looks complete.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiState;
use super::messages::{must_exist, parse_status};
use crate::domain::id::BroadcastId;
use crate::domain::message::MessageStatus;
use crate::domain::time::Timestamp;
use crate::store::reports::MessageView;
use crate::store::{Store, StoreError};
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::{Id, Params};

/// Rows fetched at a time: one chunk.
const EXPORT_PAGE_ROWS: i64 = 1_000;

const COLUMNS: [&str; 13] = [
    "id",
    "email",
    "name",
    "status",
    "attempts",
    "possible_duplicate",
    "code",
    "enhanced",
    "reply",
    "class",
    "relay",
    "at",
    "next_at",
];

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportFilter {
    /// Only messages with this status.
    status: Option<String>,
}

/// The messages of a broadcast as CSV
///
/// A cell that a spreadsheet would run as a formula starts with an apostrophe.
#[utoipa::path(get, path = "/v1/broadcasts/{id}/messages.csv", tag = "messages", operation_id = "export_messages",
    params(("id" = String, Path), ExportFilter),
    responses((status = 200, content_type = "text/csv", body = String), (status = 404, body = ProblemDocument)))]
pub async fn messages_csv(
    State(state): State<ApiState>,
    Id(id): Id<BroadcastId>,
    Params(filter): Params<ExportFilter>,
) -> Result<Response, Problem> {
    let status = parse_status(filter.status.as_deref())?;
    must_exist(&state, &id).await?;
    Ok(file(Arc::clone(&state.web.store), id, status))
}

/// The file as an answer, for the API and for the page of the broadcast.
pub(in crate::web) fn file(store: Arc<dyn Store>, id: BroadcastId, status: Option<MessageStatus>) -> Response {
    let name = format!("attachment; filename=\"{id}.csv\"");
    let export = Export {
        store,
        id,
        status,
        next: Next::Header,
    };
    let pages = futures_util::stream::try_unfold(export, Export::page);
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, name.as_str()),
    ];
    (headers, Body::from_stream(pages)).into_response()
}

struct Export {
    store: Arc<dyn Store>,
    id: BroadcastId,
    status: Option<MessageStatus>,
    next: Next,
}

enum Next {
    Header,
    After(String),
    End,
}

impl Export {
    /// The next piece of the file, and what is left to do.
    async fn page(mut self) -> Result<Option<(Vec<u8>, Self)>, StoreError> {
        let mut file = csv::Writer::from_writer(Vec::new());
        let after = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok(None),
            Next::After(cursor) => Some(cursor),
            Next::Header => {
                file.write_record(COLUMNS).expect("a vector takes every write");
                None
            }
        };
        let slice = self
            .store
            .messages(&self.id, self.status, after.as_deref(), EXPORT_PAGE_ROWS)
            .await?;
        for message in slice.rows {
            file.write_record(row(message)).expect("a vector takes every write");
        }
        if let Some(next) = slice.next {
            self.next = Next::After(next);
        }
        let bytes = file.into_inner().expect("a vector takes every write");
        Ok(Some((bytes, self)))
    }
}

fn row(m: MessageView) -> [String; 13] {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    let reply = m.reply.unwrap_or_default();
    [
        m.id.to_string(),
        harmless(m.email),
        harmless(m.name.unwrap_or_default()),
        m.status.to_string(),
        m.attempts.to_string(),
        m.possible_duplicate.to_string(),
        reply.code.map(|code| code.to_string()).unwrap_or_default(),
        reply.enhanced.unwrap_or_default(),
        harmless(reply.text),
        m.class,
        harmless(m.relay.unwrap_or_default()),
        time(m.at),
        time(m.next_at),
    ]
}

/// A text as no spreadsheet takes it for a formula (OWASP, CSV injection).
fn harmless(text: String) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_become_texts() {
        for given in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"] {
            assert_eq!(harmless(given.to_owned()), format!("'{given}"));
        }
        assert_eq!(harmless("a=b".to_owned()), "a=b");
    }
}
