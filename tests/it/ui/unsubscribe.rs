//! The link in every mail by which somebody leaves.

use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::time::Timestamp;
use hikyaku::domain::token::UnsubscribeToken;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};

use super::app::App;

fn path(app: &App, email: &str) -> String {
    let broadcast = BroadcastId::new(Timestamp(1), 1);
    let token = UnsubscribeToken::mint(&app.state.secret, &broadcast, &EmailAddress::parse(email).unwrap());
    format!("/u/{token}")
}

#[tokio::test]
async fn reading_the_link_changes_nothing_and_posting_to_it_does() {
    for app in App::both().await {
        app.contacts(1).await;
        let email = super::app::address(0);
        let path = path(&app, &email);
        for _ in 0..3 {
            assert!(app.page(&path).await.contains(r#"<form method="post""#));
            let head = app.client.head(format!("{}{path}", app.base)).send().await.unwrap();
            assert_eq!(head.status(), StatusCode::OK);
        }
        assert!(app.store.suppression(&email).await.unwrap().is_none());

        let one_click = app.post(&path, &[("List-Unsubscribe", "One-Click")]).await;
        assert_eq!(one_click.status(), StatusCode::OK, "an answer, not a redirect (RFC 8058 3.2)");
        assert!(one_click.text().await.unwrap().contains("You are unsubscribed"));
        let found = app.store.suppression(&email).await.unwrap().expect("suppressed");
        assert_eq!((found.reason.as_str(), found.source.starts_with("brd_")), ("unsubscribed", true));
        assert_eq!(app.store.count_subscribed(None).await.unwrap(), 0);

        assert_eq!(app.post(&path, &[]).await.status(), StatusCode::OK, "twice is no error");
    }
}

#[tokio::test]
async fn a_wrong_link_tells_nothing() {
    for app in App::both().await {
        let right = path(&app, "anna@example.org");
        let cut = &right[..right.len() - 1];
        let get = app.get(cut).await;
        assert_eq!(get.status(), StatusCode::NOT_FOUND);
        assert_eq!(get.headers()[REFERRER_POLICY], "no-referrer");
        assert_eq!(get.headers()["x-robots-tag"], "noindex");
        assert!(
            get.headers()[CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("default-src 'none'")
        );
        let other = app.post("/u/x", &[]).await;
        assert_eq!(other.status(), StatusCode::NOT_FOUND);
        assert_eq!(get.text().await.unwrap(), other.text().await.unwrap());
        assert!(app.store.suppression("anna@example.org").await.unwrap().is_none());
    }
}
