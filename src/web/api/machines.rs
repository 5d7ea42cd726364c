//! What runs where: workers and jobs, and a second chance for a job that was set aside.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::shapes::Page;
use crate::domain::time::Timestamp;
use crate::domain::worker::{JobView, Worker};
use crate::pipeline::accept::{FieldProblem, quoted};
use crate::web::error::{Kind, Problem, ProblemDocument};
use crate::web::extract::{Id, Params, page_rows};

const STATES: [&str; 7] = ["waiting", "ready", "running", "done", "held", "canceled", "quarantined"];

/// A running process that claims jobs.
#[derive(Serialize, ToSchema)]
#[schema(as = Worker)]
pub struct WorkerShape {
    id: i64,
    host: String,
    pid: i64,
    version: String,
    /// `live`, `draining`, `stopped` or `dead`.
    state: String,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    seen_at: Timestamp,
    /// Running jobs it holds.
    jobs: i64,
    /// Messages settled per second.
    rate_per_sec: f64,
    connections_open: u32,
    /// What stands in its way at present.
    trouble: Option<String>,
}

impl From<Worker> for WorkerShape {
    fn from(w: Worker) -> Self {
        Self {
            id: w.id,
            host: w.host,
            pid: w.pid,
            version: w.version,
            state: w.state,
            started_at: w.started_at,
            seen_at: w.seen_at,
            jobs: w.jobs,
            rate_per_sec: w.stats.rate_per_sec,
            connections_open: w.stats.connections_open,
            trouble: w.stats.trouble,
        }
    }
}

/// A job of the queue.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobShape {
    id: i64,
    broadcast_id: String,
    subject: String,
    /// `fan_out` or `deliver`.
    kind: String,
    /// The chunk's number in its broadcast.
    seq: i64,
    state: String,
    worker_id: Option<i64>,
    #[schema(value_type = String, format = DateTime)]
    run_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    touched_at: Option<Timestamp>,
    /// Messages in it, and how many of them have an outcome.
    size: i64,
    settled: i64,
    /// Owners that died with it.
    deaths: i64,
    last_error: Option<String>,
}

impl From<JobView> for JobShape {
    fn from(j: JobView) -> Self {
        Self {
            id: j.id,
            broadcast_id: j.broadcast_id,
            subject: j.subject,
            kind: j.kind,
            seq: j.seq,
            state: j.state,
            worker_id: j.worker_id,
            run_at: j.run_at,
            touched_at: j.touched_at,
            size: j.size,
            settled: j.settled,
            deaths: j.deaths,
            last_error: j.last_error,
        }
    }
}

/// Workers that are alive or were within the last day
#[utoipa::path(get, path = "/v1/workers", tag = "machines", operation_id = "list_workers",
    responses((status = 200, body = Page<WorkerShape>)))]
pub async fn workers(State(state): State<ApiState>) -> Result<Json<Page<WorkerShape>>, Problem> {
    let workers = state.store().workers(state.now()).await?;
    Ok(Json(Page::whole(workers, WorkerShape::from)))
}

/// Which jobs.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobFilter {
    /// `waiting`, `ready`, `running`, `done`, `held`, `canceled` or `quarantined`; without it all that are not over.
    state: Option<String>,
    /// 1 to 500; 50 by default.
    limit: Option<i64>,
}

/// Jobs in the order of the queue
#[utoipa::path(get, path = "/v1/jobs", tag = "machines", operation_id = "list_jobs", params(JobFilter),
    responses((status = 200, body = Page<JobShape>)))]
pub async fn jobs(
    State(state): State<ApiState>,
    Params(filter): Params<JobFilter>,
) -> Result<Json<Page<JobShape>>, Problem> {
    let rows = page_rows(filter.limit)?;
    if let Some(wrong) = filter.state.as_deref().filter(|s| !STATES.contains(s)) {
        let detail = format!("{} is not a state of jobs; use one of {}", quoted(wrong), STATES.join(", "));
        return Err(Problem::field(FieldProblem::new("#/state", "invalid_value", detail)));
    }
    let mut jobs = state.store().jobs(filter.state.as_deref(), rows + 1).await?;
    let has_more = jobs.len() as i64 > rows;
    jobs.truncate(usize::try_from(rows).unwrap_or_default());
    Ok(Json(Page {
        has_more,
        ..Page::whole(jobs, JobShape::from)
    }))
}

/// Give a quarantined job another chance
///
/// A job is quarantined when five workers died with it.
#[utoipa::path(post, path = "/v1/jobs/{id}/release", tag = "machines", operation_id = "release_job",
    params(("id" = i64, Path)),
    responses((status = 204), (status = 409, body = ProblemDocument)))]
pub async fn release(State(state): State<ApiState>, Id(id): Id<i64>) -> Result<StatusCode, Problem> {
    match state.store().release_quarantined(id, state.now()).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::new(&Kind::CONFLICT, format!("there is no quarantined job {id}"))),
    }
}
