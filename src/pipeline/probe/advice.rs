//! What to do about a relay that fails its test, by where and how it failed.

use super::{Cause, Failure, Fault, RelayConfig, Stage, TlsMode};

/// What to do, by where and how it failed.
pub(super) fn advice(failure: &Failure, config: &RelayConfig, fault: Fault) -> String {
    let (host, port) = (&config.host, config.port);
    let silent = matches!(failure.cause, Cause::Timeout(_) | Cause::Closed | Cause::Desync(_));
    match (failure.stage, &failure.cause) {
        (Stage::Connect, _) => format!(
            "Check that {host} and port {port} are right and that this machine may connect there. Many networks block port 25; \
             587 and 465 are for programs like this one."
        ),
        (Stage::Banner, _) if silent && config.tls != TlsMode::Implicit => format!(
            "Nothing that is SMTP came from port {port}. If the relay wants TLS from the first byte, as on port 465, use tls=implicit."
        ),
        (Stage::StartTls, Cause::Unsupported(_)) => {
            "The relay does not offer STARTTLS. Use tls=implicit with its TLS port, usually 465; or tls=none if the relay is on this \
             machine."
                .to_owned()
        }
        (Stage::StartTls, Cause::Tls(_)) => format!(
            "The handshake failed. The certificate must be issued by an authority this machine trusts, be in date, and bear the \
             name {host}; or the port speaks clear text first, and tls=starttls is right."
        ),
        (Stage::StartTls, Cause::Timeout(_) | Cause::Closed) => {
            "The handshake did not come to its end. If the port speaks clear text first, as 587 does, use tls=starttls.".to_owned()
        }
        (Stage::Auth, Cause::Unsupported(why)) => format!("No login was tried: {why}. Check the port and tls= of the relay."),
        (Stage::Auth, Cause::Reply(_)) => {
            "The relay refuses the login. Check user and password; some providers want a password made for programs.".to_owned()
        }
        (Stage::Mail, Cause::Reply(_)) if fault == Fault::Broadcast => {
            "The relay refuses this sender. Use a sender that it sends for, or have it verified there.".to_owned()
        }
        (Stage::Rcpt, Cause::Reply(_)) if fault == Fault::Relay => {
            "The relay does not send for us to other domains. Log in to it, or have this machine's address allowed there.".to_owned()
        }
        (Stage::Rcpt, Cause::Reply(_)) => "The relay refuses this recipient; the reply says why. Try another address.".to_owned(),
        (Stage::Body | Stage::FinalDot, Cause::Reply(_)) => {
            "The relay refuses the message itself; the reply says why.".to_owned()
        }
        (Stage::Body | Stage::FinalDot, _) if failure.end_of_data_written => {
            "Whether the relay took the message is not known: its answer did not come. Look whether it arrives.".to_owned()
        }
        (_, Cause::Reply(_)) => "The relay turns this machine away; its reply says why. Show it to whoever runs the relay.".to_owned(),
        (_, Cause::Timeout(_)) => "The relay is too slow to be of use, or something on the way swallows its answers.".to_owned(),
        _ => "The relay broke off. Try again; if it lasts, show this transcript to whoever runs the relay.".to_owned(),
    }
}
