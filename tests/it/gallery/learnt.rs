//! Limits that a relay announces nowhere: each is learnt from its first refusals, costs no attempt, and is kept from then on.

use serde_json::Value;

use super::{Relay, Sender, assert_once};
use crate::pipeline::stage::eventually;
use crate::support::database::fresh_sqlite;
use crate::support::program::Place;

/// Sends through a relay with this limit; what is found out must be `value`.
async fn a_limit_is_learnt(settings: &[&str], n: usize, kind: &str, value: impl Fn(u64) -> bool) {
    let place = Place::new();
    let relay = Relay::start("taking-back", place.path(), &[&["mode=off"], settings].concat());
    let sender = Sender::start(fresh_sqlite(), &relay.url(""));
    let ended = sender.send(n).await;
    assert_eq!(ended["counts"]["sent"], n, "{settings:?}: {ended}");
    assert_eq!(sender.odd_messages(&ended).await, Vec::<Value>::new(), "{settings:?}: an attempt was burnt");
    assert_once(&relay.copies(), n, &format!("{settings:?}"));
    // It is written down beside the mail.
    eventually(async || {
        let findings = sender.findings().await;
        findings
            .get(kind)
            .and_then(|found| found["value"].as_u64())
            .is_some_and(&value)
    })
    .await;
    sender.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_session_are_learnt_wherever_the_refusal_comes() {
    for settings in [
        &["session_max=3"][..],
        &["session_max=3", "session_at=rcpt"],
        &["session_max=3", "session_at=data"],
        &["session_max=3", "session_how=421"],
    ] {
        a_limit_is_learnt(settings, 60, "session_messages", |n| n == 3).await;
    }
    a_limit_is_learnt(&["session_max=100"], 2_000, "session_messages", |n| n == 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_learnt_when_the_relay_says_so() {
    a_limit_is_learnt(&["connections_max=4"], 2_000, "connections", |n| n == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_learnt_when_the_relay_hangs_up() {
    let settings = ["connections_max=4", "connections_how=close", "delay_ms=5"];
    // One more may look open at the moment when the last is turned away.
    a_limit_is_learnt(&settings, 3_000, "connections", |n| (4..=5).contains(&n)).await;
}
