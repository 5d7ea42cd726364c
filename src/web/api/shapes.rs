//! The JSON of what is read: one shape for each thing, the same wherever it stands. Never a database's row.

use serde::Serialize;
use utoipa::ToSchema;

use super::safety::{CanaryView, FailureView, PausedView};
use crate::domain::brake::Brake;
use crate::domain::broadcast::{Audience, Broadcast};
use crate::domain::counts::Counts;
use crate::domain::time::Timestamp;
use crate::pipeline::outlook::Outlook;
use crate::store::reports::{AttemptView, MessageView, Rate, Slice};
use crate::store::safety::Failures;

/// A page of a list. `next` is the value of `after` for the page behind it.
#[derive(Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    pub has_more: bool,
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A list that is short enough to be given whole.
    pub fn whole<R>(rows: Vec<R>, show: impl FnMut(R) -> T) -> Self {
        Self {
            data: rows.into_iter().map(show).collect(),
            has_more: false,
            next: None,
        }
    }

    pub fn of<R>(slice: Slice<R>, show: impl FnMut(R) -> T) -> Self {
        Self {
            data: slice.rows.into_iter().map(show).collect(),
            has_more: slice.next.is_some(),
            next: slice.next,
        }
    }
}

/// Messages by status. Their sum is the number of accepted recipients, each counted once.
#[derive(Serialize, ToSchema)]
pub struct CountsView {
    pub queued: i64,
    pub deferred: i64,
    pub sent: i64,
    pub failed: i64,
    pub suppressed: i64,
    pub uncertain: i64,
    pub canceled: i64,
    pub expired: i64,
}

impl From<Counts> for CountsView {
    fn from(c: Counts) -> Self {
        Self {
            queued: c.queued,
            deferred: c.deferred,
            sent: c.sent,
            failed: c.failed,
            suppressed: c.suppressed,
            uncertain: c.uncertain,
            canceled: c.canceled,
            expired: c.expired,
        }
    }
}

/// Whom a broadcast is for.
#[derive(Serialize, ToSchema)]
pub struct AudienceView {
    /// `recipients`, `lists` or `all`.
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_ids: Option<Vec<String>>,
}

impl From<&Audience> for AudienceView {
    fn from(audience: &Audience) -> Self {
        match audience {
            Audience::Inline { .. } => Self {
                kind: "recipients",
                list_ids: None,
            },
            Audience::Lists { list_ids } => Self {
                kind: "lists",
                list_ids: Some(list_ids.iter().map(ToString::to_string).collect()),
            },
            Audience::All => Self {
                kind: "all",
                list_ids: None,
            },
        }
    }
}

/// Where to go from a broadcast.
#[derive(Serialize, ToSchema)]
pub struct BroadcastLinks {
    #[serde(rename = "self")]
    pub this: String,
    pub messages: String,
    pub messages_csv: String,
}

impl BroadcastLinks {
    pub fn of(id: &str) -> Self {
        Self {
            this: format!("/v1/broadcasts/{id}"),
            messages: format!("/v1/broadcasts/{id}/messages"),
            messages_csv: format!("/v1/broadcasts/{id}/messages.csv"),
        }
    }
}

/// A broadcast.
#[derive(Serialize, ToSchema)]
#[schema(as = Broadcast)]
pub struct BroadcastView {
    pub id: String,
    /// `scheduled`, `accepted`, `fanning_out`, `sending`, `paused`, `completed`, `canceled` or `failed`.
    pub status: &'static str,
    /// Why it is paused or failed.
    pub reason: Option<String>,
    /// Why it stands still; `null` while it does not.
    pub paused: Option<PausedView>,
    /// `null` without one.
    pub canary: Option<CanaryView>,
    pub subject: String,
    /// The address it is from.
    pub from: String,
    pub audience: AudienceView,
    pub template_id: Option<String>,
    pub campaign_id: Option<String>,
    /// Recipients that came in. `received - rejected - duplicates` is the sum of `counts`.
    pub received: i64,
    pub rejected: i64,
    pub duplicates: i64,
    pub counts: CountsView,
    /// Messages flagged because a copy may have been accepted by a relay before.
    pub possible_duplicates: Option<i64>,
    /// Failed messages by reason, the commonest first.
    pub failures: Option<Vec<FailureView>>,
    /// Messages settled per second at present.
    pub rate_per_sec: Option<f64>,
    /// Seconds until the end: at the present rate, through the limits, quiet hours and suspensions that are known. `null` when
    /// nobody can say.
    pub eta_seconds: Option<i64>,
    /// The one limit that binds now; `null` while none is known, and when nothing is to be sent now.
    pub slowed_by: Option<SlowedByView>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub send_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// `resend` or `hold`.
    #[schema(value_type = String)]
    pub on_uncertain: &'static str,
    /// `high`, `normal` or `bulk`.
    pub priority: String,
    /// The relay that it names; `null` is any.
    pub relay: Option<String>,
    pub tags: Vec<String>,
    #[schema(value_type = Object)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    pub links: BroadcastLinks,
}

impl BroadcastView {
    pub fn new(b: Broadcast, rate: Option<Rate>, failures: Option<Vec<Failures>>, outlook: Outlook) -> Self {
        let per_sec = rate.map(|r| r.per_sec);
        Self {
            links: BroadcastLinks::of(b.id.as_str()),
            id: b.id.to_string(),
            status: b.status.as_str(),
            paused: PausedView::of(&b),
            canary: CanaryView::of(&b),
            reason: b.reason,
            subject: b.subject,
            from: b.from_email,
            audience: (&b.audience).into(),
            template_id: b.template_id,
            campaign_id: b.campaign_id,
            received: b.received.received,
            rejected: b.received.rejected,
            duplicates: b.received.duplicates,
            counts: b.counts.into(),
            failures: failures.map(|all| all.into_iter().map(Into::into).collect()),
            possible_duplicates: rate.map(|r| r.possible_duplicates),
            // One decimal: more would change with every look and spoil the ETag of a broadcast that stands still.
            rate_per_sec: per_sec.map(|r| (r * 10.0).round() / 10.0),
            eta_seconds: outlook.eta_ms.map(|ms| (ms as u64).div_ceil(1_000) as i64),
            slowed_by: outlook.slowed_by.map(Into::into),
            send_at: b.send_at,
            expires_at: b.expires_at,
            on_uncertain: b.on_uncertain.as_str(),
            priority: word(&b.priority),
            relay: b.relay,
            tags: b.tags,
            metadata: b.metadata,
            created_at: b.created_at,
            started_at: b.started_at,
            finished_at: b.finished_at,
        }
    }
}

/// What keeps a broadcast from going faster.
#[derive(Serialize, ToSchema)]
#[schema(as = SlowedBy)]
pub struct SlowedByView {
    /// `no_worker`, `no_relay`, `relay_paused`, `relay_failing`, `relay_suspended`, `quiet_hours`, `warm_up`, `day_limit`,
    /// `hour_limit`, `lane_suspended`, `lane_slowed`, `lane_limit`, `lane_connections`, `relay_slowed`, `second_limit`,
    /// `connections_busy` or `retries`.
    pub kind: &'static str,
    pub relay: Option<String>,
    /// The mailbox provider or the domain that it is about.
    pub lane: Option<String>,
    /// In words.
    pub reason: String,
    /// When it ends by itself; `null` when somebody has to act, and when it only slows down.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}

impl From<Brake> for SlowedByView {
    fn from(brake: Brake) -> Self {
        Self {
            kind: brake.kind.as_str(),
            relay: brake.relay,
            lane: brake.lane,
            reason: brake.reason,
            until: brake.until,
        }
    }
}

/// The word under which a unit variant is known in JSON.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("a unit variant serialises as its name, not as {other:?}"),
    }
}

/// What a relay said, or what happened instead.
#[derive(Serialize, ToSchema)]
pub struct Reply {
    pub code: Option<u16>,
    /// RFC 3463, such as `5.1.1`.
    pub enhanced: Option<String>,
    pub text: String,
    /// The reason class; empty when there is nothing to explain.
    pub class: String,
    pub relay: Option<String>,
}

/// One recipient's copy of a broadcast.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
pub struct Message {
    pub id: String,
    pub broadcast_id: String,
    pub email: String,
    pub name: Option<String>,
    /// `queued`, `deferred`, `sent`, `failed`, `suppressed`, `uncertain`, `canceled` or `expired`. `sent` means that the
    /// relay answered 2yz to the end of the data, no more.
    pub status: &'static str,
    pub attempts: i64,
    pub possible_duplicate: bool,
    /// `null` while there is none.
    pub last_reply: Option<Reply>,
    /// When the last outcome was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// When the next attempt is planned.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
}

impl From<MessageView> for Message {
    fn from(m: MessageView) -> Self {
        let (class, relay) = (m.class, m.relay);
        Self {
            id: m.id.to_string(),
            broadcast_id: m.broadcast_id.to_string(),
            email: m.email,
            name: m.name,
            status: m.status.as_str(),
            attempts: m.attempts,
            possible_duplicate: m.possible_duplicate,
            last_reply: m.reply.map(|r| Reply {
                code: r.code,
                enhanced: r.enhanced,
                text: r.text,
                class,
                relay,
            }),
            at: m.at,
            next_at: m.next_at,
        }
    }
}

/// One try to hand a message to a relay.
#[derive(Serialize, ToSchema)]
pub struct Attempt {
    /// From 1.
    pub n: i64,
    pub status: &'static str,
    pub reply: Reply,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

impl From<AttemptView> for Attempt {
    fn from(a: AttemptView) -> Self {
        let r = a.reply;
        Self {
            n: a.n,
            status: a.status.as_str(),
            reply: Reply {
                code: r.code,
                enhanced: r.enhanced,
                text: r.text,
                class: a.class,
                relay: a.relay,
            },
            at: a.at,
        }
    }
}

/// A message with all its attempts: here `attempts` are the attempts themselves, not their number.
#[derive(Serialize, ToSchema)]
pub struct MessageDetail {
    pub id: String,
    pub broadcast_id: String,
    pub email: String,
    pub name: Option<String>,
    pub status: &'static str,
    pub possible_duplicate: bool,
    pub last_reply: Option<Reply>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// First one first.
    pub attempts: Vec<Attempt>,
}

impl MessageDetail {
    pub fn new(message: MessageView, attempts: Vec<AttemptView>) -> Self {
        let m = Message::from(message);
        Self {
            id: m.id,
            broadcast_id: m.broadcast_id,
            email: m.email,
            name: m.name,
            status: m.status,
            possible_duplicate: m.possible_duplicate,
            last_reply: m.last_reply,
            at: m.at,
            next_at: m.next_at,
            attempts: attempts.into_iter().map(Attempt::from).collect(),
        }
    }
}
