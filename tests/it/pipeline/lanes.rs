//! Lanes by mail exchanger: who shares a provider's pace, and that nobody waits for the DNS. A name server of our own on loopback.

use std::sync::Arc;

use hikyaku::clock::{ManualClock, SystemClock};
use hikyaku::dns::Dns;
use hikyaku::domain::relay::{LaneLimit, Limits};
use hikyaku::domain::time::Timestamp;
use hikyaku::pipeline::deliver::lanes::Lanes;

use super::stage::{Plan, Stage, eventually, people, to};
use super::stories;
use crate::support::database::{TestDatabase, fresh_sqlite};
use crate::support::names::{Mood, NameServer};

stories!(customers_of_a_provider_share_its_pace);

async fn customers_of_a_provider_share_its_pace(database: TestDatabase) {
    let names = NameServer::start().await;
    let plan = Plan {
        dns: Some(Dns::of(Some(names.addr()))),
        ..Plan::default()
    };
    let customer = |n: usize| format!("customer{n}.example");
    for n in 0..30 {
        names.exchangers(&customer(n), &[(10, "aspmx.l.google.com"), (20, "mx.elsewhere.example")]);
    }
    let stage = Stage::open(database, plan).await;
    let google = LaneLimit {
        lane: "google".into(),
        limits: Limits {
            per_day: Some(3),
            ..Limits::default()
        },
        connections: None,
    };
    stage.put_relay("sink", |spec| spec.lanes = vec![google]).await;
    let worker = stage.hire_as_it_is(Arc::clone(&stage.store));
    eventually(async || (0..30).all(|n| worker.lanes.of(&customer(n)) == "google")).await;

    let mut all: Vec<_> = (0..60).map(|n| to(&format!("s{n}@{}", customer(n % 30)))).collect();
    all.extend(people(100));
    let id = stage.send(all).await;
    stage.accepted(103).await;
    eventually(async || stage.n_running(&id).await == 0).await;
    let counts = stage.broadcast(&id).await.counts;
    assert_eq!((counts.sent, counts.queued), (103, 57), "all customers together have the provider's three a day");
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_dns_holds_nobody_up() {
    let names = NameServer::start().await;
    names.behave(Mood::Silent);
    let plan = Plan {
        dns: Some(Dns::of(Some(names.addr()))),
        ..Plan::default()
    };
    let stage = Stage::open(fresh_sqlite(), plan).await;
    let worker = stage.hire().await;
    let id = stage.send(people(500)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 500);
    worker.end().await;
}

#[tokio::test]
async fn a_domain_is_its_own_lane_until_its_exchangers_are_known() {
    let names = NameServer::start().await;
    names.exchangers("customer.example", &[(5, "customer-example.mail.protection.outlook.com")]);
    names.exchangers("own.example", &[(10, "mx.own.example"), (20, "aspmx.l.google.com")]);
    names.exchangers("no-mail.example", &[(0, ".")]);
    let lanes = Lanes::new(Some(Dns::of(Some(names.addr()))), Arc::new(SystemClock));
    assert_eq!(lanes.of("customer.example"), "customer.example");
    eventually(async || lanes.of("customer.example") == "microsoft").await;
    for domain in ["own.example", "no-mail.example", "nowhere.example"] {
        assert_eq!(lanes.of(domain), domain);
        eventually(async || names.asked(domain) > 0).await;
        assert_eq!(lanes.of(domain), domain);
    }
    assert_eq!((lanes.of("gmail.com"), names.asked("gmail.com")), ("google".into(), 0), "the table is asked first");
    assert_eq!(names.asked("customer.example"), 1, "an answer is remembered");

    lanes.mute(true);
    assert_eq!(lanes.of("late.example"), "late.example");
    assert_eq!(lanes.of("customer.example"), "microsoft", "what is known stays known");
    lanes.mute(false);
    assert_eq!(names.asked("late.example"), 0);
    lanes.of("late.example");
    eventually(async || names.asked("late.example") > 0).await;

    let off = Lanes::new(None, Arc::new(SystemClock));
    assert_eq!((off.of("customer.example"), off.of("gmail.com")), ("customer.example".into(), "google".into()));
}

#[tokio::test]
async fn an_answer_is_believed_until_another_one_comes() {
    let names = NameServer::start().await;
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    names.exchangers("customer.example", &[(10, "aspmx.l.google.com")]);
    let lanes = Lanes::new(Some(Dns::of(Some(names.addr()))), Arc::new(clock.clone()));
    eventually(async || lanes.of("customer.example") == "google").await;
    names.exchangers("customer.example", &[(10, "customer-example.mail.protection.outlook.com")]);
    clock.advance_ms(5 * 3_600_000);
    assert_eq!((lanes.of("customer.example"), names.asked("customer.example")), ("google".into(), 1));
    clock.advance_ms(3_600_000);
    assert_eq!(lanes.of("customer.example"), "google", "nobody waits for the new answer");
    eventually(async || lanes.of("customer.example") == "microsoft").await;
}

#[tokio::test]
async fn a_dns_that_is_out_of_order_is_left_alone_for_a_while() {
    let names = NameServer::start().await;
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    names.exchangers("customer.example", &[(10, "aspmx.l.google.com")]);
    names.behave(Mood::Fails);
    let lanes = Lanes::new(Some(Dns::of(Some(names.addr()))), Arc::new(clock.clone()));
    for n in 0..500 {
        let domain = format!("d{n}.example");
        assert_eq!(lanes.of(&domain), domain);
    }
    eventually(async || !lanes.is_asking()).await;
    assert_eq!(lanes.of("customer.example"), "customer.example");
    assert_eq!(names.asked("customer.example"), 0);
    let n_asked = (0..500).filter(|n| names.asked(&format!("d{n}.example")) > 0).count();
    assert!(n_asked < 100, "{n_asked} of 500 were asked about");

    names.behave(Mood::Answers);
    clock.advance_ms(60_000);
    eventually(async || lanes.of("customer.example") == "google").await;
}
