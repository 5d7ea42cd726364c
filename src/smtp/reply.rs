//! A relay's answer, read within bounds. Never trusts a byte of it: a reply that breaks the grammar
//! is an error, because after it nobody knows which answer belongs to which command.

use std::fmt;

use crate::domain::message::{REPLY_TEXT_MAX, ReplyNote, clip};

/// Longest reply line, in bytes. RFC 5321 4.5.3.1.5 allows 512; real servers put links and whole
/// policies in, and eight times that is enough for all of them.
pub const LINE_LEN_MAX: usize = 4 * 1024;
/// Most lines in one reply. The longest known EHLO replies have about 30.
pub const LINES_MAX: usize = 100;
/// Longest reply, in bytes. What a server sends beyond it is an attack or a broken server.
pub const REPLY_LEN_MAX: usize = 64 * 1024;

/// One whole reply: the code of its lines, the enhanced code if there is a valid one, and the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits, 200 to 599.
    pub code: u16,
    pub enhanced: Option<Enhanced>,
    /// The text without codes, lines separated by `\n`, control characters made spaces.
    pub text: String,
}

impl Reply {
    /// The first digit, the only one a client may act on (RFC 5321 4.3.2).
    #[must_use]
    pub fn digit(&self) -> u8 {
        u8::try_from(self.code / 100).expect("a code has three digits")
    }

    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.digit() == 2
    }

    /// 4yz or 5yz: the command was understood and refused.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.digit(), 4 | 5)
    }

    /// 421 may answer any command and always means that the server closes the connection
    /// (RFC 5321 3.8).
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.code == 421
    }

    /// As it is kept and shown.
    #[must_use]
    pub fn note(&self) -> ReplyNote {
        ReplyNote {
            code: Some(self.code),
            enhanced: self.enhanced.map(|e| e.to_string()),
            text: clip(&self.text, REPLY_TEXT_MAX),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        write!(f, " {}", clip(&self.text, REPLY_TEXT_MAX))
    }
}

/// An enhanced status code (RFC 3463), such as `5.1.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced {
    pub class: u8,
    pub subject: u16,
    pub detail: u16,
}

impl Enhanced {
    /// Splits a leading enhanced code off a reply text. It counts only if it has exactly three
    /// numbers and its class is the first digit of the code (RFC 2034 4).
    fn split_off(text: &str, digit: u8) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut numbers = word.split('.');
        let class = number(numbers.next()?)?;
        let (subject, detail) = (number(numbers.next()?)?, number(numbers.next()?)?);
        if numbers.next().is_some() || class != u16::from(digit) {
            return None;
        }
        Some((
            Self {
                class: digit,
                subject,
                detail,
            },
            rest,
        ))
    }
}

/// One to three digits and nothing else.
fn number(text: &str) -> Option<u16> {
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// Reads one reply from the front of `bytes`: the reply and how many bytes it took, or `None` when
/// more bytes are needed. A bare LF ends a line as CRLF does; text need not be UTF-8.
///
/// # Errors
/// What breaks the grammar or the limits, as a phrase. The connection is out of step from then on.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let mut reply: Option<Reply> = None;
    let mut at = 0;
    for _ in 0..LINES_MAX {
        let rest = &bytes[at..];
        let Some(len) = rest.iter().position(|&b| b == b'\n') else {
            return match rest.len() > LINE_LEN_MAX {
                true => Err(format!("a reply line of more than {LINE_LEN_MAX} bytes")),
                false => Ok(None),
            };
        };
        at += len + 1;
        if len > LINE_LEN_MAX {
            return Err(format!("a reply line of more than {LINE_LEN_MAX} bytes"));
        }
        if at > REPLY_LEN_MAX {
            return Err(format!("a reply of more than {REPLY_LEN_MAX} bytes"));
        }
        let line = Line::parse(&rest[..len])?;
        let whole = reply.get_or_insert_with(|| Reply {
            code: line.code,
            enhanced: None,
            text: String::new(),
        });
        if whole.code != line.code {
            return Err(format!("one reply with two codes, {} and {}", whole.code, line.code));
        }
        append(whole, &line.text);
        if line.is_last {
            return Ok(reply.map(|whole| (whole, at)));
        }
    }
    Err(format!("a reply of more than {LINES_MAX} lines"))
}

fn append(reply: &mut Reply, text: &str) {
    let text = match Enhanced::split_off(text, reply.digit()) {
        Some((enhanced, rest)) => {
            reply.enhanced.get_or_insert(enhanced);
            rest
        }
        None => text,
    };
    if !reply.text.is_empty() {
        reply.text.push('\n');
    }
    reply
        .text
        .extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
}

struct Line {
    code: u16,
    is_last: bool,
    text: String,
}

impl Line {
    fn parse(line: &[u8]) -> Result<Self, String> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let not_a_reply = || {
            let shown = String::from_utf8_lossy(&line[..line.len().min(40)]);
            format!("a line that is no reply: '{}'", shown.escape_debug())
        };
        let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = line else {
            return Err(not_a_reply());
        };
        let code = [a, b, c]
            .into_iter()
            .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let (is_last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(not_a_reply()),
        };
        Ok(Self {
            code,
            is_last,
            text: String::from_utf8_lossy(text).trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Reply {
        let (reply, used) = parse(bytes).unwrap().unwrap();
        assert_eq!(used, bytes.len());
        reply
    }

    #[test]
    fn replies_are_read_with_their_codes_and_text() {
        for (bytes, shown) in [
            (&b"250 ok\r\n"[..], "250 ok"),
            (b"250\r\n", "250 "),
            (b"250 \n", "250 "),
            (b"550 5.1.1 no such user\r\n", "550 5.1.1 no such user"),
            (b"550-5.7.26 line one\r\n550 5.7.26 line two\r\n", "550 5.7.26 line one line two"),
            (b"550-first\r\n550 5.1.1 second\r\n", "550 5.1.1 first second"),
            (b"451 4.7.500 busy\r\n", "451 4.7.500 busy"),
            (b"250 \xff\xfe caf\xc3\xa9\r\n", "250 \u{fffd}\u{fffd} café"),
            (b"250 a\x1b[31mb\r\n", "250 a [31mb"),
        ] {
            assert_eq!(whole(bytes).to_string(), shown);
        }
    }

    #[test]
    fn an_enhanced_code_counts_only_when_whole_and_of_the_same_class() {
        for text in [
            "5.1",
            "5.1.1.1",
            "4.1.1",
            "5.1.",
            "5..1",
            "5.1.1234",
            "5.1.1x no",
            "x.1.1",
            "5.1.-1",
            "٥.1.1",
        ] {
            let reply = whole(format!("550 {text}\r\n").as_bytes());
            assert_eq!((reply.enhanced, reply.text.as_str()), (None, text));
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_an_error() {
        for bytes in [
            &b"25 ok\r\n"[..],
            b"2500 ok\r\n",
            b"150 ok\r\n",
            b"650 ok\r\n",
            b"abc\r\n",
            b"\r\n",
            b"250+ok\r\n",
            b"250-a\r\n550 b\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
        ] {
            assert!(parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn replies_are_bounded_in_line_lines_and_length() {
        let long = [b"250 ".as_slice(), &vec![b'x'; LINE_LEN_MAX]].concat();
        assert!(parse(&long).unwrap_err().contains("line of more than"), "no newline needed to refuse it");
        let endless = b"250-x\r\n".repeat(LINES_MAX);
        assert!(parse(&endless).unwrap_err().contains("lines"));
        let heavy = [b"250-".as_slice(), &vec![b'x'; LINE_LEN_MAX - 10], b"\r\n"]
            .concat()
            .repeat(17);
        assert!(parse(&heavy).unwrap_err().contains("65536 bytes"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_reply_is_the_same_however_it_is_split(
            code in 200u16..600,
            lines in proptest::collection::vec("[ -~]{0,60}", 1..5),
            tail in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = Vec::new();
            for (n, line) in lines.iter().enumerate() {
                let mark = if n + 1 == lines.len() { ' ' } else { '-' };
                bytes.extend_from_slice(format!("{code}{mark}{line}\r\n").as_bytes());
            }
            let len = bytes.len();
            for cut in 0..len {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(None));
            }
            bytes.extend_from_slice(&tail);
            let (reply, used) = parse(&bytes).unwrap().unwrap();
            prop_assert_eq!((reply.code, used), (code, len));
        }
    }
}
