//! What every page has round it: where we are, who is signed in, what was just done.

use crate::web::session::SignedIn;

/// The parts of the navigation, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Broadcasts,
    Campaigns,
    Templates,
    Contacts,
    Suppressions,
    Find,
    Relays,
    Workers,
    Mailbox,
    Send,
}

/// One entry of the navigation.
pub struct NavItem {
    pub url: &'static str,
    pub label: &'static str,
    pub is_here: bool,
}

/// A heading of the navigation and what stands under it.
pub struct NavGroup {
    pub label: &'static str,
    pub items: Vec<NavItem>,
}

/// Section, address, label.
type Entry = (Section, &'static str, &'static str);

const NAV: [(&str, &[Entry]); 3] = [
    (
        "Mail",
        &[
            (Section::Broadcasts, "/broadcasts", "Broadcasts"),
            (Section::Campaigns, "/campaigns", "Campaigns"),
            (Section::Templates, "/templates", "Templates"),
        ],
    ),
    (
        "People",
        &[
            (Section::Contacts, "/contacts", "Contacts"),
            (Section::Suppressions, "/suppressions", "Suppressions"),
            (Section::Find, "/find", "Find a person"),
        ],
    ),
    (
        "Machinery",
        &[
            (Section::Relays, "/relays", "Relays"),
            (Section::Workers, "/workers", "Workers and jobs"),
            (Section::Mailbox, "/mailbox", "Captured mail"),
        ],
    ),
];

/// The frame of a page. It is made of a [`SignedIn`], so that there is no page without a user.
pub struct Chrome {
    pub user: String,
    pub notice: Option<&'static str>,
    here: Section,
    has_mailbox: bool,
}

impl Chrome {
    #[must_use]
    pub fn new(signed: &SignedIn, here: Section) -> Self {
        Self {
            user: signed.user.email.clone(),
            notice: None,
            here,
            has_mailbox: signed.has_mailbox,
        }
    }

    /// Says what was just done. The address holds a name of ours and never the sentence, so that a
    /// link cannot put words in our mouth.
    #[must_use]
    pub fn noting(mut self, name: &str) -> Self {
        self.notice = notice(name);
        self
    }

    #[must_use]
    pub fn nav(&self) -> Vec<NavGroup> {
        NAV.iter()
            .map(|(label, items)| NavGroup {
                label,
                items: items
                    .iter()
                    .filter(|(section, ..)| self.has_mailbox || *section != Section::Mailbox)
                    .map(|&(section, url, label)| NavItem {
                        url,
                        label,
                        is_here: section == self.here,
                    })
                    .collect(),
            })
            .collect()
    }

    #[must_use]
    pub fn is_send(&self) -> bool {
        self.here == Section::Send
    }
}

fn notice(name: &str) -> Option<&'static str> {
    Some(match name {
        "accepted" => "Accepted and durable. You may close this page: the sending goes on.",
        "already" => "This was accepted before; nothing was sent twice.",
        "paused" => "Paused. What is on the wire now is finished and recorded; nothing more starts.",
        "resumed" => "Resumed.",
        "forgotten" => "Forgotten. What the relay takes is tried anew, with its next mail.",
        "retried" => "The failed messages are tried again now.",
        "none-to-retry" => {
            "There was nothing to try again: what failed would fail again, or is being worked on at this moment."
        }
        "canceled" => "Canceled. What was sent stays sent; everything else will not go out.",
        "saved" => "Saved.",
        "created" => "Created.",
        "deleted" => "Deleted.",
        "added" => "Added.",
        "removed" => "Removed.",
        "released" => "The job has another chance.",
        "no-message" => "This broadcast has no message to that address.",
        _ => return None,
    })
}
