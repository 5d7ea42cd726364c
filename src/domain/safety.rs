//! What keeps a broadcast that goes wrong from going on: the canary that goes first, and the pause when too much fails. What is
//! asked for stands in `rules`. Pure:
//! from counts to a decision; the counts and the time are given.

use serde::{Deserialize, Serialize};

use super::message::ReplyNote;
use super::reason;
use super::time::Timestamp;

mod chance;
mod rules;
mod words;

use self::chance::surely_exceeds;
pub use self::rules::{AutoPause, CANARY_MAX, CanaryRule, CanarySize, HOLD_ABOVE_PERCENT, Safety};

/// Outcomes after which failures are reckoned anew: a trouble that begins in the millionth message must not drown in those
/// that went well before.
pub const WINDOW: i64 = 1_000;
/// Failures that a person has seen may go on at half as much again, so that a list with many dead addresses does not stop
/// at every step.
const TOLERATED_FACTOR: f64 = 1.5;
/// Whatever was seen: when more than half fails, the rest is held.
const TOLERATED_PERCENT_MAX: u8 = 50;

/// The limits of this installation; see `config.default.toml` for their reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Share of failures that pauses a broadcast; 100 is never.
    pub failed_percent_max: u8,
    /// Outcomes before a share means anything.
    pub outcomes_min: i64,
    /// Share of failures that concern the rest as well, which pauses a broadcast earlier.
    pub refused_percent_max: u8,
    /// So many of them at least, so that one odd receiver does not stop everybody.
    pub refused_min: i64,
    /// Messages of a broadcast that a relay may leave in doubt in the same way, beyond one for each connection.
    pub doubts_max: i64,
    /// How long a canary's deferred messages are waited for, in milliseconds.
    pub canary_wait_ms: i64,
}

impl Default for Limits {
    /// As in `config.default.toml`; a test compares them.
    fn default() -> Self {
        Self {
            failed_percent_max: 10,
            outcomes_min: 200,
            refused_percent_max: 5,
            refused_min: 20,
            doubts_max: 5,
            canary_wait_ms: 15 * 60 * 1_000,
        }
    }
}

/// Failed messages of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByClass {
    pub class: String,
    pub n: i64,
}

/// Messages that a relay left in doubt, in the same way: their end of data was written and no reply to it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubts {
    pub relay: String,
    pub class: String,
    pub n: i64,
}

/// The counts from which failures are reckoned: those of the start, of the last look with nothing wrong, or of the moment
/// when somebody resumed the broadcast.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    pub outcomes: i64,
    pub failed: i64,
    pub by_class: Vec<ByClass>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<Doubts>,
    /// Shares that somebody has seen and let pass.
    pub failed_percent: u8,
    pub refused_percent: u8,
    /// The counts of the start, or of the moment when somebody resumed the broadcast: a window leaves them as they are.
    #[serde(skip_serializing_if = "Base::is_start")]
    pub base: Base,
}

/// The counts from which all is reckoned, beside the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Base {
    pub outcomes: i64,
    pub failed: i64,
    pub refused: i64,
}

impl Base {
    fn of(tally: &Tally) -> Self {
        Self {
            outcomes: tally.outcomes(),
            failed: tally.failed,
            refused: refused(&tally.by_class),
        }
    }

    fn is_start(&self) -> bool {
        *self == Self::default()
    }
}

impl Seen {
    /// The same tolerance, with a new window from these counts on.
    #[must_use]
    pub fn at(&self, tally: &Tally) -> Self {
        Self {
            outcomes: tally.outcomes(),
            failed: tally.failed,
            by_class: tally.by_class.clone(),
            doubts: tally.doubts.clone(),
            ..self.clone()
        }
    }

    /// The same tolerance, with everything reckoned from these counts on: somebody has seen them.
    #[must_use]
    pub fn anew(&self, tally: &Tally) -> Self {
        Self {
            base: Base::of(tally),
            ..self.at(tally)
        }
    }

    /// What a person tolerates who resumes a broadcast that this pause stopped.
    #[must_use]
    pub fn tolerating(mut self, pause: Option<&Pause>) -> Self {
        let Some(evidence) = pause.and_then(|p| p.evidence.as_ref()) else {
            return self;
        };
        let share = evidence.failed as f64 * 100.0 / evidence.outcomes.max(1) as f64;
        let tolerated = ((share * TOLERATED_FACTOR).ceil() as u8).min(TOLERATED_PERCENT_MAX);
        // A canary that was let pass has failed as well; its share is no worse a measure.
        self.failed_percent = self.failed_percent.max(tolerated);
        if evidence.concerns_the_rest {
            self.refused_percent = self.refused_percent.max(tolerated);
        }
        self
    }

    fn of_class(&self, class: &str) -> i64 {
        self.by_class.iter().find(|c| c.class == class).map_or(0, |c| c.n)
    }

    fn in_doubt_by(&self, relay: &str, class: &str) -> i64 {
        let alike = |d: &&Doubts| d.relay == relay && d.class == class;
        self.doubts.iter().find(alike).map_or(0, |d| d.n)
    }
}

/// What became of a broadcast's messages so far; while a canary runs, of the canary's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Recipients in chunks.
    pub size: i64,
    pub queued: i64,
    pub deferred: i64,
    pub sent: i64,
    pub failed: i64,
    pub uncertain: i64,
    /// The failed ones by reason, the commonest first.
    pub by_class: Vec<ByClass>,
    /// Messages left in doubt by relays, also those that were sent again and those that are to be.
    pub doubts: Vec<Doubts>,
    /// Whether there are no more recipients to come.
    pub is_split: bool,
}

impl Tally {
    /// Messages that a relay took or refused, or that we gave up: those that teach something.
    #[must_use]
    pub fn outcomes(&self) -> i64 {
        self.sent + self.failed + self.uncertain
    }
}

/// A broadcast under watch, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    pub safety: Safety,
    pub canary: Option<CanaryState>,
    pub canary_size: i64,
    pub canary_tried_at: Option<Timestamp>,
    pub seen: Seen,
    pub tally: Tally,
}

/// Where a canary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryState {
    /// The rest waits for its outcomes.
    Running,
    /// It went well and the rest follows.
    Passed,
    /// It did not; the rest waits for a person.
    Held,
    /// A person let the rest follow.
    Released,
    /// The broadcast ended before there was a rest.
    Over,
}

impl CanaryState {
    pub const ALL: [CanaryState; 5] = [
        CanaryState::Running,
        CanaryState::Passed,
        CanaryState::Held,
        CanaryState::Released,
        CanaryState::Over,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CanaryState::Running => "running",
            CanaryState::Passed => "passed",
            CanaryState::Held => "held",
            CanaryState::Released => "released",
            CanaryState::Over => "over",
        }
    }
}

impl std::str::FromStr for CanaryState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|s| s.as_str() == text);
        found.ok_or_else(|| format!("'{}' is no state of a canary", text.escape_debug()))
    }
}

/// Who or what paused a broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseKind {
    /// A person or a program that asked for it.
    Operator,
    /// Too many of the first messages failed.
    Canary,
    /// Too many messages fail.
    Failures,
    /// Messages fail for a reason that the rest would meet as well.
    Refused,
    /// A relay leaves too many messages in doubt: to send them again might be to send everything twice.
    Doubt,
}

impl PauseKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PauseKind::Operator => "operator",
            PauseKind::Canary => "canary",
            PauseKind::Failures => "failures",
            PauseKind::Refused => "refused",
            PauseKind::Doubt => "doubt",
        }
    }
}

/// A pause that nobody asked for, or somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub kind: PauseKind,
    #[serde(default)]
    pub evidence: Option<Evidence>,
}

/// On what an automatic pause rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The commonest reason; empty when there was no outcome at all.
    pub class: String,
    /// Failures that were counted, among so many outcomes.
    pub failed: i64,
    pub outcomes: i64,
    /// The share that was allowed.
    pub percent_max: u8,
    /// The same over all, since the start or since somebody resumed it; only where that is more than the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_all: Option<Share>,
    /// Whether the reason is one that the rest would meet as well.
    pub concerns_the_rest: bool,
    /// The relay that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    #[serde(default)]
    pub example: Option<Example>,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub failed: i64,
    pub outcomes: i64,
}

/// What a relay said to one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    pub message_id: String,
    pub code: Option<u16>,
    pub enhanced: Option<String>,
    pub text: String,
}

impl Example {
    #[must_use]
    pub fn new(message_id: String, note: ReplyNote) -> Self {
        Self {
            message_id,
            code: note.code,
            enhanced: note.enhanced,
            text: note.text,
        }
    }
}

/// What is to be done about a broadcast under watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// The canary has been tried from end to end: its deferred messages are waited for from now on.
    CanaryTried,
    /// The rest may follow.
    OpenGate,
    /// It stops.
    Pause(Pause),
    /// Nothing was wrong: failures are reckoned from here.
    Reckon(Seen),
}

/// Looks at a broadcast and says what is to be done. A relay that restarts leaves one message in doubt for each of the `connections` that
/// there are to relays.
#[must_use]
pub fn judge(w: &Watched, limits: &Limits, connections: i64, now: Timestamp) -> Step {
    if let Some(pause) = judge_doubts(w, limits.doubts_max + connections) {
        return Step::Pause(pause);
    }
    if w.canary == Some(CanaryState::Running)
        && let Some(rule) = w.safety.canary
    {
        match judge_canary(w, rule, limits, now) {
            Step::Nothing => {}
            step => return step,
        }
    }
    judge_failures(w, limits)
}

/// Whatever is asked for: a doubt that repeats itself is no accident, and each further message might be sent twice.
fn judge_doubts(w: &Watched, doubts_max: i64) -> Option<Pause> {
    let new = |d: &Doubts| d.n - w.seen.in_doubt_by(&d.relay, &d.class);
    let most = w.tally.doubts.iter().max_by_key(|d| new(d))?;
    (new(most) > doubts_max).then(|| Pause {
        kind: PauseKind::Doubt,
        evidence: Some(Evidence {
            class: most.class.clone(),
            failed: new(most),
            outcomes: w.tally.outcomes() - w.seen.outcomes,
            percent_max: 0,
            over_all: None,
            concerns_the_rest: true,
            relay: Some(most.relay.clone()),
            example: None,
        }),
    })
}

fn judge_canary(w: &Watched, rule: CanaryRule, limits: &Limits, now: Timestamp) -> Step {
    let t = &w.tally;
    let is_whole = t.is_split || (w.canary_size > 0 && t.size >= w.canary_size);
    if !is_whole {
        return Step::Nothing;
    }
    let percent_max = rule.hold_above_percent;
    // So many have failed that those still to come cannot bring the share down any more.
    let is_lost = exceeds(t.failed, t.outcomes() + t.queued + t.deferred, percent_max);
    if is_lost {
        return hold_canary(t, percent_max);
    }
    if t.queued > 0 {
        return Step::Nothing;
    }
    let is_waiting = t.deferred > 0
        && match w.canary_tried_at {
            None => return Step::CanaryTried,
            Some(at) => now - at < limits.canary_wait_ms,
        };
    match is_waiting {
        true => Step::Nothing,
        // Nothing at all was learnt: somebody must look.
        false if t.outcomes() == 0 => hold_canary(t, percent_max),
        false if exceeds(t.failed, t.outcomes(), percent_max) => hold_canary(t, percent_max),
        false => Step::OpenGate,
    }
}

fn hold_canary(t: &Tally, percent_max: u8) -> Step {
    let class = t.by_class.first().map_or(String::new(), |c| c.class.clone());
    Step::Pause(Pause {
        kind: PauseKind::Canary,
        evidence: Some(Evidence {
            concerns_the_rest: reason::concerns_the_rest(&class),
            class,
            failed: t.failed,
            outcomes: t.outcomes(),
            percent_max,
            over_all: None,
            relay: None,
            example: None,
        }),
    })
}

fn judge_failures(w: &Watched, limits: &Limits) -> Step {
    let failed_percent_max = match w.safety.auto_pause {
        Some(AutoPause::Off) => return reckon(w),
        Some(AutoPause::AbovePercent(percent)) => percent,
        None => limits.failed_percent_max,
    };
    let (t, seen) = (&w.tally, &w.seen);
    let since = since(t, seen);
    let window = |failed| Share {
        failed,
        outcomes: t.outcomes() - seen.outcomes,
    };
    let over_all = |failed| Share {
        failed,
        outcomes: t.outcomes() - seen.base.outcomes,
    };
    let look = Look {
        kind: PauseKind::Refused,
        window: window(refused(&since)),
        over_all: over_all(refused(&t.by_class) - seen.base.refused),
        percent_max: limits.refused_percent_max.max(seen.refused_percent),
    };
    if let Some(share) = look.exceeding(|share| share.failed >= limits.refused_min)
        && let Some(common) = commonest(&since, t, reason::concerns_the_rest)
    {
        return look.pause(share, common);
    }
    let look = Look {
        kind: PauseKind::Failures,
        window: window(t.failed - seen.failed),
        over_all: over_all(t.failed - seen.base.failed),
        percent_max: failed_percent_max.max(seen.failed_percent),
    };
    if let Some(share) = look.exceeding(|share| share.outcomes >= limits.outcomes_min)
        && let Some(common) = commonest(&since, t, |_| true)
    {
        return look.pause(share, common);
    }
    reckon(w)
}

/// Failures of one kind: those of the window, which shows a trouble that has just begun, and those over all, which show one that is
/// always there and small.
struct Look {
    kind: PauseKind,
    window: Share,
    over_all: Share,
    percent_max: u8,
}

impl Look {
    /// The share that is more than is allowed, whatever chance may have done.
    fn exceeding(&self, means_anything: impl Fn(&Share) -> bool) -> Option<Share> {
        let exceeds =
            |share: &Share| means_anything(share) && surely_exceeds(share.failed, share.outcomes, self.percent_max);
        [self.window, self.over_all].into_iter().find(exceeds)
    }

    fn pause(&self, share: Share, class: &str) -> Step {
        Step::Pause(Pause {
            kind: self.kind,
            evidence: Some(Evidence {
                class: class.to_owned(),
                failed: share.failed,
                outcomes: share.outcomes,
                percent_max: self.percent_max,
                over_all: Some(self.over_all).filter(|all| *all != share),
                concerns_the_rest: reason::concerns_the_rest(class),
                relay: None,
                example: None,
            }),
        })
    }
}

/// The failures since the window began, by reason.
fn since(t: &Tally, seen: &Seen) -> Vec<ByClass> {
    let new = |c: &ByClass| ByClass {
        class: c.class.clone(),
        n: c.n - seen.of_class(&c.class),
    };
    t.by_class.iter().map(new).filter(|c| c.n > 0).collect()
}

/// The commonest reason of the kind: of the window, or else of all.
fn commonest<'a>(since: &'a [ByClass], t: &'a Tally, fits: fn(&str) -> bool) -> Option<&'a str> {
    let most = |of: &'a [ByClass]| of.iter().filter(|c| fits(&c.class)).max_by_key(|c| c.n);
    most(since).or_else(|| most(&t.by_class)).map(|c| c.class.as_str())
}

/// Failures for a reason that the rest would meet as well.
fn refused(by_class: &[ByClass]) -> i64 {
    let of_the_kind = by_class.iter().filter(|c| reason::concerns_the_rest(&c.class));
    of_the_kind.map(|c| c.n).sum()
}

/// Nothing was wrong; a window ends after so many outcomes.
fn reckon(w: &Watched) -> Step {
    match w.tally.outcomes() - w.seen.outcomes >= WINDOW {
        true => Step::Reckon(w.seen.at(&w.tally)),
        false => Step::Nothing,
    }
}

fn exceeds(failed: i64, of: i64, percent: u8) -> bool {
    failed > 0 && failed * 100 > of * i64::from(percent)
}

#[cfg(test)]
mod tests;
