//! A CSV body: a row of names, then one recipient a row. One column holds the address, one may hold the name, every other
//! becomes data under its own name, as text. The delimiter is seen in the first row; a character set is never guessed.

mod charset;
mod columns;
mod rows;

use std::borrow::Cow;
use std::io::{self, BufRead, Chain, Cursor, Read};

use serde_json::value::RawValue;

pub use self::charset::Charset;
use self::charset::Text;
pub use self::columns::{Column, Columns};
use self::rows::Rows;
pub use self::rows::{Row, RowFault};
use super::body::{BodyFault, Decoded};
use super::collect::Collector;
use super::given::{Given, Place, Rejection};
use super::problem::FieldProblem;
use super::read::Stop;
use crate::domain::recipient::{DATA_BYTES_MAX, Recipient};

/// Delimiters that are looked for in the first row, the likeliest first.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];
/// How much is read to see the first row: more than the longest names of the most columns.
const FIRST_ROW_BYTES_MAX: usize = 64 * 1024;

/// How a table is to be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What the request says about the bytes; a byte order mark knows better.
    pub charset: Option<Charset>,
    /// Whether the first row may hold an address already.
    pub may_be_headless: bool,
}

/// A table whose columns are known, ready to give its rows.
pub struct Table<R> {
    rows: Rows<Chain<Cursor<Vec<u8>>, Text<R>>>,
    pub columns: Columns,
    pub row: Row,
    /// The row at hand is the first of a table without names, and has not been given yet.
    is_first: bool,
}

/// Why a table cannot be read at all.
#[derive(Debug)]
pub enum TableFault {
    Row(RowFault),
    /// There is no row.
    Empty,
    /// The names of the columns are of no use: a code, a sentence, the line.
    Columns(&'static str, String, u64),
}

impl From<RowFault> for TableFault {
    fn from(fault: RowFault) -> Self {
        TableFault::Row(fault)
    }
}

impl TableFault {
    /// A sentence for the person who wrote the table.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            TableFault::Row(fault) => fault.in_words(),
            TableFault::Empty => "the table is empty: its first row names the columns, such as email,name".to_owned(),
            TableFault::Columns(_, why, line) => format!("line {line}: {why}"),
        }
    }
}

impl<R: Read> Table<R> {
    /// Reads the first row.
    ///
    /// # Errors
    /// See [`TableFault`].
    pub fn open(raw: R, options: Options) -> Result<Self, TableFault> {
        let mut text = Text::new(raw, options.charset);
        let start = Start::read(&mut text).map_err(|error| RowFault::Io { error, open: None })?;
        let mut rows = Rows::new(Cursor::new(start.text).chain(text), start.delimiter, start.line);
        let mut row = Row::default();
        if !rows.next(&mut row)? {
            return Err(TableFault::Empty);
        }
        let headless = match options.may_be_headless {
            true => Columns::headless(&row),
            false => None,
        };
        let is_first = headless.is_some();
        let columns = match headless {
            Some(columns) => columns,
            None => Columns::read(&row).map_err(|(code, why)| TableFault::Columns(code, why, row.line()))?,
        };
        Ok(Self {
            rows,
            columns,
            row,
            is_first,
        })
    }

    /// Goes to the next row, which is `row` then; `false` at the end.
    ///
    /// # Errors
    /// See [`RowFault`].
    pub fn advance(&mut self) -> Result<bool, RowFault> {
        Ok(std::mem::take(&mut self.is_first) || self.rows.next(&mut self.row)?)
    }
}

/// The beginning of a table: its delimiter, and what was read to see it.
struct Start {
    text: Vec<u8>,
    /// The number of the first line of `text`.
    line: u64,
    delimiter: u8,
}

impl Start {
    fn read(source: &mut impl BufRead) -> io::Result<Self> {
        let mut line = 1;
        let mut text = first_row(source)?;
        // Excel's own way to say it. A line that says something else is the row of names.
        let said = said_delimiter(&text);
        if said.is_some() {
            // The LF of a CRLF belongs to the line that is left out.
            if text.last() == Some(&b'\r') && source.fill_buf()?.first() == Some(&b'\n') {
                source.consume(1);
            }
            line += 1;
            text.clear();
        }
        let delimiter = said.unwrap_or_else(|| seen_delimiter(&text));
        Ok(Self { text, line, delimiter })
    }
}

/// Reads up to the end of the first row that holds something, as far as that can be told without a delimiter.
fn first_row(source: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let (mut text, mut in_quotes, mut is_blank) = (Vec::new(), false, true);
    while text.len() < FIRST_ROW_BYTES_MAX {
        let buffer = match source.fill_buf() {
            Ok(buffer) => buffer,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let ends_row = |b: &u8| {
            in_quotes ^= *b == b'"';
            is_blank &= b.is_ascii_whitespace();
            matches!(b, b'\n' | b'\r') && !in_quotes && !is_blank
        };
        let (n, is_end) = match buffer.iter().position(ends_row) {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        text.extend_from_slice(&buffer[..n]);
        source.consume(n);
        if is_end {
            break;
        }
    }
    Ok(text)
}

/// The delimiter of a line such as `sep=;`.
fn said_delimiter(line: &[u8]) -> Option<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line
        .strip_prefix(b"\"")
        .and_then(|l| l.strip_suffix(b"\""))
        .unwrap_or(line);
    let (word, sign) = line.split_at_checked(4)?;
    match sign {
        [sign @ (b'\t' | b'!'..=b'/' | b':'..=b'@' | b'['..=b'^' | b'`' | b'{'..=b'~')]
            if *sign != b'"' && word.eq_ignore_ascii_case(b"sep=") =>
        {
            Some(*sign)
        }
        _ => None,
    }
}

/// The delimiter with which a column holds addresses; else the one that stands there most often; else the comma.
fn seen_delimiter(first_row: &[u8]) -> u8 {
    let mut in_quotes = false;
    let mut counts = [0usize; DELIMITERS.len()];
    for b in first_row {
        in_quotes ^= *b == b'"';
        if let Some(i) = DELIMITERS.iter().position(|d| d == b).filter(|_| !in_quotes) {
            counts[i] += 1;
        }
    }
    let has_email = |delimiter: u8| {
        let mut row = Row::default();
        Rows::new(first_row, delimiter, 1)
            .next(&mut row)
            .is_ok_and(|found| found && Columns::has_email(&row))
    };
    let mut best = (0, b',');
    for (count, delimiter) in counts.into_iter().zip(DELIMITERS) {
        let weight = count
            + if count > 0 && has_email(delimiter) {
                FIRST_ROW_BYTES_MAX * 2
            } else {
                0
            };
        if weight > best.0 {
            best = (weight, delimiter);
        }
    }
    best.1
}

impl Columns {
    /// Checks that a row fits the columns.
    ///
    /// # Errors
    /// A sentence when it has cells too few or too many.
    pub fn check(&self, row: &Row) -> Result<(), String> {
        let is_blank = |i: usize| row.cell(i).iter().all(u8::is_ascii_whitespace);
        let fits = row.n_cells() >= self.named || self.is_headless;
        if fits && (self.named..row.n_cells()).all(is_blank) {
            return Ok(());
        }
        Err(format!(
            "the row has {} cells, the header {}; a cell that holds the delimiter stands in quotes",
            row.n_cells(),
            self.named
        ))
    }

    /// The cell of a column as text; of a short row without names the missing ones are empty.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text<'r>(&self, row: &'r Row, i: usize) -> Result<&'r str, std::str::Utf8Error> {
        if i >= row.n_cells() {
            return Ok("");
        }
        std::str::from_utf8(row.cell(i))
    }
}

/// Reads the whole body. Returns its columns, and how a template says them.
pub(super) fn read<T>(
    body: &mut Decoded<impl Read>,
    options: Options,
    out: &mut Collector<T>,
) -> Result<Vec<Column>, Stop> {
    let meter = body.meter();
    let mut table = Table::open(body, options).map_err(|fault| unreadable(fault, out.next_place(None)))?;
    let told = std::mem::take(&mut table.columns.told);
    let names: Vec<String> = table.columns.data.iter().map(|(_, name)| json_text(name)).collect();
    loop {
        meter.restart();
        let row = match table.advance() {
            Ok(true) => &table.row,
            Ok(false) => return Ok(told),
            Err(fault) => return Err(broken(fault, out.next_place(None))),
        };
        let place = out.next_place(Some(row.line()));
        out.take(recipient(&table.columns, &names, row, place))?;
    }
}

fn unreadable(fault: TableFault, place: Place) -> Stop {
    match fault {
        TableFault::Row(fault) => broken(fault, place),
        TableFault::Empty => Stop::Malformed(FieldProblem::new("#", "invalid_csv", fault.in_words())),
        TableFault::Columns(code, why, line) => {
            Stop::Invalid(FieldProblem::new("#/columns", code, why).on_line(Some(line)))
        }
    }
}

/// A body that is no table from this place on.
fn broken(fault: RowFault, place: Place) -> Stop {
    let line = fault.line();
    match fault {
        RowFault::Io { error, open } => match (BodyFault::from(error), open) {
            (BodyFault::ValueTooLong(max), Some(line)) => {
                let why = format!(
                    "the cell whose quote opens in line {line} is longer than {max} bytes; its closing quote may be missing"
                );
                Stop::Invalid(place.problem("", "too_long", why).on_line(Some(line)))
            }
            (fault, _) => Stop::Fault(fault),
        },
        fault => Stop::Malformed(place.problem("", "invalid_csv", fault.in_words()).on_line(line)),
    }
}

/// `names` are those of the data as JSON.
fn recipient(columns: &Columns, names: &[String], row: &Row, place: Place) -> Result<Recipient, Rejection> {
    if let Err(why) = columns.check(row) {
        return Err(place.reject(place.problem("", "invalid_csv", why)));
    }
    let cell = |i: usize| columns.text(row, i);
    let parts = (cell(columns.email), columns.name.map_or(Ok(""), cell), data(columns, names, row));
    let (Ok(email), Ok(name), Ok(data)) = parts else {
        let why = "the row is not UTF-8; save the table as UTF-8, or say what it is, as charset=windows-1252";
        return Err(place.reject(place.problem("", "invalid_utf8", why)));
    };
    let mut given = Given {
        email: Some(Cow::Borrowed(email)),
        name: Some(Cow::Borrowed(name)),
        ..Given::default()
    };
    if data.len() > DATA_BYTES_MAX {
        let detail = format!("the row's data has {} bytes; {DATA_BYTES_MAX} is the most", data.len());
        given.problems.push(place.problem("data", "too_long", detail));
    } else if !columns.data.is_empty() {
        given.data = Some(RawValue::from_string(data).expect("made of JSON strings just now"));
    }
    given.check(place)
}

/// The other columns as a JSON object. Cells are text, and an empty cell is an empty text.
fn data(columns: &Columns, names: &[String], row: &Row) -> Result<String, std::str::Utf8Error> {
    let mut out = String::from("{");
    for ((i, _), name) in columns.data.iter().zip(names) {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(name);
        out.push(':');
        out.push_str(&json_text(columns.text(row, *i)?));
    }
    out.push('}');
    Ok(out)
}

fn json_text(text: &str) -> String {
    serde_json::to_string(text).expect("strings always serialise")
}
