//! The content of a message as it goes on the wire after DATA. Never changes what the receiver
//! reads, apart from line ends, which SMTP fixes.

/// Appends `body` with every line end made CRLF, every line that starts with a dot given a second
/// one (RFC 5321 4.5.2), and the end of data: exactly one `CRLF.CRLF` and no blank line more.
///
/// Bare CR and bare LF become CRLF *before* the dots are doubled: servers differ in what they take
/// for a line end, and a `LF.CRLF` that passes undoubled ends the message for some of them and
/// smuggles in another (RFC 5321 2.3.8).
pub fn append_data(out: &mut Vec<u8>, body: &[u8]) {
    // Mail has a line end every 76 bytes or so, and dots at line starts are rare.
    out.reserve(body.len() + body.len() / 64 + 16);
    let mut rest = body;
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
        rest = after;
    }
    out.extend_from_slice(b".\r\n");
}

fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let Some(end) = text.iter().position(|&b| b == b'\r' || b == b'\n') else {
        return (text, &[]);
    };
    let skip = if text[end..].starts_with(b"\r\n") { 2 } else { 1 };
    (&text[..end], &text[end + skip..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append_data(&mut out, body);
        out
    }

    #[test]
    fn lines_end_in_crlf_and_dots_are_doubled() {
        for (body, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a\r\n\r\n", b"a\r\n\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".a\r\n..\r\n", b"..a\r\n...\r\n.\r\n"),
            (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\rb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\r\nRCPT TO:<x@y>\r\n", b"a\r\n..\r\nRCPT TO:<x@y>\r\n.\r\n"),
            (b"a\n\r\n", b"a\r\n\r\n.\r\n"),
        ] {
            assert_eq!(data(body).escape_ascii().to_string(), wire.escape_ascii().to_string());
        }
    }

    proptest! {
        #[test]
        fn the_end_of_data_stands_once_and_at_the_end(body in "[.\r\nab]{0,200}") {
            let wire = data(body.as_bytes());
            let with_command_end = [b"\r\n", wire.as_slice()].concat();
            let ends = with_command_end.windows(5).filter(|w| w == b"\r\n.\r\n").count();
            prop_assert_eq!(ends, 1);
            prop_assert!(with_command_end.ends_with(b"\r\n.\r\n"));
            let bare = wire.windows(2).any(|w| (w[0] == b'\r') != (w[1] == b'\n'));
            prop_assert!(!bare, "a bare CR or LF is left");
        }

        #[test]
        fn the_receiver_reads_what_was_written(lines in proptest::collection::vec("[.a-c ]{0,6}", 0..30)) {
            let body: String = lines.iter().map(|l| format!("{l}\r\n")).collect();
            let wire = String::from_utf8(data(body.as_bytes())).unwrap();
            let read: String = wire
                .strip_suffix(".\r\n")
                .unwrap()
                .split_inclusive("\r\n")
                .map(|l| l.strip_prefix('.').unwrap_or(l))
                .collect();
            prop_assert_eq!(read, body);
        }
    }
}
