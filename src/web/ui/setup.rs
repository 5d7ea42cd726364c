//! The first user, by a link that was printed at the start and works once.

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};

use super::error::UiError;
use super::form::Fields;
use crate::domain::address::EmailAddress;
use crate::web::WebState;
use crate::web::session::{self, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN};

#[derive(Template, WebTemplate)]
#[template(path = "setup.html")]
struct SetupPage {
    token: String,
    email: String,
    problem: Option<String>,
    password_chars_min: usize,
}

pub async fn show(State(state): State<WebState>, Query(query): Query<Fields>) -> Result<Response, UiError> {
    let token = query.text("token");
    if !session::is_setup_token(&*state.store, token).await? {
        return Err(used_up());
    }
    Ok(page(token, "", None).into_response())
}

pub async fn submit(State(state): State<WebState>, Form(form): Form<Fields>) -> Result<Response, UiError> {
    let (token, typed) = (form.text("token"), form.text("email"));
    if !session::is_setup_token(&*state.store, token).await? {
        return Err(used_up());
    }
    let refuse =
        |problem: String| (StatusCode::UNPROCESSABLE_ENTITY, page(token, typed, Some(problem))).into_response();
    let email = match EmailAddress::parse(typed) {
        Ok(email) => email.normalised(),
        Err(why) => return Ok(refuse(format!("E-mail address: {why}."))),
    };
    let password = form.raw("password").to_owned();
    if password.chars().count() < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
        return Ok(refuse(format!(
            "Password: at least {PASSWORD_CHARS_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes."
        )));
    }
    let made = session::use_setup_token(&*state.store, token, &email, password, state.clock.now()).await?;
    let user = made.ok_or_else(used_up)?;
    let cookie = session::start(&state, &user).await?;
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to("/broadcasts")).into_response())
}

fn page(token: &str, email: &str, problem: Option<String>) -> SetupPage {
    SetupPage {
        token: token.to_owned(),
        email: email.to_owned(),
        problem,
        password_chars_min: PASSWORD_CHARS_MIN,
    }
}

fn used_up() -> UiError {
    UiError::Refused(
        "This set-up link has been used, or a later start printed a newer one. If there is a user already, sign \
         in; if not, start the service again and take the link it prints."
            .to_owned(),
    )
}
