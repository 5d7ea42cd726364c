//! The body: one text part, or text and HTML as alternatives. Always in seven bits with lines of at
//! most 76 bytes, so that no relay has a reason to change it and no signature breaks. Never adds to what
//! was rendered.

use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, SinglePart};

use super::{header, quoted_printable};
use crate::template::Rendered;

/// Writes the content headers, the empty line and the body. The parts come in rising order of
/// richness, so the text comes first (RFC 2046 5.1.4).
pub(super) fn push(out: &mut Vec<u8>, rendered: &Rendered, boundary: &str) {
    let Some(html) = &rendered.html else {
        out.extend_from_slice(&part(ContentType::TEXT_PLAIN, &rendered.text));
        return;
    };
    header::push(out, "Content-Type", &format!("multipart/alternative; boundary=\"{boundary}\""));
    for part in [
        part(ContentType::TEXT_PLAIN, &rendered.text),
        part(ContentType::TEXT_HTML, html),
    ] {
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(boundary.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&part);
    }
    out.extend_from_slice(b"\r\n--");
    out.extend_from_slice(boundary.as_bytes());
    out.extend_from_slice(b"--\r\n");
}

/// Headers and encoded content of one part, ended by a line break. Line breaks at the end of the text
/// are dropped, since the part's end brings its own.
fn part(content_type: ContentType, text: &str) -> Vec<u8> {
    let text = text.trim_end_matches(['\r', '\n']);
    let body = match is_mostly_ascii(text) {
        true => {
            let encoded = quoted_printable::encode(text);
            Body::dangerous_pre_encoded(encoded, ContentTransferEncoding::QuotedPrintable)
        }
        false => Body::new_with_encoding(with_crlf(text), ContentTransferEncoding::Base64)
            .expect("base64 can carry any bytes"),
    };
    SinglePart::builder().content_type(content_type).body(body).formatted()
}

/// Quoted-printable takes three bytes for each that is not ASCII, base64 four for any three.
fn is_mostly_ascii(text: &str) -> bool {
    let n_other = text.bytes().filter(|b| !b.is_ascii()).count();
    n_other * 6 < text.len().max(1)
}

/// Every line break becomes CRLF: lone CR and LF as well (RFC 5321 2.3.8).
fn with_crlf(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 16);
    let mut rest = text;
    while let Some(at) = rest.find(['\r', '\n']) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        out.extend_from_slice(b"\r\n");
        rest = rest[at..].strip_prefix("\r\n").unwrap_or(&rest[at + 1..]);
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_break_becomes_crlf() {
        assert_eq!(with_crlf("a\nb\rc\r\nd\n\re\n"), b"a\r\nb\r\nc\r\nd\r\n\r\ne\r\n");
        assert_eq!(with_crlf(""), b"");
    }

    #[test]
    fn text_of_other_scripts_goes_out_as_base64() {
        assert!(is_mostly_ascii("") && is_mostly_ascii("Viele Grüße aus Köln am Rhein, und bis bald!"));
        assert!(!is_mostly_ascii("飛脚"));
    }
}
