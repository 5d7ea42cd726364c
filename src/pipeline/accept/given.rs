//! Recipients as people give them: an object, a plain address, or a row of a table. Each one is checked by
//! itself, so that one bad recipient never hides the next.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::exact::{self, Numbers};
use super::fields::Fault;
use super::problem::{FieldProblem, QUOTED_BYTES_MAX, member, quoted};
use crate::domain::address::EmailAddress;
use crate::domain::message::clip;
use crate::domain::recipient::{DATA_BYTES_MAX, Recipient};

/// Most bytes of one recipient as given: its data, and some room for the rest.
pub const RECIPIENT_BYTES_MAX: usize = DATA_BYTES_MAX + 4 * 1024;
/// Deepest nesting of a recipient's data: templates reach two or three levels, parsers recurse.
pub const DATA_DEPTH_MAX: usize = 32;

const KNOWN: &str = "use email, name and data; what a template needs goes into data";

/// Where a recipient stands in the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The array it stands in, `recipients` or `contacts`.
    pub array: &'static str,
    /// From 0.
    pub index: i64,
    pub line: Option<u64>,
}

impl Place {
    pub fn problem(&self, field: &str, code: &'static str, detail: impl Into<String>) -> FieldProblem {
        let whole = format!("#/{}/{}", self.array, self.index);
        let pointer = if field.is_empty() { whole } else { member(&whole, field) };
        FieldProblem::new(pointer, code, detail).on_line(self.line)
    }

    /// What is wrong with the value of a field, or somewhere below it.
    pub fn fault(&self, field: &str, fault: Fault) -> FieldProblem {
        let whole = format!("#/{}/{}", self.array, self.index);
        fault.below_at(&member(&whole, field)).on_line(self.line)
    }

    pub fn reject(&self, problem: FieldProblem) -> Rejection {
        Rejection {
            index: self.index,
            email: None,
            problems: vec![problem],
        }
    }
}

/// A recipient that cannot be mailed, and why.
#[derive(Debug, Clone)]
pub struct Rejection {
    pub index: i64,
    /// The address as given, shortened.
    pub email: Option<String>,
    /// At least one.
    pub problems: Vec<FieldProblem>,
}

/// Reads one recipient from JSON text.
pub(super) fn from_json(text: &str, place: Place) -> Result<Recipient, Rejection> {
    if text.len() > RECIPIENT_BYTES_MAX {
        let detail = format!("the recipient has {} bytes; {RECIPIENT_BYTES_MAX} is the most", text.len());
        return Err(place.reject(place.problem("", "too_long", detail)));
    }
    match text.trim_start().as_bytes().first() {
        Some(b'{') => match serde_json::from_str::<Members>(text) {
            Ok(members) => from_members(&members, place),
            Err(e) => Err(place.reject(place.problem("", "invalid_json", json_words(&e)))),
        },
        Some(b'"') => match serde_json::from_str::<String>(text) {
            Ok(email) => Given {
                email: Some(email.into()),
                ..Given::default()
            }
            .check(place),
            Err(e) => Err(place.reject(place.problem("", "invalid_json", exact::in_words(&e)))),
        },
        _ => {
            let detail =
                "a recipient is an object such as {\"email\": \"anna@example.org\", \"name\": \"Anna\", \"data\": {}}";
            Err(place.reject(place.problem("", "wrong_type", detail)))
        }
    }
}

/// A parser's words without its own line and column, which count inside one recipient.
pub(super) fn json_words(e: &serde_json::Error) -> String {
    let words = e.to_string();
    let bare = words.split(" at line ").next().unwrap_or(&words);
    format!("this is not valid JSON: {bare} (column {})", e.column())
}

fn from_members(members: &Members, place: Place) -> Result<Recipient, Rejection> {
    let mut given = Given::default();
    for (name, value) in &members.0 {
        let is_null = value.get() == "null";
        let seen = match name.as_ref() {
            "email" => given.email.is_some(),
            "name" => given.name.is_some(),
            "data" | "variables" | "dynamic_template_data" => given.data.is_some(),
            other => {
                let detail = format!("a recipient has no field {}; {KNOWN}", quoted(other));
                given.problems.push(place.problem(other, "unknown_field", detail));
                continue;
            }
        };
        if seen {
            given
                .problems
                .push(place.problem(name, "duplicate_field", "the field stands here twice; keep one"));
            continue;
        }
        match name.as_ref() {
            _ if is_null => {}
            "email" | "name" => match serde_json::from_str::<Text>(value.get()) {
                Ok(text) if name == "email" => given.email = Some(text.0),
                Ok(text) => given.name = Some(text.0),
                Err(e) if value.get().starts_with('"') => {
                    given
                        .problems
                        .push(place.problem(name, "invalid_json", exact::in_words(&e)));
                }
                Err(_) => given
                    .problems
                    .push(place.problem(name, "wrong_type", format!("{name} must be a string"))),
            },
            _ => match check_data(value.get()) {
                Ok(()) => match exact::check(value.get(), Numbers::AsWritten) {
                    Ok(()) => given.data = Some((*value).to_owned()),
                    Err(fault) => given.problems.push(place.fault(name, fault)),
                },
                Err((code, detail)) => given.problems.push(place.problem(name, code, detail)),
            },
        }
    }
    given.check(place)
}

/// Checks a recipient's data: a JSON object, not too large, not too deep. `text` is valid JSON.
fn check_data(text: &str) -> Result<(), (&'static str, String)> {
    if !text.starts_with('{') {
        return Err(("wrong_type", "data must be an object such as {\"first_name\": \"Anna\"}".to_owned()));
    }
    if text.len() > DATA_BYTES_MAX {
        return Err(("too_long", format!("data has {} bytes; {DATA_BYTES_MAX} is the most", text.len())));
    }
    if depth(text) > DATA_DEPTH_MAX {
        return Err(("too_deep", format!("data is nested deeper than {DATA_DEPTH_MAX} levels")));
    }
    Ok(())
}

/// How deep brackets nest in valid JSON.
pub(super) fn depth(text: &str) -> usize {
    let (mut now, mut most) = (0usize, 0usize);
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'{' | b'[' => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            b'"' => {
                while let Some(b) = bytes.next() {
                    match b {
                        b'\\' => {
                            bytes.next();
                        }
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    most
}

/// A recipient before its texts are judged.
#[derive(Default)]
pub(super) struct Given<'a> {
    pub email: Option<Cow<'a, str>>,
    pub name: Option<Cow<'a, str>>,
    pub data: Option<Box<RawValue>>,
    pub problems: Vec<FieldProblem>,
}

impl Given<'_> {
    pub fn check(self, place: Place) -> Result<Recipient, Rejection> {
        let mut problems = self.problems;
        let email = match &self.email {
            None if problems.iter().any(|p| p.pointer.ends_with("/email")) => None,
            None => {
                problems.push(place.problem("email", "required", "the email is missing"));
                None
            }
            Some(text) => EmailAddress::parse(text)
                .map_err(|why| problems.push(place.problem("email", "invalid_address", why)))
                .ok(),
        };
        let name = match Recipient::parse_name(self.name.as_deref().unwrap_or("")) {
            Ok(name) => name,
            Err(why) => {
                problems.push(place.problem("name", "invalid_name", why));
                None
            }
        };
        match email {
            Some(email) if problems.is_empty() => Ok(Recipient {
                email,
                name,
                data: self.data,
            }),
            _ => {
                let email = self.email.map(|text| clip(&text, QUOTED_BYTES_MAX));
                Err(Rejection {
                    index: place.index,
                    email,
                    problems,
                })
            }
        }
    }
}

/// The members of one JSON object, in order, unread.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(3);
                while let Some((Text(name), value)) = map.next_entry::<Text, &RawValue>()? {
                    if members.len() > MEMBERS_MAX {
                        return Err(de::Error::custom(format_args!("more than {MEMBERS_MAX} fields; {KNOWN}")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        d.deserialize_map(Seen)
    }
}

/// Fields that are looked at in one recipient; there are three of them.
const MEMBERS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        array: "recipients",
        index: 12,
        line: None,
    };

    fn problems(text: &str) -> Vec<(String, &'static str)> {
        let rejection = from_json(text, PLACE).expect_err(text);
        rejection.problems.into_iter().map(|p| (p.pointer, p.code)).collect()
    }

    #[test]
    fn an_object_and_a_plain_address_are_recipients() {
        let r = from_json(r#" {"name":" Anna ","data":{"n":[1,"}"]},"email":"anna@Example.org"}"#, PLACE).unwrap();
        assert_eq!((r.email.as_str(), r.name.as_deref()), ("anna@example.org", Some("Anna")));
        assert_eq!(r.data.unwrap().get(), r#"{"n":[1,"}"]}"#);
        assert_eq!(from_json("\"bob@example.org\"", PLACE).unwrap().email.as_str(), "bob@example.org");
        let r = from_json(r#"{"email":"a@example.org","name":null,"variables":{"a":1}}"#, PLACE).unwrap();
        assert!(r.name.is_none() && r.data.is_some());
    }

    #[test]
    fn every_wrong_field_of_a_recipient_is_pointed_at() {
        assert_eq!(
            problems(r#"{"email":"bob","name":"a\nb","data":[1],"phone":"1"}"#),
            [
                ("#/recipients/12/data".to_owned(), "wrong_type"),
                ("#/recipients/12/phone".to_owned(), "unknown_field"),
                ("#/recipients/12/email".to_owned(), "invalid_address"),
                ("#/recipients/12/name".to_owned(), "invalid_name"),
            ]
        );
        assert_eq!(problems("{}"), [("#/recipients/12/email".to_owned(), "required")]);
        assert_eq!(problems(r#"{"email":7}"#), [("#/recipients/12/email".to_owned(), "wrong_type")]);
        assert_eq!(problems("7"), [("#/recipients/12".to_owned(), "wrong_type")]);
        assert_eq!(
            problems(r#"{"email":"a@example.org","email":"b@example.org"}"#),
            [("#/recipients/12/email".to_owned(), "duplicate_field")]
        );
    }

    #[test]
    fn data_that_is_too_large_or_too_deep_is_refused() {
        let large = format!(r#"{{"email":"a@example.org","data":{{"x":"{}"}}}}"#, "y".repeat(DATA_BYTES_MAX));
        assert_eq!(problems(&large), [("#/recipients/12/data".to_owned(), "too_long")]);
        let deep = format!(r#"{{"email":"a@example.org","data":{{"x":{}{}}}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(problems(&deep), [("#/recipients/12/data".to_owned(), "too_deep")]);
        assert_eq!(depth(r#"{"a":"[[[\"[["}"#), 1);
    }

    #[test]
    fn a_rejection_shows_the_address_as_it_was_given() {
        let rejection = from_json(r#"{"email":"bob at example.org"}"#, PLACE).unwrap_err();
        assert_eq!(rejection.email.as_deref(), Some("bob at example.org"));
    }
}
