//! An NDJSON body: the broadcast in the first line, then one recipient a line. Empty lines are skipped. A
//! line that is no JSON is that recipient's problem alone.

use std::io::{BufRead, BufReader, Read};

use super::body::{BUFFER_BYTES, Decoded, VALUE_BYTES_MAX};
use super::collect::Collector;
use super::given::{self, RECIPIENT_BYTES_MAX};
use super::head::{Head, HeadFault, read_head as parse_head};
use super::problem::FieldProblem;
use super::read::{HEAD_BYTES_MAX, Stop};

/// Reads the whole body. `has_head_line` is false for lists that have no broadcast, such as contacts.
pub(super) fn read<T>(
    body: &mut Decoded<impl Read>,
    has_head_line: bool,
    out: &mut Collector<T>,
) -> Result<Head, Stop> {
    let meter = body.meter();
    meter.allow(if has_head_line { HEAD_BYTES_MAX } else { VALUE_BYTES_MAX });
    let mut lines = Lines {
        source: BufReader::with_capacity(BUFFER_BYTES, body),
        number: 0,
        text: Vec::new(),
    };
    let mut head = None;
    while lines.next(if has_head_line && head.is_none() {
        HEAD_BYTES_MAX as usize
    } else {
        RECIPIENT_BYTES_MAX
    })? {
        meter.restart();
        if has_head_line && head.is_none() {
            head = Some(read_head(&lines, out.array())?);
            meter.allow(VALUE_BYTES_MAX);
            continue;
        }
        let place = out.next_place(Some(lines.number));
        let given = match std::str::from_utf8(&lines.text) {
            Ok(text) => given::from_json(text, place),
            Err(_) => Err(place.reject(place.problem("", "invalid_utf8", "the line is not UTF-8"))),
        };
        out.take(given)?;
    }
    match head {
        None if has_head_line => {
            let detail = "the body is empty: the first line holds the broadcast, each further line a recipient";
            Err(Stop::Malformed(FieldProblem::new("#", "invalid_json", detail)))
        }
        head => Ok(head.unwrap_or_default()),
    }
}

fn read_head(lines: &Lines<impl BufRead>, array: &str) -> Result<Head, Stop> {
    let line = Some(lines.number);
    let head = parse_head(&lines.text).map_err(|fault| match fault {
        HeadFault::Malformed(why) => {
            let detail = format!("the first line must be the broadcast as a JSON object: {why}");
            Stop::Malformed(FieldProblem::new("#", "invalid_json", detail).on_line(line))
        }
        HeadFault::Invalid(problem) => Stop::Invalid(problem.on_line(line)),
    })?;
    if head.contains_key(array) {
        let detail = format!("in NDJSON the {array} stand below the first line, one a line; take {array} out of it");
        return Err(Stop::Invalid(FieldProblem::new(format!("#/{array}"), "conflict", detail).on_line(line)));
    }
    Ok(head)
}

/// Lines of bounded length, numbered from 1.
struct Lines<R> {
    source: R,
    number: u64,
    text: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Goes to the next line that is not empty; `false` at the end.
    fn next(&mut self, bytes_max: usize) -> Result<bool, Stop> {
        loop {
            self.text.clear();
            self.number += 1;
            let room = bytes_max as u64 + 2;
            let n = self.source.by_ref().take(room).read_until(b'\n', &mut self.text)?;
            if n as u64 == room && self.text.last() != Some(&b'\n') {
                let detail = format!("line {} is longer than {bytes_max} bytes", self.number);
                return Err(Stop::Invalid(FieldProblem::new("#", "too_long", detail).on_line(Some(self.number))));
            }
            // A byte order mark is what some editors put before the first line.
            if self.number == 1 && self.text.starts_with(b"\xef\xbb\xbf") {
                self.text.drain(..3);
            }
            self.text.truncate(self.text.trim_ascii_end().len());
            match (n, self.text.is_empty()) {
                (0, _) => return Ok(false),
                (_, false) => return Ok(true),
                (_, true) => {}
            }
        }
    }
}
