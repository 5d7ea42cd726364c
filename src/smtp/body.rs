//! The content of a message as it goes on the wire after DATA or BDAT. Never changes what the receiver
//! reads, apart from line ends, which SMTP fixes; and it is the same by either way.

/// Appends `body` with every line end made CRLF, every line that starts with a dot given a second
/// one (RFC 5321 4.5.2), and the end of data: exactly one `CRLF.CRLF` and no blank line more.
///
/// Bare CR and bare LF become CRLF *before* the dots are doubled: servers differ in what they take
/// for a line end, and a `LF.CRLF` that passes undoubled ends the message for some of them and
/// smuggles in another (RFC 5321 2.3.8).
pub fn append_data(out: &mut Vec<u8>, body: &[u8]) {
    append_lines(out, body, true);
    out.extend_from_slice(b".\r\n");
}

/// Appends `body` as one chunk with its command, `BDAT size LAST` (RFC 3030 2): line ends are made CRLF as above, and no dot is
/// doubled, because the size says where it ends.
pub fn append_chunk(out: &mut Vec<u8>, body: &[u8]) {
    let from = out.len();
    append_lines(out, body, false);
    let command = format!("BDAT {} LAST\r\n", out.len() - from);
    out.splice(from..from, command.into_bytes());
}

fn append_lines(out: &mut Vec<u8>, body: &[u8], doubles_dots: bool) {
    // Mail has a line end every 76 bytes or so, and dots at line starts are rare.
    out.reserve(body.len() + body.len() / 64 + 64);
    let mut rest = body;
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        if doubles_dots && line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
        rest = after;
    }
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

    #[test]
    fn a_chunk_says_its_size_and_doubles_no_dot() {
        for (body, wire) in [
            (&b""[..], &b"BDAT 0 LAST\r\n"[..]),
            (b"a", b"BDAT 3 LAST\r\na\r\n"),
            (b".\n.a\r", b"BDAT 7 LAST\r\n.\r\n.a\r\n"),
        ] {
            let mut out = b"before".to_vec();
            append_chunk(&mut out, body);
            assert_eq!(out.escape_ascii().to_string(), [b"before", wire].concat().escape_ascii().to_string());
        }
    }

    proptest! {
        #[test]
        fn both_ways_carry_the_same_content(body in "[.\r\nab]{0,200}") {
            let mut chunk = Vec::new();
            append_chunk(&mut chunk, body.as_bytes());
            let content = chunk.splitn(2, |&b| b == b'\n').nth(1).unwrap();
            let data = String::from_utf8(data(body.as_bytes())).unwrap();
            let undone: String = data
                .strip_suffix(".\r\n")
                .unwrap()
                .split_inclusive("\r\n")
                .map(|l| l.strip_prefix('.').unwrap_or(l))
                .collect();
            prop_assert_eq!(content, undone.as_bytes());
        }

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
