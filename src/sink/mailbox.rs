//! The newest captured messages, in memory. Never more than its two limits, whatever comes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::locked;
use crate::domain::time::Timestamp;

/// Most messages kept: more than anybody looks through.
pub const MAILBOX_MESSAGES_MAX: usize = 1_000;
/// Most bytes kept: some thousand ordinary newsletters, and nothing beside the program's own memory.
pub const MAILBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One message as it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Counts up from 1.
    pub id: u64,
    pub at: Timestamp,
    /// The connection it came on, counted from 1.
    pub connection: u64,
    pub from: String,
    pub to: Vec<String>,
    /// MAIL and RCPT with their parameters, as they came.
    pub commands: Vec<String>,
    /// Headers and body with the transparency of SMTP removed.
    pub raw: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Mailbox(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    messages: VecDeque<Arc<Captured>>,
    bytes: usize,
    last_id: u64,
}

impl Mailbox {
    /// Keeps a message; its id is given here. The oldest go when there is no room.
    pub fn push(&self, mut message: Captured) {
        let mut ring = locked(&self.0);
        ring.last_id += 1;
        message.id = ring.last_id;
        ring.bytes += message.raw.len();
        ring.messages.push_back(Arc::new(message));
        while ring.messages.len() > MAILBOX_MESSAGES_MAX || ring.bytes > MAILBOX_BYTES_MAX {
            let Some(oldest) = ring.messages.pop_front() else { break };
            ring.bytes -= oldest.raw.len();
        }
    }

    pub fn newest(&self, limit: usize) -> Vec<Arc<Captured>> {
        locked(&self.0).messages.iter().rev().take(limit).cloned().collect()
    }

    pub fn get(&self, id: u64) -> Option<Arc<Captured>> {
        locked(&self.0).messages.iter().find(|m| m.id == id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Captured {
        Captured {
            id: 0,
            at: Timestamp(0),
            connection: 1,
            from: String::new(),
            to: vec![],
            commands: vec![],
            raw: vec![b'x'; len],
        }
    }

    #[test]
    fn the_mailbox_keeps_the_newest_within_both_limits() {
        let mailbox = Mailbox::default();
        for _ in 0..MAILBOX_MESSAGES_MAX + 5 {
            mailbox.push(message(10));
        }
        let kept = mailbox.newest(usize::MAX);
        assert_eq!((kept.len(), kept[0].id), (MAILBOX_MESSAGES_MAX, 1_005));
        assert!(mailbox.get(5).is_none() && mailbox.get(6).is_some());

        mailbox.push(message(MAILBOX_BYTES_MAX));
        assert_eq!(mailbox.newest(usize::MAX).len(), 1);
        mailbox.push(message(MAILBOX_BYTES_MAX + 1));
        assert_eq!(mailbox.newest(usize::MAX).len(), 0, "what is larger than the mailbox is not kept");
    }
}
