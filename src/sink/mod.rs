//! A capture relay: a real SMTP server that takes everything, keeps the newest messages to be looked
//! at, and misbehaves on request. It is the relay of a fresh installation and of the demo, the
//! command `hikyaku sink`, and the other end of the tests.
//!
//! Never forwards a message anywhere. Never listens beyond loopback unless told to: it takes mail
//! from anybody.

mod answers;
mod connection;
pub mod line;
mod mailbox;
mod outbox;
pub mod script;
mod session;
mod truth;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use connection::SinkStream;
pub use mailbox::{Captured, MAILBOX_BYTES_MAX, MAILBOX_MESSAGES_MAX};
pub use script::{Act, At, Script};

use crate::clock::{Clock, SystemClock};
use mailbox::Mailbox;
use truth::Truth;

/// Largest message taken, in bytes, as offered with SIZE.
pub const MESSAGE_LEN_MAX: usize = 32 * 1024 * 1024;
/// Most recipients remembered for `defer-once`. When it is full everybody is a stranger again, which
/// is what a real greylist does too.
const REMEMBERED_MAX: usize = 100_000;

/// How the sink speaks TLS.
#[derive(Debug, Clone, Default)]
pub enum SinkTls {
    #[default]
    None,
    StartTls(SinkCertificate),
    Implicit(SinkCertificate),
}

/// A certificate chain and its key, PEM.
#[derive(Clone)]
pub struct SinkCertificate {
    pub chain_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for SinkCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SinkCertificate(…)")
    }
}

/// Which service extensions are offered.
#[derive(Debug, Clone)]
pub struct Extensions {
    pub pipelining: bool,
    pub chunking: bool,
    pub smtputf8: bool,
    pub dsn: bool,
    /// Largest message offered with SIZE, and enforced; `None` offers no SIZE.
    pub size: Option<usize>,
    /// The mechanisms named after AUTH, when authentication is required.
    pub auth: String,
    /// `false` knows no EHLO, like a server from before 1995.
    pub ehlo: bool,
}

impl Default for Extensions {
    fn default() -> Self {
        let size = Some(MESSAGE_LEN_MAX);
        Self {
            pipelining: true,
            chunking: true,
            smtputf8: true,
            dsn: true,
            size,
            auth: "PLAIN LOGIN XOAUTH2".into(),
            ehlo: true,
        }
    }
}

/// Told the recipients of a message.
pub type OnTaken = Arc<dyn Fn(&[String]) + Send + Sync>;

/// How the sink behaves. The default takes everything at full speed on a free port of loopback.
#[derive(Clone)]
pub struct SinkOptions {
    pub listen: SocketAddr,
    /// Allows an address that others can reach.
    pub allow_outside: bool,
    /// Every reply leaves this much later than it was ready, as over a long line: replies in flight do
    /// not wait for each other.
    pub latency: Duration,
    /// The share of addresses refused with 550 at RCPT, 0 to 1. Always the same ones for one seed.
    pub reject_rate: f64,
    /// The share of RCPT commands answered with 451, 0 to 1.
    pub defer_rate: f64,
    /// The share of messages that are taken while the connection is closed without a reply, 0 to 1.
    pub drop_after_data_rate: f64,
    pub seed: u64,
    pub tls: SinkTls,
    /// User and password without which nothing is taken.
    pub require_auth: Option<(String, String)>,
    /// Where to write what really happened, a JSON object a line.
    pub log: Option<PathBuf>,
    pub keep_mailbox: bool,
    /// Counts the copies that each address got. Takes memory for each address.
    pub count_recipients: bool,
    /// Told the recipients of every message at the moment it is taken.
    pub on_taken: Option<OnTaken>,
    pub extensions: Extensions,
    pub script: Script,
    pub clock: Arc<dyn Clock>,
}

impl Default for SinkOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow_outside: false,
            latency: Duration::ZERO,
            reject_rate: 0.0,
            defer_rate: 0.0,
            drop_after_data_rate: 0.0,
            seed: 0,
            tls: SinkTls::None,
            require_auth: None,
            log: None,
            keep_mailbox: true,
            count_recipients: false,
            on_taken: None,
            extensions: Extensions::default(),
            script: Script::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// What happened so far, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkStats {
    pub connections: u64,
    /// Messages answered with 250.
    pub accepted: u64,
    /// Messages taken whose reply was held back on purpose.
    pub taken_unanswered: u64,
    /// Recipients and messages answered with 5yz.
    pub refused: u64,
    /// Recipients and messages answered with 4yz.
    pub deferred: u64,
    /// How often replies were written: with the banner and EHLO aside, the round trips of the clients.
    pub flushes: u64,
    /// What a client must not do: commands sent ahead without PIPELINING, lines without CRLF.
    pub violations: u64,
    /// Content of messages that came to their end, taken or not, in bytes.
    pub content_bytes: u64,
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    accepted: AtomicU64,
    taken_unanswered: AtomicU64,
    refused: AtomicU64,
    deferred: AtomicU64,
    flushes: AtomicU64,
    violations: AtomicU64,
    content_bytes: AtomicU64,
    /// Random decisions made, so that each is another one and all follow from the seed.
    draws: AtomicU64,
}

fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

/// A capture relay. Clones are the same relay.
#[derive(Clone)]
pub struct Sink(Arc<Shared>);

struct Shared {
    options: SinkOptions,
    tls: Option<TlsAcceptor>,
    counters: Counters,
    mailbox: Mailbox,
    copies: Mutex<HashMap<String, u32>>,
    seen_once: Mutex<HashSet<String>>,
    truth: Option<Truth>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// A relay that does not listen: streams are given to [`Sink::serve`].
    ///
    /// # Errors
    /// When the certificate cannot be read or the log cannot be opened.
    pub fn new(options: SinkOptions) -> io::Result<Self> {
        let tls = match &options.tls {
            SinkTls::None => None,
            SinkTls::StartTls(certificate) | SinkTls::Implicit(certificate) => Some(acceptor(certificate)?),
        };
        let truth = options.log.as_deref().map(Truth::create).transpose()?;
        Ok(Self(Arc::new(Shared {
            tls,
            truth,
            options,
            counters: Counters::default(),
            mailbox: Mailbox::default(),
            copies: Mutex::default(),
            seen_once: Mutex::default(),
        })))
    }

    /// Starts to listen and to serve, in tasks of the current runtime.
    ///
    /// # Errors
    /// When the address is taken, or reachable from outside and that was not allowed; and those of
    /// [`Sink::new`].
    pub async fn start(options: SinkOptions) -> io::Result<SinkHandle> {
        if !options.listen.ip().is_loopback() && !options.allow_outside {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the capture relay takes mail from anybody and listens on loopback only, not on {}",
                    options.listen
                ),
            ));
        }
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let sink = Self::new(options)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(accept(sink.clone(), listener, stop.clone(), tasks.clone()));
        Ok(SinkHandle {
            sink,
            addr,
            tasks,
            stop: stop.drop_guard(),
        })
    }

    /// Serves one connection until it ends.
    pub async fn serve(&self, stream: impl SinkStream) {
        connection::serve(Arc::clone(&self.0), stream).await;
    }

    #[must_use]
    pub fn stats(&self) -> SinkStats {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.0.counters;
        SinkStats {
            connections: now(&c.connections),
            accepted: now(&c.accepted),
            taken_unanswered: now(&c.taken_unanswered),
            refused: now(&c.refused),
            deferred: now(&c.deferred),
            flushes: now(&c.flushes),
            violations: now(&c.violations),
            content_bytes: now(&c.content_bytes),
        }
    }

    /// The newest messages first, at most `limit`.
    #[must_use]
    pub fn newest(&self, limit: usize) -> Vec<Arc<Captured>> {
        self.0.mailbox.newest(limit)
    }

    /// A message that is still kept.
    #[must_use]
    pub fn message(&self, id: u64) -> Option<Arc<Captured>> {
        self.0.mailbox.get(id)
    }

    /// How many copies each address got, taken and unanswered ones included. Empty unless counting was
    /// asked for.
    #[must_use]
    pub fn copies(&self) -> HashMap<String, u32> {
        locked(&self.0.copies).clone()
    }
}

/// A relay that listens. Dropping it stops it at once.
pub struct SinkHandle {
    sink: Sink,
    addr: SocketAddr,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl SinkHandle {
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    #[must_use]
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Closes every connection and waits until that is done.
    pub async fn stop(self) {
        self.tasks.close();
        drop(self.stop);
        self.tasks.wait().await;
    }
}

async fn accept(sink: Sink, listener: TcpListener, stop: CancellationToken, tasks: TaskTracker) {
    /// After a failed accept (out of file descriptors, mostly) others need a moment to end.
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _peer)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Only a socket that is already closed refuses this.
        let _ = stream.set_nodelay(true);
        let (sink, stop) = (sink.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = sink.serve(stream) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

fn acceptor(certificate: &SinkCertificate) -> io::Result<TlsAcceptor> {
    let bad =
        |why: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, format!("the certificate: {why}"));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes()).collect();
    let chain = chain.map_err(|why| bad(&why))?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).map_err(|why| bad(&why))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|why| bad(&why))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
