//! Every answer that is not a success: RFC 9457 problem documents that say what is wrong, where, and what to do.
//! Never shows a database's words or anybody's address that the caller did not give.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::pipeline::accept::{AcceptError, FieldProblem};
use crate::pipeline::control::ControlError;
use crate::store::StoreError;

/// Seconds after which a client may try again when the database is away: about one restart.
const RETRY_STORE_SECS: u32 = 5;
/// Seconds after which the request that holds a key has probably been answered.
const RETRY_KEY_SECS: u32 = 1;
/// Longest request id that is taken over from a client.
const REQUEST_ID_LEN_MAX: usize = 64;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A kind of problem: its name for programs, its status, its name for people, and what it means.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    pub code: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    pub meaning: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $code:literal, $status:ident, $title:literal, $meaning:literal;)*) => {
        impl Kind {
            $(pub const $name: Kind =
                Kind { code: $code, status: StatusCode::$status, title: $title, meaning: $meaning };)*
            /// All kinds, as `GET /problems/{code}` explains them.
            pub const ALL: &[Kind] = &[$(Kind::$name),*];
        }
    };
}

kinds! {
    INVALID_BODY = "invalid_body", BAD_REQUEST, "The body cannot be read",
        "The body is not of the format that Content-Type and Content-Encoding say. The errors tell where it breaks.";
    UNAUTHORIZED = "unauthorized", UNAUTHORIZED, "An API key is needed",
        "Send the header `Authorization: Bearer KEY`. Keys are made by `hikyaku key create` or POST /v1/keys.";
    FORBIDDEN = "forbidden", FORBIDDEN, "The API key may not do this",
        "The key lacks the scope that the detail names. Make a key that has it.";
    NOT_FOUND = "not_found", NOT_FOUND, "Nothing is here",
        "The id is unknown, or no such address exists.";
    METHOD_NOT_ALLOWED = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not for this address",
        "The header Allow lists the methods that are.";
    TIMEOUT = "request_timeout", REQUEST_TIMEOUT, "The body did not arrive in time",
        "The connection stood still for too long while the body was read. Nothing was stored; send it again.";
    INVALID_STATE = "invalid_state", CONFLICT, "Not possible any more",
        "What was asked is not possible in the present state, which current_status names.";
    CONFLICT = "conflict", CONFLICT, "In conflict with what is stored",
        "Something that is stored stands against it; the detail says what.";
    KEY_IN_FLIGHT = "idempotency_key_in_flight", CONFLICT, "The same request is being worked on",
        "A request with this Idempotency-Key has not been answered yet. Ask again after Retry-After.";
    TOO_LARGE = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "The member limit gives the most bytes of a body, unpacked. Send the recipients in several broadcasts.";
    UNSUPPORTED_TYPE = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body's type is not supported",
        "Use application/json, application/x-ndjson or text/csv, plain or with Content-Encoding: gzip.";
    VALIDATION = "validation_failed", UNPROCESSABLE_ENTITY, "The request is not right",
        "The errors point at each field that is wrong and say how to mend it. Nothing was stored.";
    KEY_REUSED = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The Idempotency-Key belongs to another request",
        "The key was used with another body. A retry repeats the very same body; another request needs another key.";
    INTERNAL = "internal_error", INTERNAL_SERVER_ERROR, "Something went wrong on our side",
        "The request id finds it in the log.";
    UNAVAILABLE = "unavailable", SERVICE_UNAVAILABLE, "Not possible at the moment",
        "The database does not answer, or too many bodies are being read. Try again after Retry-After, with the same \
         Idempotency-Key.";
    STORAGE_FULL = "storage_full", INSUFFICIENT_STORAGE, "No space is left",
        "The disk of the database is full. Nothing was stored.";
}

/// A problem on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: &'static Kind,
    detail: String,
    errors: Vec<FieldProblem>,
    current_status: Option<&'static str>,
    limit: Option<u64>,
    retry_after_secs: Option<u32>,
    /// For the log, never for the client.
    cause: Option<String>,
}

/// The document as it is sent (RFC 9457 3.1).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// Explains the code to people; relative to this server.
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// The path of the request.
    instance: &'a str,
    /// For programs; stable.
    code: &'static str,
    /// Stands in the log as well.
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<FieldProblemDocument>)]
    errors: &'a [FieldProblem],
    /// The status that stands in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_status: Option<&'static str>,
    /// The limit that was passed, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

/// One thing that is wrong, and where.
#[derive(ToSchema)]
#[schema(as = FieldProblem)]
#[expect(dead_code, reason = "describes `FieldProblem` of the pipeline, which knows nothing of OpenAPI")]
pub struct FieldProblemDocument {
    /// RFC 6901 pointer, such as `#/recipients/12/email`.
    pointer: String,
    /// Stable, such as `invalid_address`.
    code: String,
    /// A sentence that names the fix.
    detail: String,
    /// The line of an NDJSON or CSV body.
    line: Option<u64>,
}

impl Problem {
    #[must_use]
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            current_status: None,
            limit: None,
            retry_after_secs: None,
            cause: None,
        }
    }

    #[must_use]
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(&Kind::NOT_FOUND, what)
    }

    /// One field is wrong.
    #[must_use]
    pub fn field(problem: FieldProblem) -> Self {
        Self::fields(vec![problem], 1)
    }

    /// Fields are wrong; `total` may be more than are listed.
    #[must_use]
    pub fn fields(errors: Vec<FieldProblem>, total: i64) -> Self {
        let detail = match (&errors[..], total) {
            ([only], 1) => only.detail.clone(),
            (listed, total) if listed.len() as i64 == total => format!("{total} fields are wrong"),
            (listed, total) => format!("{total} fields are wrong; the first {} are listed", listed.len()),
        };
        Self {
            errors,
            ..Self::new(&Kind::VALIDATION, detail)
        }
    }

    #[must_use]
    pub fn invalid_state(detail: impl Into<String>, current: &'static str) -> Self {
        Self {
            current_status: Some(current),
            ..Self::new(&Kind::INVALID_STATE, detail)
        }
    }

    #[must_use]
    pub fn too_large(limit: u64) -> Self {
        Self {
            limit: Some(limit),
            ..Self::new(&Kind::TOO_LARGE, format!("the body is larger than {limit} bytes"))
        }
    }

    fn retry(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    fn document(&self, instance: &str, request_id: &str) -> Vec<u8> {
        let document = ProblemDocument {
            r#type: format!("/problems/{}", self.kind.code),
            title: self.kind.title,
            status: self.kind.status.as_u16(),
            detail: &self.detail,
            instance,
            code: self.kind.code,
            request_id,
            errors: &self.errors,
            current_status: self.current_status,
            limit: self.limit,
        };
        serde_json::to_vec(&document).expect("strings and numbers always serialise")
    }
}

impl IntoResponse for Problem {
    /// The body is written by [`dress`], which knows the request.
    fn into_response(self) -> Response {
        let mut response = self.kind.status.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, secs.into());
        }
        if self.kind == &Kind::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hikyaku\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(e: StoreError) -> Self {
        let cause = Some(e.to_string());
        let problem = match e {
            StoreError::Unavailable(_) | StoreError::Contended => {
                Problem::new(&Kind::UNAVAILABLE, "the database is not available").retry(RETRY_STORE_SECS)
            }
            StoreError::Full(_) => Problem::new(&Kind::STORAGE_FULL, "the database has no space left"),
            StoreError::Conflict(_) | StoreError::LeaseLost => {
                Problem::new(&Kind::CONFLICT, "what is stored has changed; look again and repeat the request")
            }
            StoreError::Corrupt(_) | StoreError::Refused(_) => {
                Problem::new(&Kind::INTERNAL, "the database and this program do not agree")
            }
        };
        Problem { cause, ..problem }
    }
}

impl From<AcceptError> for Problem {
    fn from(e: AcceptError) -> Self {
        match e {
            AcceptError::Malformed(problem) => Problem {
                detail: problem.detail.clone(),
                errors: vec![problem],
                ..Problem::new(&Kind::INVALID_BODY, "")
            },
            AcceptError::Invalid { problems, total } => Problem::fields(problems, total),
            AcceptError::TooLarge { limit } => Problem::too_large(limit),
            AcceptError::TooSlow => Problem::new(&Kind::TIMEOUT, e.to_string()),
            // Nobody reads this answer, unless a proxy in between does.
            AcceptError::Disconnected => Problem::new(&Kind::INVALID_BODY, e.to_string()),
            AcceptError::Busy => Problem::new(&Kind::UNAVAILABLE, e.to_string()).retry(RETRY_STORE_SECS),
            AcceptError::KeyInFlight => Problem::new(&Kind::KEY_IN_FLIGHT, e.to_string()).retry(RETRY_KEY_SECS),
            AcceptError::KeyReused => Problem::new(&Kind::KEY_REUSED, e.to_string()),
            AcceptError::Store(e) => e.into(),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(e: ControlError) -> Self {
        match e {
            ControlError::NotFound(_) => Problem::not_found(e.to_string()),
            ControlError::Over(status) => Problem::invalid_state(e.to_string(), status.as_str()),
            ControlError::TooLate => Problem::invalid_state(e.to_string(), "expired"),
            ControlError::Store(e) => e.into(),
        }
    }
}

/// Gives each request its id, and each problem its body. The outermost layer: it sees every answer.
pub async fn dress(request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!("request", id = %id, method = %request.method());
    let mut response = tracing::Instrument::instrument(next.run(request), span).await;
    // Not the path: it may hold an address or a token.
    tracing::debug!(request.id = %id, status = response.status().as_u16(), "Answered request {id}");
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if response.status().is_server_error() {
            let cause = problem.cause.as_deref().unwrap_or(&problem.detail);
            tracing::error!(request.id = %id, code = problem.kind.code, cause, "Answered {}", response.status());
        }
        *response.body_mut() = Body::from(problem.document(&path, &id));
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}

/// The client's own id when it has a decent form, else a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(X_REQUEST_ID).and_then(|v| v.to_str().ok());
    let is_decent = |id: &&str| {
        !id.is_empty()
            && id.len() <= REQUEST_ID_LEN_MAX
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    given
        .filter(is_decent)
        .map_or_else(|| format!("req_{:032x}", fastrand::u128(..)), ToOwned::to_owned)
}

/// The answer to a handler that panicked; the panic itself is in the log.
pub fn from_panic(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::new(&Kind::INTERNAL, "the request could not be worked on").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_where_and_how() {
        let problem = Problem::field(FieldProblem::new("#/from", "required", "from is missing"));
        let document: serde_json::Value = serde_json::from_slice(&problem.document("/v1/broadcasts", "req_1")).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "type": "/problems/validation_failed", "title": "The request is not right", "status": 422,
                "detail": "from is missing", "instance": "/v1/broadcasts", "code": "validation_failed",
                "request_id": "req_1",
                "errors": [{"pointer": "#/from", "code": "required", "detail": "from is missing"}],
            })
        );
    }

    #[test]
    fn a_databases_words_stay_inside() {
        let problem = Problem::from(StoreError::Unavailable("password for user x".to_owned()));
        assert_eq!(problem.kind.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            !String::from_utf8(problem.document("/", "r"))
                .unwrap()
                .contains("password")
        );
        assert_eq!(problem.into_response().headers()[header::RETRY_AFTER], "5");
    }

    #[test]
    fn every_kind_has_its_own_code() {
        let codes: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|k| k.code).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
    }
}
