//! Who is woken, and when: loops of the same process at once, other processes by the database.

use std::time::Duration;

use hikyaku::domain::broadcast::{Audience, NewBroadcast};
use hikyaku::domain::job::{JobEnd, JobKind};
use hikyaku::store::queue::Wish;

use super::contract;
use super::world::{NOBODY, World, at, broadcast, people, step};

contract! {
    every_commit_that_makes_work_wakes_the_loops,
}

/// Longer than any notification takes, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(10);

async fn every_commit_that_makes_work_wakes_the_loops(w: World) {
    let mut woken = w.wakeups();
    let mut expect = |what: &str| {
        assert!(woken.has_changed().unwrap(), "{what} wakes nobody");
        woken.mark_unchanged();
    };
    let (new, people) = (broadcast(1, 2), people(2));
    w.accept_new(&new, &people, at(0)).await;
    expect("accepting");
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    w.fan_out_next(job.lease, &step(0, &people), at(0)).await.unwrap();
    expect("a chunk");
    w.finish_fan_out(job.lease, 0, 0, at(0)).await.unwrap();
    expect("the end of a fan-out");
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    w.finish(job.lease, JobEnd::Waiting(at(10)), at(0)).await.unwrap();
    expect("giving a job back");
    w.promote(at(10)).await.unwrap();
    expect("promoting");
    w.control(&new.id, &Wish::Pause { reason: "x".into() }, at(11))
        .await
        .unwrap();
    expect("a pause");
    w.control(&new.id, &Wish::Resume, at(12)).await.unwrap();
    expect("a resume");
    let job = w.claim_one(worker, JobKind::Deliver, at(13)).await;
    w.quarantine(job.lease, "x", at(13)).await.unwrap();
    w.release_quarantined(job.lease.job_id, at(14)).await.unwrap();
    expect("a release from quarantine");
    w.claim_one(worker, JobKind::Deliver, at(15)).await;
    w.retire_worker(worker, at(16)).await.unwrap();
    w.rescue(NOBODY, at(16)).await.unwrap();
    expect("a rescue");
    w.control(&new.id, &Wish::Cancel, at(17)).await.unwrap();
    expect("a cancel");
}

#[tokio::test]
async fn what_makes_no_work_wakes_nobody() {
    // Only on SQLite: a PostgreSQL store hears the echo of its own commits.
    let w = World::sqlite().await;
    let new = NewBroadcast {
        audience: Audience::All,
        ..broadcast(1, 0)
    };
    w.accept(&new, None, at(0)).await.unwrap();
    let woken = w.wakeups();
    w.worker(at(0)).await;
    w.promote(at(1)).await.unwrap();
    w.rescue(NOBODY, at(1)).await.unwrap();
    w.show(&new.id).await;
    assert!(!woken.has_changed().unwrap());
}

#[tokio::test]
async fn a_commit_of_another_process_wakes_this_one() {
    let w = World::postgres().await;
    let other = w.open_again().await;
    let mut woken = other.wakeups();
    // The first wake-up says that it listens; each commit heard is one more.
    tokio::time::timeout(PATIENCE, woken.wait_for(|n| *n == 1))
        .await
        .expect("it listens")
        .unwrap();
    for n in 1..=3 {
        w.accept(&broadcast(n, 0), None, at(0)).await.unwrap();
        let heard = woken.wait_for(|heard| *heard > n as u64);
        tokio::time::timeout(PATIENCE, heard)
            .await
            .expect("it hears the commit")
            .unwrap();
    }
}

#[tokio::test]
async fn a_listener_goes_with_its_store() {
    let w = World::postgres().await;
    let listeners = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let come_to = async |n: &str| while w.sql(listeners).await != [n] {};
    let other = w.open_again().await;
    tokio::time::timeout(PATIENCE, come_to("2")).await.expect("both listen");
    drop(other);
    tokio::time::timeout(PATIENCE, come_to("1")).await.expect("one is gone");
}

#[tokio::test]
async fn a_listener_that_lost_its_connection_listens_again() {
    let w = World::postgres().await;
    let mut woken = w.wakeups();
    tokio::time::timeout(PATIENCE, woken.wait_for(|n| *n >= 1))
        .await
        .expect("it listens")
        .unwrap();
    w.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'")
        .await;
    woken.mark_unchanged();
    // What was sent while nobody listened is lost, so that a loop is told to look.
    tokio::time::timeout(PATIENCE, woken.changed())
        .await
        .expect("it listens again")
        .unwrap();
}
