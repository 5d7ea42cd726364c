//! Campaigns: saved newsletters with an audience and a schedule. Each run starts a broadcast.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ApiState;
use super::shapes::{AudienceView, BroadcastLinks, Page, word};
use super::templates::check_title;
use crate::domain::broadcast::{Audience, OnUncertain, Priority};
use crate::domain::campaign::{Campaign, CampaignStatus, Draft, Schedule};
use crate::domain::id::{BroadcastId, CampaignId, ListId, TemplateId};
use crate::domain::safety::Safety;
use crate::domain::time::Timestamp;
use crate::pipeline::accept::{
    FieldProblem, check_draft, check_tags, read_auto_pause, read_canary, read_mailbox, start_run_now,
};
use crate::store::library::NewCampaign;
use crate::web::error::{Problem, ProblemDocument};
use crate::web::extract::{Id, Json as Body};

/// Longest time after which a run's mail expires: a month.
const EXPIRES_SECS_MAX: i64 = 31 * 24 * 3_600;

/// A campaign. Exactly one of `list_ids` and `all`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CampaignRequest {
    name: String,
    /// A mailbox: `{"email": …, "name": …}` or `"Name <address>"`.
    #[schema(value_type = super::intake::MailboxRequest)]
    from: Value,
    #[schema(value_type = Option<super::intake::MailboxRequest>)]
    reply_to: Option<Value>,
    template_id: String,
    list_ids: Option<Vec<String>>,
    all: Option<bool>,
    #[schema(value_type = ScheduleShape)]
    schedule: Schedule,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    on_uncertain: OnUncertain,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    priority: Priority,
    /// The name of the only relay that runs may go through. Without it: any.
    relay: Option<String>,
    /// A run's mail expires this long after its scheduled time.
    expires_after_secs: Option<i64>,
    #[serde(default)]
    tags: Vec<String>,
    #[schema(value_type = Option<super::intake::CanaryRequest>)]
    canary: Option<Value>,
    /// As in a broadcast: `false`, or `{"above_percent": 1 to 100}`.
    #[schema(value_type = Option<Object>)]
    auto_pause: Option<Value>,
}

/// When a campaign runs: `{"kind": "once", "at": …}` or `{"kind": "recurring", "cron": "0 9 * * MON", "time_zone":
/// "Europe/Berlin"}`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `Schedule` of the domain, which knows nothing of OpenAPI")]
pub struct ScheduleShape {
    /// `once` or `recurring`.
    kind: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<String>,
    /// Five fields: minute, hour, day, month, weekday.
    cron: Option<String>,
    /// An IANA name.
    time_zone: Option<String>,
}

/// A campaign as it stands.
#[derive(Serialize, ToSchema)]
#[schema(as = Campaign)]
pub struct CampaignView {
    id: String,
    name: String,
    /// `active`, `paused` or `finished`.
    status: &'static str,
    /// The address it is from.
    from: String,
    template_id: String,
    audience: AudienceView,
    #[schema(value_type = ScheduleShape)]
    schedule: Schedule,
    /// The schedule in words.
    schedule_text: String,
    on_uncertain: &'static str,
    priority: String,
    relay: Option<String>,
    expires_after_secs: Option<i64>,
    tags: Vec<String>,
    canary: Option<super::safety::CanaryRuleView>,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_at: Option<Timestamp>,
    /// Why the last run could not start.
    last_error: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Campaign> for CampaignView {
    fn from(c: Campaign) -> Self {
        Self {
            id: c.id.to_string(),
            name: c.name,
            status: c.status.as_str(),
            from: c.draft.from.email.to_string(),
            template_id: c.draft.template_id.to_string(),
            audience: (&c.draft.audience).into(),
            schedule_text: c.schedule.describe(),
            schedule: c.schedule,
            on_uncertain: c.draft.on_uncertain.as_str(),
            priority: word(&c.draft.priority),
            relay: c.draft.relay,
            expires_after_secs: c.draft.expires_after_secs,
            canary: c.draft.safety.canary.map(Into::into),
            tags: c.draft.tags,
            next_at: c.next_at,
            last_at: c.last_at,
            last_error: c.last_error,
            created_at: c.created_at,
        }
    }
}

/// Make a campaign
///
/// It is active at once.
#[utoipa::path(post, path = "/v1/campaigns", tag = "campaigns", operation_id = "create_campaign",
    request_body = CampaignRequest,
    responses((status = 201, body = CampaignView), (status = 422, body = ProblemDocument)))]
pub async fn create(
    State(state): State<ApiState>,
    Body(request): Body<CampaignRequest>,
) -> Result<impl IntoResponse, Problem> {
    let name = check_title(&request.name)?;
    let schedule = request.schedule.clone();
    schedule
        .check()
        .map_err(|(name, why)| Problem::field(FieldProblem::new(format!("#/schedule/{name}"), "invalid_value", why)))?;
    let draft = to_draft(request)?;
    check_draft(state.store(), &draft).await?;
    let now = state.now();
    let next_at = schedule.next_after(now);
    if next_at.is_none() {
        let detail = "the schedule has no run in the future; give a later time";
        return Err(Problem::field(FieldProblem::new("#/schedule", "invalid_time", detail)));
    }
    let id = CampaignId::new(now, fastrand::u128(..));
    let new = NewCampaign {
        id: id.clone(),
        name,
        draft,
        schedule,
        next_at,
    };
    state.store().create_campaign(&new, now).await?;
    let location = HeaderValue::from_str(&format!("/v1/campaigns/{id}")).expect("an id is ASCII");
    let view = CampaignView::from(find(&state, &id).await?);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)))
}

fn to_draft(request: CampaignRequest) -> Result<Draft, Problem> {
    let wrong = |at: String, code, why: String| Problem::field(FieldProblem::new(at, code, why));
    let reply_to = request
        .reply_to
        .filter(|v| !v.is_null())
        .map(|v| read_mailbox("reply_to", &v));
    if let Some(secs) = request
        .expires_after_secs
        .filter(|s| !(60..=EXPIRES_SECS_MAX).contains(s))
    {
        let detail = format!("expires_after_secs is {secs}; give 60 to {EXPIRES_SECS_MAX}");
        return Err(wrong("#/expires_after_secs".into(), "invalid_value", detail));
    }
    check_tags(&request.tags).map_err(Problem::field)?;
    let is_given = |v: &Value| !v.is_null();
    let canary = request.canary.filter(is_given).map(|v| read_canary(&v)).transpose();
    let auto_pause = request
        .auto_pause
        .filter(is_given)
        .map(|v| read_auto_pause(&v))
        .transpose();
    Ok(Draft {
        from: read_mailbox("from", &request.from).map_err(Problem::field)?,
        reply_to: reply_to
            .transpose()
            .map_err(Problem::field)?
            .map(|mailbox| mailbox.email),
        template_id: request
            .template_id
            .parse::<TemplateId>()
            .map_err(|why| wrong("#/template_id".into(), "invalid_value", why))?,
        audience: to_audience(request.list_ids, request.all)?,
        on_uncertain: request.on_uncertain,
        priority: request.priority,
        relay: request.relay.filter(|name| !name.is_empty()),
        expires_after_secs: request.expires_after_secs,
        tags: request.tags,
        safety: Safety {
            canary: canary.map_err(Problem::field)?,
            auto_pause: auto_pause.map_err(Problem::field)?.flatten(),
        },
    })
}

fn to_audience(list_ids: Option<Vec<String>>, all: Option<bool>) -> Result<Audience, Problem> {
    let wrong = |at: String, code, why: String| Problem::field(FieldProblem::new(at, code, why));
    match (list_ids.filter(|ids| !ids.is_empty()), all.unwrap_or_default()) {
        (None, true) => Ok(Audience::All),
        (Some(_), true) => {
            Err(wrong("#/all".into(), "conflict", "list_ids and all exclude each other; keep one".into()))
        }
        (None, false) => Err(wrong(
            "#/list_ids".into(),
            "required",
            "there is no audience; give list_ids or \"all\": true".into(),
        )),
        (Some(texts), false) => {
            let parse = |(i, text): (usize, &String)| {
                text.parse::<ListId>()
                    .map_err(|why| wrong(format!("#/list_ids/{i}"), "invalid_value", why))
            };
            let list_ids = texts.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
            Ok(Audience::Lists { list_ids })
        }
    }
}

/// All campaigns, newest first
#[utoipa::path(get, path = "/v1/campaigns", tag = "campaigns", operation_id = "list_campaigns",
    responses((status = 200, body = Page<CampaignView>)))]
pub async fn list(State(state): State<ApiState>) -> Result<Json<Page<CampaignView>>, Problem> {
    Ok(Json(Page::whole(state.store().campaigns().await?, CampaignView::from)))
}

/// One campaign
#[utoipa::path(get, path = "/v1/campaigns/{id}", tag = "campaigns", operation_id = "get_campaign",
    params(("id" = String, Path)),
    responses((status = 200, body = CampaignView), (status = 404, body = ProblemDocument)))]
pub async fn show(State(state): State<ApiState>, Id(id): Id<CampaignId>) -> Result<Json<CampaignView>, Problem> {
    Ok(Json(find(&state, &id).await?.into()))
}

/// Pause a campaign: no run starts by itself
#[utoipa::path(post, path = "/v1/campaigns/{id}/pause", tag = "campaigns", operation_id = "pause_campaign",
    params(("id" = String, Path)),
    responses((status = 200, body = CampaignView), (status = 404, body = ProblemDocument),
        (status = 409, body = ProblemDocument)))]
pub async fn pause(State(state): State<ApiState>, Id(id): Id<CampaignId>) -> Result<Json<CampaignView>, Problem> {
    let campaign = find(&state, &id).await?;
    if campaign.status == CampaignStatus::Finished {
        return Err(Problem::invalid_state("the campaign has no further run", campaign.status.as_str()));
    }
    state
        .store()
        .set_campaign_status(&id, CampaignStatus::Paused, None, state.now())
        .await?;
    show(State(state), Id(id)).await
}

/// Resume a paused campaign
///
/// Runs that were missed are not made up for.
#[utoipa::path(post, path = "/v1/campaigns/{id}/resume", tag = "campaigns", operation_id = "resume_campaign",
    params(("id" = String, Path)),
    responses((status = 200, body = CampaignView), (status = 404, body = ProblemDocument),
        (status = 409, body = ProblemDocument)))]
pub async fn resume(State(state): State<ApiState>, Id(id): Id<CampaignId>) -> Result<Json<CampaignView>, Problem> {
    let campaign = find(&state, &id).await?;
    if campaign.status != CampaignStatus::Active {
        let now = state.now();
        let Some(next_at) = campaign.schedule.next_after(now) else {
            return Err(Problem::invalid_state("the campaign has no further run", campaign.status.as_str()));
        };
        state
            .store()
            .set_campaign_status(&id, CampaignStatus::Active, Some(next_at), now)
            .await?;
    }
    show(State(state), Id(id)).await
}

/// A run that was started.
#[derive(Serialize, ToSchema)]
pub struct RunStarted {
    id: String,
    status: &'static str,
    links: BroadcastLinks,
}

/// Start a run now, beside the schedule
#[utoipa::path(post, path = "/v1/campaigns/{id}/run", tag = "campaigns", operation_id = "run_campaign",
    params(("id" = String, Path)),
    responses((status = 202, body = RunStarted), (status = 404, body = ProblemDocument),
        (status = 409, body = ProblemDocument), (status = 422, body = ProblemDocument)))]
pub async fn run(State(state): State<ApiState>, Id(id): Id<CampaignId>) -> Result<impl IntoResponse, Problem> {
    let campaign = find(&state, &id).await?;
    let started: BroadcastId = start_run_now(state.store(), &campaign, None, state.now(), fastrand::u128(..)).await?;
    let location = HeaderValue::from_str(&format!("/v1/broadcasts/{started}")).expect("an id is ASCII");
    let links = BroadcastLinks::of(started.as_str());
    let answer = RunStarted {
        id: started.to_string(),
        status: "accepted",
        links,
    };
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(answer)))
}

/// Delete a campaign
///
/// Its broadcasts stay, and go on.
#[utoipa::path(delete, path = "/v1/campaigns/{id}", tag = "campaigns", operation_id = "delete_campaign",
    params(("id" = String, Path)), responses((status = 204), (status = 404, body = ProblemDocument)))]
pub async fn remove(State(state): State<ApiState>, Id(id): Id<CampaignId>) -> Result<StatusCode, Problem> {
    match state.store().delete_campaign(&id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found(format!("there is no campaign {id}"))),
    }
}

async fn find(state: &ApiState, id: &CampaignId) -> Result<Campaign, Problem> {
    let found = state.store().campaign(id).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no campaign {id}")))
}
