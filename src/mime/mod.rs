//! From a rendered newsletter to the exact bytes on the wire. The same recipient of the same broadcast
//! always gets the same bytes, whoever composes them and however often: Message-ID, Date and
//! boundary are computed, not drawn, and signatures are deterministic. Never reads a clock, never sends, never writes 8-bit bodies.

mod attachment;
mod body;
mod dkim;
mod header;
mod quoted_printable;

use std::sync::Arc;

use self::attachment::Frame;
pub use self::attachment::check_attachment;
use self::dkim::Signer;
pub use self::dkim::generate as generate_dkim_key;
pub use self::header::{HEADER_LINE_MAX, check_header};
use crate::domain::address::EmailAddress;
use crate::domain::content::{HEADERS_MAX, Letter};
use crate::domain::dkim::DkimKey;
use crate::domain::id::BroadcastId;
use crate::domain::recipient::Recipient;
use crate::domain::time::Timestamp;
use crate::domain::token::{SecretKey, UnsubscribeToken};
use crate::template::{Context, Newsletter, Rendered, Shared, TemplateError};

/// Bytes of the code in a Message-ID: 160 bits, 32 characters.
const MESSAGE_ID_BYTES: usize = 20;
/// Room for two signatures in front of a message, so that it is not copied once more for them.
const SIGNATURES_ROOM: usize = 2 * 1024;

/// What a [`Composer`] is made of.
#[derive(Debug)]
pub struct Setup<'a> {
    pub broadcast: &'a BroadcastId,
    pub letter: &'a Letter,
    pub newsletter: Arc<Newsletter>,
    /// The `Date` of all messages: when the broadcast began.
    pub date: Timestamp,
    pub key: &'a SecretKey,
    /// The keys that sign every message; none leaves them unsigned.
    pub dkim_keys: &'a [DkimKey],
    /// Where recipients reach this service, such as `https://mail.example.org`; the unsubscribe
    /// links are made of it.
    pub public_url: &'a str,
    /// A mailbox that takes requests to unsubscribe by mail, beside the link.
    pub unsubscribe_mailto: Option<&'a EmailAddress>,
}

/// Composes the messages of one broadcast. What they have in common is encoded once. Share it by
/// `Arc`: composing needs no lock.
#[derive(Debug)]
pub struct Composer {
    broadcast: BroadcastId,
    newsletter: Arc<Newsletter>,
    shared: Arc<Shared>,
    key: SecretKey,
    from: EmailAddress,
    /// `https://…/u/`, to which a token is added.
    unsubscribe_base: String,
    /// `, <mailto:…>`, or nothing.
    unsubscribe_mailto: String,
    /// The encoded lines that are the same in every message.
    common: String,
    /// What the attachments add.
    frame: Frame,
    signer: Option<Signer>,
}

/// With more bytes of attachments than this a message takes longer to put together than to hand to another thread.
const LARGE_BYTES: usize = 64 * 1024;

/// One message, ready for the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// For MAIL FROM.
    pub envelope_from: EmailAddress,
    /// For RCPT TO.
    pub to: EmailAddress,
    /// Header and body, CRLF line ends, no dot-stuffing. Seven bits, except that the address in `To`
    /// is UTF-8 when [`EmailAddress::needs_smtputf8`] says so.
    pub bytes: Vec<u8>,
}

/// Why a message, or all messages of a broadcast, cannot be composed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// The newsletter cannot be rendered for this recipient; others may be fine.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A custom header that should have been refused when the broadcast was accepted.
    #[error("header {name}: {why}")]
    Header { name: String, why: String },
    /// The service's own address is no http or https URL.
    #[error("public_url: '{0}' is not a URL such as https://mail.example.org")]
    PublicUrl(String),
    /// A key that mail is to be signed with cannot be read, or does not sign.
    #[error("{0}")]
    Signature(String),
}

impl Composer {
    /// Encodes what all messages have in common.
    ///
    /// # Errors
    /// A custom header or the public URL is not acceptable; it concerns the whole broadcast.
    pub fn new(setup: &Setup) -> Result<Self, ComposeError> {
        let letter = setup.letter;
        Ok(Self {
            broadcast: setup.broadcast.clone(),
            newsletter: Arc::clone(&setup.newsletter),
            shared: Shared::new(setup.broadcast, &letter.data),
            key: setup.key.clone(),
            from: letter.from.email.clone(),
            unsubscribe_base: unsubscribe_base(setup.public_url)?,
            unsubscribe_mailto: setup
                .unsubscribe_mailto
                .map(|address| format!(", <mailto:{}>", header::uri_mailbox(address)))
                .unwrap_or_default(),
            common: common_headers(letter, setup.date)?,
            frame: frame(setup),
            signer: match setup.dkim_keys {
                [] => None,
                keys => Some(Signer::new(keys).map_err(ComposeError::Signature)?),
            },
        })
    }

    /// Composes the message for one recipient; two calls give the same bytes.
    ///
    /// # Errors
    /// The newsletter cannot be rendered for this recipient.
    pub fn compose(&self, recipient: &Recipient) -> Result<Composed, ComposeError> {
        let unsubscribe_url = self.unsubscribe_url(&recipient.email);
        let context = Context::new(&self.shared, recipient, &unsubscribe_url)?;
        let rendered = self.newsletter.render(&context)?;
        let mut bytes = self.bytes(recipient, &rendered, &unsubscribe_url);
        if let Some(signer) = &self.signer {
            let signatures = signer.sign(&bytes).map_err(ComposeError::Signature)?;
            bytes.splice(0..0, signatures);
        }
        Ok(Composed {
            envelope_from: self.from.clone(),
            to: recipient.email.clone(),
            bytes,
        })
    }

    /// Whether composing one message takes so long (more than some tens of microseconds) that it does not belong on a thread
    /// that carries connections: an RSA signature takes 650 µs.
    #[must_use]
    pub fn is_costly(&self) -> bool {
        self.signer.is_some() || self.frame.after.len() > LARGE_BYTES
    }

    /// Bytes that are held for as long as the broadcast is at hand, beyond its templates.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.frame.after.len()
    }

    /// The recipient's own link to unsubscribe.
    #[must_use]
    pub fn unsubscribe_url(&self, address: &EmailAddress) -> String {
        format!("{}{}", self.unsubscribe_base, UnsubscribeToken::mint(&self.key, &self.broadcast, address))
    }

    fn bytes(&self, recipient: &Recipient, rendered: &Rendered, unsubscribe_url: &str) -> Vec<u8> {
        let code = self
            .key
            .code("message", &[self.broadcast.as_str(), &recipient.email.normalised()]);
        let (message_id, boundary) = code.split_at(MESSAGE_ID_BYTES);
        let size = self.common.len()
            + self.frame.after.len()
            + 1024
            + SIGNATURES_ROOM
            + rendered.text.len() * 2
            + rendered.html.as_ref().map_or(0, |h| h.len() * 2);
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(self.common.as_bytes());
        header::push_to(&mut out, &recipient.email, recipient.name.as_deref());
        header::push_subject(&mut out, &rendered.subject);
        header::push(&mut out, "Message-ID", &format!("<{}@{}>", base32(message_id), self.from.domain()));
        let unsubscribe = format!("<{unsubscribe_url}>{}", self.unsubscribe_mailto);
        header::push(&mut out, "List-Unsubscribe", &unsubscribe);
        // RFC 2045 6.7: "=_" cannot occur in quoted-printable or base64, so the boundary cannot either.
        out.extend_from_slice(&self.frame.before);
        body::push(&mut out, rendered, &format!("=_{}", base32(boundary)));
        out.extend_from_slice(&self.frame.after);
        out
    }
}

/// A finished message with the signatures of these keys in front of it, for mail that no [`Composer`] made. It takes up to a
/// millisecond a key. The message is as [`Composed::bytes`] says.
///
/// # Errors
/// A sentence that names a key that cannot be read.
pub fn sign(mut message: Vec<u8>, keys: &[DkimKey]) -> Result<Vec<u8>, String> {
    if !keys.is_empty() {
        let signatures = Signer::new(keys)?.sign(&message)?;
        message.splice(0..0, signatures);
    }
    Ok(message)
}

/// The attachments, with boundaries that are the same in all messages of the broadcast, so that all of it is encoded once.
fn frame(setup: &Setup) -> Frame {
    let code = setup.key.code("attachments", &[setup.broadcast.as_str()]);
    let (mixed, related) = code.split_at(code.len() / 2);
    let text_type = match setup.letter.content.html {
        Some(_) => "multipart/alternative",
        None => "text/plain",
    };
    let boundary = |mark: &str, code: &[u8]| format!("=_{mark}{}", base32(code));
    Frame::new(&setup.letter.attachments, text_type, &boundary("m", mixed), &boundary("r", related))
}

fn unsubscribe_base(public_url: &str) -> Result<String, ComposeError> {
    let bad = || ComposeError::PublicUrl(public_url.to_owned());
    let url = url::Url::parse(public_url).map_err(|_| bad())?;
    if !["http", "https"].contains(&url.scheme()) || url.query().is_some() || url.fragment().is_some() {
        return Err(bad());
    }
    // RFC 8058 3.1 wants https; plain http is for trying things out on one's own machine.
    Ok(format!("{}/u/", url.as_str().trim_end_matches('/')))
}

/// Date, From, Reply-To, MIME-Version, the fixed list headers and the custom ones.
fn common_headers(letter: &Letter, date: Timestamp) -> Result<String, ComposeError> {
    let mut out = Vec::new();
    // RFC 5322 3.3; the offset is spelt out, since -0000 would say that it is not known.
    let date = date.to_jiff().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
    header::push(&mut out, "Date", &date);
    header::push_from(&mut out, &letter.from);
    if let Some(reply_to) = &letter.reply_to {
        header::push_reply_to(&mut out, reply_to);
    }
    header::push(&mut out, "MIME-Version", "1.0");
    header::push(&mut out, "List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
    let is_given = |name: &str| letter.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    if !is_given("Precedence") {
        // RFC 3834 2: keeps well-behaved automatic responders quiet.
        header::push(&mut out, "Precedence", "bulk");
    }
    push_custom(&mut out, &letter.headers)?;
    Ok(String::from_utf8(out).expect("headers are written from strings"))
}

fn push_custom(out: &mut Vec<u8>, headers: &[(String, String)]) -> Result<(), ComposeError> {
    let refuse = |name: &str, why: String| ComposeError::Header {
        name: name.to_owned(),
        why,
    };
    for (i, (name, value)) in headers.iter().enumerate() {
        check_header(name, value).map_err(|why| refuse(name, why))?;
        if i >= HEADERS_MAX {
            return Err(refuse(name, format!("there are more than {HEADERS_MAX} headers")));
        }
        if headers[..i]
            .iter()
            .any(|(earlier, _)| earlier.eq_ignore_ascii_case(name))
        {
            return Err(refuse(name, "it is given twice".into()));
        }
        header::push_custom(out, name, value);
    }
    Ok(())
}

/// Lower-case base 32 (RFC 4648 6) without padding: safe in a Message-ID and in a boundary, and no
/// worse for a relay that folds case.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut value, mut n_bits) = (0u32, 0);
    for &byte in bytes {
        value = (value << 8) | u32::from(byte);
        n_bits += 8;
        while n_bits >= 5 {
            n_bits -= 5;
            out.push(char::from(ALPHABET[(value >> n_bits & 31) as usize]));
        }
    }
    if n_bits > 0 {
        out.push(char::from(ALPHABET[(value << (5 - n_bits) & 31) as usize]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_32_is_that_of_rfc_4648() {
        for (given, expected) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(base32(given.as_bytes()), expected);
        }
    }

    #[test]
    fn only_an_http_url_is_a_public_url() {
        assert_eq!(unsubscribe_base("https://m.example/x/").as_deref(), Ok("https://m.example/x/u/"));
        for bad in [
            "",
            "m.example",
            "ftp://m.example",
            "https://m.example/?a=b",
            "javascript:alert(1)",
        ] {
            assert!(unsubscribe_base(bad).is_err(), "{bad}");
        }
    }
}
