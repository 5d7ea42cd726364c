//! One connection to a relay, and messages handed over on it.
//!
//! With PIPELINING (RFC 2920) a message costs one round trip: its content, the end of data, and the
//! next message's MAIL, RCPT and DATA go out in one write, and four replies come back. Such a write is
//! a flight (`flight`), and not every relay takes it. With CHUNKING (RFC 3030) a window of several
//! messages goes out in one write.
//!
//! Never recycles itself: the future that sends owns the connection, and dropping it closes it.
//! Replies belong to commands by their order (RFC 5321 4.2), and a final reply is final: what is answered
//! to later commands, or becomes of the connection, takes nothing back. A connection whose replies do not
//! fit is dead, and what was not answered before stays without an answer.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::config::{Notify, RelayConfig, Timeouts};
use super::failure::{Cause, Failure, Stage};
use super::link::Link;
use super::open::{self, Capabilities};
use super::reply::Reply;
use super::tls::TlsContext;
use super::transcript::Recorder;
use super::wire::Wire;
use crate::domain::address::EmailAddress;

mod flight;
mod parameters;
mod steps;
mod trial;
mod window;

pub use flight::{Flights, Sign};
use window::Wording;

/// MAIL FROM and RCPT TO: who gets the bounces and who gets the message. One recipient per
/// transaction, because every message is its recipient's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    from: String,
    to: EmailAddress,
    id: Option<String>,
}

impl Envelope {
    /// `from` may be empty, the null sender.
    ///
    /// # Errors
    /// When an address holds what would end it or the command line on the wire.
    pub fn new(from: impl Into<String>, to: EmailAddress) -> Result<Self, String> {
        let from = from.into();
        for (what, address) in [("sender", from.as_str()), ("recipient", to.as_str())] {
            if let Some(c) = address.chars().find(|c| c.is_control() || matches!(c, ' ' | '<' | '>')) {
                return Err(format!("the envelope's {what} holds {}, which no address may", c.escape_unicode()));
            }
        }
        Ok(Self { from, to, id: None })
    }

    /// With an id that reports about this message name (ENVID, RFC 3461 4.4), where reports are asked for.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    #[must_use]
    pub fn to(&self) -> &EmailAddress {
        &self.to
    }

    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    fn needs_smtputf8(&self) -> bool {
        !self.from.is_ascii() || self.to.needs_smtputf8()
    }
}

/// A message to hand over: `body` is the whole of it, headers and all, in any line ends.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    pub envelope: &'a Envelope,
    pub body: &'a [u8],
}

/// What is written behind an end of data, ahead of its reply.
enum Behind<'a> {
    /// MAIL, RCPT and DATA of a message of so many bytes.
    Message(&'a Envelope, usize),
    Reset,
}

/// An open connection, past EHLO, TLS and AUTH.
pub struct Connection<S = Link> {
    wire: Wire<S>,
    offers: Capabilities,
    /// Offered and wanted.
    pipelining: bool,
    /// The reports to ask for, where they are offered and not yet found unwelcome.
    notify: Option<Notify>,
    timeouts: Timeouts,
    /// Whether anything may be written ahead of the reply to an end of data.
    flights: Flights,
    /// As `flights`, for windows of CHUNKING.
    windows: Flights,
    /// MAIL, RCPT and DATA of the next message are out, and their replies are due.
    is_ahead: bool,
    /// No reply is waited for longer, whatever its own limit.
    patience: Option<Duration>,
    /// How the relay took the last flight, until somebody asks.
    sign: Option<Sign>,
    /// Messages in flight with CHUNKING, where it is offered and wanted and not yet found wanting; else 0.
    chunking: u32,
    /// Known from the first verdict on.
    wording: Option<Wording>,
    /// What MAIL and RCPT of the message begun were answered.
    answers: Option<(Reply, Reply)>,
    /// A transaction failed half-way and must be forgotten before the next MAIL.
    needs_rset: bool,
    /// DATA was answered 354: the relay waits for content.
    awaits_content: bool,
    is_dead: bool,
    n_begun: u32,
    n_begun_max: u32,
    /// When it should be replaced.
    old_at: Instant,
    n_sent: u32,
    /// The write buffer, kept from message to message.
    out: Vec<u8>,
    /// How much of it must be out before each of the replies to it may come.
    due: Vec<usize>,
}

impl Connection<Link> {
    /// Connects and introduces us, up to and including AUTH.
    ///
    /// # Errors
    /// A failure of the relay at one of the stages `Connect` to `Auth`; no message is concerned.
    pub async fn open(relay: &RelayConfig, tls: &TlsContext) -> Result<Self, Failure> {
        let stream = open::tcp(relay).await?;
        let helo = open::helo_name(relay, &stream);
        Self::establish(Link::new(stream), relay, tls, &helo).await
    }

    /// As [`Connection::open`], and everything that is said is written down, also on the connection from then on.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open_recorded(relay: &RelayConfig, tls: &TlsContext, recorder: &Recorder) -> Result<Self, Failure> {
        recorder.enter(Stage::Connect);
        let stream = open::tcp(relay).await?;
        if let (Ok(there), Ok(here)) = (stream.peer_addr(), stream.local_addr()) {
            recorder.note(format!("connected to {there} from {here}"));
        }
        let helo = open::helo_name(relay, &stream);
        Self::greeted(Link::new(stream), relay, tls, &helo, Some(recorder.clone())).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// As [`Connection::open`], over a stream that is connected already.
    ///
    /// # Errors
    /// A failure of the relay at one of the stages `Banner` to `Auth`.
    pub async fn establish(stream: S, relay: &RelayConfig, tls: &TlsContext, helo: &str) -> Result<Self, Failure> {
        Self::greeted(stream, relay, tls, helo, None).await
    }

    async fn greeted(
        stream: S,
        relay: &RelayConfig,
        tls: &TlsContext,
        helo: &str,
        recorder: Option<Recorder>,
    ) -> Result<Self, Failure> {
        let (wire, offers) = open::greet(stream, relay, tls, helo, recorder).await?;
        // Up to a tenth less of both, so that connections opened together are not replaced together.
        let announced = offers.mail_max.unwrap_or(u32::MAX);
        let n_begun_max = relay.messages_per_connection_max.min(announced).max(1);
        let n_begun_max = n_begun_max - fastrand::u32(0..=n_begun_max / 10);
        let old_at = Instant::now() + relay.age_max.mul_f64(1.0 - fastrand::f64() / 10.0);
        Ok(Self {
            wire,
            pipelining: offers.pipelining && relay.pipelining,
            // Without PIPELINING nothing may be sent ahead, and a window of one is no gain.
            chunking: if offers.chunking && offers.pipelining && relay.pipelining {
                relay.chunking
            } else {
                0
            },
            flights: Flights::On,
            windows: Flights::On,
            is_ahead: false,
            patience: None,
            sign: None,
            wording: None,
            answers: None,
            notify: relay.notify.filter(|_| offers.dsn),
            offers,
            timeouts: relay.timeouts.clone(),
            needs_rset: false,
            awaits_content: false,
            is_dead: false,
            n_begun: 0,
            n_begun_max,
            old_at,
            n_sent: 0,
            out: Vec::new(),
            due: Vec::new(),
        })
    }

    /// MAIL, RCPT and DATA for one message of `size` bytes: in one write with PIPELINING, one by one
    /// without. What was written ahead by [`finish`](Self::finish) is only answered here. `Ok` means that the relay
    /// waits for the content; a caller that has none then must drop the connection.
    ///
    /// # Errors
    /// A failure at `Mail`, `Rcpt` or `Data` (or `Reset`, before them). After a plain refusal the
    /// connection [is usable](Self::is_usable).
    ///
    /// # Panics
    /// When a message was begun and not finished.
    pub async fn begin(&mut self, envelope: &Envelope, size: usize) -> Result<(), Failure> {
        assert!(!self.awaits_content, "a message was begun and not finished");
        let begun = match self.is_ahead {
            true => self.read_ahead().await,
            false => self.try_begin(envelope, size).await,
        };
        match &begun {
            Err(failure) if self.forgo_parameters(failure) => self.try_begin(envelope, size).await,
            _ => begun,
        }
    }

    async fn try_begin(&mut self, envelope: &Envelope, size: usize) -> Result<(), Failure> {
        self.check_usable()?;
        self.check_offers(envelope, size)?;
        self.n_begun += 1;
        if self.pipelining {
            self.blank();
            if self.needs_rset {
                self.out.extend_from_slice(b"RSET\r\n");
            }
            self.push_envelope(envelope, size);
            self.flush(Stage::Mail).await?;
            if self.needs_rset {
                self.read_reset().await?;
            }
            self.read_group(false).await
        } else {
            self.begin_one_by_one(envelope, size).await
        }
    }

    /// Writes the content of the message that was begun and waits for the relay's verdict. `Ok` is a 2yz to its end of
    /// data, and nothing else is. The commands of `next` go out in the same write where the relay takes flights;
    /// in any case [`begin`](Self::begin) of the same message must follow.
    ///
    /// `body` is the whole message, headers and all, in any line ends. Dropping this future closes
    /// nothing by itself, but the connection is of no use afterwards and must be dropped too; whether
    /// the message was taken is then unknown.
    ///
    /// # Errors
    /// A refusal; or no reply, and then `end_of_data_written` says whether the message is in doubt.
    ///
    /// # Panics
    /// When no message was begun.
    pub async fn finish(&mut self, body: &[u8], next: Option<(&Envelope, usize)>) -> Result<Reply, Failure> {
        assert!(self.awaits_content, "no message was begun");
        self.awaits_content = false;
        let next = next.filter(|(envelope, size)| self.may_write_ahead() && self.check_offers(envelope, *size).is_ok());
        let ahead = next.map(|(envelope, size)| Behind::Message(envelope, size));
        let verdict = self.end_data(body, ahead).await;
        if next.is_some() {
            self.wrote_ahead(&verdict);
        }
        verdict
    }

    /// How many messages the next [`send`](Self::send) may take without a [`begin`](Self::begin): 0 while messages go with DATA,
    /// as the first of every connection does.
    #[must_use]
    pub fn window(&self) -> usize {
        if self.wording.is_none() || !self.is_usable() {
            return 0;
        }
        self.window_now().min(self.n_begun_max - self.n_begun) as usize
    }

    /// Whether a message may follow the one at hand without a new decision: [`send`](Self::send) may be given its commands.
    #[must_use]
    pub fn takes_next(&self) -> bool {
        self.awaits_content && self.window_now() == 0 && self.has_room()
    }

    /// Whether a message was begun: the next [`send`](Self::send) must bring it, or the connection be dropped.
    #[must_use]
    pub fn awaits_content(&self) -> bool {
        self.awaits_content
    }

    /// Hands over what is at hand, the way this connection speaks: the one message that was begun, as [`finish`](Self::finish)
    /// does, or a window of messages that were not. What was said there of dropping the future holds for all of them. The
    /// verdicts come in the order of the messages.
    ///
    /// # Panics
    /// When `load` is not the one message that was begun, or is larger than the [`window`](Self::window).
    pub async fn send(&mut self, load: &[Mail<'_>], next: Option<(&Envelope, usize)>) -> Vec<Result<Reply, Failure>> {
        if !self.awaits_content {
            assert!(load.len() <= self.window() && next.is_none(), "more than the window holds");
            return self.send_window(load).await;
        }
        let [only] = load else {
            panic!("one message was begun and {} are at hand", load.len())
        };
        vec![self.finish(only.body, next).await]
    }

    /// Whether another message may be begun: the connection is in step and not at its end.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.is_dead && !self.awaits_content && self.has_room()
    }

    /// Whether one message more may follow those begun, before the relay should get a fresh
    /// connection. Asked before `next` is given to [`Connection::finish`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.n_begun < self.n_begun_max && Instant::now() < self.old_at
    }

    /// Whether the relay announces PIPELINING.
    #[must_use]
    pub fn offers_pipelining(&self) -> bool {
        self.offers.pipelining
    }

    /// Whether the relay announces CHUNKING, with the PIPELINING that windows need.
    #[must_use]
    pub fn offers_chunking(&self) -> bool {
        self.offers.chunking && self.offers.pipelining
    }

    /// No more messages than this, which was learnt from other connections.
    pub fn limit_messages(&mut self, n_max: u32) {
        self.n_begun_max = self.n_begun_max.min(n_max.max(1));
    }

    /// How many messages the relay took on this connection.
    #[must_use]
    pub fn messages_sent(&self) -> u32 {
        self.n_sent
    }

    /// Looks, without waiting, whether the relay left or said goodbye while nobody was looking.
    ///
    /// # Errors
    /// At `Mail`, since that is what would have come next: a 421, the end of the stream, or being out
    /// of step. The connection is dead then.
    pub async fn check_idle(&mut self) -> Result<(), Failure> {
        let silence = self.wire.expect_silence().await;
        silence.map_err(|cause| self.fail(Stage::Mail, cause))
    }

    /// Forgets a transaction that failed half-way. [`Connection::begin`] does it when needed.
    ///
    /// # Errors
    /// At `Reset`; the connection is dead then.
    pub async fn reset(&mut self) -> Result<(), Failure> {
        self.blank();
        self.out.extend_from_slice(b"RSET\r\n");
        self.flush(Stage::Reset).await?;
        self.read_reset().await
    }

    /// Says goodbye and closes. What the relay answers does not matter any more.
    pub async fn quit(mut self) {
        let limit = self.timeouts.quit;
        if !self.is_dead && !self.awaits_content && self.wire.write(b"QUIT\r\n", limit).await.is_ok() {
            // Waiting for the 221 lets the relay close first, so that it does not log a lost connection.
            let _ = self.wire.reply(limit).await;
        }
    }

    fn check_usable(&self) -> Result<(), Failure> {
        match self.is_dead {
            true => Err(Failure::new(Stage::Mail, Cause::Closed)),
            false => Ok(()),
        }
    }

    /// What the relay cannot take is known before anything is sent.
    fn check_offers(&self, envelope: &Envelope, size: usize) -> Result<(), Failure> {
        match self.offers.size {
            Some(limit) if size > limit => Err(Failure::new(Stage::Mail, Cause::TooLarge { size, limit })),
            _ if envelope.needs_smtputf8() && !self.offers.smtputf8 => {
                Err(Failure::new(Stage::Mail, Cause::NoSmtpUtf8))
            }
            _ => Ok(()),
        }
    }

    fn push_envelope(&mut self, envelope: &Envelope, size: usize) {
        self.push_mail(envelope, size);
        self.push_rcpt(envelope);
        self.out.extend_from_slice(b"DATA\r\n");
        self.expect_reply();
    }

    /// Begins what goes out in one write.
    fn blank(&mut self) {
        self.out.clear();
        self.due.clear();
    }

    /// What was put together so far is answered with one reply more.
    fn expect_reply(&mut self) {
        self.due.push(self.out.len());
    }
}
