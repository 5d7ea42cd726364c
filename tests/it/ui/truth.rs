//! Sentences and numbers of the pages, held against what is stored; and what somebody typed, which no refusal throws away.

use hikyaku::clock::Clock as _;
use hikyaku::domain::message::{MessageStatus, Outcome};
use hikyaku::web::ui::format::{count, time};
use reqwest::StatusCode;

use super::app::{App, EMAIL, PASSWORD, address, location, outcome, sent};
use super::webdriver::Browser;
use crate::support::database::fresh_sqlite;

/// Of each ten messages one is refused, two are deferred in one way and one in another; one is in doubt.
fn mixed(i: usize, next_at: hikyaku::domain::time::Timestamp) -> Outcome {
    use MessageStatus::{Deferred, Failed, Uncertain};
    let later = |o: Outcome| Outcome {
        next_at: Some(next_at),
        ..o
    };
    match i % 10 {
        0 => outcome(Failed, "invalid_recipient", 550, "5.1.1", "no such user"),
        1 | 2 => later(outcome(Deferred, "rate_limited", 421, "4.7.0", "too many")),
        3 => later(outcome(Deferred, "mailbox_full", 452, "4.2.2", "full")),
        4 => outcome(Uncertain, "no_reply", 0, "", "the connection was lost"),
        _ => sent(),
    }
}

#[tokio::test]
async fn groups_tabs_and_tiles_of_one_look_agree() {
    for app in App::both().await {
        app.sign_in().await;
        // Far more of one status than any page holds, and than were once looked at.
        let id = app.broadcast("Autumn letter", 4_000).await;
        let later = app.clock.now().plus_ms(3_600_000);
        for (delivered, chunks) in [(3_000, 3), (4_000, 1)] {
            app.deliver(chunks, |i| mixed(i, later)).await;
            let live = app.page(&format!("/broadcasts/{id}/progress?status=deferred")).await;
            let page = app.page(&format!("/broadcasts/{id}?status=deferred")).await;
            for shown in [&live, &page] {
                for (status, n) in [
                    ("failed", delivered / 10),
                    ("deferred", delivered * 3 / 10),
                    ("uncertain", delivered / 10),
                ] {
                    let tab = format!("{status} <span class=\"n\">{}</span>", count(&n));
                    assert!(shown.contains(&tab), "{tab}: {shown}");
                    let tile = format!("<span class=\"value\">{}</span>", count(&n));
                    assert!(shown.contains(&tile), "{tile}: {shown}");
                }
                for (class, n) in [
                    ("rate limited", delivered / 5),
                    ("mailbox full", delivered / 10),
                    ("no reply", delivered / 10),
                ] {
                    let row = shown
                        .split("<tr>")
                        .find(|row| row.contains(class) && row.contains("class=\"num\""));
                    let row = row.unwrap_or_else(|| panic!("{class}: {shown}"));
                    assert!(row.contains(&format!("<td class=\"num\">{}</td>", count(&n))), "{class}: {row}");
                }
                assert!(!shown.contains("grouped from the first"), "{shown}");
            }
            assert!(live.contains("<template data-part=\"groups\">") && live.contains("<template data-part=\"rows\">"));
        }
    }
}

#[tokio::test]
async fn a_canceled_broadcast_stands_at_what_was_sent() {
    for app in App::both().await {
        app.sign_in().await;
        let id = app.broadcast("Autumn letter", 4_000).await;
        app.deliver(1, |_| sent()).await;
        let answer = app.post(&format!("/broadcasts/{id}/cancel"), &[]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let page = app.page(&format!("/broadcasts/{id}")).await;
        assert!(
            page.contains("1,000 of 4,000 sent") && page.contains("<span class=\"value\">25.0 %</span>"),
            "{page}"
        );
        assert!(!page.contains("100 %"), "{page}");
        let list = app.page("/broadcasts").await;
        assert!(list.contains("1,000 of 4,000") && !list.contains("4,000 of 4,000"), "{list}");
    }
}

#[tokio::test]
async fn a_subject_is_shown_as_it_is_read() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    app.contacts(3).await;
    let source = "A few words for you, {{ name|default(\"friend\") }}";
    let id = app.broadcast(source, 3).await;
    let message = app.store.message_to(&id, &address(0)).await.unwrap().unwrap();
    for path in [
        format!("/broadcasts/{id}"),
        format!("/broadcasts/{id}/cancel"),
        format!("/messages/{}", message.id),
        "/broadcasts".to_owned(),
        "/workers".to_owned(),
    ] {
        let page = app.page(&path).await;
        assert!(page.contains("A few words for you, friend") && !page.contains("{{"), "{path}: {page}");
    }
}

#[tokio::test]
async fn a_person_who_left_is_not_said_to_have_left_when_they_came() {
    use hikyaku::domain::contact::SuppressionReason;
    for app in App::both().await {
        app.sign_in().await;
        app.contacts(1).await;
        let came = time(&app.clock.now()).0;
        app.clock.advance_ms(7_200_000);
        let left = time(&app.clock.now()).0;
        app.store
            .suppress(&[address(0)], SuppressionReason::Unsubscribed, "link", app.clock.now())
            .await
            .unwrap();
        let page = app.page(&format!("/find?email={}", address(0))).await;
        let (contact, suppression) = page.split_once("<dt>Suppression").unwrap();
        assert!(contact.contains("added ") && contact.contains(&came), "{contact}");
        assert!(!contact.contains("since ") && !contact.contains(&left), "{contact}");
        assert!(suppression.contains(&left), "{suppression}");
        assert!(app.page("/contacts").await.contains("Added <span"));
        // Half an address is nobody's.
        let page = app.page("/find?email=anna").await;
        assert!(page.contains("this is no whole address") && !page.contains("may be mailed"), "{page}");
    }
}

#[tokio::test]
async fn what_was_typed_stays_when_it_is_refused() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    let long = "x".repeat(300);
    for (path, form, kept) in [
        (
            "/contacts",
            vec![("email", "anna.example.org"), ("name", "Anna")],
            vec!["anna.example.org", "value=\"Anna\""],
        ),
        (
            "/contacts",
            vec![("email", "anna@example.org"), ("list", "lst_gone")],
            vec!["anna@example.org", "list is deleted"],
        ),
        ("/lists", vec![("list-name", long.as_str())], vec![long.as_str()]),
        (
            "/suppressions",
            vec![("emails", "anna@example.org\nbo.example.org")],
            vec!["anna@example.org\nbo.example.org"],
        ),
        (
            "/contacts/import",
            vec![("csv", "name\nAnna"), ("list", "lst_gone")],
            vec!["name\nAnna", "list is deleted"],
        ),
    ] {
        let answer = app.post(path, &form).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        let page = answer.text().await.unwrap();
        assert!(page.contains("class=\"problem\"") && page.contains("aria-label=\"Main\""), "{path}: {page}");
        for text in kept {
            assert!(page.contains(text), "{path}: {text}: {page}");
        }
    }
    assert!(app.store.contacts(None, None, 10).await.unwrap().rows.is_empty(), "nothing was added");
    assert!(app.store.suppressions(None, 10).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn as_much_as_is_promised_is_imported_and_more_gives_a_page() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    assert!(app.page("/contacts/import").await.contains("Up to 16 MB"));
    // Each line of these is longer in the form by eight bytes; all are one person, so that it does not take long.
    let line = "anna@example.org,\"A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q\"\n";
    let most = 16 * 1024 * 1024 / line.len() - 10;
    let answer = app
        .post("/contacts/import", &[("csv", &format!("email,name\n{}", line.repeat(most)))])
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.text().await.unwrap().contains("gave 1 new contact"));

    for times in [2, 6] {
        let answer = app
            .post("/contacts/import", &[("csv", &line.repeat(most * times))])
            .await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let page = answer.text().await.unwrap();
        assert!(page.contains("longer than 16 MB") && page.contains("aria-label=\"Main\""), "{times}: {page}");
    }
    // Every other form has a page for it too.
    let answer = app.post("/suppressions", &[("emails", &"x".repeat(3_000_000))]).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text().await.unwrap().contains("too much at once"));
}

#[tokio::test]
async fn whatever_the_framework_refuses_is_a_page() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    for (path, status) in [
        ("/broadcasts/%FF", StatusCode::BAD_REQUEST),
        ("/lists", StatusCode::METHOD_NOT_ALLOWED),
        ("/nowhere", StatusCode::NOT_FOUND),
    ] {
        let answer = app.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers().contains_key("allow"), status == StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let page = answer.text().await.unwrap();
        assert!(page.contains("<h1>") && page.contains("To the broadcasts"), "{path}: {page}");
    }
    let later = [("when", "later"), ("send_at", "")];
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(later)
        .finish();
    let page = app.get(&format!("/send/confirm?{query}")).await.text().await.unwrap();
    assert!(!page.contains("&#39;&#39; is not a date"), "{page}");
}

#[tokio::test]
async fn a_refusal_at_the_last_press_keeps_what_was_chosen() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    app.contacts(3).await;
    let template = app.template("October", "Hello").await;
    app.template("November", "Hello").await;
    app.store.delete_template(&template).await.unwrap();
    let form = [
        ("template", template.as_str()),
        ("from_email", "news@example.org"),
        ("reply_to", "answers@example.org"),
        ("audience", "all"),
        ("when", "now"),
        ("key", "k1"),
    ];
    let answer = app.post("/send", &form).await;
    assert_eq!((answer.status(), location(&answer)), (StatusCode::CONFLICT, ""));
    let page = answer.text().await.unwrap();
    assert!(page.contains("Nothing was sent") && page.contains("answers@example.org"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_live_page_move_together() {
    let app = App::start(fresh_sqlite()).await;
    let b = Browser::start().await;
    b.open(&app.setup_link().await).await;
    b.fill("#email", EMAIL).await;
    b.fill("#password", PASSWORD).await;
    b.press("button[type=submit]").await;
    let id = app.broadcast("Autumn letter", 4_000).await;
    let later = app.clock.now().plus_ms(3_600_000);
    b.open(&format!("{}/broadcasts/{id}", app.base)).await;
    for failed in ["100", "200", "300"] {
        app.deliver(1, |i| mixed(i, later)).await;
        let begun = std::time::Instant::now();
        let seen = loop {
            let seen = b.texts(&["#tile-failed .value", "#rows nav", "#groups tbody"]).await;
            if seen[0] == failed {
                break seen;
            }
            assert!(begun.elapsed().as_secs() < 20, "the page stands still before {failed}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        // At the very moment at which the card shows it.
        assert!(seen[1].contains(&format!("failed {failed}")), "{seen:?}");
        assert!(seen[2].lines().any(|line| line.trim().starts_with(failed)), "{seen:?}");
    }
    b.shoot("30-live").await;
    b.close().await;
}
