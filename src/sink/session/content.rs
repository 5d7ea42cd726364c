//! What follows DATA and BDAT: the content, its end, and what becomes of the message. Never keeps
//! more of it than the largest message that is taken.

use std::sync::atomic::Ordering;

use bytes::{Buf, BytesMut};

use super::super::mailbox::Captured;
use super::super::script::{At, Wish};
use super::super::truth::{Event, message_id, sha256};
use super::super::{count, locked};
use super::{Mode, Session, Step};

impl Session {
    pub(super) fn eat_chunk(&mut self, inbox: &mut BytesMut, left: usize, is_last: bool) -> bool {
        let here = left.min(inbox.len());
        self.keep(&inbox[..here]);
        inbox.advance(here);
        if here < left {
            self.mode = Mode::Chunk {
                left: left - here,
                is_last,
            };
            return false;
        }
        self.mode = Mode::Command;
        match (self.to.is_empty(), is_last) {
            (true, false) => self.say("554 5.5.1 no valid recipients\r\n"),
            (true, true) => {
                self.answer(At::NoRecipient, "554 5.5.1 no valid recipients\r\n");
            }
            (false, false) => self.say("250 2.0.0 ok\r\n"),
            (false, true) => self.end_of_data(),
        }
        true
    }

    /// Takes whole lines. Only CRLF ends a line; what stands behind a bare LF is still the same line,
    /// so nobody smuggles an end of data in.
    pub(super) fn eat_content(&mut self, inbox: &mut BytesMut) -> bool {
        let mut at = 0;
        let mut is_over = false;
        while let Some(len) = inbox[at..].iter().position(|&b| b == b'\n') {
            let line = at..at + len + 1;
            at = line.end;
            if inbox[line.clone()] == *b".\r\n" {
                is_over = true;
                break;
            }
            if !inbox[line.clone()].ends_with(b"\r\n") {
                count(&self.shared.counters.violations);
            }
            let skip = usize::from(inbox[line.start] == b'.');
            self.keep(&inbox[line.start + skip..line.end]);
        }
        inbox.advance(at);
        if is_over {
            self.mode = Mode::Command;
            self.end_of_data();
            if !inbox.is_empty() && !self.shared.options.extensions.pipelining {
                count(&self.shared.counters.violations);
            }
        } else if inbox.len() > self.size_max() {
            self.say("500 5.5.2 line too long\r\n");
            self.next = Some(Step::Close);
        }
        is_over
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.content_len += bytes.len();
        let options = &self.shared.options;
        if (options.keep_mailbox || options.log.is_some()) && self.content_len <= self.size_max() {
            self.content.extend_from_slice(bytes);
        }
    }

    fn end_of_data(&mut self) {
        let bytes = &self.shared.counters.content_bytes;
        bytes.fetch_add(self.content_len as u64, Ordering::Relaxed);
        let has_truth = self.shared.truth.is_some();
        let id = has_truth.then(|| message_id(&self.content)).flatten();
        self.record("data_complete", id.as_deref(), None);
        let is_dropped = match &self.wish {
            Some(Wish::DropAfterDot | Wish::StallAfterDot) => true,
            _ => self.shared.draw(self.shared.options.drop_after_data_rate),
        };
        let reply = match &self.wish {
            _ if self.content_len > self.size_max() => "552 5.3.4 message too large\r\n".to_owned(),
            Some(Wish::RefuseContent(reply)) => reply.clone(),
            _ => format!("250 2.0.0 kept as {}\r\n", self.id),
        };
        if is_dropped {
            self.record("decision", id.as_deref(), None);
            self.next = Some(if self.wish == Some(Wish::StallAfterDot) {
                Step::Silence
            } else {
                Step::Close
            });
            count(&self.shared.counters.taken_unanswered);
            self.capture();
        } else {
            let from = self.replies.len();
            let first = self.answer(At::Dot, &reply);
            let code = self
                .replies
                .get(from..from + 3)
                .and_then(|c| std::str::from_utf8(c).ok()?.parse().ok());
            self.record("decision", id.as_deref(), code);
            self.record("reply_flushed", id.as_deref(), code);
            if first == b'2' {
                count(&self.shared.counters.accepted);
                self.capture();
            }
        }
        self.forget();
    }

    fn record(&mut self, event: &'static str, message_id: Option<&str>, code: Option<u16>) {
        if self.shared.truth.is_some() {
            let at = self.shared.options.clock.now();
            let event = Event {
                event,
                at,
                connection: self.id,
                message_id,
                rcpt: &self.to,
                sha256: (event == "data_complete").then(|| sha256(&self.content)),
                code,
            };
            let is_after = event.event == "reply_flushed";
            event.append_to(if is_after {
                &mut self.truth_after
            } else {
                &mut self.truth_before
            });
        }
    }

    fn capture(&mut self) {
        if let Some(tell) = &self.shared.options.on_taken {
            tell(&self.to);
        }
        if self.shared.options.count_recipients {
            let mut copies = locked(&self.shared.copies);
            for to in &self.to {
                *copies.entry(to.clone()).or_insert(0) += 1;
            }
        }
        if self.shared.options.keep_mailbox {
            self.shared.mailbox.push(Captured {
                id: 0,
                at: self.shared.options.clock.now(),
                connection: self.id,
                from: self.from.take().unwrap_or_default(),
                to: std::mem::take(&mut self.to),
                commands: std::mem::take(&mut self.commands),
                raw: std::mem::take(&mut self.content),
            });
        }
    }
}
