//! What a template looks like in a mail program, with made-up data. The answer is somebody's HTML, so it
//! is locked in: no script, no request to anywhere, no form, an origin of its own.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS};
use axum::response::{Html, IntoResponse, Response};

use super::error::UiError;
use super::form::Fields;
use super::templates;
use crate::domain::address::EmailAddress;
use crate::domain::content::Content;
use crate::domain::id::BroadcastId;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::template::{Context, Newsletter, Rendered, Shared, TemplateError};
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Styles may be inline, because mail has no others; images only those that stand in the mail, so that
/// a preview tells nobody that it was looked at.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'; \
                      form-action 'none'; base-uri 'none'";

#[derive(Template)]
#[template(path = "preview_problem.html")]
struct ProblemPage {
    problem: String,
}

/// The saved template.
pub async fn stored(
    _signed: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<Response, UiError> {
    let t = templates::read(&state, &id).await?;
    answer(&t.content)
}

/// The template as it stands in the editor.
pub async fn unsaved(_signed: SignedIn, Form(form): Form<Fields>) -> Result<Response, UiError> {
    answer(&templates::content_of(&form))
}

fn answer(content: &Content) -> Result<Response, UiError> {
    let html = match render(content) {
        Ok(Rendered { html: Some(html), .. }) => html,
        Ok(Rendered { text, .. }) => text_page(&text),
        Err(e) => {
            let page = ProblemPage { problem: e.to_string() };
            page.render().map_err(|e| UiError::Broken(e.to_string()))?
        }
    };
    Ok(locked_in(html))
}

/// Somebody's HTML as an answer that can do nothing, for a frame of ours.
pub(super) fn locked_in(html: String) -> Response {
    let locks = [(CONTENT_SECURITY_POLICY, POLICY), (X_FRAME_OPTIONS, "SAMEORIGIN")];
    (locks, Html(html)).into_response()
}

/// Plain text as a page.
pub(super) fn text_page(text: &str) -> String {
    let text = askama::filters::escape(text, askama::filters::Html).map_or_else(|_| String::new(), |t| t.to_string());
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>Text</title><pre style=\"white-space:pre-wrap\">{text}</pre>"
    )
}

/// Renders with data in which every variable holds its own name.
fn render(content: &Content) -> Result<Rendered, TemplateError> {
    let newsletter = Newsletter::compile(content)?;
    let recipient = Recipient {
        email: EmailAddress::from_stored("anna@example.org".to_owned()),
        name: Some("Anna Example".into()),
        data: None,
    };
    let shared = Shared::new(&BroadcastId::new(Timestamp(0), 0), &newsletter.sample_data().into());
    newsletter.render(&Context::new(&shared, &recipient, "https://example.org/unsubscribe")?)
}
