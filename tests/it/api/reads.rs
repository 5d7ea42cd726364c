//! What became of it: broadcasts, messages, the export, and pause, resume, cancel.

use hikyaku::domain::message::MessageStatus;
use reqwest::Method;
use serde_json::{Value, json};

use super::on_both_databases;
use super::world::{Api, letter, outcome, send};

on_both_databases!(
    a_broadcast_is_shown_whole,
    a_problem_is_shown_whole,
    an_etag_saves_the_body,
    messages_are_found_by_status_and_address,
    a_message_shows_its_attempts,
    lists_turn_their_pages,
    the_export_holds_everybody_and_no_formula,
    a_broadcast_is_paused_resumed_and_canceled,
    what_is_over_stays_over,
    workers_and_jobs_are_shown,
);

/// Ids differ from run to run.
fn ids() -> Vec<(&'static str, &'static str)> {
    vec![("(brd|msg|req)_[0-9a-z]+", "${1}_…")]
}

async fn a_broadcast_is_shown_whole(api: Api) {
    let mut body = letter();
    body["recipients"] = json!(["a@example.org", "b@example.org", "c@example.org", "A@example.org"]);
    body["tags"] = json!(["newsletter"]);
    body["metadata"] = json!({"order": 7});
    let accepted = api.post("/v1/broadcasts", &body).await.expect(202);
    insta::with_settings!({filters => ids()}, { insta::assert_json_snapshot!("accepted", accepted) });
    api.settle(vec![
        outcome(MessageStatus::Sent, 250, "2.0.0", "queued as 4711", ""),
        outcome(MessageStatus::Deferred, 451, "4.3.0", "try later", "greylisted"),
    ])
    .await;
    let shown = api.get_broadcast(accepted["id"].as_str().unwrap()).await;
    insta::with_settings!({filters => ids()}, { insta::assert_json_snapshot!("broadcast", shown) });
    let sum: i64 = shown["counts"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_i64().unwrap())
        .sum();
    let n = |field: &str| shown[field].as_i64().unwrap();
    assert_eq!(sum, n("received") - n("rejected") - n("duplicates"));
}

async fn a_problem_is_shown_whole(api: Api) {
    let mut body = letter();
    body["recipients"] = json!(["a@example.org", "bob"]);
    body["html"] = json!("<p>\n{% if %}");
    let problem = api.post("/v1/broadcasts", &body).await.expect(422);
    insta::with_settings!({filters => ids()}, { insta::assert_json_snapshot!("problem", problem) });
}

async fn an_etag_saves_the_body(api: Api) {
    let path = format!("/v1/broadcasts/{}", api.broadcast(&["a@example.org"]).await);
    let first = api.get(&path).await;
    let tag = first.header("etag").unwrap().to_owned();
    let ask = || send(api.request(Method::GET, &path).header("If-None-Match", &tag));
    let again = ask().await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    api.act(&format!("{path}/pause")).await.expect(200);
    assert_eq!(ask().await.status.as_u16(), 200);
}

async fn messages_are_found_by_status_and_address(api: Api) {
    let id = api
        .broadcast(&["a@example.org", "b@example.org", "c@example.org"])
        .await;
    api.settle(vec![outcome(
        MessageStatus::Failed,
        550,
        "5.1.1",
        "no such user",
        "invalid_recipient",
    )])
    .await;
    let list = async |query: &str| {
        let page = api
            .get(&format!("/v1/broadcasts/{id}/messages{query}"))
            .await
            .expect(200);
        assert_eq!((&page["has_more"], &page["next"]), (&json!(false), &Value::Null));
        page["data"].as_array().unwrap().clone()
    };
    assert_eq!(list("").await.len(), 3, "queued ones too");
    assert_eq!(list("?status=queued").await.len(), 2);
    let failed = list("?status=failed").await;
    assert_eq!(failed.len(), 1);
    let email = failed[0]["email"].as_str().unwrap();
    assert_eq!(
        failed[0]["last_reply"],
        json!({"code": 550, "enhanced": "5.1.1", "text": "no such user", "class": "invalid_recipient",
               "relay": "smtp://relay.example"})
    );
    assert_eq!(list(&format!("?email={}", email.to_uppercase())).await, failed);
    assert_eq!(list(&format!("?email={email}&status=sent")).await, Vec::<Value>::new());
    assert_eq!(list("?email=nobody@example.org").await, Vec::<Value>::new());
    let everywhere = api.get(&format!("/v1/messages?email={email}")).await.expect(200);
    assert_eq!(everywhere["data"], json!(failed));
    let problem = api
        .get(&format!("/v1/broadcasts/{id}/messages?status=delivered"))
        .await
        .expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/status");
}

async fn a_message_shows_its_attempts(api: Api) {
    let id = api.broadcast(&["a@example.org"]).await;
    api.settle(vec![outcome(
        MessageStatus::Deferred,
        451,
        "4.7.1",
        "greylisted",
        "greylisted",
    )])
    .await;
    let page = api.get(&format!("/v1/broadcasts/{id}/messages")).await.expect(200);
    let message = &page["data"][0];
    assert_eq!((&message["status"], &message["attempts"]), (&json!("deferred"), &json!(1)));
    let detail = api
        .get(&format!("/v1/messages/{}", message["id"].as_str().unwrap()))
        .await
        .expect(200);
    insta::with_settings!({filters => ids()}, { insta::assert_json_snapshot!("message", detail) });
}

async fn lists_turn_their_pages(api: Api) {
    let id = api
        .broadcast(
            &(0..7)
                .map(|n| format!("r{n}@example.org"))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )
        .await;
    for _ in 0..4 {
        api.clock.advance_ms(1_000);
        api.broadcast(&["a@example.org"]).await;
    }
    api.fan_out().await;
    for (path, total) in [
        ("/v1/broadcasts".to_owned(), 5),
        (format!("/v1/broadcasts/{id}/messages"), 7),
    ] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("{path}?limit=3{after}")).await.expect(200);
            let ids = page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["id"].as_str().unwrap().to_owned());
            seen.extend(ids);
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break assert_eq!(page["has_more"], false),
            }
        }
        assert_eq!(seen.len(), total, "{path}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), total, "{path}");
    }
}

async fn the_export_holds_everybody_and_no_formula(api: Api) {
    let mut body = letter();
    body["recipients"] = (0..1_500)
        .map(|n| json!({"email": format!("r{n}@example.org"), "name": "=HYPERLINK(\"http://x.example\")"}))
        .collect();
    body["recipients"]
        .as_array_mut()
        .unwrap()
        .push(json!("+plus@example.org"));
    let accepted = api.post("/v1/broadcasts", &body).await.expect(202);
    let path = format!("/v1/broadcasts/{}/messages.csv", accepted["id"].as_str().unwrap());
    api.settle(vec![outcome(MessageStatus::Sent, 250, "2.0.0", "@ok, \"queued\"", "")])
        .await;
    let answer = api.get(&path).await;
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(
        answer
            .header("content-disposition")
            .is_some_and(|v| v.starts_with("attachment"))
    );
    let mut file = csv::Reader::from_reader(answer.text.as_bytes());
    assert_eq!(file.headers().unwrap().iter().take(4).collect::<Vec<_>>(), ["id", "email", "name", "status"]);
    let rows: Vec<csv::StringRecord> = file.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 1_501);
    assert_eq!(
        rows.iter()
            .filter(|r| &r[2] == "'=HYPERLINK(\"http://x.example\")")
            .count(),
        1_500
    );
    assert_eq!(rows.iter().filter(|r| &r[1] == "'+plus@example.org").count(), 1);
    let sent: Vec<_> = rows.iter().filter(|r| &r[3] == "sent").collect();
    assert_eq!((sent.len(), &sent[0][8]), (1, "'@ok, \"queued\""));
    let only = api.get(&format!("{path}?status=sent")).await;
    assert_eq!(only.text.lines().count(), 2);
}

async fn a_broadcast_is_paused_resumed_and_canceled(api: Api) {
    let path = format!("/v1/broadcasts/{}", api.broadcast(&["a@example.org", "b@example.org"]).await);
    let act = async |action: &str| api.act(&format!("{path}/{action}")).await.expect(200);
    let paused = api
        .post(&format!("{path}/pause"), &json!({"reason": "a typo"}))
        .await
        .expect(200);
    assert_eq!((&paused["status"], &paused["reason"]), (&json!("paused"), &json!("a typo")));
    assert_eq!(act("pause").await["status"], "paused");
    assert_eq!(act("resume").await["status"], "accepted");
    assert_eq!(act("resume").await["status"], "accepted");
    api.fan_out().await;
    let before = api.get(&path).await.expect(200)["status"].clone();
    assert_eq!(act("pause").await["status"], "paused");
    assert_eq!(act("resume").await["status"], before);
    let canceled = act("cancel").await;
    assert_eq!(
        (&canceled["status"], &canceled["counts"]["canceled"]),
        (&json!("canceled"), &json!(2)),
        "{canceled}"
    );
    assert_eq!(act("cancel").await["status"], "canceled");
}

async fn what_is_over_stays_over(api: Api) {
    let path = format!("/v1/broadcasts/{}", api.broadcast(&["a@example.org"]).await);
    api.act(&format!("{path}/cancel")).await.expect(200);
    for action in ["pause", "resume"] {
        let problem = api.act(&format!("{path}/{action}")).await.expect(409);
        assert_eq!((&problem["code"], &problem["current_status"]), (&json!("invalid_state"), &json!("canceled")));
    }
    for action in ["pause", "resume", "cancel"] {
        api.act(&format!("/v1/broadcasts/brd_00000000000000000000000000/{action}"))
            .await
            .expect(404);
    }
}

async fn workers_and_jobs_are_shown(api: Api) {
    api.broadcast(&["a@example.org"]).await;
    let jobs = api.get("/v1/jobs").await.expect(200);
    assert_eq!((&jobs["data"][0]["kind"], &jobs["data"][0]["state"]), (&json!("fan_out"), &json!("ready")));
    api.fan_out().await;
    let jobs = api.get("/v1/jobs?state=ready").await.expect(200);
    assert_eq!((&jobs["data"][0]["kind"], &jobs["data"][0]["size"]), (&json!("deliver"), &json!(1)));
    let workers = api.get("/v1/workers").await.expect(200);
    assert_eq!((&workers["data"][0]["host"], &workers["data"][0]["state"]), (&json!("post-1"), &json!("live")));
    let problem = api.act("/v1/jobs/1/release").await.expect(409);
    assert_eq!(problem["detail"], "there is no quarantined job 1");
}
