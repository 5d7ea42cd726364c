//! Templates and campaigns over the API.

use hikyaku::domain::relay::RelaySpec;
use serde_json::{Value, json};

use super::on_both_databases;
use super::world::{Api, BEGINNING};

on_both_databases!(
    a_template_is_stored_changed_and_deleted,
    a_wrong_template_is_not_stored,
    a_preview_shows_what_one_recipient_would_get,
    a_campaign_is_made_paused_and_resumed,
    a_campaign_runs_now,
    a_campaign_names_the_relay_of_its_runs,
    a_wrong_campaign_is_not_stored,
    a_template_in_use_is_kept,
);

async fn a_template_is_stored_changed_and_deleted(api: Api) {
    let answer = api
        .post("/v1/templates", &json!({"name": "Welcome", "subject": "Hi {{ name }}", "text": "Hello"}))
        .await;
    let path = answer.header("location").unwrap().to_owned();
    let made = answer.expect(201);
    assert_eq!((&made["version"], &made["html"]), (&json!(1), &Value::Null));
    assert_eq!(api.get(&path).await.expect(200), made);
    api.clock.advance_ms(1_000);
    let change = json!({"name": "Welcome", "subject": "Hello {{ name }}", "html": "<p>Hello</p>"});
    let put = super::world::send(api.request(reqwest::Method::PUT, &path).json(&change))
        .await
        .expect(200);
    assert_eq!(
        (&put["version"], &put["subject"], &put["text"]),
        (&json!(2), &json!("Hello {{ name }}"), &Value::Null)
    );
    assert_eq!(api.get("/v1/templates").await.expect(200)["data"], json!([put]));
    api.delete(&path).await.expect(204);
    api.delete(&path).await.expect(404);
    super::world::send(api.request(reqwest::Method::PUT, &path).json(&change))
        .await
        .expect(404);
}

async fn a_wrong_template_is_not_stored(api: Api) {
    for (body, pointer) in [
        (json!({"name": "", "subject": "x", "text": "y"}), "#/name"),
        (json!({"name": "x", "text": "y"}), "#"),
        (json!({"name": "x", "subject": "", "text": "y"}), "#/subject"),
        (json!({"name": "x", "subject": "a\nb", "text": "y"}), "#/subject"),
        (json!({"name": "x", "subject": "x"}), "#/text"),
        (json!({"name": "x", "subject": "x", "html": "{{ a"}), "#/html"),
        (json!({"name": "x", "subject": "{{ a", "html": "b"}), "#/subject"),
        (json!({"name": "x", "subject": "x", "html": "b", "css": "c"}), "#/css"),
        (json!({"name": "x", "subject": 7, "html": "b"}), "#/subject"),
    ] {
        let problem = api.post("/v1/templates", &body).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    assert_eq!(api.rows("templates").await, 0);
}

async fn a_preview_shows_what_one_recipient_would_get(api: Api) {
    let path = format!("/v1/templates/{}/preview", api.template().await);
    let shown = api
        .post(&path, &json!({"name": "Anna <3", "data": {}}))
        .await
        .expect(200);
    assert_eq!((&shown["subject"], &shown["html"]), (&json!("Hello Anna <3"), &json!("<p>Hello Anna &lt;3</p>")));
    assert!(shown["text"].as_str().unwrap().contains("Hello Anna <3"));
    let sample = api.act(&path).await.expect(200);
    assert!(sample["subject"].as_str().unwrap().starts_with("Hello "), "{sample}");
    let problem = api.post(&path, &json!({"data": {}})).await.expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/subject", "{problem}");
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("name"), "{problem}");
}

async fn campaign(api: &Api) -> Value {
    json!({
        "name": "Weekly", "from": "News <news@example.org>", "template_id": api.template().await, "all": true,
        "schedule": {"kind": "recurring", "cron": "0 9 * * MON", "time_zone": "Europe/Berlin"}, "tags": ["weekly"],
    })
}

async fn a_campaign_is_made_paused_and_resumed(api: Api) {
    let answer = api.post("/v1/campaigns", &campaign(&api).await).await;
    let path = answer.header("location").unwrap().to_owned();
    let made = answer.expect(201);
    // The story begins on Monday 21 September 2026 in the afternoon.
    assert_eq!((&made["status"], &made["next_at"]), (&json!("active"), &json!("2026-09-28T07:00:00.000Z")));
    assert_eq!(made["audience"], json!({"kind": "all"}));
    let paused = api.act(&format!("{path}/pause")).await.expect(200);
    assert_eq!((&paused["status"], &paused["next_at"]), (&json!("paused"), &Value::Null));
    assert_eq!(api.act(&format!("{path}/pause")).await.expect(200)["status"], "paused");
    api.clock.advance_ms(14 * 86_400_000);
    let resumed = api.act(&format!("{path}/resume")).await.expect(200);
    assert_eq!((&resumed["status"], &resumed["next_at"]), (&json!("active"), &json!("2026-10-12T07:00:00.000Z")));
    assert_eq!(api.get("/v1/campaigns").await.expect(200)["data"], json!([resumed]));
    api.delete(&path).await.expect(204);
    api.delete(&path).await.expect(404);
    api.act(&format!("{path}/run")).await.expect(404);
}

async fn a_campaign_runs_now(api: Api) {
    let made = api.post("/v1/campaigns", &campaign(&api).await).await.expect(201);
    let id = made["id"].as_str().unwrap();
    let answer = api.act(&format!("/v1/campaigns/{id}/run")).await;
    let location = answer.header("location").unwrap().to_owned();
    answer.expect(202);
    let broadcast = api.get(&location).await.expect(200);
    assert_eq!((&broadcast["campaign_id"], &broadcast["tags"]), (&json!(id), &json!(["weekly"])));
    assert_eq!((&broadcast["status"], &broadcast["subject"]), (&json!("accepted"), &json!("Hello {{ name }}")));
    assert_eq!(api.get(&format!("/v1/campaigns/{id}")).await.expect(200)["next_at"], made["next_at"]);
}

async fn a_campaign_names_the_relay_of_its_runs(api: Api) {
    let spec = RelaySpec::of("smtp://relay.example.org");
    api.store.put_relay("slow", &spec, BEGINNING).await.unwrap();
    let mut body = campaign(&api).await;
    body["relay"] = json!("slow");
    let made = api.post("/v1/campaigns", &body).await.expect(201);
    assert_eq!(made["relay"], "slow");
    let run = format!("/v1/campaigns/{}/run", made["id"].as_str().unwrap());
    let answer = api.act(&run).await;
    let location = answer.header("location").unwrap().to_owned();
    assert_eq!(api.get(&location).await.expect(200)["relay"], "slow");
    // The relay is removed while the campaign names it: a run is refused and says why.
    api.store.delete_relay("slow", BEGINNING).await.unwrap();
    let problem = api.act(&run).await.expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/relay", "{problem}");
}

async fn a_wrong_campaign_is_not_stored(api: Api) {
    let good = campaign(&api).await;
    let once = |at: Value| json!({"schedule": {"kind": "once", "at": at}});
    for (change, pointer) in [
        (json!({"name": ""}), "#/name"),
        (json!({"from": "nobody"}), "#/from"),
        (json!({"reply_to": {"email": "x"}}), "#/reply_to/email"),
        (json!({"template_id": "welcome"}), "#/template_id"),
        (json!({"template_id": "tpl_00000000000000000000000000"}), "#/template_id"),
        (json!({"all": false}), "#/list_ids"),
        (json!({"list_ids": ["lst_00000000000000000000000000"]}), "#/all"),
        (json!({"all": false, "list_ids": ["lst_00000000000000000000000000"]}), "#/list_ids/0"),
        (
            json!({"schedule": {"kind": "recurring", "cron": "61 9 * * *", "time_zone": "Europe/Berlin"}}),
            "#/schedule/cron",
        ),
        (
            json!({"schedule": {"kind": "recurring", "cron": "0 9 * * *", "time_zone": "Europe/Atlantis"}}),
            "#/schedule/time_zone",
        ),
        (once(json!(BEGINNING.plus_ms(-1))), "#/schedule"),
        (json!({"expires_after_secs": 1}), "#/expires_after_secs"),
        (json!({"tags": [""]}), "#/tags/0"),
        (json!({"relay": "unknown"}), "#/relay"),
        (json!({"subject": "x"}), "#/subject"),
    ] {
        let mut body = good.clone();
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let problem = api.post("/v1/campaigns", &body).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{change}: {problem}");
    }
    assert_eq!(api.rows("campaigns").await, 0);
}

async fn a_template_in_use_is_kept(api: Api) {
    let body = campaign(&api).await;
    api.post("/v1/campaigns", &body).await.expect(201);
    let path = format!("/v1/templates/{}", body["template_id"].as_str().unwrap());
    let problem = api.delete(&path).await.expect(409);
    assert!(problem["detail"].as_str().unwrap().contains("campaign"), "{problem}");
}
