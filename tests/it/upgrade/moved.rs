//! `hikyaku migrate-store` while mail goes out: killed, run again, and nobody gets anything twice.

use std::time::Duration;

use super::{ASIDE, Scene, ask, get, stepped_aside};
use crate::support::client::Client;
use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite_in_memory};
use crate::support::program::{Running, ended};

const RECIPIENTS: usize = 2_000;
/// Slow enough that most of it is left when the move begins.
const RATE: u32 = 20;
const KILLS: usize = 4;

fn seed() -> u64 {
    let seed = std::env::var("HIKYAKU_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("HIKYAKU_TEST_SEED={seed}");
    seed
}

async fn a_move_under_load_sends_to_nobody_twice(source: TestDatabase, target: TestDatabase) {
    let mut random = fastrand::Rng::with_seed(seed());
    let scene = Scene::new().await;
    let web = scene.web(&source.url);
    let workers = scene.workers(&source, RATE);
    let client = Client::of(&web.url);
    let id = client.send_to(RECIPIENTS).await;
    scene.taken(60).await;

    let refused = ended(scene.place.command(&["migrate-store", &source.url, &target.url]));
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("--stop-workers"), "{}", refused.err);

    // Killed again and again: while it waits, copies or compares.
    let command = || {
        scene
            .place
            .command(&["migrate-store", "--stop-workers", &source.url, &target.url])
    };
    let mut wait_ms = 400;
    for n in 0..KILLS {
        let doomed = Doomed::start(command());
        tokio::time::sleep(Duration::from_millis(random.u64(wait_ms / 2..wait_ms))).await;
        wait_ms += 300;
        if doomed.kill() {
            println!("run {n} had come to its end");
            break;
        }
    }
    let moved = ended(command());
    assert_eq!(moved.code, Some(0), "{}", moved.err);
    println!("{}{}", moved.out, moved.err);
    for worker in workers {
        let log = stepped_aside(worker).await;
        assert!(log.contains("steps aside") && log.contains("moved to"), "{log}");
    }

    // The old store says where everything is, and does nothing more.
    let (status, body) = get(&web, "/readyz").await;
    assert!(status == 503 && body.contains("was moved to"), "{status} {body}");
    let (status, body) = ask(&web).await;
    assert!(status == 503 && body.contains("was moved to"), "{status} {body}");
    for args in [&["worker"][..], &["web", "--listen", "127.0.0.1:0"]] {
        let late = ended(scene.command(args, &source.url, RATE));
        assert_eq!(late.code, Some(ASIDE), "{args:?}: {}", late.err);
        assert!(late.err.contains("was moved to"), "{args:?}: {}", late.err);
    }
    assert!(scene.sink.sink().stats().accepted < RECIPIENTS as u64, "there was something left to send");

    let serving =
        Running::start(scene.command(&["serve", "--listen", "127.0.0.1:0"], &target.url, 100_000), "listening ");
    let client = Client::of(&serving.url);
    client.until_completed(&id).await;
    scene.assert_exactly_once(&client, &id, RECIPIENTS).await;
    assert_eq!(serving.signal("TERM").0, Some(0));
    let again = ended(command());
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert!(again.out.contains("already"), "{}", again.out);
}

/// A move that is killed.
struct Doomed(std::process::Child);

impl Doomed {
    fn start(mut command: std::process::Command) -> Self {
        command.stdout(std::process::Stdio::null());
        Doomed(command.spawn().expect("the program starts"))
    }

    /// Kills it. `true` when it had ended well before.
    fn kill(mut self) -> bool {
        if let Some(status) = self.0.try_wait().expect("a child can be waited for") {
            assert!(status.success(), "it failed by itself: {status}");
            return true;
        }
        self.0.kill().expect("a child can be killed");
        self.0.wait().expect("a child can be waited for");
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_postgresql_under_load_sends_to_nobody_twice() {
    a_move_under_load_sends_to_nobody_twice(fresh_sqlite_in_memory(), fresh_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_sqlite_under_load_sends_to_nobody_twice() {
    a_move_under_load_sends_to_nobody_twice(fresh_postgres().await, fresh_sqlite_in_memory()).await;
}
