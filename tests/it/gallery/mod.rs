//! A gallery of relays that nobody here wrote, started with their default settings by `relay.py`, and one of ours that takes back the
//! liberty of RFC 2920 3.1 in every way there is. The whole program runs, and what the relay took is what counts. What was seen of each
//! is in docs/relays.md.

mod learnt;
mod real;
mod taking_back;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::client::{Client, address};
use crate::support::database::TestDatabase;
use crate::support::program::{KEY, Place, Running};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/gallery/relay.py");
/// Where `scripts/relays` has put the servers.
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/relays");

/// A relay in processes of its own. They end with the value.
pub struct Relay {
    name: &'static str,
    dir: PathBuf,
    settings: Vec<String>,
    process: Child,
    port: u16,
    /// `user:password@`, where one is needed.
    login: String,
}

impl Relay {
    /// Starts it in a folder of this place.
    pub fn start(name: &'static str, place: &Path, settings: &[&str]) -> Self {
        let dir = place.join(name);
        std::fs::create_dir(&dir).unwrap();
        for folder in [place, &dir] {
            // Servers give up root, and must still find their way in.
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(folder, open).unwrap();
        }
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let (process, facts) = spawn(name, &dir, &settings, None);
        let text = |key: &str| facts[key].as_str().unwrap_or_default().to_owned();
        let login = match text("user") {
            user if user.is_empty() => user,
            user => format!("{user}:{}@", text("password")),
        };
        Self {
            name,
            dir,
            settings,
            process,
            port: port_of(&facts),
            login,
        }
    }

    /// Ends it and starts it again in the same place, as an operator would; `meanwhile` happens while it is down.
    pub fn restart(&mut self, meanwhile: impl FnOnce()) {
        self.stop();
        meanwhile();
        let (process, facts) = spawn(self.name, &self.dir, &self.settings, Some(self.port));
        assert_eq!(port_of(&facts), self.port);
        self.process = process;
    }

    /// Where it is, with these options.
    pub fn url(&self, options: &str) -> String {
        format!("smtp://{}127.0.0.1:{}{options}", self.login, self.port)
    }

    /// Copies by recipient.
    pub fn copies(&self) -> HashMap<String, u32> {
        let counted = python(self.name, &self.dir).arg("--count").output().unwrap();
        assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
        serde_json::from_slice(&counted.stdout).unwrap()
    }

    fn stop(&mut self) {
        // It ends with its standard input, and takes along all that it has started.
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

fn python(name: &str, dir: &Path) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args([SCRIPT, name, "--relays", SERVERS, "--dir"]).arg(dir);
    command
}

fn spawn(name: &str, dir: &Path, settings: &[String], port: Option<u16>) -> (Child, Value) {
    let mut command = python(name, dir);
    for setting in settings {
        command.args(["--set", setting]);
    }
    if let Some(port) = port {
        command.args(["--port", &port.to_string()]);
    }
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let facts = serde_json::from_str(&line);
    (process, facts.unwrap_or_else(|_| panic!("{name} starts: scripts/relays gets it; it said {line:?}")))
}

fn port_of(facts: &Value) -> u16 {
    facts["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .unwrap()
}

/// The whole program, with one relay and tries that follow each other soon.
pub struct Sender {
    pub client: Client,
    serving: Running,
    _place: Place,
    _database: TestDatabase,
}

impl Sender {
    pub fn start(database: TestDatabase, relay: &str) -> Self {
        let place = Place::new();
        let config = place.file("config.toml", "[retry]\ndelays_secs = [1]\n");
        let mut command = place.command(&["serve", "--listen", "127.0.0.1:0"]);
        command
            .env("HIKYAKU_API_KEY", KEY)
            .env("HIKYAKU_CONFIG", config)
            .env("HIKYAKU_LOG", "error")
            .env("HIKYAKU_DATABASE_URL", &database.url)
            .env("HIKYAKU_RELAY_URL", relay);
        let serving = Running::start(command, "listening ");
        Self {
            client: Client::of(&serving.url),
            serving,
            _place: place,
            _database: database,
        }
    }

    /// Sends to `n` recipients, waits until each of them has what it gets, and returns the broadcast.
    pub async fn send(&self, n: usize) -> Value {
        let id = self.client.send_to(n).await;
        self.client.until_completed(&id).await
    }

    /// Messages that took more than one try, or may have been sent twice.
    pub async fn odd_messages(&self, broadcast: &Value) -> Vec<Value> {
        let messages = self.client.messages(broadcast["id"].as_str().unwrap()).await;
        let is_odd = |m: &Value| m["attempts"] != 1 || m["possible_duplicate"] != false;
        messages.into_iter().filter(is_odd).collect()
    }

    /// What was found out about the relay, by kind.
    pub async fn findings(&self) -> HashMap<String, Value> {
        let relay = self.client.get("/v1/relays/default").await;
        let findings = relay["findings"].as_array().unwrap().iter();
        findings
            .map(|f| (f["kind"].as_str().unwrap().to_owned(), f.clone()))
            .collect()
    }

    pub fn end(self) {
        assert_eq!(self.serving.signal("TERM").0, Some(0));
    }
}

/// Panics unless each of `n` recipients got one copy.
pub fn assert_once(copies: &HashMap<String, u32>, n: usize, case: &str) {
    let wrong: Vec<String> = (0..n).map(address).filter(|a| copies.get(a) != Some(&1)).collect();
    assert!(
        wrong.is_empty(),
        "{case}: {} of {n} not once, such as {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
}
