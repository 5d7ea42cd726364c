//! From nothing to a connection that is ready for its first message: TCP, banner, EHLO, STARTTLS,
//! AUTH. Whatever fails here is the relay's failure and no message's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::auth;
use super::config::{RelayConfig, TlsMode};
use super::failure::{Cause, Failure, Stage};
use super::reply::Reply;
use super::tls::TlsContext;
use super::transcript::Recorder;
use super::wire::Wire;

/// Most addresses of one name that are tried for one connection. Names of relays have one to three;
/// a longer list would only add up connect timeouts.
const ADDRESSES_MAX: usize = 4;

/// What the relay offers in its answer to EHLO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub pipelining: bool,
    pub chunking: bool,
    pub smtputf8: bool,
    pub starttls: bool,
    pub auth_plain: bool,
    pub auth_login: bool,
    pub auth_xoauth2: bool,
    pub dsn: bool,
    /// Most messages of one session, where it says so (LIMITS MAILMAX, RFC 9422).
    pub mail_max: Option<u32>,
    /// Largest message in bytes; `None` when not offered or without a number. Zero means no limit
    /// (RFC 1870 4) and becomes `usize::MAX`.
    pub size: Option<usize>,
}

impl Capabilities {
    /// Reads the text of an EHLO reply. What is not understood is not offered.
    fn parse(text: &str) -> Self {
        let mut offers = Self::default();
        // The first line is the greeting.
        for line in text.lines().skip(1) {
            let line = line.to_ascii_uppercase();
            // "AUTH=PLAIN" is how it was written before there was a standard, and some still do.
            let mut words = line.split([' ', '=']).filter(|w| !w.is_empty());
            match words.next() {
                Some("PIPELINING") => offers.pipelining = true,
                Some("CHUNKING") => offers.chunking = true,
                Some("DSN") => offers.dsn = true,
                Some("SMTPUTF8") => offers.smtputf8 = true,
                Some("STARTTLS") => offers.starttls = true,
                Some("SIZE") => offers.size = words.next().and_then(|n| n.parse().ok()).map(no_limit_if_zero),
                Some("LIMITS") => offers.mail_max = mail_max(&line),
                Some("AUTH") => {
                    for mechanism in words {
                        offers.auth_plain |= mechanism == "PLAIN";
                        offers.auth_login |= mechanism == "LOGIN";
                        offers.auth_xoauth2 |= mechanism == "XOAUTH2";
                    }
                }
                _ => {}
            }
        }
        offers
    }
}

/// `LIMITS MAILMAX=100 RCPTMAX=1000`; a limit of zero is none (RFC 9422 3.1).
fn mail_max(line: &str) -> Option<u32> {
    let number = line.split(' ').find_map(|word| word.strip_prefix("MAILMAX="))?;
    number.parse().ok().filter(|n| *n > 0)
}

fn no_limit_if_zero(size: usize) -> usize {
    if size == 0 { usize::MAX } else { size }
}

/// Connects to the relay's address, the first that answers.
pub(super) async fn tcp(relay: &RelayConfig) -> Result<TcpStream, Failure> {
    let failed = |cause| Failure::new(Stage::Connect, cause);
    let limit = relay.timeouts.connect;
    let found = timeout(limit, lookup_host((relay.host.as_str(), relay.port))).await;
    let addresses = found
        .map_err(|_| failed(Cause::Timeout(limit)))?
        .map_err(|why| failed(Cause::Io(format!("looking up {}: {why}", relay.host))))?;
    let mut last = Cause::Io(format!("{} has no address", relay.host));
    for address in addresses.take(ADDRESSES_MAX) {
        match timeout(limit, connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(why)) => last = Cause::Io(format!("connecting to {address}: {why}")),
            Err(_) => last = Cause::Timeout(limit),
        }
    }
    Err(failed(last))
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A message is one write and its answer one read. With Nagle's algorithm the last packet of the
    // one waits 40 ms for the delayed acknowledgement of the other.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The name for EHLO: the configured one, or the address literal of our end (RFC 5321 4.1.3).
pub(super) fn helo_name(relay: &RelayConfig, stream: &TcpStream) -> String {
    if let Some(name) = &relay.helo_name {
        return name.clone();
    }
    match stream.local_addr() {
        Ok(SocketAddr::V4(local)) => format!("[{}]", local.ip()),
        Ok(SocketAddr::V6(local)) => format!("[IPv6:{}]", local.ip()),
        Err(_) => "localhost".to_owned(),
    }
}

/// From the banner to the last reply of AUTH.
pub(super) async fn greet<S>(
    stream: S,
    relay: &RelayConfig,
    tls: &TlsContext,
    helo: &str,
    recorder: Option<Recorder>,
) -> Result<(Wire<S>, Capabilities), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let limits = &relay.timeouts;
    let mut wire = Wire::new(stream).recorded(recorder);
    if relay.tls == TlsMode::Implicit {
        wire.enter(Stage::StartTls);
        wire = wire
            .into_tls(tls, &relay.host, limits.banner)
            .await
            .map_err(at(Stage::StartTls))?;
    }
    wire.enter(Stage::Banner);
    let banner = wire.reply(limits.banner).await.map_err(at(Stage::Banner))?;
    accepted(banner).map_err(at(Stage::Banner))?;
    wire.enter(Stage::Ehlo);
    let mut offers = ehlo(&mut wire, helo, limits.ehlo).await.map_err(at(Stage::Ehlo))?;
    if relay.tls == TlsMode::StartTls {
        wire.enter(Stage::StartTls);
        wire = start_tls(wire, relay, tls, &offers)
            .await
            .map_err(at(Stage::StartTls))?;
        wire.enter(Stage::Ehlo);
        // What the relay offered in clear may have been changed on the way (RFC 3207 4.2).
        offers = ehlo(&mut wire, helo, limits.ehlo).await.map_err(at(Stage::Ehlo))?;
    }
    if let Some(credentials) = &relay.credentials {
        wire.enter(Stage::Auth);
        auth::authenticate(&mut wire, relay, credentials, &offers)
            .await
            .map_err(at(Stage::Auth))?;
    }
    Ok((wire, offers))
}

fn at(stage: Stage) -> impl Fn(Cause) -> Failure {
    move |cause| Failure::new(stage, cause)
}

async fn ehlo<S>(wire: &mut Wire<S>, helo: &str, limit: Duration) -> Result<Capabilities, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let reply = command(wire, &format!("EHLO {helo}"), limit).await?;
    // A server from before 1995 (RFC 5321 3.2). It offers nothing.
    if matches!(reply.code, 500 | 502 | 504) {
        accepted(command(wire, &format!("HELO {helo}"), limit).await?)?;
        return Ok(Capabilities::default());
    }
    accepted(reply).map(|reply| Capabilities::parse(&reply.text))
}

async fn start_tls<S>(
    mut wire: Wire<S>,
    relay: &RelayConfig,
    tls: &TlsContext,
    offers: &Capabilities,
) -> Result<Wire<S>, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    if !offers.starttls {
        return Err(Cause::Unsupported("the relay does not offer STARTTLS, and nothing is sent without it".into()));
    }
    accepted(command(&mut wire, "STARTTLS", relay.timeouts.ehlo).await?)?;
    wire.into_tls(tls, &relay.host, relay.timeouts.banner).await
}

/// Sends one command line and reads its reply.
pub(super) async fn command<S>(wire: &mut Wire<S>, line: &str, limit: Duration) -> Result<Reply, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    wire.expect_silence().await?;
    wire.write(format!("{line}\r\n").as_bytes(), limit)
        .await
        .map_err(|not| not.cause)?;
    wire.reply(limit).await
}

/// A 2yz reply; everything else is an error.
pub(super) fn accepted(reply: Reply) -> Result<Reply, Cause> {
    match reply.digit() {
        2 => Ok(reply),
        3 => Err(Cause::Desync(format!("{} where a final reply is due", reply.code))),
        _ => Err(Cause::Reply(reply)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offers_of_a_relay_are_read() {
        let text = "mx.example greets you\nPIPELINING\nsize 1000\nAUTH=LOGIN\nAUTH plain XOAUTH2\nSMTPUTF8\nX-ODD 1\nCHUNKING\nLIMITS RCPTMAX=5 MAILMAX=20";
        let offers = Capabilities::parse(text);
        let expected = Capabilities {
            pipelining: true,
            chunking: true,
            smtputf8: true,
            starttls: false,
            auth_plain: true,
            auth_login: true,
            auth_xoauth2: true,
            dsn: false,
            mail_max: Some(20),
            size: Some(1000),
        };
        assert_eq!(offers, expected);
        assert_eq!(Capabilities::parse("PIPELINING"), Capabilities::default(), "the greeting offers nothing");
        assert_eq!(Capabilities::parse("hi\nSIZE").size, None);
        assert_eq!(Capabilities::parse("hi\nSIZE 0").size, Some(usize::MAX));
    }
}
