//! The form for a relay: every field as it was typed, judged one by one. A password goes in and never comes out.

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use crate::domain::relay::{LANES_MAX, LaneLimit, Limits, QuietHours, Relay, RelaySpec, WarmUp, check_name};
use crate::pipeline::relays::{self, RelayError, RelayParts};
use crate::web::WebState;
use crate::web::session::SignedIn;
use crate::web::ui::chrome::{Chrome, Section};
use crate::web::ui::error::UiError;
use crate::web::ui::form::{Fields, Problems, parse_time};
use crate::web::ui::format;

/// Empty rows for more destinations at the end of the table.
const LANES_SPARE: usize = 2;
/// By how much a warm-up grows a day when nothing is said: a common advice of providers is half as much again.
const FACTOR_USUAL: &str = "1.5";

#[derive(Template, WebTemplate)]
#[template(path = "relay_form.html")]
struct FormPage {
    chrome: Chrome,
    f: RelayForm,
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

#[derive(Default, Clone)]
struct LimitTexts {
    per_sec: String,
    per_hour: String,
    per_day: String,
}

#[derive(Default, Clone)]
struct LaneTexts {
    lane: String,
    limits: LimitTexts,
    connections: String,
}

#[derive(Default)]
struct WarmUpTexts {
    started_at: String,
    start_per_day: String,
    factor: String,
    ceiling_per_day: String,
}

#[derive(Default)]
struct QuietTexts {
    from: String,
    until: String,
    time_zone: String,
}

fn number(n: Option<impl ToString>) -> String {
    n.map(|n| n.to_string()).unwrap_or_default()
}

impl LimitTexts {
    fn of(limits: Limits) -> Self {
        Self {
            per_sec: number(limits.per_sec),
            per_hour: number(limits.per_hour),
            per_day: number(limits.per_day),
        }
    }

    /// `at` is what stands before the fields' names.
    fn read(&self, at: &str, problems: &mut Problems) -> Limits {
        let mut one = |name: &str, text: &str| whole(&format!("{at}{name}"), text, problems);
        Limits {
            per_sec: one("per_sec", &self.per_sec),
            per_hour: one("per_hour", &self.per_hour),
            per_day: one("per_day", &self.per_day),
        }
    }
}

/// A whole number from 1; nothing typed is none.
fn whole(field: &str, text: &str, problems: &mut Problems) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    match text.replace([',', '_', ' '], "").parse() {
        Ok(n @ 1..) => Some(n),
        _ => {
            problems.add(
                field.to_owned(),
                format!("'{}' is no whole number from 1; leave it empty for no limit.", short(text)),
            );
            None
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

impl LaneTexts {
    fn is_empty(&self) -> bool {
        let Self {
            lane,
            limits,
            connections,
        } = self;
        let all = [lane, &limits.per_sec, &limits.per_hour, &limits.per_day, connections];
        all.iter().all(|text| text.is_empty())
    }

    fn of(lane: &LaneLimit) -> Self {
        Self {
            lane: lane.lane.clone(),
            limits: LimitTexts::of(lane.limits),
            connections: number(lane.connections),
        }
    }

    fn read(&self, n: usize, problems: &mut Problems) -> LaneLimit {
        let field = format!("lanes_{n}_connections");
        let connections = whole(&field, &self.connections, problems).and_then(|n| {
            let fits = u16::try_from(n);
            if fits.is_err() {
                problems.add(field.clone(), format!("{n} connections are too many; use at most {}.", u16::MAX));
            }
            fits.ok()
        });
        LaneLimit {
            lane: self.lane.to_ascii_lowercase(),
            limits: self.limits.read(&format!("lanes_{n}_"), problems),
            connections,
        }
    }
}

impl WarmUpTexts {
    fn of(w: &WarmUp) -> Self {
        Self {
            started_at: w.started_at.to_jiff().strftime("%Y-%m-%d").to_string(),
            start_per_day: w.start_per_day.to_string(),
            factor: w.factor.to_string(),
            ceiling_per_day: w.ceiling_per_day.to_string(),
        }
    }

    /// Nothing is said unless a first day's number is, or anything but the usual factor.
    fn read(&self, problems: &mut Problems) -> Option<WarmUp> {
        let is_said = [&self.started_at, &self.start_per_day, &self.ceiling_per_day]
            .iter()
            .any(|text| !text.is_empty());
        if !is_said {
            return None;
        }
        let mut needed = |name: &'static str, text: &str| match text {
            "" => {
                problems.add(name, "This is needed for a warm-up; empty all three for none.");
                None
            }
            text => whole(name, text, problems),
        };
        let start_per_day = needed("warm_up_start_per_day", &self.start_per_day);
        let ceiling_per_day = needed("warm_up_ceiling_per_day", &self.ceiling_per_day);
        let started_at = match self.started_at.as_str() {
            "" => Err("The first day is needed for a warm-up; empty all three for none.".to_owned()),
            day => {
                let no_day = |_| format!("'{}' is no day, such as 2026-10-01.", short(day));
                parse_time(&format!("{day}T00:00")).map_err(no_day)
            }
        };
        let started_at = problems.take("warm_up_started_at", started_at);
        let factor = self
            .factor
            .replace(',', ".")
            .parse()
            .map_err(|_| format!("'{}' is no factor, such as {FACTOR_USUAL}.", short(&self.factor)));
        Some(WarmUp {
            started_at: started_at?,
            start_per_day: start_per_day?,
            factor: problems.take("warm_up_factor", factor)?,
            ceiling_per_day: ceiling_per_day?,
        })
    }
}

impl QuietTexts {
    fn of(q: &QuietHours) -> Self {
        Self {
            from: q.from.strftime("%H:%M").to_string(),
            until: q.until.strftime("%H:%M").to_string(),
            time_zone: q.time_zone.clone(),
        }
    }

    fn read(&self, problems: &mut Problems) -> Option<QuietHours> {
        if self.from.is_empty() && self.until.is_empty() {
            return None;
        }
        let mut time = |field: &'static str, text: &str| {
            let read = text.parse().map_err(|_| match text {
                "" => "Quiet hours need both times; empty both for none.".to_owned(),
                text => format!("'{}' is no time of day, such as 22:00.", short(text)),
            });
            problems.take(field, read)
        };
        let (from, until) = (time("quiet_hours_from", &self.from), time("quiet_hours_until", &self.until));
        Some(QuietHours {
            from: from?,
            until: until?,
            time_zone: match self.time_zone.as_str() {
                "" => "UTC".to_owned(),
                zone => zone.to_owned(),
            },
        })
    }
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

/// The rows that say anything.
fn typed_lanes(fields: &Fields) -> Vec<LaneTexts> {
    let column = |name: &str| fields.all(name).map(ToOwned::to_owned).collect::<Vec<String>>();
    let columns = [
        column("lane_per_sec"),
        column("lane_per_hour"),
        column("lane_per_day"),
        column("lane_connections"),
    ];
    let rows = fields.all("lane").enumerate().map(|(n, lane)| {
        let [per_sec, per_hour, per_day, connections] = &columns;
        let at = |column: &Vec<String>| column.get(n).cloned().unwrap_or_default();
        LaneTexts {
            lane: lane.to_owned(),
            limits: LimitTexts {
                per_sec: at(per_sec),
                per_hour: at(per_hour),
                per_day: at(per_day),
            },
            connections: at(connections),
        }
    });
    rows.filter(|lane| !lane.is_empty()).take(LANES_MAX + 1).collect()
}

/// The field that a pointer into a description means: `lanes/0/limits/per_sec` is `lanes_0_per_sec`.
fn field_of(pointer: &str) -> String {
    pointer.replace("limits/", "").replace('/', "_")
}

pub async fn new(signed: SignedIn) -> Response {
    form_page(&signed, RelayForm::fresh())
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
    Ok(form_page(&signed, RelayForm::of(&relay)))
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
        return Ok(form_page(signed, form));
    };
    match relays::put(&*state.store, &form.name, spec, state.clock.now()).await {
        Ok(relay) => Ok(Redirect::to(&format!("/relays/{}?note={note}", relay.name)).into_response()),
        Err(RelayError::Wrong(wrong)) => {
            let field = match wrong.field.as_str() {
                "url" => "host".to_owned(),
                pointer => field_of(pointer),
            };
            form.problems.add(field, format::sentence(&wrong.detail));
            Ok(form_page(signed, form))
        }
        Err(e) => Err(e.into()),
    }
}

/// What was typed as a password stays out of the page.
fn form_page(signed: &SignedIn, mut form: RelayForm) -> Response {
    form.p.password.clear();
    let status = match form.problems.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let page = FormPage {
        chrome: Chrome::new(signed, Section::Relays),
        f: form.with_room(),
    };
    (status, page).into_response()
}
