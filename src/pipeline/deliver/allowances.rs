//! What a relay is known to allow beyond what it announces, as the connections of a worker share it: flights, windows, messages of a
//! session, connections at once. Until flights are known, one at a time is tried, and by one worker of all; so at most one message
//! comes into doubt if the relay hangs up on them. Pure but for its lock: never speaks to the relay or the database.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::finding::FindingKind;
use crate::smtp::{Flights, Sign};

/// Flights that must be taken one after the other before every connection uses them: a relay that sees by chance only whether
/// something came early is found out.
const TRIALS: u8 = 3;
/// Messages that a session must have taken before its end is taken for a limit that the relay does not speak of: what ends sooner has
/// other reasons.
const UNSAID_END_MIN: u32 = 4;
/// Connections in a row that are lost right behind a verdict while flights are in use. Behind this many, flights are tried anew: the
/// relay may have been changed.
const LOST_MAX: u8 = 3;
/// Connections in a row that are not let in while others carry mail, after which it is taken for a limit though the relay says nothing.
const TURNED_AWAY_MAX: u32 = 3;
/// The others must have carried mail for this long after the first of them: a relay that restarts turns away as well, and not for long.
const TURNED_AWAY_FOR: Duration = Duration::from_secs(1);

/// What is known about one liberty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing, or another worker is trying it.
    Nothing,
    /// This worker is the one that tries it.
    OnTrial,
    Taken,
    Refused,
}

/// What was found out, to be told to all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    pub kind: FindingKind,
    /// `None`: what was known holds no longer.
    pub value: Option<i64>,
    pub words: String,
}

#[derive(Debug)]
struct Liberty {
    known: Known,
    /// A flight is out, and another one must wait for its end.
    is_out: bool,
    n_taken: u8,
    n_lost: u8,
}

#[derive(Debug)]
struct State {
    flights: Liberty,
    windows: Liberty,
    session_max: Option<u32>,
    /// After how many messages a session ended last, where the relay did not say that this is a limit.
    last_end: Option<u32>,
    places: u32,
    n_placed: u32,
    n_open: u32,
    /// Being opened.
    n_opening: u32,
    n_turned_away: u32,
    turned_away_since: Option<Instant>,
}

/// What the connections of one relay go by.
#[derive(Debug)]
pub struct Allowances {
    state: Mutex<State>,
    freed: Notify,
}

/// Leave to write ahead once. It ends with the value.
pub struct Leave<'a> {
    of: &'a Allowances,
    kind: FindingKind,
    pub flights: Flights,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.flights == Flights::Trial {
            self.of.state().liberty(self.kind).is_out = false;
        }
    }
}

/// A place among the connections that may be open at once. It ends with the value.
pub struct Place(std::sync::Arc<Allowances>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().n_placed -= 1;
        self.0.freed.notify_one();
    }
}

/// A connection being opened.
pub struct Opening(std::sync::Arc<Allowances>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.state().n_opening -= 1;
    }
}

impl Allowances {
    /// Nothing is known but how many connections are configured.
    #[must_use]
    pub fn new(connections: u16) -> Self {
        let liberty = || Liberty {
            known: Known::Nothing,
            is_out: false,
            n_taken: 0,
            n_lost: 0,
        };
        Self {
            state: Mutex::new(State {
                flights: liberty(),
                windows: liberty(),
                session_max: None,
                last_end: None,
                places: u32::from(connections),
                n_placed: 0,
                n_open: 0,
                n_opening: 0,
                n_turned_away: 0,
                turned_away_since: None,
            }),
            freed: Notify::new(),
        }
    }

    /// Everything is allowed: the relay is this program's own.
    pub fn allow_all(&self) {
        let mut state = self.state();
        (state.flights.known, state.windows.known) = (Known::Taken, Known::Taken);
    }

    /// What is known of a liberty at present.
    #[must_use]
    pub fn known(&self, kind: FindingKind) -> Known {
        self.state().liberty(kind).known
    }

    /// Whether a flight on trial is out, whose end is still to be seen.
    #[must_use]
    pub fn is_on_the_wire(&self, kind: FindingKind) -> bool {
        self.state().liberty(kind).is_out
    }

    /// What the database says about a liberty.
    pub fn learn(&self, kind: FindingKind, known: Known) {
        let mut state = self.state();
        let liberty = state.liberty(kind);
        // What this worker has found out itself is on its way to the database.
        let is_ahead = known == Known::OnTrial && liberty.known != Known::Nothing;
        if !is_ahead && liberty.known != known {
            *liberty = Liberty {
                known,
                is_out: liberty.is_out,
                n_taken: 0,
                n_lost: 0,
            };
        }
    }

    /// Most messages of one session, and most connections of this worker.
    pub fn limit(&self, session_max: Option<u32>, places: u32) {
        let mut state = self.state();
        state.session_max = session_max;
        let is_more = places > state.places;
        state.places = places.max(1);
        drop(state);
        if is_more {
            self.freed.notify_waiters();
        }
    }

    /// Most messages of one session, where a limit is known.
    #[must_use]
    pub fn session_max(&self) -> Option<u32> {
        self.state().session_max
    }

    /// How the next messages may go: with something written ahead, or not.
    #[must_use]
    pub fn leave(&self, kind: FindingKind) -> Leave<'_> {
        let mut state = self.state();
        let liberty = state.liberty(kind);
        let flights = match liberty.known {
            Known::Taken => Flights::On,
            Known::OnTrial if !liberty.is_out => Flights::Trial,
            _ => Flights::Off,
        };
        liberty.is_out |= flights == Flights::Trial;
        Leave {
            of: self,
            kind,
            flights,
        }
    }

    /// How a flight was taken. Returns what is new for everybody.
    pub fn heed(&self, leave: &Leave<'_>, sign: &Sign) -> Option<Discovery> {
        let mut state = self.state();
        let liberty = state.liberty(leave.kind);
        let discovery = |value, words: &str| {
            Some(Discovery {
                kind: leave.kind,
                value,
                words: words.to_owned(),
            })
        };
        match (leave.flights, sign) {
            (Flights::Off, _) => None,
            (Flights::Trial, Sign::Taken) => {
                liberty.n_taken += 1;
                if liberty.n_taken < TRIALS || liberty.known != Known::OnTrial {
                    return None;
                }
                liberty.known = Known::Taken;
                discovery(Some(1), "")
            }
            (Flights::Trial, Sign::Refused(words) | Sign::Unanswered(words) | Sign::Lost(words))
            | (Flights::On, Sign::Refused(words)) => {
                // Several connections may hear the same at once.
                let is_new = liberty.known != Known::Refused;
                liberty.known = Known::Refused;
                is_new.then(|| discovery(Some(0), words)).flatten()
            }
            (Flights::On, Sign::Taken) => {
                liberty.n_lost = 0;
                None
            }
            (Flights::On, Sign::Lost(words)) => {
                liberty.n_lost += 1;
                if liberty.n_lost < LOST_MAX || liberty.known != Known::Taken {
                    return None;
                }
                liberty.doubt();
                discovery(None, words)
            }
            (Flights::On, Sign::Unanswered(words)) if liberty.known == Known::Taken => {
                liberty.doubt();
                discovery(None, words)
            }
            (Flights::On, Sign::Unanswered(_)) => None,
        }
    }

    /// A session ended after so many messages, and a fresh one took the message that this one did not. Returns the limit when it is one
    /// for certain: the relay said so, or it did the same twice.
    pub fn session_ended(&self, n: u32, is_said: bool, words: &str) -> Option<Discovery> {
        let mut state = self.state();
        let is_twice = state.last_end.replace(n) == Some(n) && n >= UNSAID_END_MIN;
        if !is_said && !is_twice || state.session_max.is_some_and(|max| max <= n) {
            return None;
        }
        state.session_max = Some(n);
        Some(Discovery {
            kind: FindingKind::SessionMessages,
            value: Some(i64::from(n)),
            words: words.to_owned(),
        })
    }

    /// Waits for a place among the connections that may be open.
    pub async fn place(self: &std::sync::Arc<Self>) -> Place {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let mut state = self.state();
                if state.n_placed < state.places {
                    state.n_placed += 1;
                    return Place(std::sync::Arc::clone(self));
                }
            }
            freed.await;
        }
    }

    /// A connection is being opened. It is let in, or not, when the value ends.
    #[must_use]
    pub fn opening(self: &std::sync::Arc<Self>) -> Opening {
        self.state().n_opening += 1;
        Opening(std::sync::Arc::clone(self))
    }

    /// A connection was let in.
    pub fn opened(&self) {
        let mut state = self.state();
        state.n_open += 1;
        (state.n_turned_away, state.turned_away_since) = (0, None);
    }

    /// One that was let in has ended.
    pub fn closed(&self) {
        self.state().n_open -= 1;
    }

    /// Whether this worker has connections to the relay, and whether it is opening some.
    #[must_use]
    pub fn in_use(&self) -> (bool, bool) {
        let state = self.state();
        (state.n_open > 0, state.n_opening > 0)
    }

    /// A connection was not let in at this time while others are open, or being opened; the relay took a message last at `taken_at`. Returns
    /// the limit when it is one for certain; of those being opened some may be too many as well, and say so then.
    pub fn turned_away(
        &self,
        is_said: bool,
        words: &str,
        now: Instant,
        taken_at: Option<Instant>,
    ) -> Option<Discovery> {
        let mut state = self.state();
        state.n_turned_away += 1;
        let since = *state.turned_away_since.get_or_insert(now);
        let lasts = taken_at.is_some_and(|at| at >= since + TURNED_AWAY_FOR);
        let is_certain = is_said || (lasts && state.n_open > 0 && state.n_turned_away >= TURNED_AWAY_MAX);
        let n_left = state.n_open + state.n_opening;
        if !is_certain || n_left == 0 || n_left >= state.places {
            return None;
        }
        state.places = n_left;
        (state.n_turned_away, state.turned_away_since) = (0, None);
        Some(Discovery {
            kind: FindingKind::Connections,
            value: Some(i64::from(n_left)),
            words: words.to_owned(),
        })
    }

    /// The relay does not announce what a flight needs.
    pub fn not_announced(&self, kind: FindingKind, words: &str) -> Option<Discovery> {
        let mut state = self.state();
        let liberty = state.liberty(kind);
        if !matches!(liberty.known, Known::OnTrial | Known::Taken) {
            return None;
        }
        liberty.known = Known::Refused;
        Some(Discovery {
            kind,
            value: Some(0),
            words: words.to_owned(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn liberty(&mut self, kind: FindingKind) -> &mut Liberty {
        match kind {
            FindingKind::Windows => &mut self.windows,
            _ => &mut self.flights,
        }
    }
}

impl Liberty {
    /// What was known holds no longer.
    fn doubt(&mut self) {
        (self.known, self.n_taken, self.n_lost) = (Known::Nothing, 0, 0);
    }
}

#[cfg(test)]
mod tests;
