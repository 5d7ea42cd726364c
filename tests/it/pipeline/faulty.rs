//! A store that fails as told: before a step took effect, or after it did and only its answer is lost. Passes everything on to
//! a real store and never decides anything itself.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hikyaku::domain::address::SortKey;
use hikyaku::domain::broadcast::{Brief, Broadcast, NewBroadcast};
use hikyaku::domain::campaign::{Campaign, CampaignStatus};
use hikyaku::domain::contact::{Contact, List, Suppression, SuppressionReason};
use hikyaku::domain::content::Content;
use hikyaku::domain::counts::Counts;
use hikyaku::domain::dkim::DkimKey;
use hikyaku::domain::finding::{Finding, FindingKind};
use hikyaku::domain::id::{BroadcastId, CampaignId, DkimKeyId, ListId, MessageId, TemplateId};
use hikyaku::domain::job::{Claimed, JobEnd, JobKind, Lease, Stop};
use hikyaku::domain::ledger::{Ask, Grant, PaceRow};
use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::recipient::Recipient;
use hikyaku::domain::relay::{Relay, RelaySpec};
use hikyaku::domain::safety::{Step, Watched};
use hikyaku::domain::time::Timestamp;
use hikyaku::domain::worker::{JobView, Worker, WorkerStats};
use hikyaku::store::access::{Access, ApiKey, User};
use hikyaku::store::audience::Audience;
use hikyaku::store::delivery::{Ack, ChunkWork, Delivery, Progress};
use hikyaku::store::dkim::Dkim;
use hikyaku::store::fan_out::{FanOut, FanOutStep, Source};
use hikyaku::store::findings::{Findings, Found};
use hikyaku::store::footing::{Footing, SetAside};
use hikyaku::store::intake::{Accepted, IdempotencyClaim, Intake, Page, Replay};
use hikyaku::store::library::{Library, NewCampaign, Template};
use hikyaku::store::pacing::{Pacing, RelayAt, Slower};
use hikyaku::store::queue::{Queue, Wish};
use hikyaku::store::relays::Relays;
use hikyaku::store::reports::{AttemptView, MessageView, Rate, Reports, Slice, Waiting};
use hikyaku::store::retention::Retention;
use hikyaku::store::safety::{Failures, Retried, Safety, Stuck};
use hikyaku::store::workers::{Heartbeat, NewWorker, Rescued, Workers};
use hikyaku::store::{Result, Store, StoreError};
use tokio::sync::watch;

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The step did not happen.
    Before,
    /// The step happened, and its answer was lost.
    After,
}

#[derive(Default)]
enum Faults {
    #[default]
    None,
    /// The call of this step after so many others.
    Nth(&'static str, u64, When),
    Always(&'static str),
    /// Each call with this probability.
    Random(fastrand::Rng, f64),
}

/// A store around another one.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Mutex<Faults>,
    n_calls: AtomicU64,
    n_failed: AtomicU64,
}

impl FaultyStore {
    pub fn around(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            faults: Mutex::default(),
            n_calls: AtomicU64::new(0),
            n_failed: AtomicU64::new(0),
        }
    }

    /// Fails the call of `step` that comes after `skips` others, once.
    pub fn fail_once(&self, step: &'static str, skips: u64, when: When) {
        *self.faults.lock().unwrap() = Faults::Nth(step, skips, when);
    }

    /// Fails every call of `step`; none of them happens.
    pub fn fail_always(&self, step: &'static str) {
        *self.faults.lock().unwrap() = Faults::Always(step);
    }

    /// Fails this share of all calls, half of them before and half of them after they took effect.
    pub fn fail_randomly(&self, seed: u64, share: f64) {
        *self.faults.lock().unwrap() = Faults::Random(fastrand::Rng::with_seed(seed), share);
    }

    pub fn heal(&self) {
        *self.faults.lock().unwrap() = Faults::None;
    }

    pub fn n_calls(&self) -> u64 {
        self.n_calls.load(Ordering::SeqCst)
    }

    pub fn n_failed(&self) -> u64 {
        self.n_failed.load(Ordering::SeqCst)
    }

    fn draw(&self, step: &'static str) -> Option<When> {
        let mut faults = self.faults.lock().unwrap();
        match &mut *faults {
            Faults::Nth(name, 0, when) if *name == step => {
                let when = *when;
                *faults = Faults::None;
                Some(when)
            }
            Faults::Nth(name, skips, _) if *name == step => {
                *skips -= 1;
                None
            }
            Faults::Always(name) if *name == step => Some(When::Before),
            Faults::Random(random, share) => {
                let when = if random.bool() { When::Before } else { When::After };
                (random.f64() < *share).then_some(when)
            }
            _ => None,
        }
    }

    async fn pass<T: Send>(&self, step: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.n_calls.fetch_add(1, Ordering::SeqCst);
        let Some(when) = self.draw(step) else { return call.await };
        self.n_failed.fetch_add(1, Ordering::SeqCst);
        if when == When::After {
            call.await?;
        }
        Err(StoreError::Unavailable(format!("{step} failed as told")))
    }
}

/// The steps of a trait, each passed on.
macro_rules! pass_on {
    ($trait:ident: $(fn $step:ident($($arg:ident: $type:ty),*) -> $answer:ty;)+) => {
        #[async_trait]
        impl $trait for FaultyStore {
            $(async fn $step(&self, $($arg: $type),*) -> Result<$answer> {
                self.pass(stringify!($step), self.inner.$step($($arg),*)).await
            })+
        }
    };
}

pass_on! { Access:
    fn create_api_key(key: &ApiKey) -> ();
    fn api_key(id: &str) -> Option<ApiKey>;
    fn api_keys() -> Vec<ApiKey>;
    fn revoke_api_key(id: &str, now: Timestamp) -> bool;
    fn touch_api_key(id: &str, now: Timestamp) -> ();
    fn count_users() -> i64;
    fn create_user(email: &str, password_hash: &str, now: Timestamp) -> User;
    fn user_by_email(email: &str) -> Option<User>;
    fn create_session(token_hash: &str, user: i64, expires_at: Timestamp, now: Timestamp) -> ();
    fn session_user(token_hash: &str, now: Timestamp) -> Option<User>;
    fn end_session(token_hash: &str) -> ();
    fn setting(name: &str) -> Option<String>;
    fn setting_or_insert(name: &str, value: &str) -> String;
    fn put_setting(name: &str, value: &str) -> ();
    fn take_setting(name: &str, value: &str) -> bool;
}

pass_on! { Audience:
    fn create_list(id: &ListId, name: &str, now: Timestamp) -> ();
    fn lists() -> Vec<List>;
    fn list(id: &ListId) -> Option<List>;
    fn delete_list(id: &ListId) -> bool;
    fn put_contacts(contacts: &[Recipient], list: Option<&ListId>, now: Timestamp) -> u64;
    fn contact(normalised: &str) -> Option<Contact>;
    fn contacts(list: Option<&ListId>, after: Option<&str>, limit: i64) -> Slice<Contact>;
    fn delete_contact(normalised: &str) -> bool;
    fn count_subscribed(lists: Option<&[ListId]>) -> i64;
    fn suppress(addresses: &[String], reason: SuppressionReason, source: &str, now: Timestamp) -> u64;
    fn unsuppress(normalised: &str) -> bool;
    fn suppressions(after: Option<&str>, limit: i64) -> Slice<Suppression>;
    fn suppression(normalised: &str) -> Option<Suppression>;
}

pass_on! { Delivery:
    fn brief(id: &BroadcastId) -> Brief;
    fn chunk_work(lease: Lease) -> ChunkWork;
    fn suppressed_among(addresses: &[String]) -> HashSet<String>;
    fn commit_progress(batch: &[Progress], now: Timestamp) -> Vec<Ack>;
    fn relay_id(name: &str) -> i64;
}

pass_on! { Dkim:
    fn create_dkim_key(key: &DkimKey) -> ();
    fn dkim_keys() -> Vec<DkimKey>;
    fn enable_dkim_key(id: &DkimKeyId, now: Timestamp) -> bool;
    fn disable_dkim_key(id: &DkimKeyId) -> bool;
    fn remove_dkim_key(id: &DkimKeyId) -> bool;
}

pass_on! { FanOut:
    fn sources(id: &BroadcastId) -> Vec<Source>;
    fn source_page(id: &BroadcastId, source: &Source, after: Option<&SortKey>) -> Vec<Recipient>;
    fn next_seq(id: &BroadcastId) -> i64;
    fn fan_out_next(lease: Lease, step: &FanOutStep, now: Timestamp) -> Option<Stop>;
    fn finish_fan_out(lease: Lease, received: i64, duplicates: i64, now: Timestamp) -> ();
}

pass_on! { Footing:
    fn footing() -> ();
    fn set_aside_restored(taken_at: Option<Timestamp>) -> SetAside;
}

pass_on! { Intake:
    fn find_replay(owner: &str, key: &str) -> Option<Replay>;
    fn stage_run(id: &BroadcastId, run: i64, pages: &[Page], now: Timestamp) -> ();
    fn discard_staged(id: &BroadcastId) -> ();
    fn accept(new: &NewBroadcast, key: Option<&IdempotencyClaim>, now: Timestamp) -> Accepted;
    fn sweep_staged(before: Timestamp) -> u64;
}

pass_on! { Library:
    fn put_template(id: &TemplateId, name: &str, content: &Content, now: Timestamp) -> Template;
    fn template(id: &TemplateId) -> Option<Template>;
    fn templates() -> Vec<Template>;
    fn delete_template(id: &TemplateId) -> bool;
    fn create_campaign(new: &NewCampaign, now: Timestamp) -> ();
    fn campaign(id: &CampaignId) -> Option<Campaign>;
    fn campaigns() -> Vec<Campaign>;
    fn due_campaigns(now: Timestamp) -> Vec<Campaign>;
    fn next_campaign_at() -> Option<Timestamp>;
    fn start_run(id: &CampaignId, planned: Timestamp, next_at: Option<Timestamp>, broadcast: &NewBroadcast, now: Timestamp) -> bool;
    fn skip_run(id: &CampaignId, planned: Timestamp, next_at: Option<Timestamp>, why: &str, now: Timestamp) -> bool;
    fn set_campaign_status(id: &CampaignId, status: CampaignStatus, next_at: Option<Timestamp>, now: Timestamp) -> bool;
    fn delete_campaign(id: &CampaignId) -> bool;
}

pass_on! { Pacing:
    fn take_permits(relay_id: i64, asks: &[Ask], now: Timestamp) -> Vec<Grant>;
    fn paces() -> Vec<PaceRow>;
    fn slow_down(slower: &Slower<'_>, now: Timestamp) -> bool;
    fn speed_up(relay_id: i64, lane: &str, now: Timestamp) -> bool;
    fn relay_failed(relay: RelayAt, reason: &str, pause_ms: i64, now: Timestamp) -> i64;
    fn try_probe(relay: RelayAt, worker: i64, until: Timestamp, now: Timestamp) -> bool;
    fn relay_works(relay_id: i64, now: Timestamp) -> ();
}

pass_on! { Relays:
    fn put_relay(name: &str, spec: &RelaySpec, now: Timestamp) -> Relay;
    fn relay(name: &str) -> Option<Relay>;
    fn relays() -> Vec<Relay>;
    fn has_had_relays() -> bool;
    fn broadcasts_bound_to(name: &str) -> i64;
    fn pause_relay(name: &str, reason: Option<&str>, now: Timestamp) -> bool;
    fn delete_relay(name: &str, now: Timestamp) -> bool;
}

pass_on! { Reports:
    fn ready() -> ();
    fn broadcast(id: &BroadcastId) -> Option<Broadcast>;
    fn broadcasts(after: Option<&str>, limit: i64) -> Slice<Broadcast>;
    fn waiting(id: &BroadcastId) -> Waiting;
    fn rate(id: &BroadcastId, now: Timestamp) -> Rate;
    fn messages(id: &BroadcastId, status: Option<MessageStatus>, after: Option<&str>, limit: i64) -> Slice<MessageView>;
    fn message_to(id: &BroadcastId, normalised: &str) -> Option<MessageView>;
    fn messages_to(normalised: &str, limit: i64) -> Vec<MessageView>;
    fn message(id: MessageId) -> Option<MessageView>;
    fn attempts(id: MessageId) -> Vec<AttemptView>;
    fn workers(now: Timestamp) -> Vec<Worker>;
    fn jobs(state: Option<&str>, limit: i64) -> Vec<JobView>;
    fn recount(id: &BroadcastId) -> Counts;
}

pass_on! { Retention:
    fn prune(ended_before: Timestamp, chunks_max: i64) -> u64;
}

pass_on! { Safety:
    fn watched(worker: i64) -> Vec<(BroadcastId, Watched)>;
    fn take_step(id: &BroadcastId, seen: &Watched, step: &Step, now: Timestamp) -> bool;
    fn canary_left(id: &BroadcastId) -> i64;
    fn failures(id: &BroadcastId) -> Vec<Failures>;
    fn stuck(id: &BroadcastId) -> Vec<Stuck>;
    fn retry_failed(id: &BroadcastId, classes: &[String], now: Timestamp) -> Retried;
    fn forget_bounces(before: Timestamp) -> u64;
}

pass_on! { Findings:
    fn findings() -> Vec<Finding>;
    fn try_out(relay: RelayAt, kind: FindingKind, address: &str, worker: i64, now: Timestamp) -> bool;
    fn give_up_trial(relay_id: i64, kind: FindingKind, worker: i64) -> ();
    fn write_finding(relay: RelayAt, found: &Found, now: Timestamp) -> bool;
    fn forget_findings(relay_id: i64) -> i64;
}

pass_on! { Workers:
    fn time() -> Option<Timestamp>;
    fn register_worker(me: &NewWorker, lease_until: Timestamp, now: Timestamp) -> i64;
    fn heartbeat(worker: i64, lease_until: Timestamp, draining: bool, stats: &WorkerStats, now: Timestamp) -> Heartbeat;
    fn retire_worker(worker: i64, now: Timestamp) -> ();
    fn void_other_workers(worker: i64) -> Vec<Rescued>;
    fn rescue(by: i64, now: Timestamp) -> Vec<Rescued>;
}

/// By hand, because one of its steps is no call.
#[async_trait]
impl Queue for FaultyStore {
    fn wakeups(&self) -> watch::Receiver<u64> {
        self.inner.wakeups()
    }

    async fn promote(&self, now: Timestamp) -> Result<u64> {
        self.pass("promote", self.inner.promote(now)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>> {
        self.pass("next_due", self.inner.next_due()).await
    }

    async fn claim(&self, worker: i64, kind: JobKind, n: i64, now: Timestamp) -> Result<Vec<Claimed>> {
        self.pass("claim", self.inner.claim(worker, kind, n, now)).await
    }

    async fn claim_ahead(&self, worker: i64, seq_max: i64, now: Timestamp) -> Result<Vec<Claimed>> {
        self.pass("claim_ahead", self.inner.claim_ahead(worker, seq_max, now))
            .await
    }

    async fn hasten(&self, now: Timestamp) -> Result<u64> {
        self.pass("hasten", self.inner.hasten(now)).await
    }

    async fn wanted_stops(&self, worker: i64) -> Result<Vec<(Lease, Stop)>> {
        self.pass("wanted_stops", self.inner.wanted_stops(worker)).await
    }

    async fn finish(&self, lease: Lease, end: JobEnd, now: Timestamp) -> Result<()> {
        self.pass("finish", self.inner.finish(lease, end, now)).await
    }

    async fn give_back_unheld(&self, worker: i64, held: &[i64]) -> Result<Vec<i64>> {
        self.pass("give_back_unheld", self.inner.give_back_unheld(worker, held))
            .await
    }

    async fn quarantine(&self, lease: Lease, why: &str, now: Timestamp) -> Result<()> {
        self.pass("quarantine", self.inner.quarantine(lease, why, now)).await
    }

    async fn control(&self, id: &BroadcastId, wish: &Wish, now: Timestamp) -> Result<()> {
        self.pass("control", self.inner.control(id, wish, now)).await
    }

    async fn release_quarantined(&self, job_id: i64, now: Timestamp) -> Result<bool> {
        self.pass("release_quarantined", self.inner.release_quarantined(job_id, now))
            .await
    }
}

impl Store for FaultyStore {
    fn is_exclusive(&self) -> bool {
        self.inner.is_exclusive()
    }
}
