//! Workers that come, go, share, and are taken for dead.

use std::sync::Arc;
use std::time::Duration;

use hikyaku::clock::{Clock, ManualClock, SystemClock};
use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::message::MessageStatus::Sent;
use hikyaku::domain::time::Timestamp;
use hikyaku::sink::SinkOptions;
use tokio::time::timeout;

use super::faulty::FaultyStore;
use super::stage::{Plan, Stage, eventually, people};
use super::stories;
use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite};

stories!(
    a_worker_that_ends_in_order_leaves_the_rest_to_the_next_one,
    a_worker_without_a_lease_sends_nothing_and_its_jobs_are_taken_over,
    a_worker_without_work_leaves_the_database_alone,
    a_worker_whose_lease_nears_its_end_stops_before_it,
    the_shortest_lease_that_can_be_set_sends,
    an_end_waits_for_the_answers_to_what_was_sent,
);

fn slow() -> Plan {
    Plan {
        sink: SinkOptions {
            latency: Duration::from_millis(4),
            ..SinkOptions::default()
        },
        ..Plan::default()
    }
}

async fn a_worker_that_ends_in_order_leaves_the_rest_to_the_next_one(database: TestDatabase) {
    let stage = Stage::open(database, slow()).await;
    let first = stage.hire().await;
    let id = stage.send(people(3_000)).await;
    stage.accepted(500).await;
    first.end().await;
    let out = stage.sink.sink().stats().accepted;
    let left = stage.broadcast(&id).await;
    assert_eq!(
        (left.status, left.counts.sent as u64),
        (BroadcastStatus::Sending, out),
        "nothing is left unrecorded"
    );
    assert_eq!(stage.n_running(&id).await, 0);
    let second = stage.hire().await;
    assert_eq!(stage.ended(&id).await.counts.sent, 3_000);
    stage.assert_exactly_once(&id, 3_000).await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_share_a_broadcast() {
    let stage = Stage::open(fresh_postgres().await, slow()).await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(stage.hire_on(stage.another_store().await).await);
    }
    let id = stage.send(people(9_000)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 9_000);
    stage.assert_exactly_once(&id, 9_000).await;
    for worker in workers {
        let done = worker.gauges.n_settled();
        assert!(done >= 1_000, "a worker did {done} of 9,000");
        worker.end().await;
    }
}

/// The system's clock, with hours added by hand: all workers of a story jump together.
struct Jumping(ManualClock);

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_ms(self.0.now().0)
    }
}

/// The first worker cannot write its heartbeat, and its lease runs out while it is at work. What it had on the wire may be
/// sent twice, and each such message is named; nothing else is.
async fn a_worker_without_a_lease_sends_nothing_and_its_jobs_are_taken_over(database: TestDatabase) {
    a_lost_lease_leaves_at_most_what_was_in_flight(database, slow()).await;
}

pub(super) async fn a_lost_lease_leaves_at_most_what_was_in_flight(database: TestDatabase, plan: Plan) {
    let jump = ManualClock::at(Timestamp(0));
    let clock = Arc::new(Jumping(jump.clone()));
    let stage = Stage::open(database, Plan { clock, ..plan }).await;
    let faulty = Arc::new(FaultyStore::around(Arc::clone(&stage.store)));
    let first = stage.hire_on(Arc::<FaultyStore>::clone(&faulty)).await;
    let id = stage.send(people(3_000)).await;
    stage.accepted(300).await;
    faulty.fail_always("heartbeat");
    jump.advance_ms(60_000);
    // What was on the wire is answered and recorded; then it is quiet, and stays so.
    eventually(async || {
        let before = stage.sink.sink().stats().accepted;
        let more = eventually(async || stage.sink.sink().stats().accepted > before);
        timeout(Duration::from_millis(400), more).await.is_err()
    })
    .await;
    let out = stage.sink.sink().stats().accepted;
    assert!(out < 2_900, "{out}");

    let second = stage.hire().await;
    assert_eq!(stage.ended(&id).await.counts.sent, 3_000);
    let copies = stage.sink.sink().copies();
    assert_eq!(copies.len(), 3_000);
    let extra: u32 = copies.values().map(|n| n - 1).sum();
    let in_flight_max = u32::from(stage.plan.connections) * stage.plan.chunking.max(1);
    assert!(extra <= in_flight_max, "{extra}");
    for (address, _) in copies.iter().filter(|(_, n)| **n > 1) {
        assert!(stage.message(&id, address).await.possible_duplicate, "{address}");
    }

    // The first one learns that it was declared dead, and comes back as a new worker.
    second.end().await;
    faulty.heal();
    let next = stage.send(people(10)).await;
    assert_eq!(stage.ended(&next).await.counts.sent, 10);
    assert_eq!(stage.fates(&next, "r1@d1.example").await, [Sent]);
    first.end().await;
}

/// The database was away for longer than a lease: everybody's has lapsed, and nobody is dead. Each comes back and goes on with its
/// own jobs, and what it has learnt is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_nobody_takes_what_others_come_back_for() {
    let jump = ManualClock::at(Timestamp(0));
    let clock = Arc::new(Jumping(jump.clone()));
    let mut plan = Plan { clock, ..slow() };
    plan.settings.lease = Duration::from_secs(60);
    let stage = Stage::open(fresh_postgres().await, plan).await;
    let mut hands = Vec::new();
    let mut stores = Vec::new();
    for _ in 0..2 {
        let faulty = Arc::new(FaultyStore::around(stage.another_store().await));
        hands.push(stage.hire_on(Arc::<FaultyStore>::clone(&faulty)).await);
        stores.push(faulty);
    }
    let id = stage.send(people(6_000)).await;
    stage.accepted(600).await;
    for faulty in &stores {
        faulty.fail_always("heartbeat");
    }
    jump.advance_ms(120_000);
    // Longer than it takes until it is looked for lost workers.
    eventually(async || {
        let before = stage.sink.sink().stats().accepted;
        let more = eventually(async || stage.sink.sink().stats().accepted > before);
        timeout(Duration::from_millis(1_500), more).await.is_err()
    })
    .await;
    for faulty in &stores {
        faulty.heal();
    }
    assert_eq!(stage.ended(&id).await.counts.sent, 6_000);
    stage.assert_exactly_once(&id, 6_000).await;
    let workers = stage.store.workers(stage.plan.clock.now()).await.unwrap();
    let states: Vec<&str> = workers.iter().map(|w| w.state.as_str()).collect();
    assert_eq!(states, ["live", "live"]);
    for hand in hands {
        hand.end().await;
    }
}

async fn a_worker_without_work_leaves_the_database_alone(database: TestDatabase) {
    let mut plan = Plan::default();
    plan.settings.poll = Duration::from_secs(5);
    plan.settings.heartbeat = Duration::from_secs(3);
    let stage = Stage::open(database, plan).await;
    let counted = Arc::new(FaultyStore::around(Arc::clone(&stage.store)));
    let worker = stage.hire_on(Arc::<FaultyStore>::clone(&counted)).await;
    let id = stage.send(people(10)).await;
    stage.ended(&id).await;
    // The rounds that the end of the broadcast called for.
    eventually(async || {
        let before = counted.n_calls();
        let more = eventually(async || counted.n_calls() > before);
        timeout(Duration::from_millis(300), more).await.is_err()
    })
    .await;
    let before = counted.n_calls();
    // A few looks a second: for lost workers, for broadcasts that go wrong, and once in a while for work.
    let much = eventually(async || counted.n_calls() > before + 25);
    let is_calm = timeout(Duration::from_secs(2), much).await.is_err();
    assert!(is_calm, "{} calls in two seconds without work", counted.n_calls() - before);
    worker.end().await;
}

/// No clock jumps here: the lease just is not renewed. The margin is time for what is on the wire.
async fn a_worker_whose_lease_nears_its_end_stops_before_it(database: TestDatabase) {
    let mut plan = slow();
    plan.settings.lease = Duration::from_secs(9);
    let stage = Stage::open(database, plan).await;
    let faulty = Arc::new(FaultyStore::around(Arc::clone(&stage.store)));
    let worker = stage.hire_on(Arc::<FaultyStore>::clone(&faulty)).await;
    // More than can be sent in the time of a lease.
    let id = stage.send(people(40_000)).await;
    stage.accepted(300).await;
    faulty.fail_always("heartbeat");
    let seen_at = stage.store.workers(SystemClock.now()).await.unwrap()[0].seen_at;
    let ends_at = seen_at.plus_ms(9_000);
    let (mut before, mut stopped_at) = (0, SystemClock.now());
    eventually(async || {
        let out = stage.sink.sink().stats().accepted;
        if out > before {
            (before, stopped_at) = (out, SystemClock.now());
        }
        SystemClock.now() >= ends_at
    })
    .await;
    assert!(before > 300 && before < 40_000, "{before}");
    let margin = ends_at - stopped_at;
    assert!(margin > 0, "the last message went out {margin} ms before the end of the lease");
    assert!(!stage.broadcast(&id).await.status.is_final());
    faulty.heal();
    worker.end().await;
}

async fn the_shortest_lease_that_can_be_set_sends(database: TestDatabase) {
    let mut plan = Plan::default();
    plan.settings.lease = Duration::from_secs(3);
    plan.settings.heartbeat = Duration::from_secs(1);
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let id = stage.send(people(50)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 50);
    worker.end().await;
}

/// A relay whose answers take a second, and an end that comes between the end of data and the answer.
async fn an_end_waits_for_the_answers_to_what_was_sent(database: TestDatabase) {
    let mut plan = Plan {
        sink: SinkOptions {
            latency: Duration::from_secs(1),
            ..SinkOptions::default()
        },
        ..Plan::default()
    };
    plan.settings.drain = Duration::from_secs(50);
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let id = stage.send(people(200)).await;
    // The relay has taken it, and its answer is on its way for another second.
    stage.accepted(1).await;
    worker.end().await;
    let out = stage.sink.sink().stats().accepted;
    let left = stage.broadcast(&id).await;
    assert_eq!(left.counts.sent as u64, out, "{left:?}");
    assert!(out < 200, "the end did not wait for all of them");
    assert_eq!((stage.n_running(&id).await, stage.n_flagged(&id).await), (0, 0));
}

/// The lease of the dead one would hold for an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_sqlite_takes_over_what_its_predecessor_held_at_once() {
    let mut plan = slow();
    plan.settings.lease = Duration::from_secs(3_600);
    let stage = Stage::open(fresh_sqlite(), plan).await;
    let killed = stage.hire_mortal().await;
    let id = stage.send(people(3_000)).await;
    stage.accepted(300).await;
    killed.kill();
    let next = stage.hire().await;
    assert_eq!(stage.ended(&id).await.counts.sent, 3_000);
    next.end().await;
}

/// Whoever is left goes on with the jobs of the lost one as soon as its lease is over, however seldom it looks for work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_a_lost_worker_do_not_wait_for_the_next_look_for_work() {
    let mut plan = slow();
    plan.settings.lease = Duration::from_secs(4);
    plan.settings.poll = Duration::from_secs(3_600);
    let stage = Stage::open(fresh_postgres().await, plan).await;
    let killed = stage.hire_mortal().await;
    let id = stage.send(people(2_000)).await;
    stage.accepted(300).await;
    let left = stage.hire_on(stage.another_store().await).await;
    killed.kill();
    assert_eq!(stage.ended(&id).await.counts.sent, 2_000);
    left.end().await;
}
