//! Reads a body from its first byte to its last, in whichever of the three formats. Runs on a thread of its
//! own, where it may block; what it finds leaves through the [`Collector`].

use std::io::Read;

use tokio::sync::mpsc;

use super::body::{BodyFault, Decoded};
use super::collect::{BatchLimit, Collector, NobodyListens, Tally};
use super::head::Head;
use super::problem::{AcceptError, FieldProblem};
use super::table::{Column, Options};
use super::{json, lines, table};
use crate::domain::recipient::Recipient;

/// Most bytes of everything a request says beside its recipients: three template sources of 256 KiB, headers,
/// shared data, and 2 MiB of attachments, which base64 makes a third longer.
pub const HEAD_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object that holds the array of recipients.
    Json,
    /// An object a line.
    Ndjson,
    /// A table with a column of addresses, and maybe one of names; every other column becomes data.
    Csv,
}

/// What kind of list a body holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The name of the array in a JSON body, and in pointers.
    pub array: &'static str,
    /// Whether the first line of an NDJSON body is the head.
    pub has_head_line: bool,
    pub limit: BatchLimit,
}

/// How a body is to be read.
pub(super) struct Reading {
    pub format: Format,
    pub is_gzip: bool,
    /// How a CSV body is to be read.
    pub table: Options,
    pub bytes_max: u64,
    /// What the request says outside its body.
    pub head: Head,
    /// Read for the hash alone: the request was answered before.
    pub hash_only: bool,
}

/// A body that was read to its end.
#[derive(Debug)]
pub(super) struct Parsed<T> {
    pub head: Head,
    /// Whether the array stood in a JSON body, be it empty.
    pub has_array: bool,
    pub last_batch: Option<T>,
    pub tally: Tally,
    /// The columns of a CSV body.
    pub columns: Vec<Column>,
    /// SHA-256 of the decoded body and of what was said outside it, in hex.
    pub hash: String,
}

/// Why a parser stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The body is not of its format.
    Malformed(FieldProblem),
    /// It is, but nothing more can be made of it.
    Invalid(FieldProblem),
    Fault(BodyFault),
    /// The request was given up: the error is known elsewhere.
    NobodyListens,
}

impl From<BodyFault> for Stop {
    fn from(fault: BodyFault) -> Self {
        Stop::Fault(fault)
    }
}

impl From<std::io::Error> for Stop {
    fn from(e: std::io::Error) -> Self {
        Stop::Fault(e.into())
    }
}

impl From<NobodyListens> for Stop {
    fn from(_: NobodyListens) -> Self {
        Stop::NobodyListens
    }
}

impl From<Stop> for AcceptError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Malformed(problem) => AcceptError::Malformed(problem),
            Stop::Invalid(problem) => AcceptError::invalid(problem),
            Stop::Fault(fault) => fault.into(),
            Stop::NobodyListens => AcceptError::Disconnected,
        }
    }
}

/// Reads a body. Blocks.
///
/// # Errors
/// As [`AcceptError`], except what only the store knows.
pub(super) fn read<T>(
    raw: impl Read,
    reading: Reading,
    shape: Shape,
    make: fn(Vec<Recipient>) -> T,
    out: mpsc::Sender<T>,
) -> Result<Parsed<T>, AcceptError> {
    let preface = preface(&reading.head);
    let mut body = Decoded::new(raw, reading.is_gzip, reading.bytes_max, &preface);
    let mut collector = Collector::new(shape.array, shape.limit, make, out);
    let mut columns = Vec::new();
    let read = match reading.format {
        _ if reading.hash_only => body.read_out().map(|()| (Head::new(), false)).map_err(Stop::from),
        Format::Json => json::read(&mut body, &mut collector),
        Format::Ndjson => lines::read(&mut body, shape.has_head_line, &mut collector).map(|head| (head, false)),
        Format::Csv => table::read(&mut body, reading.table, &mut collector).map(|told| {
            columns = told;
            (Head::new(), false)
        }),
    };
    let (mut head, has_array) = match read {
        Ok(parts) => parts,
        Err(stop) => {
            if matches!(stop, Stop::Malformed(_) | Stop::Invalid(_)) {
                body.drain();
            }
            return Err(stop.into());
        }
    };
    head.extend(reading.head);
    let (last_batch, tally) = collector.finish();
    Ok(Parsed {
        head,
        has_array,
        last_batch,
        tally,
        columns,
        hash: body.hash(),
    })
}

/// What the hash has of the head outside the body: nothing when there is none.
fn preface(head: &Head) -> Vec<u8> {
    match head.is_empty() {
        true => Vec::new(),
        false => serde_json::to_vec(head).expect("JSON values always serialise"),
    }
}
