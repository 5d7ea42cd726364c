//! Who may do what: keys, scopes, and that no route was forgotten.

use hikyaku::clock::Clock;
use hikyaku::web::auth::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use super::document::operations;
use super::on_both_databases;
use super::world::{Api, send};

on_both_databases!(
    every_route_asks_for_the_scope_it_declares,
    a_revoked_key_is_refused_at_once,
    a_revoked_key_is_soon_refused_elsewhere,
    a_key_is_shown_once,
    a_wrong_key_is_told_apart_from_no_scope,
);

/// Routes that need no key, and why they may.
const OPEN: [(&str, &str); 3] = [
    ("/healthz", "a probe has no key"),
    ("/readyz", "a probe has no key"),
    ("/problems/{code}", "explains errors, tells nothing about anybody"),
];

/// A path with ids that name nothing.
fn concrete(path: &str) -> String {
    let id = match path {
        p if p.starts_with("/v1/broadcasts") => "brd_00000000000000000000000000",
        p if p.starts_with("/v1/messages") => "msg_0000000000000000",
        p if p.starts_with("/v1/templates") => "tpl_00000000000000000000000000",
        p if p.starts_with("/v1/campaigns") => "cmp_00000000000000000000000000",
        p if p.starts_with("/v1/lists") => "lst_00000000000000000000000000",
        p if p.starts_with("/v1/jobs") => "1",
        _ => "0011223344556677",
    };
    path.replace("{id}", id)
        .replace("{name}", "nothing")
        .replace("{email}", "nobody@example.org")
        .replace("{code}", "not_found")
}

async fn every_route_asks_for_the_scope_it_declares(api: Api) {
    let operations = operations();
    assert!(operations.len() > 35, "only {} operations", operations.len());
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        keys.push((scope, api.key(&[scope]).await));
    }
    for (method, path, declared) in operations {
        let request = |key: Option<&str>| {
            let request = api
                .bare(method.clone(), &concrete(&path))
                .header("Content-Type", "application/json");
            key.map_or(request.try_clone().unwrap(), |key| request.bearer_auth(key))
        };
        let Some(declared) = declared else {
            assert!(OPEN.iter().any(|(open, _)| *open == path), "{method} {path} declares no scope");
            let status = send(request(None)).await.status;
            assert!(status.is_success(), "{method} {path}: {status}");
            continue;
        };
        let nobody = send(request(None)).await;
        assert_eq!(nobody.status.as_u16(), 401, "{method} {path} without a key");
        assert!(
            nobody
                .header("www-authenticate")
                .is_some_and(|v| v.starts_with("Bearer"))
        );
        for (scope, key) in &keys {
            let answer = send(request(Some(key))).await;
            let is_refused = answer.status.as_u16() == 403;
            assert_eq!(is_refused, scope.as_str() != declared, "{method} {path} with {scope}: {}", answer.text);
            if is_refused {
                let detail = answer.json()["detail"].clone();
                assert_eq!(detail, format!("the API key lacks the scope {declared}"), "{method} {path}");
            }
        }
    }
}

async fn a_revoked_key_is_refused_at_once(api: Api) {
    let key = api.key(&[Scope::Read]).await;
    let read = || send(api.bare(Method::GET, "/v1/broadcasts").bearer_auth(&key));
    assert_eq!(read().await.status.as_u16(), 200);
    let id = key.split('_').nth(1).unwrap();
    api.delete(&format!("/v1/keys/{id}")).await.expect(204);
    assert_eq!(read().await.status.as_u16(), 401);
    api.delete(&format!("/v1/keys/{id}")).await.expect(404);
}

async fn a_revoked_key_is_soon_refused_elsewhere(api: Api) {
    let key = api.key(&[Scope::Read]).await;
    let read = || send(api.bare(Method::GET, "/v1/broadcasts").bearer_auth(&key));
    assert_eq!(read().await.status.as_u16(), 200);
    // Another node revokes it: this one is not told.
    assert!(
        api.store
            .revoke_api_key(key.split('_').nth(1).unwrap(), api.clock.now())
            .await
            .unwrap()
    );
    api.clock.advance_ms(30_000);
    assert_eq!(read().await.status.as_u16(), 401);
}

async fn a_key_is_shown_once(api: Api) {
    let made = api
        .post("/v1/keys", &json!({"name": "shop", "scopes": ["send", "read", "send"]}))
        .await
        .expect(201);
    let key = made["key"].as_str().unwrap();
    let secret = key.rsplit('_').next().unwrap();
    assert_eq!(made["scopes"], json!(["send", "read"]));
    let listed = api.get("/v1/keys").await;
    assert!(!listed.text.contains(secret) && !listed.text.contains("hash"), "{}", listed.text);
    let listed = listed.expect(200);
    assert_eq!((&listed["data"][0]["name"], &listed["data"][0]["last_used_at"]), (&json!("shop"), &Value::Null));
    for (wrong, pointer) in [
        (json!({"name": "", "scopes": ["send"]}), "#/name"),
        (json!({"name": "x", "scopes": []}), "#/scopes"),
        (json!({"name": "x", "scopes": ["send", "root"]}), "#/scopes/1"),
        (json!({"name": "x", "scopes": "send"}), "#/scopes"),
        (json!({"name": "x", "scopes": ["send"], "admin": true}), "#/admin"),
    ] {
        let problem = api.post("/v1/keys", &wrong).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}

async fn a_wrong_key_is_told_apart_from_no_scope(api: Api) {
    let key = api.key(&[Scope::Read]).await;
    let (id, secret) = key.strip_prefix("hk_").unwrap().split_once('_').unwrap();
    let other_secret = secret.replace(secret.chars().next().unwrap(), "x");
    for wrong in [
        "x".to_owned(),
        format!("hk_{id}_{other_secret}"),
        format!("hk_{id}_"),
        format!("hk_{id}"),
        format!("{key}0"),
    ] {
        let answer = send(api.bare(Method::GET, "/v1/broadcasts").bearer_auth(&wrong)).await;
        assert_eq!(answer.status.as_u16(), 401, "{wrong}");
        assert!(!answer.text.contains(secret));
    }
}
