//! A stage for stories: a database, an SMTP server that behaves as told, and a worker between them. The real ones, all
//! of them.

use std::sync::Arc;
use std::time::Duration;

use hikyaku::clock::{Clock, SystemClock};
use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::broadcast::{Audience, NewBroadcast, OnUncertain, Priority};
use hikyaku::domain::content::{Content, Letter, Mailbox};
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::recipient::{self, Recipient};
use hikyaku::domain::retry::RetryPolicy;
use hikyaku::domain::token::SecretKey;
use hikyaku::pipeline::compose::Desk;
use hikyaku::pipeline::deliver::{Gauges, Relay};
use hikyaku::pipeline::worker::{self, Deps, Settings};
use hikyaku::sink::{Sink, SinkHandle, SinkOptions};
use hikyaku::smtp::{Pace, RelayConfig, TlsContext};
use hikyaku::store::intake::Page;
use hikyaku::store::workers::NewWorker;
use hikyaku::store::{DatabaseUrl, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::database::TestDatabase;

/// A database, a sink, and a worker between them.
pub struct Stage {
    pub store: Arc<dyn Store>,
    pub sink: SinkHandle,
    stop: CancellationToken,
    worker: JoinHandle<hikyaku::store::Result<()>>,
    _database: TestDatabase,
}

impl Stage {
    pub async fn open(database: TestDatabase, options: SinkOptions) -> Self {
        let store = hikyaku::store::open(&DatabaseUrl::parse(&database.url).unwrap())
            .await
            .unwrap();
        let sink = Sink::start(SinkOptions {
            count_recipients: true,
            ..options
        })
        .await
        .unwrap();
        let stop = CancellationToken::new();
        let worker = tokio::spawn(worker::run(deps(&store, &sink).await, stop.clone()));
        Stage {
            store,
            sink,
            stop,
            worker,
            _database: database,
        }
    }

    /// Accepts a broadcast to `n` addresses, staged in two runs with `repeats` of them twice.
    pub async fn send(&self, n: usize, repeats: usize) -> BroadcastId {
        let now = SystemClock.now();
        let id = BroadcastId::new(now, fastrand::u128(..));
        let mut all: Vec<Recipient> = (0..n).map(|i| to(&format!("r{i}@d{}.example", i % 7))).collect();
        all.sort_by_key(Recipient::sort_key);
        let again: Vec<Recipient> = all.iter().take(repeats).cloned().collect();
        for (run, recipients) in [all, again].into_iter().enumerate() {
            let pages: Vec<Page> = recipients
                .chunks(300)
                .map(|page| Page {
                    last_key: page[page.len() - 1].sort_key(),
                    payload: recipient::encode(page),
                })
                .collect();
            self.store.stage_run(&id, run as i64, &pages, now).await.unwrap();
        }
        self.store
            .accept(&broadcast(id.clone(), n + repeats), None, now)
            .await
            .unwrap();
        id
    }

    /// Waits until the broadcast is over and returns how.
    pub async fn ended(&self, id: &BroadcastId) -> hikyaku::domain::broadcast::Broadcast {
        let mut wakeups = self.store.wakeups();
        let over = async {
            loop {
                wakeups.mark_unchanged();
                let broadcast = self.store.broadcast(id).await.unwrap().unwrap();
                assert_eq!(broadcast.counts.total(), broadcast.received.accepted(), "conservation: {broadcast:?}");
                if broadcast.status.is_final() {
                    return broadcast;
                }
                wakeups.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), over)
            .await
            .expect("the broadcast ends")
    }

    pub async fn close(self) {
        self.stop.cancel();
        self.worker.await.unwrap().unwrap();
    }
}

async fn deps(store: &Arc<dyn Store>, sink: &SinkHandle) -> Deps {
    let config = RelayConfig::clear(sink.addr().ip().to_string(), sink.addr().port());
    let relay = Relay {
        tls: TlsContext::new(&config).unwrap(),
        id: store.relay_id("sink").await.unwrap(),
        pace: Pace::new(None),
        gauges: Gauges::default(),
        config,
    };
    Deps {
        store: Arc::clone(store),
        clock: Arc::new(SystemClock),
        relay: Arc::new(relay),
        desk: Desk::new(SecretKey::new([7; 32]), "http://127.0.0.1:8025".into()),
        me: NewWorker {
            host: "test".into(),
            pid: 1,
            version: "0".into(),
        },
        settings: Settings {
            concurrent_jobs: 4,
            lease: Duration::from_secs(15),
            heartbeat: Duration::from_secs(1),
            poll: Duration::from_secs(1),
            drain: Duration::from_secs(10),
            retry: RetryPolicy {
                delays: vec![Duration::from_millis(50)],
                jitter_percent: 20,
                max_age: Duration::from_secs(3_600),
            },
        },
    }
}

pub fn to(address: &str) -> Recipient {
    Recipient {
        email: EmailAddress::parse(address).unwrap(),
        name: Some("Anna".into()),
        data: None,
    }
}

pub fn broadcast(id: BroadcastId, received: usize) -> NewBroadcast {
    NewBroadcast {
        id,
        letter: Letter {
            from: Mailbox {
                email: EmailAddress::parse("news@example.org").unwrap(),
                name: None,
            },
            reply_to: None,
            content: Content {
                subject: "Hello {{ name }}".into(),
                html: None,
                text: Some("For {{ email }}".into()),
            },
            headers: vec![],
            data: serde_json::Map::new(),
        },
        audience: Audience::Inline { runs: 2 },
        template_id: None,
        campaign: None,
        send_at: None,
        expires_at: None,
        on_uncertain: OnUncertain::Resend,
        priority: Priority::Normal,
        tags: vec![],
        metadata: serde_json::Map::new(),
        received: received as i64,
        rejected: 0,
        duplicates: 0,
    }
}
