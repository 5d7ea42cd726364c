//! The API as an application uses it, asked at whichever node answers. Repeats what may be repeated, and notes how it was
//! refused; never believes an answer it did not get.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::oracle::Said;

/// The key of the nodes.
pub const KEY: &str = "a-key-for-the-selftest-alone";
/// How long one request may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// What is repeated until it is done is given up after this: longer than any outage that a test makes.
const GIVE_UP: Duration = Duration::from_secs(300);

/// Where the nodes are now; nodes come and go.
#[derive(Clone, Default)]
pub struct Client {
    http: reqwest::Client,
    urls: Arc<Mutex<Vec<Option<String>>>>,
}

/// How a request to send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 202: the broadcast's id.
    Accepted(String),
    /// 503 or 507, and whether it said when to come back.
    NotNow { status: u16, says_when: bool },
    /// No answer: the connection broke, or nobody is there.
    Silence,
    /// What the API must not say here.
    Wrong(String),
}

impl Client {
    pub fn of(n_nodes: usize) -> Self {
        Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(ANSWER_MAX)
                .build()
                .expect("a client without TLS roots can be made"),
            urls: Arc::new(Mutex::new(vec![None; n_nodes])),
        }
    }

    /// A node is reached there now, or not at all.
    pub fn set(&self, node: usize, url: Option<String>) {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)[node] = url;
    }

    fn urls(&self) -> Vec<String> {
        let urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        urls.iter().flatten().cloned().collect()
    }

    async fn get_from(&self, base: &str, path: &str) -> Option<reqwest::Response> {
        let answer = self.http.get(format!("{base}{path}")).bearer_auth(KEY).send().await;
        answer.ok()?.error_for_status().ok()
    }

    /// Asks the nodes in turn. `None` when none of them has an answer now.
    pub async fn ask(&self, path: &str) -> Option<Value> {
        for base in self.urls() {
            if let Some(answer) = self.get_from(&base, path).await
                && let Ok(value) = answer.json().await
            {
                return Some(value);
            }
        }
        None
    }

    /// The status of one probe of a node, or `None` without an answer.
    pub async fn probe(&self, node: usize, path: &str) -> Option<u16> {
        let base = self.urls.lock().unwrap_or_else(PoisonError::into_inner)[node].clone()?;
        let asked = self.http.get(format!("{base}{path}")).timeout(Duration::from_secs(15));
        asked.send().await.ok().map(|answer| answer.status().as_u16())
    }

    /// Asks for a broadcast once, at the first node that is there.
    pub async fn send_once(&self, key: &str, body: &str) -> Answer {
        let Some(base) = self.urls().into_iter().next() else {
            return Answer::Silence;
        };
        let sent = self
            .http
            .post(format!("{base}/v1/broadcasts"))
            .bearer_auth(KEY)
            .header("Content-Type", "application/x-ndjson")
            .header("Idempotency-Key", key)
            .body(body.to_owned())
            .send()
            .await;
        let Ok(answer) = sent else { return Answer::Silence };
        let (status, says_when) = (answer.status().as_u16(), answer.headers().contains_key(RETRY_AFTER));
        let Ok(said) = answer.json::<Value>().await else {
            return Answer::Silence;
        };
        match (status, said["id"].as_str()) {
            (200..=202, Some(id)) => Answer::Accepted(id.to_owned()),
            (503 | 507, _) => Answer::NotNow { status, says_when },
            // The same request is still being read: its first try.
            (409, _) => Answer::NotNow {
                status,
                says_when: true,
            },
            _ => Answer::Wrong(format!("{status}: {said}")),
        }
    }

    /// Asks for a broadcast until it is accepted, with one key, as an application does.
    ///
    /// # Errors
    /// An answer the API must not give, or none in five minutes.
    pub async fn send(&self, key: &str, body: &str) -> Result<String, String> {
        let since = Instant::now();
        while since.elapsed() < GIVE_UP {
            match self.send_once(key, body).await {
                Answer::Accepted(id) => return Ok(id),
                Answer::NotNow { .. } | Answer::Silence => tokio::time::sleep(PAUSE).await,
                Answer::Wrong(what) => return Err(format!("a request to send was answered with {what}")),
            }
        }
        Err(format!("a request to send was not accepted in {} s", GIVE_UP.as_secs()))
    }

    /// Suppresses addresses.
    ///
    /// # Errors
    /// When no node has done it in five minutes.
    pub async fn suppress(&self, emails: &[String]) -> Result<(), String> {
        let since = Instant::now();
        while since.elapsed() < GIVE_UP {
            for base in self.urls() {
                let asked = self.http.post(format!("{base}/v1/suppressions")).bearer_auth(KEY);
                let asked = asked.json(&json!({ "emails": emails })).send().await;
                if asked.is_ok_and(|answer| answer.status().is_success()) {
                    return Ok(());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!("addresses could not be suppressed in {} s", GIVE_UP.as_secs()))
    }

    /// Every message of a broadcast.
    ///
    /// # Errors
    /// When no node tells, or what it tells is no such file.
    pub async fn messages(&self, id: &str) -> Result<Vec<Said>, String> {
        for base in self.urls() {
            let path = format!("/v1/broadcasts/{id}/messages.csv");
            if let Some(answer) = self.get_from(&base, &path).await
                && let Ok(file) = answer.bytes().await
            {
                return read_messages(&file);
            }
        }
        Err(format!("no node shows the messages of {id}"))
    }
}

fn read_messages(file: &[u8]) -> Result<Vec<Said>, String> {
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.headers().map_err(|e| e.to_string())?.clone();
    let column = |name: &str| {
        let at = header.iter().position(|column| column == name);
        at.ok_or_else(|| format!("the export has no column {name}"))
    };
    let (email, status, flagged) = (column("email")?, column("status")?, column("possible_duplicate")?);
    let said = |row: csv::StringRecord| Said {
        email: row[email].to_owned(),
        status: row[status].to_owned(),
        flagged: &row[flagged] == "true",
    };
    reader
        .records()
        .map(|row| row.map(said).map_err(|e| e.to_string()))
        .collect()
}
