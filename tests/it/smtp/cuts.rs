//! One session, cut at every byte in both directions: never a false sent, and uncertain exactly when
//! the end of data had left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hikyaku::domain::message::MessageStatus;
use hikyaku::sink::{Sink, SinkOptions};
use hikyaku::smtp::{Connection, Failure, Finished, RelayConfig, TlsContext};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::{BODY, envelope, status, without_pipelining};

/// A stream that breaks after so many bytes.
struct Cut {
    inner: Option<DuplexStream>,
    may_write: usize,
    may_read: usize,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    written: AtomicUsize,
    read: AtomicUsize,
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let len = buf.len().min(self.may_write);
        if len == 0 {
            self.inner = None;
        }
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let wrote = std::task::ready!(Pin::new(inner).poll_write(cx, &buf[..len]))?;
        self.may_write -= wrote;
        self.counts.written.fetch_add(wrote, Ordering::Relaxed);
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
        self.may_read -= n;
        self.counts.read.fetch_add(n, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

struct Run {
    result: Result<Finished, Failure>,
    written: usize,
    read: usize,
    /// How many messages the relay really took.
    taken: u64,
}

/// A session of one message, or of one with another begun behind it.
async fn run(options: SinkOptions, with_next: bool, may_write: usize, may_read: usize) -> Run {
    let relay = RelayConfig::clear("127.0.0.1", 25);
    let tls = TlsContext::new(&relay).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let counts = Arc::new(Counts::default());
    let stream = Cut {
        inner: Some(ours),
        may_write,
        may_read,
        counts: Arc::clone(&counts),
    };
    let sink = Sink::new(options).unwrap();
    let served = tokio::spawn({
        let sink = sink.clone();
        async move { sink.serve(theirs).await }
    });
    let result = async {
        let mut connection = Connection::establish(stream, &relay, &tls, "test.example").await?;
        connection.begin(&envelope("anna@example.org"), BODY.len()).await?;
        let next = envelope("bo@example.org");
        Ok(connection.finish(BODY, with_next.then_some((&next, BODY.len()))).await)
    }
    .await;
    served.await.unwrap();
    let taken = sink.stats().accepted;
    Run {
        result,
        written: counts.written.load(Ordering::Relaxed),
        read: counts.read.load(Ordering::Relaxed),
        taken,
    }
}

fn judge(run: &Run, end_of_data: usize, case: &str) {
    let this = match &run.result {
        Ok(finished) => finished.this.clone(),
        Err(failure) => Err(failure.clone()),
    };
    let is_out = run.written >= end_of_data;
    match status(&this) {
        MessageStatus::Sent => assert!(is_out && run.taken == 1, "{case}: a false sent"),
        MessageStatus::Uncertain => assert!(is_out, "{case}: uncertain, and the end of data never left"),
        MessageStatus::Deferred => assert!(!is_out && run.taken == 0, "{case}: deferred, and it may have been taken"),
        other => panic!("{case}: {other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_cut_at_any_byte_ends_in_the_right_outcome() {
    type Make = fn() -> SinkOptions;
    let servers: [(&str, Make); 2] = [("pipelining", SinkOptions::default), ("one by one", without_pipelining)];
    for (server, options) in servers {
        let alone = run(options(), false, usize::MAX, usize::MAX).await;
        assert_eq!((alone.taken, alone.result.is_ok()), (1, true));
        // Nothing is written after the end of data when no message follows.
        let end_of_data = alone.written;
        for with_next in [false, true] {
            let whole = run(options(), with_next, usize::MAX, usize::MAX).await;
            for n in 0..=whole.written {
                let cut = run(options(), with_next, n, usize::MAX).await;
                judge(&cut, end_of_data, &format!("{server}, next: {with_next}, cut after {n} bytes written"));
            }
            for n in 0..=whole.read {
                let cut = run(options(), with_next, usize::MAX, n).await;
                judge(&cut, end_of_data, &format!("{server}, next: {with_next}, cut after {n} bytes read"));
            }
        }
    }
}
