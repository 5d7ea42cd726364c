//! What goes wrong on a page, as a page. Never shows what is wrong inside: that is in the log.

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};

use crate::store::StoreError;

#[derive(Debug)]
pub enum UiError {
    /// There is no such thing, or no longer.
    NotFound,
    /// The browser says that another site made it send this.
    CrossSite,
    /// What was asked for is not possible; the sentence says why.
    Refused(String),
    /// The body is longer than it may be.
    TooLarge,
    /// Neither address nor body are what a browser sends from a page of ours.
    Unreadable,
    /// The address is of a form, and somebody opened it.
    WrongMethod,
    Store(StoreError),
    /// A page could not be put together: a mistake of ours.
    Broken(String),
}

impl From<StoreError> for UiError {
    fn from(error: StoreError) -> Self {
        UiError::Store(error)
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    code: u16,
    title: &'static str,
    text: String,
}

impl UiError {
    fn page(&self) -> (StatusCode, &'static str, String) {
        match self {
            UiError::NotFound => (
                StatusCode::NOT_FOUND,
                "There is nothing here",
                "The address may be mistyped, or what it named has been deleted.".to_owned(),
            ),
            UiError::CrossSite => (
                StatusCode::FORBIDDEN,
                "This request came from another site",
                "Nothing was changed. If you did this yourself, go back, load the page anew and try again. Behind \
                 a proxy, the Host and Origin headers must be passed on unchanged."
                    .to_owned(),
            ),
            UiError::Refused(why) => (StatusCode::CONFLICT, "That is not possible", why.clone()),
            UiError::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "That is too much at once",
                "Nothing was changed. Go back: what you typed is still in the form. Give less of it at once."
                    .to_owned(),
            ),
            UiError::Unreadable => (
                StatusCode::BAD_REQUEST,
                "This request cannot be read",
                "Nothing was changed. Go back, load the page anew and try again.".to_owned(),
            ),
            UiError::WrongMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                "There is no page at this address",
                "The address belongs to a form. Nothing was changed.".to_owned(),
            ),
            UiError::Store(StoreError::Conflict(why)) => {
                (StatusCode::CONFLICT, "That is not possible now", why.clone())
            }
            UiError::Store(e) if e.is_transient() => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The database does not answer",
                "Nothing was changed. Try again in a moment.".to_owned(),
            ),
            UiError::Store(_) | UiError::Broken(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something is wrong on our side",
                "It has been noted in the log.".to_owned(),
            ),
        }
    }
}

/// What the framework refuses by itself ends on a bare line, or on nothing at all: here it becomes a page.
pub async fn as_page(answer: Response) -> Response {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_bare = kind.is_none_or(|kind| kind.starts_with("text/plain"));
    if !is_bare || !answer.status().is_client_error() {
        return answer;
    }
    let error = match answer.status() {
        StatusCode::PAYLOAD_TOO_LARGE => UiError::TooLarge,
        StatusCode::METHOD_NOT_ALLOWED => UiError::WrongMethod,
        StatusCode::NOT_FOUND => UiError::NotFound,
        _ => UiError::Unreadable,
    };
    let allow = answer.headers().get(ALLOW).cloned();
    let mut page = error.into_response();
    page.headers_mut().extend(allow.map(|methods| (ALLOW, methods)));
    page
}

impl IntoResponse for UiError {
    fn into_response(self) -> Response {
        match &self {
            UiError::Store(e) => tracing::error!(error = %e, "A page could not be read from the store"),
            UiError::Broken(e) => tracing::error!(error = %e, "A page could not be rendered"),
            UiError::NotFound
            | UiError::CrossSite
            | UiError::Refused(_)
            | UiError::TooLarge
            | UiError::Unreadable
            | UiError::WrongMethod => {}
        }
        let (code, title, text) = self.page();
        let page = ErrorPage {
            code: code.as_u16(),
            title,
            text,
        };
        let body = page.render().unwrap_or_else(|_| title.to_owned());
        (code, Html(body)).into_response()
    }
}
