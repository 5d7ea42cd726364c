//! A table of wrong requests: each gets its status, its pointer and a sentence that names the fix, and none leaves a trace.

use reqwest::Method;
use serde_json::{Value, json};

mod bodies;
mod letters;

use bodies::{audiences, bodies};
use letters::{letters, options};

use super::on_both_databases;
use super::world::{Api, letter, send};

on_both_databases!(every_wrong_request_is_told_what_is_wrong, every_wrong_item_is_listed_up_to_twenty);

/// A wrong request and the answer it must get.
struct Case {
    name: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    pointer: &'static str,
    code: &'static str,
    /// Part of the sentence.
    says: &'static str,
}

/// A JSON request that is right but for one change.
fn changed(name: &'static str, change: Value, pointer: &'static str, code: &'static str, says: &'static str) -> Case {
    let mut body = letter();
    body["recipients"] = json!(["anna@example.org"]);
    for (field, value) in change.as_object().unwrap() {
        body[field] = value.clone();
    }
    raw(name, "application/json", body.to_string(), 422, (pointer, code, says))
}

/// A request with a body of any type.
fn raw(
    name: &'static str,
    content_type: &str,
    body: impl Into<Vec<u8>>,
    status: u16,
    (pointer, code, says): (&'static str, &'static str, &'static str),
) -> Case {
    let headers = vec![("Content-Type", content_type.to_owned())];
    Case {
        name,
        path: "/v1/broadcasts",
        headers,
        body: body.into(),
        status,
        pointer,
        code,
        says,
    }
}

fn with_header(mut case: Case, name: &'static str, value: impl Into<String>) -> Case {
    case.headers.push((name, value.into()));
    case
}

async fn every_wrong_request_is_told_what_is_wrong(api: Api) {
    let cases: Vec<Case> = [letters(), options(), audiences(), bodies()]
        .into_iter()
        .flatten()
        .collect();
    assert!(cases.len() >= 60, "the table has {} rows", cases.len());
    for case in cases {
        let mut request = api.request(Method::POST, case.path);
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        let answer = send(request.body(case.body)).await;
        assert_eq!(answer.status.as_u16(), case.status, "{}: {}", case.name, answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", case.name);
        let problem = answer.json();
        assert_eq!(problem["status"], case.status);
        assert_eq!(answer.header("x-request-id"), problem["request_id"].as_str());
        if case.pointer.is_empty() {
            assert_eq!(problem["code"], case.code, "{}", case.name);
            assert!(problem["detail"].as_str().unwrap().contains(case.says), "{}: {problem}", case.name);
            continue;
        }
        let first = &problem["errors"][0];
        assert_eq!(
            (&first["pointer"], &first["code"]),
            (&json!(case.pointer), &json!(case.code)),
            "{}: {problem}",
            case.name
        );
        assert!(first["detail"].as_str().unwrap().contains(case.says), "{}: {problem}", case.name);
    }
    api.nothing_is_stored("all wrong requests").await;
}

async fn every_wrong_item_is_listed_up_to_twenty(api: Api) {
    let mut body = letter();
    body["from"] = json!("nobody");
    body["recipients"] = (0..50).map(|n| json!(format!("r{n}"))).collect();
    let problem = api.post("/v1/broadcasts", &body).await.expect(422);
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 20);
    assert_eq!((&errors[0]["pointer"], &errors[19]["pointer"]), (&json!("#/from"), &json!("#/recipients/18/email")));
    assert_eq!(problem["detail"], "51 fields are wrong; the first 20 are listed");
    api.nothing_is_stored("many wrong recipients").await;
}
