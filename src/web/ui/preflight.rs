//! A look ahead before the button is pressed: the first recipients' mails are rendered, and thrown away.
//! Never a promise for the others; it is there to catch what would go wrong for everybody.

use std::sync::Arc;

use super::error::UiError;
use crate::domain::address::EmailAddress;
use crate::domain::broadcast::Audience;
use crate::domain::contact::{Contact, ContactStatus};
use crate::domain::content::Content;
use crate::domain::id::BroadcastId;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::template::{Context, Newsletter, Shared};
use crate::web::WebState;

/// Contacts looked at, of each list: rendering them takes a few milliseconds.
const CONTACTS_MAX: i64 = 100;

/// What the look ahead found.
#[derive(Debug, Default)]
pub struct Preflight {
    pub n_looked_at: i64,
    /// Recipients whose mail could not be rendered: they would get nothing.
    pub n_failed: i64,
    /// What is wrong for the first of them.
    pub problem: Option<String>,
}

impl Preflight {
    pub async fn run(state: &WebState, audience: &Audience, content: &Content) -> Result<Self, UiError> {
        let mut found = Self::default();
        let newsletter = match Newsletter::compile(content) {
            Ok(newsletter) => newsletter,
            Err(e) => {
                return Ok(Self {
                    problem: Some(e.to_string()),
                    ..found
                });
            }
        };
        let shared = Shared::new(&BroadcastId::new(Timestamp(0), 0), &crate::domain::content::SharedData::default());
        for contact in first_contacts(state, audience).await? {
            found.n_looked_at += 1;
            if let Err(problem) = rendered(&newsletter, &shared, contact) {
                found.n_failed += 1;
                found.problem.get_or_insert(problem);
            }
        }
        Ok(found)
    }

    /// Whether everything looked at was right.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.problem.is_none()
    }
}

async fn first_contacts(state: &WebState, audience: &Audience) -> Result<Vec<Contact>, UiError> {
    let mut contacts = Vec::new();
    match audience {
        Audience::Lists { list_ids } => {
            for id in list_ids {
                contacts.extend(state.store.contacts(Some(id), None, CONTACTS_MAX).await?.rows);
            }
        }
        Audience::All | Audience::Inline { .. } => {
            contacts = state.store.contacts(None, None, CONTACTS_MAX).await?.rows;
        }
    }
    contacts.retain(|c| c.status == ContactStatus::Subscribed);
    Ok(contacts)
}

fn rendered(newsletter: &Newsletter, shared: &Arc<Shared>, contact: Contact) -> Result<(), String> {
    let recipient = Recipient {
        email: EmailAddress::from_stored(contact.email),
        name: contact.name.map(String::into_boxed_str),
        data: Some(contact.data),
    };
    Context::new(shared, &recipient, "https://example.org/u/x")
        .and_then(|context| newsletter.render(&context))
        .map(|_| ())
        .map_err(|e| e.to_string())
}
