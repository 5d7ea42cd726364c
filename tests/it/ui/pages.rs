//! What the pages say, and what they keep from being said.

use hikyaku::domain::message::{MessageStatus, Outcome};
use reqwest::StatusCode;
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};

use super::app::{App, address, location, outcome, sent};
use crate::support::database::fresh_sqlite;

const HOSTILE: &str = "<img src=x onerror=alert(1)> mailbox 'x' & \"y\" unavailable";

fn refused(_: usize) -> Outcome {
    outcome(MessageStatus::Failed, "invalid_recipient", 550, "5.1.1", HOSTILE)
}

#[tokio::test]
async fn a_hostile_reply_is_shown_as_text() {
    for app in App::both().await {
        app.sign_in().await;
        let id = app.broadcast("<script>alert('subject')</script>", 3).await;
        app.deliver(1, refused).await;
        let message = app.store.message_to(&id, &address(0)).await.unwrap().unwrap();
        let paths = [
            format!("/broadcasts/{id}"),
            format!("/broadcasts/{id}?status=failed"),
            format!("/messages/{}", message.id),
            format!("/find?email={}", address(0)),
            "/broadcasts".to_owned(),
        ];
        for path in &paths {
            let page = app.page(path).await;
            assert!(!page.contains("<img src=x") && !page.contains("<script>alert"), "{path}");
        }
        let page = app.page(&paths[2]).await;
        assert!(page.contains("&#60;img src=x onerror=alert(1)&#62;"), "{page}");
    }
}

#[tokio::test]
async fn the_status_page_shows_the_sum_that_must_hold() {
    for app in App::both().await {
        app.sign_in().await;
        let id = app.broadcast("Autumn letter", 2_500).await;
        app.deliver(1, |i| if i < 10 { refused(i) } else { sent() }).await;
        let page = app.page(&format!("/broadcasts/{id}")).await;
        for shown in [
            "Nobody is forgotten",
            "2,500 accepted",
            "990 sent",
            "10 failed",
            "1,500 queued",
            "39.6 %",
            "invalid recipient",
        ] {
            assert!(page.contains(shown), "{shown}");
        }
        assert!(page.contains(r#"<noscript><meta http-equiv="refresh""#), "it goes on without JavaScript");
        let fragment = app.page(&format!("/broadcasts/{id}/progress")).await;
        for part in fragment.split("<template data-part=").map(inner) {
            assert!(page.contains(part), "the page includes the very parts of the fragment: {part}");
        }
        assert!(!fragment.contains("data-done"));

        app.deliver(9, |_| sent()).await;
        let fragment = app.page(&format!("/broadcasts/{id}/progress")).await;
        assert!(fragment.contains("data-done") && fragment.contains("2,490 of 2,500 sent"), "{fragment}");
        let page = app.page(&format!("/broadcasts/{id}")).await;
        assert!(page.contains("completed") && !page.contains("data-live") && !page.contains("refresh"));
    }
}

/// What stands within a part of a fragment.
fn inner(part: &str) -> &str {
    let part = part.trim().trim_end_matches("</template>").trim();
    match part.split_once("\">") {
        Some((name, inner)) if name.starts_with('"') => inner,
        _ => part,
    }
}

#[tokio::test]
async fn a_recipient_is_found_with_every_attempt() {
    for app in App::both().await {
        app.sign_in().await;
        let id = app.broadcast("Autumn letter", 20).await;
        app.deliver(1, refused).await;
        let answer = app
            .get(&format!("/broadcasts/{id}/find?email={}", address(7).to_uppercase()))
            .await;
        assert!(location(&answer).starts_with("/messages/msg_"));
        let page = app.page(location(&answer)).await;
        for shown in [
            "Attempt 1",
            "550",
            "5.1.1",
            "invalid recipient",
            "relay-eu",
            &address(7),
        ] {
            assert!(page.contains(shown), "{shown}");
        }
        let answer = app
            .get(&format!("/broadcasts/{id}/find?email=nobody@example.org"))
            .await;
        assert!(app.page(location(&answer)).await.contains("no message to that address"));
        assert!(
            app.page(&format!("/find?email={}", address(7)))
                .await
                .contains("/messages/msg_")
        );
    }
}

#[tokio::test]
async fn a_pause_that_nobody_asked_for_says_why_and_what_to_do() {
    use hikyaku::clock::Clock as _;
    use hikyaku::domain::safety::{Evidence, Pause, PauseKind, Step, Watched};
    for app in App::both().await {
        app.sign_in().await;
        let id = app.broadcast("Autumn letter", 1_100).await;
        app.deliver(1, |_| outcome(MessageStatus::Failed, "auth_policy", 550, "5.7.26", "unauthenticated <mail>"))
            .await;
        let seen = Watched {
            safety: Default::default(),
            canary: None,
            canary_size: 0,
            canary_tried_at: None,
            seen: Default::default(),
            tally: Default::default(),
        };
        let pause = Step::Pause(Pause {
            kind: PauseKind::Refused,
            evidence: Some(Evidence {
                class: "auth_policy".into(),
                failed: 1,
                outcomes: 1,
                percent_max: 5,
                over_all: None,
                concerns_the_rest: true,
                relay: None,
                example: None,
            }),
        });
        assert!(app.store.take_step(&id, &seen, &pause, app.clock.now()).await.unwrap());
        let page = app.page(&format!("/broadcasts/{id}")).await;
        for shown in [
            "the rest would be refused as well",
            "1 of the last 1 messages were refused",
            "unauthenticated &#60;mail&#62;",
            "What to do:",
            "SPF, DKIM and DMARC",
            "I have seen it",
            "?status=failed#messages",
            "Try failed ones again",
        ] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        let answer = app.post(&format!("/broadcasts/{id}/retry"), &[]).await;
        assert!(app.page(location(&answer)).await.contains("are tried again now"));
        let answer = app.post(&format!("/broadcasts/{id}/resume"), &[]).await;
        let page = app.page(location(&answer)).await;
        assert!(!page.contains("What to do:") && page.contains("Resumed."), "{page}");
    }
}

#[tokio::test]
async fn pause_resume_and_cancel_are_buttons() {
    for app in App::both().await {
        app.sign_in().await;
        let id = app.broadcast("Autumn letter", 20).await;
        let press = async |what: &str| {
            let answer = app.post(&format!("/broadcasts/{id}/{what}"), &[]).await;
            assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{what}");
            app.page(location(&answer)).await
        };
        assert!(press("pause").await.contains("paused by owner@example.org"));
        assert!(!press("resume").await.contains("paused by"));
        assert!(
            app.page(&format!("/broadcasts/{id}/cancel"))
                .await
                .contains("<strong>20 messages</strong>")
        );
        assert!(press("cancel").await.contains("Canceled."));
        assert_eq!(app.post(&format!("/broadcasts/{id}/resume"), &[]).await.status(), StatusCode::CONFLICT);
        assert_eq!(app.post("/broadcasts/brd_x/cancel", &[]).await.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn all_messages_are_in_the_csv() {
    for app in App::both().await {
        app.sign_in().await;
        let id = app.broadcast("Autumn letter", 2_345).await;
        app.deliver(1, |i| {
            if i == 0 {
                outcome(MessageStatus::Failed, "x", 550, "5.0.0", "=1+1")
            } else {
                sent()
            }
        })
        .await;
        let answer = app.get(&format!("/broadcasts/{id}/messages.csv")).await;
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/csv; charset=utf-8");
        let csv = answer.text().await.unwrap();
        assert_eq!(csv.lines().count(), 1 + 2_345);
        assert!(csv.starts_with("id,email,name,status") && csv.contains(",'=1+1,"));
        let csv = app.page(&format!("/broadcasts/{id}/messages.csv?status=failed")).await;
        assert_eq!(csv.lines().count(), 2);
    }
}

#[tokio::test]
async fn the_machinery_is_seen() {
    for app in App::both().await {
        app.sign_in().await;
        app.broadcast("Autumn letter", 2_500).await;
        app.hold_a_job().await;
        let page = app.page("/workers").await;
        for shown in ["post-1", "4711", "Jobs running", "Jobs ready", "Autumn letter", "1,840"] {
            assert!(page.contains(shown), "{shown}");
        }
        assert_eq!(app.post("/jobs/1/release", &[]).await.status(), StatusCode::CONFLICT);
    }
}

#[tokio::test]
async fn templates_are_checked_previewed_and_kept() {
    for app in App::both().await {
        app.sign_in().await;
        let bad = [
            ("name", "October"),
            ("subject", "Hi"),
            ("html", "<p>\n{% include 'x' %}"),
        ];
        let answer = app.post("/templates", &bad).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let page = answer.text().await.unwrap();
        assert!(page.contains("html, line 2:") && page.contains("{% include"), "{page}");

        let good = [
            ("name", "October"),
            ("subject", "Hi {{ city }}"),
            ("html", "<p>Dear {{ name }}<script>1</script>"),
        ];
        let answer = app.post("/templates", &good).await;
        let path = location(&answer).split_once('?').unwrap().0.to_owned();
        let answer = app.get(&format!("{path}/preview")).await;
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("sandbox;") && policy.contains("default-src 'none'"), "{policy}");
        assert!(answer.text().await.unwrap().contains("Dear Anna Example"));
        let unsaved = app
            .post("/templates/preview", &[("subject", "x"), ("text", "a < b")])
            .await;
        assert!(unsaved.text().await.unwrap().contains("a &#60; b"));

        app.post(&path, &[("name", "October 2"), good[1], good[2]]).await;
        let page = app.page(&path).await;
        assert!(page.contains("version 2") && page.contains("<code>city</code>"), "{page}");
        app.post(&format!("{path}/delete"), &[]).await;
        assert_eq!(app.get(&path).await.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn people_are_added_imported_listed_and_suppressed() {
    for app in App::both().await {
        app.sign_in().await;
        let answer = app.post("/lists", &[("list-name", "Friends & family")]).await;
        let path = location(&answer).split_once("&note").unwrap().0.to_owned();
        let list = path.split_once("list=").unwrap().1.to_owned();
        app.post("/contacts", &[("email", "Anna@example.org"), ("name", "Anna"), ("list", &list)])
            .await;
        let csv = "email,name,city\nben@example.org,Ben,Ulm\nnobody\nanna@example.org,,\n";
        let page = app
            .post("/contacts/import", &[("csv", csv), ("list", &list)])
            .await
            .text()
            .await
            .unwrap();
        assert!(page.contains("2 lines read, which gave 1 new contact; 1 line left out"), "{page}");
        let page = app.page(&path).await;
        assert!(page.contains("ben@example.org") && page.contains("Friends &#38; family"), "{page}");

        app.post("/suppressions", &[("emails", "ben@example.org\nx@example.org")])
            .await;
        assert!(app.page("/suppressions").await.contains("x@example.org"));
        assert!(app.page("/find?email=ben@example.org").await.contains("manual"));
        app.post("/suppressions/remove", &[("email", "x@example.org")]).await;
        assert!(!app.page("/suppressions").await.contains("x@example.org"));
        app.post("/contacts/delete", &[("email", "anna@example.org"), ("list", &list)])
            .await;
        assert!(!app.page(&path).await.contains("value=\"Anna@example.org\""));
    }
}

#[tokio::test]
async fn pages_are_locked_down_and_never_kept() {
    let app = App::start(fresh_sqlite()).await;
    let answer = app.get("/login").await;
    let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
    let page = answer.text().await.unwrap();
    assert!(!page.contains(" style=") && !page.contains("<script>") && !page.contains("onclick"));

    let style = page
        .split_once("href=\"/static/style.css")
        .unwrap()
        .1
        .split_once('"')
        .unwrap()
        .0;
    let path = format!("/static/style.css{style}");
    let answer = app.get(&path).await;
    assert!(answer.headers()[CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    let tag = answer.headers()[ETAG].clone();
    let again = app
        .client
        .get(format!("{}{path}", app.base))
        .header(IF_NONE_MATCH, tag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(app.get("/static/passwords").await.status(), StatusCode::NOT_FOUND);
}
