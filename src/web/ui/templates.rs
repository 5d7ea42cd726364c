//! Templates: list, write, check, preview. A broadcast copies its template, so an edit never changes
//! one on its way.

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
use super::{format, starter};
use crate::domain::content::Content;
use crate::domain::id::TemplateId;
use crate::store::library::Template as Stored;
use crate::template::{Newsletter, STARTERS, Starter, TemplateError};
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Most characters of a template's or campaign's name: a line in a table.
pub(super) const NAME_CHARS_MAX: usize = 100;

#[derive(Template, WebTemplate)]
#[template(path = "templates.html")]
pub(super) struct TemplatesPage {
    chrome: Chrome,
    templates: Vec<Stored>,
    starters: &'static [Starter],
}

#[derive(Template, WebTemplate)]
#[template(path = "template.html")]
pub(super) struct TemplatePage {
    chrome: Chrome,
    /// `None` while it has not been saved.
    stored: Option<StoredNote>,
    name: String,
    subject: String,
    html: String,
    text: String,
    problem: Option<Problem>,
    variables: Vec<String>,
}

struct StoredNote {
    id: String,
    version: i64,
    updated_at: crate::domain::time::Timestamp,
}

struct Problem {
    /// `name`, `subject`, `html` or `text`.
    field: &'static str,
    sentence: String,
}

impl From<TemplateError> for Problem {
    fn from(e: TemplateError) -> Self {
        Problem {
            field: e.part.as_str(),
            sentence: e.to_string(),
        }
    }
}

pub async fn list(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<TemplatesPage, UiError> {
    Ok(TemplatesPage {
        chrome: Chrome::new(&signed, Section::Templates).noting(query.text("note")),
        templates: state.store.templates().await?,
        starters: &STARTERS,
    })
}

/// An empty template, or one that begins as a copy of a starter.
pub async fn new(signed: SignedIn, Query(query): Query<Fields>) -> TemplatePage {
    let chosen = STARTERS.iter().find(|s| s.name == query.text("starter"));
    let content = chosen.map_or(
        Content {
            subject: String::new(),
            html: None,
            text: None,
        },
        starter::filled,
    );
    page(&signed, None, "", &content, None)
}

pub async fn edit(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
    Query(query): Query<Fields>,
) -> Result<TemplatePage, UiError> {
    let t = read(&state, &id).await?;
    let mut page = page(&signed, Some(&t), &t.name, &t.content, None);
    page.chrome = page.chrome.noting(query.text("note"));
    Ok(page)
}

pub async fn create(
    signed: SignedIn,
    State(state): State<WebState>,
    Form(form): Form<Fields>,
) -> Result<Response, UiError> {
    let id = TemplateId::new(state.clock.now(), fastrand::u128(..));
    put(&signed, &state, &id, None, &form).await
}

pub async fn save(
    signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
    Form(form): Form<Fields>,
) -> Result<Response, UiError> {
    let t = read(&state, &id).await?;
    put(&signed, &state, &t.id, Some(&t), &form).await
}

async fn put(
    signed: &SignedIn,
    state: &WebState,
    id: &TemplateId,
    stored: Option<&Stored>,
    form: &Fields,
) -> Result<Response, UiError> {
    let (name, content) = (form.text("name"), content_of(form));
    let problem = match Newsletter::compile(&content) {
        _ if name.is_empty() || name.chars().count() > NAME_CHARS_MAX => Some(Problem {
            field: "name",
            sentence: format!("A name is needed, of {NAME_CHARS_MAX} characters at most."),
        }),
        Ok(_) if content.subject.is_empty() => Some(Problem {
            field: "subject",
            sentence: "A subject is needed.".to_owned(),
        }),
        Ok(_) => None,
        Err(e) => Some(e.into()),
    };
    if let Some(problem) = problem {
        let page = page(signed, stored, name, &content, Some(problem));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let t = state.store.put_template(id, name, &content, state.clock.now()).await?;
    Ok(Redirect::to(&format!("/templates/{}?note=saved", t.id)).into_response())
}

pub async fn delete(
    _signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<Redirect, UiError> {
    let t = read(&state, &id).await?;
    state.store.delete_template(&t.id).await?;
    Ok(Redirect::to("/templates?note=deleted"))
}

/// The template that an address names.
pub(super) async fn read(state: &WebState, id: &str) -> Result<Stored, UiError> {
    let id: TemplateId = id.parse().map_err(|_| UiError::NotFound)?;
    state.store.template(&id).await?.ok_or(UiError::NotFound)
}

/// The sources as they stand in the form. Browsers send line ends as CR LF.
pub(super) fn content_of(form: &Fields) -> Content {
    let part = |name: &str| {
        let source = form.raw(name).replace("\r\n", "\n");
        (!source.trim().is_empty()).then_some(source)
    };
    Content {
        subject: form.text("subject").to_owned(),
        html: part("html"),
        text: part("text"),
    }
}

fn page(
    signed: &SignedIn,
    stored: Option<&Stored>,
    name: &str,
    content: &Content,
    problem: Option<Problem>,
) -> TemplatePage {
    TemplatePage {
        chrome: Chrome::new(signed, Section::Templates),
        stored: stored.map(|t| StoredNote {
            id: t.id.to_string(),
            version: t.version,
            updated_at: t.updated_at,
        }),
        name: name.to_owned(),
        subject: content.subject.clone(),
        html: content.html.clone().unwrap_or_default(),
        text: content.text.clone().unwrap_or_default(),
        problem,
        variables: Newsletter::compile(content)
            .map(|n| n.variables().to_vec())
            .unwrap_or_default(),
    }
}
