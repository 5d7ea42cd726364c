//! What runs where: the processes that send, and the jobs that wait, run or stand still.

use std::collections::HashMap;

use askama::Template;
use askama_web::WebTemplate;
use axum::extract::{Path, Query, State};
use axum::response::Redirect;

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
use super::format;
use crate::domain::time::Timestamp;
use crate::domain::worker::{JobView, Worker};
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Jobs shown of each state: what comes next, not the whole queue.
const JOBS_MAX: i64 = 50;

/// Jobs of one state.
pub(super) struct JobGroup {
    state: &'static str,
    meaning: &'static str,
    jobs: Vec<JobRow>,
    is_cut: bool,
}

struct JobRow {
    job: JobView,
    /// `host:pid` of the worker that holds it.
    owner: Option<String>,
}

/// The states in which a job may be found, those that need somebody first.
const STATES: [(&str, &str); 5] = [
    ("quarantined", "set aside after five owners died with it; look at it, then give it another chance"),
    ("running", "held by a worker now"),
    ("ready", "any worker may take it"),
    ("waiting", "due later: a start time, or messages to be tried again"),
    ("held", "its broadcast is paused"),
];

/// The state of the machinery at one moment.
pub(super) struct Machinery {
    workers: Vec<Worker>,
    groups: Vec<JobGroup>,
    n_live: i64,
    rate: f64,
    now: Timestamp,
}

#[derive(Template, WebTemplate)]
#[template(path = "workers.html")]
pub(super) struct WorkersPage {
    chrome: Chrome,
    m: Machinery,
}

#[derive(Template, WebTemplate)]
#[template(path = "_workers.html")]
pub(super) struct WorkersFragment {
    m: Machinery,
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<WorkersPage, UiError> {
    let chrome = Chrome::new(&signed, Section::Workers).noting(query.text("note"));
    Ok(WorkersPage {
        chrome,
        m: read(&state).await?,
    })
}

/// The tables alone, for the page that refreshes itself.
pub async fn fragment(_signed: SignedIn, State(state): State<WebState>) -> Result<WorkersFragment, UiError> {
    Ok(WorkersFragment { m: read(&state).await? })
}

/// Gives a quarantined job another chance.
pub async fn release(_: SignedIn, State(state): State<WebState>, Path(id): Path<String>) -> Result<Redirect, UiError> {
    let id: i64 = id.parse().map_err(|_| UiError::NotFound)?;
    if !state.store.release_quarantined(id, state.clock.now()).await? {
        return Err(UiError::Refused("This job is not quarantined any more.".to_owned()));
    }
    Ok(Redirect::to("/workers?note=released"))
}

async fn read(state: &WebState) -> Result<Machinery, UiError> {
    let now = state.clock.now();
    let workers = state.store.workers(now).await?;
    let names: HashMap<i64, String> = workers
        .iter()
        .map(|w| (w.id, format!("{}:{}", w.host, w.pid)))
        .collect();
    let mut groups = Vec::new();
    for (name, meaning) in STATES {
        let jobs = state.store.jobs(Some(name), JOBS_MAX).await?;
        let is_cut = jobs.len() as i64 == JOBS_MAX;
        let jobs = jobs
            .into_iter()
            .map(|job| JobRow {
                owner: job.worker_id.map(|w| owner(&names, w)),
                job,
            })
            .collect();
        groups.push(JobGroup {
            state: name,
            meaning,
            jobs,
            is_cut,
        });
    }
    let live = || workers.iter().filter(|w| w.state == "live");
    Ok(Machinery {
        n_live: live().count() as i64,
        rate: live().map(|w| w.stats.rate_per_sec).sum(),
        groups,
        now,
        workers,
    })
}

fn owner(names: &HashMap<i64, String>, worker: i64) -> String {
    names
        .get(&worker)
        .cloned()
        .unwrap_or_else(|| format!("worker {worker}"))
}
