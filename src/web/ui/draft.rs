//! What "send to all" and a campaign ask alike: which template, from whom, to whom. Never sends.

use super::error::UiError;
use super::form::{Fields, Problems};
use super::{format, progress};
use crate::domain::address::EmailAddress;
use crate::domain::broadcast::{Audience, OnUncertain, Priority};
use crate::domain::campaign::Draft;
use crate::domain::contact::List;
use crate::domain::content::Mailbox;
use crate::domain::id::{ListId, TemplateId};
use crate::domain::recipient::Recipient;
use crate::domain::relay::{Relay, check_name};
use crate::domain::safety::{AutoPause, CanaryRule, HOLD_ABOVE_PERCENT, Safety};
use crate::store::library::Template;
use crate::web::WebState;

/// The setting that holds the sender who was named last: the next form begins with it.
const SENDER_SETTING: &str = "ui_sender";

/// A list that may be ticked.
pub struct ListChoice {
    pub list: List,
    pub is_ticked: bool,
}

/// The fields as they stand in the form, and what may be chosen.
pub struct DraftForm {
    pub templates: Vec<Template>,
    pub lists: Vec<ListChoice>,
    /// Subscribed contacts in all.
    pub contacts: i64,
    pub template: String,
    pub from_name: String,
    pub from_email: String,
    pub reply_to: String,
    pub is_to_lists: bool,
    pub holds_uncertain: bool,
    /// How many go first: a number or a share such as `5%`; empty is no canary.
    pub canary: String,
    pub hold_above: String,
    /// The share of failures that pauses it, or `off`; empty is what is configured.
    pub pause_above: String,
    /// All relays; with one or none there is nothing to choose.
    pub relays: Vec<Relay>,
    pub relay: String,
    pub problems: Problems,
}

impl DraftForm {
    /// Whether what is folded in says something, or is wrong.
    #[must_use]
    pub fn shows_more(&self) -> bool {
        let said = [&self.reply_to, &self.canary, &self.pause_above, &self.relay];
        let judged = ["reply_to", "canary", "pause_above", "relay"];
        self.holds_uncertain
            || said.iter().any(|text| !text.is_empty())
            || judged.iter().any(|field| self.problems.of(field).is_some())
    }

    /// Whether a relay can be chosen: from several, or because one is named that is gone.
    #[must_use]
    pub fn has_relays(&self) -> bool {
        self.relays.len() > 1 || !self.relay.is_empty()
    }

    /// The form with what was typed so far; at first, with the sender of the last time.
    pub async fn load(state: &WebState, typed: &Fields, problems: Problems) -> Result<Self, UiError> {
        let sender = if typed.is_empty() {
            last_sender(state).await?
        } else {
            None
        };
        let ticked: Vec<&str> = typed.all("list").collect();
        let lists = state.store.lists().await?.into_iter();
        Ok(Self {
            templates: state.store.templates().await?,
            lists: lists
                .map(|list| ListChoice {
                    is_ticked: ticked.contains(&list.id.as_str()),
                    list,
                })
                .collect(),
            contacts: state.store.count_subscribed(None).await?,
            template: typed.text("template").to_owned(),
            from_name: match &sender {
                Some(s) => s.name.as_deref().unwrap_or_default().to_owned(),
                None => typed.text("from_name").to_owned(),
            },
            from_email: match &sender {
                Some(s) => s.email.to_string(),
                None => typed.text("from_email").to_owned(),
            },
            reply_to: typed.text("reply_to").to_owned(),
            is_to_lists: typed.text("audience") == "lists",
            holds_uncertain: typed.text("on_uncertain") == "hold",
            canary: typed.text("canary").to_owned(),
            hold_above: typed
                .filled("hold_above")
                .map_or_else(|| HOLD_ABOVE_PERCENT.to_string(), ToOwned::to_owned),
            pause_above: typed.text("pause_above").to_owned(),
            relays: state.store.relays().await?,
            relay: typed.text("relay").to_owned(),
            problems,
        })
    }
}

/// Who was named last as the sender.
pub async fn last_sender(state: &WebState) -> Result<Option<Mailbox>, UiError> {
    let stored = state.store.setting(SENDER_SETTING).await?;
    Ok(stored.and_then(|json| serde_json::from_str(&json).ok()))
}

/// Keeps the sender for the next form.
pub async fn remember_sender(state: &WebState, sender: &Mailbox) -> Result<(), UiError> {
    let json = serde_json::to_string(sender).expect("a mailbox always serialises");
    Ok(state.store.put_setting(SENDER_SETTING, &json).await?)
}

/// Reads the fields; what is wrong with them is added to `problems`, and then there is no draft.
pub fn parse(typed: &Fields, problems: &mut Problems) -> Option<Draft> {
    let template_id: Option<TemplateId> = problems.take(
        "template",
        typed
            .text("template")
            .parse()
            .map_err(|_| "Choose a template.".to_owned()),
    );
    let email = problems.take("from_email", EmailAddress::parse(typed.text("from_email")).map_err(sentence));
    let name = problems.take("from_name", Recipient::parse_name(typed.text("from_name")).map_err(sentence));
    let reply_to = match typed.filled("reply_to") {
        Some(text) => problems
            .take("reply_to", EmailAddress::parse(text).map_err(sentence))
            .map(Some),
        None => Some(None),
    };
    let audience = problems.take("audience", parse_audience(typed));
    let canary = problems.take("canary", parse_canary(typed));
    let auto_pause = match typed.filled("pause_above") {
        Some(text) => problems.take("pause_above", AutoPause::parse(text).map(Some)),
        None => Some(None),
    };
    let relay = match typed.filled("relay") {
        Some(name) => problems.take("relay", check_name(name).map(|()| Some(name.to_owned())).map_err(sentence)),
        None => Some(None),
    };
    Some(Draft {
        from: Mailbox {
            email: email?,
            name: name?,
        },
        reply_to: reply_to?,
        template_id: template_id?,
        audience: audience?,
        on_uncertain: if typed.text("on_uncertain") == "hold" {
            OnUncertain::Hold
        } else {
            OnUncertain::Resend
        },
        priority: Priority::Normal,
        relay: relay?,
        expires_after_secs: None,
        tags: Vec::new(),
        safety: Safety {
            canary: canary?,
            auto_pause: auto_pause?,
        },
    })
}

fn parse_canary(typed: &Fields) -> Result<Option<CanaryRule>, String> {
    let Some(first) = typed.filled("canary") else {
        return Ok(None);
    };
    let rule = CanaryRule::parse(first, typed.filled("hold_above"))?;
    Ok(Some(rule))
}

fn parse_audience(typed: &Fields) -> Result<Audience, String> {
    if typed.text("audience") != "lists" {
        return Ok(Audience::All);
    }
    let list_ids = typed
        .all("list")
        .map(str::parse::<ListId>)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| "One of the lists is unknown.".to_owned())?;
    if list_ids.is_empty() {
        return Err("Tick at least one list, or choose all contacts.".to_owned());
    }
    Ok(Audience::Lists { list_ids })
}

/// The relay that a draft names, if it is still there; otherwise that is noted.
pub async fn find_relay(state: &WebState, draft: &Draft, problems: &mut Problems) -> Result<Option<Relay>, UiError> {
    let Some(name) = &draft.relay else {
        return Ok(None);
    };
    let found = state.store.relay(name).await?;
    if found.is_none() {
        problems.add("relay", format!("There is no relay {name} any more. Choose another one."));
    }
    Ok(found)
}

/// Whom an audience is for, the lists by their names.
pub async fn named(state: &WebState, audience: &Audience) -> Result<String, UiError> {
    let Audience::Lists { list_ids } = audience else {
        return Ok(progress::audience(audience));
    };
    let lists = state.store.lists().await?;
    let names = list_ids.iter().map(|id| {
        let list = lists.iter().find(|list| list.id == *id);
        list.map_or("a list that is deleted", |list| list.name.as_str())
    });
    let word = if list_ids.len() == 1 { "list" } else { "lists" };
    Ok(format!("{word} {}", names.collect::<Vec<_>>().join(", ")))
}

/// How many subscribed contacts an audience has now, each counted once.
pub async fn count(state: &WebState, audience: &Audience) -> Result<i64, UiError> {
    let lists = match audience {
        Audience::Lists { list_ids } => Some(list_ids.as_slice()),
        Audience::All | Audience::Inline { .. } => None,
    };
    Ok(state.store.count_subscribed(lists).await?)
}

/// A reason as a sentence of its own.
fn sentence(why: String) -> String {
    format::sentence(&why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(query: &str) -> Fields {
        serde_json::from_value(serde_json::json!(
            url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect::<Vec<(String, String)>>()
        ))
        .unwrap()
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let mut problems = Problems::default();
        let draft = parse(&fields("from_email=bob&reply_to=x&audience=lists&template=nope"), &mut problems);
        assert!(draft.is_none());
        for field in ["template", "from_email", "reply_to", "audience"] {
            assert!(problems.of(field).is_some(), "{field}");
        }
        assert_eq!(problems.of("from_email"), Some("No @ in 'bob'."));
    }

    #[test]
    fn a_complete_form_is_a_draft() {
        let template = TemplateId::new(crate::domain::time::Timestamp(1), 1);
        let mut problems = Problems::default();
        let typed = fields(&format!("from_email=news@example.org&from_name=The+Post&audience=all&template={template}"));
        let draft = parse(&typed, &mut problems).expect("nothing is wrong");
        assert!(problems.is_empty());
        assert_eq!((draft.audience, draft.template_id), (Audience::All, template));
    }
}
