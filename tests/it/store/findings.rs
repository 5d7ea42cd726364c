//! What was found out about relays: one worker of all tries a thing, all know what it found, and nothing holds for ever.

use hikyaku::domain::finding::{FINDING_KEPT_MS, Finding, FindingKind};
use hikyaku::domain::relay::RelaySpec;
use hikyaku::domain::time::Timestamp;
use hikyaku::store::findings::Found;
use hikyaku::store::pacing::RelayAt;

use super::contract;
use super::world::{LEASE_MS, World, at};

contract! {
    one_worker_that_lives_tries_a_relay,
    what_was_found_is_known_to_all_until_its_week_is_over,
    a_smaller_limit_stays_until_its_week_is_over,
    what_is_doubted_or_forgotten_is_tried_anew,
    who_knows_an_earlier_relay_finds_nothing_out,
}

const HERE: &str = "mail.example.org:25";
const FLIGHTS: FindingKind = FindingKind::Flights;

async fn put(w: &World) -> RelayAt {
    let relay = w
        .put_relay("r", &RelaySpec::of("smtp://mail.example.org:25"), at(0))
        .await
        .unwrap();
    RelayAt {
        id: relay.id,
        version: relay.version,
    }
}

fn found(kind: FindingKind, value: Option<i64>) -> Found {
    Found {
        kind,
        address: HERE.into(),
        value,
        words: "503 too early".into(),
    }
}

async fn only(w: &World) -> Finding {
    let mut all = w.findings().await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

async fn one_worker_that_lives_tries_a_relay(w: World) {
    let relay = put(&w).await;
    let (first, second) = (w.worker(at(0)).await, w.worker(at(0)).await);
    let other = w.open_again().await;
    assert!(w.try_out(relay, FLIGHTS, HERE, first, at(1)).await.unwrap());
    assert!(!other.try_out(relay, FLIGHTS, HERE, second, at(2)).await.unwrap(), "another one tries");
    assert_eq!((only(&w).await.value, only(&w).await.trial_worker), (None, Some(first)));
    assert!(
        other
            .try_out(relay, FindingKind::Windows, HERE, second, at(2))
            .await
            .unwrap(),
        "another thing"
    );
    w.give_up_trial(relay.id, FindingKind::Windows, first).await.unwrap();
    assert_eq!(w.findings().await.unwrap().len(), 2, "it was not its own");
    w.give_up_trial(relay.id, FindingKind::Windows, second).await.unwrap();
    assert_eq!(only(&w).await.kind, FLIGHTS);
    let lapsed = at(0).plus_ms(LEASE_MS);
    assert!(other.try_out(relay, FLIGHTS, HERE, second, lapsed).await.unwrap(), "the first one is gone");
}

async fn what_was_found_is_known_to_all_until_its_week_is_over(w: World) {
    let relay = put(&w).await;
    let worker = w.worker(at(0)).await;
    let mut wakeups = w.wakeups();
    wakeups.mark_unchanged();
    assert!(w.write_finding(relay, &found(FLIGHTS, Some(0)), at(5)).await.unwrap());
    assert!(wakeups.has_changed().unwrap());
    let known = w.open_again().await.findings().await.unwrap().remove(0);
    assert_eq!((known.value, known.words.as_str(), known.found_at), (Some(0), "503 too early", at(5)));
    let week = at(5).plus_ms(FINDING_KEPT_MS);
    let try_at = async |address: &str, now: Timestamp| w.try_out(relay, FLIGHTS, address, worker, now).await.unwrap();
    assert!(!try_at(HERE, at(4).plus_ms(FINDING_KEPT_MS)).await, "refused");
    assert!(try_at(HERE, week).await);
    assert!(w.write_finding(relay, &found(FLIGHTS, Some(1)), week).await.unwrap());
    assert!(!try_at(HERE, week.plus_ms(9 * FINDING_KEPT_MS)).await, "what is taken stays taken");
    assert!(try_at("other.example.org:25", week).await, "elsewhere nothing is known");
}

async fn a_smaller_limit_stays_until_its_week_is_over(w: World) {
    let relay = put(&w).await;
    let write = async |n, now| {
        let limit = found(FindingKind::SessionMessages, Some(n));
        w.write_finding(relay, &limit, now).await.unwrap()
    };
    assert!(write(100, at(0)).await);
    assert!(write(50, at(1)).await);
    assert!(!write(80, at(2)).await, "fifty were too many for somebody");
    assert_eq!(only(&w).await.value, Some(50));
    assert!(write(80, at(1).plus_ms(FINDING_KEPT_MS)).await);
    assert_eq!(only(&w).await.value, Some(80));
}

async fn what_is_doubted_or_forgotten_is_tried_anew(w: World) {
    let relay = put(&w).await;
    let worker = w.worker(at(0)).await;
    w.write_finding(relay, &found(FLIGHTS, Some(1)), at(0)).await.unwrap();
    assert!(w.write_finding(relay, &found(FLIGHTS, None), at(1)).await.unwrap());
    assert_eq!(w.findings().await.unwrap(), []);
    w.write_finding(relay, &found(FLIGHTS, Some(0)), at(2)).await.unwrap();
    assert!(!w.write_finding(relay, &found(FLIGHTS, None), at(3)).await.unwrap(), "a refusal is no doubt");
    w.write_finding(relay, &found(FindingKind::Connections, Some(4)), at(3))
        .await
        .unwrap();
    assert_eq!(w.forget_findings(relay.id).await.unwrap(), 2);
    assert!(w.try_out(relay, FLIGHTS, HERE, worker, at(4)).await.unwrap());
}

async fn who_knows_an_earlier_relay_finds_nothing_out(w: World) {
    let before = put(&w).await;
    let worker = w.worker(at(0)).await;
    put(&w).await;
    assert!(!w.try_out(before, FLIGHTS, HERE, worker, at(1)).await.unwrap());
    assert!(!w.write_finding(before, &found(FLIGHTS, Some(0)), at(1)).await.unwrap());
    assert_eq!(w.findings().await.unwrap(), []);
}
