//! The messages that the sessions hand over: each its own, with its own addressee, Message-ID and text. Never more than one in memory.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::address::EmailAddress;
use crate::smtp::{Envelope, Mail};

/// Letters of a line of text.
const LINE_LEN: usize = 72;
/// Whom they are from.
const FROM: &str = "news@sender.example";

/// So many letters, handed out one after the other.
pub(super) struct Letters {
    next: AtomicU64,
    n: u64,
    /// Two texts' length of random words: a letter's text is a window of it.
    words: String,
    size: usize,
}

pub(super) struct Letter {
    pub envelope: Envelope,
    pub bytes: Vec<u8>,
}

impl Letter {
    pub fn mail(&self) -> Mail<'_> {
        Mail {
            envelope: &self.envelope,
            body: &self.bytes,
        }
    }
}

impl Letters {
    pub fn new(n: u64, size: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let letter = |random: &mut fastrand::Rng| match random.u8(0..7) {
            0 => ' ',
            _ => random.lowercase(),
        };
        Self {
            next: AtomicU64::new(0),
            n,
            words: (0..2 * size.max(1_000)).map(|_| letter(&mut random)).collect(),
            size,
        }
    }

    pub fn take(&self) -> Option<Letter> {
        let i = self.next.fetch_add(1, Ordering::Relaxed);
        (i < self.n).then(|| self.letter(i))
    }

    fn letter(&self, i: u64) -> Letter {
        let to = EmailAddress::parse(&format!("reader{i}@d{}.example", i % 997)).expect("plain letters and digits");
        let mut text = String::with_capacity(self.size + self.size / 16 + 400);
        let _ = write!(
            text,
            "From: News <{FROM}>\r\nTo: {to}\r\nSubject: Number {i}\r\nMessage-ID: <{i}.bench@sender.example>\r\n\
             Date: Thu, 1 Oct 2026 09:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        );
        let from = (i as usize * 31) % (self.words.len() - self.size);
        let mut words = &self.words[from..from + self.size];
        while !words.is_empty() {
            let (line, rest) = words.split_at(words.len().min(LINE_LEN));
            text.push_str(line);
            text.push_str("\r\n");
            words = rest;
        }
        Letter {
            envelope: Envelope::new(FROM, to).expect("plain letters and digits"),
            bytes: text.into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_letter_is_like_another_and_a_seed_gives_the_same_ones() {
        let all = |seed| {
            let letters = Letters::new(500, 300, seed);
            std::iter::from_fn(|| letters.take().map(|l| l.bytes)).collect::<Vec<_>>()
        };
        let letters = all(1);
        assert_eq!(letters.len(), 500);
        assert_eq!(letters.iter().collect::<HashSet<_>>().len(), 500);
        assert_eq!(letters, all(1));
        assert_ne!(letters, all(2));
    }
}
