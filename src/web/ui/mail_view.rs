//! Reads a captured message as far as a page shows it: its head lines and its HTML or text part. Never
//! fails: what cannot be read is shown as its source.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Parts within parts that are followed; our own mails have two levels at most.
const DEPTH_MAX: usize = 4;

/// A message as people see it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MailView {
    pub subject: String,
    pub from: String,
    pub to: String,
    pub html: Option<String>,
    pub text: Option<String>,
}

impl MailView {
    #[must_use]
    pub fn read(raw: &[u8]) -> Self {
        let entity = Entity::split(raw);
        let mut view = Self {
            subject: decode_words(&entity.header("subject")),
            from: decode_words(&entity.header("from")),
            to: decode_words(&entity.header("to")),
            ..Self::default()
        };
        view.add_parts(&entity, 0);
        view
    }

    fn add_parts(&mut self, entity: &Entity, depth: usize) {
        let kind = entity.header("content-type");
        let lower = kind.to_ascii_lowercase();
        if lower.starts_with("multipart/") && depth < DEPTH_MAX {
            let Some(boundary) = parameter(&kind, "boundary") else {
                return;
            };
            for part in parts(entity.body, &boundary) {
                self.add_parts(&Entity::split(part), depth + 1);
            }
        } else if lower.starts_with("text/html") {
            self.html.get_or_insert_with(|| entity.decoded());
        } else if lower.starts_with("text/plain") || lower.is_empty() {
            self.text.get_or_insert_with(|| entity.decoded());
        }
    }
}

/// Headers and body of a message or of one part.
struct Entity<'a> {
    headers: Vec<(String, String)>,
    body: &'a [u8],
}

impl<'a> Entity<'a> {
    fn split(raw: &'a [u8]) -> Self {
        let end = find(raw, b"\r\n\r\n").unwrap_or(raw.len());
        let head = String::from_utf8_lossy(&raw[..end]);
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in head.split("\r\n") {
            match (line.starts_with([' ', '\t']), headers.last_mut(), line.split_once(':')) {
                (true, Some((_, value)), _) => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                (false, _, Some((name, value))) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                _ => {}
            }
        }
        Self {
            headers,
            body: raw.get(end + 4..).unwrap_or_default(),
        }
    }

    fn header(&self, name: &str) -> String {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map_or_else(String::new, |(_, v)| v.clone())
    }

    fn decoded(&self) -> String {
        let bytes = match self.header("content-transfer-encoding").to_ascii_lowercase().as_str() {
            "quoted-printable" => unquote(self.body, false),
            "base64" => {
                let packed: Vec<u8> = self.body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
                STANDARD.decode(packed).unwrap_or_else(|_| self.body.to_vec())
            }
            _ => self.body.to_vec(),
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// The parts between the boundary's lines (RFC 2046 5.1.1).
fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let line = format!("--{boundary}");
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(at) = find(rest, line.as_bytes()) {
        found.push(rest[..at].strip_suffix(b"\r\n").unwrap_or(&rest[..at]));
        rest = &rest[at + line.len()..];
        if rest.starts_with(b"--") {
            break;
        }
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    // What stands before the first boundary is for programs that know no MIME.
    found.into_iter().skip(1).collect()
}

fn parameter(header: &str, name: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|p| {
        let (key, value) = p.trim().split_once('=')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim_matches('"').to_owned())
    })
}

/// Decodes quoted-printable (RFC 2045 6.7), or the Q encoding of encoded words, where `_` is a space.
fn unquote(text: &[u8], is_word: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'=' if text[at + 1..].starts_with(b"\r\n") => at += 2,
            b'=' => match text.get(at + 1..at + 3).and_then(hex) {
                Some(byte) => {
                    out.push(byte);
                    at += 2;
                }
                None => out.push(b'='),
            },
            b'_' if is_word => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    out
}

fn hex(two: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()
}

/// Decodes encoded words (RFC 2047); white space between two of them is dropped.
fn decode_words(header: &str) -> String {
    let mut out = String::with_capacity(header.len());
    let mut was_word = false;
    for word in header.split(' ') {
        let decoded = decode_word(word);
        let joins = was_word && decoded.is_some();
        if !joins && !out.is_empty() {
            out.push(' ');
        }
        was_word = decoded.is_some();
        out.push_str(decoded.as_deref().unwrap_or(word));
    }
    out
}

fn decode_word(word: &str) -> Option<String> {
    let mut fields = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
    let (_charset, encoding, text) = (fields.next()?, fields.next()?, fields.next()?);
    let bytes = match encoding {
        "b" | "B" => STANDARD.decode(text).ok()?,
        "q" | "Q" => unquote(text.as_bytes(), true),
        _ => return None,
    };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "Subject: =?utf-8?b?R3LDvMOfZQ==?= from\r\n =?utf-8?q?K=C3=B6ln_!?=\r\nFrom: News <n@example.org>\r\n\
        Content-Type: multipart/alternative;\r\n boundary=\"b1\"\r\n\r\nold\r\n--b1\r\nContent-Type: text/plain; \
        charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=\r\n=C3=9Fe\r\n--b1\r\n\
        Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPHA+\r\nSGk8L3A+\r\n--b1--\r\n";

    #[test]
    fn both_parts_and_the_head_lines_are_read() {
        let view = MailView::read(MAIL.as_bytes());
        assert_eq!(view.subject, "Grüße from Köln !");
        assert_eq!(view.from, "News <n@example.org>");
        assert_eq!(view.text.as_deref(), Some("Grüße"));
        assert_eq!(view.html.as_deref(), Some("<p>Hi</p>"));
    }

    #[test]
    fn rubbish_is_no_error() {
        for raw in [
            "",
            "\r\n\r\n",
            "a: b",
            "Content-Type: multipart/x; boundary=\r\n\r\n--\r\n--",
            "=",
            "Subject: =?x?=\r\n\r\n=4",
        ] {
            assert_eq!(MailView::read(raw.as_bytes()).html, None, "{raw:?}");
        }
        assert_eq!(MailView::read(b"no header\r\n\r\nhello").text.as_deref(), Some("hello"));
    }

    #[test]
    fn parts_nested_too_deep_are_left_alone() {
        let nested = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n".repeat(50);
        assert_eq!(MailView::read(nested.as_bytes()).html, None);
    }
}
