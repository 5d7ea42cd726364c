//! Relays: what operators say about them, a pause, a test. A password is taken and never given back.

pub mod test;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::shapes::Page;
use crate::domain::finding::Finding;
use crate::domain::relay::{LaneLimit, Limits, QuietHours, Relay, RelaySpec, WarmUp};
use crate::domain::time::Timestamp;
use crate::pipeline::accept::FieldProblem;
use crate::pipeline::relays::{self, RelayError};
use crate::web::error::{Kind, Problem, ProblemDocument};
use crate::web::extract::{Id, Json as Body};

/// What is said about a relay. What is left out is no limit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayRequest {
    /// 1 to 64 letters, digits, dots, colons, dashes and underscores. In a PUT the path names it.
    name: Option<String>,
    /// `smtp://user:password@host:port?tls=none|starttls|implicit`, with `connections=`, `messages=`, `helo=`, `pipelining=on|off`,
    /// `chunking=`. `***` for the password keeps the one that is stored for this user and host.
    url: String,
    /// Its share of the messages while several relays are free, 0 to 100, 1 by default. With 0 it is used only where a broadcast
    /// names it, or when no other relay takes mail.
    weight: Option<u32>,
    #[serde(default)]
    #[schema(value_type = Option<LimitsShape>)]
    limits: Limits,
    /// Limits on single destinations; the first that fits counts. At most 100.
    #[serde(default)]
    #[schema(value_type = Vec<LaneShape>)]
    lanes: Vec<LaneLimit>,
    #[schema(value_type = Option<WarmUpShape>)]
    warm_up: Option<WarmUp>,
    #[schema(value_type = Option<QuietShape>)]
    quiet_hours: Option<QuietHours>,
}

impl RelayRequest {
    fn into_spec(self) -> RelaySpec {
        RelaySpec {
            weight: self.weight.unwrap_or(1),
            limits: self.limits,
            lanes: self.lanes,
            warm_up: self.warm_up,
            quiet_hours: self.quiet_hours,
            ..RelaySpec::of(self.url)
        }
    }
}

/// Most messages, for all workers together. Hours and days are those of UTC.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `Limits` of the domain, which knows nothing of OpenAPI")]
pub struct LimitsShape {
    per_sec: Option<u32>,
    per_hour: Option<u32>,
    per_day: Option<u32>,
}

/// A limit on what goes to one destination.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `LaneLimit` of the domain")]
pub struct LaneShape {
    /// A mailbox provider (`google`, `microsoft` …), a domain, or `*` for each that is not named.
    lane: String,
    limits: Option<LimitsShape>,
    /// Most connections at once from one worker.
    connections: Option<u16>,
}

/// Each day may bring more than the day before, until the ceiling.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `WarmUp` of the domain")]
pub struct WarmUpShape {
    #[schema(value_type = String, format = DateTime)]
    started_at: String,
    start_per_day: u32,
    /// More than 1, at most 10.
    factor: f64,
    ceiling_per_day: u32,
}

/// Hours in which nothing goes out; they may span midnight.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `QuietHours` of the domain")]
pub struct QuietShape {
    /// `22:00`
    from: String,
    /// `07:00`
    until: String,
    /// An IANA name, such as `Europe/Berlin`.
    time_zone: String,
}

/// A relay as it stands.
#[derive(Serialize, ToSchema)]
#[schema(as = Relay)]
pub struct RelayView {
    name: String,
    /// `active` or `paused`.
    status: &'static str,
    /// Why it is paused.
    reason: Option<String>,
    /// Since when it is paused.
    #[schema(value_type = Option<String>, format = DateTime)]
    paused_at: Option<Timestamp>,
    /// With `***` for its password.
    url: String,
    weight: u32,
    #[schema(value_type = LimitsShape)]
    limits: Limits,
    #[schema(value_type = Vec<LaneShape>)]
    lanes: Vec<LaneLimit>,
    #[schema(value_type = Option<WarmUpShape>)]
    warm_up: Option<WarmUp>,
    #[schema(value_type = Option<QuietShape>)]
    quiet_hours: Option<QuietHours>,
    /// Rises with every change.
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// What sending through it has shown: liberties that it does not take, and limits that it announced nowhere.
    findings: Vec<FindingView>,
}

/// One thing that was found out about a relay, or is to be.
#[derive(Serialize, ToSchema)]
#[schema(as = RelayFinding)]
pub struct FindingView {
    /// `flights` (commands ahead of the reply to the end of data), `windows` (of CHUNKING), `session_messages`, or `connections`.
    kind: &'static str,
    /// For `flights` and `windows` 1 or 0, else a limit; null while it is to be tried.
    value: Option<i64>,
    /// What it means, in words.
    meaning: String,
    /// What the relay said or did.
    words: String,
    #[schema(value_type = String, format = DateTime)]
    found_at: Timestamp,
    /// When it is tried anew.
    #[schema(value_type = Option<String>, format = DateTime)]
    held_until: Option<Timestamp>,
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        Self {
            kind: finding.kind.as_str(),
            value: finding.value,
            meaning: finding.in_words(),
            held_until: finding.held_until().filter(|_| finding.value.is_some()),
            words: finding.words,
            found_at: finding.found_at,
        }
    }
}

async fn view(state: &ApiState, relay: Relay) -> Result<RelayView, Problem> {
    let findings = relays::findings(state.store(), &relay, state.now()).await?;
    Ok(RelayView::new(relay, findings))
}

impl RelayView {
    fn new(relay: Relay, findings: Vec<Finding>) -> Self {
        let spec = relays::shown(&relay.spec);
        Self {
            name: relay.name,
            status: if relay.paused.is_some() { "paused" } else { "active" },
            reason: relay.paused,
            paused_at: relay.paused_at,
            url: spec.url,
            weight: spec.weight,
            limits: spec.limits,
            lanes: spec.lanes,
            warm_up: spec.warm_up,
            quiet_hours: spec.quiet_hours,
            version: relay.version,
            updated_at: relay.updated_at,
            findings: findings.into_iter().map(FindingView::from).collect(),
        }
    }
}

impl From<RelayError> for Problem {
    fn from(e: RelayError) -> Self {
        match e {
            RelayError::NotFound(_) => Problem::not_found(e.to_string()),
            RelayError::Wrong(wrong) => {
                Problem::field(FieldProblem::new(format!("#/{}", wrong.field), "invalid_value", wrong.detail))
            }
            RelayError::InUse(_) => Problem::new(&Kind::CONFLICT, e.to_string()),
            RelayError::Store(e) => e.into(),
        }
    }
}

/// All relays, by name
#[utoipa::path(get, path = "/v1/relays", tag = "relays", operation_id = "list_relays",
    responses((status = 200, body = Page<RelayView>)))]
pub async fn list(State(state): State<ApiState>) -> Result<Json<Page<RelayView>>, Problem> {
    let mut views = Vec::new();
    for relay in state.store().relays().await? {
        views.push(view(&state, relay).await?);
    }
    Ok(Json(Page::whole(views, |view| view)))
}

/// One relay
#[utoipa::path(get, path = "/v1/relays/{name}", tag = "relays", operation_id = "get_relay", params(("name" = String, Path)),
    responses((status = 200, body = RelayView), (status = 404, body = ProblemDocument)))]
pub async fn show(State(state): State<ApiState>, Id(name): Id<String>) -> Result<Json<RelayView>, Problem> {
    let relay = relays::find(state.store(), &name).await?;
    Ok(Json(view(&state, relay).await?))
}

/// Add a relay
///
/// Workers use it within a second.
#[utoipa::path(post, path = "/v1/relays", tag = "relays", operation_id = "create_relay", request_body = RelayRequest,
    responses((status = 201, body = RelayView), (status = 409, body = ProblemDocument), (status = 422, body = ProblemDocument)))]
pub async fn create(State(state): State<ApiState>, Body(request): Body<RelayRequest>) -> Result<Stored, Problem> {
    let Some(name) = request.name.clone() else {
        let detail = "name is missing; give a short word that stands for the relay, such as primary";
        return Err(Problem::field(FieldProblem::new("#/name", "required", detail)));
    };
    if relays::find(state.store(), &name).await.is_ok() {
        let detail = format!("there is a relay {name}; change it with PUT /v1/relays/{name}, or use another name");
        return Err(Problem::new(&Kind::CONFLICT, detail));
    }
    stored(&state, &name, request.into_spec(), true).await
}

/// Add a relay or replace what is said about one
///
/// What is left out is gone, only a pause stays. Workers use it within a second.
#[utoipa::path(put, path = "/v1/relays/{name}", tag = "relays", operation_id = "put_relay", params(("name" = String, Path)),
    request_body = RelayRequest,
    responses((status = 200, body = RelayView), (status = 201, body = RelayView), (status = 422, body = ProblemDocument)))]
pub async fn put(
    State(state): State<ApiState>,
    Id(name): Id<String>,
    Body(request): Body<RelayRequest>,
) -> Result<Stored, Problem> {
    if request.name.as_ref().is_some_and(|given| *given != name) {
        let detail = "name is another one than in the path; a relay keeps its name, so leave it out";
        return Err(Problem::field(FieldProblem::new("#/name", "conflict", detail)));
    }
    let is_new = state.store().relay(&name).await?.is_none();
    stored(&state, &name, request.into_spec(), is_new).await
}

/// A relay that was stored, and where it is.
type Stored = (StatusCode, [(HeaderName, HeaderValue); 1], Json<RelayView>);

async fn stored(state: &ApiState, name: &str, spec: RelaySpec, is_new: bool) -> Result<Stored, Problem> {
    let relay = relays::put(state.store(), name, spec, state.now()).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = HeaderValue::from_str(&format!("/v1/relays/{}", relay.name)).expect("a relay's name is ASCII");
    Ok((status, [(header::LOCATION, location)], Json(view(state, relay).await?)))
}

/// Remove a relay
///
/// Its name stays in what it has sent. Refused while broadcasts that are not over name it.
#[utoipa::path(delete, path = "/v1/relays/{name}", tag = "relays", operation_id = "delete_relay", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemDocument), (status = 409, body = ProblemDocument)))]
pub async fn remove(State(state): State<ApiState>, Id(name): Id<String>) -> Result<StatusCode, Problem> {
    relays::remove(state.store(), &name, state.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayPauseRequest {
    /// Shown beside the relay.
    reason: Option<String>,
}

/// Pause a relay
///
/// What is on the wire is finished; nothing else goes through it until it is resumed. Messages take other relays.
#[utoipa::path(post, path = "/v1/relays/{name}/pause", tag = "relays", operation_id = "pause_relay",
    params(("name" = String, Path)), request_body = Option<RelayPauseRequest>,
    responses((status = 200, body = RelayView), (status = 404, body = ProblemDocument), (status = 422, body = ProblemDocument)))]
pub async fn pause(
    State(state): State<ApiState>,
    Id(name): Id<String>,
    body: Option<Body<RelayPauseRequest>>,
) -> Result<Json<RelayView>, Problem> {
    let reason = body
        .and_then(|Body(b)| b.reason)
        .unwrap_or_else(|| "paused over the API".to_owned());
    let relay = relays::pause(state.store(), &name, Some(&reason), state.now()).await?;
    Ok(Json(view(&state, relay).await?))
}

/// Let a relay go on
#[utoipa::path(post, path = "/v1/relays/{name}/resume", tag = "relays", operation_id = "resume_relay",
    params(("name" = String, Path)), responses((status = 200, body = RelayView), (status = 404, body = ProblemDocument)))]
pub async fn resume(State(state): State<ApiState>, Id(name): Id<String>) -> Result<Json<RelayView>, Problem> {
    let relay = relays::pause(state.store(), &name, None, state.now()).await?;
    Ok(Json(view(&state, relay).await?))
}

/// Forget what was found out about a relay
///
/// Workers try anew what it takes, and its limits are learnt again from its refusals. For after an upgrade of the relay.
#[utoipa::path(delete, path = "/v1/relays/{name}/findings", tag = "relays", operation_id = "forget_relay_findings",
    params(("name" = String, Path)), responses((status = 200, body = RelayView), (status = 404, body = ProblemDocument)))]
pub async fn forget(State(state): State<ApiState>, Id(name): Id<String>) -> Result<Json<RelayView>, Problem> {
    let relay = relays::forget_findings(state.store(), &name).await?;
    Ok(Json(view(&state, relay).await?))
}
