//! A brake on guessing passwords. Never locks an account: it counts failures from one address to one
//! account, so that nobody can keep somebody else out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use crate::domain::time::Timestamp;

/// Wrong passwords in a row before a pause. People mistype a few times; guessing needs thousands.
pub const FAILURES_MAX: u32 = 10;
/// How long the failures are remembered.
pub const WINDOW_MS: i64 = 15 * 60 * 1_000;
/// Pairs of address and account remembered: about 1 MB. Beyond it the oldest are forgotten.
const PAIRS_MAX: usize = 10_000;

type Pair = (Option<IpAddr>, String);

#[derive(Default)]
pub struct LoginLimit(Mutex<HashMap<Pair, Failures>>);

#[derive(Clone, Copy)]
struct Failures {
    n: u32,
    since: Timestamp,
}

impl LoginLimit {
    /// Whether another try is allowed now.
    pub fn allows(&self, from: Option<IpAddr>, email: &str, now: Timestamp) -> bool {
        let known = self.lock();
        known
            .get(&(from, email.to_owned()))
            .is_none_or(|f| f.n < FAILURES_MAX || now - f.since >= WINDOW_MS)
    }

    /// Counts a wrong password.
    pub fn failed(&self, from: Option<IpAddr>, email: &str, now: Timestamp) {
        let mut known = self.lock();
        if known.len() >= PAIRS_MAX {
            forget(&mut known, now);
        }
        let f = known
            .entry((from, email.to_owned()))
            .or_insert(Failures { n: 0, since: now });
        if now - f.since >= WINDOW_MS {
            *f = Failures { n: 0, since: now };
        }
        f.n += 1;
    }

    /// Forgets the failures of somebody who knew the password in the end.
    pub fn succeeded(&self, from: Option<IpAddr>, email: &str) {
        self.lock().remove(&(from, email.to_owned()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Pair, Failures>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Makes room: what is over, and if that is not enough, the older half.
fn forget(known: &mut HashMap<Pair, Failures>, now: Timestamp) {
    known.retain(|_, f| now - f.since < WINDOW_MS);
    if known.len() >= PAIRS_MAX {
        let mut times: Vec<Timestamp> = known.values().map(|f| f.since).collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        known.retain(|_, f| f.since > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp(1_790_000_000_000);

    #[test]
    fn guessing_is_stopped_for_one_pair_and_for_a_while() {
        let limit = LoginLimit::default();
        let (here, there) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
        for _ in 0..FAILURES_MAX {
            assert!(limit.allows(here, "anna@example.org", T));
            limit.failed(here, "anna@example.org", T);
        }
        assert!(!limit.allows(here, "anna@example.org", T));
        assert!(limit.allows(there, "anna@example.org", T), "Anna herself still gets in");
        assert!(limit.allows(here, "bob@example.org", T));
        assert!(limit.allows(here, "anna@example.org", T.plus_ms(WINDOW_MS)));
        limit.succeeded(here, "anna@example.org");
        assert!(limit.allows(here, "anna@example.org", T));
    }

    #[test]
    fn a_flood_of_accounts_does_not_fill_the_memory() {
        let limit = LoginLimit::default();
        for i in 0..(PAIRS_MAX as i64 + 100) {
            limit.failed(None, &format!("u{i}@example.org"), T.plus_ms(i));
        }
        assert!(limit.lock().len() <= PAIRS_MAX);
    }
}
