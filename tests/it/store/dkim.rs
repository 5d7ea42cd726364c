//! Keys that mail is signed with: which of them a broadcast gets, that it keeps them, and when one may go.

use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::dkim::{DkimAlgorithm, DkimKey, PrivateKey};
use hikyaku::domain::id::{BroadcastId, DkimKeyId};
use hikyaku::store::StoreError;
use hikyaku::store::queue::Wish;

use super::contract;
use super::world::{World, at, broadcast, people};

contract! {
    a_key_reads_back_and_its_selector_is_taken,
    enabling_a_key_puts_the_one_before_out_of_use,
    a_broadcast_is_signed_by_the_nearest_domain_with_enabled_keys,
    a_broadcast_keeps_the_keys_it_was_accepted_with,
    a_key_in_use_cannot_be_removed,
}

fn key(n: u128, domain: &str, algorithm: DkimAlgorithm) -> DkimKey {
    DkimKey {
        id: DkimKeyId::new(at(0), n),
        domain: domain.into(),
        selector: format!("s{n}"),
        algorithm,
        private_key: PrivateKey::new(format!("-----BEGIN PRIVATE KEY-----\n{n}\n")),
        public_key: "QUJD".into(),
        created_at: at(n as i64),
        enabled_at: None,
    }
}

/// Accepts a broadcast from this address and gives the selectors of the keys that sign it.
async fn signed_by(w: &World, n: u128, from: &str) -> (BroadcastId, Vec<String>) {
    let mut new = broadcast(n, 2);
    new.letter.from.email = EmailAddress::parse(from).unwrap();
    w.accept_new(&new, &people(2), at(5)).await;
    let selectors = selectors(w, &new.id).await;
    (new.id, selectors)
}

async fn selectors(w: &World, id: &BroadcastId) -> Vec<String> {
    let keys = w.brief(id).await.unwrap().dkim_keys;
    keys.into_iter().map(|key| key.selector).collect()
}

async fn a_key_reads_back_and_its_selector_is_taken(w: World) {
    let (first, second) = (key(2, "example.org", DkimAlgorithm::Rsa), key(1, "example.org", DkimAlgorithm::Ed25519));
    w.create_dkim_key(&first).await.unwrap();
    w.create_dkim_key(&second).await.unwrap();
    assert_eq!(w.dkim_keys().await.unwrap(), [second, first.clone()]);
    let mut again = key(3, "example.org", DkimAlgorithm::Rsa);
    again.selector = first.selector;
    let refused = w.create_dkim_key(&again).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("s2")), "{refused:?}");
    again.domain = "example.net".into();
    w.create_dkim_key(&again).await.unwrap();
}

async fn enabling_a_key_puts_the_one_before_out_of_use(w: World) {
    let keys = [
        key(1, "example.org", DkimAlgorithm::Rsa),
        key(2, "example.org", DkimAlgorithm::Rsa),
        key(3, "example.org", DkimAlgorithm::Ed25519),
        key(4, "example.net", DkimAlgorithm::Rsa),
    ];
    for key in &keys {
        w.create_dkim_key(key).await.unwrap();
    }
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| *n != 1) {
        assert!(w.enable_dkim_key(&key.id, at(10 + n as i64)).await.unwrap());
    }
    assert!(w.enable_dkim_key(&keys[0].id, at(99)).await.unwrap(), "once more changes nothing");
    let enabled = async || -> Vec<_> {
        let keys = w.dkim_keys().await.unwrap();
        keys.into_iter()
            .filter_map(|k| Some((k.selector, k.enabled_at?)))
            .collect()
    };
    assert_eq!(enabled().await, [("s4".into(), at(13)), ("s1".into(), at(10)), ("s3".into(), at(12))]);
    assert!(w.enable_dkim_key(&keys[1].id, at(20)).await.unwrap());
    assert_eq!(enabled().await, [("s4".into(), at(13)), ("s2".into(), at(20)), ("s3".into(), at(12))]);
    assert!(w.disable_dkim_key(&keys[1].id).await.unwrap());
    assert_eq!(enabled().await, [("s4".into(), at(13)), ("s3".into(), at(12))]);
    let nobody = DkimKeyId::new(at(0), 9);
    assert!(!w.enable_dkim_key(&nobody, at(20)).await.unwrap());
    assert!(!w.disable_dkim_key(&nobody).await.unwrap());
}

async fn a_broadcast_is_signed_by_the_nearest_domain_with_enabled_keys(w: World) {
    for (n, domain, enabled) in [
        (1, "example.org", true),
        (2, "news.example.org", true),
        (3, "deep.news.example.org", false),
        (4, "example.net", true),
    ] {
        let key = key(n, domain, DkimAlgorithm::Rsa);
        w.create_dkim_key(&key).await.unwrap();
        if enabled {
            w.enable_dkim_key(&key.id, at(0)).await.unwrap();
        }
    }
    let second = key(5, "news.example.org", DkimAlgorithm::Ed25519);
    w.create_dkim_key(&second).await.unwrap();
    w.enable_dkim_key(&second.id, at(0)).await.unwrap();
    for (n, (from, selectors)) in (1..).zip([
        ("a@deep.news.example.org", vec!["s2", "s5"]),
        ("a@news.example.org", vec!["s2", "s5"]),
        ("a@other.example.org", vec!["s1"]),
        ("a@example.org", vec!["s1"]),
        ("a@notexample.org", vec![]),
        ("a@example.com", vec![]),
    ]) {
        assert_eq!(signed_by(&w, n, from).await.1, selectors, "{from}");
    }
}

async fn a_broadcast_keeps_the_keys_it_was_accepted_with(w: World) {
    let (unsigned, none) = signed_by(&w, 1, "a@example.org").await;
    let old = key(1, "example.org", DkimAlgorithm::Rsa);
    w.create_dkim_key(&old).await.unwrap();
    w.enable_dkim_key(&old.id, at(0)).await.unwrap();
    let (signed, by_old) = signed_by(&w, 2, "a@example.org").await;
    let new = key(2, "example.org", DkimAlgorithm::Rsa);
    w.create_dkim_key(&new).await.unwrap();
    w.enable_dkim_key(&new.id, at(9)).await.unwrap();
    assert_eq!(selectors(&w, &unsigned).await, none);
    assert_eq!((none.len(), by_old), (0, vec!["s1".to_owned()]));
    assert_eq!(selectors(&w, &signed).await, ["s1"]);
    assert_eq!(signed_by(&w, 3, "a@example.org").await.1, ["s2"]);
    w.disable_dkim_key(&new.id).await.unwrap();
    assert_eq!(signed_by(&w, 4, "a@example.org").await.1, Vec::<String>::new());
}

async fn a_key_in_use_cannot_be_removed(w: World) {
    let used = key(1, "example.org", DkimAlgorithm::Rsa);
    w.create_dkim_key(&used).await.unwrap();
    w.enable_dkim_key(&used.id, at(0)).await.unwrap();
    let (id, _) = signed_by(&w, 1, "a@example.org").await;
    let refused = w.remove_dkim_key(&used.id).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains(id.as_str())), "{refused:?}");
    assert_eq!(selectors(&w, &id).await, ["s1"]);
    w.control(&id, &Wish::Cancel, at(6)).await.unwrap();
    assert!(w.remove_dkim_key(&used.id).await.unwrap());
    assert!(!w.remove_dkim_key(&used.id).await.unwrap());
    // Nobody composes for a broadcast that is over; who tries is told why it cannot be done.
    let gone = w.brief(&id).await;
    assert!(matches!(&gone, Err(StoreError::Corrupt(why)) if why.contains("was removed")), "{gone:?}");
}
