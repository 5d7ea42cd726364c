//! The JSON of what keeps a broadcast from going wrong any further: why it is paused, its canary, what failed.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::broadcast::Broadcast;
use crate::domain::reason;
use crate::domain::safety::{CanaryRule, CanarySize, Example};
use crate::domain::time::Timestamp;
use crate::store::safety::Failures;

/// A message as an example, with what the relay said.
#[derive(Serialize, ToSchema)]
pub struct ExampleView {
    pub message_id: String,
    pub code: Option<u16>,
    /// RFC 3463, such as `5.1.1`.
    pub enhanced: Option<String>,
    pub text: String,
}

impl From<Example> for ExampleView {
    fn from(e: Example) -> Self {
        Self {
            message_id: e.message_id,
            code: e.code,
            enhanced: e.enhanced,
            text: e.text,
        }
    }
}

/// Failed messages of one reason.
#[derive(Serialize, ToSchema)]
pub struct FailureView {
    /// The reason class; see `docs/classes.md`.
    pub class: String,
    pub n: i64,
    /// What it means.
    pub meaning: &'static str,
    /// What can be done about it.
    pub advice: &'static str,
    /// Whether a retry without named classes tries these messages again.
    pub may_pass_later: bool,
    /// The latest of them.
    pub example: ExampleView,
}

impl From<Failures> for FailureView {
    fn from(f: Failures) -> Self {
        let known = reason::find(&f.class);
        Self {
            meaning: known.map_or("", |r| r.meaning),
            advice: known.map_or("", |r| r.advice),
            may_pass_later: reason::may_pass_later(&f.class),
            class: f.class,
            n: f.n,
            example: f.example.into(),
        }
    }
}

/// Why a broadcast stands still.
#[derive(Serialize, ToSchema)]
pub struct PausedView {
    /// `operator`, `canary`, `failures` or `refused`.
    kind: &'static str,
    /// In one sentence, with the numbers.
    reason: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// The commonest reason class of what failed.
    class: Option<String>,
    /// So many failed …
    failed: Option<i64>,
    /// … of so many that were looked at.
    outcomes: Option<i64>,
    advice: Option<&'static str>,
    example: Option<ExampleView>,
}

impl PausedView {
    pub fn of(b: &Broadcast) -> Option<Self> {
        let (pause, since) = b.pause.as_ref()?;
        let evidence = pause.evidence.clone();
        Some(Self {
            kind: pause.kind.as_str(),
            reason: b.reason.clone(),
            since: *since,
            class: evidence.as_ref().map(|e| e.class.clone()).filter(|c| !c.is_empty()),
            failed: evidence.as_ref().map(|e| e.failed),
            outcomes: evidence.as_ref().map(|e| e.outcomes),
            advice: pause.advice(),
            example: evidence.and_then(|e| e.example).map(Into::into),
        })
    }
}

/// A canary as it was asked for.
#[derive(Serialize, ToSchema)]
pub struct CanaryRuleView {
    first: Option<i64>,
    percent: Option<u8>,
    hold_above_percent: u8,
}

impl From<CanaryRule> for CanaryRuleView {
    fn from(rule: CanaryRule) -> Self {
        let (first, percent) = match rule.first {
            CanarySize::Count(n) => (Some(n), None),
            CanarySize::Percent(percent) => (None, Some(percent)),
        };
        Self {
            first,
            percent,
            hold_above_percent: rule.hold_above_percent,
        }
    }
}

/// Where a canary is.
#[derive(Serialize, ToSchema)]
pub struct CanaryView {
    /// `running`: the rest waits for its outcomes. `passed`: the rest follows. `held`: too many failed, and the rest waits for
    /// somebody. `released`: somebody let it follow. `over`: the broadcast ended before there was a rest.
    state: &'static str,
    /// Recipients that go first; `null` until the fan-out knows.
    size: Option<i64>,
    hold_above_percent: u8,
}

impl CanaryView {
    pub fn of(b: &Broadcast) -> Option<Self> {
        let ((state, size), rule) = b.canary.zip(b.safety.canary)?;
        Some(Self {
            state: state.as_str(),
            size,
            hold_above_percent: rule.hold_above_percent,
        })
    }
}
