//! A request body on its way in: unpacked, counted, hashed, bounded. Never holds more than one buffer of it.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use aws_lc_rs::digest;
use flate2::read::MultiGzDecoder;

use super::problem::{AcceptError, FieldProblem};

/// Most bytes of one value in a list of a body: a recipient, a contact, a CSV row. The fields beside the list have a limit of
/// their own.
pub const VALUE_BYTES_MAX: u64 = 1024 * 1024;
/// How much larger than its packed form a gzip body may be. Lists of recipients reach about 40; what
/// goes far beyond that is made to keep us busy.
pub const GZIP_RATIO_MAX: u64 = 300;
/// Bytes that any gzip body may unpack to, whatever the ratio.
const GZIP_FREE_BYTES: u64 = 1024 * 1024;
/// After a fatal problem so many bytes are still read: a client that is writing its body would find the
/// connection reset before it can read what was wrong.
const DRAIN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes read at a time.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// Why a body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyFault {
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("a value is longer than {0} bytes")]
    ValueTooLong(u64),
    #[error("the body unpacks to more than {GZIP_RATIO_MAX} times its size")]
    Bomb,
    #[error("the body is not valid gzip")]
    Gzip,
    #[error("the table is not valid {0}; say what it is, as charset=windows-1252, or save it as UTF-8")]
    Charset(&'static str),
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the connection broke off")]
    Disconnected,
}

impl From<BodyFault> for AcceptError {
    fn from(fault: BodyFault) -> Self {
        let malformed = |code| AcceptError::Malformed(FieldProblem::new("#", code, fault.to_string()));
        match fault {
            BodyFault::TooLarge(limit) => AcceptError::TooLarge { limit },
            BodyFault::ValueTooLong(_) => AcceptError::invalid(FieldProblem::new("#", "too_long", fault.to_string())),
            BodyFault::Bomb => AcceptError::invalid(FieldProblem::new("#", "gzip_ratio", fault.to_string())),
            BodyFault::Gzip => malformed("invalid_gzip"),
            BodyFault::Charset(_) => malformed("invalid_charset"),
            BodyFault::TooSlow => AcceptError::TooSlow,
            BodyFault::Disconnected => AcceptError::Disconnected,
        }
    }
}

impl From<io::Error> for BodyFault {
    /// Our own faults travel through the parsers inside an [`io::Error`]; here they come out again.
    fn from(e: io::Error) -> Self {
        let is_slow = e.kind() == io::ErrorKind::TimedOut;
        match e.downcast::<BodyFault>() {
            Ok(fault) => fault,
            Err(_) if is_slow => BodyFault::TooSlow,
            Err(_) => BodyFault::Disconnected,
        }
    }
}

/// How many bytes were read since the last value began, and how many it may have. Clones share both.
#[derive(Debug, Clone)]
pub(super) struct Meter(Rc<(Cell<u64>, Cell<u64>)>);

impl Meter {
    fn new() -> Self {
        Self(Rc::new((Cell::new(0), Cell::new(VALUE_BYTES_MAX))))
    }

    /// A new value begins. Returns the bytes read for the one before, give or take a buffer.
    pub fn restart(&self) -> u64 {
        self.0.0.replace(0)
    }

    /// From here on a value may have so many bytes.
    pub fn allow(&self, bytes_max: u64) {
        self.0.1.set(bytes_max);
    }

    /// # Errors
    /// The value is longer than it may be.
    fn count(&self, n: usize) -> Result<(), BodyFault> {
        let (bytes, bytes_max) = (&self.0.0, self.0.1.get());
        bytes.set(bytes.get() + n as u64);
        match bytes.get() > bytes_max + BUFFER_BYTES as u64 {
            true => Err(BodyFault::ValueTooLong(bytes_max)),
            false => Ok(()),
        }
    }
}

/// The decoded body. Reading it to the end gives its hash.
pub(super) struct Decoded<R> {
    source: Source<R>,
    hash: digest::Context,
    bytes: u64,
    bytes_max: u64,
    meter: Meter,
}

enum Source<R> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<Counted<R>>>),
}

impl<R: Read> Decoded<R> {
    /// `preface` is what the request says outside its body; it counts for the hash.
    pub fn new(raw: R, is_gzip: bool, bytes_max: u64, preface: &[u8]) -> Self {
        let source = match is_gzip {
            true => Source::Gzip(Box::new(MultiGzDecoder::new(Counted {
                inner: raw,
                bytes: 0,
                fault: None,
            }))),
            false => Source::Plain(raw),
        };
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(preface);
        Self {
            source,
            hash,
            bytes: 0,
            bytes_max,
            meter: Meter::new(),
        }
    }

    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Reads what is left, for its hash alone.
    pub fn read_out(&mut self) -> Result<(), BodyFault> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.read(&mut buffer)? > 0 {
            self.meter.restart();
        }
        Ok(())
    }

    /// Reads on for a while after a problem, so that the client comes to read the answer.
    pub fn drain(&mut self) {
        self.bytes_max = self.bytes_max.min(self.bytes + DRAIN_BYTES_MAX);
        // Whatever ends it, the answer is settled already.
        let _ = self.read_out();
    }

    /// SHA-256 of what was read, in hex.
    pub fn hash(self) -> String {
        hex(self.hash.finish().as_ref())
    }

    fn read_source(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Plain(raw) => raw.read(buffer),
            Source::Gzip(unpacker) => {
                let n = unpacker
                    .read(buffer)
                    .map_err(|e| unpacker.get_mut().fault.take().unwrap_or_else(|| gzip_fault(e)))?;
                if self.bytes + n as u64 > GZIP_FREE_BYTES + GZIP_RATIO_MAX * unpacker.get_ref().bytes {
                    return Err(io::Error::other(BodyFault::Bomb));
                }
                Ok(n)
            }
        }
    }
}

/// The unpacker's errors are about the packed form; a connection that broke off left its own behind.
fn gzip_fault(_: io::Error) -> io::Error {
    io::Error::other(BodyFault::Gzip)
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.read_source(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        if self.bytes > self.bytes_max {
            return Err(io::Error::other(BodyFault::TooLarge(self.bytes_max)));
        }
        self.meter.count(n).map_err(io::Error::other)?;
        Ok(n)
    }
}

/// The packed body: counts its bytes, and keeps the error of a connection that broke off.
struct Counted<R> {
    inner: R,
    bytes: u64,
    fault: Option<io::Error>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(n) => {
                self.bytes += n as u64;
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                self.fault = Some(e);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

/// SHA-256 of a text, in hex.
pub(super) fn sha256_hex(text: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, text).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(plain: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(plain).unwrap();
        packer.finish().unwrap()
    }

    fn read_out(raw: &[u8], is_gzip: bool, max: u64) -> Result<String, BodyFault> {
        let mut body = Decoded::new(raw, is_gzip, max, b"");
        body.read_out()?;
        Ok(body.hash())
    }

    #[test]
    fn packed_and_plain_bodies_have_one_hash() {
        let plain = b"{\"subject\":\"Hi\"}".repeat(40);
        assert_eq!(read_out(&plain, false, 10_000), read_out(&packed(&plain), true, 10_000));
    }

    #[test]
    fn a_body_over_the_limit_is_refused_however_it_is_packed() {
        let plain = vec![b'x'; 5_000];
        assert_eq!(read_out(&plain, false, 4_999), Err(BodyFault::TooLarge(4_999)));
        assert_eq!(read_out(&packed(&plain), true, 4_999), Err(BodyFault::TooLarge(4_999)));
    }

    #[test]
    fn a_gzip_bomb_is_refused_early() {
        let bomb = packed(&vec![b' '; 8 * 1024 * 1024]);
        assert_eq!(read_out(&bomb, true, u64::MAX), Err(BodyFault::Bomb));
    }

    #[test]
    fn broken_or_shortened_gzip_is_told_from_a_broken_connection() {
        let good = packed(b"some text");
        assert_eq!(read_out(b"not gzip at all", true, 100), Err(BodyFault::Gzip));
        assert_eq!(read_out(&good[..good.len() - 4], true, 100), Err(BodyFault::Gzip));
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let mut body = Decoded::new((&good[..5]).chain(Broken), true, 100, b"");
        assert_eq!(body.read_out(), Err(BodyFault::Disconnected));
    }
}
