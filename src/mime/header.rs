//! Header lines: encoded by lettre's types, checked where they come from outside. Whatever a value
//! holds, it stays inside its line. Never decides which headers a message has.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::Address;
use lettre::message::header::{From, Header, HeaderName, HeaderValue, Headers, ReplyTo, To};
use lettre::message::{Mailbox as LettreMailbox, Mailboxes};

use crate::domain::address::EmailAddress;
use crate::domain::content::Mailbox;
use crate::domain::recipient::NAME_CHARS_MAX;

/// Most bytes of a header line (RFC 5322 2.1.1), and so of a custom header's name and value together.
pub const HEADER_LINE_MAX: usize = 998;
/// Most bytes of a custom header's name: it must leave room for an encoded word on its line.
const NAME_BYTES_MAX: usize = 76;
/// A word of a subject that is longer is encoded, because it could not be folded (RFC 2047 2).
const WORD_BYTES_MAX: usize = 60;

/// Headers that are made here, belong to the relay, or would change who gets the mail.
const DENIED: [&str; 16] = [
    "authentication-results",
    "bcc",
    "cc",
    "date",
    "delivered-to",
    "dkim-signature",
    "domainkey-signature",
    "from",
    "message-id",
    "received-spf",
    "received",
    "reply-to",
    "return-path",
    "sender",
    "subject",
    "to",
];
const DENIED_PREFIXES: [&str; 5] = ["arc-", "content-", "list-unsubscribe", "mime-", "resent-"];

/// Checks a custom header when a broadcast is accepted.
///
/// # Errors
/// A sentence that says what is wrong with the name or the value.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    // RFC 5322 3.6.8: ftext, any printable ASCII but the colon.
    let is_ftext = |b: u8| matches!(b, b'!'..=b'9' | b';'..=b'~');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_ftext) {
        return Err(format!(
            "a header's name is 1 to {NAME_BYTES_MAX} printable ASCII characters without colon or space"
        ));
    }
    let lower = name.to_ascii_lowercase();
    if DENIED.contains(&lower.as_str()) || DENIED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(format!("{name} is set by the service and cannot be given"));
    }
    if value.trim().is_empty() {
        return Err("the value is empty".into());
    }
    if let Some(c) = value.chars().find(|&c| is_break(c)) {
        return Err(format!("the value holds {}, a line break or control character", c.escape_unicode()));
    }
    let len = name.len() + ": ".len() + value.len();
    if len > HEADER_LINE_MAX {
        return Err(format!("name and value have {len} bytes; {HEADER_LINE_MAX} is the most"));
    }
    Ok(())
}

/// Control characters and what some programs take for a line break.
pub(super) fn is_break(c: char) -> bool {
    c.is_control() || c == '\u{2028}' || c == '\u{2029}'
}

/// Writes a line whose value was made here: ASCII, and short enough.
pub(super) fn push(out: &mut Vec<u8>, name: &str, value: &str) {
    debug_assert!(value.is_ascii() && !value.contains(is_break), "{name} is made of checked parts");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a header that passed [`check_header`]: folded, and encoded where it is not ASCII.
pub(super) fn push_custom(out: &mut Vec<u8>, name: &str, value: &str) {
    let header_name = HeaderName::new_from_ascii(name.to_owned()).expect("the name was checked");
    push_value(out, HeaderValue::new(header_name, value.trim().to_owned()));
}

pub(super) fn push_from(out: &mut Vec<u8>, mailbox: &Mailbox) {
    push_mailbox(out, "From", &mailbox.email, mailbox.name.as_deref(), |m| From::from(m).display());
}

pub(super) fn push_reply_to(out: &mut Vec<u8>, mailbox: &Mailbox) {
    push_mailbox(out, "Reply-To", &mailbox.email, mailbox.name.as_deref(), |m| ReplyTo::from(m).display());
}

pub(super) fn push_to(out: &mut Vec<u8>, email: &EmailAddress, name: Option<&str>) {
    push_mailbox(out, "To", email, name, |m| To::from(m).display());
}

/// lettre leaves a name such as `J.R.` bare, which RFC 5322 3.2.5 does not allow (a dot needs quotes) and on which Python's
/// parser breaks when the dot comes first.
fn push_mailbox(
    out: &mut Vec<u8>,
    header: &str,
    email: &EmailAddress,
    name: Option<&str>,
    encode: fn(Mailboxes) -> HeaderValue,
) {
    let name = name.map(clean_name).filter(|name| !name.is_empty());
    let is_left_bare = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    match name {
        Some(name) if name.contains('.') && is_left_bare(&name) => {
            out.extend_from_slice(format!("{header}: \"{name}\" <{email}>\r\n").as_bytes());
        }
        name => push_value(out, encode(lettre_mailboxes(email, name))),
    }
}

/// A subject may hold anything a recipient's data hold. Text that looks like an encoded word is
/// encoded once more, so that it is shown as it was given; so is a word too long to be folded.
pub(super) fn push_subject(out: &mut Vec<u8>, subject: &str) {
    let name = HeaderName::new_from_ascii_str("Subject");
    let is_plain = !subject.contains("=?") && subject.split(' ').all(|word| word.len() <= WORD_BYTES_MAX);
    push_value(
        out,
        match is_plain {
            true => HeaderValue::new(name, subject.to_owned()),
            false => {
                let encoded = encoded_words(subject);
                HeaderValue::dangerous_new_pre_encoded(name, String::new(), encoded)
            }
        },
    );
}

/// The whole text as encoded words (RFC 2047), one on a line.
fn encoded_words(text: &str) -> String {
    /// 39 bytes are 52 base64 digits; with `=?utf-8?b?…?=` and `Subject: ` they fit into 76.
    const BYTES_PER_WORD: usize = 39;
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(BYTES_PER_WORD));
        if !out.is_empty() {
            out.push_str("\r\n ");
        }
        out.push_str("=?utf-8?b?");
        STANDARD.encode_string(word, &mut out);
        out.push_str("?=");
        rest = after;
    }
    out
}

fn push_value(out: &mut Vec<u8>, value: HeaderValue) {
    let mut headers = Headers::with_capacity(1);
    headers.insert_raw(value);
    out.extend_from_slice(headers.to_string().as_bytes());
}

/// lettre panics on a name with a line break; names are checked when they are accepted, and cleaned once more before this.
fn lettre_mailboxes(email: &EmailAddress, name: Option<String>) -> Mailboxes {
    // "Dangerous" means unchecked: `EmailAddress` was parsed by rules stricter than lettre's.
    let address = Address::new_dangerous(email.local(), email.domain());
    LettreMailbox::new(name, address).into()
}

fn clean_name(name: &str) -> String {
    let spaced: String = name
        .chars()
        .take(NAME_CHARS_MAX)
        .map(|c| if is_break(c) { ' ' } else { c })
        .collect();
    spaced
        .split(' ')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// An address inside a `mailto:` URI (RFC 6068 2): what is special there is percent-encoded.
pub(super) fn uri_mailbox(address: &EmailAddress) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"@.-_+~".contains(&b);
    let mut out = String::new();
    for b in address.as_str().bytes() {
        match is_plain(b) {
            true => out.push(char::from(b)),
            false => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_custom_headers_are_accepted() {
        for (name, value) in [
            ("X-Campaign", "spring"),
            ("List-ID", "News <news.example.org>"),
            ("Feedback-ID", "a:b:c:d"),
            ("Auto-Submitted", "auto-generated"),
            ("Precedence", "list"),
            ("X-Note", "Grüße"),
        ] {
            assert_eq!(check_header(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn headers_that_could_do_harm_are_refused() {
        let long = "x".repeat(HEADER_LINE_MAX);
        for (name, value, part) in [
            ("", "x", "name"),
            ("X Y", "x", "name"),
            ("X:Y", "x", "name"),
            ("X\r\nBcc", "x", "name"),
            ("Grüße", "x", "name"),
            ("bCC", "x@example.org", "set by the service"),
            ("Content-Type", "text/html", "set by the service"),
            ("Mime-Version", "1.0", "set by the service"),
            ("Resent-To", "x@example.org", "set by the service"),
            ("List-Unsubscribe-Post", "x", "set by the service"),
            ("DKIM-Signature", "x", "set by the service"),
            ("X-A", "a\r\nBcc: x@example.org", "line break"),
            ("X-A", "a\nb", "line break"),
            ("X-A", "a\0b", "line break"),
            ("X-A", "a\u{2028}b", "line break"),
            ("X-A", "  ", "empty"),
            ("X-A", &long, "most"),
        ] {
            let why = check_header(name, value).expect_err(name);
            assert!(why.contains(part), "{name}: {why}");
        }
        assert!(check_header(&"X".repeat(77), "x").is_err());
    }

    #[test]
    fn a_subject_that_looks_encoded_is_encoded_once_more() {
        let mut out = Vec::new();
        push_subject(&mut out, "=?utf-8?q?a=0D=0ABcc:_x?=");
        assert_eq!(out, b"Subject: =?utf-8?b?PT91dGYtOD9xP2E9MEQ9MEFCY2M6X3g/PQ==?=\r\n");
    }

    #[test]
    fn a_name_with_a_dot_is_quoted() {
        let anna = EmailAddress::parse("anna@example.org").unwrap();
        for (name, shown) in [("J.R.", "\"J.R.\" "), (".net", "\".net\" "), ("Anna", "Anna ")] {
            let mut out = Vec::new();
            push_to(&mut out, &anna, Some(name));
            assert_eq!(String::from_utf8(out).unwrap(), format!("To: {shown}<anna@example.org>\r\n"));
        }
    }

    #[test]
    fn a_mailto_address_cannot_leave_its_uri() {
        let address = EmailAddress::parse("a?b=c&d%e@example.org").unwrap();
        assert_eq!(uri_mailbox(&address), "a%3Fb%3Dc%26d%25e@example.org");
    }
}
