//! Killing the program, and watching that nobody is lost. Real processes, SIGKILL at random instants, and a relay that knows what
//! it took. The seed is printed; `HIKYAKU_TEST_SEED=n` repeats the instants.

#[cfg(feature = "failpoints")]
mod points;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use hikyaku::sink::{Sink, SinkHandle, SinkOptions};
use serde_json::Value;

use crate::support::client::{Client, address};
use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite};
use crate::support::program::{KEY, Place, Running};

const RECIPIENTS: usize = 20_000;
const CONNECTIONS: usize = 16;
const KILLS: usize = 4;

/// A relay that counts copies, and a program that is killed and started again on one database.
struct Theatre {
    place: Place,
    database: TestDatabase,
    sink: SinkHandle,
}

impl Theatre {
    async fn open(database: TestDatabase) -> Self {
        let options = SinkOptions {
            count_recipients: true,
            keep_mailbox: false,
            ..SinkOptions::default()
        };
        Self {
            place: Place::new(),
            database,
            sink: Sink::start(options).await.unwrap(),
        }
    }

    fn start(&self) -> Running {
        // A short lease, so that on PostgreSQL the jobs of the dead are taken over soon; SQLite does not wait for it.
        let config = self
            .place
            .file("config.toml", "[worker]\nlease_secs = 5\nheartbeat_secs = 1\n");
        let relay = format!("smtp://{}?connections={CONNECTIONS}", self.sink.addr());
        let mut command = self.place.command(&["serve", "--listen", "127.0.0.1:0"]);
        command
            .env("HIKYAKU_CONFIG", config)
            .env("HIKYAKU_API_KEY", KEY)
            .env("HIKYAKU_LOG", "error")
            .env("HIKYAKU_DATABASE_URL", &self.database.url)
            .env("HIKYAKU_RELAY_URL", relay);
        Running::start(command, "listening ")
    }

    fn accepted(&self) -> u64 {
        self.sink.sink().stats().accepted
    }

    /// Nobody lost, no copy too many that is not flagged, nothing called sent that the relay does not know.
    async fn judge(&self, client: &Client, id: &str, kills: usize) {
        let copies = self.sink.sink().copies();
        let messages = client.messages(id).await;
        assert_eq!(messages.len(), RECIPIENTS);
        let flagged: HashSet<&str> = messages
            .iter()
            .filter(|m| m["possible_duplicate"] == true)
            .map(|m| m["email"].as_str().unwrap())
            .collect();
        let wrong = unexplained(&messages, &copies, &flagged);
        assert!(
            wrong.is_empty(),
            "{} messages are not as they are said to be: {:?}",
            wrong.len(),
            &wrong[..wrong.len().min(5)]
        );
        let lost: Vec<String> = (0..RECIPIENTS)
            .map(address)
            .filter(|a| !copies.contains_key(a))
            .take(5)
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let doubled: u32 = copies.values().map(|n| n - 1).sum();
        assert!(doubled as usize <= CONNECTIONS * kills, "{doubled} copies too many after {kills} kills");
    }
}

fn unexplained(messages: &[Value], copies: &HashMap<String, u32>, flagged: &HashSet<&str>) -> Vec<String> {
    let is_wrong = |m: &&Value| {
        let email = m["email"].as_str().unwrap();
        let copies = copies.get(email).copied().unwrap_or(0);
        m["status"] != "sent" || copies == 0 || (copies > 1 && !flagged.contains(email))
    };
    messages
        .iter()
        .filter(is_wrong)
        .map(|m| format!("{m} with {:?} copies", copies.get(m["email"].as_str().unwrap())))
        .collect()
}

fn seed() -> u64 {
    let seed = std::env::var("HIKYAKU_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("HIKYAKU_TEST_SEED={seed}");
    seed
}

async fn a_killed_process_loses_nobody(theatre: Theatre, back_within: Duration) {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut serving = theatre.start();
    let id = Client::of(&serving.url).send_to(RECIPIENTS).await;
    let mut kills = 0;
    for _ in 0..KILLS {
        // Early instants meet the fan-out, later ones the delivery.
        tokio::time::sleep(Duration::from_millis(random.u64(0..1_500))).await;
        serving.signal("KILL");
        kills += 1;
        let before = theatre.accepted();
        let killed = Instant::now();
        serving = theatre.start();
        let client = Client::of(&serving.url);
        let on_its_way = client
            .until(&id, |seen| seen["status"] == "completed" || theatre.accepted() > before)
            .await;
        let took = killed.elapsed();
        assert!(took < back_within, "the first message after a kill came after {took:?}");
        if on_its_way["status"] == "completed" {
            break;
        }
    }
    let client = Client::of(&serving.url);
    client.until_completed(&id).await;
    theatre.judge(&client, &id, kills).await;
    assert_eq!(serving.signal("TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nobody_on_sqlite() {
    // A debug build on a busy machine takes its time to start; the lease alone would be five seconds.
    a_killed_process_loses_nobody(Theatre::open(fresh_sqlite()).await, Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nobody_on_postgres() {
    a_killed_process_loses_nobody(Theatre::open(fresh_postgres().await).await, Duration::from_secs(20)).await;
}

async fn an_orderly_end_doubles_nothing(theatre: Theatre) {
    let serving = theatre.start();
    let client = Client::of(&serving.url);
    let id = client.send_to(RECIPIENTS).await;
    client
        .until(&id, |seen| seen["counts"]["sent"].as_i64() > Some(1_000))
        .await;
    assert_eq!(serving.signal("TERM").0, Some(0));
    let serving = theatre.start();
    let client = Client::of(&serving.url);
    client.until_completed(&id).await;
    theatre.judge(&client, &id, 0).await;
    assert!(theatre.sink.sink().copies().values().all(|&n| n == 1));
    let flagged = client
        .messages(&id)
        .await
        .iter()
        .filter(|m| m["possible_duplicate"] == true)
        .count();
    assert_eq!(flagged, 0, "nothing was in doubt");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_doubles_nothing_on_sqlite() {
    an_orderly_end_doubles_nothing(Theatre::open(fresh_sqlite()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_doubles_nothing_on_postgres() {
    an_orderly_end_doubles_nothing(Theatre::open(fresh_postgres().await).await).await;
}
