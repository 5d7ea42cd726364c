//! AUTH (RFC 4954) with PLAIN (RFC 4616), LOGIN or XOAUTH2. Never in clear to another machine, and never a
//! second mechanism after the first was refused: that is how an attacker makes a client weaker.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncWrite};

use super::config::{AuthMethod, Credentials, RelayConfig};
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
    let reply = match relay.auth {
        AuthMethod::Password | AuthMethod::Plain if offers.auth_plain => plain(wire, credentials, limit).await?,
        AuthMethod::Password | AuthMethod::Login if offers.auth_login => login(wire, credentials, limit).await?,
        AuthMethod::XOAuth2 if offers.auth_xoauth2 => xoauth2(wire, credentials, limit).await?,
        method => return Err(Cause::Unsupported(format!("the relay does not offer AUTH {}", named(method)))),
    };
    match reply.digit() {
        2 => Ok(()),
        3 => Err(Cause::Desync(format!("{} after the whole of AUTH", reply.code))),
        _ => Err(Cause::Reply(reply)),
    }
}

fn named(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::Password => "PLAIN or LOGIN",
        AuthMethod::Plain => "PLAIN",
        AuthMethod::Login => "LOGIN",
        AuthMethod::XOAuth2 => "XOAUTH2",
    }
}

async fn plain<S>(wire: &mut Wire<S>, credentials: &Credentials, limit: Duration) -> Result<Reply, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let proof = STANDARD.encode(format!("\0{}\0{}", credentials.user, credentials.password));
    let reply = command(wire, &format!("AUTH PLAIN {proof}"), limit).await?;
    // Some servers overlook the initial response and ask for it.
    match reply.code {
        334 => command(wire, &proof, limit).await,
        _ => Ok(reply),
    }
}

/// A refused token is answered with 334 and a JSON text that says why; the 535 comes only after an empty line.
async fn xoauth2<S>(wire: &mut Wire<S>, credentials: &Credentials, limit: Duration) -> Result<Reply, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let proof = format!("user={}\x01auth=Bearer {}\x01\x01", credentials.user, credentials.password);
    let proof = STANDARD.encode(proof);
    let mut reply = command(wire, &format!("AUTH XOAUTH2 {proof}"), limit).await?;
    if reply.code == 334 && reply.text.is_empty() {
        reply = command(wire, &proof, limit).await?;
    }
    if reply.code != 334 {
        return Ok(reply);
    }
    match command(wire, "", limit).await? {
        accepted if accepted.is_positive() => {
            Err(Cause::Desync(format!("{} to a token that was refused", accepted.code)))
        }
        refused => Ok(refused),
    }
}

/// LOGIN has no specification; every server asks for the name first and for the password second.
async fn login<S>(wire: &mut Wire<S>, credentials: &Credentials, limit: Duration) -> Result<Reply, Cause>
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
