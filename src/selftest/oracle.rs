//! The oracle: what the service says of its messages, held against what the relay took. Pure; never asks anybody, and never
//! excuses anything.

use std::collections::HashMap;

use serde_json::Value;

/// The statuses in which a message stays.
const FINAL: [&str; 5] = ["sent", "failed", "suppressed", "canceled", "expired"];
/// Examples that are kept of what is wrong.
const EXAMPLES_MAX: usize = 8;

/// A message as the service shows it at the end.
#[derive(Debug, Clone)]
pub struct Said {
    pub email: String,
    pub status: String,
    pub flagged: bool,
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
    /// Copies to addresses that must not be mailed.
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

/// Judges a broadcast that has come to its end. `expected` are its recipients, each with whether it may be mailed.
#[must_use]
pub fn judge(expected: &[(String, bool)], said: &[Said], copies: &HashMap<String, u32>) -> Findings {
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
    for (email, may_be_mailed) in expected {
        let n = copies.get(email).copied().unwrap_or(0);
        match by_address.get(email.as_str()) {
            None => {
                found.lost += 1;
                found.example(format!("{email} is not shown; the relay has {n} copies"));
            }
            Some(said) => judge_one(&mut found, said, n, *may_be_mailed),
        }
    }
    found
}

fn judge_one(found: &mut Findings, said: &Said, n: u32, may_be_mailed: bool) {
    let in_words = || format!("{} is {}, flagged: {}; the relay has {n} copies", said.email, said.status, said.flagged);
    found.flagged += u64::from(said.flagged);
    if !may_be_mailed {
        if n > 0 || said.status != "suppressed" {
            found.forbidden += 1;
            found.example(in_words());
        }
        return;
    }
    found.extra += u64::from(n.saturating_sub(1));
    if n == 0 {
        let false_sent = said.status == "sent";
        found.false_sent += u64::from(false_sent);
        found.lost += 1;
        found.example(in_words());
    }
    if n > 1 && !said.flagged {
        found.unflagged += 1;
        found.example(in_words());
    }
    if !FINAL.contains(&said.status.as_str()) {
        found.breaks(in_words());
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

    fn said(email: &str, status: &str, flagged: bool) -> Said {
        Said {
            email: email.into(),
            status: status.into(),
            flagged,
        }
    }

    fn judged(status: &str, flagged: bool, copies: u32, may_be_mailed: bool) -> Findings {
        let copies = HashMap::from([("a@x.example".to_owned(), copies)]);
        judge(&[("a@x.example".to_owned(), may_be_mailed)], &[said("a@x.example", status, flagged)], &copies)
    }

    #[test]
    fn what_is_right_is_clean() {
        assert!(judged("sent", false, 1, true).is_clean());
        assert!(judged("sent", true, 2, true).is_clean());
        assert!(judged("suppressed", false, 0, false).is_clean());
    }

    #[test]
    fn each_wrong_is_called_by_its_name() {
        assert_eq!(judged("sent", false, 0, true).false_sent, 1);
        assert_eq!(judged("failed", false, 0, true).lost, 1);
        assert_eq!(judged("sent", false, 2, true).unflagged, 1);
        assert_eq!(judged("sent", true, 3, true).extra, 2);
        assert_eq!(judged("queued", false, 1, true).broken, 1);
        assert_eq!(judged("sent", false, 1, false).forbidden, 1);
        let none = judge(&[("a@x.example".to_owned(), true)], &[], &HashMap::new());
        assert_eq!((none.lost, none.broken), (1, 1));
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
