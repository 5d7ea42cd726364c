//! One connection of the capture relay: bytes in, the session's replies out. Never interprets
//! anything itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use super::outbox::{Batch, Outbox};
use super::session::{Session, Step};
use super::{Shared, SinkTls, count};

/// Read at once at most, in bytes: a dozen ordinary messages.
const READ_LEN: usize = 64 * 1024;

/// A stream that the relay can serve.
pub trait SinkStream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the coming close a reset, where there is such a thing.
    fn reset_on_close(&self);
}

impl SinkStream for TcpStream {
    fn reset_on_close(&self) {
        // Only a socket that is already closed refuses this.
        let _ = self.set_zero_linger();
    }
}

impl SinkStream for DuplexStream {
    fn reset_on_close(&self) {}
}

impl<S: SinkStream> SinkStream for TlsStream<S> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

pub(super) async fn serve<S: SinkStream>(shared: Arc<Shared>, stream: S) {
    let id = count(&shared.counters.connections) + 1;
    let session = Session::new(Arc::clone(&shared), id);
    match (&shared.tls, &shared.options.tls) {
        (Some(tls), SinkTls::Implicit(_)) => {
            if let Ok(stream) = tls.accept(stream).await {
                Connection::new(&shared, stream, session.greet()).run().await;
            }
        }
        (Some(tls), _) => {
            let Some((stream, session)) = Connection::new(&shared, stream, session.greet()).run().await else {
                return;
            };
            if let Ok(stream) = tls.accept(stream).await {
                Connection::new(&shared, stream, session.encrypted()).run().await;
            }
        }
        (None, _) => {
            Connection::new(&shared, stream, session.greet()).run().await;
        }
    }
}

struct Connection<'a, S> {
    shared: &'a Shared,
    stream: S,
    session: Session,
    inbox: BytesMut,
    outbox: Outbox,
}

impl<'a, S: SinkStream> Connection<'a, S> {
    fn new(shared: &'a Shared, stream: S, session: Session) -> Self {
        let outbox = Outbox::new(shared.options.latency);
        Self {
            shared,
            stream,
            session,
            inbox: BytesMut::with_capacity(READ_LEN),
            outbox,
        }
    }

    /// Serves until the end, or until the client asks for TLS: then the stream comes back.
    async fn run(mut self) -> Option<(S, Session)> {
        loop {
            let step = self.session.eat(&mut self.inbox);
            let truth = self.session.take_truth();
            self.truth(&truth);
            let batch = self.session.take_batch();
            let wrote = if batch.replies.is_empty() {
                Some(())
            } else {
                self.send(batch).await
            };
            wrote?;
            match step {
                Step::Read => self.read().await?,
                Step::StartTls => {
                    self.drain().await?;
                    return Some((self.stream, self.session));
                }
                Step::Drip(bytes, pause) => self.drip(&bytes, pause).await?,
                Step::Close => {
                    self.drain().await?;
                    // A polite end; the client may have left first.
                    let _ = self.stream.shutdown().await;
                    return None;
                }
                Step::Reset => {
                    self.drain().await?;
                    self.stream.reset_on_close();
                    return None;
                }
                Step::Hang => {
                    self.drain().await?;
                    std::future::pending::<()>().await;
                }
                Step::Silence => {
                    self.drain().await?;
                    self.wait_for_the_end().await;
                    return None;
                }
            }
        }
    }

    /// `None` when the client is gone, as everywhere below.
    async fn send(&mut self, batch: Batch) -> Option<()> {
        if self.outbox.is_instant() {
            return self.write(batch).await;
        }
        self.outbox.push(batch);
        Some(())
    }

    async fn write(&mut self, batch: Batch) -> Option<()> {
        count(&self.shared.counters.flushes);
        self.stream.write_all(&batch.replies).await.ok()?;
        self.stream.flush().await.ok()?;
        self.truth(&batch.truth_after);
        Some(())
    }

    /// Reads something, while replies leave as they become due.
    async fn read(&mut self) -> Option<()> {
        loop {
            self.inbox.reserve(READ_LEN / 4);
            let due = self.outbox.due();
            let read = tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
                read = self.stream.read_buf(&mut self.inbox) => Some(read.ok()?),
            };
            match read {
                None => self.write_next().await?,
                Some(0) => return None,
                Some(_) => return Some(()),
            }
        }
    }

    async fn write_next(&mut self) -> Option<()> {
        match self.outbox.pop() {
            Some(batch) => self.write(batch).await,
            None => Some(()),
        }
    }

    /// Lets everything leave that is due later.
    async fn drain(&mut self) -> Option<()> {
        while let Some(due) = self.outbox.due() {
            sleep_until(due).await;
            self.write_next().await?;
        }
        Some(())
    }

    async fn drip(&mut self, bytes: &[u8], pause: Duration) -> Option<()> {
        self.drain().await?;
        for byte in bytes {
            sleep(pause).await;
            self.write(Batch {
                replies: vec![*byte],
                ..Batch::default()
            })
            .await?;
        }
        Some(())
    }

    async fn wait_for_the_end(&mut self) {
        let mut ignored = [0; 1024];
        while matches!(self.stream.read(&mut ignored).await, Ok(n) if n > 0) {}
    }

    fn truth(&self, lines: &[u8]) {
        if let Some(truth) = &self.shared.truth {
            truth.write(lines);
        }
    }
}
