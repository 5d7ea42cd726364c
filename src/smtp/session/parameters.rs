//! MAIL and RCPT with their parameters: SIZE (RFC 1870), SMTPUTF8 (RFC 6531) and DSN (RFC 3461), each only where it is offered and
//! needed. Never writes what could end a command line.

use std::fmt::Write as _;

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::config::Notify;
use super::super::failure::{Cause, Failure};
use super::{Connection, Envelope};

/// Longest ENVID (RFC 3461 4.4), in bytes of its encoded form.
const ENVID_LEN_MAX: usize = 100;

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    pub(super) fn push_mail(&mut self, envelope: &Envelope, size: usize) {
        let mut line = format!("MAIL FROM:<{}>", envelope.from);
        if self.offers.size.is_some() {
            let _ = write!(line, " SIZE={size}");
        }
        if envelope.needs_smtputf8() {
            line.push_str(" SMTPUTF8");
        }
        if self.notify.is_some() {
            // The message is known here; its header is enough to tell which one came back.
            line.push_str(" RET=HDRS");
            let id = envelope.id.as_deref().map(xtext);
            if let Some(id) = id.filter(|id| id.len() <= ENVID_LEN_MAX) {
                let _ = write!(line, " ENVID={id}");
            }
        }
        line.push_str("\r\n");
        self.out.extend_from_slice(line.as_bytes());
        self.expect_reply();
    }

    pub(super) fn push_rcpt(&mut self, envelope: &Envelope) {
        let mut line = format!("RCPT TO:<{}>", envelope.to);
        if let Some(notify) = self.notify {
            let _ = write!(line, " NOTIFY={}", words(notify));
            // Of other addresses RFC 6533 wants another encoding, and the parameter may be left out.
            if envelope.to.as_str().is_ascii() {
                let _ = write!(line, " ORCPT=rfc822;{}", xtext(envelope.to.as_str()));
            }
        }
        line.push_str("\r\n");
        self.out.extend_from_slice(line.as_bytes());
        self.expect_reply();
    }

    /// A relay that offers DSN and refuses its parameters (555, RFC 5321 4.1.1.11) is not asked for reports any more. `true` when
    /// that is new, and so the message worth another try.
    pub(super) fn forgo_parameters(&mut self, failure: &Failure) -> bool {
        let refuses = matches!(&failure.cause, Cause::Reply(reply) if reply.code == 555);
        refuses && !self.is_dead && self.notify.take().is_some()
    }
}

fn words(notify: Notify) -> String {
    let all = [
        (notify.success, "SUCCESS"),
        (notify.failure, "FAILURE"),
        (notify.delay, "DELAY"),
    ];
    let wanted: Vec<&str> = all
        .iter()
        .filter(|(is_wanted, _)| *is_wanted)
        .map(|(_, word)| *word)
        .collect();
    match wanted.is_empty() {
        true => "NEVER".to_owned(),
        false => wanted.join(","),
    }
}

/// The encoding of RFC 3461 4: printable ASCII as it is, but for `+` and `=`.
fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' => {
                let _ = write!(out, "+{byte:02X}");
            }
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "+{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xtext_may_not_hold_is_written_in_hex() {
        assert_eq!(xtext("anna+news=1@example.org"), "anna+2Bnews+3D1@example.org");
        assert_eq!(xtext("a b\r\né"), "a+20b+0D+0A+C3+A9");
    }

    #[test]
    fn reports_are_named_or_declined() {
        assert_eq!(words(Notify::default()), "NEVER");
        let all = Notify {
            success: true,
            failure: true,
            delay: true,
        };
        assert_eq!(words(all), "SUCCESS,FAILURE,DELAY");
    }
}
