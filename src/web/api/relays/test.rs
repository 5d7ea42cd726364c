//! A test of a relay over the API: what was said, what it means, and what was found out.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::pipeline::accept::FieldProblem;
use crate::pipeline::probe::{MailError, ProbeError, Report, TestMail, Voice, keep, probe};
use crate::pipeline::relays;
use crate::web::api::ApiState;
use crate::web::error::{Kind, Problem, ProblemDocument};
use crate::web::extract::{Id, Json as Body};

impl From<MailError> for Problem {
    fn from(e: MailError) -> Self {
        match e {
            MailError::Wrong(unfit) => {
                Problem::field(FieldProblem::new(format!("#/{}", unfit.field), unfit.code, unfit.detail))
            }
            MailError::Store(e) => e.into(),
        }
    }
}

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayTestRequest {
    /// Where one test message goes. Without it nothing is sent.
    to: Option<String>,
    /// The sender of the test message.
    from: Option<String>,
    /// With a test message: up to so many others are begun and forgotten, to see how many messages a session takes. At most 1,000.
    session: Option<u32>,
}

/// What a test of a relay came to.
#[derive(Serialize, ToSchema)]
pub struct RelayTest {
    /// Whether everything that was tried went well.
    ok: bool,
    summary: String,
    trouble: Option<RelayTrouble>,
    steps: Vec<RelayTestStep>,
    /// What the relay announces, of what matters here.
    announced: Vec<String>,
    /// What was found out. Workers go by it from now on.
    notes: Vec<String>,
    took_ms: u64,
}

/// What stands in the way.
#[derive(Serialize, ToSchema)]
pub struct RelayTrouble {
    stage: &'static str,
    /// The reason class, as messages have it.
    class: &'static str,
    /// `relay`, `broadcast`, `message` or `recipient`.
    fault: &'static str,
    advice: String,
    retry_after_secs: Option<u64>,
}

/// One step, from `connect` to `message content`.
#[derive(Serialize, ToSchema)]
pub struct RelayTestStep {
    stage: &'static str,
    took_ms: u64,
    lines: Vec<RelayTestLine>,
}

#[derive(Serialize, ToSchema)]
pub struct RelayTestLine {
    /// `us`, `relay`, or `note` for what was not said.
    #[schema(value_type = String)]
    from: Voice,
    text: String,
}

fn millis(took: std::time::Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

impl From<Report> for RelayTest {
    fn from(report: Report) -> Self {
        let steps = report.steps.into_iter().map(|step| RelayTestStep {
            stage: step.stage.as_str(),
            took_ms: millis(step.took),
            lines: step
                .said
                .into_iter()
                .map(|said| RelayTestLine {
                    from: said.voice,
                    text: said.text,
                })
                .collect(),
        });
        Self {
            ok: report.is_good,
            summary: report.summary,
            trouble: report.trouble.map(|t| RelayTrouble {
                stage: t.stage.as_str(),
                class: t.class,
                fault: t.fault,
                advice: t.advice,
                retry_after_secs: t.retry_after.map(|d| d.as_secs()),
            }),
            steps: steps.collect(),
            announced: report.announced,
            notes: report.notes,
            took_ms: millis(report.took),
        }
    }
}

/// Test a relay
///
/// Opens a connection from the machine that answers this request, with TLS and login, and tells what was said. With `to` and `from`
/// one test message goes out besides, and it is found out whether the relay takes commands ahead of its reply to the end of data. It takes
/// a minute at most.
#[utoipa::path(post, path = "/v1/relays/{name}/test", tag = "relays", operation_id = "test_relay",
    params(("name" = String, Path)), request_body = Option<RelayTestRequest>,
    responses((status = 200, body = RelayTest), (status = 404, body = ProblemDocument), (status = 422, body = ProblemDocument),
        (status = 503, body = ProblemDocument)))]
pub async fn test(
    State(state): State<ApiState>,
    Id(name): Id<String>,
    body: Option<Body<RelayTestRequest>>,
) -> Result<Json<RelayTest>, Problem> {
    let relay = relays::find(state.store(), &name).await?;
    let Body(request) = body.unwrap_or_else(|| Body(RelayTestRequest::default()));
    let mail = TestMail::read(state.store(), request.from.as_deref(), request.to.as_deref()).await?;
    let mail = match (mail, request.session) {
        (Some(mail), Some(n)) => {
            let wrong = |why: String| Problem::field(FieldProblem::new("#/session", "invalid_value", why));
            Some(mail.with_session(n).map_err(wrong)?)
        }
        (None, Some(_)) => {
            let detail = "session needs a test message; name to and from as well";
            return Err(Problem::field(FieldProblem::new("#/session", "conflict", detail)));
        }
        (mail, None) => mail,
    };
    let report = probe(&relay, mail.as_ref(), state.now()).await.map_err(|e| match e {
        ProbeError::Busy => Problem::new(&Kind::UNAVAILABLE, e.to_string()),
        ProbeError::Unusable(why) => Problem::new(&Kind::CONFLICT, why),
    })?;
    keep(state.store(), &relay, &report.found, state.now()).await?;
    Ok(Json(report.into()))
}
