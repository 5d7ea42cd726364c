//! Rows that the database has damaged: each is shown as what it is, and takes no page and no list with it. And dry runs, which
//! render everybody.

use std::fmt::Write as _;

use serde_json::json;

use crate::api::on_both_databases;
use crate::api::world::{Api, letter};
use crate::ui::app::App;

on_both_databases!(
    a_damaged_contact_is_shown_as_damaged,
    a_damaged_contact_fails_alone,
    a_damaged_chunk_is_shown_as_damaged,
    a_dry_run_renders_everybody_once,
);

/// PostgreSQL stores no NUL, and no program means one: whatever door it comes through, nothing breaks.
#[tokio::test]
async fn a_nul_breaks_no_page() {
    for app in App::both().await {
        app.sign_in().await;
        for path in [
            "/find?email=%00",
            "/contacts?after=%00",
            "/suppressions?after=%00",
            "/broadcasts?after=%00",
            "/contacts?list=%00",
        ] {
            let status = app.get(path).await.status();
            assert!(!status.is_server_error(), "{path}: {status}");
        }
        for (path, form) in [
            ("/lists", vec![("name", "a\0b")]),
            ("/contacts", vec![("email", "a\0b@example.org"), ("name", "x\0")]),
            ("/contacts/delete", vec![("email", "\0")]),
            ("/suppressions", vec![("emails", "a\0@example.org")]),
            ("/suppressions/remove", vec![("email", "\0")]),
            (
                "/templates",
                vec![
                    ("name", "a\0"),
                    ("subject", "s\0"),
                    ("html", "<p>\0</p>"),
                    ("text", "\0"),
                ],
            ),
            ("/contacts/import", vec![("csv", "email,x\nnul@example.org,a\0b\n")]),
        ] {
            let status = app.post(path, &form).await.status();
            assert!(!status.is_server_error(), "{path}: {status}");
        }
    }
}

async fn three_contacts(api: &Api) {
    let contacts: Vec<_> = ["anna", "bob", "cleo"]
        .iter()
        .map(|name| json!({"email": format!("{name}@example.org"), "data": {"city": "Ulm"}}))
        .collect();
    api.post("/v1/contacts", &json!({ "contacts": contacts }))
        .await
        .expect(200);
    api.execute("UPDATE contacts SET data = '{\"city\":\"\\ud800\"' WHERE email = 'bob@example.org'")
        .await;
}

async fn a_damaged_contact_is_shown_as_damaged(api: Api) {
    three_contacts(&api).await;
    let page = api.get("/v1/contacts").await.expect(200);
    let rows = page["data"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let is_bob = row["email"] == "bob@example.org";
        assert_eq!(row["damaged"].is_string(), is_bob, "{row}");
        assert_eq!(row["data"], if is_bob { json!({}) } else { json!({"city": "Ulm"}) });
    }
    let bob = api.get("/v1/contacts/bob@example.org").await.expect(200);
    assert!(bob["damaged"].as_str().unwrap().contains("import the contact anew"), "{bob}");
    api.post("/v1/contacts", &json!({"contacts": [{"email": "bob@example.org", "data": {"city": "Bern"}}]}))
        .await
        .expect(200);
    let bob = api.get("/v1/contacts/bob@example.org").await.expect(200);
    assert_eq!((&bob["damaged"], &bob["data"]), (&json!(null), &json!({"city": "Bern"})));
}

async fn a_damaged_contact_fails_alone(api: Api) {
    three_contacts(&api).await;
    let mut body = letter();
    body["subject"] = "Hello {{ city }}".into();
    body["text"] = "Hello".into();
    body["all"] = true.into();
    body["dry_run"] = true.into();
    let answer = api.post("/v1/broadcasts", &body).await.expect(200);
    let rendering = &answer["rendering"];
    assert_eq!((&rendering["rendered"], &rendering["failed"]), (&json!(3), &json!(1)), "{answer}");
    assert_eq!(rendering["problems"][0]["first"], json!(["bob@example.org"]));
    let detail = rendering["problems"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("not a JSON object that can be read"), "{answer}");
}

async fn a_damaged_chunk_is_shown_as_damaged(api: Api) {
    let mut body = letter();
    body["recipients"] = json!(["anna@example.org", "bob@example.org"]);
    let id = api.post("/v1/broadcasts", &body).await.expect(202)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    api.fan_out().await;
    api.execute("UPDATE chunks SET payload = substr(payload, 1, 10)").await;
    let page = api.get(&format!("/v1/broadcasts/{id}/messages")).await.expect(200);
    let rows = page["data"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{page}");
    for row in rows {
        assert_eq!((&row["email"], &row["status"]), (&json!("(damaged)"), &json!("queued")));
        assert!(row["id"].as_str().unwrap().starts_with("msg_"), "{row}");
        assert!(
            row["last_reply"]["text"]
                .as_str()
                .unwrap()
                .contains("restore it from a backup"),
            "{row}"
        );
        api.get(&format!("/v1/messages/{}", row["id"].as_str().unwrap()))
            .await
            .expect(200);
    }
}

async fn a_dry_run_renders_everybody_once(api: Api) {
    // More than a run, so that some are staged and some are at hand, and one in both.
    let mut table = String::from("email,first name\n");
    for n in 0..20_500 {
        let name = if n % 1_000 == 7 { "" } else { "Anna" };
        writeln!(table, "r{n}@example.org,{name}").unwrap();
    }
    table.push_str("R7@example.org,Anna\n");
    let mut head = letter();
    head["subject"] = "{{ First_Name }}".into();
    head["text"] = "{{ firstname }} {{ frist_name|default('x') }}".into();
    head["dry_run"] = true.into();
    let request = api
        .request(reqwest::Method::POST, "/v1/broadcasts")
        .header("Content-Type", "text/csv");
    let request = request.header("X-Hikyaku-Broadcast", head.to_string()).body(table);
    let answer = crate::api::world::send(request).await.expect(200);
    let rendering = &answer["rendering"];
    assert_eq!((&rendering["rendered"], &rendering["is_complete"]), (&json!(20_500), &json!(true)), "{rendering}");
    assert_eq!((&rendering["failed"], &rendering["problems"][0]["count"]), (&json!(21), &json!(21)), "{rendering}");
    assert!(
        rendering["problems"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("the subject is empty"),
        "{rendering}"
    );
    assert_eq!(rendering["problems"][0]["first"].as_array().unwrap().len(), 3);
    assert_eq!(answer["columns"][1], json!({"name": "first name", "variable": "first_name"}));
    api.nothing_is_stored("a dry run").await;
}
