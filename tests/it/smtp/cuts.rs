//! One session, cut at every byte in both directions: never a false sent, and uncertain exactly when
//! the end of data had left.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hikyaku::domain::message::MessageStatus;
use hikyaku::sink::{Extensions, Sink, SinkOptions, SinkTls};
use hikyaku::smtp::{
    AuthMethod, Connection, Credentials, Envelope, Failure, Mail, RelayConfig, Reply, TlsContext, TlsMode,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::auth_and_tls::certificate;
use super::{BODY, envelope, finish_and_begin, status, without_pipelining};

/// A stream that breaks after so many bytes.
pub(super) struct Cut {
    inner: Option<DuplexStream>,
    may_write: usize,
    may_read: usize,
    /// When it breaks where we write, what the relay says is still heard.
    still_hears: bool,
    counts: Arc<Counts>,
}

/// What went through a stream.
#[derive(Default)]
pub(super) struct Counts {
    written: AtomicUsize,
    read: AtomicUsize,
    said: Mutex<Vec<u8>>,
    heard: Mutex<Vec<u8>>,
}

impl Counts {
    pub(super) fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

impl Cut {
    /// One that never breaks, and counts.
    pub(super) fn never(inner: DuplexStream) -> (Self, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        let stream = Self {
            inner: Some(inner),
            may_write: usize::MAX,
            may_read: usize::MAX,
            still_hears: false,
            counts: Arc::clone(&counts),
        };
        (stream, counts)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let len = buf.len().min(self.may_write);
        if len == 0 && self.still_hears {
            // The relay sees the end, too.
            let _ = self.inner.as_mut().map(|inner| Pin::new(inner).poll_shutdown(cx));
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if len == 0 {
            self.inner = None;
        }
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let wrote = std::task::ready!(Pin::new(inner).poll_write(cx, &buf[..len]))?;
        self.may_write -= wrote;
        self.counts.written.fetch_add(wrote, Ordering::Relaxed);
        self.counts.said.lock().unwrap().extend_from_slice(&buf[..wrote]);
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.may_read == 0 {
            self.inner = None;
        }
        let mut chunk = vec![0; buf.remaining().min(self.may_read)];
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Ok(()));
        };
        let mut part = ReadBuf::new(&mut chunk);
        std::task::ready!(Pin::new(inner).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        let n = part.filled().len();
        self.counts.heard.lock().unwrap().extend_from_slice(part.filled());
        self.may_read -= n;
        self.counts.read.fetch_add(n, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

/// What a relay offers, and what we were told about it.
struct Way {
    name: &'static str,
    options: SinkOptions,
    relay: RelayConfig,
}

impl Way {
    fn new(name: &'static str, options: SinkOptions) -> Self {
        let relay = RelayConfig::clear("127.0.0.1", 25);
        Self { name, options, relay }
    }

    /// One that asks for a password, by one mechanism.
    fn with_password(name: &'static str, auth: AuthMethod) -> Self {
        let options = SinkOptions {
            require_auth: Some(("anna".into(), "secret".into())),
            extensions: Extensions {
                auth: name.into(),
                ..Extensions::default()
            },
            ..SinkOptions::default()
        };
        let mut way = Self::new(name, options);
        way.relay.auth = auth;
        way.relay.credentials = Some(Credentials {
            user: "anna".into(),
            password: "secret".into(),
        });
        way
    }

    /// One that encrypts, and asks for a password then.
    fn encrypted() -> Self {
        let (pem, root) = certificate("localhost");
        let mut way = Self::with_password("PLAIN", AuthMethod::Plain);
        way.options.tls = SinkTls::StartTls(pem);
        way.relay.host = "localhost".into();
        way.relay.tls = TlsMode::StartTls;
        way.relay.extra_roots = vec![root];
        way
    }
}

struct Run {
    result: Result<Reply, Failure>,
    /// Bytes that had left when the relay waited for the content.
    begun: Option<usize>,
    written: usize,
    read: usize,
    /// How many messages the relay really took.
    taken: u64,
}

/// A session of one message, or of one with another begun behind it.
async fn run(way: &Way, with_next: bool, may_write: usize, may_read: usize) -> Run {
    let relay = &way.relay;
    let tls = TlsContext::new(relay).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let counts = Arc::new(Counts::default());
    let stream = Cut {
        inner: Some(ours),
        may_write,
        may_read,
        still_hears: false,
        counts: Arc::clone(&counts),
    };
    let sink = Sink::new(way.options.clone()).unwrap();
    let served = tokio::spawn({
        let sink = sink.clone();
        async move { sink.serve(theirs).await }
    });
    let mut begun = None;
    let result = async {
        let mut connection = Connection::establish(stream, relay, &tls, "test.example").await?;
        connection.begin(&envelope("anna@example.org"), BODY.len()).await?;
        begun = Some(counts.written.load(Ordering::Relaxed));
        let next = envelope("bo@example.org");
        match with_next {
            true => finish_and_begin(&mut connection, (&next, BODY.len())).await.this,
            false => connection.finish(BODY, None).await,
        }
    }
    .await;
    served.await.unwrap();
    let taken = sink.stats().accepted;
    Run {
        result,
        begun,
        written: counts.written.load(Ordering::Relaxed),
        read: counts.read.load(Ordering::Relaxed),
        taken,
    }
}

fn judge(run: &Run, end_of_data: usize, case: &str) {
    let is_out = run.written >= end_of_data;
    match status(&run.result) {
        MessageStatus::Sent => assert!(is_out && run.taken == 1, "{case}: a false sent"),
        MessageStatus::Uncertain => assert!(is_out, "{case}: uncertain, and the end of data never left"),
        MessageStatus::Deferred => assert!(!is_out && run.taken == 0, "{case}: deferred, and it may have been taken"),
        other => panic!("{case}: {other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_cut_at_any_byte_ends_in_the_right_outcome() {
    let ways = [
        Way::new("pipelining", SinkOptions::default()),
        Way::new("one by one", without_pipelining()),
        Way::with_password("PLAIN", AuthMethod::Plain),
        Way::with_password("LOGIN", AuthMethod::Login),
        Way::with_password("XOAUTH2", AuthMethod::XOAuth2),
    ];
    for way in ways {
        let alone = run(&way, false, usize::MAX, usize::MAX).await;
        assert_eq!((alone.taken, alone.result.is_ok()), (1, true), "{}", way.name);
        // Nothing is written after the end of data when no message follows.
        let end_of_data = alone.written;
        for with_next in [false, true] {
            let whole = run(&way, with_next, usize::MAX, usize::MAX).await;
            for n in 0..=whole.written {
                let cut = run(&way, with_next, n, usize::MAX).await;
                judge(&cut, end_of_data, &format!("{}, next: {with_next}, cut after {n} bytes written", way.name));
            }
            for n in 0..=whole.read {
                let cut = run(&way, with_next, usize::MAX, n).await;
                judge(&cut, end_of_data, &format!("{}, next: {with_next}, cut after {n} bytes read", way.name));
            }
        }
    }
}

/// Where a record breaks off, nobody but the relay can tell how much of the content it can read: from the content's first byte to the
/// end of data the message may be in doubt, and nothing else.
fn judge_encrypted(run: &Run, end_of_data: usize, case: &str) {
    match status(&run.result) {
        MessageStatus::Sent => assert!(run.written >= end_of_data && run.taken == 1, "{case}: a false sent"),
        MessageStatus::Uncertain => assert!(run.begun.is_some(), "{case}: uncertain before there was any content"),
        MessageStatus::Deferred => {
            assert!(run.written < end_of_data, "{case}: deferred, and the end of data was out");
            assert_eq!(run.taken, 0, "{case}: deferred, and it was taken");
        }
        other => panic!("{case}: {other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_encrypted_session_cut_at_any_byte_never_says_what_is_not_so() {
    let way = Way::encrypted();
    let whole = run(&way, false, usize::MAX, usize::MAX).await;
    assert_eq!((whole.taken, whole.result.is_ok()), (1, true), "{:?}", whole.result);
    let again = run(&way, false, usize::MAX, usize::MAX).await;
    assert_eq!(again.written, whole.written, "what we write is as long each time");
    for n in 0..whole.written {
        let cut = run(&way, false, n, usize::MAX).await;
        assert_eq!(cut.taken, 0, "cut after {n} bytes written: the last record is not whole");
        judge_encrypted(&cut, whole.written, &format!("cut after {n} bytes written"));
    }
    // A signature of the relay's may be a byte longer the next time.
    let (mut n_sent, mut n_uncertain) = (0, 0);
    for n in 0..=whole.read + 8 {
        let cut = run(&way, false, usize::MAX, n).await;
        judge_encrypted(&cut, whole.written, &format!("cut after {n} bytes read"));
        let is_sent = cut.result.is_ok();
        n_sent += usize::from(is_sent);
        n_uncertain += usize::from(cut.taken == 1 && !is_sent);
    }
    assert!(n_sent >= 4 && n_uncertain > 30, "sent {n_sent}, taken without a reply {n_uncertain}");
}

/// One window behind a first message.
struct WindowRun {
    verdicts: Vec<Result<Reply, Failure>>,
    counts: Arc<Counts>,
    /// Copies that each message's addressee got.
    copies: Vec<u32>,
}

async fn run_window(to: &[&str], may_write: usize, may_read: usize, still_hears: bool) -> WindowRun {
    let mut relay = RelayConfig::clear("127.0.0.1", 25);
    relay.chunking = 8;
    let tls = TlsContext::new(&relay).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (stream, counts) = Cut::never(ours);
    let stream = Cut {
        may_write,
        may_read,
        still_hears,
        ..stream
    };
    let sink = Sink::new(SinkOptions {
        count_recipients: true,
        ..SinkOptions::default()
    })
    .unwrap();
    let served = tokio::spawn({
        let sink = sink.clone();
        async move { sink.serve(theirs).await }
    });
    let mut connection = Connection::establish(stream, &relay, &tls, "test.example")
        .await
        .unwrap();
    connection
        .begin(&envelope("first@example.org"), BODY.len())
        .await
        .unwrap();
    connection.finish(BODY, None).await.unwrap();
    let envelopes: Vec<Envelope> = to.iter().map(|to| envelope(to)).collect();
    let load: Vec<Mail> = envelopes.iter().map(|envelope| Mail { envelope, body: BODY }).collect();
    let verdicts = connection.send(&load, None).await;
    drop(connection);
    served.await.unwrap();
    let copies = sink.copies();
    WindowRun {
        verdicts,
        counts,
        copies: to.iter().map(|to| copies.get(*to).copied().unwrap_or(0)).collect(),
    }
}

/// For each message of the window: after how many bytes its last octet is out, and after how many its fate is known.
fn turning_points(whole: &WindowRun) -> Vec<(usize, usize)> {
    let said = whole.counts.said.lock().unwrap().clone();
    let heard = whole.counts.heard.lock().unwrap().clone();
    let command = format!("BDAT {} LAST\r\n", BODY.len());
    let ends = (0..said.len())
        .filter(|&at| said[at..].starts_with(command.as_bytes()))
        .map(|at| at + command.len() + BODY.len());
    let mut at = 0;
    let lines = heard.split_inclusive(|&b| b == b'\n').map(|line| {
        at += line.len();
        (line, at)
    });
    let known = lines.filter(|(line, _)| line.starts_with(b"250 2.0.0 kept") || line.starts_with(b"550"));
    // The first one belongs to the message that went with DATA.
    ends.zip(known.skip(1).map(|(_, at)| at)).collect()
}

fn judge_window(cut: &WindowRun, points: &[(usize, usize)], refused: Option<usize>, case: &str) {
    let (written, read) = (cut.counts.written.load(Ordering::Relaxed), cut.counts.read());
    for (n, (end, known)) in points.iter().enumerate() {
        let expected = match (written >= *end, read >= *known) {
            (false, _) => MessageStatus::Deferred,
            (true, false) => MessageStatus::Uncertain,
            (true, true) if refused == Some(n) => MessageStatus::Failed,
            (true, true) => MessageStatus::Sent,
        };
        let got = status(&cut.verdicts[n]);
        assert_eq!(got, expected, "{case}: message {n}, {written} written, {read} read: {:?}", cut.verdicts[n]);
        match got {
            MessageStatus::Sent => assert_eq!(cut.copies[n], 1, "{case}: a false sent"),
            MessageStatus::Uncertain => {}
            _ => assert_eq!(cut.copies[n], 0, "{case}: message {n} is not sent, and was taken"),
        }
        let failure = cut.verdicts[n].as_ref().err();
        let says_so = failure.is_some_and(|f| f.end_of_data_written);
        assert_eq!(says_so, got == MessageStatus::Uncertain, "{case}: message {n}: {failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_cut_at_any_byte_ends_in_the_right_outcome_for_each_message() {
    let plain: &[&str] = &["a@x.example", "b@x.example", "c@x.example"];
    let with_refusal: &[&str] = &["a@x.example", "reject-550-5.1.1@x.example", "c@x.example"];
    for (to, refused) in [(plain, None), (with_refusal, Some(1))] {
        let whole = run_window(to, usize::MAX, usize::MAX, false).await;
        let points = turning_points(&whole);
        assert_eq!(points.len(), to.len());
        judge_window(&whole, &points, refused, "whole");
        let (written, read) = (whole.counts.written.load(Ordering::Relaxed), whole.counts.read());
        let heard = whole.counts.heard.lock().unwrap().clone();
        let first = heard.windows(5).position(|w| w == b"kept ").unwrap();
        let begins = first + heard[first..].iter().position(|&b| b == b'\n').unwrap() + 1;
        let said = whole.counts.said.lock().unwrap().clone();
        let end_of_data = b"\r\n.\r\n";
        let first_end = said.windows(end_of_data.len()).position(|w| w == end_of_data).unwrap() + end_of_data.len();
        for n in first_end..=written {
            for still_hears in [false, true] {
                let cut = run_window(to, n, usize::MAX, still_hears).await;
                judge_window(&cut, &points, refused, &format!("cut after {n} bytes written, hears: {still_hears}"));
            }
        }
        for n in begins..=read {
            let cut = run_window(to, usize::MAX, n, false).await;
            judge_window(&cut, &points, refused, &format!("cut after {n} bytes read"));
        }
    }
}
