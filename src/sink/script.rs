//! What the relay does instead of the ordinary: by stage for a test, by address for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A point of a session at which something else may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Banner,
    Ehlo,
    StartTls,
    /// AUTH, and every line that follows it.
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The end of data, also of BDAT LAST.
    Dot,
    /// The end of data of a message that has no recipient left: only BDAT comes so far.
    NoRecipient,
    Rset,
    Quit,
}

/// What happens instead. Replies that are due before it leave first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// These raw bytes. The session goes on as their first digit says: 2 is accepted, 3 waits for
    /// more, anything else is refused.
    Say(Vec<u8>),
    /// As `Say`, and closed after it.
    SayAndClose(Vec<u8>),
    /// As `Say`, a byte at a time.
    Drip(Vec<u8>, Duration),
    Close,
    /// Closed with a TCP reset.
    Reset,
    /// Nothing, ever: the client has to lose patience.
    Silence,
}

/// A list of exceptions; the first that fits and is not used up counts. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Script(Vec<Arc<Exception>>);

#[derive(Debug)]
struct Exception {
    at: At,
    act: Act,
    skips_left: AtomicU32,
    times_left: AtomicU32,
}

impl Script {
    /// Every time.
    #[must_use]
    pub fn always(self, at: At, act: Act) -> Self {
        self.with(at, 0, u32::MAX, act)
    }

    /// Once, on whichever connection comes first, after the stage was passed `skips` times.
    #[must_use]
    pub fn once(self, at: At, skips: u32, act: Act) -> Self {
        self.with(at, skips, 1, act)
    }

    fn with(mut self, at: At, skips: u32, times: u32, act: Act) -> Self {
        let exception = Exception {
            at,
            act,
            skips_left: skips.into(),
            times_left: times.into(),
        };
        self.0.push(Arc::new(exception));
        self
    }

    pub(super) fn act(&self, at: At) -> Option<Act> {
        self.0.iter().filter(|e| e.at == at).find_map(|e| e.take())
    }
}

impl Exception {
    fn take(&self) -> Option<Act> {
        let one_less = |n: u32| n.checked_sub(1);
        if self
            .skips_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
        {
            return None;
        }
        let used = self
            .times_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        used.is_ok().then(|| self.act.clone())
    }
}

/// What an address asks for by its local part. A `+tag` is ignored, so that many addresses can ask
/// for the same.
///
/// | local part | what happens |
/// |---|---|
/// | `reject-550-5.1.1`, `defer-451`, `defer-451-4.7.1` | that reply to RCPT (enhanced code optional) |
/// | `dot-554-5.7.1`, `dot-451` | that reply to the end of data |
/// | `defer-once` | 451 to the first RCPT, accepted afterwards |
/// | `close-at-rcpt`, `close-at-data` | closed instead of the reply |
/// | `drop-after-dot` | taken, and closed instead of the reply |
/// | `stall`, `stall-after-dot` | no reply to RCPT, or to the end of data, ever |
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    RefuseRcpt(String),
    RefuseContent(String),
    DeferOnce,
    CloseAtRcpt,
    CloseAtData,
    DropAfterDot,
    Stall,
    StallAfterDot,
}

impl Wish {
    pub fn of(address: &str) -> Option<Self> {
        let local = address.split('@').next().unwrap_or("");
        let local = local.split('+').next().unwrap_or("");
        match local {
            "defer-once" => Some(Wish::DeferOnce),
            "close-at-rcpt" => Some(Wish::CloseAtRcpt),
            "close-at-data" => Some(Wish::CloseAtData),
            "drop-after-dot" => Some(Wish::DropAfterDot),
            "stall" => Some(Wish::Stall),
            "stall-after-dot" => Some(Wish::StallAfterDot),
            _ => {
                let (verb, codes) = local.split_once('-')?;
                match verb {
                    "reject" | "defer" => refusal(codes).map(Wish::RefuseRcpt),
                    "dot" => refusal(codes).map(Wish::RefuseContent),
                    _ => None,
                }
            }
        }
    }
}

/// `550-5.1.1` as a reply line.
fn refusal(codes: &str) -> Option<String> {
    let (code, enhanced) = codes.split_once('-').unwrap_or((codes, ""));
    let is_refusal = code.len() == 3 && code.starts_with(['4', '5']) && code.bytes().all(|b| b.is_ascii_digit());
    let space = if enhanced.is_empty() { "" } else { " " };
    is_refusal.then(|| format!("{code} {enhanced}{space}as the address asks for\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_asks_by_its_local_part() {
        let rcpt = |line: &str| Some(Wish::RefuseRcpt(format!("{line} as the address asks for\r\n")));
        let dot = |line: &str| Some(Wish::RefuseContent(format!("{line} as the address asks for\r\n")));
        for (address, wish) in [
            ("reject-550-5.1.1@example.org", rcpt("550 5.1.1")),
            ("reject-550-5.1.1+17@example.org", rcpt("550 5.1.1")),
            ("defer-451@example.org", rcpt("451")),
            ("dot-554-5.7.1@example.org", dot("554 5.7.1")),
            ("defer-once@example.org", Some(Wish::DeferOnce)),
            ("stall@example.org", Some(Wish::Stall)),
            ("anna@example.org", None),
            ("reject-250@example.org", None),
            ("reject-@example.org", None),
            ("anna-maria@example.org", None),
        ] {
            assert_eq!(Wish::of(address), wish, "{address}");
        }
    }

    #[test]
    fn an_exception_waits_its_skips_and_ends_after_its_times() {
        let script = Script::default().once(At::Mail, 1, Act::Close);
        let acts: Vec<_> = (0..3).map(|_| script.act(At::Mail)).collect();
        assert_eq!(acts, [None, Some(Act::Close), None]);
        assert_eq!(script.act(At::Rcpt), None);
    }
}
