//! The OpenAPI document, and the plain truths about routes: it parses, it names every operation, it refers to nothing
//! that is missing.

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{Api, send};

/// Every operation of the document: method, path, and the scope it declares.
pub fn operations() -> Vec<(Method, String, Option<String>)> {
    let document: Value = serde_json::from_str(&hikyaku::web::api::openapi()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else {
                continue;
            };
            let scope = operation["security"][0]["api_key"][0].as_str().map(ToOwned::to_owned);
            found.push((method, path.clone(), scope));
        }
    }
    found
}

#[test]
fn the_document_names_every_operation_once() {
    let document: Value = serde_json::from_str(&hikyaku::web::api::openapi()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut ids = Vec::new();
    for (method, path, _) in operations() {
        let operation = &document["paths"][&path][method.as_str().to_lowercase()];
        assert!(operation["summary"].as_str().is_some_and(|s| s.len() > 8), "{method} {path} has no summary");
        ids.push(operation["operationId"].as_str().unwrap().to_owned());
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "two operations share an id");
    let listed: Vec<String> = operations()
        .into_iter()
        .map(|(m, p, s)| format!("{m} {p} {}", s.unwrap_or_else(|| "(open)".to_owned())))
        .collect();
    insta::assert_snapshot!(listed.join("\n"));
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document: Value = serde_json::from_str(&hikyaku::web::api::openapi()).unwrap();
    let mut open = vec![&document];
    let mut n = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                    let pointer = target.strip_prefix('#').expect("references stay inside");
                    assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
                    n += 1;
                }
                open.extend(map.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    assert!(n > 50, "only {n} references were followed");
}

#[tokio::test]
async fn a_running_server_gives_the_same_document() {
    let api = Api::sqlite().await;
    let served = send(api.bare(Method::GET, "/openapi.json")).await.expect(200);
    assert_eq!(served, serde_json::from_str::<Value>(&hikyaku::web::api::openapi()).unwrap());
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let api = Api::sqlite().await;
    let problem = api.get("/v1/nothing/here").await.expect(404);
    assert_eq!((&problem["code"], &problem["instance"]), (&json!("not_found"), &json!("/v1/nothing/here")));
    let answer = api.delete("/v1/broadcasts").await;
    assert!(answer.header("allow").is_some_and(|a| a.contains("POST")));
    assert_eq!(answer.expect(405)["code"], "method_not_allowed");
    for path in [
        "/v1/broadcasts/brd_00000000000000000000000000",
        "/v1/broadcasts/brd_x",
        "/v1/broadcasts/tpl_00000000000000000000000000",
        "/v1/broadcasts/brd_00000000000000000000000000/messages",
        "/v1/broadcasts/brd_00000000000000000000000000/messages.csv",
        "/v1/broadcasts/%00",
        "/v1/broadcasts/%ff",
        "/v1/messages/msg_0000000000000000",
        "/v1/templates/tpl_00000000000000000000000000",
        "/v1/campaigns/cmp_00000000000000000000000000",
        "/v1/lists/lst_00000000000000000000000000",
        "/v1/contacts/nobody@example.org",
        "/v1/suppressions/nobody@example.org",
        "/problems/nothing",
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        assert_eq!(answer.expect(404)["code"], "not_found", "{path}");
    }
    for (path, pointer) in [
        ("/v1/broadcasts?limit=0", "#/limit"),
        ("/v1/broadcasts?limit=501", "#/limit"),
        ("/v1/broadcasts?limit=many", "#/limit"),
        ("/v1/broadcasts?page=2", "#/page"),
        ("/v1/broadcasts?after=%00", "#/after"),
        ("/v1/messages?email=bob", "#/email"),
        ("/v1/jobs?state=lost", "#/state"),
        ("/v1/contacts?list_id=friends", "#/list_id"),
    ] {
        let problem = api.get(path).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{path}: {problem}");
    }
}

#[tokio::test]
async fn each_problem_is_explained_where_its_type_points() {
    let api = Api::sqlite().await;
    let problem = send(api.bare(Method::GET, "/v1/broadcasts")).await.expect(401);
    let explained = send(api.bare(Method::GET, problem["type"].as_str().unwrap())).await;
    assert_eq!(explained.status.as_u16(), 200);
    assert!(explained.text.contains("Authorization: Bearer"), "{}", explained.text);
    assert_eq!(explained.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn a_decent_request_id_is_kept_and_another_replaced() {
    let api = Api::sqlite().await;
    let with = |id: &str| send(api.bare(Method::GET, "/healthz").header("X-Request-Id", id));
    assert_eq!(with("abc-123").await.header("x-request-id"), Some("abc-123"));
    let replaced = with("a b<script>").await;
    assert!(replaced.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
    assert_eq!(api.get("/readyz").await.expect(200), json!({"status": "ok"}));
}
