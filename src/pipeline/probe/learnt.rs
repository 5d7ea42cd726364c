//! What a test of a relay finds out about it, in sentences and as findings that all workers go by.

use super::{Failure, RelayConfig};
use crate::domain::finding::{Finding, FindingKind};
use crate::domain::relay::Relay;
use crate::domain::time::Timestamp;
use crate::smtp::{Cause, Sign};
use crate::store::findings::Found;
use crate::store::pacing::RelayAt;
use crate::store::{Result, Store};

/// Writes down what a test found out. `false` when the relay was changed meanwhile.
///
/// # Errors
/// Of the store.
pub async fn keep(store: &dyn Store, relay: &Relay, found: &[Found], now: Timestamp) -> Result<bool> {
    let at = RelayAt {
        id: relay.id,
        version: relay.version,
    };
    let mut is_kept = true;
    for one in found {
        is_kept &= store.write_finding(at, one, now).await?;
    }
    Ok(is_kept)
}

/// What was found out so far.
pub(super) struct Learnt {
    address: String,
    pub announced: Vec<String>,
    pub found: Vec<Found>,
    pub notes: Vec<String>,
}

impl Learnt {
    pub fn of(config: &RelayConfig) -> Self {
        Self {
            address: config.address(),
            announced: Vec::new(),
            found: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// How a command was taken that was written ahead of the reply to the end of data.
    pub fn note_flight(&mut self, sign: Option<&Sign>) {
        match sign {
            None if !self.announced.iter().any(|word| word == "PIPELINING") => {
                self.find(FindingKind::Flights, 0, "it does not announce PIPELINING");
            }
            None => {}
            Some(Sign::Taken) => self.find(FindingKind::Flights, 1, ""),
            Some(Sign::Refused(words) | Sign::Unanswered(words) | Sign::Lost(words)) => {
                self.find(FindingKind::Flights, 0, words);
            }
        }
    }

    /// How many messages were begun in one session until one was refused.
    pub fn note_session(&mut self, n: u32, refusal: Option<&Failure>) {
        match refusal {
            None => self
                .notes
                .push(format!("It let {n} messages begin in one session, the most that was tried.")),
            Some(failure) if matches!(failure.cause, Cause::Reply(_)) => {
                self.find(FindingKind::SessionMessages, i64::from(n), &failure.to_string());
            }
            Some(failure) => self
                .notes
                .push(format!("The session ended after {n} messages: {failure}.")),
        }
    }

    fn find(&mut self, kind: FindingKind, value: i64, words: &str) {
        let finding = Finding {
            relay_id: 0,
            kind,
            address: self.address.clone(),
            value: Some(value),
            words: words.to_owned(),
            found_at: Timestamp(0),
            trial_worker: None,
        };
        let said = if words.is_empty() {
            String::new()
        } else {
            format!(" ({words})")
        };
        self.notes.push(sentence(&format!("{}{said}", finding.in_words())));
        self.found.push(Found {
            kind,
            address: finding.address,
            value: finding.value,
            words: finding.words,
        });
    }
}

fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_says_what_it_found_out_and_what_follows() {
        let mut learnt = Learnt::of(&RelayConfig::clear("mail.example.org", 25));
        learnt.announced = vec!["PIPELINING".to_owned()];
        learnt.note_flight(Some(&Sign::Refused("503 too early".to_owned())));
        learnt.note_session(100, None);
        assert_eq!(
            learnt.notes,
            [
                "It does not take commands ahead of its reply to the end of data, so each message waits for it (503 too early).",
                "It let 100 messages begin in one session, the most that was tried.",
            ]
        );
        assert_eq!((learnt.found.len(), learnt.found[0].value), (1, Some(0)));
        assert_eq!(learnt.found[0].address, "mail.example.org:25");
    }
}
