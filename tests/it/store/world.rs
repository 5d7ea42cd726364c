//! What the cases stand on: an opened store on a database of its own, told times, and the short words in which the stories are
//! written. Asserts nothing about the store beyond what a step must return for the story to go on.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::broadcast::{Audience, Broadcast, NewBroadcast, OnUncertain, Priority};
use hikyaku::domain::chunk::Chunk;
use hikyaku::domain::content::{Content, Letter, Mailbox};
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::job::{Claimed, JobEnd, JobKind, Lease};
use hikyaku::domain::message::{MessageStatus, Outcome, ReplyNote};
use hikyaku::domain::recipient::{self, Recipient};
use hikyaku::domain::time::Timestamp;
use hikyaku::store::delivery::{Ack, Progress, Settled};
use hikyaku::store::fan_out::FanOutStep;
use hikyaku::store::intake::Page;
use hikyaku::store::workers::NewWorker;
use hikyaku::store::{self, DatabaseUrl, Store};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite, sql};

/// The stories begin here: 21 September 2026.
const BEGINNING: i64 = 1_790_000_000_000;
/// Recipients in an intake page: small, so that short stories turn pages too.
const PAGE_SIZE: usize = 7;
/// A lease that no story outlives by accident.
pub const LEASE_MS: i64 = 30_000;
/// The number of no worker: a rescuer that spares nobody.
pub const NOBODY: i64 = 0;

/// So many milliseconds after the beginning.
pub fn at(ms: i64) -> Timestamp {
    Timestamp(BEGINNING + ms)
}

/// A store, and the database it stands on.
pub struct World {
    store: Arc<dyn Store>,
    database: TestDatabase,
}

impl Deref for World {
    type Target = dyn Store;
    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl World {
    pub async fn sqlite() -> Self {
        Self::on(fresh_sqlite()).await
    }

    pub async fn postgres() -> Self {
        Self::on(fresh_postgres().await).await
    }

    pub async fn tell_sqlite<F: Future<Output = ()>>(case: impl FnOnce(World) -> F) {
        case(Self::sqlite().await).await;
    }

    /// A case that ends well takes its database along: a hundred of them would be a gigabyte.
    pub async fn tell_postgres<F: Future<Output = ()>>(case: impl FnOnce(World) -> F) {
        let w = Self::postgres().await;
        let mut url = url::Url::parse(w.url()).unwrap();
        case(w).await;
        let name = url.path().trim_start_matches('/').to_owned();
        url.set_path("/postgres");
        let mut server = PgConnectOptions::from_str(url.as_str())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        sqlx::query(AssertSqlSafe(drop)).execute(&mut server).await.unwrap();
        server.close().await.unwrap();
    }

    async fn on(database: TestDatabase) -> Self {
        let store = open(&database.url).await;
        World { store, database }
    }

    /// A database that exists, opened.
    pub async fn opened(database: TestDatabase) -> Self {
        Self::on(database).await
    }

    /// Gives the database back; the store is closed.
    pub fn into_database(self) -> TestDatabase {
        self.database
    }

    /// The same store, for a task of its own.
    pub fn share(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    pub fn url(&self) -> &str {
        &self.database.url
    }

    pub fn is_sqlite(&self) -> bool {
        self.database.url.starts_with("sqlite")
    }

    /// Another process on the same database.
    pub async fn open_again(&self) -> Arc<dyn Store> {
        open(&self.database.url).await
    }

    /// Runs a statement past the store and gives every row as one line of text, columns separated by `|`.
    pub async fn sql(&self, text: &str) -> Vec<String> {
        sql(&self.database.url, text).await
    }
}

async fn open(url: &str) -> Arc<dyn Store> {
    store::open(&DatabaseUrl::parse(url).unwrap()).await.unwrap()
}

// ---- builders -------------------------------------------------------------------------------------------------------------

pub fn recipient(address: &str) -> Recipient {
    Recipient {
        email: EmailAddress::parse(address).unwrap(),
        name: None,
        data: None,
    }
}

/// So many people, in the order of their sort keys, as a fan-out meets them.
pub fn people(n: usize) -> Vec<Recipient> {
    sorted((0..n).map(|i| recipient(&format!("p{i}@example.org"))).collect())
}

pub fn sorted(mut recipients: Vec<Recipient>) -> Vec<Recipient> {
    recipients.sort_by_cached_key(Recipient::sort_key);
    recipients
}

pub fn broadcast_id(n: u128) -> BroadcastId {
    BroadcastId::new(at(0), n)
}

/// A broadcast to one run of inline recipients, to be changed as the story needs it.
pub fn broadcast(n: u128, received: usize) -> NewBroadcast {
    NewBroadcast {
        id: broadcast_id(n),
        letter: Letter {
            from: Mailbox {
                email: EmailAddress::parse("news@example.com").unwrap(),
                name: Some("News".into()),
            },
            reply_to: None,
            content: Content {
                subject: format!("News {n}"),
                html: Some("<p>Hello</p>".into()),
                text: None,
            },
            headers: Vec::new(),
            attachments: Vec::new(),
            data: serde_json::Map::new().into(),
        },
        audience: Audience::Inline { runs: 1 },
        template_id: None,
        campaign: None,
        send_at: None,
        expires_at: None,
        on_uncertain: OnUncertain::Resend,
        priority: Priority::Normal,
        relay: None,
        tags: vec!["weekly".into()],
        metadata: serde_json::Map::new(),
        received: received as i64,
        rejected: 0,
        duplicates: 0,
        safety: Default::default(),
    }
}

/// Sorted recipients as intake pages.
pub fn pages(run: &[Recipient]) -> Vec<Page> {
    run.chunks(PAGE_SIZE)
        .map(|page| Page {
            last_key: page.last().expect("chunks are not empty").sort_key(),
            payload: recipient::encode(page),
        })
        .collect()
}

/// What one try of a message came to. The tries are counted as if each had reached a relay.
pub fn settled(ordinal: u16, before: MessageStatus, after: MessageStatus, tries: i64, now: Timestamp) -> Settled {
    let (code, enhanced, text) = match after {
        MessageStatus::Sent => (250, "2.0.0", "queued"),
        MessageStatus::Deferred => (451, "4.7.1", "later"),
        _ => (550, "5.1.1", "no such user"),
    };
    Settled {
        ordinal,
        before,
        outcome: Outcome {
            status: after,
            class: if after == MessageStatus::Sent {
                ""
            } else {
                "some_reason"
            },
            reply: ReplyNote {
                code: Some(code),
                enhanced: Some(enhanced.into()),
                text: text.into(),
            },
            next_at: (after == MessageStatus::Deferred).then(|| now.plus_ms(60_000)),
            counts_as_attempt: true,
            possible_duplicate: false,
        },
        attempts: tries,
        burnt: tries,
        attempt: Some(after),
        newly_flagged: false,
        relay_id: None,
        at: now,
        bounce: None,
    }
}

pub fn sent(ordinal: u16, now: Timestamp) -> Settled {
    settled(ordinal, MessageStatus::Queued, MessageStatus::Sent, 1, now)
}

pub fn progress(lease: Lease, settled: Vec<Settled>, inflight: &[u16]) -> Progress {
    static NUMBER: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(1);
    Progress {
        lease,
        number: NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        settled,
        inflight: inflight.to_vec(),
    }
}

// ---- steps that many stories take -------------------------------------------------------------------------------------------

impl World {
    /// Stages the recipients as one run and accepts the broadcast.
    pub async fn accept_new(&self, new: &NewBroadcast, recipients: &[Recipient], now: Timestamp) {
        self.stage_run(&new.id, 0, &pages(recipients), now).await.unwrap();
        self.accept(new, None, now).await.unwrap();
    }

    /// A worker that lives for [`LEASE_MS`] from now.
    pub async fn worker(&self, now: Timestamp) -> i64 {
        let me = NewWorker {
            host: "test".into(),
            pid: 1,
            version: "0".into(),
        };
        self.register_worker(&me, now.plus_ms(LEASE_MS), now).await.unwrap()
    }

    pub async fn claim_one(&self, worker: i64, kind: JobKind, now: Timestamp) -> Claimed {
        let mut claimed = self.claim(worker, kind, 1, now).await.unwrap();
        claimed.pop().expect("a job is ready")
    }

    /// All recipients of a broadcast's audience by normalised address, as its sources give them, and how many they gave.
    pub async fn read_audience(&self, id: &BroadcastId) -> (BTreeMap<String, Recipient>, i64) {
        let (mut all, mut n) = (BTreeMap::new(), 0);
        for source in self.sources(id).await.unwrap() {
            let mut after = None;
            loop {
                let page = self.source_page(id, &source, after.as_ref()).await.unwrap();
                let Some(last) = page.last() else { break };
                after = Some(last.sort_key());
                n += page.len() as i64;
                all.extend(page.into_iter().map(|r| (r.sort_key().as_str().to_owned(), r)));
            }
        }
        (all, n)
    }

    /// Cuts a claimed fan-out's whole audience into chunks of this size and ends the fan-out.
    pub async fn fan_out(&self, job: &Claimed, chunk_size: usize, now: Timestamp) {
        let (all, _) = self.read_audience(&job.broadcast_id).await;
        let all: Vec<Recipient> = all.into_values().collect();
        for (seq, recipients) in (0..).zip(all.chunks(chunk_size)) {
            self.fan_out_next(job.lease, &step(seq, recipients), now).await.unwrap();
        }
        self.finish_fan_out(job.lease, 0, 0, now).await.unwrap();
    }

    /// Accepts an inline broadcast to so many people and cuts it, ready to be delivered.
    pub async fn ready_broadcast(&self, n: u128, recipients: usize, chunk_size: usize) -> BroadcastId {
        let new = broadcast(n, recipients);
        self.accept_new(&new, &people(recipients), at(0)).await;
        let worker = self.worker(at(0)).await;
        let job = self.claim_one(worker, JobKind::FanOut, at(0)).await;
        self.fan_out(&job, chunk_size, at(0)).await;
        self.retire_worker(worker, at(0)).await.unwrap();
        new.id
    }

    /// Commits the progress of one job, which must still be ours.
    pub async fn commit_one(&self, progress: Progress, now: Timestamp) {
        let acks = self.commit_progress(&[progress], now).await.unwrap();
        assert!(matches!(acks[..], [Ack::Durable { .. }]), "{acks:?}");
    }

    /// Sends every message of a claimed chunk and gives the job back.
    pub async fn send_all(&self, job: &Claimed, now: Timestamp) {
        let size = self.chunk_work(job.lease).await.unwrap().chunk.recipients.len() as u16;
        let all = (0..size).map(|o| sent(o, now)).collect();
        self.commit_one(progress(job.lease, all, &[]), now).await;
        self.finish(job.lease, JobEnd::Done, now).await.unwrap();
    }

    pub async fn show(&self, id: &BroadcastId) -> Broadcast {
        self.broadcast(id).await.unwrap().expect("the broadcast exists")
    }
}

/// One step of a fan-out, with nothing unusual in it.
pub fn step(seq: i64, recipients: &[Recipient]) -> FanOutStep {
    FanOutStep {
        seq,
        chunk: Chunk {
            recipients: recipients.to_vec(),
        },
        suppressed: Vec::new(),
        received: 0,
        duplicates: 0,
        cursor: recipients.last().expect("a chunk is not empty").sort_key(),
        is_canary: false,
    }
}
