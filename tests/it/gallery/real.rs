//! Servers that people run, with their default settings: each takes every message once, at the first try, however it likes to be spoken
//! to, and what it does not like is found out without harm.

use serde_json::json;

use super::{Relay, Sender, assert_once};
use crate::support::client::address;
use crate::support::database::fresh_sqlite;
use crate::support::program::Place;

const RECIPIENTS: usize = 2_000;
/// For each option beside the default.
const FEWER: usize = 500;

/// By its default URL, with a recipient that it refuses among the others; then without PIPELINING, and with windows of CHUNKING where it
/// announces them.
async fn every_message_once(name: &'static str, options: &[&str]) {
    let place = Place::new();
    let relay = Relay::start(name, place.path(), &[]);
    let sender = Sender::start(fresh_sqlite(), &relay.url(""));
    let ended = sender.send(RECIPIENTS).await;
    assert_eq!(ended["counts"]["sent"], RECIPIENTS, "{name}: {ended}");
    assert_eq!(sender.odd_messages(&ended).await, Vec::<serde_json::Value>::new(), "{name}");
    assert_once(&relay.copies(), RECIPIENTS, name);
    sender.end();
    drop(relay);
    for option in options {
        let place = Place::new();
        let relay = Relay::start(name, place.path(), &[]);
        let sender = Sender::start(fresh_sqlite(), &relay.url(option));
        let ended = sender.send(FEWER).await;
        let case = format!("{name}{option}");
        assert_eq!(ended["counts"]["sent"], FEWER, "{case}: {ended}");
        assert_eq!(sender.odd_messages(&ended).await, Vec::<serde_json::Value>::new(), "{case}");
        assert_once(&relay.copies(), FEWER, &case);
        sender.end();
    }
}

/// One recipient is refused in the server's own way, and the others get theirs.
async fn a_refused_recipient_is_nobody_elses_trouble(name: &'static str) {
    let place = Place::new();
    let refused = address(7);
    let relay = Relay::start(name, place.path(), &[&format!("refuse={refused}")]);
    let sender = Sender::start(fresh_sqlite(), &relay.url(""));
    let ended = sender.send(100).await;
    assert_eq!((&ended["counts"]["sent"], &ended["counts"]["failed"]), (&json!(99), &json!(1)), "{name}: {ended}");
    let copies = relay.copies();
    assert_eq!((copies.len(), copies.get(&refused)), (99, None), "{name}");
    sender.end();
}

/// It goes away in the middle and comes back: nobody is lost, and a second copy is flagged.
async fn a_restart_loses_nobody(name: &'static str) {
    let place = Place::new();
    let mut relay = Relay::start(name, place.path(), &[]);
    let sender = Sender::start(fresh_sqlite(), &relay.url(""));
    let id = sender.client.send_to(RECIPIENTS).await;
    sender
        .client
        .until(&id, |seen| seen["counts"]["sent"].as_u64() > Some(200))
        .await;
    relay.restart(|| ());
    let ended = sender.client.until_completed(&id).await;
    assert_eq!(ended["counts"]["sent"], RECIPIENTS, "{name}: {ended}");
    let odd = sender.odd_messages(&ended).await;
    let flagged: Vec<&str> = odd
        .iter()
        .filter(|m| m["possible_duplicate"] == true)
        .map(|m| m["email"].as_str().unwrap())
        .collect();
    let copies = relay.copies();
    for recipient in (0..RECIPIENTS).map(address) {
        match copies.get(&recipient) {
            Some(1) => {}
            Some(_) => assert!(flagged.contains(&recipient.as_str()), "{name}: {recipient} got two, unflagged"),
            // A server that is killed may lose what it has just taken; what it did not say it took, it gets again.
            None => assert!(name == "haraka" || name == "smtp-server", "{name}: {recipient} got none"),
        }
    }
    assert!(flagged.len() <= 8, "{name}: more in doubt than connections: {}", flagged.len());
    sender.end();
}

/// One test for each server.
macro_rules! gallery {
    ($($case:ident: $story:ident($name:literal $(, $option:expr)?);)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $story($name $(, $option)?).await;
        })+
    };
}

const PLAIN: &[&str] = &["?pipelining=off"];
const REPORTS: &[&str] = &["?dsn=failure,delay"];
const PLAIN_REPORTS: &[&str] = &["?pipelining=off", "?dsn=failure,delay"];
const WINDOWS: &[&str] = &["?pipelining=off", "?chunking=8"];
const WINDOWS_REPORTS: &[&str] = &["?pipelining=off", "?chunking=8", "?dsn=failure,delay"];
/// It has made its certificate itself.
const WINDOWS_TLS: &[&str] = &["?pipelining=off", "?chunking=8", "?tls=starttls&verify=no"];

gallery! {
    haraka_gets_every_message_once: every_message_once("haraka", PLAIN);
    smtp_server_gets_every_message_once: every_message_once("smtp-server", PLAIN);
    opensmtpd_gets_every_message_once: every_message_once("opensmtpd", REPORTS);
    exim_gets_every_message_once: every_message_once("exim", WINDOWS_TLS);
    sendmail_gets_every_message_once: every_message_once("sendmail", PLAIN_REPORTS);
    courier_gets_every_message_once: every_message_once("courier", REPORTS);
    qpsmtpd_gets_every_message_once: every_message_once("qpsmtpd", PLAIN);
    dovecot_gets_every_message_once: every_message_once("dovecot", WINDOWS);
    postfix_gets_every_message_once: every_message_once("postfix", WINDOWS_REPORTS);
    postfix_behind_postscreen_gets_every_message_once: every_message_once("postfix-postscreen", &[]);
    postfix_behind_a_filter_gets_every_message_once: every_message_once("postfix-proxy-filter", &[]);
    aiosmtpd_gets_every_message_once: every_message_once("aiosmtpd", &[]);
    smtp_sink_gets_every_message_once: every_message_once("smtp-sink", PLAIN_REPORTS);

    haraka_may_refuse_somebody: a_refused_recipient_is_nobody_elses_trouble("haraka");
    smtp_server_may_refuse_somebody: a_refused_recipient_is_nobody_elses_trouble("smtp-server");
    exim_may_refuse_somebody: a_refused_recipient_is_nobody_elses_trouble("exim");
    opensmtpd_may_refuse_somebody: a_refused_recipient_is_nobody_elses_trouble("opensmtpd");
    sendmail_may_refuse_somebody: a_refused_recipient_is_nobody_elses_trouble("sendmail");
    dovecot_may_refuse_somebody: a_refused_recipient_is_nobody_elses_trouble("dovecot");
    qpsmtpd_may_refuse_somebody: a_refused_recipient_is_nobody_elses_trouble("qpsmtpd");
    postfix_may_refuse_somebody: a_refused_recipient_is_nobody_elses_trouble("postfix");
    aiosmtpd_may_refuse_somebody: a_refused_recipient_is_nobody_elses_trouble("aiosmtpd");

    haraka_may_restart: a_restart_loses_nobody("haraka");
    smtp_server_may_restart: a_restart_loses_nobody("smtp-server");
    exim_may_restart: a_restart_loses_nobody("exim");
    opensmtpd_may_restart: a_restart_loses_nobody("opensmtpd");
    postfix_may_restart: a_restart_loses_nobody("postfix");
    sendmail_may_restart: a_restart_loses_nobody("sendmail");
    courier_may_restart: a_restart_loses_nobody("courier");
    dovecot_may_restart: a_restart_loses_nobody("dovecot");
}

/// Postscreen's later tests turn each recipient of a new client's first connection away for now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postscreen_turns_a_stranger_away_once() {
    let place = Place::new();
    let relay = Relay::start("postfix-postscreen-deep", place.path(), &[]);
    let sender = Sender::start(fresh_sqlite(), &relay.url(""));
    let ended = sender.send(FEWER).await;
    assert_eq!(ended["counts"]["sent"], FEWER, "{ended}");
    assert_eq!(ended["possible_duplicates"], 0, "{ended}");
    assert_once(&relay.copies(), FEWER, "postscreen");
    sender.end();
}
