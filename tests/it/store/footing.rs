//! Upgrades and restorations: who may write, who steps aside, and what waits after a backup was restored.

use std::path::Path;

use hikyaku::domain::broadcast::{Broadcast, BroadcastStatus};
use hikyaku::domain::job::JobKind;
use hikyaku::store::backup::backup;
use hikyaku::store::queue::Wish;
use hikyaku::store::{self, DatabaseUrl, Store, StoreError};

use super::contract;
use super::world::{World, at, broadcast, broadcast_id, people};
use crate::support::database::{TestDatabase, dump, fresh_postgres, fresh_sqlite, run_tool};

contract! {
    a_database_that_a_newer_program_changed_compatibly_is_opened,
    a_database_that_needs_a_newer_program_is_not_opened_and_takes_no_broadcast,
    a_start_that_is_no_restoration_pauses_nothing,
    what_is_unfinished_is_set_aside_on_request,
}

fn is_paused(broadcast: &Broadcast) -> bool {
    broadcast.status == BroadcastStatus::Paused
}

const FROM_THE_FUTURE: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";
const NEEDS_THE_FUTURE: &str = "INSERT INTO settings (name, value) VALUES ('schema_needs', '9999')";

async fn open(url: &str) -> store::Result<std::sync::Arc<dyn Store>> {
    store::open(&DatabaseUrl::parse(url).unwrap()).await
}

async fn a_database_that_a_newer_program_changed_compatibly_is_opened(w: World) {
    w.sql(FROM_THE_FUTURE).await;
    let old = open(w.url()).await.expect("it can live with the change");
    old.footing().await.unwrap();
}

async fn a_database_that_needs_a_newer_program_is_not_opened_and_takes_no_broadcast(w: World) {
    w.sql(FROM_THE_FUTURE).await;
    w.sql(NEEDS_THE_FUTURE).await;
    let refused = open(w.url()).await.err().expect("it needs a newer program");
    assert!(matches!(&refused, StoreError::Aside(why) if why.contains("9999")), "{refused:?}");
    // Whoever had it open before.
    assert!(matches!(w.footing().await, Err(StoreError::Aside(_))));
    let new = broadcast(1, 3);
    let taken = w.accept(&new, None, at(0)).await;
    assert!(matches!(taken, Err(StoreError::Aside(_))), "{taken:?}");
    assert!(w.broadcast(&new.id).await.unwrap().is_none());
}

async fn a_start_that_is_no_restoration_pauses_nothing(w: World) {
    let id = w.ready_broadcast(1, 10, 5).await;
    let again = w.open_again().await;
    assert!(!is_paused(&again.broadcast(&id).await.unwrap().unwrap()));
}

async fn what_is_unfinished_is_set_aside_on_request(w: World) {
    let id = w.ready_broadcast(1, 10, 5).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let done = w.set_aside_restored(Some(at(0))).await.unwrap();
    assert_eq!(done.broadcasts, 1);
    let shown = w.show(&id).await;
    assert!(is_paused(&shown), "{shown:?}");
    assert_eq!(w.wanted_stops(worker).await.unwrap().len(), 1, "the running chunk is to be given back");
    assert!(w.claim(worker, JobKind::Deliver, 9, at(0)).await.unwrap().is_empty());
    // Whoever decides to go on finds everything where it was.
    w.control(&id, &Wish::Resume, at(1)).await.unwrap();
    w.send_all(&job, at(1)).await;
    let rest = w.claim_one(worker, JobKind::Deliver, at(1)).await;
    w.send_all(&rest, at(1)).await;
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Completed);
}

/// Two broadcasts half sent, one of which will have expired; a third completed.
async fn half_sent(w: &World) {
    let worker = w.worker(at(0)).await;
    for (n, expires_at) in [(1, None), (2, Some(at(60_000))), (3, None)] {
        let mut new = broadcast(n, 10);
        new.expires_at = expires_at;
        w.accept_new(&new, &people(10), at(0)).await;
        let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
        w.fan_out(&job, 5, at(0)).await;
        let n_chunks = if n == 3 { 2 } else { 1 };
        for _ in 0..n_chunks {
            let job = claim_of(w, worker, n).await;
            w.send_all(&job, at(1)).await;
        }
        w.control(&new.id, &Wish::Pause { reason: "later".into() }, at(1))
            .await
            .ok();
    }
    for n in [1, 2] {
        w.control(&broadcast_id(n), &Wish::Resume, at(1)).await.unwrap();
    }
    w.retire_worker(worker, at(2)).await.unwrap();
}

async fn claim_of(w: &World, worker: i64, n: u128) -> hikyaku::domain::job::Claimed {
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    assert_eq!(job.broadcast_id, broadcast_id(n));
    job
}

/// A restored database as its first process finds it: nothing unfinished goes on by itself.
async fn waits_for_a_person(restored: &dyn Store) {
    for n in [1, 2] {
        let shown = restored.broadcast(&broadcast_id(n)).await.unwrap().unwrap();
        assert!(is_paused(&shown), "{shown:?}");
        let why = shown.reason.unwrap_or_default();
        assert!(why.starts_with("restored from a backup of 2026-09-21") && why.contains("sent again"), "{why}");
        assert_eq!((shown.counts.sent, shown.counts.queued), (5, 5));
    }
    let done = restored.broadcast(&broadcast_id(3)).await.unwrap().unwrap();
    assert_eq!(done.status, BroadcastStatus::Completed);
    assert!(!is_paused(&done));
}

#[tokio::test]
async fn a_restored_backup_of_sqlite_waits_for_a_person() {
    let w = World::sqlite().await;
    half_sent(&w).await;
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.db");
    let from = w.url().strip_prefix("sqlite://").unwrap().to_owned();
    let bytes = backup(Path::new(&from), &copy, at(5)).await.unwrap();
    assert_eq!(bytes, std::fs::metadata(&copy).unwrap().len());
    let again = backup(Path::new(&from), &copy, at(6)).await;
    assert!(matches!(&again, Err(StoreError::Conflict(why)) if why.contains("overwrites nothing")), "{again:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing unfinished is left behind");
    let url = format!("sqlite://{}", copy.display());
    waits_for_a_person(&*open(&url).await.unwrap()).await;
    let restored = open(&url).await.unwrap();
    restored.control(&broadcast_id(1), &Wish::Resume, at(10)).await.unwrap();
    // Only the first start after the restoration pauses.
    let restored = open(&url).await.unwrap();
    assert!(!is_paused(&restored.broadcast(&broadcast_id(1)).await.unwrap().unwrap()));
    assert!(!is_paused(&w.show(&broadcast_id(1)).await), "the original goes on");
}

/// A backup while the database is written to: every copy adds up.
#[tokio::test]
async fn a_backup_of_a_busy_database_is_consistent() {
    let w = World::sqlite().await;
    let from = w.url().strip_prefix("sqlite://").unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let writing = async {
        for n in 1..=20u128 {
            w.ready_broadcast(n, 40, 7).await;
        }
    };
    let copying = async {
        for n in 0..5 {
            let copy = dir.path().join(format!("{n}.db"));
            backup(Path::new(&from), &copy, at(0)).await.unwrap();
            let store = open(&format!("sqlite://{}", copy.display())).await.unwrap();
            for shown in store.broadcasts(None, 100).await.unwrap().rows {
                assert_eq!(shown.counts.total(), shown.received.accepted());
            }
        }
    };
    tokio::join!(writing, copying);
}

#[tokio::test]
async fn a_restored_dump_of_postgresql_waits_for_a_person() {
    let w = World::postgres().await;
    half_sent(&w).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hikyaku.dump");
    dump(w.url(), &file);
    let other: TestDatabase = fresh_postgres().await;
    run_tool("pg_restore", &["--dbname", &other.url, file.to_str().unwrap()]);
    waits_for_a_person(&*open(&other.url).await.unwrap()).await;
    assert!(!is_paused(&w.show(&broadcast_id(1)).await), "the original goes on");
    // Over an existing database, as one restores in an emergency.
    run_tool("pg_restore", &["--clean", "--if-exists", "--dbname", &other.url, file.to_str().unwrap()]);
    let restored = open(&other.url).await.unwrap();
    waits_for_a_person(&*restored).await;
    drop(restored);
    let restored = open(&other.url).await.unwrap();
    restored.control(&broadcast_id(1), &Wish::Resume, at(10)).await.unwrap();
    let restored = open(&other.url).await.unwrap();
    assert!(
        !is_paused(&restored.broadcast(&broadcast_id(1)).await.unwrap().unwrap()),
        "only the first start pauses"
    );
}

/// Several nodes of a new version start at once on an old or empty database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_migrate_once() {
    for database in [fresh_sqlite(), fresh_postgres().await] {
        let starts = (0..6).map(|_| {
            let url = database.url.clone();
            tokio::spawn(async move { open(&url).await.map(drop) })
        });
        for start in starts.collect::<Vec<_>>() {
            start.await.unwrap().unwrap_or_else(|e| panic!("{}: {e}", database.url));
        }
        let store = open(&database.url).await.unwrap();
        store.ready().await.unwrap();
    }
}
