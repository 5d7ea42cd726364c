//! Signing in and out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use askama::Template;
use askama_web::WebTemplate;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use axum::{Extension, Form};

use super::error::UiError;
use super::form::Fields;
use super::login_limit::LoginLimit;
use crate::web::WebState;
use crate::web::session;

#[derive(Template, WebTemplate)]
#[template(path = "login.html")]
struct LoginPage {
    email: String,
    next: String,
    problem: Option<&'static str>,
    /// Nobody has an account yet: says where the set-up link is found.
    is_first_run: bool,
}

pub async fn show(State(state): State<WebState>, Query(query): Query<Fields>) -> Result<Response, UiError> {
    let is_first_run = state.store.count_users().await? == 0;
    let next = session::safe_next(query.text("next")).to_owned();
    Ok(LoginPage {
        email: String::new(),
        next,
        problem: None,
        is_first_run,
    }
    .into_response())
}

pub async fn submit(
    State(state): State<WebState>,
    Extension(limit): Extension<Arc<LoginLimit>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    Form(form): Form<Fields>,
) -> Result<Response, UiError> {
    let from: Option<IpAddr> = peer.map(|Extension(ConnectInfo(addr))| addr.ip());
    let email = form.text("email").to_lowercase();
    let next = session::safe_next(form.text("next")).to_owned();
    let refuse = |code, problem| {
        let page = LoginPage {
            email: email.clone(),
            next: next.clone(),
            problem: Some(problem),
            is_first_run: false,
        };
        Ok((code, page).into_response())
    };
    let password = form.raw("password").to_owned();
    if password.len() > session::PASSWORD_BYTES_MAX || email.len() > crate::domain::address::ADDRESS_LEN_MAX {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "Address and password do not belong together.");
    }
    let now = state.clock.now();
    if !limit.allows(from, &email, now) {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "Too many wrong passwords. Wait a quarter of an hour.");
    }
    let Some(user) = session::check_password(&*state.store, &email, password).await? else {
        limit.failed(from, &email, now);
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "Address and password do not belong together.");
    };
    limit.succeeded(from, &email);
    let cookie = session::start(&state, &user).await?;
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to(&next)).into_response())
}

pub async fn logout(State(state): State<WebState>, headers: HeaderMap) -> Result<Response, UiError> {
    let cookie = session::end(&state, &headers).await?;
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to("/login")).into_response())
}
