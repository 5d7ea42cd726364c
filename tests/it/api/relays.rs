//! Relays over the API: what is said reads back without its password, what is wrong is pointed at, and a test shows what was said.

use hikyaku::domain::dkim::{DkimAlgorithm, DkimKey};
use hikyaku::domain::id::DkimKeyId;
use hikyaku::domain::relay::RelaySpec;
use hikyaku::mime::generate_dkim_key;
use hikyaku::sink::{Act, At, Script, Sink, SinkHandle, SinkOptions};
use hikyaku::web::auth::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use super::on_both_databases;
use super::world::{Answer, Api, BEGINNING, letter, send};

on_both_databases!(
    a_relay_is_added_changed_and_removed,
    a_password_is_never_given_back,
    a_url_with_a_mask_keeps_its_password,
    what_is_wrong_with_a_relay_is_pointed_at,
    a_pause_stays_until_it_is_resumed,
    a_relay_that_broadcasts_wait_for_is_kept,
    a_change_is_seen_by_another_process_at_once,
    only_an_admin_sees_or_changes_relays,
);

async fn put(api: &Api, name: &str, body: &Value) -> Answer {
    send(api.request(Method::PUT, &format!("/v1/relays/{name}")).json(body)).await
}

fn full() -> Value {
    json!({
        "url": "smtp://anna:hunter2secret@relay.example.org:587?connections=4&pipelining=off",
        "weight": 3,
        "limits": {"per_sec": 10, "per_day": 5000},
        "lanes": [{"lane": "google", "limits": {"per_hour": 100}, "connections": 2}, {"lane": "*", "limits": {"per_sec": 1}}],
        "warm_up": {"started_at": "2026-09-01T00:00:00.000Z", "start_per_day": 50, "factor": 1.5, "ceiling_per_day": 4000},
        "quiet_hours": {"from": "22:00:00", "until": "07:00:00", "time_zone": "Europe/Berlin"},
    })
}

async fn a_relay_is_added_changed_and_removed(api: Api) {
    let mut body = full();
    body["name"] = json!("primary");
    let answer = api.post("/v1/relays", &body).await;
    assert_eq!(answer.header("location"), Some("/v1/relays/primary"));
    let made = answer.expect(201);
    for field in ["weight", "limits", "lanes", "warm_up", "quiet_hours"] {
        assert_eq!(made[field], body[field], "{field}");
    }
    assert_eq!((&made["status"], &made["version"]), (&json!("active"), &json!(1)));
    assert_eq!(api.get("/v1/relays/primary").await.expect(200), made);
    let problem = api.post("/v1/relays", &body).await.expect(409);
    assert!(problem["detail"].as_str().unwrap().contains("PUT /v1/relays/primary"), "{problem}");

    let changed = put(&api, "primary", &json!({"url": "smtp://127.0.0.1:2525"}))
        .await
        .expect(200);
    assert_eq!((&changed["version"], &changed["weight"]), (&json!(2), &json!(1)), "what is left out is gone");
    assert_eq!((&changed["lanes"], &changed["warm_up"]), (&json!([]), &Value::Null));
    put(&api, "second", &json!({"url": "smtp://127.0.0.1:2526", "weight": 0}))
        .await
        .expect(201);
    let listed = api.get("/v1/relays").await.expect(200);
    let names: Vec<&str> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["primary", "second"]);

    api.delete("/v1/relays/second").await.expect(204);
    api.delete("/v1/relays/second").await.expect(404);
    api.get("/v1/relays/second").await.expect(404);
    api.act("/v1/relays/second/pause").await.expect(404);
    api.act("/v1/relays/second/test").await.expect(404);
}

async fn a_password_is_never_given_back(api: Api) {
    let answers = [
        put(&api, "r", &full()).await,
        api.get("/v1/relays/r").await,
        api.get("/v1/relays").await,
        api.act("/v1/relays/r/pause").await,
        put(&api, "r", &json!({"url": "smtp://anna:hunter2secret@relay.example.org?tls=none"})).await,
        put(&api, "r", &json!({"url": "smtp://anna:hunter2secret@relay.example.org/hunter2secret?x"})).await,
    ];
    for answer in &answers {
        let (body, headers) = (&answer.text, format!("{:?}", answer.headers));
        let bare = body.replace("/hunter2secret", "");
        assert!(!bare.contains("hunter2") && !headers.contains("hunter2"), "{body}");
    }
    assert!(answers[1].text.contains("smtp://anna:***@relay.example.org:587"), "{}", answers[1].text);
    assert_eq!(answers[4].status.as_u16(), 422);
}

async fn a_url_with_a_mask_keeps_its_password(api: Api) {
    put(&api, "r", &full()).await.expect(201);
    let shown = api.get("/v1/relays/r").await.expect(200);
    let port_changed = shown["url"].as_str().unwrap().replace("587", "2587");
    put(&api, "r", &json!({"url": port_changed})).await.expect(200);
    let stored = api.store.relay("r").await.unwrap().unwrap().spec.url;
    assert_eq!(stored, "smtp://anna:hunter2secret@relay.example.org:2587?connections=4&pipelining=off");

    for elsewhere in ["smtp://anna:***@evil.example:587", "smtp://bob:***@relay.example.org"] {
        let problem = put(&api, "r", &json!({ "url": elsewhere })).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], "#/url", "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("write the password again"), "{problem}");
    }
    let problem = put(&api, "new", &json!({"url": "smtp://anna:***@relay.example.org"}))
        .await
        .expect(422);
    assert!(problem["detail"].as_str().unwrap().contains("none is stored"), "{problem}");
    assert_eq!(api.store.relay("r").await.unwrap().unwrap().spec.url, stored);
}

async fn what_is_wrong_with_a_relay_is_pointed_at(api: Api) {
    for (change, pointer, part) in [
        (json!({"url": "relay.example.org"}), "#/url", "smtp://"),
        (json!({"url": "smtp://h.example?speed=9"}), "#/url", "known are"),
        (json!({"url": "smtp://h.example?rate=5"}), "#/url", "limits.per_sec"),
        (json!({"weight": 101}), "#/weight", "0 to 100"),
        (json!({"weight": "heavy"}), "#/weight", "expected u32"),
        (json!({"limits": {"per_sec": 0}}), "#/limits/per_sec", "pause the relay"),
        (json!({"limits": {"per_minute": 5}}), "#/limits/per_minute", "per_hour"),
        (json!({"lanes": [{"lane": "*"}, {"lane": "Gmail!"}]}), "#/lanes/1/lane", "lower case"),
        (json!({"lanes": [{"lane": "google", "connections": 0}]}), "#/lanes/0/connections", "from 1"),
        (
            json!({"warm_up": {"started_at": "2026-09-01T00:00:00Z", "start_per_day": 5, "factor": 1, "ceiling_per_day": 9}}),
            "#/warm_up/factor",
            "more than 1",
        ),
        (
            json!({"quiet_hours": {"from": "22:00", "until": "07:00", "time_zone": "Europe/Atlantis"}}),
            "#/quiet_hours/time_zone",
            "Europe/Berlin",
        ),
        (json!({"speed": 5}), "#/speed", "unknown field"),
        (json!({"name": "other"}), "#/name", "leave it out"),
    ] {
        let mut body = json!({"url": "smtp://127.0.0.1:25"});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let problem = put(&api, "r", &body).await.expect(422);
        let error = &problem["errors"][0];
        assert_eq!(error["pointer"], pointer, "{change}: {problem}");
        assert!(error["detail"].as_str().unwrap().contains(part), "{change}: {problem}");
    }
    let problem = put(&api, "a%20b", &json!({"url": "smtp://127.0.0.1:25"}))
        .await
        .expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/name");
    let problem = api
        .post("/v1/relays", &json!({"url": "smtp://127.0.0.1:25"}))
        .await
        .expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/name");
    assert_eq!(api.store.relays().await.unwrap(), []);
}

async fn a_pause_stays_until_it_is_resumed(api: Api) {
    put(&api, "r", &full()).await.expect(201);
    let paused = api
        .post("/v1/relays/r/pause", &json!({"reason": "moving house"}))
        .await
        .expect(200);
    assert_eq!((&paused["status"], &paused["reason"]), (&json!("paused"), &json!("moving house")));
    assert!(paused["paused_at"].is_string(), "{paused}");
    let edited = put(&api, "r", &full()).await.expect(200);
    assert_eq!(edited["reason"], "moving house", "an edit does not end a pause");
    for wrong in ["", "two\nlines"] {
        let problem = api
            .post("/v1/relays/r/pause", &json!({ "reason": wrong }))
            .await
            .expect(422);
        assert_eq!(problem["errors"][0]["pointer"], "#/reason");
    }
    for _ in 0..2 {
        let resumed = api.act("/v1/relays/r/resume").await.expect(200);
        assert_eq!((&resumed["status"], &resumed["reason"]), (&json!("active"), &Value::Null));
    }
}

async fn a_relay_that_broadcasts_wait_for_is_kept(api: Api) {
    put(&api, "r", &full()).await.expect(201);
    let mut body = letter();
    body["recipients"] = json!(["anna@example.org"]);
    body["relay"] = json!("r");
    let accepted = api.post("/v1/broadcasts", &body).await.expect(202);
    let problem = api.delete("/v1/relays/r").await.expect(409);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("one broadcast is under way"), "{problem}");
    let id = accepted["id"].as_str().unwrap();
    api.act(&format!("/v1/broadcasts/{id}/cancel")).await.expect(200);
    api.delete("/v1/relays/r").await.expect(204);
}

async fn a_change_is_seen_by_another_process_at_once(api: Api) {
    let other = api.second_node().await;
    put(&other, "r", &full()).await.expect(201);
    assert_eq!(api.get("/v1/relays/r").await.expect(200)["version"], 1);
    api.act("/v1/relays/r/pause").await.expect(200);
    assert_eq!(other.get("/v1/relays/r").await.expect(200)["status"], "paused");
}

async fn only_an_admin_sees_or_changes_relays(api: Api) {
    let spec = RelaySpec::of("smtp://anna:hunter2@relay.example.org");
    api.store.put_relay("r", &spec, BEGINNING).await.unwrap();
    let key = api.key(&[Scope::Send, Scope::Read, Scope::Manage]).await;
    for (method, path) in [
        (Method::GET, "/v1/relays"),
        (Method::GET, "/v1/relays/r"),
        (Method::POST, "/v1/relays"),
        (Method::PUT, "/v1/relays/r"),
        (Method::DELETE, "/v1/relays/r"),
        (Method::POST, "/v1/relays/r/pause"),
        (Method::POST, "/v1/relays/r/resume"),
        (Method::POST, "/v1/relays/r/test"),
    ] {
        let answer = send(api.bare(method.clone(), path).bearer_auth(&key).json(&full())).await;
        assert_eq!(answer.status.as_u16(), 403, "{method} {path}: {}", answer.text);
        assert!(!answer.text.contains("relay.example.org"));
    }
    assert_eq!(api.store.relay("r").await.unwrap().unwrap().version, 1);
}

async fn sink(options: SinkOptions) -> SinkHandle {
    Sink::start(options).await.unwrap()
}

/// Stores a relay that is the sink.
async fn relay_at(api: &Api, sink: &SinkHandle, login: &str) {
    let url = format!("smtp://{login}127.0.0.1:{}", sink.addr().port());
    put(api, "r", &json!({ "url": url })).await.expect(201);
}

fn stages(report: &Value) -> Vec<&str> {
    let steps = report["steps"].as_array().unwrap();
    steps.iter().map(|step| step["stage"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_test_shows_what_was_said_and_no_secret() {
    let api = Api::sqlite().await;
    let sink = sink(SinkOptions {
        require_auth: Some(("anna".into(), "hunter2secret".into())),
        ..SinkOptions::default()
    })
    .await;
    relay_at(&api, &sink, "anna:hunter2secret@").await;
    let answer = api.act("/v1/relays/r/test").await;
    assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    assert!(!answer.text.contains("AGFubmEAaHVudGVyMnNlY3JldA=="), "{}", answer.text);
    let report = answer.expect(200);
    assert_eq!((&report["ok"], &report["trouble"]), (&json!(true), &Value::Null), "{report}");
    assert_eq!(stages(&report), ["connect", "banner", "EHLO", "AUTH"]);
    let auth = &report["steps"][3]["lines"];
    assert_eq!(auth[0], json!({"from": "us", "text": "AUTH PLAIN ***"}));
    assert_eq!(auth[1]["from"], "relay");
    assert!(auth[1]["text"].as_str().unwrap().starts_with("235"), "{auth}");
    assert!(report["summary"].as_str().unwrap().contains("Nothing was sent"), "{report}");
    assert_eq!(sink.sink().stats().accepted, 0);
    assert_eq!(sink.sink().stats().violations, 0);
}

#[tokio::test]
async fn a_test_message_goes_out_when_it_is_asked_for() {
    let api = Api::sqlite().await;
    let sink = sink(SinkOptions {
        keep_mailbox: true,
        ..SinkOptions::default()
    })
    .await;
    relay_at(&api, &sink, "").await;
    for (body, pointer) in [
        (json!({"to": "anna@example.org"}), "#/from"),
        (json!({"from": "ops@example.org"}), "#/to"),
        (json!({"to": "anna", "from": "ops@example.org"}), "#/to"),
        (json!({"to": "anna@example.org", "from": "ops@example.org", "cc": "x"}), "#/cc"),
    ] {
        let problem = api.post("/v1/relays/r/test", &body).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    let body = json!({"to": "Anna@Example.org", "from": "ops@example.org"});
    let report = api.post("/v1/relays/r/test", &body).await.expect(200);
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(stages(&report), ["connect", "banner", "EHLO", "MAIL", "message content"]);
    assert_eq!(sink.sink().stats().accepted, 1);
    assert_eq!(sink.sink().newest(2).len(), 1);
    assert_eq!(api.rows("broadcasts").await, 0, "it is nobody's mail");

    let suppressed = json!({"emails": ["anna@example.org"]});
    api.post("/v1/suppressions", &suppressed).await.expect(200);
    let problem = api.post("/v1/relays/r/test", &body).await.expect(422);
    assert_eq!(problem["errors"][0]["code"], "suppressed", "{problem}");
    assert_eq!(sink.sink().stats().accepted, 1);
}

#[tokio::test]
async fn a_test_says_whose_failure_it_is_and_what_to_do() {
    let auth = Some(("anna".to_owned(), "right".to_owned()));
    let refuse = |at, reply: &str| Script::default().always(at, Act::Say(reply.as_bytes().to_vec()));
    for (script, auth, stage, class, advice) in [
        (refuse(At::Banner, "554 5.7.1 go away\r\n"), None, "banner", "", "turns this machine away"),
        (Script::default(), auth, "AUTH", "auth_required", "user and password"),
        (refuse(At::Rcpt, "550 5.1.1 nobody here\r\n"), None, "RCPT", "invalid_recipient", "another address"),
    ] {
        let api = Api::sqlite().await;
        let sink = sink(SinkOptions {
            script,
            require_auth: auth.clone(),
            ..SinkOptions::default()
        })
        .await;
        relay_at(&api, &sink, if auth.is_some() { "anna:wrong-one@" } else { "" }).await;
        let body = json!({"to": "anna@example.org", "from": "ops@example.org"});
        let answer = api.post("/v1/relays/r/test", &body).await;
        assert!(!answer.text.contains("wrong-one"), "{}", answer.text);
        let report = answer.expect(200);
        let trouble = &report["trouble"];
        assert_eq!((&report["ok"], &trouble["stage"]), (&json!(false), &json!(stage)), "{report}");
        if !class.is_empty() {
            assert_eq!(trouble["class"], class, "{report}");
        }
        assert!(trouble["advice"].as_str().unwrap().contains(advice), "{report}");
    }
}

#[tokio::test]
async fn a_test_of_a_relay_that_is_not_there_says_so() {
    let api = Api::sqlite().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    put(&api, "r", &json!({ "url": format!("smtp://127.0.0.1:{port}") }))
        .await
        .expect(201);
    let report = api.act("/v1/relays/r/test").await.expect(200);
    assert_eq!((&report["ok"], &report["trouble"]["class"]), (&json!(false), &json!("network")), "{report}");
    assert!(
        report["trouble"]["advice"]
            .as_str()
            .unwrap()
            .contains(&port.to_string()),
        "{report}"
    );
    assert_eq!(stages(&report), ["connect"]);
}

#[tokio::test]
async fn a_test_message_is_signed_as_a_broadcast_is() {
    let api = Api::sqlite().await;
    let sink = sink(SinkOptions {
        keep_mailbox: true,
        ..SinkOptions::default()
    })
    .await;
    relay_at(&api, &sink, "").await;
    for (n, (domain, is_enabled)) in [("example.org", true), ("shop.example.org", false)]
        .into_iter()
        .enumerate()
    {
        let (private_key, public_key) = generate_dkim_key(DkimAlgorithm::Ed25519).unwrap();
        let key = DkimKey {
            id: DkimKeyId::new(BEGINNING, n as u128),
            domain: domain.into(),
            selector: format!("s{n}"),
            algorithm: DkimAlgorithm::Ed25519,
            private_key,
            public_key,
            created_at: BEGINNING,
            enabled_at: is_enabled.then_some(BEGINNING),
        };
        api.store.create_dkim_key(&key).await.unwrap();
    }
    let sent = async |from: &str| {
        let body = json!({"to": "anna@example.net", "from": from});
        let report = api.post("/v1/relays/r/test", &body).await.expect(200);
        assert_eq!(report["ok"], true, "{report}");
        String::from_utf8(sink.sink().newest(1)[0].raw.clone())
            .unwrap()
            .replace("\r\n\t", " ")
    };
    let signed = sent("ops@shop.example.org").await;
    let (signature, rest) = signed.split_once("\r\nFrom:").unwrap();
    for part in [
        "DKIM-Signature: v=1; a=ed25519-sha256;",
        "s=s0;",
        "d=example.org;",
        "h=From:",
    ] {
        assert!(signature.contains(part), "{part}: {signature}");
    }
    assert!(rest.contains("Subject: Test of the relay r"), "{rest}");
    assert!(!sent("ops@example.com").await.contains("DKIM-Signature"), "no key, no signature");
}
