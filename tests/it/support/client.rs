//! A client of a running server: accepts broadcasts and asks what became of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::program::KEY;

/// Between two looks at a broadcast.
const LOOK: Duration = Duration::from_millis(50);

/// A client of one server.
pub struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    pub fn of(url: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: url.trim_end_matches('/').to_owned(),
        }
    }

    /// Sends a text to `n` recipients `r0@d0.example`, `r1@d1.example`… and returns the broadcast's id: the 202 was read.
    pub async fn send_to(&self, n: usize) -> String {
        let letter = json!({ "from": "news@example.org", "subject": "News", "text": "For {{ email }}" });
        let mut body = format!("{letter}\n");
        for i in 0..n {
            body.push_str(&format!("{{\"email\":\"{}\"}}\n", address(i)));
        }
        let answer = self
            .http
            .post(format!("{}/v1/broadcasts", self.url))
            .bearer_auth(KEY)
            .header("Content-Type", "application/x-ndjson")
            .body(body)
            .send()
            .await
            .expect("the server answers");
        let status = answer.status();
        let answer: Value = answer.json().await.expect("the answer is JSON");
        assert_eq!(status, 202, "{answer}");
        answer["id"].as_str().expect("a broadcast has an id").to_owned()
    }

    /// Posts JSON and returns the answer, which must have this status.
    pub async fn post(&self, path: &str, body: &Value, status: u16) -> Value {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .bearer_auth(KEY)
            .json(body);
        let answer = request.send().await.expect("the server answers");
        let found = answer.status();
        let answer: Value = answer.json().await.expect("the answer is JSON");
        assert_eq!(found.as_u16(), status, "{answer}");
        answer
    }

    /// Gets JSON, which must be there.
    pub async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(KEY);
        let answer = request.send().await.expect("the server answers");
        let answer = answer.error_for_status().expect("it is there");
        answer.json().await.expect("the answer is JSON")
    }

    /// The broadcast as it stands, or `None` while nobody answers. The counts must add up at every look.
    pub async fn look(&self, id: &str) -> Option<Value> {
        let answer = self
            .http
            .get(format!("{}/v1/broadcasts/{id}", self.url))
            .bearer_auth(KEY)
            .send()
            .await
            .ok()?;
        let seen: Value = answer.error_for_status().ok()?.json().await.ok()?;
        let number = |v: &Value| v.as_i64().expect("a count is a number");
        let counted: i64 = seen["counts"]
            .as_object()
            .expect("there are counts")
            .values()
            .map(number)
            .sum();
        let accepted = number(&seen["received"]) - number(&seen["rejected"]) - number(&seen["duplicates"]);
        assert_eq!(counted, accepted, "conservation: {seen}");
        Some(seen)
    }

    /// Looks until the broadcast is as wanted.
    pub async fn until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            loop {
                if let Some(seen) = self.look(id).await
                    && wanted(&seen)
                {
                    return seen;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), looking)
            .await
            .expect("the broadcast comes that far")
    }

    pub async fn until_completed(&self, id: &str) -> Value {
        self.until(id, |seen| seen["status"] == "completed").await
    }

    /// Every message of the broadcast, page by page.
    pub async fn messages(&self, id: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let url = format!("{}/v1/broadcasts/{id}/messages?limit=100{after}", self.url);
            let answer = self
                .http
                .get(url)
                .bearer_auth(KEY)
                .send()
                .await
                .expect("the server answers");
            let page: Value = answer.json().await.expect("the answer is JSON");
            all.extend(
                page["data"]
                    .as_array()
                    .unwrap_or_else(|| panic!("a page of messages: {page}"))
                    .iter()
                    .cloned(),
            );
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }
}

/// The i-th recipient of [`Client::send_to`].
pub fn address(i: usize) -> String {
    format!("r{i}@d{}.example", i % 13)
}
