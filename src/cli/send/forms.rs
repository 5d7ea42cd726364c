//! The forms in which people keep recipients, CSV, JSON and NDJSON, packed or not, all made into NDJSON lines. Only changes the
//! form: whether somebody can be mailed is for the server to say.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::source::{PIECE_BYTES, Pieces};
use crate::pipeline::accept::{Charset, Column, Columns, Row, RowFault, Table, TableFault, TableOptions};

/// Why reading ended early.
pub(super) enum Fault {
    /// The file is at fault; the sentence says where and how.
    Input(String),
    /// The request ended first, so nobody wants the rest.
    NobodyReads,
}

/// How the file is to be read.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// Go on without rows that are wrong.
    pub permissive: bool,
    /// What is said about the characters of a table.
    pub charset: Option<Charset>,
    /// Set when the file turns out to be a table: then its lines are those of the request.
    pub is_table: Arc<AtomicBool>,
}

/// What there is to say about a file that was read.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Why rows were left out.
    pub skipped: Vec<String>,
    /// Columns that templates say in another way than the table.
    pub renamed: Vec<Column>,
}

/// Copies all recipients as NDJSON lines, whatever their form.
pub(super) fn copy(raw: impl Read, out: &mut Pieces, how: &How) -> Result<Copied, Fault> {
    let mut packed = BufReader::with_capacity(PIECE_BYTES, raw);
    // RFC 1952 2.3.1: the two bytes that every gzip file starts with.
    match peek(&mut packed)?.starts_with(&[0x1f, 0x8b]) {
        true => copy_plain(BufReader::with_capacity(PIECE_BYTES, MultiGzDecoder::new(packed)), out, how),
        false => copy_plain(packed, out, how),
    }
}

fn copy_plain(mut text: impl BufRead, out: &mut Pieces, how: &How) -> Result<Copied, Fault> {
    // A byte order mark is what some editors put before everything.
    if peek(&mut text)?.starts_with(b"\xef\xbb\xbf") {
        text.consume(3);
    }
    let first = peek(&mut text)?.iter().copied().find(|b| !b.is_ascii_whitespace());
    match first {
        Some(b'[') => copy_array(text, out).map(|()| Copied::default()),
        Some(b'{') => copy_bytes(text, out).map(|()| Copied::default()),
        _ => copy_table(text, out, how),
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
        while let Some(element) = array.next_element::<Box<RawValue>>()? {
            // Every number and text goes on as it was written. An element may span lines; between values a line break is a space.
            let mut line = element.get().replace(['\n', '\r'], " ").into_bytes();
            line.push(b'\n');
            if let Err(fault) = self.out.push(&line) {
                *self.stopped = Some(fault);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// A table becomes a line for each row: address and name as they are, every other column as data.
fn copy_table(text: impl BufRead, out: &mut Pieces, how: &How) -> Result<Copied, Fault> {
    how.is_table.store(true, Ordering::Relaxed);
    let options = TableOptions {
        charset: how.charset,
        may_be_headless: false,
    };
    let mut table = Table::open(text, options).map_err(|fault| match fault {
        TableFault::Row(RowFault::Io { error, .. }) => unreadable(error),
        fault => Fault::Input(fault.in_words()),
    })?;
    let mut copied = Copied {
        skipped: Vec::new(),
        renamed: table
            .columns
            .told
            .iter()
            .filter(|c| c.name != c.variable)
            .cloned()
            .collect(),
    };
    // The request's first line is its head, where the file has the names of the columns.
    let mut written = 2;
    loop {
        match table.advance() {
            Ok(true) => {}
            Ok(false) => return Ok(copied),
            Err(RowFault::Io { error, .. }) => return Err(unreadable(error)),
            Err(fault) => return Err(Fault::Input(fault.in_words())),
        }
        match line(&table.columns, &table.row) {
            Ok(line) => {
                // Each row stands on the line of the file on which it begins, so that what the server says of a line is true:
                // empty lines are skipped but counted.
                while written < table.row.line() {
                    out.push(b"\n")?;
                    written += 1;
                }
                out.push(&line)?;
                written += 1;
            }
            Err(why) => {
                let why = format!("line {}: {why}", table.row.line());
                if !how.permissive {
                    return Err(Fault::Input(format!("{why}; or go on without such rows with --permissive")));
                }
                copied.skipped.push(why);
            }
        }
    }
}

/// A row as a line of NDJSON.
fn line(columns: &Columns, row: &Row) -> Result<Vec<u8>, String> {
    columns.check(row)?;
    let cell = |i: usize| columns.text(row, i).map(Value::from).map_err(|_| NOT_UTF8.to_owned());
    let (mut recipient, mut data) = (Map::new(), Map::new());
    recipient.insert("email".to_owned(), cell(columns.email)?);
    if let Some(name) = columns.name {
        recipient.insert("name".to_owned(), cell(name)?);
    }
    for (i, name) in &columns.data {
        data.insert(name.clone(), cell(*i)?);
    }
    if !data.is_empty() {
        recipient.insert("data".to_owned(), data.into());
    }
    let mut line = serde_json::to_vec(&recipient).expect("a JSON object always serialises");
    line.push(b'\n');
    Ok(line)
}

const NOT_UTF8: &str = "the text is not UTF-8; save the file as UTF-8, or say what it is, as --charset windows-1252";

fn peek(text: &mut impl BufRead) -> Result<&[u8], Fault> {
    text.fill_buf().map_err(unreadable)
}

fn unreadable(e: io::Error) -> Fault {
    Fault::Input(format!("it cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::sync::mpsc;

    use super::*;

    /// What a file becomes: the lines below the head, and the rows left out; or what is wrong with it.
    fn copied(file: &[u8], permissive: bool) -> Result<(String, Vec<String>), String> {
        let (out, mut pieces) = mpsc::channel(1_000);
        let mut out = Pieces::new(out, Vec::new());
        let how = How {
            permissive,
            ..How::default()
        };
        let copied = copy(file, &mut out, &how).map_err(|fault| match fault {
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
        Ok((String::from_utf8(all).unwrap(), copied.skipped))
    }

    #[test]
    fn every_form_becomes_a_line_for_each_recipient() {
        let line = "{\"email\":\"anna@example.org\",\"name\":\"Anna\"}\n";
        let array = "[{\"email\":\"anna@example.org\",\"name\":\"Anna\"}]";
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
        assert_eq!(text, "{\"data\":{\"city\":\"Bern, \\\"CH\\\"\"},\"email\":\"anna@example.org\"}\n");
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
            (b"phone;name\n", "separated by commas, semicolons or tabs"),
            (b"email;name\nanna@example.org;\"Anna\n", "the quote that opens in line 2 is never closed"),
            (
                b"email,name\nanna@example.org,\"Anna\" B\n",
                "behind the closing quote of the cell that opens in line 2",
            ),
            (b"name\nAnna\n", "no column is called email"),
            (b"email,name\nanna@example.org\n", "line 2: the row has 1 cells, the header 2"),
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
        assert_eq!(text, "\n{\"email\":\"bob@example.org\",\"name\":\"Bob\"}\n");
        assert_eq!(skipped.len(), 1);
    }
}
