//! The relays of a worker: reads what is said about them, keeps a connection slot for each connection that a relay allows, and
//! carries what the slots learn to the database and back to all workers. Never sends a message itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::findings::Findings;
use super::{RelaySource, Shared};
use crate::domain::brake::{self, Brake, BrakeKind};
use crate::domain::ledger::PaceRow;
use crate::domain::relay::{Relay as Said, RelaySpec};
use crate::domain::time::Timestamp;
use crate::pipeline::deliver::allowances::Allowances;
use crate::pipeline::deliver::port::{Door, Learnt, Terms};
use crate::pipeline::deliver::{News, OPENED_PER_SEC_MAX, Relay, Slot, SlotDeps};
use crate::smtp::{Pace, RelayConfig, TlsContext};
use crate::store::Result;
use crate::store::pacing::{RelayAt, Slower};

/// What stands for the capture relay in the place of a URL.
const CAPTURE_URL: &str = "capture:";
/// A change of a relay is heard of by a notification, and at the latest after this.
const LOOK_MAX: Duration = Duration::from_millis(900);
/// Looks follow each other no faster: a fan-out calls for every chunk it makes.
const LOOK_GAP: Duration = Duration::from_millis(200);
/// News that wait to be written. A relay that fails makes one from each connection.
const NEWS_MAX: usize = 1_024;
/// How long a failing relay is left alone: at first, and at most; doubled with each failure in a row.
const SUSPENDED_FIRST_MS: i64 = 1_000;
const SUSPENDED_MAX_MS: i64 = 300_000;
/// How long the one that probes may take: as long as the slowest relay takes to let somebody in.
const PROBE_MS: i64 = 120_000;
/// After a refusal that asks for less and names no time, nothing goes there for this long.
const SLOWER_PAUSE_MS: i64 = 2_000;
/// A wait that is asked for counts up to this: an hour.
const SLOWER_PAUSE_MAX_MS: i64 = 3_600_000;
/// A pace that was learnt is tried to be raised this often; the database says whether it is time.
const FASTER_LOOK: Duration = Duration::from_secs(5);

/// Looks after the relays.
pub(super) struct Fleet {
    shared: Arc<Shared>,
    known: HashMap<i64, Crew>,
    slots: JoinSet<()>,
    news: mpsc::Receiver<News>,
    tell: mpsc::Sender<News>,
    next_slot: AtomicU64,
    /// What is said and what was learnt, as of the last look.
    said: Vec<Said>,
    paces: Vec<PaceRow>,
    findings: Findings,
    /// Relays that refused us, until that is written down.
    refused: HashMap<i64, String>,
    /// Probes that are this worker's, and until when.
    probes: HashMap<i64, Timestamp>,
    /// Pace that is tried to be raised next at.
    faster_at: Instant,
    versions: Option<Vec<(i64, i64)>>,
    /// Relays that failed at the last look.
    failing: HashSet<i64>,
}

/// The slots of one relay as it was configured at one time.
struct Crew {
    url: String,
    relay: std::result::Result<Arc<Relay>, String>,
    stop: CancellationToken,
}

impl Fleet {
    pub fn new(shared: Arc<Shared>) -> Self {
        let (tell, news) = mpsc::channel(NEWS_MAX);
        Self {
            findings: Findings::new(Arc::clone(&shared)),
            shared,
            known: HashMap::new(),
            slots: JoinSet::new(),
            news,
            tell,
            next_slot: AtomicU64::new(0),
            said: Vec::new(),
            paces: Vec::new(),
            refused: HashMap::new(),
            probes: HashMap::new(),
            faster_at: Instant::now() + FASTER_LOOK,
            versions: None,
            failing: HashSet::new(),
        }
    }

    /// Looks after them until told to stop; then waits until every connection has finished what is on the wire.
    pub async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let mut wakeups = self.shared.deps.store.wakeups();
        while !stop.is_cancelled() {
            wakeups.mark_unchanged();
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "The relays could not be read; the last that is known holds");
            }
            let begun = Instant::now();
            let latest = sleep_until(begun + LOOK_MAX);
            tokio::select! {
                () = stop.cancelled() => break,
                () = latest => {}
                called = wakeups.changed() => if called.is_err() { break },
                Some(news) = self.news.recv() => self.heed(news).await,
                Some(ended) = self.slots.join_next() => super::heed_end(&self.shared, ended),
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(begun + LOOK_GAP) => {}
            }
        }
        while let Some(ended) = self.slots.join_next().await {
            super::heed_end(&self.shared, ended);
        }
        while let Ok(news) = self.news.try_recv() {
            self.heed(news).await;
        }
        self.give_back().await;
    }

    /// Reads what is said and known, and makes it so.
    async fn look(&mut self) -> Result<()> {
        while let Ok(news) = self.news.try_recv() {
            self.heed(news).await;
        }
        self.write_refusals().await;
        self.findings.write().await;
        let store = Arc::clone(&self.shared.deps.store);
        self.said = self.read_relays().await?;
        let is_captured = self.said.iter().all(|said| said.spec.url == CAPTURE_URL);
        self.shared.deps.lanes.mute(is_captured);
        self.paces = store.paces().await?;
        let findings = store.findings().await?;
        let now = self.shared.deps.clock.now();
        let gone: Vec<i64> = {
            let there: HashSet<i64> = self.said.iter().map(|r| r.id).collect();
            self.known.keys().filter(|id| !there.contains(id)).copied().collect()
        };
        for id in gone {
            self.dismiss(id);
        }
        for said in self.said.clone() {
            if self.known.get(&said.id).is_none_or(|crew| crew.url != said.spec.url) {
                self.dismiss(said.id);
                self.muster(&said);
            }
            if let Some(relay) = self.at_work(said.id).filter(|_| said.version > 0) {
                self.findings.apply(&said, &relay, &findings, now).await?;
            }
            let terms = self.terms(&said, now).await?;
            self.shared.board.learn(terms);
        }
        self.heed_change(now).await?;
        self.shared.board.weigh();
        if Instant::now() >= self.faster_at {
            self.faster_at = Instant::now() + FASTER_LOOK;
            self.speed_up(now).await?;
        }
        Ok(())
    }

    /// The relays that there are. Without any, and as long as there never was one, the capture relay; a relay that was
    /// removed must not make mail vanish into it.
    async fn read_relays(&self) -> Result<Vec<Said>> {
        let store = &self.shared.deps.store;
        let said = store.relays().await?;
        let RelaySource {
            capture: Some(capture), ..
        } = &self.shared.deps.relays
        else {
            return Ok(said);
        };
        if !said.is_empty() || store.has_had_relays().await? {
            return Ok(said);
        }
        Ok(vec![Said {
            id: store.relay_id(&capture.name).await?,
            name: capture.name.clone(),
            spec: RelaySpec::of(CAPTURE_URL),
            paused: None,
            paused_at: None,
            version: 0,
            updated_at: Timestamp(0),
        }])
    }

    /// Jobs that wait for a relay are due when one changes, and when one works again.
    async fn heed_change(&mut self, now: Timestamp) -> Result<()> {
        let versions: Vec<(i64, i64)> = self.said.iter().map(|r| (r.id, r.version)).collect();
        let failing = self.paces.iter().filter(|p| p.lane.is_empty() && p.failures > 0);
        let failing: HashSet<i64> = failing.map(|p| p.relay_id).collect();
        if self.versions.as_ref() != Some(&versions) || !self.failing.is_subset(&failing) {
            // First: whoever gives a chunk back after the hastening sees that it was decided before.
            self.shared.board.note_change();
            self.shared.deps.store.hasten(now).await?;
            self.versions = Some(versions);
        }
        self.failing = failing;
        Ok(())
    }

    async fn terms(&mut self, said: &Said, now: Timestamp) -> Result<Terms> {
        let rows = || self.paces.iter().filter(|p| p.relay_id == said.id);
        let own = rows().find(|p| p.lane.is_empty()).cloned();
        let learnt = |p: &PaceRow| Learnt {
            permille: p.permille,
            base_us: p.base_us,
            suspended_until: p.suspended_until,
            reason: p.reason.as_deref().map(Into::into),
        };
        let learnt_lanes = rows()
            .filter(|p| !p.lane.is_empty())
            .map(|p| (p.lane.clone(), learnt(p)))
            .collect();
        let door = self.door(said, own.as_ref(), now).await?;
        let crew = self.known.get(&said.id).and_then(|c| c.relay.as_ref().ok());
        let config = crew.map(|relay| &relay.config);
        let mut limits = said.spec.limits;
        limits.per_sec = limits.per_sec.or(config.and_then(|c| c.rate_per_sec));
        let (day_kind, per_day) = brake::day_limit(said, now);
        Ok(Terms {
            relay_id: said.id,
            name: said.name.as_str().into(),
            weight: said.spec.weight,
            connections: config.map_or(1, |c| c.connections),
            limits,
            per_day,
            day_kind,
            lanes: said.spec.lanes.clone(),
            learnt: own.as_ref().map_or(Learnt::NOTHING, learnt),
            learnt_lanes,
            door,
        })
    }

    /// Whether a relay takes mail now. A relay that failed is tried by one message in the whole cluster.
    async fn door(&mut self, said: &Said, own: Option<&PaceRow>, now: Timestamp) -> Result<Door> {
        let shut = |kind, reason: &str, until| Ok(Door::Shut(Brake::on_relay(kind, &said.name, reason, until)));
        if let Some(Crew { relay: Err(why), .. }) = self.known.get(&said.id) {
            return shut(BrakeKind::RelayPaused, why, None);
        }
        if let Some(why) = self.refused.get(&said.id) {
            return shut(BrakeKind::RelayPaused, why, None);
        }
        // What of an hour or a day is used up is the permits' to say: some of it may still be at hand.
        let counted = |b: &Brake| matches!(b.kind, BrakeKind::WarmUp | BrakeKind::DayLimit | BrakeKind::HourLimit);
        if let Some(brake) = brake::full_stop(said, own, now).filter(|b| !counted(b)) {
            self.probes.remove(&said.id);
            self.note_failing(said.id, own.is_some_and(|p| p.failures > 0));
            return Ok(Door::Shut(brake));
        }
        let Some(own) = own.filter(|p| p.failures > 0) else {
            self.note_failing(said.id, false);
            self.probes.remove(&said.id);
            return Ok(Door::Open);
        };
        self.note_failing(said.id, true);
        if self.probes.get(&said.id).is_some_and(|until| *until > now) {
            return Ok(Door::Probe);
        }
        let until = now.plus_ms(PROBE_MS);
        let store = &self.shared.deps.store;
        let at = RelayAt {
            id: said.id,
            version: said.version,
        };
        if self.shared.board.has_work_for(said.id) && store.try_probe(at, self.shared.id(), until, now).await? {
            self.probes.insert(said.id, until);
            return Ok(Door::Probe);
        }
        shut(BrakeKind::RelayFailing, own.reason.as_deref().unwrap_or_default(), own.probe_until)
    }

    fn note_failing(&self, id: i64, is_failing: bool) {
        if let Some(Crew { relay: Ok(relay), .. }) = self.known.get(&id) {
            relay.is_failing.store(is_failing, Ordering::Relaxed);
        }
    }

    /// Ends the slots of a relay: each finishes what is on the wire.
    fn dismiss(&mut self, id: i64) {
        if let Some(crew) = self.known.remove(&id) {
            crew.stop.cancel();
            self.probes.remove(&id);
            self.shared.board.forget(id);
        }
    }

    /// Starts the slots of a relay.
    fn muster(&mut self, said: &Said) {
        let stop = self.shared.stop.child_token();
        let relay = self.open(said);
        match &relay {
            Ok(relay) => {
                let deps = Arc::new(self.slot_deps(relay, &stop));
                let now = self.shared.deps.clock.now();
                // Before the slots, which would find no place to wait at.
                let (day_kind, per_day) = brake::day_limit(said, now);
                let terms = Terms {
                    relay_id: said.id,
                    name: said.name.as_str().into(),
                    weight: said.spec.weight,
                    connections: relay.config.connections,
                    limits: said.spec.limits,
                    per_day,
                    day_kind,
                    lanes: said.spec.lanes.clone(),
                    learnt: Learnt::NOTHING,
                    learnt_lanes: HashMap::new(),
                    door: Door::Shut(Brake::on_relay(BrakeKind::RelayPaused, &said.name, "it is being opened", None)),
                };
                self.shared.board.learn(terms);
                for _ in 0..relay.config.connections {
                    let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
                    self.slots.spawn(Slot::new(Arc::clone(&deps), slot).run());
                }
            }
            Err(why) => tracing::error!(relay = said.name, why, "A relay cannot be used"),
        }
        let url = said.spec.url.clone();
        self.known.insert(said.id, Crew { url, relay, stop });
    }

    fn open(&self, said: &Said) -> std::result::Result<Arc<Relay>, String> {
        let config = match &self.shared.deps.relays.capture {
            Some(capture) if said.version == 0 => capture.clone(),
            _ => RelayConfig::parse(&said.spec.url)?,
        };
        let tls = TlsContext::new(&config).map_err(|e| format!("preparing TLS: {e}"))?;
        let allowances = Arc::new(Allowances::new(config.connections));
        if said.version == 0 {
            allowances.allow_all();
        }
        Ok(Arc::new(Relay {
            allowances,
            taken_at: std::sync::Mutex::new(None),
            config,
            tls,
            opening: Pace::new(Some(OPENED_PER_SEC_MAX)),
            name: said.name.as_str().into(),
            id: said.id,
            gauges: Arc::clone(&self.shared.deps.gauges),
            n_failed: AtomicU32::new(0),
            is_failing: AtomicBool::new(false),
            crew: self.next_slot.fetch_add(1, Ordering::Relaxed),
        }))
    }

    fn slot_deps(&self, relay: &Arc<Relay>, stop: &CancellationToken) -> SlotDeps {
        SlotDeps {
            relay: Arc::clone(relay),
            board: Arc::clone(&self.shared.board),
            settler: self.shared.settler.clone(),
            clock: Arc::clone(&self.shared.deps.clock),
            lease: Arc::clone(&self.shared.lease),
            retry: self.shared.deps.settings.retry.clone(),
            news: self.tell.clone(),
            stop: stop.clone(),
        }
    }

    /// Whether these are the connections to the relay as it is said now.
    fn is_at_work(&self, id: i64, crew: u64) -> bool {
        self.at_work(id).is_some_and(|relay| relay.crew == crew)
    }

    fn at_work(&self, id: i64) -> Option<Arc<Relay>> {
        let known = self.known.get(&id)?;
        known.relay.as_ref().ok().map(Arc::clone)
    }

    fn name(&self, id: i64) -> Option<&str> {
        self.said.iter().find(|r| r.id == id).map(|r| r.name.as_str())
    }

    /// Writes down what a slot learnt. What cannot be written is told again by the next failure.
    async fn heed(&mut self, news: News) {
        let now = self.shared.deps.clock.now();
        let store = Arc::clone(&self.shared.deps.store);
        let done = match news {
            News::Refused { relay_id, crew, .. }
            | News::Failed { relay_id, crew, .. }
            | News::Works { relay_id, crew }
            | News::Found { relay_id, crew, .. }
                if !self.is_at_work(relay_id, crew) =>
            {
                Ok(())
            }
            News::Refused { relay_id, reason, .. } => {
                self.refused.insert(relay_id, reason);
                self.write_refusals().await;
                Ok(())
            }
            News::Failed {
                relay_id, reason, at, ..
            } => {
                self.probes.remove(&relay_id);
                let pause = self.suspension(relay_id);
                tracing::warn!(
                    relay = self.name(relay_id),
                    reason,
                    pause_ms = pause,
                    "A relay fails and is left alone for a while"
                );
                let known = self.said.iter().find(|r| r.id == relay_id);
                let relay = RelayAt {
                    id: relay_id,
                    version: known.map_or(0, |r| r.version),
                };
                store.relay_failed(relay, &reason, pause, at).await.map(drop)
            }
            News::Found {
                relay_id, discovery, ..
            } => {
                let said = self.said.iter().find(|said| said.id == relay_id).cloned();
                if let Some((said, relay)) = said.zip(self.at_work(relay_id)) {
                    self.findings.found(&said, &relay, discovery).await;
                }
                Ok(())
            }
            News::Works { relay_id, .. } => {
                self.probes.remove(&relay_id);
                store.relay_works(relay_id, now).await
            }
            News::Slower {
                relay_id,
                lane,
                reason,
                wait,
            } => {
                let asked = wait.map_or(SLOWER_PAUSE_MS, |w| i64::try_from(w.as_millis()).unwrap_or(i64::MAX));
                let workers = self.shared.n_live.load(Ordering::Relaxed).max(1);
                let slower = Slower {
                    relay_id,
                    lane: &lane,
                    reason: &reason,
                    pause_ms: asked.min(SLOWER_PAUSE_MAX_MS),
                    base_us: self.shared.board.measured_us(relay_id, &lane).unwrap_or(1_000_000) / workers,
                };
                store.slow_down(&slower, now).await.map(|is_new| {
                    if is_new {
                        tracing::warn!(relay = self.name(relay_id), %lane, reason, "The pace is halved");
                    }
                })
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "What was learnt about a relay could not be written");
        }
    }

    /// Pauses relays that refused us: a person has to look at that.
    async fn write_refusals(&mut self) {
        let now = self.shared.deps.clock.now();
        for (id, reason) in self.refused.clone() {
            let Some(name) = self.name(id).map(str::to_owned) else {
                self.refused.remove(&id);
                continue;
            };
            match self.shared.deps.store.pause_relay(&name, Some(&reason), now).await {
                Ok(is_stored) => {
                    tracing::error!(relay = name, reason, "A relay refuses our credentials and is paused");
                    // The capture relay has no row that could be paused.
                    if is_stored {
                        self.refused.remove(&id);
                    }
                }
                Err(error) => tracing::warn!(%error, relay = name, "A relay could not be paused in the database"),
            }
        }
    }

    fn suspension(&self, id: i64) -> i64 {
        let own = self.paces.iter().find(|p| p.relay_id == id && p.lane.is_empty());
        let failures = own.map_or(0, |p| p.failures).clamp(0, 16);
        let whole = (SUSPENDED_FIRST_MS << failures).min(SUSPENDED_MAX_MS);
        (whole as f64 * (0.75 + fastrand::f64() / 2.0)) as i64
    }

    async fn speed_up(&self, now: Timestamp) -> Result<()> {
        for row in self.paces.iter().filter(|p| p.permille < 1_000) {
            if self.shared.board.measured_us(row.relay_id, &row.lane).is_some() {
                self.shared.deps.store.speed_up(row.relay_id, &row.lane, now).await?;
            }
        }
        Ok(())
    }

    async fn give_back(&self) {
        let now = self.shared.deps.clock.now();
        for (relay_id, asks) in self.shared.board.leftovers() {
            if let Err(error) = self.shared.deps.store.take_permits(relay_id, &asks, now).await {
                tracing::warn!(%error, "Unused permits could not be given back");
            }
        }
    }
}
