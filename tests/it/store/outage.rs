//! A database that hangs, breaks off and comes back; one whose log a reader holds up; a crowd that falls due at once. Every step
//! has an end, and the next one finds the store as it was.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hikyaku::clock::{Clock, SystemClock};
use hikyaku::domain::job::JobKind;
use hikyaku::selftest::proxy::Line;
use hikyaku::store::queue::PROMOTED_MAX;
use hikyaku::store::{self, DatabaseUrl, Store};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::timeout;

use super::contract;
use super::world::{World, at, broadcast};
use crate::support::database::fresh_postgres;

contract! {
    only_a_server_has_a_clock_of_its_own,
    a_crowd_that_falls_due_at_once_is_let_in_by_steps_and_a_newcomer_passes_it,
}

/// Longer than every limit of the store together, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn some_steps(store: &Arc<dyn Store>, n: u128) -> Vec<store::Result<()>> {
    let accepts = join_all((0..8).map(|i| async move {
        let new = broadcast(n * 100 + i, 0);
        store.accept(&new, None, at(0)).await.map(drop)
    }));
    let reads = join_all((0..8).map(|_| async { store.ready().await }));
    let beats = join_all((0..2).map(|_| async { store.rescue(0, at(0)).await.map(drop) }));
    let (accepts, reads, beats) = futures_util::join!(accepts, reads, beats);
    accepts.into_iter().chain(reads).chain(beats).collect()
}

/// More steps than there are connections: those that wait in vain must not keep the others from an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_or_hangs_up_gets_an_end_and_its_return_is_noticed() {
    let server = fresh_postgres().await;
    let (proxy, database) = server.through_a_proxy().await;
    let store = store::open(&DatabaseUrl::parse(&database.url).unwrap()).await.unwrap();
    let mut n = 0;
    for line in [Line::Held, Line::Cut, Line::Held] {
        for result in some_steps(&store, n).await {
            result.unwrap();
        }
        n += 1;
        proxy.set(line);
        let ended = timeout(PATIENCE, some_steps(&store, n)).await.expect("every step ends");
        for result in ended {
            let error = result.expect_err("nobody answers");
            assert!(error.is_transient(), "{line:?}: {error:?}");
        }
        n += 1;
        proxy.set(Line::Up);
        for result in some_steps(&store, n).await {
            result.unwrap_or_else(|e| panic!("after {line:?}: {e:?}"));
        }
        n += 1;
    }
}

/// A server that hangs answers all tries when it goes on, those first that nobody waits for any more: there must be few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_not_called_again_and_again() {
    let server = fresh_postgres().await;
    let (proxy, database) = server.through_a_proxy().await;
    let store = store::open(&DatabaseUrl::parse(&database.url).unwrap()).await.unwrap();
    proxy.set(Line::Held);
    // Those who notice it first all try.
    timeout(PATIENCE, some_steps(&store, 0)).await.expect("every step ends");
    let (before, since) = (proxy.n_opened(), tokio::time::Instant::now());
    for n in 1..4 {
        timeout(PATIENCE, some_steps(&store, n)).await.expect("every step ends");
    }
    // One each for those who write, read and beat, one after the other, and one that listens.
    let tries = proxy.n_opened() - before;
    let tries_max = 4 * (since.elapsed().as_secs() / 5 + 1);
    assert!(tries <= tries_max, "{tries} of at most {tries_max}");
    proxy.set(Line::Up);
    for result in some_steps(&store, 4).await {
        result.unwrap();
    }
}

/// The line is held in the middle of transactions; each took effect as a whole or not at all, and no lock is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_held_up_leaves_no_lock_behind() {
    let server = fresh_postgres().await;
    let (proxy, database) = server.through_a_proxy().await;
    let store = store::open(&DatabaseUrl::parse(&database.url).unwrap()).await.unwrap();
    let near = store::open(&DatabaseUrl::parse(&server.url).unwrap()).await.unwrap();
    let writing = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..u128::MAX {
                let new = broadcast(n, 0);
                if store.accept(&new, None, at(0)).await.is_err() {
                    return;
                }
            }
        })
    };
    let mut wakeups = near.wakeups();
    timeout(PATIENCE, wakeups.changed()).await.unwrap().unwrap();
    proxy.set(Line::Held);
    timeout(PATIENCE, writing).await.expect("the writer ends").unwrap();
    // What it had begun is over at once or with the server's patience for a transaction in which nothing happens.
    let seen = near.broadcasts(None, 1_000).await.unwrap().rows;
    let accepted = join_all((0..seen.len() as u128 + 2).map(|n| {
        let near = Arc::clone(&near);
        async move {
            timeout(PATIENCE, near.accept(&broadcast(n + 1_000_000, 0), None, at(0)))
                .await
                .unwrap()
        }
    }));
    for result in accepted.await {
        result.unwrap();
    }
    proxy.set(Line::Up);
    for result in some_steps(&store, 9_000_000).await {
        result.unwrap();
    }
}

fn wal_bytes(w: &World) -> u64 {
    let path = w.url().strip_prefix("sqlite://").unwrap();
    std::fs::metadata(format!("{path}-wal")).map_or(0, |m| m.len())
}

/// What a reader held up is made good as soon as it has left, without anybody writing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_sqlite_is_small_again_when_a_long_reader_has_left() {
    let w = World::sqlite().await;
    let mut reader = SqliteConnectOptions::from_str(w.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut reading = reader.begin().await.unwrap();
    let before: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM settings WHERE name = 'much'")
        .fetch_one(&mut *reading)
        .await
        .unwrap();
    // Another one each time: pages that do not change are not written.
    for letter in 'a'..='t' {
        w.put_setting("much", &letter.to_string().repeat(4 << 20))
            .await
            .unwrap();
    }
    let grown = wal_bytes(&w);
    assert!(grown > 64 << 20, "the reader holds nothing up: {grown} bytes");
    assert_eq!(before, 0);
    reading.rollback().await.unwrap();
    reader.close().await.unwrap();
    let shrunk = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while wal_bytes(&w) > 64 << 20 {
            look.tick().await;
        }
    };
    timeout(PATIENCE, shrunk).await.expect("the log is emptied");
    w.put_setting("much", "little").await.unwrap();
}

async fn only_a_server_has_a_clock_of_its_own(w: World) {
    let there = w.time().await.unwrap();
    assert_eq!(there.is_none(), w.is_sqlite());
    // The servers of the tests are on this machine.
    let off = there.map_or(0, |there| there - SystemClock.now());
    assert!(off.abs() < 60_000, "{off} ms");
}

/// Jobs wait for one moment, a newcomer is small.
async fn a_crowd_that_falls_due_at_once_is_let_in_by_steps_and_a_newcomer_passes_it(w: World) {
    const JOBS: usize = 1_000;
    w.ready_broadcast(1, JOBS, 1).await;
    w.sql("UPDATE jobs SET state = 'waiting', run_at = 1790000000000 WHERE kind = 'deliver'")
        .await;
    let worker = w.worker(at(0)).await;
    let mut promoted = 0;
    for step in 0.. {
        if step == 1 {
            w.ready_broadcast(2, 3, 3).await;
        }
        let n = w.promote(at(1)).await.unwrap();
        assert!(n <= PROMOTED_MAX as u64, "{n} in one step");
        if n == 0 {
            break;
        }
        promoted += n;
        let ready = w.jobs(Some("ready"), 10_000).await.unwrap();
        assert!(ready.len() as u64 >= n, "what is let in can be claimed");
    }
    assert_eq!(promoted, JOBS as u64);
    // A hundred thousand would not change that: the newcomer's first chunk stands beside the crowd's first.
    let first = w.claim(worker, JobKind::Deliver, 2, at(2)).await.unwrap();
    let mut seqs: Vec<_> = first.iter().map(|job| (job.seq, job.broadcast_id.clone())).collect();
    seqs.dedup_by(|a, b| a.1 == b.1);
    assert_eq!(seqs.len(), 2, "the newcomer is among the first: {seqs:?}");
}
