//! A starter mail as the beginning of a template of one's own: its texts stand at the top, to be changed,
//! so that it can be sent to contacts who have an address and nothing else.

use serde_json::Value;

use crate::domain::address::EmailAddress;
use crate::domain::content::Content;
use crate::domain::id::BroadcastId;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::template::{Context, Newsletter, Shared, Starter};

/// The starter with its sample texts written into it. The plain text is left to be made from the HTML, so
/// that nothing has to be changed twice.
#[must_use]
pub fn filled(starter: &Starter) -> Content {
    let (content, sample) = (starter.content(), starter.sample_data());
    let lines: String = sample.iter().map(|(name, value)| set_line(name, value)).collect();
    let names_sample = sample
        .keys()
        .any(|name| content.subject.contains(&format!("{{{{ {name}")));
    let subject = match names_sample {
        true => rendered_subject(starter).unwrap_or_else(|| content.subject.clone()),
        false => content.subject,
    };
    Content {
        subject,
        html: content.html.map(|html| format!("{lines}{html}")),
        text: None,
    }
}

/// `{% set headline = "…" %}`: JSON is written the same in a template, but for `null`, which no sample holds.
fn set_line(name: &str, value: &Value) -> String {
    match value {
        // A list has a line for each entry, to be read and changed.
        Value::Array(entries) => {
            let entries: Vec<String> = entries.iter().map(|e| format!("  {e}")).collect();
            format!("{{% set {name} = [\n{}\n] %}}\n", entries.join(",\n"))
        }
        value => format!("{{% set {name} = {value} %}}\n"),
    }
}

fn rendered_subject(starter: &Starter) -> Option<String> {
    let recipient = Recipient {
        email: EmailAddress::from_stored("anna@example.org".to_owned()),
        name: None,
        data: None,
    };
    let shared = Shared::new(&BroadcastId::new(Timestamp(0), 0), &starter.sample_data());
    let context = Context::new(&shared, &recipient, "https://example.org/u/x").ok()?;
    let rendered = Newsletter::compile(&starter.content()).ok()?.render(&context).ok()?;
    Some(rendered.subject)
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
            let recipient = Recipient {
                email: EmailAddress::parse("anna@example.org").unwrap(),
                name: None,
                data: None,
            };
            let shared = Shared::new(&BroadcastId::new(Timestamp(0), 0), &serde_json::Map::new());
            let context = Context::new(&shared, &recipient, "https://example.org/u/x").unwrap();
            let mail = newsletter.render(&context).expect(starter.name);
            assert!(mail.html.unwrap().contains("https://example.org/u/x"), "{}", starter.name);
            assert!(mail.text.contains("https://example.org/u/x"), "{}", starter.name);
        }
    }
}
