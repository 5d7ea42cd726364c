//! Which lane a recipient's domain belongs to: by the shipped table, else by its mail exchangers, as far as they are known. Never waits
//! for the DNS: a domain that nobody has an answer for is its own lane, and questions are asked beside the sending.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::dns::{Dns, DnsError};
use crate::domain::lane::{lane_of, provider_of_exchanger};
use crate::domain::time::Timestamp;

/// Most domains remembered: some ten megabytes, and more than the audiences of most have. Beyond them a domain is its own lane.
const DOMAINS_MAX: usize = 100_000;
/// Questions under way at once: a resolver nearby answers some hundred a second to that many, and none notices.
const ASKERS_MAX: usize = 16;
/// How long an answer holds. Exchangers change a few times in a domain's life, whatever its records say of their own life.
const KNOWN_MS: i64 = 6 * 3_600_000;
/// A domain without an answer is asked about again after this.
const UNKNOWN_MS: i64 = 10 * 60_000;
/// So many questions in a row without an answer, and it is the DNS that is out of order, not a domain.
const SILENT_MAX: u32 = 32;
/// How long nothing is asked then.
const QUIET_MS: i64 = 60_000;

/// The lanes of one worker. It lives in an `Arc`, since questions outlast the look that asks them.
pub struct Lanes {
    /// `None` asks nobody.
    dns: Option<Dns>,
    clock: Arc<dyn Clock>,
    is_muted: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<String, Known>,
    /// To be asked, in order.
    queue: VecDeque<String>,
    askers: usize,
    silent_in_row: u32,
    quiet_until: Option<Timestamp>,
}

/// What is known of a domain: who runs its exchangers, if anybody known does, and until when that is believed.
#[derive(Clone, Copy)]
struct Known {
    provider: Option<&'static str>,
    until: Timestamp,
}

impl Lanes {
    /// With `dns` mail exchangers count too.
    #[must_use]
    pub fn new(dns: Option<Dns>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            dns,
            clock,
            is_muted: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// The lane of a domain (lower case) as far as it is known now. What is not known is asked for.
    pub fn of<'d>(self: &Arc<Self>, domain: &'d str) -> Cow<'d, str> {
        let lane = lane_of(domain);
        if lane != domain || self.dns.is_none() {
            return Cow::Borrowed(lane);
        }
        let now = self.clock.now();
        let mut state = self.state();
        let known = state.known.get(domain).copied();
        let is_due = known.is_none_or(|known| known.until <= now) && !self.is_muted.load(Ordering::Relaxed);
        if is_due && state.wants_to_know(domain, known, now) {
            state.askers += 1;
            tokio::spawn(Arc::clone(self).ask());
        }
        drop(state);
        match known.and_then(|known| known.provider) {
            Some(provider) => Cow::Borrowed(provider),
            None => Cow::Borrowed(domain),
        }
    }

    /// Asks nobody while muted: as long as no mail leaves this machine, no name does.
    pub fn mute(&self, is_muted: bool) {
        self.is_muted.store(is_muted, Ordering::Relaxed);
    }

    /// Whether questions are asked now: not while the DNS is out of order.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        let now = self.clock.now();
        self.dns.is_some() && self.state().quiet_until.is_none_or(|until| until <= now)
    }

    /// Asks about one domain after the other until none is left.
    async fn ask(self: Arc<Self>) {
        let Some(dns) = &self.dns else { return };
        loop {
            let domain = {
                let mut state = self.state();
                match state.queue.pop_front() {
                    Some(domain) => domain,
                    None => {
                        state.askers -= 1;
                        return;
                    }
                }
            };
            let answer = dns.exchangers(&domain).await;
            let now = self.clock.now();
            self.state().learn(domain, answer, now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes that a domain is to be asked about. `true` when somebody more has to ask.
    fn wants_to_know(&mut self, domain: &str, known: Option<Known>, now: Timestamp) -> bool {
        if self.quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        self.quiet_until = None;
        if known.is_none() && self.known.len() >= DOMAINS_MAX {
            self.known.retain(|_, known| known.until > now);
            if self.known.len() >= DOMAINS_MAX {
                return false;
            }
        }
        // Believed as it was until the answer comes, and not asked twice.
        let provider = known.and_then(|known| known.provider);
        let until = now.plus_ms(UNKNOWN_MS);
        self.known.insert(domain.to_owned(), Known { provider, until });
        self.queue.push_back(domain.to_owned());
        self.askers < ASKERS_MAX
    }

    fn learn(&mut self, domain: String, answer: Result<Vec<String>, DnsError>, now: Timestamp) {
        let exchangers = match answer {
            Ok(exchangers) => exchangers,
            // Then mail goes to the domain's own address (RFC 5321 5.1).
            Err(DnsError::Absent) => Vec::new(),
            Err(DnsError::Silent(why)) => {
                self.silent_in_row += 1;
                if self.silent_in_row >= SILENT_MAX && self.quiet_until.is_none_or(|until| until <= now) {
                    tracing::warn!(%why, "The DNS does not answer: domains are paced each for itself for a while");
                    self.be_quiet(now);
                }
                return;
            }
        };
        self.silent_in_row = 0;
        // The one that gets the mail as long as it answers.
        let provider = exchangers.first().and_then(|host| provider_of_exchanger(host));
        let until = now.plus_ms(KNOWN_MS);
        self.known.insert(domain, Known { provider, until });
    }

    /// Asks nothing for a while. Those that were to be asked about are as unknown as before.
    fn be_quiet(&mut self, now: Timestamp) {
        self.quiet_until = Some(now.plus_ms(QUIET_MS));
        // One more without an answer, and it is quiet again.
        self.silent_in_row = SILENT_MAX - 1;
        for domain in std::mem::take(&mut self.queue) {
            self.known.remove(&domain);
        }
    }
}
