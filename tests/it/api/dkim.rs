//! Keys that mail is signed with over the API: made, compared with the DNS, put into use, removed; the private half stays inside.

use serde_json::{Value, json};

use super::on_both_databases;
use super::world::Api;
use crate::support::names::Mood;

on_both_databases!(
    a_key_is_made_and_its_record_shown,
    a_key_is_enabled_once_its_record_is_published,
    what_is_wrong_with_a_key_is_pointed_at,
    a_key_that_signs_a_broadcast_under_way_stays,
);

async fn make(api: &Api, body: Value) -> Value {
    api.post("/v1/dkim-keys", &body).await.expect(201)
}

fn path(key: &Value, action: &str) -> String {
    format!("/v1/dkim-keys/{}{action}", key["id"].as_str().unwrap())
}

/// Publishes the record as a zone would hold it, changed as wanted.
fn publish(api: &Api, key: &Value, change: impl FnOnce(&str) -> String) {
    let text = change(key["record"]["value"].as_str().unwrap());
    let strings: Vec<String> = text
        .as_bytes()
        .chunks(255)
        .map(|part| String::from_utf8(part.to_vec()).unwrap())
        .collect();
    api.names.text(key["record"]["name"].as_str().unwrap(), &strings);
}

async fn a_key_is_made_and_its_record_shown(api: Api) {
    let answer = api.post("/v1/dkim-keys", &json!({"domain": "Example.org"})).await;
    let location = answer.header("location").unwrap().to_owned();
    assert!(!answer.text.contains("PRIVATE"), "{}", answer.text);
    let key = answer.expect(201);
    assert_eq!(location, path(&key, ""));
    let record = &key["record"];
    assert_eq!(
        (&key["domain"], &key["selector"], &key["algorithm"]),
        (&json!("example.org"), &json!("hikyaku1"), &json!("rsa"))
    );
    assert_eq!((&record["name"], &record["type"]), (&json!("hikyaku1._domainkey.example.org"), &json!("TXT")));
    assert!(record["value"].as_str().unwrap().starts_with("v=DKIM1; k=rsa; p=MII"), "{record}");
    assert!(
        record["zone_line"]
            .as_str()
            .unwrap()
            .starts_with("hikyaku1._domainkey.example.org. 3600 IN TXT ( \"")
    );
    assert_eq!(key["enabled_at"], Value::Null);
    assert_eq!(api.get(&location).await.expect(200), key);

    let second = make(&api, json!({"domain": "example.org", "algorithm": "ed25519"})).await;
    assert_eq!((&second["selector"], &second["algorithm"]), (&json!("hikyaku2"), &json!("ed25519")));
    let listed = api.get("/v1/dkim-keys").await;
    assert!(!listed.text.contains("PRIVATE"));
    assert_eq!(listed.expect(200)["data"], json!([key, second]));

    api.delete(&location).await.expect(204);
    api.get(&location).await.expect(404);
    api.delete(&location).await.expect(404);
    api.act(&format!("{location}/enable")).await.expect(404);
}

async fn a_key_is_enabled_once_its_record_is_published(api: Api) {
    let key = make(&api, json!({"domain": "example.org", "selector": "s1"})).await;
    let (enable, check) = (path(&key, "/enable"), path(&key, "/check"));
    let checked = api.act(&check).await.expect(200);
    assert_eq!(checked["published"], false);
    assert!(checked["problem"].as_str().unwrap().contains("publish it"), "{checked}");
    let refused = api.act(&enable).await.expect(409);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("s1._domainkey.example.org") && detail.contains("unchecked"), "{detail}");

    publish(&api, &key, |text| text[..text.len() - 8].to_owned());
    let refused = api.act(&enable).await.expect(409);
    assert!(refused["detail"].as_str().unwrap().contains("cut off"), "{refused}");

    publish(&api, &key, ToOwned::to_owned);
    assert_eq!(api.act(&check).await.expect(200), json!({"published": true, "problem": null}));
    let enabled = api.act(&enable).await.expect(200);
    assert_eq!(enabled["enabled_at"], "2026-09-21T14:13:20.000Z");
    assert_eq!(api.act(&path(&key, "/disable")).await.expect(200)["enabled_at"], Value::Null);

    api.names.behave(Mood::Fails);
    let checked = api.act(&check).await.expect(200);
    assert_eq!(checked["published"], Value::Null, "nobody knows: {checked}");
    api.act(&enable).await.expect(409);
    let unchecked = api.post(&enable, &json!({"unchecked": true})).await.expect(200);
    assert_ne!(unchecked["enabled_at"], Value::Null);
}

async fn what_is_wrong_with_a_key_is_pointed_at(api: Api) {
    make(&api, json!({"domain": "example.org", "selector": "s1", "algorithm": "ed25519"})).await;
    for (body, status, pointer, part) in [
        (json!({"domain": "a b.example"}), 422, "#/domain", "a b.example"),
        (json!({"domain": "org"}), 422, "#/domain", "org"),
        (json!({"domain": "example.org", "selector": "a.b"}), 422, "#/selector", "letters, digits"),
        (json!({"domain": "example.org", "algorithm": "dsa"}), 422, "#/algorithm", "rsa or ed25519"),
        (json!({"selector": "s2"}), 422, "#", "domain"),
        (json!({"domain": "example.org", "selector": "S1"}), 409, "", "another selector"),
    ] {
        let problem = api.post("/v1/dkim-keys", &body).await.expect(status);
        assert!(problem.to_string().contains(part), "{body}: {problem}");
        if !pointer.is_empty() {
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
        }
    }
    assert_eq!(
        api.get("/v1/dkim-keys").await.expect(200)["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

async fn a_key_that_signs_a_broadcast_under_way_stays(api: Api) {
    let key = make(&api, json!({"domain": "example.org", "algorithm": "ed25519"})).await;
    api.post(&path(&key, "/enable"), &json!({"unchecked": true}))
        .await
        .expect(200);
    let body =
        json!({"from": "news@example.org", "subject": "s", "text": "t", "recipients": [{"email": "anna@example.net"}]});
    let broadcast = api.post("/v1/broadcasts", &body).await.expect(202);
    let refused = api.delete(&path(&key, "")).await.expect(409);
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains(broadcast["id"].as_str().unwrap()),
        "{refused}"
    );
    api.act(&format!("/v1/broadcasts/{}/cancel", broadcast["id"].as_str().unwrap()))
        .await
        .expect(200);
    api.delete(&path(&key, "")).await.expect(204);
}
