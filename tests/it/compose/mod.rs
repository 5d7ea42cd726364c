//! From a newsletter's sources to the bytes of one message: what templates may do, what they may not,
//! and that nothing in the data leaves its place in the mail.

mod bombs;
pub mod checked;
pub mod jury;
pub mod letters;
mod messages;
mod templates;
mod verified;

use std::sync::Arc;

use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::content::{Content, Letter, Mailbox};
use hikyaku::domain::dkim::DkimKey;
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::recipient::Recipient;
use hikyaku::domain::time::Timestamp;
use hikyaku::domain::token::SecretKey;
use hikyaku::mime::{ComposeError, Composer, Setup};
use hikyaku::template::{Context, Newsletter, Rendered, Shared, TemplateError};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// When the broadcast of these tests began: 2026-09-21 14:13:20 UTC.
const DATE: Timestamp = Timestamp(1_790_000_000_123);

fn broadcast() -> BroadcastId {
    BroadcastId::new(DATE, 7)
}

fn key() -> SecretKey {
    SecretKey::new([1; 32])
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).expect("the test's address is well formed")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("not an object: {other}"),
    }
}

fn recipient(email: &str, name: Option<&str>, data: &Value) -> Recipient {
    let data = RawValue::from_string(data.to_string()).expect("JSON prints as JSON");
    Recipient {
        email: address(email),
        name: name.map(Into::into),
        data: Some(data),
    }
}

fn content(subject: &str, html: Option<&str>, text: Option<&str>) -> Content {
    Content {
        subject: subject.into(),
        html: html.map(Into::into),
        text: text.map(Into::into),
    }
}

fn letter(content: Content) -> Letter {
    Letter {
        from: Mailbox {
            email: address("news@example.org"),
            name: Some("Example News".into()),
        },
        reply_to: None,
        content,
        headers: Vec::new(),
        attachments: Vec::new(),
        data: Map::new().into(),
    }
}

fn composer(letter: &Letter) -> Result<Composer, ComposeError> {
    composer_signing(letter, &[])
}

fn composer_signing(letter: &Letter, keys: &[DkimKey]) -> Result<Composer, ComposeError> {
    Composer::new(&Setup {
        broadcast: &broadcast(),
        letter,
        newsletter: Arc::new(Newsletter::compile(&letter.content)?),
        date: DATE,
        key: &key(),
        dkim_keys: keys,
        public_url: "https://mail.example.org",
        unsubscribe_mailto: None,
    })
}

/// Renders for `anna@example.org` with the given data and no broadcast data.
fn render(content: &Content, data: &Value) -> Result<Rendered, TemplateError> {
    render_over(content, json!({}), data)
}

/// As [`render`], with data of the broadcast to fall back to.
fn render_over(content: &Content, defaults: Value, data: &Value) -> Result<Rendered, TemplateError> {
    let shared = Shared::new(&broadcast(), &object(defaults).into());
    let anna = recipient("anna@example.org", Some("Anna"), data);
    let context = Context::new(&shared, &anna, "https://mail.example.org/u/TOKEN")?;
    Newsletter::compile(content)?.render(&context)
}

/// The text part of a newsletter that has only this text.
fn render_text(text: &str, data: &Value) -> Result<String, TemplateError> {
    render(&content("s", None, Some(text)), data).map(|r| r.text)
}

/// The HTML part of a newsletter that has only this HTML.
fn render_html(html: &str, data: &Value) -> Result<String, TemplateError> {
    render(&content("s", Some(html), Some("t")), data).map(|r| r.html.expect("the newsletter has HTML"))
}
