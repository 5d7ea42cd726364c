//! The Idempotency-Key: whatever is repeated, whoever is in a hurry, there is one broadcast.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::on_both_databases;
use super::world::{Answer, Api, gzip, letter, send};
use hikyaku::web::auth::Scope;

on_both_databases!(
    a_retry_gets_the_first_answer_again,
    a_key_belongs_to_one_request,
    a_packed_retry_is_the_same_request,
    keys_of_different_owners_never_meet,
    a_refused_request_does_not_use_up_its_key,
    a_hundred_at_once_make_one_broadcast,
);

fn request(api: &Api, key: &str, body: &Value) -> RequestBuilder {
    api.request(Method::POST, "/v1/broadcasts")
        .header("Idempotency-Key", key)
        .json(body)
}

fn to_anna() -> Value {
    let mut body = letter();
    body["recipients"] = json!(["anna@example.org"]);
    body
}

async fn a_retry_gets_the_first_answer_again(api: Api) {
    let first = send(request(&api, "order-7", &to_anna())).await;
    assert_eq!(first.header("idempotency-replayed"), None);
    api.clock.advance_ms(60_000);
    let again = send(request(&api, "order-7", &to_anna())).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!((again.status.as_u16(), &again.text), (202, &first.text));
    assert_eq!((api.rows("broadcasts").await, api.rows("intake").await), (1, 1));
}

async fn a_key_belongs_to_one_request(api: Api) {
    send(request(&api, "order-7", &to_anna())).await.expect(202);
    let mut other = to_anna();
    other["subject"] = json!("Another one");
    let problem = send(request(&api, "order-7", &other)).await.expect(422);
    assert_eq!(problem["code"], "idempotency_key_reused");
    send(request(&api, "order-8", &other)).await.expect(202);
    assert_eq!(api.rows("broadcasts").await, 2);
}

async fn a_packed_retry_is_the_same_request(api: Api) {
    let first = send(request(&api, "order-7", &to_anna())).await;
    let packed = api
        .request(Method::POST, "/v1/broadcasts")
        .header("Idempotency-Key", "order-7");
    let packed = packed
        .header("Content-Type", "application/json")
        .header("Content-Encoding", "gzip");
    let again = send(packed.body(gzip(to_anna().to_string().as_bytes()))).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.text, first.text);
}

async fn keys_of_different_owners_never_meet(api: Api) {
    let key = api.key(&[Scope::Send]).await;
    send(request(&api, "order-7", &to_anna())).await.expect(202);
    let other = api
        .bare(Method::POST, "/v1/broadcasts")
        .bearer_auth(key)
        .header("Idempotency-Key", "order-7");
    let mut body = to_anna();
    body["subject"] = json!("Somebody else's");
    send(other.json(&body)).await.expect(202);
    assert_eq!(api.rows("broadcasts").await, 2);
}

async fn a_refused_request_does_not_use_up_its_key(api: Api) {
    let mut wrong = to_anna();
    wrong["from"] = json!("nobody");
    send(request(&api, "order-7", &wrong)).await.expect(422);
    send(request(&api, "order-7", &to_anna())).await.expect(202);
}

async fn a_hundred_at_once_make_one_broadcast(api: Api) {
    let answers: Vec<Answer> = {
        let sent = (0..100).map(|_| tokio::spawn(send(request(&api, "order-7", &to_anna()))));
        let mut answers = Vec::new();
        for task in sent.collect::<Vec<_>>() {
            answers.push(task.await.unwrap());
        }
        answers
    };
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status.as_u16() == 202);
    assert!(!accepted.is_empty());
    assert!(accepted.iter().all(|a| a.text == accepted[0].text), "one answer for all");
    for answer in refused {
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (409, Some("1")), "{}", answer.text);
        assert_eq!(answer.json()["code"], "idempotency_key_in_flight");
    }
    assert_eq!((api.rows("broadcasts").await, api.rows("intake").await), (1, 1));
    let retried = send(request(&api, "order-7", &to_anna())).await;
    assert_eq!(retried.text, accepted[0].text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_race_make_one_broadcast() {
    let one = Api::postgres().await;
    let other = one.second_node().await;
    for round in 0..10 {
        let key = format!("order-{round}");
        let (a, b) = tokio::join!(send(request(&one, &key, &to_anna())), send(request(&other, &key, &to_anna())));
        assert_eq!((a.status.as_u16(), b.status.as_u16()), (202, 202));
        assert_eq!(a.text, b.text);
    }
    assert_eq!((one.rows("broadcasts").await, one.rows("intake").await), (10, 10));
}
