//! What is said of a pause: why, with the numbers, and what to do. Pure.

use super::{Pause, PauseKind, Share};
use crate::domain::reason;

impl Share {
    /// `6.1 %`; without the digit behind the point when it is a whole number. Cut off, never rounded up over a limit.
    fn in_words(self) -> String {
        let tenths = self.failed * 1_000 / self.outcomes.max(1);
        match tenths % 10 {
            0 => format!("{} %", tenths / 10),
            digit => format!("{}.{digit} %", tenths / 10),
        }
    }
}

impl Pause {
    #[must_use]
    pub fn by_operator() -> Self {
        Self {
            kind: PauseKind::Operator,
            evidence: None,
        }
    }

    /// Why, in one sentence with the numbers. `None` where the operator's own words stand.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        let e = self.evidence.as_ref()?;
        let share = Share {
            failed: e.failed,
            outcomes: e.outcomes,
        }
        .in_words();
        let over_all = e
            .over_all
            .map_or(String::new(), |all| format!("; over all {} of {} ({})", all.failed, all.outcomes, all.in_words()));
        let meaning = reason::find(&e.class).map_or("", |r| r.meaning);
        let mostly = format!("mostly {}: {meaning}", e.class.replace('_', " "));
        Some(match self.kind {
            PauseKind::Operator => return None,
            PauseKind::Canary if e.outcomes == 0 => {
                "none of the first messages came to an outcome, so the rest is held".to_owned()
            }
            PauseKind::Canary => format!(
                "{} of the first {} messages failed ({share}, {} % is allowed), so the rest is held; {mostly}",
                e.failed, e.outcomes, e.percent_max
            ),
            PauseKind::Failures => format!(
                "{} of the last {} messages failed ({share}, {} % is allowed){over_all}; {mostly}",
                e.failed, e.outcomes, e.percent_max
            ),
            PauseKind::Doubt => format!(
                "the relay {} gave no reply to the end of {} messages{}, so that nobody knows whether it took them; none of them is \
                 sent again by itself",
                e.relay.as_deref().unwrap_or_default(),
                e.failed,
                e.example.as_ref().map_or(String::new(), |x| format!(" ({})", x.text))
            ),
            PauseKind::Refused => format!(
                "{} of the last {} messages were refused for a reason that the rest would meet as well{over_all}; {mostly}",
                e.failed, e.outcomes
            ),
        })
    }

    /// What a person can do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        let e = self.evidence.as_ref()?;
        if self.kind == PauseKind::Doubt {
            return Some(
                "Test the relay, and look at what stands before it: a filter, a proxy, a time limit. Its own log says whether it took the \
                 messages. Where it dislikes how it is spoken to, set pipelining to off. When you resume, the rest goes on and the \
                 messages in doubt stay held.",
            );
        }
        match reason::find(&e.class) {
            Some(reason) => Some(reason.advice),
            None => Some("Look at the deferred messages and the relay before you resume."),
        }
    }
}
