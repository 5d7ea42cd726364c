//! Relays that announce PIPELINING and do not take what is written ahead of their reply to the end of data, in every way there is.
//! Nothing but the first trial meets that: at most one message of all is in doubt, and none where the reply was read.

use serde_json::Value;

use super::{Relay, Sender, assert_once};
use crate::support::client::address;
use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite};
use crate::support::program::Place;

const RECIPIENTS: usize = 2_000;

/// Two broadcasts through 32 connections. `extra_max` copies beyond the first may the first one bring, all flagged; the second none.
async fn learns_at_the_first_sign(database: TestDatabase, mode: &str, extra_max: usize) {
    let place = Place::new();
    let relay = Relay::start("taking-back", place.path(), &[&format!("mode={mode}")]);
    let sender = Sender::start(database, &relay.url("?connections=32"));
    let ended = sender.send(RECIPIENTS).await;
    assert_eq!(ended["counts"]["sent"], RECIPIENTS, "{mode}: {ended}");
    let odd = sender.odd_messages(&ended).await;
    assert!(odd.len() <= extra_max, "{mode}: {odd:?}");
    assert!(odd.iter().all(|m| m["possible_duplicate"] == true), "{mode}: {odd:?}");
    let copies = relay.copies();
    for recipient in (0..RECIPIENTS).map(address) {
        let is_flagged = odd.iter().any(|m| m["email"] == recipient.as_str());
        let n = copies.get(&recipient).copied().unwrap_or(0);
        assert!(n == 1 || (n == 2 && is_flagged), "{mode}: {recipient} got {n}");
    }
    let flights = &sender.findings().await["flights"];
    assert_eq!(flights["value"], 0, "{mode}: {flights}");
    assert_ne!(flights["words"], "", "{mode}");

    let again = sender.send(RECIPIENTS).await;
    assert_eq!(again["counts"]["sent"], RECIPIENTS, "{mode}: {again}");
    assert_eq!(sender.odd_messages(&again).await, Vec::<Value>::new(), "{mode}: it is known by now");
    let twice: usize = relay.copies().values().map(|n| *n as usize).sum();
    let first: usize = copies.values().map(|n| *n as usize).sum();
    assert_eq!(twice - first, RECIPIENTS, "{mode}");
    sender.end();
}

macro_rules! modes {
    ($($case:ident: $mode:literal, $extra:literal;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            learns_at_the_first_sign(fresh_sqlite(), $mode, $extra).await;
        })+
    };
}

modes! {
    a_relay_that_refuses_each_command: "503", 0;
    a_relay_that_says_goodbye: "421", 0;
    a_relay_that_closes_behind_its_reply: "close", 0;
    // The reset may overtake the reply.
    a_relay_that_resets_behind_its_reply: "reset", 1;
    a_relay_that_falls_silent: "nothing", 0;
    a_relay_that_forgets_what_came_early: "forget", 0;
    a_relay_that_hangs_up_and_keeps_the_mail: "hangup-taken", 1;
    a_relay_that_hangs_up_and_loses_the_mail: "hangup-lost", 1;
    a_relay_that_resets_and_keeps_the_mail: "reset-taken", 1;
    a_relay_that_resets_and_loses_the_mail: "reset-lost", 1;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_learnt_is_kept_on_postgres_too() {
    learns_at_the_first_sign(fresh_postgres().await, "hangup-taken", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_takes_flights_gets_them() {
    let place = Place::new();
    let relay = Relay::start("taking-back", place.path(), &["mode=off"]);
    let sender = Sender::start(fresh_sqlite(), &relay.url(""));
    let ended = sender.send(RECIPIENTS).await;
    assert_eq!(ended["counts"]["sent"], RECIPIENTS, "{ended}");
    assert_eq!(sender.findings().await["flights"]["value"], 1);
    assert_once(&relay.copies(), RECIPIENTS, "off");
    sender.end();
}
