//! What the stories stand on: a served API on an empty database, a told clock, and a client with a key. Asserts nothing
//! about the API but that it answers.

use std::io::Write;
use std::sync::Arc;

use hikyaku::clock::{Clock, ManualClock};
use hikyaku::dns::Dns;
use hikyaku::domain::id::TemplateId;
use hikyaku::domain::job::{JobEnd, JobKind};
use hikyaku::domain::message::{MessageStatus, Outcome, ReplyNote};
use hikyaku::domain::time::Timestamp;
use hikyaku::domain::token::SecretKey;
use hikyaku::pipeline::fan_out;
use hikyaku::store::delivery::{Progress, Settled};
use hikyaku::store::workers::NewWorker;
use hikyaku::store::{DatabaseUrl, Store};
use hikyaku::web::auth::{self, Scope};
use hikyaku::web::{self, Limits, WebState};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio_util::sync::CancellationToken;

use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite};
use crate::support::names::NameServer;

/// The stories begin here: 21 September 2026.
pub const BEGINNING: Timestamp = Timestamp(1_790_000_000_000);
/// The configured key; it may do everything.
pub const BOOTSTRAP_KEY: &str = "a-bootstrap-key-of-decent-length";

/// A lease that no story outlives.
const LEASE_MS: i64 = 600_000;

/// A served API.
pub struct Api {
    pub base: String,
    pub store: Arc<dyn Store>,
    pub clock: ManualClock,
    /// Whom the API asks about names.
    pub names: NameServer,
    client: reqwest::Client,
    url: String,
    /// Keeps a SQLite file for as long as it is used.
    _database: Option<TestDatabase>,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The body, after the status was found right.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}

impl Api {
    pub async fn sqlite() -> Self {
        Self::on(fresh_sqlite(), Limits::default()).await
    }

    pub async fn postgres() -> Self {
        Self::on(fresh_postgres().await, Limits::default()).await
    }

    /// With limits that a test can reach.
    pub async fn on(database: TestDatabase, limits: Limits) -> Self {
        let api = Self::open(&database.url, limits).await;
        Self {
            _database: Some(database),
            ..api
        }
    }

    /// Another process on the same database.
    pub async fn second_node(&self) -> Self {
        Self::open(&self.url, Limits::default()).await
    }

    async fn open(url: &str, limits: Limits) -> Self {
        let store = hikyaku::store::open(&DatabaseUrl::parse(url).unwrap()).await.unwrap();
        let clock = ManualClock::at(BEGINNING);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let names = NameServer::start().await;
        let state = WebState {
            store: Arc::clone(&store),
            clock: Arc::new(clock.clone()),
            secret: SecretKey::new([7; 32]),
            public_url: "https://news.example.org".into(),
            bootstrap_key_hash: Some(auth::bootstrap_hash(BOOTSTRAP_KEY).into()),
            limits,
            dns: Dns::of(Some(names.addr())),
            capture: None,
            configured_relay: None,
        };
        tokio::spawn(web::serve(listener, state, CancellationToken::new()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            base,
            store,
            clock,
            names,
            client,
            url: url.to_owned(),
            _database: None,
        }
    }

    /// A request without a key.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// A request that may do everything.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(BOOTSTRAP_KEY)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// Posts without a body.
    pub async fn act(&self, path: &str) -> Answer {
        send(self.request(Method::POST, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    /// Posts a body of another type.
    pub async fn post_as(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        send(
            self.request(Method::POST, path)
                .header("Content-Type", content_type)
                .body(body),
        )
        .await
    }

    /// A key with these scopes, made over the API.
    pub async fn key(&self, scopes: &[Scope]) -> String {
        let scopes: Vec<&str> = scopes.iter().map(|s| s.as_str()).collect();
        let made = self
            .post("/v1/keys", &json!({"name": "test", "scopes": scopes}))
            .await
            .expect(201);
        made["key"].as_str().unwrap().to_owned()
    }

    /// The id of a stored template.
    pub async fn template(&self) -> String {
        let id = TemplateId::new(self.clock.now(), fastrand::u128(..));
        let content = hikyaku::domain::content::Content {
            subject: "Hello {{ name }}".into(),
            html: Some("<p>Hello {{ name }}</p>".into()),
            text: None,
        };
        self.store
            .put_template(&id, "Hello", &content, self.clock.now())
            .await
            .unwrap();
        id.to_string()
    }

    /// An accepted broadcast to these addresses.
    pub async fn broadcast(&self, emails: &[&str]) -> String {
        let mut body = letter();
        body["recipients"] = json!(emails);
        let accepted = self.post("/v1/broadcasts", &body).await.expect(202);
        accepted["id"].as_str().unwrap().to_owned()
    }

    /// Splits what was accepted into chunks, as a worker does; the worker lives on.
    pub async fn fan_out(&self) -> i64 {
        let now = self.clock.now();
        let me = NewWorker {
            host: "post-1".into(),
            pid: 4711,
            version: "0.1.0".into(),
        };
        let worker = self
            .store
            .register_worker(&me, now.plus_ms(LEASE_MS), now)
            .await
            .unwrap();
        for claimed in self.store.claim(worker, JobKind::FanOut, 100, now).await.unwrap() {
            fan_out::fan_out(&*self.store, &self.clock, &claimed, || false)
                .await
                .unwrap();
        }
        worker
    }

    /// Records an outcome for the first messages of the next chunk, one for each outcome given; the chunk is given
    /// back unfinished.
    pub async fn settle(&self, outcomes: Vec<Outcome>) {
        let now = self.clock.now();
        let worker = self.fan_out().await;
        let job = self
            .store
            .claim(worker, JobKind::Deliver, 1, now)
            .await
            .unwrap()
            .remove(0);
        let relay = self.store.relay_id("smtp://relay.example").await.unwrap();
        let settled = outcomes.into_iter().zip(0u16..).map(|(outcome, ordinal)| Settled {
            ordinal,
            before: MessageStatus::Queued,
            attempts: 1,
            burnt: 1,
            attempt: Some(outcome.status),
            newly_flagged: outcome.possible_duplicate,
            relay_id: Some(relay),
            at: now,
            bounce: None,
            outcome,
        });
        let progress = Progress {
            lease: job.lease,
            number: 1,
            settled: settled.collect(),
            inflight: Vec::new(),
        };
        self.store.commit_progress(&[progress], now).await.unwrap();
        self.store.finish(job.lease, JobEnd::Released, now).await.unwrap();
    }

    /// Changes the database behind the program's back.
    pub async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.url.strip_prefix("sqlite://") {
            Some(path) => {
                let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
                sqlx::query(sql).execute(&mut connection).await.unwrap();
            }
            None => {
                let options: PgConnectOptions = self.url.parse().unwrap();
                let mut connection = options.connect().await.unwrap();
                sqlx::query(sql).execute(&mut connection).await.unwrap();
            }
        }
    }

    /// Rows of a table, seen from outside.
    pub async fn rows(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        match self.url.strip_prefix("sqlite://") {
            Some(path) => {
                let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
                let n = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                n
            }
            None => {
                let options: PgConnectOptions = self.url.parse().unwrap();
                let mut connection = options.connect().await.unwrap();
                let n = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                n
            }
        }
    }

    /// Nothing of any send request is in the database.
    pub async fn nothing_is_stored(&self, after: &str) {
        for table in ["broadcasts", "letters", "jobs", "intake", "idempotency_keys"] {
            assert_eq!(self.rows(table).await, 0, "rows in {table} after: {after}");
        }
    }

    pub async fn get_broadcast(&self, id: &str) -> Value {
        self.get(&format!("/v1/broadcasts/{id}")).await.expect(200)
    }
}

pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the API answers");
    let (status, headers) = (response.status(), response.headers().clone());
    Answer {
        status,
        headers,
        text: response.text().await.expect("the answer comes whole"),
    }
}

/// A broadcast without an audience.
pub fn letter() -> Value {
    json!({"from": {"email": "news@example.org", "name": "News"}, "subject": "Hello {{ name }}", "text": "Hello {{ name }}"})
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

/// What a relay said at one try.
pub fn outcome(status: MessageStatus, code: u16, enhanced: &str, text: &str, class: &'static str) -> Outcome {
    Outcome {
        status,
        class,
        reply: ReplyNote {
            code: Some(code),
            enhanced: Some(enhanced.to_owned()),
            text: text.to_owned(),
        },
        next_at: (status == MessageStatus::Deferred).then(|| BEGINNING.plus_ms(60_000)),
        counts_as_attempt: true,
        possible_duplicate: false,
    }
}
