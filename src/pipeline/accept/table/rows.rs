//! The rows of a table of comma-separated values (RFC 4180), with what spreadsheets write beyond it. Refuses what is no table:
//! a quote that is never closed, and text behind a closing quote. Never knows what the columns are for.

use std::io::{self, BufRead};

/// What DOS programs write behind the last row of a text file.
const CTRL_Z: u8 = 0x1a;

/// One row: its cells, unquoted, and the line in which it begins.
#[derive(Debug, Default)]
pub struct Row {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    line: u64,
}

impl Row {
    #[must_use]
    pub fn n_cells(&self) -> usize {
        self.ends.len()
    }

    /// The cell at this place, from 0. `i` is below [`Row::n_cells`].
    #[must_use]
    pub fn cell(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    pub fn cells(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.n_cells()).map(|i| self.cell(i))
    }

    /// Bytes of all cells together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The line in which the row begins, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Whether no cell holds anything: a spreadsheet writes such rows below its last one.
    fn is_blank(&self) -> bool {
        self.bytes.iter().all(u8::is_ascii_whitespace)
    }

    fn begin(&mut self, line: u64) {
        self.bytes.clear();
        self.ends.clear();
        self.line = line;
    }

    fn end_cell(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// The cell that is being read.
    fn open_cell(&self) -> &[u8] {
        &self.bytes[self.ends.last().copied().unwrap_or(0)..]
    }

    fn clear_open_cell(&mut self) {
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }
}

/// Why there is no next row.
#[derive(Debug)]
pub enum RowFault {
    /// The text ends inside the quotes that open in this line.
    Unclosed { line: u64 },
    /// There is text behind the closing quote of the cell that opens in this line.
    Behind { line: u64 },
    /// The text cannot be read on. When that happens inside quotes: the line in which they open.
    Io { error: io::Error, open: Option<u64> },
}

impl RowFault {
    /// The line in which the quote opens that is at fault.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        match self {
            RowFault::Unclosed { line } | RowFault::Behind { line } => Some(*line),
            RowFault::Io { open, .. } => *open,
        }
    }

    /// A sentence for the person who wrote the table.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            RowFault::Unclosed { line } => format!(
                "the quote that opens in line {line} is never closed, so the rest of the table would be one cell; \
                 close it, and write a quote inside a cell twice (\"\")"
            ),
            RowFault::Behind { line } => format!(
                "there is text behind the closing quote of the cell that opens in line {line}; \
                 close the cell at its end, and write a quote inside a cell twice (\"\")"
            ),
            RowFault::Io { error, .. } => error.to_string(),
        }
    }
}

/// Where the reader stands in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a cell without quotes, or before its first byte.
    Plain,
    Quoted,
    /// Behind a quote inside quotes: it closes the cell, or is the first of two.
    Quote,
    /// Behind a closed cell: only spaces may follow.
    Closed,
}

/// Reads rows one by one.
pub struct Rows<R> {
    source: R,
    delimiter: u8,
    /// The line that is being read, from 1.
    line: u64,
    /// The byte before was a CR, so that a LF belongs to it.
    after_cr: bool,
}

impl<R: BufRead> Rows<R> {
    /// `line` is the number of the first line of `source`.
    pub fn new(source: R, delimiter: u8, line: u64) -> Self {
        Self {
            source,
            delimiter,
            line,
            after_cr: false,
        }
    }

    /// Reads the next row that holds something. `false` at the end.
    ///
    /// # Errors
    /// See [`RowFault`]. There is no use in reading on.
    pub fn next(&mut self, row: &mut Row) -> Result<bool, RowFault> {
        loop {
            let is_last = self.read_row(row)?;
            if !row.is_blank() {
                return Ok(true);
            }
            if is_last {
                return Ok(false);
            }
        }
    }

    /// Reads up to the end of a row; whether the text ends there.
    fn read_row(&mut self, row: &mut Row) -> Result<bool, RowFault> {
        row.begin(self.line);
        let (mut at, mut opened) = (At::Plain, self.line);
        loop {
            let buffer = match self.source.fill_buf() {
                Ok(buffer) => buffer,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let open = (at == At::Quoted).then_some(opened);
                    return Err(RowFault::Io { error, open });
                }
            };
            if buffer.is_empty() {
                return end_of_text(row, at, opened);
            }
            if std::mem::take(&mut self.after_cr) && buffer[0] == b'\n' {
                match at {
                    At::Quoted => row.bytes.push(b'\n'),
                    // It belongs to the line that has ended.
                    _ => row.line = self.line,
                }
                self.source.consume(1);
                continue;
            }
            let (n, next) = match at {
                At::Quoted => quoted(buffer, row, &mut self.line, &mut self.after_cr),
                At::Plain => plain(buffer, row, self.delimiter),
                At::Quote | At::Closed => behind(buffer[0], at, row, self.delimiter, opened)?,
            };
            let was_cr = buffer[n - 1] == b'\r';
            self.source.consume(n);
            match next {
                Next::Row => {
                    self.line += 1;
                    self.after_cr = was_cr;
                    return Ok(false);
                }
                Next::At(next) => {
                    if at == At::Plain && next == At::Quoted {
                        opened = self.line;
                    }
                    at = next;
                }
            }
        }
    }
}

/// What follows the bytes that were taken.
enum Next {
    At(At),
    /// The row is complete.
    Row,
}

/// Takes bytes of a cell without quotes, up to its end.
fn plain(buffer: &[u8], row: &mut Row, delimiter: u8) -> (usize, Next) {
    let is_special = |&b: &u8| b == delimiter || matches!(b, b'\n' | b'\r' | b'"');
    let n = buffer.iter().position(is_special).unwrap_or(buffer.len());
    row.bytes.extend_from_slice(&buffer[..n]);
    match buffer.get(n) {
        None => (n, Next::At(At::Plain)),
        // Some put spaces between a delimiter and a quote.
        Some(b'"') if row.open_cell().iter().all(|b| *b == b' ') => {
            row.clear_open_cell();
            (n + 1, Next::At(At::Quoted))
        }
        Some(b'"') => {
            row.bytes.push(b'"');
            (n + 1, Next::At(At::Plain))
        }
        Some(b'\n' | b'\r') => {
            row.end_cell();
            (n + 1, Next::Row)
        }
        Some(_) => {
            row.end_cell();
            (n + 1, Next::At(At::Plain))
        }
    }
}

/// Takes bytes inside quotes, and counts the lines among them.
fn quoted(buffer: &[u8], row: &mut Row, line: &mut u64, after_cr: &mut bool) -> (usize, Next) {
    let n = buffer.iter().position(|b| *b == b'"').unwrap_or(buffer.len());
    let text = &buffer[..n];
    row.bytes.extend_from_slice(text);
    let is_break = |(i, b): (usize, &u8)| *b == b'\r' || (*b == b'\n' && (i == 0 || text[i - 1] != b'\r'));
    *line += text.iter().enumerate().filter(|pair| is_break(*pair)).count() as u64;
    if n == buffer.len() {
        *after_cr = text.last() == Some(&b'\r');
        return (n, Next::At(At::Quoted));
    }
    (n + 1, Next::At(At::Quote))
}

/// Takes one byte behind a quote.
fn behind(byte: u8, at: At, row: &mut Row, delimiter: u8, opened: u64) -> Result<(usize, Next), RowFault> {
    let next = match byte {
        b'"' if at == At::Quote => {
            row.bytes.push(b'"');
            Next::At(At::Quoted)
        }
        b if b == delimiter => {
            row.end_cell();
            Next::At(At::Plain)
        }
        b'\n' | b'\r' => {
            row.end_cell();
            Next::Row
        }
        b' ' | b'\t' | CTRL_Z => Next::At(At::Closed),
        _ => return Err(RowFault::Behind { line: opened }),
    };
    Ok((1, next))
}

fn end_of_text(row: &mut Row, at: At, opened: u64) -> Result<bool, RowFault> {
    if at == At::Quoted {
        return Err(RowFault::Unclosed { line: opened });
    }
    if at == At::Plain && row.open_cell().last() == Some(&CTRL_Z) {
        row.bytes.pop();
    }
    row.end_cell();
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    /// The line and the cells of each row.
    type Seen = Vec<(u64, Vec<String>)>;

    fn read(text: &[u8], delimiter: u8, buffer: usize) -> Result<Seen, RowFault> {
        let mut rows = Rows::new(BufReader::with_capacity(buffer, text), delimiter, 1);
        let (mut row, mut seen) = (Row::default(), Vec::new());
        while rows.next(&mut row)? {
            let cells = row.cells().map(|c| String::from_utf8_lossy(c).into_owned());
            seen.push((row.line(), cells.collect()));
        }
        Ok(seen)
    }

    fn rows(text: &str) -> Seen {
        let seen = read(text.as_bytes(), b',', 1).unwrap();
        for buffer in [2, 3, 7, 4096] {
            assert_eq!(read(text.as_bytes(), b',', buffer).unwrap(), seen, "a buffer of {buffer} for {text:?}");
        }
        seen
    }

    fn row(line: u64, cells: &[&str]) -> (u64, Vec<String>) {
        (line, cells.iter().map(|c| (*c).to_owned()).collect())
    }

    #[test]
    fn rows_end_in_any_way_and_know_their_line() {
        let expected = vec![row(1, &["a", "b"]), row(2, &["c", ""]), row(4, &["d", "e"])];
        assert_eq!(rows("a,b\nc,\n\nd,e"), expected);
        assert_eq!(rows("a,b\r\nc,\r\n\r\nd,e\r\n"), expected);
        assert_eq!(rows("a,b\rc,\r\rd,e\r"), expected);
        assert_eq!(rows("a,\"b\nb\r\nb\rb\"\r\nc,\",\"\n"), [row(1, &["a", "b\nb\r\nb\rb"]), row(5, &["c", ","])]);
        assert_eq!(rows(" ,\n;,\n"), [row(2, &[";", ""])]);
        assert_eq!(rows(""), []);
    }

    #[test]
    fn quotes_inside_cells_are_what_they_are() {
        assert_eq!(rows("\"a \"\"b\"\"\",c \"d\" e\n"), [row(1, &["a \"b\"", "c \"d\" e"])]);
        assert_eq!(rows("a, \"b, c\" ,\"\"\n"), [row(1, &["a", "b, c", ""])]);
    }

    #[test]
    fn a_final_ctrl_z_is_no_text() {
        assert_eq!(rows("a,b\r\n\u{1a}"), [row(1, &["a", "b"])]);
        assert_eq!(rows("a,b\u{1a}"), [row(1, &["a", "b"])]);
        assert_eq!(rows("a,\"b\"\u{1a}"), [row(1, &["a", "b"])]);
    }

    #[test]
    fn what_is_no_table_is_told_by_the_line_of_its_quote() {
        for (text, line, is_unclosed) in [
            ("a,b\nc,\"d\ne,f\n", 2, true),
            ("a,b\n\n\nc,\"d\ne,\"f\"\n", 4, false),
            ("a,\"b\"c\n", 1, false),
            ("\"a\" \"b\"\n", 1, false),
            ("\"\"\"", 1, true),
            ("\"x\n\"\n\"a\" b", 3, false),
        ] {
            let fault = read(text.as_bytes(), b',', 3).expect_err(text);
            assert_eq!(fault.line(), Some(line), "{text:?}");
            assert_eq!(matches!(fault, RowFault::Unclosed { .. }), is_unclosed, "{text:?}");
            assert!(fault.in_words().contains(&format!("line {line}")), "{}", fault.in_words());
        }
    }

    proptest! {
        /// What another implementation writes is read back cell by cell, whatever the cells hold.
        #[test]
        fn what_a_writer_quotes_is_read_back(
            table in prop::collection::vec(prop::collection::vec("[a\", \r\n;é]{0,6}", 3), 1..6),
            delimiter in prop::sample::select(vec![b',', b';', b'\t']),
        ) {
            let mut writer = csv::WriterBuilder::new()
                .quote_style(csv::QuoteStyle::Always)
                .delimiter(delimiter)
                .from_writer(Vec::new());
            for cells in &table {
                writer.write_record(cells).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let seen: Vec<Vec<String>> = read(&text, delimiter, 5).unwrap().into_iter().map(|(_, cells)| cells).collect();
            let given: Vec<Vec<String>> = table
                .into_iter()
                .filter(|cells| cells.iter().any(|c| c.contains(|c: char| !c.is_ascii_whitespace())))
                .collect();
            prop_assert_eq!(seen, given);
        }

        /// Where our reader is content, so is another, and both see the same.
        #[test]
        fn what_is_taken_is_read_as_others_read_it(text in "[ab\",\n]{0,30}") {
            if let Ok(seen) = read(text.as_bytes(), b',', 4) {
                // Spaces around quotes are the one thing that is taken and that others take otherwise; there are none here.
                let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
                let theirs: Vec<Vec<String>> = reader
                    .records()
                    .map(|r| r.unwrap().iter().map(ToOwned::to_owned).collect::<Vec<String>>())
                    .filter(|cells| cells.iter().any(|c| c.contains(|c: char| !c.is_ascii_whitespace())))
                    .collect();
                let ours: Vec<Vec<String>> = seen.into_iter().map(|(_, cells)| cells).collect();
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
