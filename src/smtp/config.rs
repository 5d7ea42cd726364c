//! A relay as configured: where it is, how to speak to it, and how much it takes. Never read from the
//! environment here, and never printed with its password.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

mod url;

/// Connections to one relay from one worker when the configuration names no number.
pub const CONNECTIONS_DEFAULT: u16 = 8;
/// Most connections to one relay from one worker. Common relays allow 10 to 100 from one client;
/// beyond this a worker runs out of file descriptors before the relay runs out of patience.
pub const CONNECTIONS_MAX: u16 = 1_000;
/// Messages on one connection before it is replaced, so that a relay behind a balancer gets its
/// load spread again. Relays for submission take thousands; a receiving mailbox provider takes 5 to
/// 100 and says so with a 421, which costs no attempt.
pub const MESSAGES_PER_CONNECTION_DEFAULT: u32 = 1_000;

/// Most messages in flight on one connection with CHUNKING. Eight fill a line of 20 ms; beyond this a broken connection leaves
/// more in doubt than the speed is worth.
pub const CHUNKING_MAX: u32 = 64;

/// How old a connection may become before it is replaced: a relay's address can change, and what stands in between forgets
/// connections.
pub const AGE_MAX_DEFAULT: Duration = Duration::from_secs(1_800);

/// Whether and how the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// In clear. For relays on the same machine.
    None,
    /// STARTTLS (RFC 3207), required: without it nothing is sent.
    StartTls,
    /// TLS from the first byte (RFC 8314 3).
    Implicit,
}

/// How we prove who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// PLAIN where it is offered, else LOGIN.
    Password,
    /// PLAIN (RFC 4616) and nothing else.
    Plain,
    Login,
    /// The password is an OAuth 2.0 access token.
    XOAuth2,
}

/// Which reports (RFC 3461) a relay is asked for; nothing is asked of one that does not offer DSN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notify {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
}

/// What AUTH needs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    /// Or the access token, for [`AuthMethod::XOAuth2`].
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// How long each step may take: RFC 5321 4.5.3.2 wants a limit per command.
///
/// EHLO, MAIL, RCPT, DATA, a block and the end of data have the RFC's values. Connect and banner are
/// shorter than its five minutes, because a relay that is this slow before any message is at stake
/// should lose its turn. The end of data has the full ten minutes: to give up earlier is to send
/// a message twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// The banner, and a TLS handshake.
    pub banner: Duration,
    pub ehlo: Duration,
    pub auth: Duration,
    pub mail: Duration,
    pub rcpt: Duration,
    pub data: Duration,
    /// Until the relay has taken one block of at most 64 KiB.
    pub block: Duration,
    /// Until the relay has taken the whole of a message, or of a window of them. Twice the longest of the others: a relay that
    /// takes each block just in time could hold a large message for hours.
    pub content: Duration,
    pub final_dot: Duration,
    pub rset: Duration,
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connect: secs(30),
            banner: secs(60),
            ehlo: secs(300),
            auth: secs(60),
            mail: secs(300),
            rcpt: secs(300),
            data: secs(120),
            block: secs(180),
            content: secs(1_200),
            final_dot: secs(600),
            rset: secs(20),
            quit: secs(5),
        }
    }
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayConfig {
    /// What people call it; `host:port` when nothing better is known.
    pub name: String,
    pub host: String,
    pub port: u16,
    pub tls: TlsMode,
    pub credentials: Option<Credentials>,
    /// Most connections open at once from one worker.
    pub connections: u16,
    /// Most messages per second; `None` is no limit.
    pub rate_per_sec: Option<u32>,
    /// How we introduce ourselves; `None` is the address literal of our end of the connection
    /// (RFC 5321 4.1.3).
    pub helo_name: Option<String>,
    /// Whether to use PIPELINING (RFC 2920) where it is offered.
    pub pipelining: bool,
    /// Messages in flight on one connection with CHUNKING (RFC 3030), where it is offered together with PIPELINING. 0 does without,
    /// which is the default: a connection that breaks then leaves one message in doubt, and not as many as were in flight.
    pub chunking: u32,
    pub messages_per_connection_max: u32,
    /// How old a connection may become.
    pub age_max: Duration,
    pub auth: AuthMethod,
    /// The reports asked for with each message; `None` asks for nothing, and the relay does as it sees fit.
    pub notify: Option<Notify>,
    pub timeouts: Timeouts,
    /// Whether the certificate is checked. Only a relay on loopback may go unchecked.
    pub verify_certificate: bool,
    /// Certificates trusted beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl RelayConfig {
    /// A relay spoken to in clear with every other setting at its default.
    #[must_use]
    pub fn clear(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        Self {
            name: format!("{host}:{port}"),
            host,
            port,
            tls: TlsMode::None,
            credentials: None,
            connections: CONNECTIONS_DEFAULT,
            rate_per_sec: None,
            helo_name: None,
            pipelining: true,
            chunking: 0,
            messages_per_connection_max: MESSAGES_PER_CONNECTION_DEFAULT,
            age_max: AGE_MAX_DEFAULT,
            auth: AuthMethod::Password,
            notify: None,
            timeouts: Timeouts::default(),
            verify_certificate: true,
            extra_roots: Vec::new(),
        }
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether the relay is on this machine, where nobody listens in between.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
