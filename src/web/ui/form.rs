//! What people typed into a form. Never trusted: every field is parsed where it is used.

use std::borrow::Cow;

use serde::Deserialize;

use crate::domain::address::EmailAddress;
use crate::domain::time::Timestamp;

/// The fields of a form or of a query, repeated ones too, in their order.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Vec<(String, String)>")]
pub struct Fields(Vec<(String, String)>);

impl From<Vec<(String, String)>> for Fields {
    /// A NUL, which nobody types and PostgreSQL cannot store, becomes what HTML makes of it (13.2.3.5).
    fn from(typed: Vec<(String, String)>) -> Self {
        let fields = typed.into_iter().map(|(name, value)| match value.contains('\0') {
            true => (name, value.replace('\0', "\u{fffd}")),
            false => (name, value),
        });
        Self(fields.collect())
    }
}

/// An address as the store knows it, however it was spelt; what is no address at least in lower case.
#[must_use]
pub fn normalised(typed: &str) -> String {
    EmailAddress::parse(typed).map_or_else(|_| typed.to_lowercase(), |address| address.normalised())
}

impl Fields {
    /// The first value of this name as it was typed; empty when there is none.
    #[must_use]
    pub fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// The same without the white space around it.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// The same; `None` when nothing was typed.
    #[must_use]
    pub fn filled(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|v| !v.is_empty())
    }

    /// All values of a name: ticked boxes.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.trim())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All fields but those of one name.
    #[must_use]
    pub fn without(&self, name: &str) -> Vec<(String, String)> {
        self.0.iter().filter(|(n, _)| n != name).cloned().collect()
    }

    /// The fields as a query string, with one more (which replaces those of its name).
    #[must_use]
    pub fn query_with(&self, name: &str, value: &str) -> String {
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(self.without(name))
            .append_pair(name, value)
            .finish()
    }
}

/// What is wrong with a form: the field's name and a sentence for the person who filled it in.
#[derive(Debug, Clone, Default)]
pub struct Problems(Vec<(Cow<'static, str>, String)>);

impl Problems {
    pub fn add(&mut self, field: impl Into<Cow<'static, str>>, sentence: impl Into<String>) {
        self.0.push((field.into(), sentence.into()));
    }

    /// The sentence for one field.
    #[must_use]
    pub fn of(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(f, _)| f == field)
            .map(|(_, sentence)| sentence.as_str())
    }

    /// Whether anything is wrong with a field whose name begins so.
    #[must_use]
    pub fn any_under(&self, prefix: &str) -> bool {
        self.0.iter().any(|(f, _)| f.starts_with(prefix))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value, or the reason why there is none, noted for the field.
    pub fn take<T>(&mut self, field: &'static str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|why| self.add(field, why)).ok()
    }
}

/// Reads a date and time in UTC, as a browser's field gives it (`2026-10-01T08:00`) or with an offset.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("Give a date and a time, such as 2026-10-01 08:00.".to_owned());
    }
    if let Ok(at) = Timestamp::parse(text) {
        return Ok(at);
    }
    text.replace(' ', "T")
        .parse::<jiff::civil::DateTime>()
        .and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC))
        .map(|t| Timestamp(t.timestamp().as_millisecond()))
        .map_err(|_| format!("'{text}' is not a date and time, such as 2026-10-01 08:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_fields_are_all_there() {
        let form = Fields(vec![
            ("a".into(), " 1 ".into()),
            ("b".into(), " ".into()),
            ("a".into(), "2".into()),
        ]);
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((form.raw("a"), form.text("a"), form.filled("b")), (" 1 ", "1", None));
        assert_eq!(form.query_with("b", "x&y"), "a=+1+&a=2&b=x%26y");
    }

    #[test]
    fn a_time_is_read_as_browsers_and_people_write_it() {
        let eight = Timestamp::parse("2026-10-01T08:00:00Z").unwrap();
        for text in [
            "2026-10-01T08:00",
            "2026-10-01 08:00",
            "2026-10-01T08:00:00Z",
            "2026-10-01T10:00:00+02:00",
        ] {
            assert_eq!(parse_time(text), Ok(eight), "{text}");
        }
        assert!(parse_time("tomorrow").is_err());
        assert!(parse_time(" ").unwrap_err().starts_with("Give a date"));
    }
}
