//! The ground truth: what the relay really received, decided and answered, a JSON object a line, to
//! be held against what the sender believes.
//!
//! Three events a message: `data_complete` with the hash of its bytes when the end of data was read, `decision` with the code
//! (or without, when none will be sent), and `reply_flushed` when the reply had been handed to the
//! system. The first two are written before the reply leaves, so that no reply is without them.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use aws_lc_rs::digest;
use serde::Serialize;

use super::locked;
use crate::domain::time::Timestamp;

pub(super) struct Truth(Mutex<File>);

/// One line.
#[derive(Serialize)]
pub(super) struct Event<'a> {
    pub event: &'static str,
    pub at: Timestamp,
    pub connection: u64,
    pub message_id: Option<&'a str>,
    pub rcpt: &'a [String],
    /// Of header and body, with the transparency of SMTP removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
}

impl Event<'_> {
    pub fn append_to(&self, lines: &mut Vec<u8>) {
        serde_json::to_writer(&mut *lines, self).expect("an event has only texts and numbers");
        lines.push(b'\n');
    }
}

impl Truth {
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(File::create(path)?)))
    }

    /// Writes whole lines at once, in the calling task: a log that may lag behind proves nothing.
    pub fn write(&self, lines: &[u8]) {
        if !lines.is_empty() {
            locked(&self.0)
                .write_all(lines)
                .expect("a ground truth with holes is worse than none");
        }
    }
}

/// In hex.
pub(super) fn sha256(raw: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, raw);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The value of the Message-ID header, if there is one.
pub(super) fn message_id(raw: &[u8]) -> Option<String> {
    const NAME: &str = "message-id:";
    for line in raw.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if line
            .get(..NAME.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(NAME.as_bytes()))
        {
            return Some(String::from_utf8_lossy(&line[NAME.len()..]).trim().to_owned());
        }
    }
    None
}
