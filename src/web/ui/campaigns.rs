//! Campaigns: saved newsletters with a schedule. What each run sends is a broadcast of its own.

use std::sync::Arc;

use askama_web::WebTemplate;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Form};

use super::chrome::{Chrome, Section};
use super::confirm::{self, Asked, Way};
use super::draft::{self, DraftForm};
use super::error::UiError;
use super::form::{Fields, Problems, parse_time};
use super::preflight::{self, Preflights};
use super::templates::NAME_CHARS_MAX;
use super::{format, send};
use crate::domain::campaign::{Campaign, CampaignStatus, Draft, Schedule};
use crate::domain::id::CampaignId;
use crate::domain::time::Timestamp;
use crate::pipeline::accept::start_run_now;
use crate::store::library::{NewCampaign, Template};
use crate::web::WebState;
use crate::web::session::{self, SignedIn};

/// Planned runs shown: enough to see that the expression means what was meant.
const RUNS_SHOWN: usize = 3;

#[derive(askama::Template, WebTemplate)]
#[template(path = "campaigns.html")]
pub(super) struct CampaignsPage {
    chrome: Chrome,
    campaigns: Vec<Campaign>,
}

#[derive(askama::Template, WebTemplate)]
#[template(path = "campaign_new.html")]
pub(super) struct NewPage {
    chrome: Chrome,
    f: DraftForm,
    name: String,
    is_once: bool,
    at: String,
    cron: String,
    time_zone: String,
    /// The schedule in words and its next runs, once it can be read.
    plan: Option<Plan>,
}

/// A schedule as people check it.
struct Plan {
    described: String,
    runs: Vec<Run>,
}

/// A planned run, in UTC and as the clocks of the schedule's zone show it.
struct Run {
    at: Timestamp,
    local: Option<String>,
}

#[derive(askama::Template, WebTemplate)]
#[template(path = "campaign.html")]
pub(super) struct CampaignPage {
    chrome: Chrome,
    c: Campaign,
    template_name: Option<String>,
    audience: String,
    recipients: i64,
    plan: Plan,
    is_active: bool,
    is_finished: bool,
}

pub async fn list(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<CampaignsPage, UiError> {
    Ok(CampaignsPage {
        chrome: Chrome::new(&signed, Section::Campaigns).noting(query.text("note")),
        campaigns: state.store.campaigns().await?,
    })
}

/// The form; with a schedule in the address it also says when the next runs would be.
pub async fn new(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(typed): Query<Fields>,
) -> Result<NewPage, UiError> {
    let mut problems = Problems::default();
    if !typed.is_empty() {
        parse_schedule(&typed, state.clock.now(), &mut problems);
    }
    form_page(&signed, &state, &typed, problems).await
}

pub async fn create(
    signed: SignedIn,
    State(state): State<WebState>,
    Form(typed): Form<Fields>,
) -> Result<Response, UiError> {
    let now = state.clock.now();
    let mut problems = Problems::default();
    let parsed = parse(&typed, now, &mut problems);
    if let Some((_, draft, _)) = &parsed {
        draft::find_relay(&state, draft, &mut problems).await?;
    }
    let Some((name, draft, schedule)) = parsed.filter(|_| problems.is_empty()) else {
        let page = form_page(&signed, &state, &typed, problems).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    draft::remember_sender(&state, &draft.from).await?;
    let id = CampaignId::new(now, fastrand::u128(..));
    let next_at = schedule.next_after(now);
    let new = NewCampaign {
        id: id.clone(),
        name,
        draft,
        schedule,
        next_at,
    };
    state.store.create_campaign(&new, now).await?;
    Ok(Redirect::to(&format!("/campaigns/{id}?note=created")).into_response())
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
    Query(query): Query<Fields>,
) -> Result<CampaignPage, UiError> {
    let c = read(&state, &id).await?;
    Ok(CampaignPage {
        chrome: Chrome::new(&signed, Section::Campaigns).noting(query.text("note")),
        template_name: state.store.template(&c.draft.template_id).await?.map(|t| t.name),
        audience: draft::named(&state, &c.draft.audience).await?,
        recipients: draft::count(&state, &c.draft.audience).await?,
        plan: plan(&c.schedule, state.clock.now()),
        is_active: c.status == CampaignStatus::Active,
        is_finished: c.status == CampaignStatus::Finished,
        c,
    })
}

pub async fn pause(_: SignedIn, State(state): State<WebState>, Path(id): Path<String>) -> Result<Redirect, UiError> {
    let c = read(&state, &id).await?;
    state
        .store
        .set_campaign_status(&c.id, CampaignStatus::Paused, None, state.clock.now())
        .await?;
    Ok(Redirect::to(&format!("/campaigns/{}?note=paused", c.id)))
}

/// Runs that fell due while it was paused are not made up for.
pub async fn resume(_: SignedIn, State(state): State<WebState>, Path(id): Path<String>) -> Result<Redirect, UiError> {
    let c = read(&state, &id).await?;
    let now = state.clock.now();
    let Some(next_at) = c.schedule.next_after(now) else {
        return Err(UiError::Refused("Its only run has passed. Use \"Run now\", or make a new campaign.".to_owned()));
    };
    state
        .store
        .set_campaign_status(&c.id, CampaignStatus::Active, Some(next_at), now)
        .await?;
    Ok(Redirect::to(&format!("/campaigns/{}?note=resumed", c.id)))
}

/// What a run beside the plan would do. The first time it gives the page its key, so that a reload has the same one.
pub async fn confirm_run(
    signed: SignedIn,
    State(state): State<WebState>,
    Extension(preflights): Extension<Arc<Preflights>>,
    Path(id): Path<String>,
    Query(typed): Query<Fields>,
) -> Result<Response, UiError> {
    let c = read(&state, &id).await?;
    let Some(key) = typed.filled("key") else {
        return Ok(Redirect::to(&format!("/campaigns/{}/run?key={}", c.id, session::new_token())).into_response());
    };
    let recipients = draft::count(&state, &c.draft.audience).await?;
    if recipients == 0 {
        return Err(UiError::Refused(
            "Nobody is subscribed to what this campaign is for. Add contacts first.".to_owned(),
        ));
    }
    let template = template_of(&state, &c).await?;
    let mut problems = Problems::default();
    let relay = draft::find_relay(&state, &c.draft, &mut problems).await?;
    if let Some(why) = problems.of("relay") {
        return Err(UiError::Refused(why.to_owned()));
    }
    let way = Way {
        key: key.to_owned(),
        action: format!("/campaigns/{}/run", c.id),
        fields: Vec::new(),
        live: format!("/campaigns/{}/preflight?{}", c.id, typed.query_with("key", key)),
        back: format!("/campaigns/{}", c.id),
        back_label: c.name,
    };
    let asked = Asked {
        section: Section::Campaigns,
        draft: c.draft,
        template,
        send_at: None,
        recipients,
        relay,
        way,
    };
    Ok(confirm::page(&signed, &state, &preflights, asked)
        .await?
        .into_response())
}

/// The look ahead, as the page before a run refreshes it by itself.
pub async fn preflight(
    _: SignedIn,
    State(state): State<WebState>,
    Extension(preflights): Extension<Arc<Preflights>>,
    Path(id): Path<String>,
    Query(typed): Query<Fields>,
) -> Result<Response, UiError> {
    let c = read(&state, &id).await?;
    let content = template_of(&state, &c).await?.content;
    preflight::answer(&state, &preflights, typed.text("key"), &c.draft, content).await
}

async fn template_of(state: &WebState, c: &Campaign) -> Result<Template, UiError> {
    let template = state.store.template(&c.draft.template_id).await?;
    template
        .ok_or_else(|| UiError::Refused("The template of this campaign is deleted. Make a new campaign.".to_owned()))
}

/// A broadcast beside the plan; the plan stays as it is.
pub async fn run_now(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
    Form(form): Form<Fields>,
) -> Result<Redirect, UiError> {
    let c = read(&state, &id).await?;
    let (key, now) = (send::key_of(&signed, form.text("key"))?, state.clock.now());
    send::to_status_page(start_run_now(&*state.store, &c, Some(key), now, fastrand::u128(..)).await)
}

pub async fn delete(_: SignedIn, State(state): State<WebState>, Path(id): Path<String>) -> Result<Redirect, UiError> {
    let c = read(&state, &id).await?;
    state.store.delete_campaign(&c.id).await?;
    Ok(Redirect::to("/campaigns?note=deleted"))
}

async fn read(state: &WebState, id: &str) -> Result<Campaign, UiError> {
    let id: CampaignId = id.parse().map_err(|_| UiError::NotFound)?;
    state.store.campaign(&id).await?.ok_or(UiError::NotFound)
}

async fn form_page(
    signed: &SignedIn,
    state: &WebState,
    typed: &Fields,
    problems: Problems,
) -> Result<NewPage, UiError> {
    let now = state.clock.now();
    let or = |name: &str, default: &str| typed.filled(name).unwrap_or(default).to_owned();
    let schedule = parse_schedule(typed, now, &mut Problems::default());
    Ok(NewPage {
        chrome: Chrome::new(signed, Section::Campaigns),
        name: typed.text("name").to_owned(),
        is_once: typed.text("schedule") == "once",
        at: typed.text("at").to_owned(),
        cron: or("cron", "0 9 * * MON"),
        time_zone: or("time_zone", "UTC"),
        plan: schedule.filter(|_| !typed.is_empty()).map(|s| plan(&s, now)),
        f: DraftForm::load(state, typed, problems).await?,
    })
}

fn plan(schedule: &Schedule, now: Timestamp) -> Plan {
    let times = std::iter::successors(schedule.next_after(now), |&last| schedule.next_after(last));
    let run = |at| Run {
        at,
        local: local(schedule, at),
    };
    Plan {
        described: schedule.describe(),
        runs: times.take(RUNS_SHOWN).map(run).collect(),
    }
}

fn local(schedule: &Schedule, at: Timestamp) -> Option<String> {
    let Schedule::Recurring { time_zone, .. } = schedule else {
        return None;
    };
    let there = at.to_jiff().in_tz(time_zone).ok().filter(|_| time_zone != "UTC")?;
    Some(format!("{} in {time_zone}", there.strftime("%A %H:%M")))
}

fn parse(typed: &Fields, now: Timestamp, problems: &mut Problems) -> Option<(String, Draft, Schedule)> {
    let name = typed.text("name");
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        problems.add("name", format!("A name is needed, of {NAME_CHARS_MAX} characters at most."));
    }
    let draft = draft::parse(typed, problems);
    let schedule = parse_schedule(typed, now, problems);
    Some((name.to_owned(), draft?, schedule?))
}

fn parse_schedule(typed: &Fields, now: Timestamp, problems: &mut Problems) -> Option<Schedule> {
    let schedule = if typed.text("schedule") == "once" {
        Schedule::Once {
            at: problems.take("at", parse_time(typed.text("at")))?,
        }
    } else {
        Schedule::Recurring {
            cron: typed.text("cron").to_owned(),
            time_zone: typed.text("time_zone").to_owned(),
        }
    };
    if let Err((field, why)) = schedule.check() {
        problems.add(field, format!("{why}."));
        return None;
    }
    if schedule.next_after(now).is_none() {
        let field = if matches!(schedule, Schedule::Once { .. }) {
            "at"
        } else {
            "cron"
        };
        problems.add(field, "This never comes. Choose a time to come.");
        return None;
    }
    Some(schedule)
}
