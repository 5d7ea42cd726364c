//! The bytes of whole messages.

use hikyaku::domain::content::Mailbox;
use hikyaku::mime::ComposeError;
use serde_json::json;

use super::{address, composer, content, letter, recipient};

#[test]
fn a_message_with_html_and_text() {
    let mut letter = letter(content(
        "Grüße, {{ first_name }}",
        Some("<p>Hello {{ first_name }}</p>\n<p>Until {{ day }}, <a href=\"{{ unsubscribe_url }}\">or not</a></p>"),
        Some("Hello {{ first_name }}\nUntil {{ day }}, or not: {{ unsubscribe_url }}\n"),
    ));
    letter.reply_to = Some(Mailbox {
        email: address("editor@example.org"),
        name: Some("Dr. Ed \"Ed\" Itor".into()),
    });
    letter.headers = vec![
        ("List-ID".into(), "Example News <news.example.org>".into()),
        ("X-Note".into(), "Frühling".into()),
    ];
    letter.data = super::object(json!({"day": "Friday"})).into();
    let anna = recipient("Anna@Example.org", Some("Anna Müller"), &json!({"first_name": "Anna & <Co>"}));
    let composed = composer(&letter).unwrap().compose(&anna).unwrap();
    assert_eq!(composed.envelope_from, address("news@example.org"));
    assert_eq!(composed.to, address("Anna@example.org"));
    insta::assert_snapshot!("html_and_text", shown(&composed.bytes));
}

#[test]
fn a_message_with_text_only() {
    let letter = letter(content("{{ n }} new", None, Some("Line one\rLine two = {{ n }}\r\n\r\n.\nFrom here \n")));
    let bob = recipient("bob@example.org", None, &json!({"n": 3}));
    let composed = composer(&letter).unwrap().compose(&bob).unwrap();
    insta::assert_snapshot!("text_only", shown(&composed.bytes));
}

/// The bytes as text, with line ends that can be seen when they are wrong.
fn shown(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).expect("messages are ASCII");
    assert!(text.is_ascii());
    let text = text.replace("\r\n", "\n");
    assert!(!text.contains('\r'));
    text
}

#[test]
fn two_composers_make_the_same_bytes() {
    let letter = letter(content("s {{ x }}", Some("<p>{{ x }}</p>"), None));
    let anna = recipient("anna@example.org", Some("Anna"), &json!({"x": 1}));
    let first = composer(&letter).unwrap().compose(&anna).unwrap();
    let second = composer(&letter).unwrap().compose(&anna).unwrap();
    assert_eq!(first, second);
    let other = recipient("bob@example.org", Some("Anna"), &json!({"x": 1}));
    let message_id = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines()
            .find(|l| l.starts_with("Message-ID:"))
            .map(ToOwned::to_owned)
    };
    let third = composer(&letter).unwrap().compose(&other).unwrap();
    assert_ne!(message_id(&first.bytes), message_id(&third.bytes));
}

#[test]
fn an_address_beyond_ascii_keeps_its_spelling() {
    let letter = letter(content("s", None, Some("t")));
    let anna = recipient("änna@example.org", None, &json!({}));
    let composed = composer(&letter).unwrap().compose(&anna).unwrap();
    assert!(
        String::from_utf8(composed.bytes)
            .unwrap()
            .contains("\r\nTo: änna@example.org\r\n")
    );
}

#[test]
fn a_letter_with_a_harmful_header_has_no_composer() {
    for headers in [
        vec![("Bcc".to_owned(), "x@example.org".to_owned())],
        vec![("X-A".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())],
        vec![("X-A".to_owned(), "1\r\nBcc: x@example.org".to_owned())],
        (0..21).map(|i| (format!("X-{i}"), "1".to_owned())).collect(),
    ] {
        let mut letter = letter(content("s", None, Some("t")));
        letter.headers = headers;
        assert!(matches!(composer(&letter), Err(ComposeError::Header { .. })), "{:?}", letter.headers);
    }
}
