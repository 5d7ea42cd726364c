//! AUTH (RFC 4954) with PLAIN (RFC 4616) or LOGIN. Never in clear to another machine, and never a
//! second mechanism after the first was refused: that is how an attacker makes a client weaker.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncWrite};

use super::config::{Credentials, RelayConfig};
use super::failure::Cause;
use super::open::{Capabilities, command};
use super::reply::Reply;
use super::wire::Wire;

/// Proves who we are.
///
/// # Errors
/// The relay's refusal, or why no attempt was made.
pub(super) async fn authenticate<S>(
    wire: &mut Wire<S>,
    relay: &RelayConfig,
    credentials: &Credentials,
    offers: &Capabilities,
) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    if !wire.is_tls() && !relay.is_loopback() {
        return Err(Cause::Unsupported(
            "the password is not sent without TLS; use tls=starttls or tls=implicit".into(),
        ));
    }
    let limit = relay.timeouts.auth;
    let reply = match (offers.auth_plain, offers.auth_login) {
        (true, _) => {
            let proof = STANDARD.encode(format!("\0{}\0{}", credentials.user, credentials.password));
            let reply = command(wire, &format!("AUTH PLAIN {proof}"), limit).await?;
            // Some servers overlook the initial response and ask for it.
            if reply.code == 334 {
                command(wire, &proof, limit).await?
            } else {
                reply
            }
        }
        (false, true) => login(wire, credentials, limit).await?,
        (false, false) => {
            return Err(Cause::Unsupported("the relay offers neither AUTH PLAIN nor AUTH LOGIN".into()));
        }
    };
    match reply.digit() {
        2 => Ok(()),
        3 => Err(Cause::Desync(format!("{} after the whole of AUTH", reply.code))),
        _ => Err(Cause::Reply(reply)),
    }
}

/// LOGIN has no specification; every server asks for the name first and for the password second.
async fn login<S>(wire: &mut Wire<S>, credentials: &Credentials, limit: std::time::Duration) -> Result<Reply, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let asked = command(wire, "AUTH LOGIN", limit).await?;
    if asked.code != 334 {
        return Ok(asked);
    }
    let asked = command(wire, &STANDARD.encode(&credentials.user), limit).await?;
    if asked.code != 334 {
        return Ok(asked);
    }
    command(wire, &STANDARD.encode(&credentials.password), limit).await
}
