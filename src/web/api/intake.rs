//! `POST /v1/broadcasts`: the way in. Never says 202 before the broadcast is durable.

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::ApiState;
use super::shapes::BroadcastLinks;
use crate::domain::id::BroadcastId;
use crate::domain::time::Timestamp;
use crate::pipeline::accept::{
    AcceptError, Charset, Column, FieldProblem, Format, Head, HeadFault, IdempotencyKey, Receipt, Rejection, Rendering,
    Request, Taken, member, read_head,
};
use crate::web::auth::Caller;
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::Streamed;

/// Carries the broadcast as a JSON object beside a CSV body.
const X_HIKYAKU_BROADCAST: HeaderName = HeaderName::from_static("x-hikyaku-broadcast");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Start a broadcast
///
/// The body is JSON, NDJSON (the broadcast in the first line, then one recipient a line) or CSV (columns `email` and
/// `name`, every other column becomes data), of any length, plain or gzip. Beside a CSV body the broadcast stands in
/// the header `X-Hikyaku-Broadcast` as a JSON object, or in query parameters named as its fields, or in both.
///
/// A CSV body may be separated by commas, semicolons or tabs, and begin with `sep=;`. It is UTF-8, or UTF-16 with a byte order
/// mark, or what the charset of the Content-Type or the parameter `charset` says, such as `windows-1252`. The column of
/// addresses may be called `E-Mail`, `Adresse e-mail`, `メールアドレス` and the like. `columns` of the answer says how a template
/// names each column: `First Name` is `{{ first_name }}`. A body that ends inside quotes, or has text behind a closing
/// quote, is refused with the line of the quote.
///
/// 202 means that the broadcast is durable. With an `Idempotency-Key` a retry gets the first answer again, with the
/// header `Idempotency-Replayed: true`. With `dry_run` everything is checked, the message of every
/// recipient is rendered (`rendering` of the answer says what would fail, how often, and for whom), nothing is stored, and the
/// answer is 200.
#[utoipa::path(post, path = "/v1/broadcasts", tag = "broadcasts", operation_id = "create_broadcast",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 printable ASCII characters"),
        ("X-Hikyaku-Broadcast" = Option<String>, Header, description = "The broadcast as JSON, beside a CSV body"),
        ("charset" = Option<String>, Query, description = "The character set of a CSV body, such as windows-1252"),
    ),
    request_body(content(
        (BroadcastRequest = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    )),
    responses(
        (status = 202, body = AcceptedBroadcast, headers(("Location" = String), ("Idempotency-Replayed" = String))),
        (status = 200, body = AcceptedBroadcast, description = "A dry run"),
        (status = 400, body = ProblemDocument), (status = 409, body = ProblemDocument),
        (status = 413, body = ProblemDocument), (status = 415, body = ProblemDocument),
        (status = 422, body = ProblemDocument), (status = 503, body = ProblemDocument),
    ))]
pub async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Streamed,
) -> Result<Response, Problem> {
    let (head, charset) = head_beside(body.format, query.as_deref().unwrap_or_default(), &headers)?;
    let request = Request {
        id: BroadcastId::new(state.now(), fastrand::u128(..)),
        format: body.format,
        is_gzip: body.is_gzip,
        charset: charset.or(body.charset),
        head,
        key: idempotency_key(&headers, &caller)?,
        answer,
    };
    Ok(match state.acceptor.accept(request, body.into_reader()).await? {
        Taken::Accepted { id, answer } => accepted(&id, answer, false),
        Taken::Replayed { id, answer } => accepted(&id, answer, true),
        Taken::Checked(receipt) => Json(AcceptedBroadcast::new(&receipt, true)).into_response(),
    })
}

fn accepted(id: &str, answer: String, is_replay: bool) -> Response {
    let json = HeaderValue::from_static("application/json");
    let mut response = (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, json)], Bytes::from(answer)).into_response();
    let location = HeaderValue::from_str(&format!("/v1/broadcasts/{id}")).expect("an id is ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    if is_replay {
        response
            .headers_mut()
            .insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn answer(receipt: &Receipt) -> String {
    serde_json::to_string(&AcceptedBroadcast::new(receipt, false)).expect("strings and numbers always serialise")
}

fn idempotency_key(headers: &HeaderMap, caller: &Caller) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    // What is not visible ASCII becomes what no key may hold, and is refused as such.
    let text = value.to_str().unwrap_or_default();
    IdempotencyKey::parse(&caller.owner, text)
        .map(Some)
        .map_err(Problem::field)
}

/// The fields of a broadcast that stand beside a CSV body: the header's object, then the query, which wins; and the
/// character set that the query names. Beside other bodies all are refused, for a `dry_run` that is overlooked would send.
fn head_beside(format: Format, query: &str, headers: &HeaderMap) -> Result<(Head, Option<Charset>), Problem> {
    let mut head = match headers.get(X_HIKYAKU_BROADCAST) {
        None => Map::new(),
        Some(value) => read_head(value.as_bytes()).map_err(|fault| match fault {
            HeadFault::Malformed(why) => {
                let detail = format!("the header X-Hikyaku-Broadcast must be a JSON object: {why}");
                Problem::from(AcceptError::Malformed(FieldProblem::new("#", "invalid_json", detail)))
            }
            HeadFault::Invalid(problem) => Problem::field(problem),
        })?,
    };
    let mut charset = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name == "charset" && format == Format::Csv {
            charset = Some(parse_charset(&value)?);
            continue;
        }
        let value = from_query(&name, &value);
        head.insert(name.into_owned(), value);
    }
    if let (Some(name), Format::Json | Format::Ndjson) = (head.keys().next(), format) {
        let detail = "fields beside the body are for CSV; put them into the body";
        return Err(Problem::field(FieldProblem::new(member("#", name), "conflict", detail)));
    }
    if format == Format::Csv && head.contains_key("recipients") {
        let detail = "the recipients are the rows of the table; leave recipients out";
        return Err(Problem::field(FieldProblem::new("#/recipients", "conflict", detail)));
    }
    Ok((head, charset))
}

/// The character set that a query names.
pub(super) fn parse_charset(name: &str) -> Result<Charset, Problem> {
    Charset::parse(name).map_err(|why| Problem::field(FieldProblem::new("#/charset", "invalid_value", why)))
}

/// A query parameter as the JSON value that its field expects.
fn from_query(name: &str, value: &str) -> Value {
    match (name, value) {
        ("dry_run" | "all", "true") => Value::Bool(true),
        ("dry_run" | "all", "false") => Value::Bool(false),
        ("tags" | "list_ids", list) => list.split(',').map(|item| Value::from(item.trim())).collect(),
        (_, text) => Value::from(text),
    }
}

/// The answer to a send request.
#[derive(Serialize, ToSchema)]
pub struct AcceptedBroadcast {
    /// `null` for a dry run.
    id: Option<String>,
    /// `accepted` or `scheduled`; `checked` for a dry run.
    status: &'static str,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    counts: AcceptedCounts,
    /// The first hundred rejected recipients; empty unless `validation` is `permissive`.
    rejected: Vec<Rejected>,
    /// The columns of a CSV body; absent for other bodies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    columns: Vec<ColumnView>,
    /// A dry run only: what rendering for every recipient came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    rendering: Option<RenderingView>,
    links: Option<BroadcastLinks>,
}

/// What rendering for every recipient came to. Nothing of it is kept or sent.
#[derive(Serialize, ToSchema)]
#[schema(as = Rendering)]
pub struct RenderingView {
    /// Recipients that were rendered, each address once.
    rendered: i64,
    /// Those of them whose message would fail.
    failed: i64,
    /// `false` when there was no time for all: a dry run answers within a minute.
    is_complete: bool,
    /// The first 20 different problems, the commonest first.
    problems: Vec<RenderingProblemView>,
}

/// Why messages would fail.
#[derive(Serialize, ToSchema)]
#[schema(as = RenderingProblem)]
pub struct RenderingProblemView {
    detail: String,
    /// How many messages would fail so.
    count: i64,
    /// The first three addresses.
    first: Vec<String>,
}

impl From<&Rendering> for RenderingView {
    fn from(found: &Rendering) -> Self {
        let problems = found.problems.iter().map(|p| RenderingProblemView {
            detail: p.detail.clone(),
            count: p.count,
            first: p.first.clone(),
        });
        Self {
            rendered: found.rendered,
            failed: found.failed,
            is_complete: found.is_complete,
            problems: problems.collect(),
        }
    }
}

/// A column of a CSV body, and how a template says it.
#[derive(Serialize, ToSchema)]
#[schema(as = Column)]
pub struct ColumnView {
    /// As it stands in the table.
    name: String,
    /// Such as `first_name`, for `{{ first_name }}`. Case, `-`, `_` and spaces make no difference where only one column is meant.
    variable: String,
}

impl From<&Column> for ColumnView {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            variable: column.variable.clone(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct AcceptedCounts {
    /// Recipients in the request; `null` for a stored audience, which is counted when it is read.
    received: Option<i64>,
    rejected: i64,
}

/// A recipient that gets no mail, and why.
#[derive(Serialize, ToSchema)]
pub struct Rejected {
    /// From 0, in the order given.
    index: i64,
    email: Option<String>,
    code: &'static str,
    detail: String,
}

impl From<&Rejection> for Rejected {
    fn from(r: &Rejection) -> Self {
        let first = r.problems.first();
        Self {
            index: r.index,
            email: r.email.clone(),
            code: first.map_or("invalid", |p| p.code),
            detail: first.map(|p| p.detail.clone()).unwrap_or_default(),
        }
    }
}

impl AcceptedBroadcast {
    fn new(receipt: &Receipt, is_dry_run: bool) -> Self {
        Self {
            id: (!is_dry_run).then(|| receipt.id.to_string()),
            status: if is_dry_run { "checked" } else { receipt.status.as_str() },
            created_at: receipt.created_at,
            counts: AcceptedCounts {
                received: receipt.received,
                rejected: receipt.rejected,
            },
            rejected: receipt.rejections.iter().map(Rejected::from).collect(),
            columns: receipt.columns.iter().map(ColumnView::from).collect(),
            rendering: receipt.rendering.as_ref().map(RenderingView::from),
            links: (!is_dry_run).then(|| BroadcastLinks::of(receipt.id.as_str())),
        }
    }
}

/// A send request. Exactly one of `recipients`, `list_ids` and `all`; `template_id`, or `subject` with `html` or `text`.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes what the pipeline reads field by field, to find every problem at once"
)]
pub struct BroadcastRequest {
    from: MailboxRequest,
    reply_to: Option<MailboxRequest>,
    /// A template's source, as `html` and `text`.
    subject: Option<String>,
    /// At most 256 KiB.
    html: Option<String>,
    /// Made from `html` when absent.
    text: Option<String>,
    template_id: Option<String>,
    recipients: Option<Vec<RecipientRequest>>,
    list_ids: Option<Vec<String>>,
    /// Every subscribed contact.
    all: Option<bool>,
    /// Values for the template; a recipient's own win. At most 64 KiB.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
    /// At most 20. They are the same in every message, not templates: a value with `{{`, `{%` or `{#` is refused.
    #[schema(value_type = Option<Object>)]
    headers: Option<Value>,
    /// At most 10, of 2 MiB together.
    attachments: Option<Vec<AttachmentRequest>>,
    /// At most 10 of at most 64 characters.
    tags: Option<Vec<String>>,
    /// At most 4 KiB; shown with the broadcast.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// At most 366 days ahead. A time that has just passed starts the broadcast at once; one more than an hour past is refused.
    #[schema(value_type = Option<String>, format = DateTime)]
    send_at: Option<String>,
    /// What is not sent by then is not sent at all.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
    /// When no reply to a whole message is known: `resend` (default) or `hold`.
    on_uncertain: Option<String>,
    /// `high`, `normal` (default) or `bulk`.
    priority: Option<String>,
    /// The first few go alone; the rest follows unless too many of them fail.
    canary: Option<CanaryRequest>,
    /// When the broadcast pauses by itself: `false` is never, `{"above_percent": 1 to 100}` is another share of failed
    /// messages than the configured one.
    #[schema(value_type = Option<Object>)]
    auto_pause: Option<Value>,
    /// The name of the only relay it may go through. Without it: any.
    relay: Option<String>,
    /// `strict` (default): one wrong recipient refuses the request. `permissive`: the others get their mail.
    validation: Option<String>,
    dry_run: Option<bool>,
}

/// How many go first: exactly one of `first` and `percent`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the pipeline reads field by field")]
pub struct CanaryRequest {
    /// 1 to 100,000 recipients.
    first: Option<i64>,
    /// 1 to 99 per cent of the audience.
    percent: Option<i64>,
    /// 0 to 100; 5 by default. When more of them fail, the rest is held until somebody resumes the broadcast.
    hold_above_percent: Option<i64>,
}

/// A mailbox; the string `Anna <anna@example.org>` is taken too.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the pipeline reads field by field")]
pub struct MailboxRequest {
    email: String,
    name: Option<String>,
}

/// A file that goes with every message.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the pipeline reads field by field")]
pub struct AttachmentRequest {
    /// The name that recipients see, without a path.
    filename: String,
    /// `application/octet-stream` when absent.
    content_type: Option<String>,
    /// The file in base64.
    content: String,
    /// Makes it an inline image, which the HTML shows as `<img src="cid:NAME">`.
    content_id: Option<String>,
}

/// A recipient; a plain address is taken too.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the pipeline reads field by field")]
pub struct RecipientRequest {
    email: String,
    name: Option<String>,
    /// Values for the template, at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::accept::KNOWN;

    #[test]
    fn the_document_describes_every_field_that_is_known() {
        let document: Value = serde_json::from_str(&super::super::openapi()).unwrap();
        let described = document["components"]["schemas"]["BroadcastRequest"]["properties"]
            .as_object()
            .unwrap();
        let mut known: Vec<&str> = KNOWN.split(", ").collect();
        known.sort_unstable();
        let mut described: Vec<&str> = described.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(described, known);
    }

    #[test]
    fn beside_a_table_the_query_wins_over_the_header() {
        let headers = HeaderMap::from_iter([(
            X_HIKYAKU_BROADCAST,
            HeaderValue::from_static(r#"{"subject":"Hi","metadata":{"a":1}}"#),
        )]);
        let query = "subject=Ho%20ho&dry_run=true&tags=a,%20b&charset=latin1";
        let (head, charset) = head_beside(Format::Csv, query, &headers).unwrap();
        assert_eq!(charset, Charset::parse("windows-1252").ok());
        let expected =
            serde_json::json!({"subject": "Ho ho", "metadata": {"a": 1}, "dry_run": true, "tags": ["a", "b"]});
        assert_eq!(Value::Object(head), expected);
        assert!(head_beside(Format::Json, "dry_run=true", &HeaderMap::new()).is_err());
    }
}
