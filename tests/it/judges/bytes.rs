//! Two attempts of one message have the same bytes: across the end of the process, on another machine, and though another key signs
//! new mail meanwhile. The relay writes down the hash of whatever it reads, also of what it then defers.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use hikyaku::sink::{Act, At, Script, Sink, SinkHandle, SinkOptions};
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite};
use crate::support::program::{KEY, Place, Running};

const RECIPIENTS: usize = 60;

async fn relay(log: &Path, script: Script) -> SinkHandle {
    let options = SinkOptions {
        log: Some(log.to_owned()),
        script,
        ..SinkOptions::default()
    };
    Sink::start(options).await.unwrap()
}

/// A machine with a data directory of its own, that sends through this relay.
fn start(place: &Place, database: &TestDatabase, relay: &SinkHandle) -> Running {
    let config = place.file("config.toml", "[retry]\ndelays_secs = [1]\n");
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0"]);
    command
        .env("HIKYAKU_CONFIG", config)
        .env("HIKYAKU_API_KEY", KEY)
        .env("HIKYAKU_LOG", "error")
        .env("HIKYAKU_DATABASE_URL", &database.url)
        .env("HIKYAKU_PUBLIC_URL", "https://mail.example.org")
        .env("HIKYAKU_RELAY_URL", format!("smtp://{}", relay.addr()));
    Running::start(command, "listening ")
}

/// The hashes of what the relay read, by recipient.
fn hashes(log: &Path) -> HashMap<String, Vec<String>> {
    let mut hashes = HashMap::<_, Vec<_>>::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["event"] == "data_complete" {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            hashes
                .entry(text(&event["rcpt"][0]))
                .or_default()
                .push(text(&event["sha256"]));
        }
    }
    hashes
}

/// Makes a key of each algorithm and signs with them.
async fn sign_anew(client: &Client) {
    for algorithm in ["rsa", "ed25519"] {
        let key = json!({"domain": "example.org", "algorithm": algorithm});
        let key = client.post("/v1/dkim-keys", &key, 201).await;
        let enable = format!("/v1/dkim-keys/{}/enable", key["id"].as_str().unwrap());
        client.post(&enable, &json!({"unchecked": true}), 200).await;
    }
}

fn newsletter() -> Value {
    let recipients: Vec<Value> = (0..RECIPIENTS)
        .map(|i| json!({"email": format!("r{i}@d{}.example", i % 7), "name": format!("Jürgen 飛脚 {i}"), "data": {"n": i}}))
        .collect();
    json!({
        "from": {"email": "news@example.org", "name": "Zeitung für alle"},
        "subject": "Nr. {{ n }} für {{ name }}",
        "text": "Number {{ n }}\n.\n.dots\n",
        "html": "<p>Number {{ n }} <b>{{ name }}</b> ".to_owned() + &"long ".repeat(400) + "</p>",
        "attachments": [{"filename": "Übersicht.pdf", "content_type": "application/pdf", "content": "AAECAwQFBgcICQ=="}],
        "recipients": recipients,
    })
}

async fn a_second_attempt_has_the_bytes_of_the_first(database: TestDatabase) {
    let (here, there) = (Place::new(), Place::new());
    let (first_log, second_log) = (here.path().join("first.jsonl"), there.path().join("second.jsonl"));
    let later = Act::Say(b"450 4.2.0 the mailbox is busy\r\n".to_vec());
    let busy = relay(&first_log, Script::default().always(At::Dot, later)).await;
    let serving = start(&here, &database, &busy);
    let client = Client::of(&serving.url);
    sign_anew(&client).await;
    let id = client.post("/v1/broadcasts", &newsletter(), 202).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    client
        .until(&id, |seen| {
            let all_tried = hashes(&first_log).len() == RECIPIENTS;
            all_tried && seen["counts"]["deferred"].as_u64() > Some(0)
        })
        .await;
    sign_anew(&client).await;
    assert_eq!(serving.signal("TERM").0, Some(0));
    busy.stop().await;

    let taking = relay(&second_log, Script::default()).await;
    let serving = start(&there, &database, &taking);
    let ended = Client::of(&serving.url).until_completed(&id).await;
    assert_eq!(ended["counts"]["sent"], RECIPIENTS, "{ended}");
    let (first, second) = (hashes(&first_log), hashes(&second_log));
    assert_eq!((first.len(), second.len()), (RECIPIENTS, RECIPIENTS));
    let mut different = HashSet::new();
    for (recipient, attempts) in &first {
        let all: HashSet<&String> = attempts.iter().chain(&second[recipient]).collect();
        assert_eq!(all.len(), 1, "{recipient} got {all:?}");
        different.extend(all);
    }
    assert_eq!(different.len(), RECIPIENTS, "each recipient has a message of his own");
    let taken = taking.sink().newest(1);
    let raw = String::from_utf8(taken[0].raw.clone()).unwrap();
    assert_eq!(raw.matches("DKIM-Signature: ").count(), 2, "{raw}");
    assert!(
        raw.contains("s=hikyaku1;") && raw.contains("s=hikyaku2;"),
        "signed by the keys it was accepted with: {raw}"
    );
    assert_eq!(serving.signal("TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_has_the_bytes_of_the_first_on_sqlite() {
    a_second_attempt_has_the_bytes_of_the_first(fresh_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_has_the_bytes_of_the_first_on_postgres() {
    a_second_attempt_has_the_bytes_of_the_first(fresh_postgres().await).await;
}
