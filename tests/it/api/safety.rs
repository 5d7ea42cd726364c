//! What a client says and learns about a broadcast that may go wrong: its canary, why it is paused, what failed, another try.

use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::safety::{Evidence, Pause, PauseKind, Step};
use serde_json::{Value, json};

use super::on_both_databases;
use super::world::{Api, letter, outcome};

on_both_databases!(
    a_canary_is_taken_and_shown,
    what_is_wrong_with_a_canary_is_pointed_at,
    an_automatic_pause_is_shown_with_its_evidence_and_resumed,
    failed_messages_are_shown_by_reason_and_tried_again,
);

async fn a_canary_is_taken_and_shown(api: Api) {
    let mut body = letter();
    body["recipients"] = json!(["a@example.org", "b@example.org"]);
    body["canary"] = json!({"first": 1, "hold_above_percent": 2});
    body["auto_pause"] = json!({"above_percent": 30});
    let id = api.post("/v1/broadcasts", &body).await.expect(202)["id"].clone();
    let shown = api.get_broadcast(id.as_str().unwrap()).await;
    assert_eq!(shown["canary"], json!({"state": "running", "size": null, "hold_above_percent": 2}));
    assert_eq!(shown["paused"], Value::Null);
    body["canary"] = Value::Null;
    body["auto_pause"] = json!(false);
    let id = api.post("/v1/broadcasts", &body).await.expect(202)["id"].clone();
    assert_eq!(api.get_broadcast(id.as_str().unwrap()).await["canary"], Value::Null);
}

async fn what_is_wrong_with_a_canary_is_pointed_at(api: Api) {
    let mut body = letter();
    body["recipients"] = json!(["a@example.org"]);
    body["canary"] = json!({"first": 0});
    body["auto_pause"] = json!("never");
    let problem = api.post("/v1/broadcasts", &body).await.expect(422);
    let pointers: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["pointer"].clone())
        .collect();
    assert_eq!(pointers, [json!("#/canary/first"), json!("#/auto_pause")], "{problem}");
}

/// A broadcast of three, two of which were refused for the domain's sake.
async fn refused(api: &Api) -> String {
    let mut body = letter();
    body["recipients"] = json!(["a@example.org", "b@example.org", "c@example.org"]);
    let id = api.post("/v1/broadcasts", &body).await.expect(202)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let unauthenticated = || outcome(MessageStatus::Failed, 550, "5.7.26", "unauthenticated", "auth_policy");
    api.settle(vec![
        unauthenticated(),
        unauthenticated(),
        outcome(MessageStatus::Sent, 250, "2.0.0", "queued", ""),
    ])
    .await;
    id
}

async fn an_automatic_pause_is_shown_with_its_evidence_and_resumed(api: Api) {
    let id = refused(&api).await;
    let evidence = Evidence {
        class: "auth_policy".into(),
        failed: 2,
        outcomes: 3,
        percent_max: 5,
        over_all: None,
        concerns_the_rest: true,
        relay: None,
        example: None,
    };
    let pause = Step::Pause(Pause {
        kind: PauseKind::Refused,
        evidence: Some(evidence),
    });
    let seen = hikyaku::domain::safety::Watched {
        safety: Default::default(),
        canary: None,
        canary_size: 0,
        canary_tried_at: None,
        seen: Default::default(),
        tally: Default::default(),
    };
    let now = hikyaku::clock::Clock::now(&api.clock);
    assert!(
        api.store
            .take_step(&id.parse().unwrap(), &seen, &pause, now)
            .await
            .unwrap()
    );
    let shown = api.get_broadcast(&id).await;
    assert_eq!(shown["status"], "paused");
    let paused = &shown["paused"];
    let told = (&paused["kind"], &paused["class"], &paused["failed"], &paused["outcomes"]);
    assert_eq!(told, (&json!("refused"), &json!("auth_policy"), &json!(2), &json!(3)));
    assert_eq!(paused["example"]["text"], "unauthenticated");
    assert!(paused["reason"].as_str().unwrap().contains("2 of the last 3"), "{paused}");
    assert!(paused["advice"].as_str().unwrap().contains("DMARC"), "{paused}");
    let message = paused["example"]["message_id"].as_str().unwrap();
    assert_eq!(api.get(&format!("/v1/messages/{message}")).await.expect(200)["status"], "failed");

    let resumed = api
        .post(&format!("/v1/broadcasts/{id}/resume"), &json!({}))
        .await
        .expect(200);
    assert_eq!((&resumed["paused"], &resumed["status"]), (&Value::Null, &json!("sending")));
    let again = api
        .post(&format!("/v1/broadcasts/{id}/pause"), &json!({"reason": "lunch"}))
        .await
        .expect(200);
    assert_eq!((&again["paused"]["kind"], &again["paused"]["reason"]), (&json!("operator"), &json!("lunch")));
    assert_eq!(again["paused"]["example"], Value::Null);
}

async fn failed_messages_are_shown_by_reason_and_tried_again(api: Api) {
    let id = refused(&api).await;
    let shown = api.get_broadcast(&id).await;
    let failures = shown["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{shown}");
    let told = (&failures[0]["class"], &failures[0]["n"], &failures[0]["may_pass_later"]);
    assert_eq!(told, (&json!("auth_policy"), &json!(2), &json!(true)));
    assert_eq!(failures[0]["example"]["code"], 550);

    let path = format!("/v1/broadcasts/{id}/retry");
    let problem = api
        .post(&path, &json!({"classes": ["auth_policy", "bad_luck"]}))
        .await
        .expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "#/classes/1");
    let none = api
        .post(&path, &json!({"classes": ["invalid_recipient"]}))
        .await
        .expect(200);
    assert_eq!(none["retried"], 0);
    let retried = api.post(&path, &json!({})).await.expect(200);
    assert_eq!(retried["retried"], 2);
    let counts = &retried["broadcast"]["counts"];
    assert_eq!((&counts["deferred"], &counts["failed"]), (&json!(2), &json!(0)));
    assert_eq!(retried["broadcast"]["failures"], json!([]));

    api.post(&format!("/v1/broadcasts/{id}/cancel"), &json!({}))
        .await
        .expect(200);
    assert_eq!(api.post(&path, &json!({})).await.expect(409)["code"], "invalid_state");
    let unknown = "/v1/broadcasts/brd_00000000000000000000000000/retry";
    api.post(unknown, &json!({})).await.expect(404);
}
