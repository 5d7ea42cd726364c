//! The last page before anything is sent: to whom, from whom, through which relay, and what a look ahead finds. "Send to all" and a
//! campaign's "Run now" both go through it. Never sends.

use askama::Template;
use askama_web::WebTemplate;

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::preflight::{Preflight, Preflights};
use super::{draft, format};
use crate::domain::campaign::Draft;
use crate::domain::relay::Relay;
use crate::domain::time::Timestamp;
use crate::pipeline::outlet::Outlet;
use crate::store::library::Template as Stored;
use crate::template;
use crate::web::WebState;
use crate::web::session::SignedIn;

#[derive(Template, WebTemplate)]
#[template(path = "send_confirm.html")]
pub struct ConfirmPage {
    chrome: Chrome,
    recipients: i64,
    audience: String,
    template_name: String,
    /// As somebody without a name would read it, and as it was written.
    subject: String,
    source: String,
    draft: Draft,
    send_at: Option<Timestamp>,
    /// Why the relay that is chosen stands still.
    relay_paused: Option<String>,
    /// Where mail goes, when no relay is chosen.
    outlet: String,
    preflight: Preflight,
    way: Way,
}

/// Where the page leads.
pub struct Way {
    /// Of the confirmation: one press, one broadcast.
    pub key: String,
    /// Where the press goes, with these fields beside the key.
    pub action: String,
    pub fields: Vec<(String, String)>,
    /// Where the rest of the look ahead is.
    pub live: String,
    /// The page before, and what it is called.
    pub back: String,
    pub back_label: String,
}

/// What is to be confirmed.
pub struct Asked {
    pub section: Section,
    pub draft: Draft,
    pub template: Stored,
    pub send_at: Option<Timestamp>,
    pub recipients: i64,
    pub relay: Option<Relay>,
    pub way: Way,
}

pub async fn page(
    signed: &SignedIn,
    state: &WebState,
    preflights: &Preflights,
    asked: Asked,
) -> Result<ConfirmPage, UiError> {
    let content = asked.template.content;
    Ok(ConfirmPage {
        chrome: Chrome::new(signed, asked.section),
        recipients: asked.recipients,
        audience: draft::named(state, &asked.draft.audience).await?,
        template_name: asked.template.name,
        subject: template::title(&content.subject),
        source: content.subject.clone(),
        preflight: preflights.look(state, &asked.way.key, &asked.draft, content).await,
        outlet: Outlet::read(&*state.store).await?.sentence(),
        relay_paused: asked.relay.and_then(|relay| relay.paused),
        draft: asked.draft,
        send_at: asked.send_at,
        way: asked.way,
    })
}
