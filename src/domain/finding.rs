//! What sending through a relay has shown about it: liberties that it does not take, and limits that it announced nowhere. Pure:
//! what is found, and for how long it holds.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::time::Timestamp;

/// How long a refusal or a limit holds before the relay is tried anew, in milliseconds: a week. Servers are upgraded now and then,
/// and each try may cost one message a second copy.
pub const FINDING_KEPT_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// What is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Whether the next message's commands may be written ahead of the reply to the end of data (RFC 2920 3.1): 1 or 0.
    Flights,
    /// Whether windows of CHUNKING (RFC 3030) are taken: 1 or 0.
    Windows,
    /// Most messages of one session.
    SessionMessages,
    /// Most connections at once, of all workers.
    Connections,
}

impl FindingKind {
    pub const ALL: [FindingKind; 4] = [
        FindingKind::Flights,
        FindingKind::Windows,
        FindingKind::SessionMessages,
        FindingKind::Connections,
    ];

    /// As it is stored, and as the API calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::Flights => "flights",
            FindingKind::Windows => "windows",
            FindingKind::SessionMessages => "session_messages",
            FindingKind::Connections => "connections",
        }
    }

    /// Whether it is found out by one trial of the whole cluster, and not by a refusal that comes by itself.
    #[must_use]
    pub fn is_tried(self) -> bool {
        matches!(self, FindingKind::Flights | FindingKind::Windows)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FindingKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| format!("'{}' is no finding about a relay", text.escape_debug()))
    }
}

/// One thing found out about a relay, or being found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub relay_id: i64,
    pub kind: FindingKind,
    /// `host:port` that it was found at: at another address nothing is known.
    pub address: String,
    /// `None` while a worker is trying it.
    pub value: Option<i64>,
    /// What the relay said or did.
    pub words: String,
    pub found_at: Timestamp,
    /// The worker that tries it.
    pub trial_worker: Option<i64>,
}

impl Finding {
    /// What is known from it now of the relay at this address. That something is taken holds until it is refused; a refusal and a
    /// limit hold for [`FINDING_KEPT_MS`].
    #[must_use]
    pub fn value_at(&self, address: &str, now: Timestamp) -> Option<i64> {
        let value = self.value.filter(|_| self.address == address)?;
        let is_taken = self.kind.is_tried() && value > 0;
        (is_taken || now - self.found_at < FINDING_KEPT_MS).then_some(value)
    }

    /// When it is tried anew; `None` for what is taken.
    #[must_use]
    pub fn held_until(&self) -> Option<Timestamp> {
        let is_taken = self.kind.is_tried() && self.value.is_some_and(|v| v > 0);
        (!is_taken).then(|| self.found_at.plus_ms(FINDING_KEPT_MS))
    }

    /// What it means, as one clause for pages and the command line.
    #[must_use]
    pub fn in_words(&self) -> String {
        match (self.kind, self.value) {
            (FindingKind::Flights, None) => {
                "whether commands may be written ahead of its reply to the end of data is tried with its next mail"
                    .to_owned()
            }
            (FindingKind::Flights, Some(1..)) => {
                "it takes the next message's commands ahead of its reply to the end of data".to_owned()
            }
            (FindingKind::Flights, Some(_)) => {
                "it does not take commands ahead of its reply to the end of data, so each message waits for it"
                    .to_owned()
            }
            (FindingKind::Windows, None) => {
                "whether it takes windows of CHUNKING is tried with its next mail".to_owned()
            }
            (FindingKind::Windows, Some(1..)) => "it takes windows of CHUNKING".to_owned(),
            (FindingKind::Windows, Some(_)) => {
                "it does not take windows of CHUNKING, so messages go with DATA".to_owned()
            }
            (FindingKind::SessionMessages, n) => {
                format!("it takes {} messages in one session, so each connection ends after them", n.unwrap_or(0))
            }
            (FindingKind::Connections, n) => {
                format!("it takes {} connections at once from here, so no more are opened", n.unwrap_or(0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_for_a_week_and_at_its_address() {
        let finding = |kind, value| Finding {
            relay_id: 1,
            kind,
            address: "mail.example.org:587".into(),
            value,
            words: "503 too early".into(),
            found_at: Timestamp(1_000),
            trial_worker: None,
        };
        let here = |f: &Finding, after_ms: i64| f.value_at("mail.example.org:587", Timestamp(1_000 + after_ms));
        let week = FINDING_KEPT_MS;
        let refused = finding(FindingKind::Flights, Some(0));
        assert_eq!([here(&refused, 0), here(&refused, week - 1), here(&refused, week)], [Some(0), Some(0), None]);
        assert_eq!(refused.value_at("other.example.org:587", Timestamp(1_000)), None);
        let taken = finding(FindingKind::Flights, Some(1));
        assert_eq!((here(&taken, 10 * week), taken.held_until()), (Some(1), None));
        let limit = finding(FindingKind::SessionMessages, Some(100));
        assert_eq!([here(&limit, 0), here(&limit, week)], [Some(100), None]);
        assert_eq!(limit.held_until(), Some(Timestamp(1_000 + week)));
        assert_eq!(here(&finding(FindingKind::Flights, None), 0), None);
    }

    #[test]
    fn each_kind_is_stored_under_the_name_it_has_in_the_api() {
        for kind in FindingKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert!("speed".parse::<FindingKind>().is_err());
    }
}
