//! The pages as a person meets them: a browser, a real worker, a real relay. Leaves pictures in
//! `target/screenshots`.

use std::sync::Arc;

use hikyaku::domain::message::{MessageStatus, Outcome, ReplyNote};
use hikyaku::domain::time::Timestamp;
use hikyaku::sink::{Sink, SinkOptions};

use super::app::{App, EMAIL, PASSWORD, address, outcome, sent};
use super::webdriver::Browser;
use crate::support::database::fresh_sqlite;

/// So many that the browser sees it move, and few enough for a test.
const RECIPIENTS: usize = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn somebody_sends_to_all_and_watches_until_every_fate_is_known() {
    let relay = Sink::start(SinkOptions {
        reject_rate: 0.002,
        ..SinkOptions::default()
    })
    .await
    .unwrap();
    let addr = relay.addr();
    let app = App::start_with(fresh_sqlite(), Some(Arc::new(relay))).await;
    let worker = app.start_worker(addr).await;
    let b = Browser::start().await;

    b.open(&app.setup_link().await).await;
    b.shoot("01-setup").await;
    b.fill("#email", EMAIL).await;
    b.fill("#password", PASSWORD).await;
    b.press("button[type=submit]").await;
    b.shoot("02-first-steps").await;

    b.open(&format!("{}/templates/new?starter=announcement", app.base))
        .await;
    b.fill("#name", "Autumn news").await;
    b.press("form .primary").await;
    b.shoot("03-template").await;

    app.contacts(RECIPIENTS).await;
    b.press("a.send-all").await;
    b.fill("#from_name", "The Daily Post").await;
    b.fill("#from_email", "news@example.org").await;
    b.shoot("04-send").await;
    b.press("form .primary").await;
    assert!(b.text("h1").await.contains("5,000 people"));
    b.shoot("05-confirm").await;
    b.press("#confirm").await;

    assert!(b.text(".notice").await.contains("durable"));
    b.shoot("06-on-its-way").await;
    b.wait_for(".badge.sending, .badge.completed").await;
    b.shoot("06-sending").await;
    // The page refreshes itself until the end; nobody loads it anew.
    b.wait_for(".badge.completed").await;
    assert!(b.text(".law").await.contains("5,000 accepted"), "{}", b.text(".law").await);
    b.shoot("07-completed").await;

    b.fill("#find-email", &address(4_711)).await;
    b.press("#find button").await;
    assert!(b.text("h1").await.contains(&address(4_711)));
    b.shoot("08-message").await;
    assert!(b.text(".attempts").await.contains("Attempt 1"));
    b.open(&format!("{}/mailbox", app.base)).await;
    b.shoot("09-mailbox").await;
    b.press("tbody th a").await;
    b.shoot("10-captured").await;
    b.open(&format!("{}/workers", app.base)).await;
    b.shoot("11-workers").await;

    b.close().await;
    worker.cancel();
}

fn without_reply(status: MessageStatus, class: &'static str, text: &str) -> Outcome {
    let reply = ReplyNote {
        text: text.to_owned(),
        ..ReplyNote::default()
    };
    Outcome {
        reply,
        ..outcome(status, class, 0, "", "")
    }
}

/// Some of everything, so that the pictures show it.
fn mixed(i: usize, now: Timestamp) -> Outcome {
    use MessageStatus::{Deferred, Failed, Suppressed, Uncertain};
    match i {
        7 => Outcome {
            possible_duplicate: true,
            ..sent()
        },
        i if i % 97 == 3 => outcome(Failed, "invalid_recipient", 550, "5.1.1", "<anna@example.org>: no such user here"),
        i if i % 241 == 5 => {
            outcome(Failed, "content", 554, "5.7.1", "Message rejected as spam by <script>alert('policy')</script>")
        }
        i if i % 61 == 9 => Outcome {
            next_at: Some(now.plus_ms(300_000)),
            ..outcome(Deferred, "rate_limited", 421, "4.7.0", "Too many messages, try again later")
        },
        i if i % 333 == 1 => without_reply(Uncertain, "no_reply", "the connection was lost after the end of data"),
        i if i % 150 == 2 => without_reply(Suppressed, "suppressed", ""),
        _ => sent(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_sticks_out_of_a_narrow_screen() {
    let app = App::start(fresh_sqlite()).await;
    let now = app.state.clock.now();
    let b = Browser::start().await;
    b.open(&format!("{}/login", app.base)).await;
    b.shoot("20-login").await;
    b.open(&app.setup_link().await).await;
    b.fill("#email", EMAIL).await;
    b.fill("#password", PASSWORD).await;
    b.press("button[type=submit]").await;

    app.contacts(60).await;
    let template = app
        .template("Monthly letter", "News for {{ name|default('you') }}")
        .await;
    let done = app.broadcast("Winter tyres: book your slot", 1_400).await;
    app.deliver(9, |_| sent()).await;
    let id = app
        .broadcast("Autumn letter: what is new, what is gone, and why", 8_640)
        .await;
    app.deliver(4, |i| mixed(i, now)).await;
    app.hold_a_job().await;
    let paused = app.broadcast("Price change from November", 420).await;
    let wish = hikyaku::store::queue::Wish::Pause {
        reason: "paused by owner@example.org".to_owned(),
    };
    app.store.control(&paused, &wish, now).await.unwrap();
    let list = hikyaku::domain::id::ListId::new(now, 1);
    app.store.create_list(&list, "Customers in Cologne", now).await.unwrap();
    app.store
        .suppress(&[address(3)], hikyaku::domain::contact::SuppressionReason::Complaint, "ui", now)
        .await
        .unwrap();
    let failed = app
        .store
        .messages(&id, Some(MessageStatus::Failed), None, 1)
        .await
        .unwrap()
        .rows
        .remove(0);

    let pages = [
        ("21-broadcasts", "/broadcasts".to_owned()),
        ("22-broadcast", format!("/broadcasts/{id}")),
        ("23-failed", format!("/broadcasts/{id}?status=failed")),
        ("24-paused", format!("/broadcasts/{paused}")),
        ("25-completed", format!("/broadcasts/{done}")),
        ("26-cancel", format!("/broadcasts/{id}/cancel")),
        ("27-message", format!("/messages/{}", failed.id)),
        ("28-find", format!("/find?email={}", failed.email)),
        ("29-send", "/send/confirm?template=x&from_email=nobody&audience=lists".to_owned()),
        ("30-templates", "/templates".to_owned()),
        ("31-template", format!("/templates/{template}")),
        ("32-campaigns", "/campaigns".to_owned()),
        (
            "33-campaign-new",
            "/campaigns/new?cron=0+9+*+*+MON&time_zone=Europe/Berlin&from_email=news@example.org".to_owned(),
        ),
        ("34-contacts", "/contacts".to_owned()),
        ("35-import", "/contacts/import".to_owned()),
        ("36-suppressions", "/suppressions".to_owned()),
        ("37-workers", "/workers".to_owned()),
        ("38-error", "/broadcasts/brd_x".to_owned()),
    ];
    for (name, path) in &pages {
        b.open(&format!("{}{path}", app.base)).await;
        b.shoot(name).await;
        assert!(b.overflow(400).await <= 0, "{name} sticks out");
    }
    b.close().await;
}
