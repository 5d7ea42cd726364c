//! What handlers take from a request: ids, queries, JSON bodies, streamed bodies. Whatever cannot be read is
//! answered with a problem that points at it.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio_stream::StreamExt;
use tokio_util::io::StreamReader;

use super::Limits;
use super::error::{Kind, Problem};
use crate::pipeline::accept::{AcceptError, Charset, FieldProblem, Format, member, quoted};

/// Most bytes of a JSON body that is not a list of recipients.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a streamed body, unpacked: about ten million recipients.
pub const STREAM_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// How long a body may stand still. RFC 5321 gives ten minutes to mail servers; a web client has no such excuse,
/// and each body that stands still holds a thread.
pub const BODY_IDLE_MAX: Duration = Duration::from_secs(30);
/// Rows of a page of a list: by default, and at most.
pub const PAGE_ROWS: i64 = 50;
pub const PAGE_ROWS_MAX: i64 = 500;
/// Longest cursor: a sort key is an address and 16 characters.
const CURSOR_BYTES_MAX: usize = 300;

/// An id in the path. One that is malformed names nothing, just as one that is unknown.
pub struct Id<T>(pub T);

impl<T: FromStr<Err: ToString> + Send, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found("the path cannot be read"))?;
        text.parse()
            .map(Id)
            .map_err(|e: T::Err| Problem::not_found(e.to_string()))
    }
}

/// The query. Unknown and malformed parameters are problems.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(value)| Params(value))
            .map_err(|e| {
                let words = e.body_text();
                let words = words
                    .split_once("query string: ")
                    .map_or(words.as_str(), |(_, rest)| rest);
                let (name, why) = words.split_once(": ").unwrap_or(("", words));
                let at = if name.is_empty() {
                    "#".to_owned()
                } else {
                    member("#", name)
                };
                Problem::field(FieldProblem::new(at, "invalid_value", format!("in the query: {why}")))
            })
    }
}

/// A JSON body of at most [`Limits::json_bytes_max`].
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match media_type(request.headers()).as_deref() {
            None | Some("application/json") => {}
            Some(other) => return Err(unsupported(other, "application/json")),
        }
        let limit = request
            .extensions()
            .get::<Limits>()
            .copied()
            .unwrap_or_default()
            .json_bytes_max;
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e| match e.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(limit as u64),
                _ => AcceptError::Disconnected.into(),
            })?;
        // RFC 8259 8.1: a byte order mark may be ignored.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let mut parser = serde_json::Deserializer::from_slice(text);
        let value = serde_path_to_error::deserialize(&mut parser).map_err(|e| json_problem(&e))?;
        parser.end().map_err(|e| malformed(&e))?;
        Ok(Json(value))
    }
}

/// A JSON body that may be absent.
impl<T: DeserializeOwned + Default, S: Send + Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if axum::body::HttpBody::size_hint(request.body()).exact() == Some(0) {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

fn json_problem(e: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    if e.inner().is_data() {
        let words = e.inner().to_string();
        let detail = words.split(" at line ").next().unwrap_or(&words).to_owned();
        return Problem::field(FieldProblem::new(pointer(e.path()), "invalid_value", detail));
    }
    malformed(e.inner())
}

fn malformed(e: &serde_json::Error) -> Problem {
    AcceptError::Malformed(FieldProblem::new("#", "invalid_json", format!("this is not valid JSON: {e}"))).into()
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold("#".to_owned(), |at, segment| match segment {
        Segment::Seq { index } => member(&at, &index.to_string()),
        Segment::Map { key } => member(&at, key),
        Segment::Enum { variant } => member(&at, variant),
        Segment::Unknown => at,
    })
}

/// A body of any length with its format. It is read by the pipeline.
pub struct Streamed {
    pub format: Format,
    pub is_gzip: bool,
    /// What the Content-Type says about the characters of a CSV body.
    pub charset: Option<Charset>,
    body: Body,
}

impl Streamed {
    /// The body as a reader that gives up when nothing comes for [`BODY_IDLE_MAX`].
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin + 'static {
        let chunks = self
            .body
            .into_data_stream()
            .timeout(BODY_IDLE_MAX)
            .map(|chunk| match chunk {
                Ok(Ok(bytes)) => Ok(bytes),
                Ok(Err(e)) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, e)),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            });
        StreamReader::new(Box::pin(chunks))
    }
}

impl<S: Send + Sync> FromRequest<S> for Streamed {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let format = match media_type(request.headers()).as_deref() {
            None | Some("application/json") => Format::Json,
            Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => Format::Ndjson,
            Some("text/csv") => Format::Csv,
            Some(other) => return Err(unsupported(other, "application/json, application/x-ndjson or text/csv")),
        };
        let encoding = request
            .headers()
            .get(header::CONTENT_ENCODING)
            .map(|v| v.to_str().unwrap_or("?").trim().to_ascii_lowercase());
        let is_gzip = match encoding.as_deref() {
            None | Some("" | "identity") => false,
            Some("gzip" | "x-gzip") => true,
            Some(other) => {
                let detail = format!("Content-Encoding {} is not supported; use gzip or none", quoted(other));
                return Err(Problem::new(&Kind::UNSUPPORTED_TYPE, detail));
            }
        };
        let charset = match format {
            Format::Csv => charset(request.headers())?,
            // RFC 8259 8.1: JSON is UTF-8, whatever is said.
            Format::Json | Format::Ndjson => None,
        };
        Ok(Self {
            format,
            is_gzip,
            charset,
            body: request.into_body(),
        })
    }
}

/// The type of a body without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("?");
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// The character set that the Content-Type names.
fn charset(headers: &HeaderMap) -> Result<Option<Charset>, Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let mut parameters = value
        .unwrap_or_default()
        .split(';')
        .skip(1)
        .filter_map(|p| p.split_once('='));
    let Some((_, name)) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset")) else {
        return Ok(None);
    };
    Charset::parse(name.trim().trim_matches('"'))
        .map(Some)
        .map_err(|why| Problem::new(&Kind::UNSUPPORTED_TYPE, why))
}

fn unsupported(given: &str, good: &str) -> Problem {
    Problem::new(&Kind::UNSUPPORTED_TYPE, format!("Content-Type {} is not supported; use {good}", quoted(given)))
}

/// The rows of a page: the default, or what was asked for within its bounds.
///
/// # Errors
/// Points at `limit`.
pub fn page_rows(limit: Option<i64>) -> Result<i64, Problem> {
    match limit {
        None => Ok(PAGE_ROWS),
        Some(n) if (1..=PAGE_ROWS_MAX).contains(&n) => Ok(n),
        Some(n) => {
            let detail = format!("limit is {n}; give 1 to {PAGE_ROWS_MAX}");
            Err(Problem::field(FieldProblem::new("#/limit", "invalid_value", detail)))
        }
    }
}

/// A cursor as it may be given to the store.
///
/// # Errors
/// Points at `after`.
pub fn cursor(after: Option<&str>) -> Result<Option<&str>, Problem> {
    match after {
        Some(text) if text.len() > CURSOR_BYTES_MAX || text.chars().any(char::is_control) => {
            let detail = "after must be the value of next of the page before";
            Err(Problem::field(FieldProblem::new("#/after", "invalid_value", detail)))
        }
        after => Ok(after),
    }
}
