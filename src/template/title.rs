//! A subject as the title of a whole broadcast, of which each message has a subject of its own.

use super::{Context, Newsletter, Shared, TemplateError};
use crate::domain::address::EmailAddress;
use crate::domain::content::{Content, SharedData};
use crate::domain::id::BroadcastId;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;

/// The subject as somebody without a name or data would read it; where that is none, with each value as its name in brackets; and where
/// that is none either, as it was written.
#[must_use]
pub fn title(source: &str) -> String {
    if !["{{", "{%", "{#"].iter().any(|tag| source.contains(tag)) {
        return source.to_owned();
    }
    let Ok(newsletter) = newsletter(source) else {
        return source.to_owned();
    };
    let nobody = Recipient {
        email: EmailAddress::from_stored("anna@example.org".to_owned()),
        name: None,
        data: None,
    };
    let with = |data| -> Result<String, TemplateError> {
        let shared = Shared::new(&BroadcastId::new(Timestamp(0), 0), &data);
        let context = Context::new(&shared, &nobody, "https://example.org/unsubscribe")?;
        Ok(newsletter.render(&context)?.subject)
    };
    with(SharedData::default())
        .or_else(|_| with(newsletter.sample_data().into()))
        .ok()
        .filter(|subject| !subject.trim().is_empty())
        .unwrap_or_else(|| source.to_owned())
}

fn newsletter(subject: &str) -> Result<Newsletter, TemplateError> {
    Newsletter::compile(&Content {
        subject: subject.to_owned(),
        html: None,
        text: Some("-".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_what_somebody_reads() {
        for (source, shown) in [
            ("October", "October"),
            (r#"A few words for you, {{ name|default("friend") }}"#, "A few words for you, friend"),
            ("{% if city %}News from {{ city }}{% else %}News{% endif %}", "News"),
            ("News from {{ city }}", "News from [city]"),
            ("Dear {{ name }}", "Dear [name]"),
            ("{{ name", "{{ name"),
            ("{# nothing #}", "{# nothing #}"),
        ] {
            assert_eq!(title(source), shown, "{source}");
        }
    }
}
