//! Sending: the three formats, gzip, all kinds of audience, permissive mode, dry runs, plans. What was accepted is read
//! back over the API.

use hikyaku::domain::relay::RelaySpec;
use hikyaku::web::Limits;
use reqwest::Method;
use serde_json::{Value, json};

use super::on_both_databases;
use super::world::{Api, BEGINNING, BOOTSTRAP_KEY, gzip, letter, send};
use crate::support::database::fresh_sqlite;

on_both_databases!(
    a_json_request_becomes_a_broadcast,
    lines_and_tables_become_the_same_broadcast,
    a_table_takes_its_broadcast_from_the_query_too,
    packed_bodies_are_unpacked,
    stored_audiences_are_named_not_listed,
    a_template_is_copied_when_the_request_is_accepted,
    in_permissive_mode_the_others_get_their_mail,
    a_dry_run_checks_and_stores_nothing,
    a_planned_broadcast_is_scheduled,
    a_broadcast_names_its_relay,
    repeated_addresses_are_counted_once,
    many_recipients_stream_through,
    a_client_that_goes_away_leaves_nothing,
);

async fn a_json_request_becomes_a_broadcast(api: Api) {
    let mut body = letter();
    body["recipients"] = json!(["anna@example.org", {"email": "bob@example.org", "name": "Bob", "data": {"n": 1}}]);
    body["tags"] = json!(["newsletter"]);
    body["metadata"] = json!({"order": 7});
    let answer = api.post("/v1/broadcasts", &body).await;
    let location = answer.header("location").unwrap().to_owned();
    let accepted = answer.expect(202);
    assert_eq!(location, format!("/v1/broadcasts/{}", accepted["id"].as_str().unwrap()));
    assert_eq!(accepted["links"]["self"], location);
    assert_eq!(accepted["counts"], json!({"received": 2, "rejected": 0}));
    assert_eq!((&accepted["status"], &accepted["rejected"]), (&json!("accepted"), &json!([])));

    api.fan_out().await;
    let shown = api.get(&location).await.expect(200);
    assert_eq!(shown["counts"]["queued"], 2, "{shown}");
    assert_eq!((&shown["received"], &shown["duplicates"]), (&json!(2), &json!(0)));
    assert_eq!((&shown["tags"], &shown["metadata"]), (&json!(["newsletter"]), &json!({"order": 7})));
}

/// Anna and Bob with a city each, however they come.
async fn has_anna_and_bob(api: &Api, accepted: &Value) {
    api.fan_out().await;
    let id = accepted["id"].as_str().unwrap();
    let page = api.get(&format!("/v1/broadcasts/{id}/messages")).await.expect(200);
    let mut people: Vec<(&str, &str)> = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["email"].as_str().unwrap(), m["name"].as_str().unwrap()))
        .collect();
    people.sort_unstable();
    assert_eq!(people, [("anna@example.org", "Anna"), ("bob@example.org", "Bob, Jr.")]);
    assert_eq!(api.get_broadcast(id).await["subject"], "Hello {{ name }}");
}

const ROWS: &str = "email,name,city\nanna@example.org,Anna,Kyoto\nbob@example.org,\"Bob, Jr.\",Nara\n";

fn lines() -> String {
    format!(
        "{}\n{}\n{}\n",
        letter(),
        json!({"email": "anna@example.org", "name": "Anna", "data": {"city": "Kyoto"}}),
        json!({"email": "bob@example.org", "name": "Bob, Jr.", "data": {"city": "Nara"}}),
    )
}

async fn lines_and_tables_become_the_same_broadcast(api: Api) {
    let accepted = api
        .post_as("/v1/broadcasts", "application/x-ndjson", lines())
        .await
        .expect(202);
    has_anna_and_bob(&api, &accepted).await;
    let request = api
        .request(Method::POST, "/v1/broadcasts")
        .header("Content-Type", "text/csv; charset=utf-8");
    let request = request.header("X-Hikyaku-Broadcast", letter().to_string()).body(ROWS);
    let accepted = send(request).await.expect(202);
    has_anna_and_bob(&api, &accepted).await;
}

async fn a_table_takes_its_broadcast_from_the_query_too(api: Api) {
    let path =
        "/v1/broadcasts?from=News%20%3Cnews@example.org%3E&subject=Hello%20%7B%7B%20name%20%7D%7D&text=Hi&tags=a,b";
    let accepted = api.post_as(path, "text/csv", ROWS).await.expect(202);
    has_anna_and_bob(&api, &accepted).await;
    assert_eq!(api.get_broadcast(accepted["id"].as_str().unwrap()).await["tags"], json!(["a", "b"]));
}

async fn packed_bodies_are_unpacked(api: Api) {
    let request = api
        .request(Method::POST, "/v1/broadcasts")
        .header("Content-Type", "application/x-ndjson");
    let accepted = send(
        request
            .header("Content-Encoding", "gzip")
            .body(gzip(lines().as_bytes())),
    )
    .await
    .expect(202);
    has_anna_and_bob(&api, &accepted).await;
}

async fn stored_audiences_are_named_not_listed(api: Api) {
    let list = api.post("/v1/lists", &json!({"name": "Friends"})).await.expect(201);
    let list = list["id"].as_str().unwrap();
    api.post_as(&format!("/v1/contacts?list_id={list}"), "text/csv", ROWS)
        .await
        .expect(200);
    api.post("/v1/contacts", &json!({"contacts": ["carl@example.org"]}))
        .await
        .expect(200);
    for (audience, kind, n) in [
        (json!({"list_ids": [list]}), "lists", 2),
        (json!({"all": true}), "all", 3),
    ] {
        let mut body = letter();
        body.as_object_mut()
            .unwrap()
            .extend(audience.as_object().unwrap().clone());
        let accepted = api.post("/v1/broadcasts", &body).await.expect(202);
        assert_eq!(accepted["counts"]["received"], Value::Null);
        api.fan_out().await;
        let shown = api.get_broadcast(accepted["id"].as_str().unwrap()).await;
        assert_eq!((&shown["audience"]["kind"], &shown["counts"]["queued"]), (&json!(kind), &json!(n)), "{shown}");
        assert_eq!(shown["received"], n);
    }
}

async fn a_template_is_copied_when_the_request_is_accepted(api: Api) {
    let template = api.template().await;
    let body = json!({"from": "news@example.org", "template_id": template, "recipients": ["anna@example.org"]});
    let accepted = api.post("/v1/broadcasts", &body).await.expect(202);
    let shown = api.get_broadcast(accepted["id"].as_str().unwrap()).await;
    assert_eq!(
        (shown["template_id"].as_str(), &shown["subject"]),
        (Some(template.as_str()), &json!("Hello {{ name }}"))
    );
}

async fn in_permissive_mode_the_others_get_their_mail(api: Api) {
    let mut body = letter();
    body["validation"] = json!("permissive");
    body["recipients"] =
        json!(["anna@example.org", "bob", {"email": "carl@example.org", "phone": 1}, "dora@example.org"]);
    let accepted = api.post("/v1/broadcasts", &body).await.expect(202);
    assert_eq!(accepted["counts"], json!({"received": 4, "rejected": 2}));
    let rejected = accepted["rejected"].as_array().unwrap();
    assert_eq!(rejected[0]["index"], 1);
    assert_eq!((&rejected[0]["email"], &rejected[0]["code"]), (&json!("bob"), &json!("invalid_address")));
    assert_eq!((&rejected[1]["index"], &rejected[1]["code"]), (&json!(2), &json!("unknown_field")));
    api.fan_out().await;
    let shown = api.get_broadcast(accepted["id"].as_str().unwrap()).await;
    assert_eq!((&shown["rejected"], &shown["counts"]["queued"]), (&json!(2), &json!(2)), "{shown}");

    // Nobody is left: then there is nothing to be permissive about.
    body["recipients"] = json!(["bob"]);
    let problem = api.post("/v1/broadcasts", &body).await.expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/recipients/0/email");
}

async fn a_dry_run_checks_and_stores_nothing(api: Api) {
    let mut body = letter();
    body["dry_run"] = json!(true);
    body["recipients"] = json!(["anna@example.org", "bob@example.org"]);
    let checked = api.post("/v1/broadcasts", &body).await.expect(200);
    assert_eq!((&checked["status"], &checked["id"]), (&json!("checked"), &Value::Null));
    assert_eq!(checked["counts"], json!({"received": 2, "rejected": 0}));
    api.post("/v1/contacts", &json!({"contacts": ["anna@example.org"]}))
        .await
        .expect(200);
    body.as_object_mut().unwrap().remove("recipients");
    body["all"] = json!(true);
    let checked = api.post("/v1/broadcasts", &body).await.expect(200);
    assert_eq!(checked["counts"]["received"], 1);
    body["subject"] = json!("{{ name");
    api.post("/v1/broadcasts", &body).await.expect(422);
    api.nothing_is_stored("dry runs").await;
}

async fn a_broadcast_names_its_relay(api: Api) {
    let mut body = letter();
    body["recipients"] = json!(["anna@example.org"]);
    body["relay"] = json!("third");
    for name in ["first", "second"] {
        let spec = RelaySpec::of("smtp://relay.example.org");
        api.store.put_relay(name, &spec, BEGINNING).await.unwrap();
    }
    let problem = api.post("/v1/broadcasts", &body).await.expect(422);
    let error = &problem["errors"][0];
    assert_eq!((&error["pointer"], &error["code"]), (&json!("#/relay"), &json!("not_found")));
    assert!(error["detail"].as_str().unwrap().contains("known are first, second"), "{problem}");
    api.nothing_is_stored("an unknown relay").await;

    api.store
        .pause_relay("second", Some("maintenance"), BEGINNING)
        .await
        .unwrap();
    body["relay"] = json!("second");
    let accepted = api.post("/v1/broadcasts", &body).await.expect(202);
    let shown = api.get_broadcast(accepted["id"].as_str().unwrap()).await;
    assert_eq!(shown["relay"], "second", "one that is paused is waited for");
    body["relay"] = json!(null);
    let accepted = api.post("/v1/broadcasts", &body).await.expect(202);
    let shown = api.get_broadcast(accepted["id"].as_str().unwrap()).await;
    assert_eq!(shown["relay"], Value::Null, "any");
}

async fn a_planned_broadcast_is_scheduled(api: Api) {
    let mut body = letter();
    body["recipients"] = json!(["anna@example.org"]);
    body["send_at"] = json!(BEGINNING.plus_ms(3_600_000));
    body["expires_at"] = json!(BEGINNING.plus_ms(7_200_000));
    body["on_uncertain"] = json!("hold");
    body["priority"] = json!("high");
    let accepted = api.post("/v1/broadcasts", &body).await.expect(202);
    assert_eq!(accepted["status"], "scheduled");
    let shown = api.get_broadcast(accepted["id"].as_str().unwrap()).await;
    assert_eq!(shown["status"], "scheduled");
    for field in ["send_at", "expires_at", "on_uncertain", "priority"] {
        assert_eq!(shown[field], body[field], "{field}");
    }
}

async fn repeated_addresses_are_counted_once(api: Api) {
    let id = api
        .broadcast(&[
            "anna@example.org",
            "bob@example.org",
            "ANNA@example.org",
            "Anna@Example.org",
        ])
        .await;
    api.fan_out().await;
    let shown = api.get_broadcast(&id).await;
    assert_eq!(
        (&shown["received"], &shown["duplicates"], &shown["counts"]["queued"]),
        (&json!(4), &json!(2), &json!(2))
    );
}

async fn many_recipients_stream_through(api: Api) {
    // More than two runs, with repeats across them.
    let mut body = format!("{}\n", letter());
    for n in 0..45_000 {
        body.push_str(&format!("{{\"email\":\"r{}@d{}.example\",\"data\":{{\"n\":{n}}}}}\n", n % 44_000, n % 7));
    }
    let accepted = api
        .post_as("/v1/broadcasts", "application/x-ndjson", body)
        .await
        .expect(202);
    assert_eq!(accepted["counts"]["received"], 45_000);
    assert!(api.rows("intake").await >= 90, "three runs of many pages");
    api.fan_out().await;
    let shown = api.get_broadcast(accepted["id"].as_str().unwrap()).await;
    let queued = shown["counts"]["queued"].as_i64().unwrap();
    assert_eq!(queued + shown["duplicates"].as_i64().unwrap(), 45_000, "{shown}");
    assert!(queued >= 44_000, "{shown}");
}

async fn a_client_that_goes_away_leaves_nothing(api: Api) {
    let (send_piece, pieces) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(pieces));
    let request = api
        .request(Method::POST, "/v1/broadcasts")
        .header("Content-Type", "application/x-ndjson");
    let sending = tokio::spawn(request.body(body).send());
    send_piece.send(Ok(format!("{}\n", letter()))).await.unwrap();
    for round in 0..30 {
        let lines: String = (0..1_000).map(|n| format!("\"r{round}-{n}@example.org\"\n")).collect();
        send_piece.send(Ok(lines)).await.unwrap();
    }
    // A run has been staged; now the client breaks off.
    eventually(async || api.rows("intake").await > 0).await;
    send_piece
        .send(Err(std::io::ErrorKind::BrokenPipe.into()))
        .await
        .unwrap();
    assert!(sending.await.unwrap().is_err());
    eventually(async || api.rows("intake").await == 0).await;
    api.nothing_is_stored("a client that went away").await;
}

/// Asks until it is so; the test's own time limit is the bound.
async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), asked)
        .await
        .expect("it becomes so");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_leaves_nothing() {
    let limits = Limits {
        json_bytes_max: 1_000,
        stream_bytes_max: 2_000_000,
    };
    let api = Api::on(fresh_sqlite(), limits).await;
    let mut body = format!("{}\n", letter());
    for n in 0..100_000 {
        body.push_str(&format!("\"recipient-number-{n}@example.org\"\n"));
    }
    let request = api
        .request(Method::POST, "/v1/broadcasts")
        .header("Content-Type", "application/x-ndjson");
    let problem = send(request.header("Content-Encoding", "gzip").body(gzip(body.as_bytes())))
        .await
        .expect(413);
    assert_eq!((&problem["code"], &problem["limit"]), (&json!("body_too_large"), &json!(2_000_000)));
    let name = "x".repeat(2_000);
    let problem = api.post("/v1/lists", &json!({ "name": name })).await.expect(413);
    assert_eq!(problem["limit"], 1_000);
    api.nothing_is_stored("bodies over the limit").await;
    assert!(!format!("{problem}").contains(BOOTSTRAP_KEY));
}
