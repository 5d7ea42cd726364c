//! The button that tests a relay: what was said stands on the page, no secret does, and what to do when it failed.

use hikyaku::clock::Clock as _;
use hikyaku::sink::{Act, At, Script, SinkOptions};
use reqwest::StatusCode;

use super::app::App;
use super::relays::{SECRET, relay_at, sink};
use crate::support::database::fresh_sqlite;

#[tokio::test]
async fn a_test_shows_what_was_said_and_no_secret() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    let sink = sink(SinkOptions {
        require_auth: Some(("anna".into(), SECRET.into())),
        ..SinkOptions::default()
    })
    .await;
    relay_at(&app, &sink, &format!("anna:{SECRET}@")).await;
    // The sender is filled in by the page; without a recipient nothing is sent.
    let page = app
        .post("/relays/r/test", &[("from", "news@example.org"), ("to", "")])
        .await;
    let page = page.text().await.unwrap();
    for shown in [
        "It works",
        "Nothing was sent",
        "AUTH PLAIN ***",
        "235 ",
        "EHLO ",
        "QUIT",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains(SECRET) && !page.contains("AGFubmE"), "{page}");
    assert_eq!(sink.sink().stats().accepted, 0);

    for (fields, field, words) in [
        ([("from", ""), ("to", "bo@example.org")], "from", "missing"),
        ([("from", "ops@example.org"), ("to", "bo")], "to", "No @ in"),
        ([("from", "ops"), ("to", "bo@example.org")], "from", "No @ in"),
        ([("from", "ops@example.org"), ("to", "gone@example.org")], "to", "suppressed"),
    ] {
        let reason = hikyaku::domain::contact::SuppressionReason::Manual;
        let gone = ["gone@example.org".to_owned()];
        app.store.suppress(&gone, reason, "ui", app.clock.now()).await.unwrap();
        let answer = app.post("/relays/r/test", &fields).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{fields:?}");
        let page = answer.text().await.unwrap();
        let beside = page.split_once(&format!(r#"id="{field}-problem">"#)).expect(field).1;
        assert!(beside.split_once("</p>").unwrap().0.contains(words), "{page}");
    }
    assert_eq!(sink.sink().stats().accepted, 0);
    let fields = [("from", "ops@example.org"), ("to", "bo@example.org")];
    let page = app.post("/relays/r/test", &fields).await.text().await.unwrap();
    assert!(page.contains("took the message for bo@example.org"), "{page}");
    assert_eq!(sink.sink().stats().accepted, 1);
}

#[tokio::test]
async fn a_test_that_fails_says_what_to_do_and_is_shown_as_text() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    let hostile = b"554 5.7.1 <script>alert(1)</script> go away\r\n".to_vec();
    let script = Script::default().always(At::Banner, Act::Say(hostile));
    let sink = sink(SinkOptions {
        script,
        ..SinkOptions::default()
    })
    .await;
    relay_at(&app, &sink, "").await;
    let page = app.post("/relays/r/test", &[]).await.text().await.unwrap();
    for shown in [
        "It does not work",
        "What to do:",
        "turns this machine away",
        "&#60;script&#62;alert(1)",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains("<script>alert"), "{page}");
}
