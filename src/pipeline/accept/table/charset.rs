//! A table's bytes as UTF-8, whatever they were saved as: UTF-8, UTF-16 with a byte order mark, or what the request says.
//! Never guesses: without a mark and a word it is UTF-8.

use std::io::{self, BufRead, BufReader, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};

use super::super::body::{BUFFER_BYTES, BodyFault};

/// A character encoding that a table may be saved in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset(&'static Encoding);

impl Charset {
    /// By a name of the WHATWG Encoding Standard, such as `utf-8`, `utf-16le`, `windows-1252` or `iso-8859-1`.
    ///
    /// # Errors
    /// A sentence that names some that are known.
    pub fn parse(name: &str) -> Result<Self, String> {
        match Encoding::for_label_no_replacement(name.trim().as_bytes()) {
            Some(encoding) => Ok(Self(encoding)),
            None => {
                let shown: String = name.chars().take(40).collect();
                Err(format!(
                    "the character set '{}' is not known; use utf-8, utf-16le, utf-16be, windows-1252 or another name of the \
                     WHATWG Encoding Standard",
                    shown.escape_debug()
                ))
            }
        }
    }
}

/// A table's text as UTF-8, without a byte order mark. What claims to be UTF-8 is passed on unchecked, so that a bad cell is
/// its row's problem alone.
pub(super) struct Text<R> {
    raw: BufReader<R>,
    charset: Option<Charset>,
    /// What changes the encoding; `None` for UTF-8. Unset until the first bytes were seen.
    decoder: Option<Option<Decoder>>,
    decoded: Vec<u8>,
    /// How much of `decoded` was taken.
    taken: usize,
    is_over: bool,
}

impl<R: Read> Text<R> {
    /// `charset` is what is said about the text; a byte order mark knows better.
    pub fn new(raw: R, charset: Option<Charset>) -> Self {
        Self {
            raw: BufReader::with_capacity(BUFFER_BYTES, raw),
            charset,
            decoder: None,
            decoded: Vec::new(),
            taken: 0,
            is_over: false,
        }
    }

    /// Looks at the first bytes for a byte order mark, and takes that of UTF-8 away.
    fn begin(&mut self) -> io::Result<()> {
        let mut start = [0; 3];
        let mut n = 0;
        while n < start.len() {
            match self.raw.read(&mut start[n..]) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let start = &start[..n];
        let (encoding, mark) = Encoding::for_bom(start).unwrap_or((self.charset.map_or(UTF_8, |c| c.0), 0));
        let mut decoder = (encoding != UTF_8).then(|| encoding.new_decoder_without_bom_handling());
        match &mut decoder {
            None => self.decoded.extend_from_slice(&start[mark..]),
            Some(decoder) => decode(decoder, &start[mark..], false, &mut self.decoded)?,
        }
        self.decoder = Some(decoder);
        Ok(())
    }

    fn decode_more(&mut self) -> io::Result<()> {
        let Some(Some(decoder)) = &mut self.decoder else {
            return Ok(());
        };
        self.decoded.clear();
        self.taken = 0;
        while self.decoded.is_empty() && !self.is_over {
            let piece = self.raw.fill_buf()?;
            self.is_over = piece.is_empty();
            decode(decoder, piece, self.is_over, &mut self.decoded)?;
            let n = piece.len();
            self.raw.consume(n);
        }
        Ok(())
    }
}

/// Appends `bytes` as UTF-8.
///
/// # Errors
/// They are not of the encoding.
fn decode(decoder: &mut Decoder, bytes: &[u8], is_last: bool, out: &mut Vec<u8>) -> io::Result<()> {
    let room = decoder
        .max_utf8_buffer_length_without_replacement(bytes.len())
        .ok_or(io::ErrorKind::OutOfMemory)?;
    let start = out.len();
    out.resize(start + room, 0);
    let (result, _, written) = decoder.decode_to_utf8_without_replacement(bytes, &mut out[start..], is_last);
    out.truncate(start + written);
    match result {
        DecoderResult::InputEmpty => Ok(()),
        _ => Err(io::Error::other(BodyFault::Charset(decoder.encoding().name()))),
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: Read> BufRead for Text<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.decoder.is_none() {
            self.begin()?;
        }
        if self.taken < self.decoded.len() {
            return Ok(&self.decoded[self.taken..]);
        }
        match &self.decoder {
            Some(Some(_)) => {
                self.decode_more()?;
                Ok(&self.decoded)
            }
            _ => self.raw.fill_buf(),
        }
    }

    fn consume(&mut self, n: usize) {
        match self.taken < self.decoded.len() {
            true => self.taken += n,
            false => self.raw.consume(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, as a slow line does.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(1).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn read(bytes: &[u8], charset: Option<&str>) -> Result<String, BodyFault> {
        let charset = charset.map(|name| Charset::parse(name).unwrap());
        let mut text = String::new();
        Text::new(Slow(bytes), charset).read_to_string(&mut text)?;
        Ok(text)
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn a_mark_tells_the_encoding_and_is_no_text() {
        let text = "email;name\r\nzoë@example.org;Zoë 🦊";
        let marked = format!("\u{feff}{text}");
        for bytes in [
            text.as_bytes().to_vec(),
            marked.clone().into_bytes(),
            utf16(&marked, u16::to_le_bytes),
            utf16(&marked, u16::to_be_bytes),
        ] {
            assert_eq!(read(&bytes, None).as_deref(), Ok(text));
            assert_eq!(read(&bytes, Some("utf-8")).as_deref(), Ok(text));
        }
        assert_eq!(read(&utf16(text, u16::to_le_bytes), Some("utf-16le")).as_deref(), Ok(text));
        assert_eq!(read(b"Zo\xeb \x80", Some("windows-1252")).as_deref(), Ok("Zoë €"));
        assert_eq!(read(b"", None).as_deref(), Ok(""));
        assert_eq!(read(b"a", None).as_deref(), Ok("a"));
    }

    #[test]
    fn what_is_not_of_its_encoding_is_refused() {
        let mut odd = utf16("\u{feff}ab", u16::to_le_bytes);
        odd.pop();
        assert_eq!(read(&odd, None), Err(BodyFault::Charset("UTF-16LE")));
        assert_eq!(read(b"\xff\xfe\x00\xd8a\x00", None), Err(BodyFault::Charset("UTF-16LE")));
        assert_eq!(read(b"\x81\xff", Some("shift_jis")), Err(BodyFault::Charset("Shift_JIS")));
        assert!(Charset::parse("klingon").unwrap_err().contains("windows-1252"));
        assert!(Charset::parse("replacement").is_err());
    }
}
