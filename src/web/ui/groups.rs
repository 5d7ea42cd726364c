//! What stood in the way of a broadcast, by reason: every message is counted. Where that takes long it is not done for each look, and
//! the page says of when the counts are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::error::UiError;
use crate::domain::broadcast::{Broadcast, BroadcastStatus};
use crate::domain::id::BroadcastId;
use crate::domain::message::MessageStatus;
use crate::domain::reason;
use crate::domain::time::Timestamp;
use crate::store::safety::{Failures, Stuck};
use crate::web::WebState;

/// Groups shown; more would no longer be an overview.
const GROUPS_MAX: usize = 8;
/// Counts are kept for so many times as long as the counting took: a page that refreshes itself every second costs the database a
/// twentieth of its time at most.
const KEPT_FACTOR: i64 = 20;
/// Broadcasts whose counts are kept.
const KEPT_MAX: usize = 100;

/// Messages that went wrong for the same reason.
pub struct ErrorGroup {
    pub status: &'static str,
    pub class: String,
    pub code: String,
    pub n: i64,
    /// What a relay said to one of them.
    pub example: String,
    pub message_id: String,
    /// What a person can do about it; only for what has failed.
    pub advice: &'static str,
}

/// All of them, the largest first.
#[derive(Default)]
pub struct Groups {
    pub rows: Vec<ErrorGroup>,
    /// Messages in groups that are not shown.
    pub others: i64,
    /// Of when the deferred and the uncertain ones are, when that is not now.
    pub as_of: Option<Timestamp>,
    /// Whether something has failed that may pass another time.
    pub can_retry: bool,
}

struct Kept {
    at: Timestamp,
    until: Timestamp,
    stuck: Vec<Stuck>,
}

/// What this process has counted.
#[derive(Default)]
pub struct Counted(Mutex<HashMap<BroadcastId, Kept>>);

impl Counted {
    pub async fn groups(&self, state: &WebState, b: &Broadcast) -> Result<Groups, UiError> {
        let mut rows: Vec<ErrorGroup> = Vec::new();
        let mut as_of = None;
        if b.counts.deferred + b.counts.uncertain > 0 {
            let (at, stuck) = self.stuck(state, &b.id).await?;
            as_of = at;
            rows.extend(stuck.into_iter().map(|s| group(s.status, s.of)));
        }
        if b.counts.failed > 0 {
            let failures = state.store.failures(&b.id).await?;
            rows.extend(failures.into_iter().map(|f| group(MessageStatus::Failed, f)));
        }
        rows.sort_by_key(|g| std::cmp::Reverse(g.n));
        let can_retry = can_retry(b, &rows);
        rows.truncate(GROUPS_MAX);
        let shown: i64 = rows.iter().map(|g| g.n).sum();
        let others = (b.counts.failed + b.counts.deferred + b.counts.uncertain - shown).max(0);
        Ok(Groups {
            // Counts that are of another time leave no rest to speak of.
            others: if as_of.is_some() || rows.len() < GROUPS_MAX {
                0
            } else {
                others
            },
            rows,
            as_of,
            can_retry,
        })
    }

    async fn stuck(&self, state: &WebState, id: &BroadcastId) -> Result<(Option<Timestamp>, Vec<Stuck>), UiError> {
        let begun = state.clock.now();
        if let Some(kept) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id)
            && begun < kept.until
        {
            return Ok((Some(kept.at), kept.stuck.clone()));
        }
        let stuck = state.store.stuck(id).await?;
        let now = state.clock.now();
        let kept = Kept {
            at: begun,
            until: now.plus_ms((now - begun) * KEPT_FACTOR),
            stuck: stuck.clone(),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT_MAX {
            all.clear();
        }
        all.insert(id.clone(), kept);
        Ok((None, stuck))
    }
}

fn can_retry(b: &Broadcast, groups: &[ErrorGroup]) -> bool {
    let is_over = matches!(b.status, BroadcastStatus::Canceled | BroadcastStatus::Failed);
    let may_pass = |g: &ErrorGroup| g.status == MessageStatus::Failed.as_str() && reason::may_pass_later(&g.class);
    !is_over && groups.iter().any(may_pass)
}

fn group(status: MessageStatus, f: Failures) -> ErrorGroup {
    let code = f.example.code.map(|c| c.to_string());
    let has_failed = status == MessageStatus::Failed;
    ErrorGroup {
        status: status.as_str(),
        advice: reason::find(&f.class).filter(|_| has_failed).map_or("", |r| r.advice),
        class: f.class,
        code: [code, f.example.enhanced]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" "),
        n: f.n,
        example: f.example.text,
        message_id: f.example.message_id,
    }
}
