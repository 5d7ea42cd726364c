//! Relays that nobody here wrote: Postfix, its `smtp-sink`, and Python's aiosmtpd. The whole program runs, a broadcast goes in over
//! HTTP, and what the relay took is what counts: every recipient exactly once.

mod bytes;
mod postfix;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::client::{Client, address};
use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite};
use crate::support::program::{KEY, Place, Running};

const RECIPIENTS: usize = 20_000;

/// A relay in a process of its own, and where it writes whom it took mail for.
struct Judge {
    process: Child,
    port: u16,
    taken: PathBuf,
}

impl Judge {
    /// Postfix's, with these options beside our own.
    fn smtp_sink(place: &Path, options: &[&str]) -> Self {
        let port = free_port();
        let room = place.join("smtp-sink");
        std::fs::create_dir(&room).unwrap();
        let mut command = Command::new(std::env::var("SMTP_SINK").unwrap_or_else(|_| "smtp-sink".into()));
        if is_root() {
            // It refuses to run as root, and the user it becomes must be able to write here.
            Command::new("chmod")
                .arg("-R")
                .arg("a+rwx")
                .arg(place)
                .status()
                .unwrap();
            command.args(["-u", "nobody"]);
        }
        command
            .args(options)
            .args(["-D", "taken"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("64");
        let process = command
            .current_dir(&room)
            .spawn()
            .expect("smtp-sink starts: scripts/test installs it with postfix");
        Self {
            process,
            port,
            taken: room.join("taken"),
        }
    }

    fn aiosmtpd(place: &Path) -> Self {
        let taken = place.join("taken");
        let python = std::env::var("AIOSMTPD_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".into());
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/judges/aiosmtpd_sink.py"))
            .arg(&taken)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .trim()
            .parse()
            .expect("aiosmtpd says its port: scripts/test installs python3-aiosmtpd");
        Self { process, port, taken }
    }

    /// Copies by recipient.
    fn copies(&self) -> HashMap<String, u32> {
        let taken = std::fs::read(&self.taken).expect("the relay wrote down what it took");
        let mut copies = HashMap::new();
        for line in String::from_utf8_lossy(&taken).lines() {
            let recipient = match line.strip_prefix("X-Rcpt-Args: <") {
                Some(argument) => argument.split('>').next().unwrap(),
                None if line.contains('@') && !line.contains([' ', ':', '<']) => line,
                None => continue,
            };
            *copies.entry(recipient.to_owned()).or_default() += 1;
        }
        copies
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

/// A port that was free a moment ago: smtp-sink cannot choose one itself.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

async fn every_recipient_exactly_once(database: TestDatabase, place: Place, judge: Judge, n: usize) {
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0"]);
    command
        .env("HIKYAKU_API_KEY", KEY)
        .env("HIKYAKU_DATABASE_URL", &database.url)
        .env("HIKYAKU_RELAY_URL", format!("smtp://127.0.0.1:{}?connections=16", judge.port));
    let serving = Running::start(command, "listening ");
    let client = Client::of(&serving.url);
    let id = client.send_to(n).await;
    let ended = client.until_completed(&id).await;
    assert_eq!(ended["counts"]["sent"], n, "{ended}");
    assert_eq!(serving.signal("TERM").0, Some(0));
    let copies = judge.copies();
    let wrong: Vec<String> = (0..n)
        .map(address)
        .filter(|a| copies.get(a) != Some(&1))
        .take(5)
        .collect();
    assert!(wrong.is_empty(), "not exactly one copy: {wrong:?}");
    assert_eq!(copies.len(), n, "mail for somebody who was not addressed");
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_gets_every_message_once_from_sqlite() {
    let place = Place::new();
    let judge = Judge::smtp_sink(place.path(), &[]);
    every_recipient_exactly_once(fresh_sqlite(), place, judge, RECIPIENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_gets_every_message_once_from_postgres() {
    let place = Place::new();
    let judge = Judge::smtp_sink(place.path(), &[]);
    every_recipient_exactly_once(fresh_postgres().await, place, judge, RECIPIENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_without_pipelining_gets_every_message_once() {
    let place = Place::new();
    let judge = Judge::smtp_sink(place.path(), &["-p"]);
    every_recipient_exactly_once(fresh_sqlite(), place, judge, 2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aiosmtpd_gets_every_message_once_from_sqlite() {
    let place = Place::new();
    let judge = Judge::aiosmtpd(place.path());
    every_recipient_exactly_once(fresh_sqlite(), place, judge, RECIPIENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aiosmtpd_gets_every_message_once_from_postgres() {
    let place = Place::new();
    let judge = Judge::aiosmtpd(place.path());
    every_recipient_exactly_once(fresh_postgres().await, place, judge, RECIPIENTS).await;
}
