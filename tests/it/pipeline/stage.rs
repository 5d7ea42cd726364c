//! A stage for stories: a database, an SMTP server that behaves as told, and workers between them. The real ones, all of them.
//! Never sleeps: it waits until something is so, and gives up after a minute.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hikyaku::clock::{Clock, ManualClock, SystemClock};
use hikyaku::dns::Dns;
use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::broadcast::{Audience, Broadcast, NewBroadcast, OnUncertain, Priority};
use hikyaku::domain::content::{Content, Letter, Mailbox};
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::recipient::{self, Recipient};
use hikyaku::domain::relay::RelaySpec;
use hikyaku::domain::retry::RetryPolicy;
use hikyaku::domain::token::SecretKey;
use hikyaku::pipeline::compose::Desk;
use hikyaku::pipeline::control::control;
use hikyaku::pipeline::deliver::Gauges;
use hikyaku::pipeline::deliver::lanes::Lanes;
use hikyaku::pipeline::worker::{self, Deps, RelaySource, Settings};
use hikyaku::sink::{Sink, SinkHandle, SinkOptions};
use hikyaku::store::intake::Page;
use hikyaku::store::queue::Wish;
use hikyaku::store::reports::{AttemptView, MessageView};
use hikyaku::store::workers::NewWorker;
use hikyaku::store::{DatabaseUrl, Store};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::database::TestDatabase;

/// Longer than any story takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at for which nothing calls.
const LOOK: Duration = Duration::from_millis(5);

/// How the stage is set.
pub struct Plan {
    pub sink: SinkOptions,
    pub connections: u16,
    /// Messages in flight on a connection.
    pub chunking: u32,
    pub rate: Option<u32>,
    pub settings: Settings,
    /// Whom workers ask about mail exchangers, if anybody.
    pub dns: Option<Dns>,
    pub clock: Arc<dyn Clock>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            sink: SinkOptions::default(),
            connections: 8,
            chunking: 0,
            rate: None,
            settings: Settings {
                concurrent_jobs: 4,
                lease: Duration::from_secs(15),
                heartbeat: Duration::from_millis(200),
                poll: Duration::from_millis(500),
                drain: Duration::from_secs(10),
                messages_kept: None,
                retry: RetryPolicy {
                    delays: vec![Duration::from_millis(50)],
                    jitter_percent: 20,
                    max_age: Duration::from_secs(3_600),
                },
                safety: Default::default(),
            },
            dns: None,
            clock: Arc::new(SystemClock),
        }
    }
}

/// A database and a sink; workers are [hired](Stage::hire).
pub struct Stage {
    pub store: Arc<dyn Store>,
    pub sink: SinkHandle,
    /// Where the workers find the relay: the sink, unless a story moves it.
    pub relay_at: SocketAddr,
    pub plan: Plan,
    database: TestDatabase,
}

/// A worker at work.
pub struct Hand {
    pub gauges: Arc<Gauges>,
    pub lanes: Arc<Lanes>,
    stop: CancellationToken,
    task: JoinHandle<hikyaku::store::Result<()>>,
}

impl Hand {
    /// The orderly end.
    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// A worker that will be killed: it has threads of its own, and all that it does ends with them.
pub struct Mortal(Option<Runtime>);

impl Mortal {
    /// The end without any order: whatever it was doing stops where it is.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(life) = self.0.take() {
            life.shutdown_background();
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.end();
    }
}

impl Stage {
    pub async fn open(database: TestDatabase, plan: Plan) -> Self {
        let store = open_store(&database).await;
        let sink = Sink::start(SinkOptions {
            count_recipients: true,
            ..plan.sink.clone()
        })
        .await
        .unwrap();
        Stage {
            store,
            relay_at: sink.addr(),
            sink,
            plan,
            database,
        }
    }

    /// Another way to the same database, as another process has it.
    pub async fn another_store(&self) -> Arc<dyn Store> {
        open_store(&self.database).await
    }

    /// Says what holds for a relay at the sink, unless that is said already.
    pub async fn put_relay(&self, name: &str, change: impl FnOnce(&mut RelaySpec)) {
        let (at, plan) = (self.relay_at, &self.plan);
        let chunking = if plan.chunking > 0 {
            format!("&chunking={}", plan.chunking)
        } else {
            String::new()
        };
        let mut spec = RelaySpec::of(format!("smtp://{at}?connections={}{chunking}", plan.connections));
        spec.limits.per_sec = plan.rate;
        change(&mut spec);
        let stored = self.store.relay(name).await.unwrap();
        if stored.is_none_or(|r| r.spec != spec) {
            self.store.put_relay(name, &spec, plan.clock.now()).await.unwrap();
        }
    }

    /// Waits until every worker has looked at the relays once more: another broadcast has been through their hands. Only
    /// where some worker beats and polls often.
    pub async fn another_look(&self) {
        let seen = async || -> Vec<i64> {
            let workers = self.store.workers(self.plan.clock.now()).await.unwrap();
            workers
                .iter()
                .filter(|w| w.state == "live")
                .map(|w| w.seen_at.0)
                .collect()
        };
        let now = self.plan.clock.now();
        eventually(async || seen().await.iter().all(|at| *at >= now.0)).await;
    }

    /// Moves the clock on until nobody holds a job of the broadcast: each gives back what may not go for some seconds. No faster
    /// than the workers' hearts beat, so that none of them is taken for dead.
    pub async fn given_back(&self, id: &BroadcastId, clock: &ManualClock) {
        let all = async {
            while self.n_running(id).await > 0 {
                clock.advance_ms(250);
                self.another_look().await;
            }
        };
        tokio::time::timeout(PATIENCE, all)
            .await
            .expect("the jobs are given back");
    }

    /// Hires a worker.
    pub async fn hire(&self) -> Hand {
        self.hire_on(Arc::clone(&self.store)).await
    }

    /// Hires a worker with its own way to the database.
    pub async fn hire_on(&self, store: Arc<dyn Store>) -> Hand {
        self.put_relay("sink", |_| {}).await;
        self.start(store)
    }

    /// Hires a worker and leaves the relays as the story has put them.
    pub fn hire_as_it_is(&self, store: Arc<dyn Store>) -> Hand {
        self.start(store)
    }

    fn start(&self, store: Arc<dyn Store>) -> Hand {
        let (deps, gauges, lanes) = self.deps(store);
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker::run(deps, stop.clone()));
        Hand {
            gauges,
            lanes,
            stop,
            task,
        }
    }

    /// Hires a worker that will be killed, with its own way to the database.
    pub async fn hire_mortal(&self) -> Mortal {
        self.put_relay("sink", |_| {}).await;
        let mut life = tokio::runtime::Builder::new_multi_thread();
        let life = life.worker_threads(1).enable_all().build().unwrap();
        let url = DatabaseUrl::parse(&self.database.url).unwrap();
        let store = life.spawn(async move { hikyaku::store::open(&url).await });
        let (deps, ..) = self.deps(store.await.unwrap().unwrap());
        life.spawn(worker::run(deps, CancellationToken::new()));
        Mortal(Some(life))
    }

    fn deps(&self, store: Arc<dyn Store>) -> (Deps, Arc<Gauges>, Arc<Lanes>) {
        let gauges = Arc::new(Gauges::default());
        let lanes = Lanes::new(self.plan.dns.clone(), Arc::clone(&self.plan.clock));
        let deps = Deps {
            store,
            clock: Arc::clone(&self.plan.clock),
            relays: RelaySource::default(),
            gauges: Arc::clone(&gauges),
            lanes: Arc::clone(&lanes),
            desk: Desk::new(SecretKey::new([7; 32]), "http://127.0.0.1:8025".into()),
            me: NewWorker {
                host: "test".into(),
                pid: 1,
                version: "0".into(),
            },
            settings: self.plan.settings.clone(),
        };
        (deps, gauges, lanes)
    }

    /// Accepts a broadcast to these recipients.
    pub async fn send(&self, recipients: Vec<Recipient>) -> BroadcastId {
        self.send_as(recipients, |_| {}).await
    }

    /// Accepts a broadcast to these recipients, changed as the story wants it. Repeats are staged in a second run.
    pub async fn send_as(&self, recipients: Vec<Recipient>, change: impl FnOnce(&mut NewBroadcast)) -> BroadcastId {
        let now = self.plan.clock.now();
        let id = BroadcastId::new(now, fastrand::u128(..));
        let n = recipients.len();
        let mut runs: [Vec<Recipient>; 2] = Default::default();
        let mut seen = std::collections::HashSet::new();
        for recipient in recipients {
            let is_repeat = !seen.insert(recipient.email.normalised());
            runs[usize::from(is_repeat)].push(recipient);
        }
        for (run, mut recipients) in runs.into_iter().enumerate() {
            recipients.sort_by_key(Recipient::sort_key);
            let pages: Vec<Page> = recipients
                .chunks(300)
                .map(|page| Page {
                    last_key: page[page.len() - 1].sort_key(),
                    payload: recipient::encode(page),
                })
                .collect();
            self.store.stage_run(&id, run as i64, &pages, now).await.unwrap();
        }
        let mut new = broadcast(id.clone(), n);
        change(&mut new);
        self.store.accept(&new, None, now).await.unwrap();
        id
    }

    pub async fn broadcast(&self, id: &BroadcastId) -> Broadcast {
        let broadcast = self.store.broadcast(id).await.unwrap().unwrap();
        assert_eq!(broadcast.counts.total(), broadcast.received.accepted(), "conservation: {broadcast:?}");
        broadcast
    }

    /// Waits until the broadcast is over and nobody holds a job of it any more, and returns how it ended. Its counters
    /// must agree with its rows.
    pub async fn ended(&self, id: &BroadcastId) -> Broadcast {
        let mut wakeups = self.store.wakeups();
        let over = async {
            loop {
                wakeups.mark_unchanged();
                let broadcast = self.broadcast(id).await;
                if broadcast.status.is_final() && self.n_running(id).await == 0 {
                    return self.broadcast(id).await;
                }
                // Another process of an SQLite file wakes nobody here: look from time to time as well.
                if let Ok(called) = tokio::time::timeout(LOOK, wakeups.changed()).await {
                    called.unwrap();
                }
            }
        };
        let broadcast = match tokio::time::timeout(PATIENCE, over).await {
            Ok(broadcast) => broadcast,
            Err(_) => panic!(
                "the broadcast does not end: {:?}\n{:?}",
                self.broadcast(id).await,
                self.store.jobs(None, 20).await.unwrap()
            ),
        };
        assert_eq!(self.store.recount(id).await.unwrap(), broadcast.counts);
        broadcast
    }

    /// Jobs of the broadcast that somebody is working on.
    pub async fn n_running(&self, id: &BroadcastId) -> usize {
        let running = self.store.jobs(Some("running"), 1_000).await.unwrap();
        running.iter().filter(|job| job.broadcast_id == id.as_str()).count()
    }

    pub async fn wish(&self, id: &BroadcastId, wish: Wish) -> Broadcast {
        control(&*self.store, id, &wish, self.plan.clock.now()).await.unwrap()
    }

    /// Waits until the relay has accepted so many messages.
    pub async fn accepted(&self, n: u64) {
        eventually(async || self.sink.sink().stats().accepted >= n).await;
    }

    pub async fn message(&self, id: &BroadcastId, address: &str) -> MessageView {
        self.store.message_to(id, address).await.unwrap().unwrap()
    }

    pub async fn attempts(&self, id: &BroadcastId, address: &str) -> Vec<AttemptView> {
        let message = self.message(id, address).await;
        self.store.attempts(message.id).await.unwrap()
    }

    /// What each attempt of a message came to.
    pub async fn fates(&self, id: &BroadcastId, address: &str) -> Vec<MessageStatus> {
        self.attempts(id, address).await.iter().map(|a| a.status).collect()
    }

    /// Copies of this address at the relay.
    pub fn copies(&self, address: &str) -> u32 {
        self.sink.sink().copies().get(address).copied().unwrap_or(0)
    }

    pub async fn n_flagged(&self, id: &BroadcastId) -> i64 {
        let rate = self.store.rate(id, self.plan.clock.now()).await.unwrap();
        rate.possible_duplicates
    }

    /// The relay has `n` addresses with one copy each, and no message is flagged as a possible duplicate.
    pub async fn assert_exactly_once(&self, id: &BroadcastId, n: usize) {
        let copies = self.sink.sink().copies();
        let twice: Vec<_> = copies.iter().filter(|(_, n)| **n != 1).collect();
        assert!(twice.is_empty(), "more than one copy: {twice:?}");
        assert_eq!(copies.len(), n);
        assert_eq!(self.n_flagged(id).await, 0);
    }
}

pub async fn open_store(database: &TestDatabase) -> Arc<dyn Store> {
    hikyaku::store::open(&DatabaseUrl::parse(&database.url).unwrap())
        .await
        .unwrap()
}

/// Waits until it is so.
pub async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        let mut look = tokio::time::interval(LOOK);
        while !is_so().await {
            look.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("what the story waits for happens");
}

/// `n` different recipients in seven domains.
pub fn people(n: usize) -> Vec<Recipient> {
    (0..n).map(|i| to(&format!("r{i}@d{}.example", i % 7))).collect()
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
            attachments: vec![],
            data: serde_json::Map::new().into(),
        },
        audience: Audience::Inline { runs: 2 },
        template_id: None,
        campaign: None,
        send_at: None,
        expires_at: None,
        on_uncertain: OnUncertain::Resend,
        priority: Priority::Normal,
        relay: None,
        tags: vec![],
        metadata: serde_json::Map::new(),
        received: received as i64,
        rejected: 0,
        duplicates: 0,
        safety: Default::default(),
    }
}
