//! What the relay does instead of the ordinary: by stage for a test, by address for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Between two bytes of a reply that drips, from the command line.
const DRIP: Duration = Duration::from_secs(10);

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
    /// As `Say`, and reset after it.
    SayAndReset(Vec<u8>),
    /// As `Say`, a byte at a time.
    Drip(Vec<u8>, Duration),
    Close,
    /// Closed with a TCP reset.
    Reset,
    /// As `Say`, and then nothing is read any more.
    SayAndHang(Vec<u8>),
    /// Nothing, ever: the client has to lose patience.
    Silence,
}

/// A list of exceptions; the first that fits and is not used up counts. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Script(Vec<Arc<Exception>>);

#[derive(Debug)]
struct Exception {
    at: At,
    /// Only for this address, or for this domain when it begins with `@`.
    to: Option<String>,
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

    /// Every time it is about this address, or a domain that is given as `@domain`.
    #[must_use]
    pub fn for_address(self, at: At, to: impl Into<String>, act: Act) -> Self {
        self.push(at, Some(to.into()), 0, u32::MAX, act)
    }

    /// Reads `STAGE[/ADDRESS][#N]=ACT` and adds it, as the command line has it. The act is a reply such as `451 4.3.0 busy`, or
    /// `close`, `reset`, `silence`, `bye:REPLY` (and closed), `drip:REPLY` (a byte in ten seconds). `#N` is the Nth time only.
    ///
    /// # Errors
    /// A sentence that names the part and the fix.
    pub fn parse(self, rule: &str) -> Result<Self, String> {
        let (when, act) = rule
            .split_once('=')
            .ok_or("a rule is STAGE=ACT, such as rcpt='451 4.3.0 busy'")?;
        let (when, nth) = match when.split_once('#') {
            None => (when, None),
            Some((when, n)) => match n.parse::<u32>() {
                Ok(n) if n > 0 => (when, Some(n - 1)),
                _ => return Err(format!("'#{n}' is not which time; count from #1")),
            },
        };
        let (stage, to) = match when.split_once('/') {
            Some((stage, to)) => (stage, Some(to.to_owned())),
            None => (when, None),
        };
        let at = At::named(stage)?;
        let is_addressed = matches!(at, At::Rcpt | At::Data | At::Dot);
        if to.is_some() && !is_addressed {
            return Err(format!("at {stage} no recipient is known yet; name one with rcpt, data or dot"));
        }
        Ok(self.push(at, to, nth.unwrap_or(0), nth.map_or(u32::MAX, |_| 1), Act::parse(act)?))
    }

    fn with(self, at: At, skips: u32, times: u32, act: Act) -> Self {
        self.push(at, None, skips, times, act)
    }

    fn push(mut self, at: At, to: Option<String>, skips: u32, times: u32, act: Act) -> Self {
        let exception = Exception {
            at,
            to,
            act,
            skips_left: skips.into(),
            times_left: times.into(),
        };
        self.0.push(Arc::new(exception));
        self
    }

    /// `to` is the recipient that it is about, where there is one.
    pub(super) fn act(&self, at: At, to: Option<&str>) -> Option<Act> {
        self.0
            .iter()
            .filter(|e| e.at == at && e.concerns(to))
            .find_map(|e| e.take())
    }
}

impl At {
    fn named(stage: &str) -> Result<Self, String> {
        Ok(match stage.to_ascii_lowercase().as_str() {
            "banner" => At::Banner,
            "ehlo" => At::Ehlo,
            "starttls" => At::StartTls,
            "auth" => At::Auth,
            "mail" => At::Mail,
            "rcpt" => At::Rcpt,
            "data" => At::Data,
            "dot" => At::Dot,
            "rset" => At::Rset,
            "quit" => At::Quit,
            _ => {
                return Err(format!(
                    "'{stage}' is no stage; use banner, ehlo, starttls, auth, mail, rcpt, data, dot, rset or quit"
                ));
            }
        })
    }
}

impl Act {
    fn parse(text: &str) -> Result<Self, String> {
        let line = |reply: &str| match reply.as_bytes() {
            [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', ..] => Ok(format!("{reply}\r\n").into_bytes()),
            _ => Err(format!(
                "'{reply}' is no reply; begin it with a code, or say close, reset, silence, bye:… or drip:…"
            )),
        };
        match text.split_once(':') {
            Some(("bye", reply)) => return line(reply).map(Act::SayAndClose),
            Some(("drip", reply)) => return line(reply).map(|bytes| Act::Drip(bytes, DRIP)),
            _ => {}
        }
        match text {
            "close" => Ok(Act::Close),
            "reset" => Ok(Act::Reset),
            "silence" => Ok(Act::Silence),
            reply => line(reply).map(Act::Say),
        }
    }
}

impl Exception {
    fn concerns(&self, address: Option<&str>) -> bool {
        match (&self.to, address) {
            (None, _) => true,
            (Some(to), Some(address)) if to.starts_with('@') => address.ends_with(to.as_str()),
            (Some(to), Some(address)) => to == address,
            (Some(_), None) => false,
        }
    }

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
        let acts: Vec<_> = (0..3).map(|_| script.act(At::Mail, None)).collect();
        assert_eq!(acts, [None, Some(Act::Close), None]);
        assert_eq!(script.act(At::Rcpt, None), None);
    }

    #[test]
    fn a_rule_is_read_or_refused_with_the_fix() {
        let script = Script::default()
            .parse("rcpt/@slow.example=451 4.3.0 busy")
            .and_then(|s| s.parse("rcpt/anna@x.example=close"))
            .and_then(|s| s.parse("dot#2=reset"))
            .unwrap();
        let busy = Some(Act::Say(b"451 4.3.0 busy\r\n".to_vec()));
        assert_eq!(script.act(At::Rcpt, Some("bo@slow.example")), busy);
        assert_eq!(script.act(At::Rcpt, Some("anna@x.example")), Some(Act::Close));
        assert_eq!(script.act(At::Rcpt, Some("bo@x.example")), None);
        let dots: Vec<_> = (0..3).map(|_| script.act(At::Dot, None)).collect();
        assert_eq!(dots, [None, Some(Act::Reset), None]);
        for (rule, part) in [
            ("rcpt", "STAGE=ACT"),
            ("never=close", "no stage"),
            ("rcpt=maybe", "begin it with a code"),
            ("dot#0=close", "from #1"),
            ("mail/anna@x.example=close", "no recipient"),
        ] {
            let error = Script::default().parse(rule).unwrap_err();
            assert!(error.contains(part), "{rule}: {error}");
        }
    }
}
