//! Programs whose database changes under them: a newer program migrates it, it is moved elsewhere, it comes from a backup. Real
//! processes at work, a relay that counts copies, both databases.

mod moved;
mod newer;
mod restored;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hikyaku::sink::{Sink, SinkHandle, SinkOptions};

use crate::support::client::{Client, address};
use crate::support::database::TestDatabase;
use crate::support::program::{KEY, Place, Running};

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// The exit code of a program whose database is no longer its own.
const ASIDE: i32 = 6;

/// Makes one test for each database of every story named.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story($crate::support::database::fresh_sqlite_in_memory()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story($crate::support::database::fresh_postgres().await).await;
            })+
        }
    };
}
use stories;

/// A relay, and a place for programs.
struct Scene {
    place: Place,
    sink: SinkHandle,
}

impl Scene {
    async fn new() -> Self {
        let options = SinkOptions {
            count_recipients: true,
            keep_mailbox: false,
            ..SinkOptions::default()
        };
        Scene {
            place: Place::new(),
            sink: Sink::start(options).await.unwrap(),
        }
    }

    /// A program on a database, sending at so many messages a second.
    fn command(&self, args: &[&str], database: &str, rate: u32) -> Command {
        let config = self
            .place
            .file("config.toml", "[worker]\nlease_secs = 15\nheartbeat_secs = 1\n");
        let mut command = self.place.command(args);
        command
            .env("HIKYAKU_CONFIG", config)
            .env("HIKYAKU_API_KEY", KEY)
            .env("HIKYAKU_DATABASE_URL", database)
            .env("HIKYAKU_RELAY_URL", format!("smtp://{}?connections=16&rate={rate}", self.sink.addr()));
        command
    }

    fn web(&self, database: &str) -> Running {
        Running::start(self.command(&["web", "--listen", "127.0.0.1:0"], database, 1), "listening ")
    }

    /// A worker, and where its log goes.
    fn worker(&self, database: &str, name: &str, rate: u32) -> (Running, PathBuf) {
        let log = self.place.path().join(format!("{name}.log"));
        let command = self.command(&["worker"], database, rate);
        (Running::start_with_log(command, "relay ", &log), log)
    }

    /// One on a file, two on a server.
    fn workers(&self, database: &TestDatabase, rate: u32) -> Vec<(Running, PathBuf)> {
        let n = if database.url.starts_with("sqlite") { 1 } else { 2 };
        (0..n)
            .map(|n| self.worker(&database.url, &format!("worker-{n}"), rate))
            .collect()
    }

    /// Waits until the relay has taken so many.
    async fn taken(&self, n: u64) {
        let taking = async {
            while self.sink.sink().stats().accepted < n {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, taking).await.expect("mail goes out");
    }

    /// Everybody has one copy, and nobody is in doubt.
    async fn assert_exactly_once(&self, client: &Client, id: &str, recipients: usize) {
        let copies = self.sink.sink().copies();
        let twice: Vec<_> = copies.iter().filter(|(_, n)| **n != 1).take(5).collect();
        assert!(twice.is_empty(), "more than one copy: {twice:?}");
        let lost: Vec<String> = (0..recipients)
            .map(address)
            .filter(|a| !copies.contains_key(a))
            .take(5)
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let flagged = client.messages(id).await;
        let flagged = flagged.iter().filter(|m| m["possible_duplicate"] == true).count();
        assert_eq!(flagged, 0, "an orderly end leaves nothing in doubt");
    }
}

/// Waits until it steps aside by itself; returns what it logged.
async fn stepped_aside(worker: (Running, PathBuf)) -> String {
    let (mut running, log) = worker;
    let status = running.ended(PATIENCE).await;
    let told = read(&log);
    assert_eq!(status.code(), Some(ASIDE), "{told}");
    told
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).expect("a log can be read")
}

/// The status and the body of an answer.
async fn get(server: &Running, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("{}{path}", server.url.trim_end_matches('/')))
        .await
        .expect("the server answers");
    (answer.status().as_u16(), answer.text().await.expect("the answer is text"))
}

/// The status and the body of the answer to a small broadcast.
async fn ask(server: &Running) -> (u16, String) {
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/broadcasts", server.url.trim_end_matches('/')))
        .bearer_auth(KEY)
        .json(&serde_json::json!({
            "from": "news@example.org", "subject": "Late", "text": "Late",
            "recipients": [{ "email": "late@example.org" }]
        }))
        .send()
        .await
        .expect("the server answers");
    (answer.status().as_u16(), answer.text().await.expect("the answer is text"))
}
