//! The bytes of one connection: bounded replies in, commands and content out, each within a time
//! limit. Never interprets a reply, never retries.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::failure::Cause;
use super::failure::Stage;
use super::reply::{self, LINE_LEN_MAX, Reply};
use super::tls::{self, TlsContext};
use super::transcript::Recorder;

/// The relay must take this much within one block timeout. It bounds how long a slow reader can hold
/// a message: a megabyte is sixteen blocks.
const BLOCK_LEN: usize = 64 * 1024;

/// A stream with what has been read from it and not yet understood.
pub(super) struct Wire<S> {
    stream: Transport<S>,
    inbox: BytesMut,
    /// Writes down what is said, when somebody wants to read it.
    recorder: Option<Recorder>,
}

/// Not everything was written.
pub(super) struct NotWritten {
    pub cause: Cause,
    /// How many bytes, from the first, may have left at most.
    pub out_at_most: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream: Transport::Clear(stream),
            inbox: BytesMut::with_capacity(LINE_LEN_MAX),
            recorder: None,
        }
    }

    /// The same connection, of which everything said is written down.
    pub fn recorded(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// Tells the transcript that another step begins.
    pub fn enter(&self, stage: Stage) {
        if let Some(recorder) = &self.recorder {
            recorder.enter(stage);
        }
    }

    /// The same connection, encrypted.
    pub async fn into_tls(self, tls: &TlsContext, host: &str, limit: Duration) -> Result<Self, Cause> {
        // What came before the handshake was not protected by it: whoever sits in between may have
        // put it there, to be read as if it had come from the relay (RFC 3207 4.2).
        if !self.inbox.is_empty() {
            return Err(Cause::Desync("data before the TLS handshake".into()));
        }
        let Transport::Clear(stream) = self.stream else {
            return Err(Cause::Tls("TLS within TLS".into()));
        };
        let stream = timeout(limit, tls.connect(stream, host))
            .await
            .map_err(|_| Cause::Timeout(limit))?;
        let stream = stream.map_err(Cause::Tls)?;
        if let Some(recorder) = &self.recorder {
            tls::facts(&stream).iter().for_each(|fact| recorder.note(fact));
        }
        let stream = Transport::Tls(Box::new(stream));
        Ok(Self {
            stream,
            inbox: self.inbox,
            recorder: self.recorder,
        })
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Transport::Tls(_))
    }

    /// Whether everything the relay has sent so far is understood.
    pub fn is_quiet(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Reads the next whole reply. The limit is for all of it, so that one byte now and then does not
    /// hold the connection forever.
    pub async fn reply(&mut self, limit: Duration) -> Result<Reply, Cause> {
        if let Some(reply) = self.take_reply()? {
            return Ok(reply);
        }
        timeout(limit, self.read_reply())
            .await
            .map_err(|_| Cause::Timeout(limit))?
    }

    async fn read_reply(&mut self) -> Result<Reply, Cause> {
        loop {
            self.inbox.reserve(LINE_LEN_MAX);
            let known = self.inbox.len();
            if self
                .stream
                .read_buf(&mut self.inbox)
                .await
                .map_err(|why| broken(&why))?
                == 0
            {
                return Err(Cause::Closed);
            }
            // Looking again is only worth it when a line has ended or grown too long.
            let has_line = self.inbox[known..].contains(&b'\n');
            if (has_line || self.inbox.len() > LINE_LEN_MAX)
                && let Some(reply) = self.take_reply()?
            {
                return Ok(reply);
            }
        }
    }

    /// A whole reply that was read already.
    pub fn take_reply(&mut self) -> Result<Option<Reply>, Cause> {
        let parsed = reply::parse(&self.inbox);
        if let Some(recorder) = &self.recorder {
            match &parsed {
                Ok(Some((_, used))) => recorder.heard(&self.inbox[..*used]),
                Ok(None) => {}
                Err(_) => recorder.heard(&self.inbox),
            }
        }
        Ok(parsed.map_err(Cause::Desync)?.map(|(reply, used)| {
            self.inbox.advance(used);
            reply
        }))
    }

    /// Makes sure, without waiting, that the relay neither spoke nor left while it was not its turn.
    ///
    /// # Errors
    /// A 421, the end of the stream, or being out of step. The connection is of no use then.
    pub async fn expect_silence(&mut self) -> Result<(), Cause> {
        match self.glance().await? {
            None => Ok(()),
            Some(reply) if reply.is_closing() => Err(Cause::Reply(reply)),
            Some(reply) => Err(Cause::Desync(format!("nobody asked for a {}", reply.code))),
        }
    }

    /// After a failed write: the refusal that the relay may have sent before it closed.
    pub async fn last_words(&mut self) -> Option<Reply> {
        self.glance().await.ok().flatten().filter(Reply::is_refusal)
    }

    /// A reply that is already here; never waits.
    async fn glance(&mut self) -> Result<Option<Reply>, Cause> {
        if self.inbox.is_empty() {
            let mut chunk = [0; 512];
            let mut buf = ReadBuf::new(&mut chunk);
            let polled = poll_fn(|cx| match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => Poll::Ready(None),
            });
            match polled.await {
                None => return Ok(None),
                Some(Err(why)) => return Err(broken(&why)),
                Some(Ok(())) if buf.filled().is_empty() => return Err(Cause::Closed),
                Some(Ok(())) => self.inbox.extend_from_slice(buf.filled()),
            }
        }
        match self.take_reply()? {
            Some(reply) => Ok(Some(reply)),
            None => Err(Cause::Desync("nobody asked for what came".into())),
        }
    }

    /// Writes all of `bytes` and listens meanwhile, giving the relay `limit` for each block and `total` for all of them. `due` says, in
    /// rising order, after how many bytes each reply may come at the earliest. What comes earlier ends the writing: a goodbye as
    /// such, anything else as being out of step. What was heard is read afterwards, by [`reply`](Self::reply).
    pub async fn write_and_listen(
        &mut self,
        bytes: &[u8],
        due: &[usize],
        limit: Duration,
        total: Duration,
    ) -> Result<(), NotWritten> {
        if let Some(recorder) = &self.recorder {
            recorder.sent(bytes);
        }
        let end = Instant::now() + total;
        let (mut taken, mut is_deaf) = (0, false);
        while taken < bytes.len() {
            let block_end = bytes.len().min(taken + BLOCK_LEN);
            let limit = limit.min(end.saturating_duration_since(Instant::now()));
            let block = self.exchange_block(&bytes[..block_end], due, &mut taken, &mut is_deaf);
            let cause = match timeout(limit, block).await {
                Ok(Ok(())) => continue,
                Ok(Err(cause)) => cause,
                Err(_) => Cause::Timeout(limit),
            };
            // A TLS stream may have encrypted and sent a part of what it then fails to take.
            let may_be_out = self.is_tls() && matches!(cause, Cause::Io(_) | Cause::Tls(_) | Cause::Closed);
            let out_at_most = if may_be_out { block_end } else { taken };
            return Err(NotWritten { cause, out_at_most });
        }
        self.flush_within(limit, taken).await
    }

    async fn exchange_block(
        &mut self,
        block: &[u8],
        due: &[usize],
        taken: &mut usize,
        is_deaf: &mut bool,
    ) -> Result<(), Cause> {
        while *taken < block.len() {
            let moved = poll_fn(|cx| self.poll_exchange(cx, &block[*taken..], is_deaf)).await?;
            match moved {
                Moved::Out(n) => *taken += n,
                Moved::In => self.check_turn(due.partition_point(|&d| d <= *taken))?,
            }
        }
        Ok(())
    }

    /// Reads what is there, else writes what is taken.
    fn poll_exchange(&mut self, cx: &mut Context<'_>, bytes: &[u8], is_deaf: &mut bool) -> Poll<Result<Moved, Cause>> {
        if !*is_deaf {
            let mut chunk = [0; 512];
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                // What that means is told by the write that fails, or by the reply that does not come.
                Poll::Ready(Err(_)) => *is_deaf = true,
                Poll::Ready(Ok(())) if buf.filled().is_empty() => *is_deaf = true,
                Poll::Ready(Ok(())) => {
                    self.inbox.extend_from_slice(buf.filled());
                    return Poll::Ready(Ok(Moved::In));
                }
                Poll::Pending => {}
            }
        }
        match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
            Ok(0) => Poll::Ready(Err(Cause::Closed)),
            Ok(n) => Poll::Ready(Ok(Moved::Out(n))),
            Err(why) => Poll::Ready(Err(broken(&why))),
        }
    }

    /// Makes sure that no more than `n_due` replies lie here.
    ///
    /// # Errors
    /// A goodbye as such, anything else as being out of step.
    pub fn check_turn(&self, n_due: usize) -> Result<(), Cause> {
        let (mut n, mut at) = (0, 0);
        while let Some((reply, used)) = reply::parse(&self.inbox[at..]).map_err(Cause::Desync)? {
            (n, at) = (n + 1, at + used);
            if n > n_due {
                return Err(match reply.is_closing() {
                    true => Cause::Reply(reply),
                    false => Cause::Desync(format!("{} to what was not said yet", reply.code)),
                });
            }
        }
        Ok(())
    }

    /// Writes all of `bytes`, giving the relay `limit` for each block.
    pub async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), NotWritten> {
        if let Some(recorder) = &self.recorder {
            recorder.sent(bytes);
        }
        let mut taken = 0;
        while taken < bytes.len() {
            let block_end = bytes.len().min(taken + BLOCK_LEN);
            let written = timeout(limit, write_block(&mut self.stream, &bytes[..block_end], &mut taken)).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(why)) => {
                    // A TLS stream may have encrypted and sent a part of what it then fails to take.
                    let out_at_most = if self.is_tls() { block_end } else { taken };
                    return Err(NotWritten {
                        cause: broken(&why),
                        out_at_most,
                    });
                }
                Err(_) => {
                    return Err(NotWritten {
                        cause: Cause::Timeout(limit),
                        out_at_most: taken,
                    });
                }
            }
        }
        self.flush_within(limit, taken).await
    }

    async fn flush_within(&mut self, limit: Duration, taken: usize) -> Result<(), NotWritten> {
        let cause = match timeout(limit, self.stream.flush()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => broken(&why),
            Err(_) => Cause::Timeout(limit),
        };
        Err(NotWritten {
            cause,
            out_at_most: taken,
        })
    }
}

/// What one look at a stream has moved.
enum Moved {
    /// So many bytes were taken.
    Out(usize),
    /// Something was heard.
    In,
}

async fn write_block<S>(stream: &mut Transport<S>, block: &[u8], taken: &mut usize) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while *taken < block.len() {
        match stream.write(&block[*taken..]).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => *taken += n,
        }
    }
    Ok(())
}

fn broken(why: &io::Error) -> Cause {
    match why.kind() {
        // A TLS peer that closes without saying so in TLS.
        io::ErrorKind::UnexpectedEof => Cause::Closed,
        io::ErrorKind::InvalidData => Cause::Tls(why.to_string()),
        _ => Cause::Io(why.to_string()),
    }
}

/// A stream in clear or encrypted.
enum Transport<S> {
    Clear(S),
    /// Boxed because it is a kilobyte against a few bytes.
    Tls(Box<TlsStream<S>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Clear(s) => Pin::new(s).poll_read(cx, buf),
            Transport::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Clear(s) => Pin::new(s).poll_write(cx, buf),
            Transport::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Clear(s) => Pin::new(s).poll_flush(cx),
            Transport::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Clear(s) => Pin::new(s).poll_shutdown(cx),
            Transport::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
