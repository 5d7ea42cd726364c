//! Keys, users, sessions and settings: what expires, and what only one of many may take.

use hikyaku::store::StoreError;
use hikyaku::store::access::ApiKey;
use tokio::task::JoinSet;

use super::contract;
use super::world::{World, at};

contract! {
    an_api_key_reads_back_and_can_be_revoked_once,
    an_address_has_one_account,
    sessions_expire,
    a_session_ends_when_asked,
    expired_sessions_are_swept_with_the_next_login,
    a_setting_is_taken_by_one_of_many,
    all_who_insert_a_setting_at_once_agree,
    a_setting_is_replaced,
}

async fn an_api_key_reads_back_and_can_be_revoked_once(w: World) {
    let key = ApiKey {
        id: "hk_1".into(),
        name: "The shop's \"button\"".into(),
        secret_hash: "00ff".into(),
        scopes: vec!["send".into(), "read".into()],
        created_at: at(0),
        last_used_at: None,
        revoked_at: None,
    };
    w.create_api_key(&key).await.unwrap();
    let again = w.create_api_key(&key).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    w.touch_api_key("hk_1", at(5)).await.unwrap();
    assert!(w.revoke_api_key("hk_1", at(6)).await.unwrap());
    assert!(!w.revoke_api_key("hk_1", at(7)).await.unwrap());
    assert!(!w.revoke_api_key("hk_2", at(7)).await.unwrap());
    let stored = w.api_key("hk_1").await.unwrap().expect("it is stored");
    assert_eq!((&stored.name, &stored.scopes, &stored.secret_hash), (&key.name, &key.scopes, &key.secret_hash));
    assert_eq!((stored.last_used_at, stored.revoked_at), (Some(at(5)), Some(at(6))));
    assert!(w.api_key("hk_2").await.unwrap().is_none());
    let older = ApiKey {
        id: "hk_0".into(),
        created_at: at(-1),
        ..key
    };
    w.create_api_key(&older).await.unwrap();
    let ids: Vec<String> = w.api_keys().await.unwrap().into_iter().map(|k| k.id).collect();
    assert_eq!(ids, ["hk_0", "hk_1"]);
}

async fn an_address_has_one_account(w: World) {
    assert_eq!(w.count_users().await.unwrap(), 0);
    let user = w.create_user("anna@example.org", "hash", at(0)).await.unwrap();
    let again = w.create_user("anna@example.org", "other", at(1)).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    let found = w
        .user_by_email("anna@example.org")
        .await
        .unwrap()
        .expect("it is stored");
    assert_eq!((found.id, found.password_hash.as_str()), (user.id, "hash"));
    assert!(w.user_by_email("bob@example.org").await.unwrap().is_none());
    assert_eq!(w.count_users().await.unwrap(), 1);
}

async fn sessions_expire(w: World) {
    let user = w.create_user("anna@example.org", "hash", at(0)).await.unwrap();
    w.create_session("token", user.id, at(1_000), at(0)).await.unwrap();
    let found = w.session_user("token", at(999)).await.unwrap().expect("it is good");
    assert_eq!(found.email, "anna@example.org");
    assert!(w.session_user("token", at(1_000)).await.unwrap().is_none());
    assert!(w.session_user("other", at(0)).await.unwrap().is_none());
}

async fn a_session_ends_when_asked(w: World) {
    let user = w.create_user("anna@example.org", "hash", at(0)).await.unwrap();
    for token in ["one", "other"] {
        w.create_session(token, user.id, at(1_000), at(0)).await.unwrap();
    }
    w.end_session("one").await.unwrap();
    w.end_session("one").await.unwrap();
    assert!(w.session_user("one", at(1)).await.unwrap().is_none());
    assert!(w.session_user("other", at(1)).await.unwrap().is_some());
}

async fn expired_sessions_are_swept_with_the_next_login(w: World) {
    let user = w.create_user("anna@example.org", "hash", at(0)).await.unwrap();
    w.create_session("old", user.id, at(10), at(0)).await.unwrap();
    w.create_session("new", user.id, at(100), at(11)).await.unwrap();
    assert_eq!(w.sql("SELECT token_hash FROM sessions").await, ["new"]);
}

async fn a_setting_is_taken_by_one_of_many(w: World) {
    w.put_setting("setup_token", "hash").await.unwrap();
    assert!(!w.take_setting("setup_token", "guess").await.unwrap());
    let mut takers = JoinSet::new();
    for _ in 0..16 {
        let store = w.share();
        takers.spawn(async move { store.take_setting("setup_token", "hash").await.unwrap() });
    }
    let taken = takers.join_all().await.into_iter().filter(|taken| *taken).count();
    assert_eq!(taken, 1);
    assert_eq!(w.setting("setup_token").await.unwrap(), None);
}

async fn all_who_insert_a_setting_at_once_agree(w: World) {
    let mut nodes = JoinSet::new();
    for n in 0..16 {
        let store = w.share();
        nodes.spawn(async move { store.setting_or_insert("secret", &format!("value {n}")).await.unwrap() });
    }
    let answers = nodes.join_all().await;
    let stored = w.setting("secret").await.unwrap().expect("it is stored");
    assert!(answers.iter().all(|answer| *answer == stored), "{answers:?}");
}

async fn a_setting_is_replaced(w: World) {
    for value in ["one", "it's \"two\""] {
        w.put_setting("name", value).await.unwrap();
        assert_eq!(w.setting("name").await.unwrap().as_deref(), Some(value));
    }
}
