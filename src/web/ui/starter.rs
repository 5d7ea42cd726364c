//! A starter mail as the beginning of a template of one's own: with its sample texts written out, to be changed,
//! and only what differs from person to person left open. So it can be sent to contacts who have an address and
//! nothing else.

use crate::domain::address::EmailAddress;
use crate::domain::content::Content;
use crate::domain::id::BroadcastId;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::template::{Context, Newsletter, Shared, Starter, TemplateError};

/// What stands for a person's own values while the samples are written in, and is exchanged for their tags then.
const NAME: &str = "PersonsNameGoesHere";
const EMAIL: &str = "address-goes-here@example.invalid";
const UNSUBSCRIBE: &str = "https://example.invalid/unsubscribe-goes-here";

/// The starter with its sample texts. The plain text is left to be made from the HTML, so that nothing has to be
/// changed twice.
///
/// # Panics
/// When a starter cannot be rendered with its own sample, which the tests rule out.
#[must_use]
pub fn filled(starter: &Starter) -> Content {
    let source = starter.content();
    let greeting = tag(source.html.as_deref().unwrap_or_default(), "name");
    let open = |text: &str| {
        text.replace(NAME, &greeting)
            .replace(EMAIL, "{{ email }}")
            .replace(UNSUBSCRIBE, "{{ unsubscribe_url }}")
    };
    let rendered = render(starter).expect("a starter fits its own sample");
    Content {
        subject: open(&rendered.subject),
        html: rendered.html.as_deref().map(open),
        text: None,
    }
}

fn render(starter: &Starter) -> Result<crate::template::Rendered, TemplateError> {
    let recipient = Recipient {
        email: EmailAddress::from_stored(EMAIL.to_owned()),
        name: Some(NAME.into()),
        data: None,
    };
    let shared = Shared::new(&BroadcastId::new(Timestamp(0), 0), &starter.sample_data().into());
    Newsletter::compile(&starter.content())?.render(&Context::new(&shared, &recipient, UNSUBSCRIBE)?)
}

/// The first tag of a source that begins with this name, with what stands in for a missing value.
fn tag(source: &str, name: &str) -> String {
    let found = source
        .split("{{")
        .skip(1)
        .filter_map(|rest| rest.split_once("}}"))
        .find(|(inner, _)| inner.trim().starts_with(name));
    found.map_or_else(|| format!("{{{{ {name}|default('') }}}}"), |(inner, _)| format!("{{{{{inner}}}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::STARTERS;

    #[test]
    fn a_filled_starter_can_be_sent_to_an_address_alone() {
        for starter in &STARTERS {
            let content = filled(starter);
            let newsletter = Newsletter::compile(&content).expect(starter.name);
            assert!(newsletter.variables().iter().all(|v| v == "name"), "{:?}", newsletter.variables());
            let recipient = Recipient {
                email: EmailAddress::parse("anna@example.org").unwrap(),
                name: None,
                data: None,
            };
            let shared =
                Shared::new(&BroadcastId::new(Timestamp(0), 0), &crate::domain::content::SharedData::default());
            let context = Context::new(&shared, &recipient, "https://example.org/u/x").unwrap();
            let mail = newsletter.render(&context).expect(starter.name);
            let html = mail.html.unwrap();
            assert!(html.contains("https://example.org/u/x") && mail.text.contains("https://example.org/u/x"));
            assert!(html.contains("anna@example.org") && !html.contains("example.invalid") && !html.contains(NAME));
        }
    }
}
