//! A database that fails in the middle of things. Whatever it is that fails, and whether it took effect or not: every recipient
//! gets one copy, and the counts are right.

use std::sync::Arc;
use std::time::Duration;

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::recipient::Recipient;
use hikyaku::selftest::proxy::Line;

use super::faulty::{FaultyStore, When};
use super::stage::{Plan, Stage, eventually, open_store, people, to};
use super::stories;
use crate::support::database::{TestDatabase, fresh_postgres};

stories!(
    a_commit_that_fails_is_repeated_and_counts_once,
    a_step_that_fails_once_is_made_up_for,
    a_worker_that_cannot_register_at_once_tries_again,
    a_database_that_fails_one_call_in_ten_loses_and_doubles_nothing,
);

/// The steps between accepting and the end, but for the commits.
const STEPS: [&str; 15] = [
    "claim",
    "claim_ahead",
    "next_due",
    "promote",
    "wanted_stops",
    "sources",
    "source_page",
    "next_seq",
    "fan_out_next",
    "finish_fan_out",
    "brief",
    "chunk_work",
    "suppressed_among",
    "finish",
    "heartbeat",
];

async fn stage(database: TestDatabase) -> Stage {
    let mut plan = Plan::default();
    // The shortest lease that is longer than its margin: a claim whose answer was lost is found in a fifth of it.
    plan.settings.lease = Duration::from_secs(4);
    plan.settings.heartbeat = Duration::from_millis(100);
    plan.settings.poll = Duration::from_millis(100);
    Stage::open(database, plan).await
}

/// People, and two who need more than one try or none.
fn audience(round: u64) -> Vec<Recipient> {
    let name = |who: &str| to(&format!("{who}+{round}@x.example"));
    let mut all: Vec<Recipient> = (0..30).map(|n| name(&format!("r{n}"))).collect();
    all.extend([name("defer-once"), name("reject-550-5.1.1")]);
    all
}

/// Sends to an audience and holds the outcome against the relay's.
async fn sends_exactly_once(stage: &Stage, round: u64, what: &str) {
    let id = stage.send(audience(round)).await;
    let broadcast = stage.ended(&id).await;
    assert_eq!(broadcast.status, BroadcastStatus::Completed, "{what}");
    assert_eq!((broadcast.counts.sent, broadcast.counts.failed), (31, 1), "{what}");
    assert_eq!(stage.n_flagged(&id).await, 0, "{what}");
    let copies = stage.sink.sink().copies();
    let twice: Vec<_> = copies.iter().filter(|(_, n)| **n != 1).collect();
    assert!(twice.is_empty(), "{what}: {twice:?}");
    assert_eq!(copies.len() as u64 % 31, 0, "{what}");
    let later = stage.message(&id, &format!("defer-once+{round}@x.example")).await;
    assert_eq!(later.attempts, 2, "{what}");
}

async fn a_commit_that_fails_is_repeated_and_counts_once(database: TestDatabase) {
    let stage = stage(database).await;
    let faulty = Arc::new(FaultyStore::around(Arc::clone(&stage.store)));
    let worker = stage.hire_on(Arc::<FaultyStore>::clone(&faulty)).await;
    let mut round = 0;
    for when in [When::Before, When::After] {
        for skips in 0..6 {
            round += 1;
            faulty.fail_once("commit_progress", skips, when);
            sends_exactly_once(&stage, round, &format!("commit {skips} fails {when:?}")).await;
            assert_eq!(faulty.n_failed(), round, "the commit was reached");
        }
    }
    worker.end().await;
}

async fn a_step_that_fails_once_is_made_up_for(database: TestDatabase) {
    let stage = stage(database).await;
    let faulty = Arc::new(FaultyStore::around(Arc::clone(&stage.store)));
    let worker = stage.hire_on(Arc::<FaultyStore>::clone(&faulty)).await;
    let mut round = 0;
    for step in STEPS {
        for when in [When::Before, When::After] {
            round += 1;
            faulty.fail_once(step, 0, when);
            sends_exactly_once(&stage, round, &format!("{step} fails {when:?}")).await;
        }
    }
    worker.end().await;
}

async fn a_worker_that_cannot_register_at_once_tries_again(database: TestDatabase) {
    let stage = stage(database).await;
    let mut round = 0;
    for step in ["register_worker", "void_other_workers"] {
        for when in [When::Before, When::After] {
            round += 1;
            let faulty = Arc::new(FaultyStore::around(Arc::clone(&stage.store)));
            faulty.fail_once(step, 0, when);
            let worker = stage.hire_on(Arc::<FaultyStore>::clone(&faulty)).await;
            sends_exactly_once(&stage, round, &format!("{step} fails {when:?}")).await;
            // Only where one process owns the database does it void the others.
            assert_eq!(faulty.n_failed(), u64::from(step == "register_worker" || stage.store.is_exclusive()));
            worker.end().await;
        }
    }
}

async fn a_database_that_fails_one_call_in_ten_loses_and_doubles_nothing(database: TestDatabase) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let stage = stage(database).await;
    let faulty = Arc::new(FaultyStore::around(Arc::clone(&stage.store)));
    let worker = stage.hire_on(Arc::<FaultyStore>::clone(&faulty)).await;
    faulty.fail_randomly(seed, 0.1);
    let id = stage.send(people(3_000)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 3_000);
    assert!(faulty.n_failed() > 10, "{} calls failed", faulty.n_failed());
    faulty.heal();
    stage.assert_exactly_once(&id, 3_000).await;
    worker.end().await;
}

/// A server that hangs, and one that hangs up, in the middle of a broadcast: nothing is sent without it, what was learnt is
/// written when it is back, and it is soon noticed that it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_is_waited_for_and_its_return_is_noticed() {
    let server = fresh_postgres().await;
    let (proxy, far) = server.through_a_proxy().await;
    let mut plan = Plan::default();
    plan.sink.latency = Duration::from_millis(4);
    // Longer than the outages: what the workers hold stays theirs.
    plan.settings.lease = Duration::from_secs(120);
    plan.settings.poll = Duration::from_secs(3_600);
    let stage = Stage::open(server, plan).await;
    let worker = stage.hire_on(open_store(&far).await).await;
    let id = stage.send(people(6_000)).await;
    for (line, so_far) in [(Line::Held, 300), (Line::Cut, 1_500), (Line::Held, 3_000)] {
        stage.accepted(so_far).await;
        proxy.set(line);
        eventually(async || {
            let before = stage.sink.sink().stats().accepted;
            let more = eventually(async || stage.sink.sink().stats().accepted > before);
            tokio::time::timeout(Duration::from_secs(3), more).await.is_err()
        })
        .await;
        let (out, known) = (stage.sink.sink().stats().accepted, stage.broadcast(&id).await.counts.sent as u64);
        assert!(out - known <= u64::from(stage.plan.connections), "{out} are out, and {known} are known");
        proxy.set(Line::Up);
        // Whatever it was waiting for: five seconds are asked for, and this machine may be busy.
        let back = stage.accepted(out + 1);
        tokio::time::timeout(Duration::from_secs(30), back)
            .await
            .expect("it goes on");
    }
    assert_eq!(stage.ended(&id).await.counts.sent, 6_000);
    stage.assert_exactly_once(&id, 6_000).await;
    worker.end().await;
}
