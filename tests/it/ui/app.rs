//! The pages over real HTTP, on a database of their own, with broadcasts whose fate is written by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hikyaku::clock::{Clock, ManualClock, SystemClock};
use hikyaku::dns::Dns;
use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::broadcast::{Audience, NewBroadcast, OnUncertain, Priority};
use hikyaku::domain::chunk::Chunk;
use hikyaku::domain::content::{Content, Letter, Mailbox};
use hikyaku::domain::id::{BroadcastId, TemplateId};
use hikyaku::domain::job::{JobEnd, JobKind};
use hikyaku::domain::message::{MessageStatus, Outcome, ReplyNote};
use hikyaku::domain::recipient::Recipient;
use hikyaku::domain::retry::RetryPolicy;
use hikyaku::domain::time::Timestamp;
use hikyaku::domain::token::SecretKey;
use hikyaku::domain::worker::WorkerStats;
use hikyaku::pipeline::compose::Desk;
use hikyaku::pipeline::deliver::Gauges;
use hikyaku::pipeline::deliver::lanes::Lanes;
use hikyaku::pipeline::worker::{self, Deps, RelaySource, Settings};
use hikyaku::sink::SinkHandle;
use hikyaku::smtp::RelayConfig;
use hikyaku::store::delivery::{Progress, Settled};
use hikyaku::store::fan_out::FanOutStep;
use hikyaku::store::workers::NewWorker;
use hikyaku::store::{self, DatabaseUrl, Store};
use hikyaku::web::{self, Limits, WebState, session};
use reqwest::header::LOCATION;
use reqwest::{Client, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite};

pub const EMAIL: &str = "owner@example.org";
pub const PASSWORD: &str = "a long enough sentence";
/// The relay that the installation is started with.
pub const CONFIGURED_RELAY: &str = "default";
/// How long the worker of a test lives: longer than any test.
const LEASE_MS: i64 = 3_600_000;

/// One running installation, and a browser that follows no redirects.
pub struct App {
    pub base: String,
    pub client: Client,
    pub store: Arc<dyn Store>,
    pub clock: ManualClock,
    pub state: WebState,
    worker: i64,
    _database: TestDatabase,
}

impl App {
    pub async fn start(database: TestDatabase) -> Self {
        Self::start_with(database, None).await
    }

    /// With a capture relay whose mailbox the pages show.
    pub async fn start_with(database: TestDatabase, capture: Option<Arc<SinkHandle>>) -> Self {
        let store = store::open(&DatabaseUrl::parse(&database.url).unwrap()).await.unwrap();
        let clock = ManualClock::at(SystemClock.now());
        // Beside a real worker the real time is needed.
        let told: Arc<dyn Clock> = match capture {
            Some(_) => Arc::new(SystemClock),
            None => Arc::new(clock.clone()),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state = WebState {
            store: Arc::clone(&store),
            clock: told,
            secret: SecretKey::new([7; 32]),
            public_url: base.as_str().into(),
            bootstrap_key_hash: None,
            limits: Limits::default(),
            dns: Dns::of(None),
            capture,
            configured_relay: Some(CONFIGURED_RELAY.into()),
        };
        tokio::spawn(web::serve(listener, state.clone(), CancellationToken::new()));
        let me = NewWorker {
            host: "post-1".into(),
            pid: 4711,
            version: "0.1.0".into(),
        };
        let now = clock.now();
        let worker = store.register_worker(&me, now.plus_ms(LEASE_MS), now).await.unwrap();
        Self {
            base,
            client: browser(),
            store,
            clock,
            state,
            worker,
            _database: database,
        }
    }

    /// A worker that hands what is accepted to this relay, until it is told to stop.
    pub async fn start_worker(&self, relay: SocketAddr) -> CancellationToken {
        let mut config = RelayConfig::clear("127.0.0.1", relay.port());
        "capture".clone_into(&mut config.name);
        let deps = Deps {
            store: Arc::clone(&self.store),
            clock: Arc::new(SystemClock),
            relays: RelaySource { capture: Some(config) },
            gauges: Arc::new(Gauges::default()),
            lanes: Lanes::new(None, Arc::new(SystemClock)),
            desk: Desk::new(self.state.secret.clone(), Arc::clone(&self.state.public_url)),
            me: NewWorker {
                host: "post-2".into(),
                pid: 815,
                version: "0.1.0".into(),
            },
            settings: Settings {
                concurrent_jobs: 4,
                lease: Duration::from_secs(30),
                heartbeat: Duration::from_secs(1),
                poll: Duration::from_secs(1),
                drain: Duration::from_secs(5),
                messages_kept: None,
                retry: RetryPolicy {
                    delays: vec![Duration::from_secs(60)],
                    jitter_percent: 0,
                    max_age: Duration::from_secs(3_600),
                },
                safety: Default::default(),
            },
        };
        let stop = CancellationToken::new();
        tokio::spawn(worker::run(deps, stop.clone()));
        stop
    }

    /// One on each database.
    pub async fn both() -> [Self; 2] {
        [
            Self::start(fresh_sqlite()).await,
            Self::start(fresh_postgres().await).await,
        ]
    }

    pub async fn setup_link(&self) -> String {
        session::setup_link(&self.state)
            .await
            .unwrap()
            .expect("there is no user yet")
    }

    /// Makes the first user by the set-up link; the browser is signed in from then on.
    pub async fn sign_in(&self) {
        let link = self.setup_link().await;
        let token = link.split_once("token=").unwrap().1.to_owned();
        let answer = self
            .post("/setup", &[("token", token.as_str()), ("email", EMAIL), ("password", PASSWORD)])
            .await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    /// A page that must be there.
    pub async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Response {
        self.client
            .post(format!("{}{path}", self.base))
            .form(form)
            .send()
            .await
            .unwrap()
    }

    pub async fn contacts(&self, n: usize) {
        for batch in recipients(n).chunks(1_000) {
            self.store.put_contacts(batch, None, self.clock.now()).await.unwrap();
        }
    }

    pub async fn template(&self, name: &str, subject: &str) -> TemplateId {
        let content = Content {
            subject: subject.to_owned(),
            html: Some("<h1>Hello {{ name|default('you') }}</h1>".to_owned()),
            text: None,
        };
        let id = TemplateId::new(self.clock.now(), fastrand::u128(..));
        self.store
            .put_template(&id, name, &content, self.clock.now())
            .await
            .unwrap();
        id
    }

    /// A broadcast to `n` recipients, cut into chunks, nothing sent yet.
    pub async fn broadcast(&self, subject: &str, n: usize) -> BroadcastId {
        self.broadcast_through(subject, n, None).await
    }

    /// The same through this relay only.
    pub async fn broadcast_through(&self, subject: &str, n: usize, relay: Option<&str>) -> BroadcastId {
        let now = self.clock.now();
        let id = BroadcastId::new(now, fastrand::u128(..));
        let broadcast = NewBroadcast {
            relay: relay.map(ToOwned::to_owned),
            ..new_broadcast(&id, subject, n)
        };
        self.store.accept(&broadcast, None, now).await.unwrap();
        let job = self
            .store
            .claim(self.worker, JobKind::FanOut, 1, now)
            .await
            .unwrap()
            .remove(0);
        let mut all = recipients(n);
        all.sort_by_key(Recipient::sort_key);
        for (seq, chunk) in all.chunks(1_000).enumerate() {
            let step = FanOutStep {
                seq: seq as i64,
                cursor: chunk.last().unwrap().sort_key(),
                is_canary: false,
                chunk: Chunk {
                    recipients: chunk.to_vec(),
                },
                suppressed: vec![],
                received: 0,
                duplicates: 0,
            };
            self.store.fan_out_next(job.lease, &step, now).await.unwrap();
        }
        self.store.finish_fan_out(job.lease, 0, 0, now).await.unwrap();
        id
    }

    /// Works up to `n` chunks off; `fate` says what became of each message by its number.
    pub async fn deliver(&self, n: i64, fate: impl Fn(usize) -> Outcome) {
        let now = self.clock.now();
        let relay = self.store.relay_id("relay-eu").await.unwrap();
        for job in self.store.claim(self.worker, JobKind::Deliver, n, now).await.unwrap() {
            let work = self.store.chunk_work(job.lease).await.unwrap();
            let settled: Vec<Settled> = (0..work.chunk.recipients.len())
                .map(|i| settled(i, fate(i), relay, now))
                .collect();
            let deferred = settled.iter().filter_map(|s| s.outcome.next_at).min();
            let progress = Progress {
                number: 1,
                lease: job.lease,
                settled,
                inflight: vec![],
            };
            self.store.commit_progress(&[progress], now).await.unwrap();
            let end = deferred.map_or(JobEnd::Done, JobEnd::Waiting);
            self.store.finish(job.lease, end, now).await.unwrap();
        }
    }

    /// Claims a chunk and keeps it, as a worker in the middle of its work does.
    pub async fn hold_a_job(&self) {
        let now = self.clock.now();
        self.store.claim(self.worker, JobKind::Deliver, 1, now).await.unwrap();
        let stats = WorkerStats {
            rate_per_sec: 1_840.0,
            connections_open: 10,
            trouble: None,
            brakes: Vec::new(),
        };
        self.store
            .heartbeat(self.worker, now.plus_ms(LEASE_MS), false, &stats, now)
            .await
            .unwrap();
    }
}

pub fn browser() -> Client {
    Client::builder()
        .cookie_store(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

pub fn location(answer: &Response) -> &str {
    answer.headers().get(LOCATION).map_or("", |l| l.to_str().unwrap())
}

pub fn address(i: usize) -> String {
    const NAMES: [&str; 8] = ["anna", "ben", "chiara", "dilan", "emil", "fatma", "goran", "hanna"];
    const HOSTS: [&str; 5] = [
        "example.org",
        "example.net",
        "mail.example",
        "post.example",
        "uni.example",
    ];
    format!("{}.{i}@{}", NAMES[i % NAMES.len()], HOSTS[i % HOSTS.len()])
}

pub fn recipients(n: usize) -> Vec<Recipient> {
    (0..n)
        .map(|i| Recipient {
            email: EmailAddress::parse(&address(i)).unwrap(),
            name: (i % 3 == 0).then(|| format!("Person {i}").into()),
            data: None,
        })
        .collect()
}

fn new_broadcast(id: &BroadcastId, subject: &str, n: usize) -> NewBroadcast {
    NewBroadcast {
        id: id.clone(),
        letter: Letter {
            from: Mailbox {
                email: EmailAddress::parse("news@example.org").unwrap(),
                name: None,
            },
            reply_to: None,
            content: Content {
                subject: subject.to_owned(),
                html: None,
                text: Some("Hello".to_owned()),
            },
            headers: vec![],
            attachments: Vec::new(),
            data: serde_json::Map::new().into(),
        },
        audience: Audience::Inline { runs: 0 },
        template_id: None,
        campaign: None,
        send_at: None,
        expires_at: None,
        on_uncertain: OnUncertain::Resend,
        priority: Priority::Normal,
        relay: None,
        tags: vec![],
        metadata: serde_json::Map::new(),
        received: n as i64,
        rejected: 0,
        duplicates: 0,
        safety: Default::default(),
    }
}

fn settled(i: usize, outcome: Outcome, relay: i64, at: Timestamp) -> Settled {
    let was_tried = outcome.reply.code.is_some();
    Settled {
        ordinal: i as u16,
        before: MessageStatus::Queued,
        attempts: i64::from(was_tried),
        burnt: i64::from(outcome.counts_as_attempt),
        attempt: was_tried.then_some(outcome.status),
        newly_flagged: outcome.possible_duplicate,
        relay_id: was_tried.then_some(relay),
        at,
        bounce: None,
        outcome,
    }
}

pub fn outcome(status: MessageStatus, class: &'static str, code: u16, enhanced: &str, text: &str) -> Outcome {
    Outcome {
        status,
        class,
        reply: ReplyNote {
            code: Some(code),
            enhanced: Some(enhanced.to_owned()),
            text: text.to_owned(),
        },
        next_at: None,
        counts_as_attempt: true,
        possible_duplicate: false,
    }
}

pub fn sent() -> Outcome {
    outcome(MessageStatus::Sent, "", 250, "2.0.0", "OK queued as 4XyZ")
}
