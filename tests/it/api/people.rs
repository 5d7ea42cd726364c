//! The stored audience: lists, contacts, suppressions.

use reqwest::Method;
use serde_json::json;

use super::on_both_databases;
use super::world::{Api, gzip, send};

on_both_databases!(
    lists_are_made_shown_and_deleted,
    contacts_come_in_three_formats,
    a_contact_is_updated_not_doubled,
    wrong_contacts_are_listed_and_the_others_stay,
    an_import_of_nothing_is_a_mistake,
    suppressed_addresses_are_found_and_let_go,
);

async fn lists_are_made_shown_and_deleted(api: Api) {
    let answer = api.post("/v1/lists", &json!({"name": " Friends "})).await;
    let path = answer.header("location").unwrap().to_owned();
    let made = answer.expect(201);
    assert_eq!((&made["name"], &made["contacts"]), (&json!("Friends"), &json!(0)));
    assert_eq!(api.get(&path).await.expect(200), made);
    assert_eq!(api.get("/v1/lists").await.expect(200)["data"], json!([made]));
    let list = made["id"].as_str().unwrap();
    api.post(&format!("/v1/contacts?list_id={list}"), &json!({"contacts": ["anna@example.org"]}))
        .await
        .expect(200);
    assert_eq!(api.get(&path).await.expect(200)["contacts"], 1);
    api.delete(&path).await.expect(204);
    api.get(&path).await.expect(404);
    api.get("/v1/contacts/anna@example.org").await.expect(200);
    let problem = api.post("/v1/lists", &json!({"name": "a\nb"})).await.expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/name");
}

async fn contacts_come_in_three_formats(api: Api) {
    let json = api
        .post("/v1/contacts", &json!({"contacts": [{"email": "a@example.org", "name": "A", "data": {"n": 1}}]}))
        .await;
    assert_eq!(json.expect(200), json!({"received": 1, "created": 1, "rejected_count": 0, "rejected": []}));
    let lines: String = (0..2_500)
        .map(|n| format!("{{\"email\":\"b{n}@example.org\"}}\n"))
        .collect();
    let packed = api
        .request(Method::POST, "/v1/contacts")
        .header("Content-Type", "application/x-ndjson");
    let packed = send(packed.header("Content-Encoding", "gzip").body(gzip(lines.as_bytes())))
        .await
        .expect(200);
    assert_eq!((&packed["received"], &packed["created"]), (&json!(2_500), &json!(2_500)));
    let table = api
        .post_as("/v1/contacts", "text/csv", "email,name,city\nc@example.org,C,Kyoto\na@example.org,A2,Nara\n")
        .await;
    assert_eq!(table.expect(200)["created"], 1);
    let contact = api.get("/v1/contacts/C@Example.org").await.expect(200);
    assert_eq!(
        (&contact["name"], &contact["data"]["city"], &contact["status"]),
        (&json!("C"), &json!("Kyoto"), &json!("subscribed"))
    );
    let page = api.get("/v1/contacts?limit=2").await.expect(200);
    assert_eq!((page["data"].as_array().unwrap().len(), &page["has_more"]), (2, &json!(true)));
}

async fn a_contact_is_updated_not_doubled(api: Api) {
    api.post("/v1/contacts", &json!({"contacts": [{"email": "anna@example.org", "name": "Anna"}]}))
        .await
        .expect(200);
    let again = api
        .post("/v1/contacts", &json!({"contacts": [{"email": "ANNA@example.org", "name": "Anne"}]}))
        .await
        .expect(200);
    assert_eq!(again["created"], 0);
    assert_eq!(api.get("/v1/contacts/anna@example.org").await.expect(200)["name"], "Anne");
    api.delete("/v1/contacts/anna@example.org").await.expect(204);
    api.delete("/v1/contacts/anna@example.org").await.expect(404);
}

async fn wrong_contacts_are_listed_and_the_others_stay(api: Api) {
    let body = json!({"contacts": ["anna@example.org", "bob", {"email": "carl@example.org", "data": 7}]});
    let answer = api.post("/v1/contacts", &body).await.expect(200);
    assert_eq!(
        (&answer["received"], &answer["created"], &answer["rejected_count"]),
        (&json!(3), &json!(1), &json!(2))
    );
    assert_eq!((&answer["rejected"][0]["index"], &answer["rejected"][1]["code"]), (&json!(1), &json!("wrong_type")));
    let problem = api
        .post("/v1/contacts", &json!({"contacts": ["bob"]}))
        .await
        .expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/contacts/0/email");
}

async fn an_import_of_nothing_is_a_mistake(api: Api) {
    for (body, pointer) in [
        (json!({}), "#/contacts"),
        (json!({"contacts": []}), "#/contacts"),
        (json!({"contacts": ["a@example.org"], "list": "x"}), "#/list"),
        (json!({"recipients": ["a@example.org"]}), "#/recipients"),
    ] {
        let problem = api.post("/v1/contacts", &body).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let path = "/v1/contacts?list_id=lst_00000000000000000000000000";
    let problem = api
        .post(path, &json!({"contacts": ["a@example.org"]}))
        .await
        .expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/list_id");
    assert_eq!(api.rows("contacts").await, 0);
}

async fn suppressed_addresses_are_found_and_let_go(api: Api) {
    let body = json!({"emails": ["Anna@example.org", "bob@example.org"], "reason": "complaint"});
    assert_eq!(api.post("/v1/suppressions", &body).await.expect(200), json!({"added": 2}));
    assert_eq!(
        api.post("/v1/suppressions", &json!({"emails": ["anna@example.org"]}))
            .await
            .expect(200),
        json!({"added": 0})
    );
    let found = api.get("/v1/suppressions/ANNA@example.org").await.expect(200);
    assert_eq!((&found["reason"], &found["source"]), (&json!("complaint"), &json!("api")));
    let page = api.get("/v1/suppressions?limit=1").await.expect(200);
    let next = page["next"].as_str().unwrap();
    let rest = api.get(&format!("/v1/suppressions?after={next}")).await.expect(200);
    assert_eq!(rest["data"][0]["email"], "bob@example.org");

    let id = api.broadcast(&["anna@example.org", "carl@example.org"]).await;
    api.fan_out().await;
    let counts = api.get_broadcast(&id).await["counts"].clone();
    assert_eq!((&counts["suppressed"], &counts["queued"]), (&json!(1), &json!(1)));

    api.delete("/v1/suppressions/anna@example.org").await.expect(204);
    api.delete("/v1/suppressions/anna@example.org").await.expect(404);
    for (body, pointer) in [
        (json!({"emails": []}), "#/emails"),
        (json!({"emails": ["a@example.org", "bob"]}), "#/emails/1"),
        (json!({"emails": ["a@example.org"], "reason": "dislike"}), "#/reason"),
        (json!({"emails": [7]}), "#/emails/0"),
    ] {
        let problem = api.post("/v1/suppressions", &body).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}
