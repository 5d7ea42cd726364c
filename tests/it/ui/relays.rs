//! The relays' pages: what is typed is judged field by field, a password goes in and never comes out.

use std::sync::Arc;

use hikyaku::clock::Clock as _;
use hikyaku::domain::finding::FindingKind;
use hikyaku::domain::ledger::Ask;
use hikyaku::domain::relay::RelaySpec;
use hikyaku::sink::{Sink, SinkHandle, SinkOptions};
use hikyaku::smtp::RelayConfig;
use hikyaku::store::findings::Found;
use hikyaku::store::pacing::{RelayAt, Slower};
use reqwest::{Method, StatusCode};

use super::app::{App, CONFIGURED_RELAY, EMAIL, PASSWORD, browser, location};
use super::webdriver::Browser;
use crate::support::database::fresh_sqlite;

pub(super) const SECRET: &str = "hunter2-secret";

/// What is typed otherwise, beside which field a sentence stands, and a part of it.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

/// What the browser sends for a form in which little was filled in.
fn form<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("name", "primary"),
        ("host", "mail.example.org"),
        ("port", ""),
        ("tls", "starttls"),
        ("user", "anna"),
        ("password", SECRET),
        ("auth", "password"),
        ("weight", "1"),
        ("connections", "8"),
    ];
    fields.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    fields.extend(changes);
    fields
}

pub(super) async fn sink(options: SinkOptions) -> SinkHandle {
    Sink::start(options).await.unwrap()
}

/// Stores a relay that is the sink.
pub(super) async fn relay_at(app: &App, sink: &SinkHandle, login: &str) {
    let spec = RelaySpec::of(format!("smtp://{login}127.0.0.1:{}", sink.addr().port()));
    app.store.put_relay("r", &spec, app.clock.now()).await.unwrap();
}

#[tokio::test]
async fn a_relay_is_added_changed_paused_and_removed() {
    for app in App::both().await {
        app.sign_in().await;
        assert!(app.page("/relays").await.contains("There never was a relay"));
        assert!(app.page("/relays/+new").await.contains("New relay"));
        let fields = form(&[
            ("port", "2587"),
            ("weight", "3"),
            ("per_sec", "20"),
            ("per_day", "50,000"),
            ("lane", "Google"),
            ("lane_per_sec", "5"),
            ("lane_connections", "2"),
            ("quiet_hours_from", "22:00"),
            ("quiet_hours_until", "07:00"),
            ("quiet_hours_time_zone", "Europe/Berlin"),
            ("warm_up_started_at", "2026-09-01"),
            ("warm_up_start_per_day", "50"),
            ("warm_up_factor", "1.5"),
            ("warm_up_ceiling_per_day", "40000"),
            ("chunking", "8"),
        ]);
        let answer = app.post("/relays", &fields).await;
        assert_eq!(location(&answer), "/relays/primary?note=created");
        let stored = app.store.relay("primary").await.unwrap().unwrap().spec;
        assert_eq!(stored.url, "smtp://anna:hunter2-secret@mail.example.org:2587?tls=starttls&chunking=8");
        assert_eq!((stored.weight, stored.limits.per_sec, stored.limits.per_day), (3, Some(20), Some(50_000)));
        assert_eq!((stored.lanes[0].lane.as_str(), stored.lanes[0].connections), ("google", Some(2)));

        let page = app.page("/relays/primary").await;
        for shown in [
            "mail.example.org:2587",
            "as anna, PLAIN or LOGIN",
            "20 a second, 50,000 a day",
            "5 a second, 2 connections a worker",
            "22:00 to 07:00 in Europe/Berlin",
            "all mail",
            "(CHUNKING)",
            "Warm-up",
        ] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        let edit = app.page("/relays/primary/edit").await;
        for shown in [
            r#"value="2587""#,
            r#"value="google""#,
            r#"value="22:00""#,
            r#"value="2026-09-01""#,
            "Empty keeps the stored one",
        ] {
            assert!(edit.contains(shown), "{shown}: {edit}");
        }

        let answer = app
            .post("/relays/primary", &form(&[("password", ""), ("tls", "implicit"), ("weight", "0")]))
            .await;
        assert_eq!(location(&answer), "/relays/primary?note=saved");
        let changed = app.store.relay("primary").await.unwrap().unwrap().spec;
        assert_eq!(changed.url, "smtp://anna:hunter2-secret@mail.example.org:465?tls=implicit");
        assert_eq!((changed.weight, changed.lanes.len(), changed.quiet_hours), (0, 0, None), "what is emptied is gone");

        assert!(app.page("/relays/primary/pause").await.contains("all mail waits"));
        let answer = app.post("/relays/primary/pause", &[("reason", "moving <house>")]).await;
        let page = app.page(location(&answer)).await;
        assert!(page.contains("Moving &#60;house&#62;. Since <time") && page.contains("Resume"), "{page}");
        assert!(app.page("/relays").await.contains("moving &#60;house&#62;"));
        let answer = app.post("/relays/primary/resume", &[]).await;
        assert!(app.page(location(&answer)).await.contains("Resumed."));

        assert!(app.page("/relays/primary/remove").await.contains("only relay"));
        let answer = app.post("/relays/primary/remove", &[]).await;
        assert!(
            app.page(location(&answer))
                .await
                .contains("The last relay was removed, so mail waits")
        );
        for path in [
            "/relays/primary",
            "/relays/primary/edit",
            "/relays/primary/pause",
            "/relays/x%2Fy",
        ] {
            assert_eq!(app.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(app.post("/relays/primary/test", &[]).await.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_relay_whose_address_comes_from_the_configuration_says_so() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    for (name, is_told) in [(CONFIGURED_RELAY, true), ("other", false)] {
        let spec = RelaySpec::of("smtp://mail.example.org");
        app.store.put_relay(name, &spec, app.clock.now()).await.unwrap();
        for page in [format!("/relays/{name}"), format!("/relays/{name}/edit")] {
            assert_eq!(app.page(&page).await.contains("HIKYAKU_RELAY_URL"), is_told, "{page}");
        }
    }
    assert!(!app.page("/relays/+new").await.contains("HIKYAKU_RELAY_URL"));
}

#[tokio::test]
async fn what_is_wrong_with_a_relay_stands_beside_its_field() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    let taken = RelaySpec::of("smtp://127.0.0.1");
    app.store.put_relay("taken", &taken, app.clock.now()).await.unwrap();
    let long = "x".repeat(3_000);
    let lane = ("lane", "google");
    let cases: &[Case] = &[
        (&[("name", "")], "name", "A name is needed"),
        (&[("name", "a b")], "name", "letters, digits"),
        (&[("name", "..")], "name", "is no name"),
        (&[("name", "taken")], "name", "There is a relay taken already"),
        (&[("host", "")], "host", "The host is missing"),
        (&[("host", "smtp://mail.example.org")], "host", "alone"),
        (&[("host", "mail.example.org:25")], "host", "port has a field"),
        (&[("host", "<b>")], "host", "is no host name"),
        (&[("port", "66000")], "port", "usually 587"),
        (&[("tls", "none")], "tls", "in clear"),
        (&[("tls", "maybe")], "tls", "starttls"),
        (&[("user", "")], "user", "without a user"),
        (&[("password", "")], "password", "missing"),
        (&[("auth", "guess")], "auth", "xoauth2"),
        (&[("password", long.as_str())], "host", "is the most"),
        (&[("weight", "101")], "weight", "use 0 to 100"),
        (&[("weight", "-1")], "weight", "from 0 to 100"),
        (&[("connections", "0")], "connections", "1 to 1000"),
        (&[("per_sec", "0")], "per_sec", "leave it empty for no limit"),
        (&[("per_hour", "1.5")], "per_hour", "no whole number"),
        (&[("per_day", "99999999999")], "per_day", "no whole number"),
        (&[("lane", "Gmail!")], "lanes_0_lane", "is no lane"),
        (&[lane, ("lane_per_sec", "fast")], "lanes_0_per_sec", "no whole number"),
        (&[lane, ("lane_connections", "70000")], "lanes_0_connections", "65535"),
        (&[("lane", ""), ("lane_per_day", "5")], "lanes_0_lane", "is no lane"),
        (&[("warm_up_start_per_day", "50")], "warm_up_ceiling_per_day", "needed"),
        (&[("warm_up_ceiling_per_day", "50")], "warm_up_started_at", "needed"),
        (&[("warm_up_started_at", "soon"), ("warm_up_factor", "2")], "warm_up_started_at", "is no day"),
        (
            &[
                ("warm_up_started_at", "2026-10-01"),
                ("warm_up_start_per_day", "50"),
                ("warm_up_factor", "1"),
                ("warm_up_ceiling_per_day", "100"),
            ],
            "warm_up_factor",
            "more than 1",
        ),
        (&[("quiet_hours_from", "22:00")], "quiet_hours_until", "both times"),
        (&[("quiet_hours_from", "ten"), ("quiet_hours_until", "07:00")], "quiet_hours_from", "time of day"),
        (
            &[("quiet_hours_from", "07:00"), ("quiet_hours_until", "07:00")],
            "quiet_hours_until",
            "pause the relay",
        ),
        (
            &[
                ("quiet_hours_from", "22:00"),
                ("quiet_hours_until", "07:00"),
                ("quiet_hours_time_zone", "Mars"),
            ],
            "quiet_hours_time_zone",
            "IANA",
        ),
        (&[("messages", "0")], "messages", "whole number"),
        (&[("chunking", "99")], "chunking", "1 to 64"),
        (&[("dsn", "always")], "dsn", "never"),
        (&[("helo", "a\r\nMAIL")], "helo", "host name"),
        (&[("banner_secs", "601")], "banner_secs", "600"),
        (&[("verify", "off")], "verify", "always checked"),
    ];
    for (changes, field, words) in cases {
        let answer = app.post("/relays", &form(changes)).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{changes:?}");
        let page = answer.text().await.unwrap();
        let beside = page.split_once(&format!(r#"id="{field}-problem">"#));
        let sentence = beside
            .unwrap_or_else(|| panic!("nothing beside {field} for {changes:?}: {page}"))
            .1;
        let sentence = sentence.split_once("</p>").unwrap().0;
        assert!(sentence.contains(words), "{changes:?}: {sentence}");
        assert!(page.contains("Nothing was stored") && !page.contains(SECRET), "{changes:?}");
    }
    let many = vec![("lane", "google"); 101];
    let answer = app.post("/relays", &form(&many)).await;
    assert!(answer.text().await.unwrap().contains("101 lanes are too many"));

    let several = form(&[("host", ""), ("weight", "x"), ("per_sec", "0"), ("connections", "y")]);
    let page = app.post("/relays", &several).await.text().await.unwrap();
    assert_eq!(page.matches("class=\"problem\" id=").count(), 4, "all at once: {page}");
    assert_eq!(app.store.relays().await.unwrap().len(), 1, "nothing was stored");
}

#[tokio::test]
async fn a_password_goes_in_and_never_comes_out() {
    for app in App::both().await {
        app.sign_in().await;
        app.post("/relays", &form(&[])).await;
        let elsewhere = form(&[("host", "evil.example"), ("password", "")]);
        let wrong = form(&[("weight", "heavy")]);
        let answers = [
            app.page("/relays").await,
            app.page("/relays/primary").await,
            app.page("/relays/primary/edit").await,
            app.page("/relays/primary/pause").await,
            app.post("/relays/primary", &elsewhere).await.text().await.unwrap(),
            app.post("/relays/primary", &wrong).await.text().await.unwrap(),
        ];
        for page in &answers {
            assert!(!page.contains(SECRET) && !page.contains("***"), "{page}");
        }
        assert!(answers[4].contains("write the password again"), "{}", answers[4]);
        let stored = app.store.relay("primary").await.unwrap().unwrap();
        assert!(stored.version == 1 && stored.spec.url.contains("mail.example.org"), "nothing was changed");

        app.post("/relays/primary", &form(&[("user", ""), ("password", "")]))
            .await;
        let stored = app.store.relay("primary").await.unwrap().unwrap().spec.url;
        assert_eq!(stored, "smtp://mail.example.org:587?tls=starttls", "without a user the password is gone");
    }
}

#[tokio::test]
async fn a_relay_that_a_broadcast_waits_for_is_kept() {
    for app in App::both().await {
        app.sign_in().await;
        app.post("/relays", &form(&[])).await;
        let id = app.broadcast_through("Autumn letter", 5, Some("primary")).await;
        let page = app.page("/relays/primary/remove").await;
        assert!(page.contains("<strong>1 broadcast</strong>") && !page.contains("Remove the relay"), "{page}");
        let answer = app.post("/relays/primary/remove", &[]).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT);
        assert!(answer.text().await.unwrap().contains("no other relay may carry"));
        assert!(app.page("/relays/primary/pause").await.contains("1 broadcast"));
        assert!(app.store.relay("primary").await.unwrap().is_some());

        app.post(&format!("/broadcasts/{id}/cancel"), &[]).await;
        let answer = app.post("/relays/primary/remove", &[]).await;
        assert_eq!(location(&answer), "/relays?note=removed");
    }
}

#[tokio::test]
async fn what_workers_learnt_about_a_relay_is_seen() {
    for app in App::both().await {
        app.sign_in().await;
        app.post("/relays", &form(&[("per_day", "5000")])).await;
        let (id, now) = (app.store.relay("primary").await.unwrap().unwrap().id, app.clock.now());
        let ask = Ask {
            lane: String::new(),
            n: 1_234,
            unused: 0,
            period_us: None,
            per_hour: None,
            per_day: Some(5_000),
        };
        app.store.take_permits(id, &[ask], now).await.unwrap();
        let slower = Slower {
            relay_id: id,
            lane: "",
            reason: "421 4.7.0 <slow> down",
            pause_ms: 0,
            base_us: 1_000,
        };
        app.store.slow_down(&slower, now).await.unwrap();
        let google = Slower {
            lane: "google",
            pause_ms: 60_000,
            ..slower.clone()
        };
        app.store.slow_down(&google, now).await.unwrap();
        for path in ["/relays", "/relays/primary"] {
            let page = app.page(path).await;
            for shown in [
                "slowed",
                "50.0 % of its pace",
                "421 4.7.0 &#60;slow&#62; down",
                "o google",
                "1,234",
            ] {
                assert!(page.contains(shown), "{path}: {shown}: {page}");
            }
        }
        assert!(app.page("/relays/primary").await.contains("Nothing goes there until"));
        app.store
            .relay_failed(RelayAt { id, version: 1 }, "connection refused", 5_000, now)
            .await
            .unwrap();
        let page = app.page("/relays").await;
        assert!(page.contains("failing") && page.contains("connection refused"), "{page}");
    }
}

#[tokio::test]
async fn a_pause_has_a_reason_in_one_line() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    app.post("/relays", &form(&[])).await;
    let long = "x".repeat(500);
    for reason in ["two\nlines", long.as_str()] {
        let answer = app.post("/relays/primary/pause", &[("reason", reason)]).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.text().await.unwrap().contains("1 to 200 bytes"));
    }
    assert_eq!(app.store.relay("primary").await.unwrap().unwrap().paused, None);
    app.post("/relays/primary/pause", &[("reason", " ")]).await;
    let paused = app.store.relay("primary").await.unwrap().unwrap().paused;
    assert_eq!(paused.as_deref(), Some("paused by owner@example.org"), "who, where nothing else is said");
}

#[tokio::test]
async fn only_who_is_signed_in_on_this_site_sees_or_changes_relays() {
    let app = App::start(fresh_sqlite()).await;
    app.sign_in().await;
    app.post("/relays", &form(&[])).await;
    let stranger = browser();
    for path in ["/relays", "/relays/+new", "/relays/primary", "/relays/primary/edit"] {
        let answer = stranger.get(format!("{}{path}", app.base)).send().await.unwrap();
        assert!(location(&answer).starts_with("/login"), "{path}");
        assert!(!answer.text().await.unwrap().contains("mail.example.org"), "{path}");
    }
    for path in [
        "/relays",
        "/relays/primary",
        "/relays/primary/test",
        "/relays/primary/pause",
        "/relays/primary/resume",
        "/relays/primary/remove",
    ] {
        let url = format!("{}{path}", app.base);
        let answer = stranger
            .post(&url)
            .form(&form(&[("weight", "9")]))
            .send()
            .await
            .unwrap();
        assert!(location(&answer).starts_with("/login"), "{path}");
        let from_elsewhere = app
            .client
            .request(Method::POST, &url)
            .header("Sec-Fetch-Site", "cross-site")
            .form(&form(&[("weight", "9")]));
        assert_eq!(from_elsewhere.send().await.unwrap().status(), StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(app.store.relay("primary").await.unwrap().unwrap().version, 1);
}

/// What sending through the relay `primary` has shown.
async fn found(app: &App, kind: FindingKind, value: i64, words: &str) {
    let relay = app.store.relay("primary").await.unwrap().unwrap();
    let address = RelayConfig::parse(&relay.spec.url).unwrap().address();
    let found = Found {
        kind,
        address,
        value: Some(value),
        words: words.into(),
    };
    let at = RelayAt {
        id: relay.id,
        version: relay.version,
    };
    assert!(app.store.write_finding(at, &found, app.clock.now()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_adds_a_relay_tests_it_and_looks_after_it() {
    let relay = sink(SinkOptions {
        require_auth: Some(("anna".into(), SECRET.into())),
        ..SinkOptions::default()
    })
    .await;
    let port = relay.addr().port().to_string();
    let app = App::start_with(fresh_sqlite(), Some(Arc::new(sink(SinkOptions::default()).await))).await;
    let b = Browser::start().await;
    b.open(&app.setup_link().await).await;
    b.fill("#email", EMAIL).await;
    b.fill("#password", PASSWORD).await;
    b.press("button[type=submit]").await;

    b.open(&format!("{}/relays", app.base)).await;
    b.shoot("40-relays-none").await;
    b.press(".page-head .button").await;
    b.shoot("41-relay-new").await;
    b.fill("#name", "primary").await;
    b.fill("#host", "mail.example.org:25").await;
    b.fill("#user", "anna").await;
    b.fill("#password", SECRET).await;
    b.fill("#weight", "heavy").await;
    b.press("#save").await;
    assert!(b.text("#host-problem").await.contains("port has a field"));
    b.shoot("42-relay-wrong").await;
    assert!(b.overflow(400).await <= 0, "the form sticks out");

    b.fill("#host", "127.0.0.1").await;
    b.fill("#port", &port).await;
    b.choose("#tls", "none").await;
    b.fill("#password", SECRET).await;
    b.fill("#weight", "3").await;
    b.fill("#per_sec", "20").await;
    b.fill("#per_day", "50000").await;
    b.press("#save").await;
    assert!(b.text(".notice").await.contains("Created"));
    b.shoot("43-relay").await;
    b.press("#test").await;
    assert!(b.text("#tested-title").await.contains("It works"));
    let said = b.text(".transcript").await;
    assert!(said.contains("AUTH PLAIN ***") && !said.contains(SECRET), "{said}");
    b.shoot("44-relay-test").await;
    assert!(b.overflow(400).await <= 0, "the transcript sticks out");
    b.fill("#to", "bo@example.org").await;
    b.fill("#from", "news@example.org").await;
    b.press("#test").await;
    assert!(b.text(".verdict").await.contains("took the message for bo@example.org"));
    assert_eq!(relay.sink().stats().accepted, 1);
    // What the test found out is kept, and stands among the facts beside what mail has shown.
    found(&app, FindingKind::SessionMessages, 100, "MAIL: 452 4.5.3 Too many messages sent").await;
    b.open(&format!("{}/relays/primary", app.base)).await;
    let facts = b.text(".facts").await;
    assert!(facts.contains("It takes the next message's commands ahead of its reply"), "{facts}");
    assert!(facts.contains("100 messages in one session") && facts.contains("Too many messages sent"), "{facts}");
    b.shoot("44-relay-findings").await;
    assert!(b.overflow(400).await <= 0, "what was found out sticks out");
    b.press("#forget").await;
    assert!(b.text(".notice").await.contains("Forgotten"));
    assert!(!b.text(".facts").await.contains("100 messages"));

    b.press("#pause").await;
    b.shoot("45-relay-pause").await;
    b.fill("#reason", "the provider is moving").await;
    b.press("#confirm").await;
    assert!(b.text(".reason").await.contains("The provider is moving."));

    others(&app).await;
    b.open(&format!("{}/relays", app.base)).await;
    assert!(b.text(".relays").await.contains("the provider is moving"));
    b.shoot("46-relays").await;
    assert!(b.overflow(400).await <= 0, "the list sticks out");
    b.open(&format!("{}/relays/second", app.base)).await;
    b.shoot("47-relay-with-all").await;
    assert!(b.overflow(400).await <= 0, "the page sticks out");
    b.open(&format!("{}/relays/second/edit", app.base)).await;
    b.shoot("48-relay-edit").await;
    assert!(b.overflow(400).await <= 0, "the whole form sticks out");

    b.open(&format!("{}/relays/primary", app.base)).await;
    b.press("#resume").await;
    assert!(b.text(".notice").await.contains("Resumed"));
    b.press("#remove").await;
    b.shoot("49-relay-remove").await;
    b.press("#confirm").await;
    assert!(b.text(".notice").await.contains("Removed"));
    assert!(!b.text(".relays").await.contains("primary"));
    b.close().await;
}

/// A relay about which everything is said, and one that fails.
async fn others(app: &App) {
    let now = app.clock.now();
    let all = serde_json::json!({
        "url": "smtp://news%40example.org:secret@smtp.provider.example:587?tls=starttls&connections=4&chunking=8&dsn=failure,delay&helo=post.example.org",
        "weight": 2,
        "limits": {"per_sec": 50, "per_hour": 20000, "per_day": 200000},
        "lanes": [{"lane": "google", "limits": {"per_sec": 5}, "connections": 2}, {"lane": "*", "limits": {"per_sec": 1}}],
        "warm_up": {"started_at": now, "start_per_day": 500, "factor": 1.5, "ceiling_per_day": 200000},
        "quiet_hours": {"from": "22:00:00", "until": "07:00:00", "time_zone": "Europe/Berlin"},
    });
    let spec: RelaySpec = serde_json::from_value(all).unwrap();
    app.store.put_relay("second", &spec, now).await.unwrap();
    let bare = RelaySpec {
        weight: 0,
        ..RelaySpec::of("smtp://10.0.0.25:25?tls=none")
    };
    app.store.put_relay("fallback.internal", &bare, now).await.unwrap();
}
