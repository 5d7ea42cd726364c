//! What people see: lines, numbers, tables and a progress bar. Results go to standard output, progress to standard error; a
//! bar is drawn only when both are terminals. Never panics because nobody reads any more.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// Time between two lines of progress when there is no terminal to draw on: often enough to see that it lives, seldom enough
/// for a log.
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(2);

/// Writes a line to standard output. `false` when nobody reads it any more, as after `| head`; the print macros would panic there.
pub fn say(line: impl Display) -> bool {
    writeln!(io::stdout().lock(), "{line}").is_ok()
}

/// Writes a line to standard error, if anybody reads it.
pub fn note(line: impl Display) {
    // There is nowhere left to complain.
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Whether a person sits in front of both outputs.
#[must_use]
pub fn is_lively() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// A mark before a line of a report: in colour for people, a bare word for programs.
#[must_use]
pub fn mark(word: &str, colour: Colour) -> String {
    match io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) {
        true => format!("\x1b[{}m{word}\x1b[0m", colour as u8),
        false => word.to_owned(),
    }
}

/// The colours of marks, by their SGR numbers (ECMA-48 8.3.117).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Bold = 1,
    Red = 31,
    Green = 32,
    Yellow = 33,
}

/// A count as people read it: `100,000`.
#[must_use]
pub fn number(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::from(if n < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `n` things, in the singular where there is one: `1 message`, `2 messages`.
#[must_use]
pub fn plural(n: i64, thing: &str) -> String {
    format!("{} {thing}{}", number(n), if n == 1 { "" } else { "s" })
}

/// A span of time as people say it: `0.8 s`, `12 s`, `3 min 20 s`, `2 h 05 min`, `3 days`.
#[must_use]
pub fn span(secs: f64) -> String {
    let whole = secs.max(0.0).round() as u64;
    match whole {
        _ if secs < 10.0 => format!("{:.1} s", secs.max(0.0)),
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3_600..172_800 => format!("{} h {:02} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} days", whole / 86_400),
    }
}

/// Rows under a head, in columns two spaces apart. Columns named in `right` stand flush right, as numbers do; the last column
/// is as wide as it likes, so what may be long or in wide characters goes there.
#[must_use]
pub fn table(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let heads = head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>();
    for row in [&heads].into_iter().chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = widths[column];
            let written = match (right.contains(&column), column + 1 == row.len()) {
                (true, _) => write!(line, "{cell:>pad$}  "),
                (false, true) => write!(line, "{cell}"),
                (false, false) => write!(line, "{cell:<pad$}  "),
            };
            written.expect("a String takes everything");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out
}

/// The progress of one piece of work: a bar on a terminal, else a line now and then, both on standard error.
pub struct Progress {
    label: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    last_text: String,
}

impl Progress {
    /// Starts with nothing done. A `total` of 0 is one that is not known yet.
    #[must_use]
    pub fn start(label: &'static str, total: u64) -> Self {
        let bar = is_lively().then(|| {
            let bar = ProgressBar::new(total.max(1));
            let style = ProgressStyle::with_template("  {prefix:<9} {wide_bar:.cyan/dim} {msg}");
            bar.set_style(
                style
                    .expect("the template is a constant that a test draws")
                    .progress_chars("━╸─"),
            );
            bar.set_prefix(label);
            bar
        });
        Self {
            label,
            total,
            bar,
            last_line: None,
            last_text: String::new(),
        }
    }

    /// Shows how much is done, with a word about it such as the rate.
    pub fn show(&mut self, done: u64, total: u64, note: &str) {
        self.total = total;
        let text = self.text(done, note);
        self.show_text(done, total, text);
    }

    /// As [`Progress::show`], with other words than the two numbers.
    pub fn show_text(&mut self, done: u64, total: u64, text: String) {
        self.total = total;
        match &self.bar {
            Some(bar) => {
                bar.set_length(total.max(1));
                bar.set_position(done);
                bar.set_message(text);
            }
            None if self.last_line.is_some_and(|at| at.elapsed() < PLAIN_LINE_EVERY) => {}
            None => self.line(text),
        }
    }

    /// Takes the bar away, as for what only took a moment.
    pub fn clear(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    /// Leaves the last state standing.
    pub fn finish(mut self, done: u64, note: &str) {
        let text = self.text(done, note);
        match self.bar.take() {
            Some(bar) => {
                bar.set_length(self.total.max(done).max(1));
                bar.set_position(done);
                bar.abandon_with_message(text);
            }
            None => self.line(text),
        }
    }

    fn line(&mut self, text: String) {
        if text != self.last_text {
            note(format_args!("{}: {text}", self.label));
        }
        self.last_line = Some(Instant::now());
        self.last_text = text;
    }

    fn text(&self, done: u64, note: &str) -> String {
        let of = match self.total {
            0 => number(done as i64),
            total => format!("{} of {}", number(done as i64), number(total as i64)),
        };
        if note.is_empty() { of } else { format!("{of}, {note}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (100_000, "100,000"),
            (-1_234_567, "-1,234,567"),
        ] {
            assert_eq!(number(n), text);
        }
        assert_eq!(plural(1, "message"), "1 message");
        assert_eq!(plural(2_000, "message"), "2,000 messages");
    }

    #[test]
    fn spans_are_told_in_the_unit_that_fits() {
        for (secs, text) in [
            (0.84, "0.8 s"),
            (12.4, "12 s"),
            (200.0, "3 min 20 s"),
            (7_500.0, "2 h 05 min"),
            (300_000.0, "3 days"),
            (-1.0, "0.0 s"),
        ] {
            assert_eq!(span(secs), text);
        }
    }

    #[test]
    fn a_table_aligns_its_columns_and_leaves_no_space_at_the_end() {
        let rows = [
            vec!["a".to_owned(), "1,000".to_owned(), "Hi".to_owned()],
            vec!["bcd".to_owned(), "7".to_owned(), String::new()],
        ];
        let shown = table(&["ID", "SENT", "SUBJECT"], &[1], &rows);
        assert_eq!(shown, "ID    SENT  SUBJECT\na    1,000  Hi\nbcd      7");
    }
}
