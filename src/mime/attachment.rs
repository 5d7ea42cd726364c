//! Files that go with every message of a broadcast: checked when they are accepted, encoded once, and then copied into each
//! message as they are. Always base64, always ASCII headers. Never opens or changes a file's content.

use unicode_normalization::UnicodeNormalization;

use super::header;
use crate::domain::content::Attachment;

/// Longest file name, in bytes: more than common file systems take.
const FILENAME_BYTES_MAX: usize = 255;
/// Longest content type with its parameters.
const CONTENT_TYPE_BYTES_MAX: usize = 127;
/// Longest name by which the HTML refers to an inline image.
const CONTENT_ID_BYTES_MAX: usize = 100;
/// Longest file name that stands on one line as it is.
const PLAIN_FILENAME_MAX: usize = 56;
/// Longest ending of a file name, such as `pdf`, that is kept when the name is cut.
const ENDING_BYTES_MAX: usize = 12;
/// Characters of an encoded file name on one line: with ` filename*12*=utf-8''` and `;` they fit into 78.
const FILENAME_PIECE: usize = 48;
/// Base64 digits on a line (RFC 2045 6.8).
const BASE64_LINE: usize = 76;

/// Checks what is said about an attachment when a broadcast is accepted: everything but its content.
///
/// # Errors
/// The field, and a sentence that says what is wrong with it.
pub fn check_attachment(
    filename: &str,
    content_type: &str,
    content_id: Option<&str>,
) -> Result<(), (&'static str, String)> {
    check_filename(filename).map_err(|why| ("filename", why))?;
    check_content_type(content_type).map_err(|why| ("content_type", why))?;
    match content_id {
        Some(id) => check_content_id(id).map_err(|why| ("content_id", why)),
        None => Ok(()),
    }
}

fn check_filename(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("the file name is empty".into());
    }
    if name.len() > FILENAME_BYTES_MAX {
        return Err(format!("the file name has {} bytes; {FILENAME_BYTES_MAX} is the most", name.len()));
    }
    match name.chars().find(|&c| c == '/' || c == '\\' || header::is_break(c)) {
        Some(c) => Err(format!("the file name holds {}; give a name without a path", c.escape_default())),
        None => Ok(()),
    }
}

/// `type/subtype` with parameters whose values are tokens (RFC 2045 5.1).
fn check_content_type(text: &str) -> Result<(), String> {
    let is_token = |t: &str| !t.is_empty() && t.bytes().all(is_token_byte);
    let mut parts = text.split(';').map(str::trim);
    let is_type = parts
        .next()
        .and_then(|kind| kind.split_once('/'))
        .is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
    let is_right = parts.all(|p| {
        p.split_once('=')
            .is_some_and(|(name, value)| is_token(name) && is_token(value))
    });
    if !is_type || !is_right || text.len() > CONTENT_TYPE_BYTES_MAX {
        return Err(format!(
            "'{}' is not a content type such as application/pdf or text/csv; charset=utf-8",
            text.chars().take(80).collect::<String>().escape_debug()
        ));
    }
    let lower = text.to_ascii_lowercase();
    // RFC 2045 6.4 forbids base64 for both.
    if lower.starts_with("multipart/") || lower.starts_with("message/") {
        return Err(format!("{text} cannot be attached; use application/octet-stream for a file of this kind"));
    }
    Ok(())
}

fn is_token_byte(b: u8) -> bool {
    matches!(b, b'!'..=b'~') && !b"()<>@,;:\\\"/[]?=".contains(&b)
}

fn check_content_id(id: &str) -> Result<(), String> {
    let is_right = |b: u8| b.is_ascii_alphanumeric() || b"._-+@".contains(&b);
    if id.is_empty() || id.len() > CONTENT_ID_BYTES_MAX || !id.bytes().all(is_right) {
        return Err(format!(
            "a content_id has 1 to {CONTENT_ID_BYTES_MAX} letters, digits and . _ - + @, such as logo; \
             the HTML shows it as <img src=\"cid:logo\">"
        ));
    }
    Ok(())
}

/// What stands before and after the text of every message of a broadcast.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Header lines and delimiters up to the first part, which is the text.
    pub before: Vec<u8>,
    /// All attachments, encoded, and the last delimiters.
    pub after: Vec<u8>,
}

impl Frame {
    /// The frame of a broadcast with these attachments, and nothing when there are none. Inline images stand beside the text
    /// (`multipart/related`, RFC 2387), other files behind both (`multipart/mixed`). `text_type` is the content type of
    /// the text; the boundaries must not occur in base64 or quoted-printable.
    pub fn new(attachments: &[Attachment], text_type: &str, mixed: &str, related: &str) -> Self {
        let (inline, files): (Vec<_>, Vec<_>) = attachments.iter().partition(|a| a.content_id.is_some());
        let mut frame = Self::default();
        if !files.is_empty() {
            open(&mut frame.before, "multipart/mixed", mixed, "");
        }
        if !inline.is_empty() {
            open(&mut frame.before, "multipart/related", related, &format!("; type=\"{text_type}\""));
            close(&mut frame.after, related, &inline);
        }
        if !files.is_empty() {
            close(&mut frame.after, mixed, &files);
        }
        frame
    }
}

fn open(out: &mut Vec<u8>, kind: &str, boundary: &str, parameter: &str) {
    out.extend_from_slice(
        format!("Content-Type: {kind}{parameter};\r\n boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n").as_bytes(),
    );
}

fn close(out: &mut Vec<u8>, boundary: &str, attachments: &[&Attachment]) {
    for attachment in attachments {
        out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        push_part(out, attachment);
    }
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
}

fn push_part(out: &mut Vec<u8>, attachment: &Attachment) {
    push_content_type(out, &attachment.content_type);
    header::push(out, "Content-Transfer-Encoding", "base64");
    let kind = match &attachment.content_id {
        Some(id) => {
            header::push(out, "Content-ID", &format!("<{id}>"));
            "inline"
        }
        None => "attachment",
    };
    push_disposition(out, kind, &attachment.filename);
    out.extend_from_slice(b"\r\n");
    out.reserve(attachment.content.len() / BASE64_LINE * (BASE64_LINE + 2) + BASE64_LINE);
    for line in attachment.content.as_bytes().chunks(BASE64_LINE) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
}

/// One parameter a line, as each may be long.
fn push_content_type(out: &mut Vec<u8>, text: &str) {
    let folded = text.split(';').map(str::trim).collect::<Vec<_>>().join(";\r\n ");
    out.extend_from_slice(b"Content-Type: ");
    out.extend_from_slice(folded.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The file name as it is when it is short and plain, else by RFC 2231 3 and 4: in UTF-8, percent-encoded, in pieces; and
/// before that one in ASCII, for programs that do not know RFC 2231.
fn push_disposition(out: &mut Vec<u8>, kind: &str, filename: &str) {
    out.extend_from_slice(format!("Content-Disposition: {kind};\r\n").as_bytes());
    let is_plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'%';
    if filename.len() <= PLAIN_FILENAME_MAX
        && filename.trim() == filename
        && !filename.contains("=?")
        && filename.bytes().all(is_plain)
    {
        out.extend_from_slice(format!(" filename=\"{filename}\"\r\n").as_bytes());
        return;
    }
    // RFC 6266 appendix D and what mail programs do: who knows RFC 2231 takes the second, all others the first.
    out.extend_from_slice(format!(" filename=\"{}\";\r\n", ascii_name(filename)).as_bytes());
    let pieces = encoded_pieces(filename);
    let is_long = pieces.len() > 1;
    for (n, piece) in pieces.iter().enumerate() {
        let section = if is_long { format!("*{n}") } else { String::new() };
        let charset = if n == 0 { "utf-8''" } else { "" };
        let end = if n + 1 < pieces.len() { ";" } else { "" };
        out.extend_from_slice(format!(" filename{section}*={charset}{piece}{end}\r\n").as_bytes());
    }
}

/// A file name in ASCII that is near the given one: letters lose their marks, everything else becomes `_`, and the ending stays.
fn ascii_name(filename: &str) -> String {
    let is_mark = |c: &char| unicode_normalization::char::is_combining_mark(*c);
    let plain = |c: char| match c {
        'ß' => "ss".to_owned(),
        'æ' | 'Æ' => "ae".to_owned(),
        'ø' | 'Ø' => "o".to_owned(),
        'ł' | 'Ł' => "l".to_owned(),
        c if matches!(c, ' '..='~') && !"\"%\\=?".contains(c) => c.to_string(),
        _ => "_".to_owned(),
    };
    let name: String = filename.nfkd().filter(|c| !is_mark(c)).map(plain).collect();
    let name = name.trim();
    let (stem, ending) = match name.rsplit_once('.') {
        Some((stem, ending)) if ending.len() < ENDING_BYTES_MAX => (stem, format!(".{ending}")),
        _ => (name, String::new()),
    };
    let stem: String = stem.chars().take(PLAIN_FILENAME_MAX - ending.len()).collect();
    format!("{stem}{ending}")
}

/// Percent-encoded (RFC 2231 7, attribute-char), cut between characters so that each piece decodes by itself.
fn encoded_pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut buffer = [0; 4];
    for c in text.chars() {
        let mut encoded = String::new();
        for &b in c.encode_utf8(&mut buffer).as_bytes() {
            match b.is_ascii_alphanumeric() || b"-._".contains(&b) {
                true => encoded.push(char::from(b)),
                false => encoded.push_str(&format!("%{b:02X}")),
            }
        }
        let last = pieces.last_mut().expect("there is always a piece");
        match last.len() + encoded.len() > FILENAME_PIECE {
            true => pieces.push(encoded),
            false => last.push_str(&encoded),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_about_a_file_is_checked() {
        for (name, kind, id) in [
            ("a.pdf", "application/pdf", None),
            ("Übersicht 飛脚.csv", "text/csv; charset=utf-8", None),
            ("100%.png", "image/svg+xml", Some("logo.1@example.org")),
        ] {
            assert_eq!(check_attachment(name, kind, id), Ok(()), "{name}");
        }
        let long = "x".repeat(256);
        for (name, kind, id, field) in [
            ("", "a/b", None, "filename"),
            ("  ", "a/b", None, "filename"),
            (long.as_str(), "a/b", None, "filename"),
            ("../a", "a/b", None, "filename"),
            ("a\r\nBcc: x", "a/b", None, "filename"),
            ("a\u{2028}b", "a/b", None, "filename"),
            ("a", "pdf", None, "content_type"),
            ("a", "a/b\r\nX: y", None, "content_type"),
            ("a", "a/b; x", None, "content_type"),
            ("a", "multipart/mixed; boundary=x", None, "content_type"),
            ("a", "message/rfc822", None, "content_type"),
            ("a", "image/png", Some(""), "content_id"),
            ("a", "image/png", Some("a>\r\nX: y"), "content_id"),
        ] {
            assert_eq!(
                check_attachment(name, kind, id).map_err(|(field, _)| field),
                Err(field),
                "{name} {kind} {id:?}"
            );
        }
    }

    fn disposition(name: &str) -> String {
        let mut out = Vec::new();
        push_disposition(&mut out, "attachment", name);
        String::from_utf8(out).unwrap().replace("\r\n", "\n")
    }

    #[test]
    fn a_file_name_is_plain_or_by_rfc_2231() {
        assert_eq!(disposition("a b.pdf"), "Content-Disposition: attachment;\n filename=\"a b.pdf\"\n");
        assert_eq!(
            disposition("ü\".pdf"),
            "Content-Disposition: attachment;\n filename=\"u_.pdf\";\n filename*=utf-8''%C3%BC%22.pdf\n"
        );
        let long = disposition(&"飛".repeat(12));
        assert_eq!(
            long,
            format!(
                "Content-Disposition: attachment;\n filename=\"{}\";\n filename*0*=utf-8''{};\n filename*1*={};\n filename*2*={}\n",
                "_".repeat(12),
                "%E9%A3%9B".repeat(5),
                "%E9%A3%9B".repeat(5),
                "%E9%A3%9B".repeat(2)
            )
        );
        assert!(disposition(&"é".repeat(127)).lines().all(|line| line.len() <= 78));
    }

    #[test]
    fn the_ascii_name_is_near_the_given_one() {
        for (name, ascii) in [
            ("Übersicht Größe.pdf", "Ubersicht Grosse.pdf"),
            ("飛脚 2026.csv", "__ 2026.csv"),
            ("e\u{301}te\u{301}.tar.gz", "ete.tar.gz"),
            ("100%.png", "100_.png"),
            ("ﬁle.txt", "file.txt"),
        ] {
            assert_eq!(ascii_name(name), ascii);
        }
        let long = ascii_name(&format!("{}.xlsx", "é".repeat(100)));
        assert_eq!((long.len(), long.ends_with("e.xlsx")), (PLAIN_FILENAME_MAX, true));
    }
}
