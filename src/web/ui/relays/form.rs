//! The form for a relay: every field as it was typed, judged one by one. A password goes in and never comes out.

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::is_configured;
use super::texts::{FACTOR_USUAL, LaneTexts, LimitTexts, QuietTexts, WarmUpTexts, short, typed_lanes};
use crate::domain::relay::{LANES_MAX, Relay, RelaySpec, check_name};
use crate::pipeline::relays::{self, RelayError, RelayParts};
use crate::web::WebState;
use crate::web::session::SignedIn;
use crate::web::ui::chrome::{Chrome, Section};
use crate::web::ui::error::UiError;
use crate::web::ui::form::{Fields, Problems};
use crate::web::ui::format;

/// Empty rows for more destinations at the end of the table.
const LANES_SPARE: usize = 2;

#[derive(Template, WebTemplate)]
#[template(path = "relay_form.html")]
struct FormPage {
    chrome: Chrome,
    f: RelayForm,
    is_configured: bool,
}

/// All fields as texts.
struct RelayForm {
    /// Of the relay that is changed; `None` for a new one.
    stored: Option<String>,
    name: String,
    p: RelayParts,
    has_password: bool,
    weight: String,
    limits: LimitTexts,
    lanes: Vec<LaneTexts>,
    warm_up: WarmUpTexts,
    quiet: QuietTexts,
    problems: Problems,
}

impl RelayForm {
    fn fresh() -> Self {
        Self {
            stored: None,
            name: String::new(),
            p: RelayParts::fresh(),
            has_password: false,
            weight: "1".to_owned(),
            limits: LimitTexts::default(),
            lanes: Vec::new(),
            warm_up: WarmUpTexts {
                factor: FACTOR_USUAL.to_owned(),
                ..WarmUpTexts::default()
            },
            quiet: QuietTexts::default(),
            problems: Problems::default(),
        }
    }

    fn of(relay: &Relay) -> Self {
        let (spec, fresh) = (&relay.spec, Self::fresh());
        let mut problems = Problems::default();
        let p = RelayParts::of(&spec.url).unwrap_or_else(|why| {
            problems.add("host", format::sentence(&format!("what is stored cannot be read: {why}")));
            RelayParts::fresh()
        });
        let mut limits = spec.limits;
        limits.per_sec = limits.per_sec.or(p.rate);
        Self {
            stored: Some(relay.name.clone()),
            name: relay.name.clone(),
            has_password: !p.user.is_empty(),
            p,
            weight: spec.weight.to_string(),
            limits: LimitTexts::of(limits),
            lanes: spec.lanes.iter().map(LaneTexts::of).collect(),
            warm_up: spec.warm_up.as_ref().map_or(fresh.warm_up, WarmUpTexts::of),
            quiet: spec.quiet_hours.as_ref().map(QuietTexts::of).unwrap_or_default(),
            problems,
        }
    }

    fn typed(fields: &Fields, stored: Option<&Relay>) -> Self {
        let text = |name: &str| fields.text(name).to_owned();
        Self {
            stored: stored.map(|relay| relay.name.clone()),
            name: stored.map_or_else(|| text("name"), |relay| relay.name.clone()),
            p: RelayParts {
                host: text("host"),
                port: text("port"),
                tls: text("tls"),
                user: text("user"),
                password: fields.raw("password").to_owned(),
                auth: text("auth"),
                connections: text("connections"),
                messages: text("messages"),
                age_secs: text("age_secs"),
                pipelining: text("pipelining"),
                chunking: text("chunking"),
                dsn: text("dsn"),
                helo: text("helo"),
                connect_secs: text("connect_secs"),
                banner_secs: text("banner_secs"),
                verify: text("verify"),
                rate: None,
            },
            has_password: stored
                .and_then(|relay| RelayParts::of(&relay.spec.url).ok())
                .is_some_and(|parts| !parts.user.is_empty()),
            weight: text("weight"),
            limits: LimitTexts {
                per_sec: text("per_sec"),
                per_hour: text("per_hour"),
                per_day: text("per_day"),
            },
            lanes: typed_lanes(fields),
            warm_up: WarmUpTexts {
                started_at: text("warm_up_started_at"),
                start_per_day: text("warm_up_start_per_day"),
                factor: text("warm_up_factor"),
                ceiling_per_day: text("warm_up_ceiling_per_day"),
            },
            quiet: QuietTexts {
                from: text("quiet_hours_from"),
                until: text("quiet_hours_until"),
                time_zone: text("quiet_hours_time_zone"),
            },
            problems: Problems::default(),
        }
    }

    /// Room for more destinations than there are.
    fn with_room(mut self) -> Self {
        let room = (self.lanes.len() + LANES_SPARE).min(LANES_MAX);
        self.lanes.resize(room.max(self.lanes.len()), LaneTexts::default());
        self
    }

    /// What is said, if all of it can be; what cannot is noted.
    fn read(&mut self, stored: Option<&Relay>) -> Option<RelaySpec> {
        let mut problems = Problems::default();
        let url = self.p.to_url(stored.map(|relay| relay.spec.url.as_str()));
        if let Err(wrong) = &url {
            wrong
                .iter()
                .for_each(|(part, why)| problems.add(*part, format::sentence(why)));
        }
        let weight = match self.weight.as_str() {
            "" => Some(1),
            text => {
                let read = text
                    .parse()
                    .map_err(|_| format!("'{}' is no whole number from 0 to 100.", short(text)));
                problems.take("weight", read)
            }
        };
        let lanes = self
            .lanes
            .iter()
            .enumerate()
            .map(|(n, lane)| lane.read(n, &mut problems))
            .collect();
        let spec = RelaySpec {
            weight: weight.unwrap_or(1),
            limits: self.limits.read("", &mut problems),
            lanes,
            warm_up: self.warm_up.read(&mut problems),
            quiet_hours: self.quiet.read(&mut problems),
            ..RelaySpec::of(url.unwrap_or_default())
        };
        if let Err((pointer, why)) = spec.check() {
            let field = field_of(&pointer);
            if problems.of(&field).is_none() {
                problems.add(field, format::sentence(&why));
            }
        }
        let is_clear = problems.is_empty();
        self.problems = problems;
        is_clear.then_some(spec)
    }

    fn problem(&self, field: &str) -> bool {
        self.problems.of(field).is_some()
    }

    /// Whether a part that is folded in says something, or is wrong.
    fn shows_lanes(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_empty()) || self.problem("lanes")
    }

    fn shows_warm_up(&self) -> bool {
        !self.warm_up.start_per_day.is_empty() || self.problems.any_under("warm_up_")
    }

    fn shows_quiet(&self) -> bool {
        !self.quiet.from.is_empty() || self.problems.any_under("quiet_hours_")
    }

    fn shows_more(&self) -> bool {
        let usual = RelayParts::fresh();
        let said = |p: &RelayParts| {
            [
                &p.messages,
                &p.age_secs,
                &p.pipelining,
                &p.chunking,
                &p.dsn,
                &p.helo,
                &p.connect_secs,
                &p.banner_secs,
                &p.verify,
            ]
            .map(Clone::clone)
        };
        said(&self.p) != said(&usual)
    }
}

/// The field that a pointer into a description means: `lanes/0/limits/per_sec` is `lanes_0_per_sec`.
fn field_of(pointer: &str) -> String {
    pointer.replace("limits/", "").replace('/', "_")
}

pub async fn new(signed: SignedIn, State(state): State<WebState>) -> Response {
    form_page(&signed, &state, RelayForm::fresh())
}

pub async fn create(
    signed: SignedIn,
    State(state): State<WebState>,
    Form(fields): Form<Fields>,
) -> Result<Response, UiError> {
    let mut form = RelayForm::typed(&fields, None);
    let spec = form.read(None);
    let name = form.name.clone();
    match check_name(&name) {
        Err(_) if name.is_empty() => form
            .problems
            .add("name", "A name is needed: a short word, such as primary."),
        Err(why) => form.problems.add("name", format::sentence(&why)),
        Ok(()) if state.store.relay(&name).await?.is_some() => {
            let why = format!("There is a relay {name} already. Change that one, or use another name.");
            form.problems.add("name", why);
        }
        Ok(()) => {}
    }
    store(&signed, &state, form, spec, "created").await
}

pub async fn edit(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(name): Path<String>,
) -> Result<Response, UiError> {
    let relay = relays::find(&*state.store, &name).await?;
    Ok(form_page(&signed, &state, RelayForm::of(&relay)))
}

pub async fn save(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(name): Path<String>,
    Form(fields): Form<Fields>,
) -> Result<Response, UiError> {
    let stored = relays::find(&*state.store, &name).await?;
    let mut form = RelayForm::typed(&fields, Some(&stored));
    let spec = form.read(Some(&stored));
    store(&signed, &state, form, spec, "saved").await
}

async fn store(
    signed: &SignedIn,
    state: &WebState,
    mut form: RelayForm,
    spec: Option<RelaySpec>,
    note: &str,
) -> Result<Response, UiError> {
    let Some(spec) = spec.filter(|_| form.problems.is_empty()) else {
        return Ok(form_page(signed, state, form));
    };
    match relays::put(&*state.store, &form.name, spec, state.clock.now()).await {
        Ok(relay) => Ok(Redirect::to(&format!("/relays/{}?note={note}", relay.name)).into_response()),
        Err(RelayError::Wrong(wrong)) => {
            let field = match wrong.field.as_str() {
                "url" => "host".to_owned(),
                pointer => field_of(pointer),
            };
            form.problems.add(field, format::sentence(&wrong.detail));
            Ok(form_page(signed, state, form))
        }
        Err(e) => Err(e.into()),
    }
}

/// What was typed as a password stays out of the page.
fn form_page(signed: &SignedIn, state: &WebState, mut form: RelayForm) -> Response {
    form.p.password.clear();
    let status = match form.problems.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let page = FormPage {
        chrome: Chrome::new(signed, Section::Relays),
        is_configured: form.stored.as_deref().is_some_and(|name| is_configured(state, name)),
        f: form.with_room(),
    };
    (status, page).into_response()
}
