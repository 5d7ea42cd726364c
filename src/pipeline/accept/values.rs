//! The values of a request's fields, each by itself: mailboxes, tags, headers. Never knows what stands in the other fields.

use serde_json::{Map, Value};

use super::fields::{Fault, list, object, text};
use super::order::SHARED_DATA_BYTES_MAX;
use super::problem::{FieldProblem, quoted};
use super::wording::check_subject;
use crate::domain::address::EmailAddress;
use crate::domain::content::{HEADERS_MAX, Mailbox, SharedData};
use crate::domain::recipient::Recipient;
use crate::domain::relay::check_name;
use crate::mime::check_header;

/// Most tags of a broadcast, and most characters of one.
pub const TAGS_MAX: usize = 10;
pub const TAG_CHARS_MAX: usize = 64;
/// Reads a mailbox that stands in the field `name`: an object or a string.
///
/// # Errors
/// What is wrong with it.
pub fn read_mailbox(name: &str, value: &Value) -> Result<Mailbox, FieldProblem> {
    mailbox(value).map_err(|fault| fault.at(name))
}

/// Checks the tags of a broadcast or campaign.
///
/// # Errors
/// Points at the first that is wrong.
pub fn check_tags(tags: &[String]) -> Result<(), FieldProblem> {
    let value = Value::from(tags);
    list(&value, TAGS_MAX, tag)
        .map(|_| ())
        .map_err(|fault| fault.at("tags"))
}

pub(super) fn mailbox(value: &Value) -> Result<Mailbox, Fault> {
    if let Some(text) = value.as_str() {
        return parse_mailbox(text);
    }
    let Some(map) = value.as_object() else {
        return Err(Fault::wrong_type(
            "this must be an object with email and name, or a string such as \"Anna <anna@example.org>\"",
        ));
    };
    if let Some(other) = map.keys().find(|k| !["email", "name"].contains(&k.as_str())) {
        let detail = format!("a mailbox has no field {}; use email and name", quoted(other));
        return Err(Fault::new("unknown_field", detail).below(other));
    }
    let string = |name: &str| match map.get(name).filter(|v| !v.is_null()) {
        None => Ok(None),
        Some(v) => text(v).map(Some).map_err(|fault| fault.below(name)),
    };
    let email = string("email")?.ok_or_else(|| Fault::new("required", "the email is missing").below("email"))?;
    let email = EmailAddress::parse(&email).map_err(|why| Fault::new("invalid_address", why).below("email"))?;
    let name = Recipient::parse_name(&string("name")?.unwrap_or_default())
        .map_err(|why| Fault::new("invalid_name", why).below("name"))?;
    Ok(Mailbox { email, name })
}

/// `anna@example.org` or `Anna <anna@example.org>`.
fn parse_mailbox(text: &str) -> Result<Mailbox, Fault> {
    let (name, email) = match text.trim().strip_suffix('>').and_then(|t| t.rsplit_once('<')) {
        Some((name, email)) => (name.trim().trim_matches('"'), email),
        None => ("", text),
    };
    let email = EmailAddress::parse(email).map_err(|why| Fault::new("invalid_address", why))?;
    let name = Recipient::parse_name(name).map_err(|why| Fault::new("invalid_name", why))?;
    Ok(Mailbox { email, name })
}

pub(super) fn subject(value: &Value) -> Result<String, Fault> {
    let subject = text(value)?;
    match check_subject(&subject) {
        Ok(()) => Ok(subject),
        Err((code, detail)) => Err(Fault::new(code, detail)),
    }
}

/// A name as relays have it; whether there is such a relay is the store's to say.
pub(super) fn relay_name(value: &Value) -> Result<String, Fault> {
    let name = text(value)?;
    match check_name(&name) {
        Ok(()) => Ok(name),
        Err(why) => Err(Fault::new("invalid_value", why)),
    }
}

pub(super) fn tag(value: &Value) -> Result<String, Fault> {
    let tag = text(value)?;
    if tag.is_empty() || tag.chars().count() > TAG_CHARS_MAX || tag.chars().any(char::is_control) {
        let detail = format!("a tag has 1 to {TAG_CHARS_MAX} characters and no control characters");
        return Err(Fault::new("invalid_value", detail));
    }
    Ok(tag)
}

pub(super) fn sized_object(value: &Value, bytes_max: usize) -> Result<Map<String, Value>, Fault> {
    let map = object(value)?;
    let bytes = value.to_string().len();
    match bytes > bytes_max {
        true => Err(Fault::new("too_long", format!("the object has {bytes} bytes; {bytes_max} is the most"))),
        false => Ok(map),
    }
}

/// Data for all messages, which stand in the head as their JSON text.
pub(super) fn shared_data(value: &Value) -> Result<SharedData, Fault> {
    let text = value.as_str().unwrap_or_default();
    if text.len() > SHARED_DATA_BYTES_MAX {
        let detail = format!("the object has {} bytes; {SHARED_DATA_BYTES_MAX} is the most", text.len());
        return Err(Fault::new("too_long", detail));
    }
    SharedData::parse(text).ok_or_else(|| Fault::wrong_type("this must be an object, such as {\"key\": \"value\"}"))
}

/// `{"X-Name": "value"}` or `[{"name": "X-Name", "value": "value"}]`.
pub(super) fn headers(value: &Value) -> Result<Vec<(String, String)>, Fault> {
    let pairs: Vec<(String, String, String)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, v)| Ok((name.clone(), name.clone(), text(v).map_err(|fault| fault.below(name))?)))
            .collect::<Result<_, Fault>>()?,
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, item)| match (&item["name"], &item["value"]) {
                (Value::String(name), Value::String(v)) => Ok((i.to_string(), name.clone(), v.clone())),
                _ => {
                    Err(Fault::wrong_type("a header is {\"name\": \"X-Name\", \"value\": \"…\"}").below(&i.to_string()))
                }
            })
            .collect::<Result<_, Fault>>()?,
        _ => return Err(Fault::wrong_type("this must be an object such as {\"X-Name\": \"value\"}")),
    };
    if pairs.len() > HEADERS_MAX {
        return Err(Fault::new("too_many", format!("{} headers are given; {HEADERS_MAX} is the most", pairs.len())));
    }
    pairs
        .into_iter()
        .map(|(place, name, v)| {
            check_header(&name, &v).map_err(|why| Fault::new("invalid_header", why).below(&place))?;
            check_is_no_template(&v).map_err(|why| Fault::new("invalid_header", why).below(&place))?;
            Ok((name, v))
        })
        .collect()
}

/// Custom headers are encoded once, for all messages: a value that looks like a template would arrive as it stands.
fn check_is_no_template(value: &str) -> Result<(), String> {
    match ["{{", "{%", "{#"].into_iter().find(|open| value.contains(open)) {
        None => Ok(()),
        Some(open) => Err(format!(
            "the value holds {open}, but headers are no templates: they are the same in every message; put what differs into the \
             subject or the text"
        )),
    }
}
