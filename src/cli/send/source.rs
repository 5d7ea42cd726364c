//! The recipients on their way from a file into the request: read on a thread of its own, a piece at a time, so that memory
//! stays flat however many there are. Only changes the form: whether somebody can be mailed is for the server to say.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::super::exit::{Exit, Failed};
use super::super::terminal::{note, plural};

/// Bytes of the request that are handed on at a time: few enough to be nothing, enough to be one write.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that may wait for the network before the reading waits too.
const PIECES_WAITING: usize = 4;
/// How long the reading thread has to say why it broke a request off.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Rows that are named when they were left out; the first ones tell the pattern.
const SKIPPED_SHOWN: usize = 5;

/// Who gets it, as far as the command line says it.
pub struct Audience {
    input: Option<Input>,
    permissive: bool,
}

/// A file of recipients.
struct Input {
    name: String,
    /// The file, opened before anything else happens; `None` when it must be opened anew, or for standard input.
    first: Option<File>,
    is_stdin: bool,
    len: Option<u64>,
    read: Arc<AtomicU64>,
}

/// A request's body and the thread that fills it.
pub struct Feed {
    pub body: reqwest::Body,
    pub content_type: &'static str,
    pub reader: Reader,
}

/// The thread that reads the file.
pub struct Reader {
    name: String,
    thread: Option<JoinHandle<Result<Vec<String>, Fault>>>,
}

/// Why reading ended early.
enum Fault {
    /// The file is at fault; the sentence says where and how.
    Input(String),
    /// The request ended first, so nobody wants the rest.
    NobodyReads,
}

impl Audience {
    /// Opens the file of recipients, if one is named.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(to: Option<&str>, permissive: bool) -> Result<Self, Failed> {
        let Some(name) = to else {
            return Ok(Self {
                input: None,
                permissive,
            });
        };
        let is_stdin = name == "-";
        let (mut first, mut len) = (None, None);
        if !is_stdin {
            let failed = |e: io::Error| Failed::usage(format!("--to {name}: {e}"));
            let file = File::open(name).map_err(failed)?;
            let about = file.metadata().map_err(failed)?;
            if about.is_dir() {
                return Err(Failed::usage(format!("--to {name}: this is a directory; name a file")));
            }
            len = about.is_file().then_some(about.len());
            first = Some(file);
        }
        let name = if is_stdin {
            "standard input".to_owned()
        } else {
            name.to_owned()
        };
        Ok(Self {
            input: Some(Input {
                name,
                first,
                is_stdin,
                len,
                read: Arc::default(),
            }),
            permissive,
        })
    }

    /// Bytes of the file; `None` when there is none or its length is not known.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        self.input.as_ref()?.len
    }

    /// Bytes of the file that were read.
    #[must_use]
    pub fn read_so_far(&self) -> u64 {
        self.input
            .as_ref()
            .map_or(0, |input| input.read.load(Ordering::Relaxed))
    }

    /// Whether the request can be made a second time: what came through a pipe is gone.
    #[must_use]
    pub fn can_be_read_again(&self) -> bool {
        self.input.as_ref().is_none_or(|input| input.len.is_some())
    }

    /// The body of the request: `head`, then the recipients of the file.
    ///
    /// # Errors
    /// When the file cannot be opened again.
    pub fn feed(&mut self, head: &Map<String, Value>) -> Result<Feed, Failed> {
        let head = serde_json::to_vec(head).expect("a JSON object always serialises");
        let Some(input) = &mut self.input else {
            let reader = Reader {
                name: String::new(),
                thread: None,
            };
            return Ok(Feed {
                body: head.into(),
                content_type: "application/json",
                reader,
            });
        };
        input.read.store(0, Ordering::Relaxed);
        let raw: Box<dyn Read + Send> = match (input.is_stdin, input.first.take()) {
            (true, _) => Box::new(io::stdin()),
            (false, Some(file)) => Box::new(file),
            (false, None) => {
                Box::new(File::open(&input.name).map_err(|e| Failed::usage(format!("--to {}: {e}", input.name)))?)
            }
        };
        let counted = Counted {
            inner: raw,
            read: Arc::clone(&input.read),
        };
        let (out, pieces) = mpsc::channel(PIECES_WAITING);
        let (permissive, name) = (self.permissive, input.name.clone());
        // What the form is shows in the first bytes, and the server must know it before: so everything becomes NDJSON.
        let thread = tokio::task::spawn_blocking(move || {
            let mut out = Pieces { out, held: head };
            out.line_end()?;
            let read = copy(counted, &mut out, permissive);
            match &read {
                Ok(_) => out.flush()?,
                Err(_) => out.break_off(),
            }
            read
        });
        Ok(Feed {
            body: reqwest::Body::wrap_stream(ReceiverStream::new(pieces)),
            content_type: "application/x-ndjson",
            reader: Reader {
                name,
                thread: Some(thread),
            },
        })
    }
}

impl Reader {
    /// Waits for the thread and says what it left out. A request that was not taken (`is_taken`) does not wait long: the thread
    /// may be stuck in a pipe that nobody writes to.
    ///
    /// # Errors
    /// When the file was at fault: that is why the request broke off.
    pub async fn finish(self, is_taken: bool) -> Result<(), Failed> {
        let Some(thread) = self.thread else {
            return Ok(());
        };
        let patience = if is_taken { Duration::MAX } else { LAST_WORDS };
        let Ok(ended) = tokio::time::timeout(patience, thread).await else {
            return Ok(());
        };
        match ended {
            Ok(Ok(skipped)) => {
                if !skipped.is_empty() {
                    note(format_args!("{} of {} left out:", plural(skipped.len() as i64, "row"), self.name));
                }
                skipped
                    .iter()
                    .take(SKIPPED_SHOWN)
                    .for_each(|why| note(format_args!("  {why}")));
                Ok(())
            }
            Ok(Err(Fault::Input(why))) => Err(Failed::new(Exit::Refused, format!("{}: {why}", self.name))),
            Ok(Err(Fault::NobodyReads)) => Ok(()),
            Err(e) => Err(Failed::here(format!("reading {} stopped: {e}", self.name))),
        }
    }
}

/// Copies all recipients as NDJSON lines, whatever their form. Returns why rows were left out.
fn copy(raw: impl Read, out: &mut Pieces, permissive: bool) -> Result<Vec<String>, Fault> {
    let mut packed = BufReader::with_capacity(PIECE_BYTES, raw);
    // RFC 1952 2.3.1: the two bytes that every gzip file starts with.
    match peek(&mut packed)?.starts_with(&[0x1f, 0x8b]) {
        true => copy_plain(BufReader::with_capacity(PIECE_BYTES, MultiGzDecoder::new(packed)), out, permissive),
        false => copy_plain(packed, out, permissive),
    }
}

fn copy_plain(mut text: impl BufRead, out: &mut Pieces, permissive: bool) -> Result<Vec<String>, Fault> {
    // A byte order mark is what some editors put before everything.
    if peek(&mut text)?.starts_with(b"\xef\xbb\xbf") {
        text.consume(3);
    }
    let first = peek(&mut text)?.iter().copied().find(|b| !b.is_ascii_whitespace());
    match first {
        Some(b'[') => copy_array(text, out).map(|()| Vec::new()),
        Some(b'{') => copy_bytes(text, out).map(|()| Vec::new()),
        _ => copy_table(text, out, permissive),
    }
}

/// NDJSON is what it is.
fn copy_bytes(mut text: impl BufRead, out: &mut Pieces) -> Result<(), Fault> {
    loop {
        let piece = text.fill_buf().map_err(unreadable)?;
        let n = piece.len();
        if n == 0 {
            return Ok(());
        }
        out.push(piece)?;
        text.consume(n);
    }
}

/// A JSON array becomes a line for each element, one element in memory at a time.
fn copy_array(text: impl BufRead, out: &mut Pieces) -> Result<(), Fault> {
    let mut stopped = None;
    let mut parser = serde_json::Deserializer::from_reader(text);
    let read = serde::Deserializer::deserialize_seq(
        &mut parser,
        Elements {
            out,
            stopped: &mut stopped,
        },
    );
    match (read.and_then(|()| parser.end()), stopped) {
        (_, Some(fault)) => Err(fault),
        (Ok(()), None) => Ok(()),
        (Err(e), None) => Err(Fault::Input(format!("this is not a JSON array of recipients: {e}"))),
    }
}

struct Elements<'a> {
    out: &'a mut Pieces,
    stopped: &'a mut Option<Fault>,
}

impl<'de> serde::de::Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an array of recipients")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element::<Value>()? {
            // Written anew, because an element may span lines.
            let mut line = serde_json::to_vec(&element).expect("a JSON value always serialises");
            line.push(b'\n');
            if let Err(fault) = self.out.push(&line) {
                *self.stopped = Some(fault);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// A table becomes a line for each row: `email` and `name` as they are, every other column as data.
fn copy_table(text: impl BufRead, out: &mut Pieces, permissive: bool) -> Result<Vec<String>, Fault> {
    let mut rows = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text);
    let mut row = csv::ByteRecord::new();
    let mut next = |row: &mut csv::ByteRecord| rows.read_byte_record(row).map_err(|e| Fault::Input(e.to_string()));
    if !next(&mut row)? {
        return Err(Fault::Input("the file is empty; its first line names the columns, such as email,name".to_owned()));
    }
    let columns = Columns::read(&row)?;
    let mut skipped = Vec::new();
    while next(&mut row)? {
        match columns.line(&row) {
            Ok(line) => out.push(&line)?,
            Err(why) => {
                let why = format!("line {}: {why}", row.position().map_or(0, csv::Position::line));
                if !permissive {
                    return Err(Fault::Input(format!("{why}; or go on without such rows with --permissive")));
                }
                skipped.push(why);
            }
        }
    }
    Ok(skipped)
}

/// What the columns of a table are called: names in lower case for `email` and `name`, all others as they stand.
struct Columns(Vec<String>);

impl Columns {
    fn read(row: &csv::ByteRecord) -> Result<Self, Fault> {
        let names = row.iter().map(|cell| {
            let name = std::str::from_utf8(cell)
                .map(str::trim)
                .map_err(|_| Fault::Input(NOT_UTF8.to_owned()))?;
            let lower = name.to_ascii_lowercase();
            Ok(if lower == "email" || lower == "name" {
                lower
            } else {
                name.to_owned()
            })
        });
        let names = names.collect::<Result<Vec<_>, Fault>>()?;
        if names.iter().any(|name| name == "email") {
            return Ok(Self(names));
        }
        let hint = match names.as_slice() {
            [one] if one.contains([';', '\t']) => "; columns are separated by commas",
            _ => "",
        };
        let shown: String = names.join(",").chars().take(80).collect();
        Err(Fault::Input(format!(
            "no column is called email in the first line ({}){hint}",
            shown.escape_debug()
        )))
    }

    /// A row as a line of NDJSON.
    fn line(&self, row: &csv::ByteRecord) -> Result<Vec<u8>, String> {
        if row.len() != self.0.len() {
            return Err(format!(
                "the row has {} cells, the first line {}; a cell with a comma stands in quotes",
                row.len(),
                self.0.len()
            ));
        }
        let (mut recipient, mut data) = (Map::new(), Map::new());
        for (name, cell) in self.0.iter().zip(row) {
            let cell: Value = std::str::from_utf8(cell).map_err(|_| NOT_UTF8.to_owned())?.into();
            match name.as_str() {
                "email" | "name" => recipient.insert(name.clone(), cell),
                _ => data.insert(name.clone(), cell),
            };
        }
        if !data.is_empty() {
            recipient.insert("data".to_owned(), data.into());
        }
        let mut line = serde_json::to_vec(&recipient).expect("a JSON object always serialises");
        line.push(b'\n');
        Ok(line)
    }
}

const NOT_UTF8: &str = "the text is not UTF-8; save the file as UTF-8";

fn peek(text: &mut impl BufRead) -> Result<&[u8], Fault> {
    text.fill_buf().map_err(unreadable)
}

fn unreadable(e: io::Error) -> Fault {
    Fault::Input(format!("it cannot be read: {e}"))
}

/// Collects bytes to pieces and hands them to the request.
struct Pieces {
    out: mpsc::Sender<io::Result<Bytes>>,
    held: Vec<u8>,
}

impl Pieces {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.held.extend_from_slice(bytes);
        if self.held.len() < PIECE_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn line_end(&mut self) -> Result<(), Fault> {
        self.push(b"\n")
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let piece = Bytes::from(std::mem::take(&mut self.held));
        self.out.blocking_send(Ok(piece)).map_err(|_| Fault::NobodyReads)
    }

    /// Breaks the request off, so that the server throws away what it has.
    fn break_off(&self) {
        // When nobody reads any more, it is broken off already.
        drop(
            self.out
                .blocking_send(Err(io::Error::other("the recipients cannot be read"))),
        );
    }
}

/// Counts the bytes that pass.
struct Counted {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What a file becomes: the lines below the head, and the rows left out; or what is wrong with it.
    fn copied(file: &[u8], permissive: bool) -> Result<(String, Vec<String>), String> {
        let (out, mut pieces) = mpsc::channel(1_000);
        let mut out = Pieces { out, held: Vec::new() };
        let skipped = copy(file, &mut out, permissive).map_err(|fault| match fault {
            Fault::Input(why) => why,
            Fault::NobodyReads => "nobody reads".to_owned(),
        })?;
        let flushed = out.flush();
        assert!(flushed.is_ok());
        drop(out);
        let mut all = Vec::new();
        while let Ok(piece) = pieces.try_recv() {
            all.extend_from_slice(&piece.unwrap());
        }
        Ok((String::from_utf8(all).unwrap(), skipped))
    }

    #[test]
    fn every_form_becomes_a_line_for_each_recipient() {
        let line = "{\"email\":\"anna@example.org\",\"name\":\"Anna\"}\n";
        let array = "[{\"email\": \"anna@example.org\",\n  \"name\": \"Anna\"}]";
        assert_eq!(
            copied(b"\xef\xbb\xbfEmail,Name\nanna@example.org,Anna\n", false)
                .unwrap()
                .0,
            line
        );
        assert_eq!(copied(array.as_bytes(), false).unwrap().0, line);
        assert_eq!(copied(line.as_bytes(), false).unwrap().0, line);
    }

    #[test]
    fn other_columns_become_data_and_quoted_cells_stay_whole() {
        let (text, _) = copied(b"email,city\nanna@example.org,\"Bern, \"\"CH\"\"\"\n", false).unwrap();
        assert_eq!(text, "{\"email\":\"anna@example.org\",\"data\":{\"city\":\"Bern, \\\"CH\\\"\"}}\n");
    }

    #[test]
    fn gzip_is_seen_by_its_first_bytes() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"email\nanna@example.org\n").unwrap();
        let (text, _) = copied(&packed.finish().unwrap(), false).unwrap();
        assert_eq!(text, "{\"email\":\"anna@example.org\"}\n");
    }

    #[test]
    fn a_wrong_table_is_told_by_its_line() {
        for (file, part) in [
            (&b""[..], "empty"),
            (b"mail;name\n", "separated by commas"),
            (b"name\nAnna\n", "no column is called email"),
            (b"email,name\nanna@example.org\n", "line 2: the row has 1 cells, the first line 2"),
            (b"email\n\xff@example.org\n", "line 2: the text is not UTF-8"),
            (b"[{\"email\": ", "not a JSON array"),
        ] {
            let why = copied(file, false).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn wrong_rows_are_left_out_when_that_was_asked_for() {
        let (text, skipped) = copied(b"email,name\nanna@example.org\nbob@example.org,Bob\n", true).unwrap();
        assert_eq!(text, "{\"email\":\"bob@example.org\",\"name\":\"Bob\"}\n");
        assert_eq!(skipped.len(), 1);
    }
}
