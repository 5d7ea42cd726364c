//! The oracle: what the service says of its messages, held against what the relay took. Pure; never asks anybody, and never
//! excuses anything.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::domain::id::MessageId;

/// The statuses in which a message stays.
const FINAL: [&str; 5] = ["sent", "failed", "suppressed", "canceled", "expired"];
/// Examples that are kept of what is wrong.
const EXAMPLES_MAX: usize = 8;
/// The grain in which the relay's speed is written down.
pub const BIN: Duration = Duration::from_millis(100);

/// A message as the service shows it at the end.
#[derive(Debug, Clone)]
pub struct Said {
    pub id: String,
    pub email: String,
    pub status: String,
    pub flagged: bool,
}

/// What the relay has of one address.
#[derive(Debug, Clone, Copy)]
pub struct Copies {
    pub n: u32,
    pub first: Instant,
    pub last: Instant,
}

/// What may become of a recipient.
#[derive(Debug, Clone)]
pub enum Due {
    /// One copy, or more that are flagged.
    Mail,
    /// Suppressed before the broadcast: none.
    Nothing,
    /// Suppressed on the way: none that began later, but from chunks that were claimed already. Suppressions are read when a
    /// chunk is claimed.
    MailBefore { at: Instant, running: HashSet<i64> },
    /// Not before this instant.
    MailAfter(Instant),
}

/// What was found in one broadcast, or in many of them.
#[derive(Debug, Default, Clone)]
pub struct Findings {
    pub messages: u64,
    /// Recipients without a copy who were to have one.
    pub lost: u64,
    /// Copies beyond the first.
    pub extra: u64,
    /// Messages that the service itself calls possible duplicates.
    pub flagged: u64,
    /// Recipients with more than one copy of whom the service does not say so.
    pub unflagged: u64,
    /// Called sent, and the relay knows nothing of it.
    pub false_sent: u64,
    /// Copies to addresses that must not be mailed, or not yet.
    pub forbidden: u64,
    /// Any other rule that was broken.
    pub broken: u64,
    /// A few of the worst, in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// Notes a rule that was broken.
    pub fn breaks(&mut self, what: String) {
        self.broken += 1;
        self.example(what);
    }

    pub fn add(&mut self, other: &Findings) {
        self.messages += other.messages;
        self.lost += other.lost;
        self.extra += other.extra;
        self.flagged += other.flagged;
        self.unflagged += other.unflagged;
        self.false_sent += other.false_sent;
        self.forbidden += other.forbidden;
        self.broken += other.broken;
        for example in &other.examples {
            self.example(example.clone());
        }
    }

    /// Whether every rule holds that needs no bound.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.unflagged + self.false_sent + self.forbidden + self.broken == 0
    }

    fn example(&mut self, what: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }
}

/// Judges a broadcast that has come to its end.
#[must_use]
pub fn judge(expected: &[(String, Due)], said: &[Said], copies: &HashMap<String, Copies>) -> Findings {
    let mut found = Findings {
        messages: expected.len() as u64,
        ..Findings::default()
    };
    let mut by_address: HashMap<&str, &Said> = HashMap::with_capacity(said.len());
    for message in said {
        if by_address.insert(&message.email, message).is_some() {
            found.breaks(format!("{} is in the broadcast twice", message.email));
        }
    }
    if said.len() != expected.len() {
        found.breaks(format!("{} messages are shown for {} recipients", said.len(), expected.len()));
    }
    for (email, due) in expected {
        let copies = copies.get(email);
        match by_address.get(email.as_str()) {
            None => {
                found.lost += 1;
                found.example(format!("{email} is not shown; the relay has {copies:?}"));
            }
            Some(said) => judge_one(&mut found, said, copies, due),
        }
    }
    found
}

fn judge_one(found: &mut Findings, said: &Said, copies: Option<&Copies>, due: &Due) {
    let n = copies.map_or(0, |c| c.n);
    let in_words = || format!("{} is {}, flagged: {}; the relay has {n} copies", said.email, said.status, said.flagged);
    found.flagged += u64::from(said.flagged);
    found.extra += u64::from(n.saturating_sub(1));
    let is_suppressed = said.status == "suppressed";
    let (may_be_missing, is_forbidden) = match due {
        Due::Mail => (false, false),
        Due::Nothing => (is_suppressed, n > 0),
        Due::MailBefore { at, running } => {
            let claimed_before = said
                .id
                .parse::<MessageId>()
                .is_ok_and(|id| running.contains(&id.job_id));
            (is_suppressed, !claimed_before && copies.is_some_and(|c| c.last > *at))
        }
        Due::MailAfter(at) => (false, copies.is_some_and(|c| c.first < *at)),
    };
    if is_forbidden {
        found.forbidden += 1;
        found.example(format!("{}, which must not be: {due:?}", in_words()));
    }
    if n == 0 && !may_be_missing {
        found.false_sent += u64::from(said.status == "sent");
        found.lost += 1;
        found.example(in_words());
    }
    // A copy of a message that is called suppressed is one in doubt.
    if (n > 1 || (n > 0 && is_suppressed)) && !said.flagged {
        found.unflagged += 1;
        found.example(in_words());
    }
    if !FINAL.contains(&said.status.as_str()) {
        found.breaks(in_words());
    }
}

/// What is wrong with the attempts of one message, as the service shows them: their numbers only rise, and their times as well unless
/// the only clock there is was turned.
#[must_use]
pub fn odd_attempts(shown: &Value, is_clock_turned: bool) -> Option<String> {
    let attempts = shown["attempts"].as_array()?;
    let numbers: Vec<i64> = attempts.iter().filter_map(|a| a["n"].as_i64()).collect();
    let times: Vec<&str> = attempts.iter().filter_map(|a| a["at"].as_str()).collect();
    let rise = numbers.len() == attempts.len() && numbers.is_sorted_by(|a, b| a < b);
    let is_right = rise && times.len() == attempts.len() && (is_clock_turned || times.is_sorted());
    (!is_right).then(|| format!("attempts out of order: {shown}"))
}

/// The most messages in any second, to the grain of [`BIN`].
#[must_use]
pub fn fastest_second(bins: &[u32]) -> u64 {
    let in_second = (Duration::from_secs(1).as_millis() / BIN.as_millis()) as usize;
    let sum = |bins: &[u32]| bins.iter().map(|n| u64::from(*n)).sum();
    match bins.len() < in_second {
        true => sum(bins),
        false => bins.windows(in_second).map(sum).max().unwrap_or(0),
    }
}

/// The law of conservation at one look, and that no message goes back from where it came to rest.
#[derive(Debug, Default)]
pub struct Ledger {
    at_rest_before: HashMap<String, i64>,
    pub looks: u64,
}

impl Ledger {
    /// Looks at a broadcast as the service shows it.
    ///
    /// # Errors
    /// What does not add up, in words.
    pub fn look(&mut self, shown: &Value) -> Result<(), String> {
        self.looks += 1;
        let number = |value: &Value| value.as_i64().unwrap_or(-1);
        let counts = shown["counts"]
            .as_object()
            .ok_or_else(|| format!("a broadcast without counts: {shown}"))?;
        let total: i64 = counts.values().map(number).sum();
        let accepted = number(&shown["received"]) - number(&shown["rejected"]) - number(&shown["duplicates"]);
        if total != accepted || counts.values().any(|n| number(n) < 0) {
            return Err(format!("{total} messages are accounted for, {accepted} were accepted: {shown}"));
        }
        for status in FINAL {
            let now = number(&counts[status]);
            let before = self.at_rest_before.insert(status.to_owned(), now).unwrap_or(0);
            if now < before {
                return Err(format!("{status} went back from {before} to {now}: {shown}"));
            }
        }
        Ok(())
    }
}

/// The q-quantile (0 to 1) of some times, the nearest that was measured. `None` without any.
#[must_use]
pub fn quantile(times_ms: &[u64], q: f64) -> Option<u64> {
    let mut sorted = times_ms.to_vec();
    sorted.sort_unstable();
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(status: &str, flagged: bool) -> Said {
        Said {
            id: MessageId { job_id: 7, ordinal: 3 }.to_string(),
            email: "a@x.example".into(),
            status: status.into(),
            flagged,
        }
    }

    fn judged_as(due: Due, status: &str, flagged: bool, n: u32, at: Instant) -> Findings {
        let copies = (n > 0).then(|| ("a@x.example".to_owned(), Copies { n, first: at, last: at }));
        judge(&[("a@x.example".to_owned(), due)], &[said(status, flagged)], &copies.into_iter().collect())
    }

    fn judged(status: &str, flagged: bool, n: u32) -> Findings {
        judged_as(Due::Mail, status, flagged, n, Instant::now())
    }

    #[test]
    fn what_is_right_is_clean() {
        assert!(judged("sent", false, 1).is_clean());
        assert!(judged("sent", true, 2).is_clean());
        assert!(judged_as(Due::Nothing, "suppressed", false, 0, Instant::now()).is_clean());
    }

    #[test]
    fn each_wrong_is_called_by_its_name() {
        assert_eq!(judged("sent", false, 0).false_sent, 1);
        assert_eq!(judged("failed", false, 0).lost, 1);
        assert_eq!(judged("sent", false, 2).unflagged, 1);
        assert_eq!(judged("sent", true, 3).extra, 2);
        assert_eq!(judged("queued", false, 1).broken, 1);
        assert_eq!(judged("suppressed", false, 0).lost, 1);
        assert_eq!(judged_as(Due::Nothing, "sent", false, 1, Instant::now()).forbidden, 1);
        let none = judge(&[("a@x.example".to_owned(), Due::Mail)], &[], &HashMap::new());
        assert_eq!((none.lost, none.broken), (1, 1));
    }

    #[test]
    fn who_was_suppressed_on_the_way_gets_only_what_was_claimed_before() {
        let at = Instant::now();
        let (before, after) = (at - Duration::from_secs(1), at + Duration::from_secs(1));
        let due = |running: &[i64]| Due::MailBefore {
            at,
            running: running.iter().copied().collect(),
        };
        assert!(judged_as(due(&[]), "suppressed", false, 0, at).is_clean());
        assert!(judged_as(due(&[]), "sent", false, 1, before).is_clean());
        assert!(judged_as(due(&[7]), "sent", false, 1, after).is_clean(), "its chunk was at hand");
        assert_eq!(judged_as(due(&[8]), "sent", false, 1, after).forbidden, 1);
        assert_eq!(judged_as(due(&[]), "failed", false, 0, after).lost, 1);
        assert_eq!(judged_as(due(&[7]), "suppressed", false, 1, before).unflagged, 1);
    }

    #[test]
    fn what_is_for_later_does_not_come_early() {
        let at = Instant::now();
        assert_eq!(judged_as(Due::MailAfter(at), "sent", false, 1, at - BIN).forbidden, 1);
        assert!(judged_as(Due::MailAfter(at), "sent", false, 1, at).is_clean());
    }

    #[test]
    fn attempts_rise_in_number_and_time() {
        let of = |a: i64, at: &str, b: i64, bt: &str| json!({"attempts": [{"n": a, "at": at}, {"n": b, "at": bt}]});
        let (early, late) = ("2026-09-21T14:13:20.123Z", "2026-09-21T14:13:21.000Z");
        assert_eq!(odd_attempts(&of(1, early, 2, late), false), None);
        assert!(odd_attempts(&of(1, early, 1, late), false).is_some());
        assert!(odd_attempts(&of(1, late, 2, early), false).is_some());
        assert_eq!(odd_attempts(&of(1, late, 2, early), true), None);
    }

    #[test]
    fn the_fastest_second_slides() {
        assert_eq!(fastest_second(&[1, 2]), 3);
        let mut bins = vec![1; 30];
        bins[14] = 50;
        assert_eq!(fastest_second(&bins), 59);
    }

    #[test]
    fn a_ledger_notices_what_is_missing_and_what_goes_back() {
        let shown = |queued: i64, sent: i64| {
            let mut counts = json!({"queued": queued, "sent": sent});
            for other in ["deferred", "failed", "suppressed", "uncertain", "canceled", "expired"] {
                counts[other] = json!(0);
            }
            json!({"received": 10, "rejected": 0, "duplicates": 0, "counts": counts})
        };
        let mut ledger = Ledger::default();
        assert!(ledger.look(&shown(10, 0)).is_ok());
        assert!(ledger.look(&shown(4, 6)).is_ok());
        assert!(ledger.look(&shown(5, 5)).is_err(), "sent goes back");
        assert!(Ledger::default().look(&shown(9, 0)).is_err(), "one is missing");
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let times: Vec<u64> = (1..=100).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.99)), (Some(50), Some(99)));
        assert_eq!((quantile(&[7], 0.99), quantile(&[], 0.5)), (Some(7), None));
    }
}
