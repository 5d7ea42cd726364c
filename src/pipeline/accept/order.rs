//! What a request wants sent, checked: everything beside the recipients. Never asks the store; what only the
//! store knows (whether a template exists) is checked by the caller.

use serde_json::{Map, Value};

use super::fields::{Fault, Fields, list, one_of, text, truth};
use super::files::attachments;
use super::head::Head;
use super::problem::{FieldProblem, member};
use super::safety::{auto_pause, canary};
use super::values::{TAGS_MAX, headers, mailbox, relay_name, shared_data, sized_object, subject, tag};
use crate::domain::broadcast::{OnUncertain, Priority};
use crate::domain::content::{Attachment, Content, Mailbox, SharedData};
use crate::domain::id::{ListId, TemplateId};
use crate::domain::safety::Safety;
use crate::domain::time::Timestamp;

/// Most bytes of `metadata`: it is kept beside the broadcast and shown with it.
pub const METADATA_BYTES_MAX: usize = 4 * 1024;
/// Most bytes of `data` shared by all messages: every worker holds it while the broadcast runs.
pub const SHARED_DATA_BYTES_MAX: usize = 64 * 1024;
/// Most lists of one broadcast.
pub const LISTS_MAX: usize = 50;
/// How far ahead a broadcast may be planned. What lies further is a slip of the pen.
pub const PLAN_DAYS_MAX: i64 = 366;

/// All fields of a request beside its recipients, in the order in which the documentation tells them.
pub const KNOWN: &str = "from, reply_to, subject, html, text, template_id, recipients, list_ids, all, data, headers, \
                         attachments, tags, metadata, send_at, expires_at, on_uncertain, priority, relay, canary, auto_pause, \
                         validation, dry_run";

/// Fields that are planned but would be ignored today: a request that relies on one must not be sent without it.
const NOT_YET: [&str; 2] = ["rate_limit", "track"];

/// Where the wording comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wording {
    Inline(Content),
    Template(TemplateId),
}

/// Who is meant, before anybody is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Recipients,
    Lists(Vec<ListId>),
    All,
}

/// A request's fields, each of them right.
#[derive(Debug)]
pub(super) struct Order {
    pub from: Mailbox,
    pub reply_to: Option<Mailbox>,
    pub wording: Wording,
    pub wanted: Wanted,
    pub data: SharedData,
    pub headers: Vec<(String, String)>,
    pub attachments: Vec<Attachment>,
    pub tags: Vec<String>,
    pub metadata: Map<String, Value>,
    pub send_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub on_uncertain: OnUncertain,
    pub priority: Priority,
    pub safety: Safety,
    pub relay: Option<String>,
    pub dry_run: bool,
}

impl Order {
    /// Checks every field. `has_recipients` tells whether recipients came with the request.
    ///
    /// # Errors
    /// All problems, in the order of the fields.
    pub fn check(head: Head, has_recipients: bool, now: Timestamp) -> Result<Self, Vec<FieldProblem>> {
        let mut f = Fields::new(head);
        let from = f.need("from", "give {\"email\": …, \"name\": …} or \"Name <address>\"", mailbox);
        let reply_to = f.take("reply_to", mailbox);
        let wording = wording(&mut f);
        let wanted = wanted(&mut f, has_recipients);
        let data = f.take("data", shared_data).unwrap_or_default();
        let headers = f.take("headers", headers).unwrap_or_default();
        let attachments = f.take("attachments", attachments).unwrap_or_default();
        let tags = f.take("tags", |v| list(v, TAGS_MAX, tag)).unwrap_or_default();
        let metadata = f
            .take("metadata", |v| sized_object(v, METADATA_BYTES_MAX))
            .unwrap_or_default();
        let (send_at, expires_at) = times(&mut f, now);
        let on_uncertain =
            f.take("on_uncertain", |v| one_of(v, &[("resend", OnUncertain::Resend), ("hold", OnUncertain::Hold)]));
        let priority = f.take("priority", |v| {
            one_of(
                v,
                &[
                    ("high", Priority::High),
                    ("normal", Priority::Normal),
                    ("bulk", Priority::Bulk),
                ],
            )
        });
        let safety = Safety {
            canary: f.take("canary", canary),
            auto_pause: f.take("auto_pause", auto_pause).flatten(),
        };
        let relay = f.take("relay", relay_name);
        // Whether one wrong recipient refuses the request is decided by `is_permissive`; here it is only checked.
        f.take("validation", |v| one_of(v, &[("strict", ()), ("permissive", ())]));
        let dry_run = f.take("dry_run", truth).unwrap_or_default();
        for name in NOT_YET {
            f.take(name, |_| {
                Err::<(), _>(Fault::new("not_supported", format!("{name} is not supported yet; leave it out")))
            });
        }
        let problems = f.finish(KNOWN);
        match (from, wording, wanted) {
            (Some(from), Some(wording), Some(wanted)) if problems.is_empty() => Ok(Self {
                from,
                reply_to,
                wording,
                wanted,
                data,
                headers,
                attachments,
                tags,
                metadata,
                send_at,
                expires_at,
                on_uncertain: on_uncertain.unwrap_or_default(),
                priority: priority.unwrap_or_default(),
                safety,
                relay,
                dry_run,
            }),
            _ => Err(problems),
        }
    }
}

/// Whether wrong recipients are only listed, and the others get their mail. Strict is the default: one wrong
/// recipient refuses the request.
pub(super) fn is_permissive(head: &Head) -> bool {
    head.get("validation").and_then(Value::as_str) == Some("permissive")
}

fn wording(f: &mut Fields) -> Option<Wording> {
    let inline = ["subject", "html", "text"]
        .into_iter()
        .filter(|name| f.has(name))
        .collect::<Vec<_>>();
    if f.has("template_id") {
        let id = f.take("template_id", |v| {
            text(v)?
                .parse::<TemplateId>()
                .map_err(|why| Fault::new("invalid_value", why))
        });
        for name in inline {
            f.take(name, |_| Ok(()));
            let detail = format!("template_id and {name} exclude each other; leave one out");
            f.problem(member("#", name), "conflict", detail);
        }
        return id.map(Wording::Template);
    }
    let subject = f.need("subject", "give a subject, or a template_id", subject);
    let html = f.take("html", text);
    let plain = f.take("text", text);
    if !inline.contains(&"html") && !inline.contains(&"text") {
        f.problem("#/html".to_owned(), "required", "there is no content; give html, text or a template_id");
        return None;
    }
    subject.map(|subject| {
        Wording::Inline(Content {
            subject,
            html,
            text: plain,
        })
    })
}

fn wanted(f: &mut Fields, has_recipients: bool) -> Option<Wanted> {
    let list_id = |v: &Value| {
        text(v)?
            .parse::<ListId>()
            .map_err(|why| Fault::new("invalid_value", why))
    };
    let lists_given = f.has("list_ids");
    let lists = f.take("list_ids", |v| list(v, LISTS_MAX, list_id));
    let all_given = f.has("all");
    let all = f.take("all", truth);
    let mut audiences = Vec::new();
    if has_recipients {
        audiences.push(("recipients", Some(Wanted::Recipients)));
    }
    if lists_given {
        audiences.push(("list_ids", lists.clone().map(Wanted::Lists)));
    }
    if all_given && all != Some(false) {
        audiences.push(("all", all.map(|_| Wanted::All)));
    }
    match audiences.len() {
        1 if lists.is_some_and(|ids| ids.is_empty()) => {
            f.problem("#/list_ids".to_owned(), "required", "list_ids is empty; name at least one list");
            None
        }
        1 => audiences.swap_remove(0).1,
        0 => {
            f.problem(
                "#/recipients".to_owned(),
                "required",
                "there is no audience; give recipients, list_ids or \"all\": true",
            );
            None
        }
        _ => {
            let names: Vec<&str> = audiences.iter().map(|(name, _)| *name).collect();
            let detail = format!("{} exclude each other; keep one", names.join(" and "));
            f.problem(member("#", names[1]), "conflict", detail);
            None
        }
    }
}

/// How long ago a planned start may lie: clocks differ, and requests wait in queues. What lies further back is a slip.
pub const PAST_MS_MAX: i64 = 3_600 * 1_000;

fn times(f: &mut Fields, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    let horizon = now.plus_ms(PLAN_DAYS_MAX * 24 * 3_600 * 1_000);
    let time = |v: &Value| Timestamp::parse(&text(v)?).map_err(|why| Fault::new("invalid_time", why));
    let send_at = f.take("send_at", |v| match time(v)? {
        at if at > horizon => {
            Err(Fault::new("invalid_time", format!("send_at lies more than {PLAN_DAYS_MAX} days ahead")))
        }
        at if at < now.plus_ms(-PAST_MS_MAX) => {
            let detail = format!("send_at ({at}) lies more than an hour in the past; leave it out to send now");
            Err(Fault::new("invalid_time", detail))
        }
        at => Ok(at),
    });
    let start = send_at.unwrap_or(now).max(now);
    let expires_at = f.take("expires_at", |v| match time(v)? {
        at if at <= start => {
            Err(Fault::new("invalid_time", format!("expires_at must lie after the start, which is {start}")))
        }
        at => Ok(at),
    });
    // A time that has passed is no plan: the broadcast starts at once.
    (send_at.filter(|at| *at > now), expires_at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    fn good() -> Value {
        json!({"from": "News <news@example.org>", "subject": "Hi", "text": "Hello"})
    }

    fn check(change: Value, has_recipients: bool) -> Result<Order, Vec<FieldProblem>> {
        let mut head = good();
        for (name, value) in change.as_object().unwrap() {
            head[name] = value.clone();
        }
        Order::check(head.as_object().unwrap().clone(), has_recipients, NOW)
    }

    fn problems(change: Value) -> Vec<(String, &'static str)> {
        let problems = check(change, true).unwrap_err();
        assert!(problems.iter().all(|p| p.detail.len() > 10), "{problems:?}");
        problems.into_iter().map(|p| (p.pointer, p.code)).collect()
    }

    #[test]
    fn a_plain_order_has_the_defaults() {
        let order = check(json!({}), true).unwrap();
        assert_eq!(order.from.name.as_deref(), Some("News"));
        assert_eq!(order.wanted, Wanted::Recipients);
        assert_eq!((order.on_uncertain, order.priority), (OnUncertain::Resend, Priority::Normal));
        assert!(!order.dry_run && order.send_at.is_none());
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        assert_eq!(
            problems(
                json!({"from": {"email": "x"}, "subject": null, "tags": ["a", ""], "sendat": 1, "relay": "a b", "track": {}})
            ),
            [
                ("#/from/email".to_owned(), "invalid_address"),
                ("#/subject".to_owned(), "required"),
                ("#/tags/1".to_owned(), "invalid_value"),
                ("#/relay".to_owned(), "invalid_value"),
                ("#/track".to_owned(), "not_supported"),
                ("#/sendat".to_owned(), "unknown_field"),
            ]
        );
    }

    #[test]
    fn there_is_exactly_one_audience() {
        assert_eq!(check(json!({"all": true}), false).unwrap().wanted, Wanted::All);
        assert_eq!(check(json!({"all": false}), true).unwrap().wanted, Wanted::Recipients);
        assert_eq!(problems(json!({"all": true})), [("#/all".to_owned(), "conflict")]);
        let nobody = check(json!({"all": false}), false).unwrap_err();
        assert_eq!((nobody[0].pointer.as_str(), nobody[0].code), ("#/recipients", "required"));
        let nobody = check(json!({"list_ids": []}), false).unwrap_err();
        assert_eq!((nobody[0].pointer.as_str(), nobody[0].code), ("#/list_ids", "required"));
    }

    #[test]
    fn the_end_lies_after_the_start() {
        let at = |ms| NOW.plus_ms(ms).to_string();
        assert!(check(json!({"send_at": at(5), "expires_at": at(6)}), true).is_ok());
        let bad = [("#/expires_at".to_owned(), "invalid_time")];
        assert_eq!(problems(json!({"send_at": at(5), "expires_at": at(5)})), bad);
        assert_eq!(problems(json!({"expires_at": at(0)})), bad);
        assert_eq!(problems(json!({"send_at": at(400 * 86_400_000)})), [("#/send_at".to_owned(), "invalid_time")]);
        assert_eq!(check(json!({"send_at": at(-60_000)}), true).unwrap().send_at, None);
        assert_eq!(check(json!({"send_at": at(-PAST_MS_MAX)}), true).unwrap().send_at, None);
        assert_eq!(problems(json!({"send_at": at(-PAST_MS_MAX - 1)})), [("#/send_at".to_owned(), "invalid_time")]);
    }

    #[test]
    fn a_template_and_own_content_exclude_each_other() {
        let id = TemplateId::new(NOW, 1).to_string();
        assert_eq!(
            problems(json!({"template_id": id})),
            [("#/subject".to_owned(), "conflict"), ("#/text".to_owned(), "conflict")]
        );
        assert_eq!(problems(json!({"text": null})), [("#/html".to_owned(), "required")]);
    }

    #[test]
    fn headers_come_as_an_object_or_a_list() {
        let order = check(json!({"headers": {"X-Team": "red"}}), true).unwrap();
        assert_eq!(order.headers, [("X-Team".to_owned(), "red".to_owned())]);
        let order = check(json!({"headers": [{"name": "X-Team", "value": "red"}]}), true).unwrap();
        assert_eq!(order.headers.len(), 1);
        assert_eq!(
            problems(json!({"headers": {"Bcc": "x@example.org"}})),
            [("#/headers/Bcc".to_owned(), "invalid_header")]
        );
        assert_eq!(
            problems(json!({"headers": {"X-A": "order {{ order }}"}})),
            [("#/headers/X-A".to_owned(), "invalid_header")]
        );
        assert_eq!(
            problems(json!({"headers": {"X-A": "a\r\nBcc: b"}})),
            [("#/headers/X-A".to_owned(), "invalid_header")]
        );
    }
}
