//! Who gets in, and how.

use reqwest::StatusCode;
use reqwest::header::{ORIGIN, SET_COOKIE};

use super::app::{App, EMAIL, PASSWORD, browser, location};
use crate::support::database::fresh_sqlite;

/// Every address that shows or changes something, with made-up ids.
const PAGES: [&str; 24] = [
    "/broadcasts",
    "/broadcasts/rows",
    "/broadcasts/brd_00000000000000000000000000",
    "/broadcasts/brd_00000000000000000000000000/progress",
    "/broadcasts/brd_00000000000000000000000000/messages.csv",
    "/broadcasts/brd_00000000000000000000000000/find?email=a",
    "/broadcasts/brd_00000000000000000000000000/cancel",
    "/messages/msg_0000000000000000",
    "/send",
    "/send/confirm",
    "/templates",
    "/templates/new",
    "/templates/tpl_00000000000000000000000000",
    "/templates/tpl_00000000000000000000000000/preview",
    "/campaigns",
    "/campaigns/new",
    "/campaigns/cmp_00000000000000000000000000",
    "/contacts",
    "/contacts/import",
    "/suppressions",
    "/find",
    "/workers",
    "/workers/now",
    "/mailbox/1/html",
];

const FORMS: [&str; 21] = [
    "/broadcasts/brd_00000000000000000000000000/pause",
    "/broadcasts/brd_00000000000000000000000000/resume",
    "/broadcasts/brd_00000000000000000000000000/cancel",
    "/send",
    "/templates",
    "/templates/preview",
    "/templates/tpl_00000000000000000000000000",
    "/templates/tpl_00000000000000000000000000/delete",
    "/campaigns",
    "/campaigns/cmp_00000000000000000000000000/pause",
    "/campaigns/cmp_00000000000000000000000000/resume",
    "/campaigns/cmp_00000000000000000000000000/run",
    "/campaigns/cmp_00000000000000000000000000/delete",
    "/contacts",
    "/contacts/delete",
    "/contacts/import",
    "/lists",
    "/lists/lst_00000000000000000000000000/delete",
    "/suppressions",
    "/suppressions/remove",
    "/jobs/1/release",
];

#[tokio::test]
async fn a_stranger_is_sent_to_the_login_from_everywhere() {
    let app = App::start(fresh_sqlite()).await;
    for path in PAGES {
        let answer = app.get(path).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
        assert!(location(&answer).starts_with("/login?next=%2F"), "{path}: {}", location(&answer));
    }
    for path in FORMS {
        let answer = app
            .post(path, &[("email", "a@example.org"), ("csv", "a@example.org")])
            .await;
        assert_eq!((answer.status(), location(&answer)), (StatusCode::SEE_OTHER, "/login"), "{path}");
    }
    assert_eq!(app.store.count_subscribed(None).await.unwrap(), 0, "nothing was changed");
}

#[tokio::test]
async fn the_set_up_link_works_once() {
    for app in App::both().await {
        let void = app.setup_link().await;
        let link = app.setup_link().await;
        let token_of = |link: &str| link.split_once("token=").unwrap().1.to_owned();
        let path = format!("/setup?token={}", token_of(&link));
        assert!(app.page(&path).await.contains("Make the first user"));
        assert_eq!(app.get(&format!("/setup?token={}", token_of(&void))).await.status(), StatusCode::CONFLICT);

        let token = token_of(&link);
        let form = [("token", token.as_str()), ("email", EMAIL), ("password", PASSWORD)];
        let short = app.post("/setup", &[form[0], form[1], ("password", "short")]).await;
        assert_eq!(short.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let answer = app.post("/setup", &form).await;
        assert_eq!((answer.status(), location(&answer)), (StatusCode::SEE_OTHER, "/broadcasts"));
        assert!(app.page("/broadcasts").await.contains(EMAIL), "signed in by it");

        assert_eq!(app.get(&path).await.status(), StatusCode::CONFLICT);
        assert_eq!(app.post("/setup", &form).await.status(), StatusCode::CONFLICT);
        assert_eq!(hikyaku::web::session::setup_link(&app.state).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_password_opens_the_page_that_was_asked_for() {
    for app in App::both().await {
        app.sign_in().await;
        let cookie = app.client.post(format!("{}/logout", app.base)).send().await.unwrap();
        assert!(cookie.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
        assert_eq!(app.get("/workers").await.status(), StatusCode::SEE_OTHER, "signed out");

        let right = [
            ("email", " Owner@example.org"),
            ("password", PASSWORD),
            ("next", "/workers"),
        ];
        let answer = app.post("/login", &right).await;
        assert_eq!((answer.status(), location(&answer)), (StatusCode::SEE_OTHER, "/workers"));
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
        assert!(app.page("/workers").await.contains("What runs where"));

        let elsewhere = [right[0], right[1], ("next", "//evil.example/")];
        assert_eq!(location(&app.post("/login", &elsewhere).await), "/");
    }
}

#[tokio::test]
async fn a_session_ends_after_two_weeks() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    app.clock.advance_ms(hikyaku::web::session::SESSION_MS - 1);
    app.page("/broadcasts").await;
    app.clock.advance_ms(1);
    assert_eq!(app.get("/broadcasts").await.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn guessing_is_answered_the_same_for_everybody_and_then_not_at_all() {
    let mut stranger = App::start(fresh_sqlite()).await;
    stranger.sign_in().await;
    stranger.client = browser();
    let wrong = |email: &'static str| [("email", email), ("password", "not this one")];
    let known = stranger.post("/login", &wrong(EMAIL)).await;
    let unknown = stranger.post("/login", &wrong("nobody@example.org")).await;
    assert_eq!(known.status(), unknown.status());
    let (known, unknown) = (known.text().await.unwrap(), unknown.text().await.unwrap());
    assert_eq!(known.replace(EMAIL, ""), unknown.replace("nobody@example.org", ""));
    for _ in 0..9 {
        assert_eq!(stranger.post("/login", &wrong(EMAIL)).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    let right = [("email", EMAIL), ("password", PASSWORD)];
    assert_eq!(stranger.post("/login", &right).await.status(), StatusCode::TOO_MANY_REQUESTS);
    stranger.clock.advance_ms(15 * 60 * 1_000);
    assert_eq!(stranger.post("/login", &right).await.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_form_that_another_site_sends_is_refused() {
    for app in App::both().await {
        app.sign_in().await;
        let send = |name: &'static str, value: String| {
            app.client
                .post(format!("{}/suppressions", app.base))
                .header(name, value)
                .form(&[("emails", "anna@example.org")])
                .send()
        };
        let foreign = send(ORIGIN.as_str(), "https://evil.example".into()).await.unwrap();
        assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
        assert!(foreign.text().await.unwrap().contains("came from another site"));
        assert_eq!(send("sec-fetch-site", "cross-site".into()).await.unwrap().status(), StatusCode::FORBIDDEN);
        assert!(app.store.suppression("anna@example.org").await.unwrap().is_none());

        assert_eq!(send(ORIGIN.as_str(), app.base.clone()).await.unwrap().status(), StatusCode::SEE_OTHER);
        assert!(app.store.suppression("anna@example.org").await.unwrap().is_some());
    }
}
