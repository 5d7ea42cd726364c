//! A CSV body: a header row, then one recipient a row. The columns `email` and `name` are what they say, every
//! other column becomes data under its own name, as text. Never guesses another delimiter.

use std::borrow::Cow;
use std::io::Read;

use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use serde_json::value::RawValue;

use super::body::{BUFFER_BYTES, Decoded};
use super::collect::Collector;
use super::given::{Given, Place, Rejection};
use super::problem::{FieldProblem, quoted};
use super::read::Stop;
use crate::domain::recipient::{DATA_BYTES_MAX, Recipient};

/// Most columns of a table.
pub const COLUMNS_MAX: usize = 100;
/// Longest name of a column.
pub const COLUMN_NAME_BYTES_MAX: usize = 100;

/// Reads the whole body.
pub(super) fn read<T>(body: &mut Decoded<impl Read>, out: &mut Collector<T>) -> Result<(), Stop> {
    let meter = body.meter();
    let mut rows = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(BUFFER_BYTES)
        .from_reader(body);
    let mut row = ByteRecord::new();
    if !rows.read_byte_record(&mut row).map_err(in_words)? {
        let detail = "the table is empty: its first row names the columns, such as email,name";
        return Err(Stop::Malformed(FieldProblem::new("#", "invalid_csv", detail)));
    }
    let columns = Columns::read(&row).map_err(Stop::Invalid)?;
    loop {
        meter.restart();
        if !rows.read_byte_record(&mut row).map_err(in_words)? {
            return Ok(());
        }
        let place = out.next_place(row.position().map(csv::Position::line));
        out.take(columns.recipient(&row, place))?;
    }
}

fn in_words(e: csv::Error) -> Stop {
    let words = e.to_string();
    match e.into_kind() {
        ErrorKind::Io(e) => Stop::from(e),
        _ => Stop::Malformed(FieldProblem::new("#", "invalid_csv", words)),
    }
}

/// What each column is for.
struct Columns {
    email: usize,
    name: Option<usize>,
    /// Place and name, the name as a JSON string.
    data: Vec<(usize, String)>,
    total: usize,
}

impl Columns {
    fn read(row: &ByteRecord) -> Result<Self, FieldProblem> {
        let problem = |code, detail: String| FieldProblem::new("#/columns", code, detail).on_line(Some(1));
        if row.len() > COLUMNS_MAX {
            return Err(problem("too_many", format!("the table has {} columns; {COLUMNS_MAX} is the most", row.len())));
        }
        let (mut email, mut name, mut data) = (None, None, Vec::new());
        let mut seen: Vec<String> = Vec::new();
        for (i, cell) in row.iter().enumerate() {
            let text = std::str::from_utf8(cell).map_err(|_| {
                problem("invalid_utf8", format!("the name of column {} is not UTF-8; save the table as UTF-8", i + 1))
            })?;
            let text = text.trim_start_matches('\u{feff}').trim();
            check_name(text, i, &seen).map_err(|(code, detail)| problem(code, detail))?;
            match text.to_ascii_lowercase().as_str() {
                "email" => email = Some(i),
                "name" => name = Some(i),
                _ => data.push((i, serde_json::to_string(text).expect("strings always serialise"))),
            }
            seen.push(text.to_ascii_lowercase());
        }
        let Some(email) = email else {
            let names = quoted(&seen.join(","));
            let hint = match seen.len() == 1 && seen[0].contains([';', '\t']) {
                true => "; columns are separated by commas",
                false => "",
            };
            return Err(problem("required", format!("no column is called email, only {names}{hint}")));
        };
        Ok(Self {
            email,
            name,
            data,
            total: row.len(),
        })
    }

    fn recipient(&self, row: &ByteRecord, place: Place) -> Result<Recipient, Rejection> {
        if row.len() != self.total {
            let detail = format!(
                "the row has {} cells, the header {}; a cell that holds a comma stands in quotes",
                row.len(),
                self.total
            );
            return Err(place.reject(place.problem("", "invalid_csv", detail)));
        }
        let cell = |i: usize| std::str::from_utf8(&row[i]);
        let (Ok(email), Ok(name), Ok(data)) = (cell(self.email), self.name.map_or(Ok(""), cell), self.data(row)) else {
            return Err(place.reject(place.problem(
                "",
                "invalid_utf8",
                "the row is not UTF-8; save the table as UTF-8",
            )));
        };
        let mut given = Given {
            email: Some(Cow::Borrowed(email)),
            name: Some(Cow::Borrowed(name)),
            ..Given::default()
        };
        if data.len() > DATA_BYTES_MAX {
            let detail = format!("the row's data has {} bytes; {DATA_BYTES_MAX} is the most", data.len());
            given.problems.push(place.problem("data", "too_long", detail));
        } else if !self.data.is_empty() {
            given.data = Some(RawValue::from_string(data).expect("made of JSON strings just now"));
        }
        given.check(place)
    }

    /// The other columns as a JSON object. Cells are text, and an empty cell is an empty text.
    fn data(&self, row: &ByteRecord) -> Result<String, std::str::Utf8Error> {
        let mut out = String::from("{");
        for (i, name) in &self.data {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(name);
            out.push(':');
            out.push_str(&serde_json::to_string(std::str::from_utf8(&row[*i])?).expect("strings always serialise"));
        }
        out.push('}');
        Ok(out)
    }
}

fn check_name(text: &str, i: usize, seen: &[String]) -> Result<(), (&'static str, String)> {
    if text.is_empty() {
        return Err(("required", format!("column {} has no name", i + 1)));
    }
    if text.len() > COLUMN_NAME_BYTES_MAX {
        return Err(("too_long", format!("the name of column {} is longer than {COLUMN_NAME_BYTES_MAX} bytes", i + 1)));
    }
    if seen.contains(&text.to_ascii_lowercase()) {
        return Err(("duplicate_field", format!("two columns are called {}", quoted(text))));
    }
    Ok(())
}
