//! The messages of a broadcast as CSV, streamed page by page. Never holds more than one page, and no
//! cell can be taken for a formula.

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::broadcast;
use super::error::UiError;
use super::form::Fields;
use crate::domain::id::BroadcastId;
use crate::domain::message::MessageStatus;
use crate::store::StoreError;
use crate::store::reports::MessageView;
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Messages read at a time: a chunk's worth.
const PAGE_SIZE: i64 = 1_000;

const HEAD: [&str; 12] = [
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
];

/// `GET /broadcasts/{id}/messages.csv?status=`
pub async fn messages(
    _signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
    Query(query): Query<Fields>,
) -> Result<Response, UiError> {
    let b = broadcast::read(&state, &id).await?;
    let status: Option<MessageStatus> = query.filled("status").and_then(|s| s.parse().ok());
    let name = format!("attachment; filename=\"{}.csv\"", b.id);
    let start = Some(Place {
        state,
        id: b.id,
        status,
        after: None,
        is_first: true,
    });
    let body = Body::from_stream(stream::try_unfold(start, next_page));
    Ok((
        [
            (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
            (CONTENT_DISPOSITION, name),
        ],
        body,
    )
        .into_response())
}

/// How far the export has come.
struct Place {
    state: WebState,
    id: BroadcastId,
    status: Option<MessageStatus>,
    after: Option<String>,
    is_first: bool,
}

async fn next_page(place: Option<Place>) -> Result<Option<(Bytes, Option<Place>)>, StoreError> {
    let Some(mut place) = place else { return Ok(None) };
    let slice = place
        .state
        .store
        .messages(&place.id, place.status, place.after.as_deref(), PAGE_SIZE)
        .await?;
    let bytes = lines(&slice.rows, place.is_first);
    let rest = slice.next.map(|next| {
        place.after = Some(next);
        place.is_first = false;
        place
    });
    Ok(Some((bytes, rest)))
}

fn lines(rows: &[MessageView], with_head: bool) -> Bytes {
    let mut writer = csv::Writer::from_writer(Vec::with_capacity(rows.len() * 100));
    let written = (|| {
        if with_head {
            writer.write_record(HEAD)?;
        }
        rows.iter()
            .try_for_each(|m| writer.write_record(cells(m).map(|c| harmless(&c))))
    })();
    written.expect("memory can be written to, and all records have the same length");
    writer.into_inner().expect("memory can be flushed").into()
}

fn cells(m: &MessageView) -> [String; 12] {
    let reply = m.reply.clone().unwrap_or_default();
    [
        m.id.to_string(),
        m.email.clone(),
        m.name.clone().unwrap_or_default(),
        m.status.to_string(),
        m.attempts.to_string(),
        m.possible_duplicate.to_string(),
        reply.code.map(|c| c.to_string()).unwrap_or_default(),
        reply.enhanced.unwrap_or_default(),
        reply.text,
        m.class.clone(),
        m.relay.clone().unwrap_or_default(),
        m.at.map(|t| t.to_string()).unwrap_or_default(),
    ]
}

/// A spreadsheet runs a cell that begins like a formula; an apostrophe before it keeps it a text.
fn harmless(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula() {
        assert_eq!(harmless("=HYPERLINK(\"x\")"), "'=HYPERLINK(\"x\")");
        assert_eq!(harmless("@SUM(1)"), "'@SUM(1)");
        assert_eq!(harmless("anna@example.org"), "anna@example.org");
    }
}
