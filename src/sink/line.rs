//! A long line on one machine: a proxy on loopback through which every byte takes half a round trip, each way. Never holds up what is
//! in flight for what went before it, never reorders, and never looks at what it carries: so whoever keeps more in flight gets more
//! through, as on a real line.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Read at once at most, in bytes.
const READ_LEN: usize = 64 * 1024;
/// Pieces in flight each way on one connection: 4 MiB of them at most, which is a gigabit and a half at 20 ms.
const PIECES_MAX: usize = 64;

/// A line that is laid. Dropping it cuts it.
pub struct Line {
    addr: SocketAddr,
    _cut: DropGuard,
}

impl Line {
    /// Lays a line to `far`: whoever connects to its [near end](Self::addr) reaches that address, half of `round_trip` later.
    ///
    /// # Errors
    /// When loopback has no free port.
    pub async fn lay(far: SocketAddr, round_trip: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let cut = CancellationToken::new();
        let bell = Arc::new(Bell::hang()?);
        tokio::spawn(connect_all(listener, far, round_trip / 2, bell, cut.clone()));
        Ok(Self {
            addr,
            _cut: cut.drop_guard(),
        })
    }

    /// The near end.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn connect_all(listener: TcpListener, far: SocketAddr, delay: Duration, bell: Arc<Bell>, cut: CancellationToken) {
    loop {
        let near = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cut.cancelled() => return,
        };
        // Out of file descriptors, mostly: the client sees a connection that is closed.
        let Ok((near, _)) = near else { continue };
        let (bell, cut) = (Arc::clone(&bell), cut.clone());
        tokio::spawn(async move {
            tokio::select! {
                // A connection that breaks at one end is closed at the other, which is all that there is to tell.
                _broken = connect(near, far, delay, &bell) => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

async fn connect(near: TcpStream, far: SocketAddr, delay: Duration, bell: &Bell) -> io::Result<()> {
    let far = TcpStream::connect(far).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let rung = |due| bell.ring_at(due);
    tokio::join!(carry(near_in, far_out, delay, rung), carry(far_in, near_out, delay, rung));
    Ok(())
}

/// One direction of one connection, until its end has come through too. `until` waits for a moment.
async fn carry<F: Future<Output = ()>>(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    delay: Duration,
    until: impl Fn(Instant) -> F,
) {
    let (put, taken) = mpsc::channel(PIECES_MAX);
    tokio::join!(put_in(from, put, delay), take_out(taken, to, until));
}

/// A piece, and when it is at the other end. An empty one is the end.
type Piece = (Instant, Bytes);

async fn put_in(mut from: impl AsyncRead + Unpin, line: mpsc::Sender<Piece>, delay: Duration) {
    let mut inbox = BytesMut::new();
    loop {
        inbox.reserve(READ_LEN);
        let n = from.read_buf(&mut inbox).await.unwrap_or(0);
        let piece = (Instant::now() + delay, inbox.split().freeze());
        if line.send(piece).await.is_err() || n == 0 {
            return;
        }
    }
}

async fn take_out<F: Future<Output = ()>>(
    mut line: mpsc::Receiver<Piece>,
    mut to: impl AsyncWrite + Unpin,
    until: impl Fn(Instant) -> F,
) {
    while let Some((due, bytes)) = line.recv().await {
        until(due).await;
        if bytes.is_empty() {
            // A far end that is gone already needs no goodbye.
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Wakes tasks at their moments, on a thread of its own: the runtime's timers are up to two milliseconds late, which at both ends of
/// a line of 20 ms is a tenth more. This one is late by what the system is, some 0.1 ms.
struct Bell(Arc<Ringer>);

#[derive(Default)]
struct Ringer {
    waiting: Mutex<Waiting>,
    /// Something changed that the thread does not expect.
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// Whom to wake, by the moment and a number that tells those of one moment apart.
    moments: BTreeMap<(std::time::Instant, u64), oneshot::Sender<()>>,
    last_number: u64,
    is_over: bool,
}

impl Bell {
    fn hang() -> io::Result<Self> {
        let ringer = Arc::new(Ringer::default());
        let own = Arc::clone(&ringer);
        std::thread::Builder::new()
            .name("line".to_owned())
            .spawn(move || own.run())?;
        Ok(Self(ringer))
    }

    /// Ends at that moment, or when the line is cut.
    fn ring_at(&self, due: Instant) -> impl Future<Output = ()> + use<> {
        let woken = self.set(due.into_std());
        async {
            let _ = woken.await;
        }
    }

    fn set(&self, due: std::time::Instant) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        let mut waiting = self.0.waiting();
        waiting.last_number += 1;
        let moment = (due, waiting.last_number);
        let is_first = waiting.moments.keys().next().is_none_or(|first| moment < *first);
        waiting.moments.insert(moment, wake);
        drop(waiting);
        if is_first {
            self.0.changed.notify_one();
        }
        woken
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.waiting().is_over = true;
        self.0.changed.notify_one();
    }
}

impl Ringer {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut waiting = self.waiting();
        while !waiting.is_over {
            let Some(first) = waiting.moments.first_entry() else {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = first.key().0.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                // Whoever waited may be gone with its connection.
                let _ = first.remove().send(());
                continue;
            }
            let woken = self.changed.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_in_flight_does_not_wait_for_what_went_before_it() {
        let (mut near, near_end) = tokio::io::duplex(1024);
        let (far_end, mut far) = tokio::io::duplex(1024);
        tokio::spawn(carry(near_end, far_end, Duration::from_secs(10), sleep_until));
        let start = Instant::now();
        for n in 0..5u8 {
            near.write_all(&[n]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        near.shutdown().await.unwrap();
        for n in 0..5u8 {
            assert_eq!(far.read_u8().await.unwrap(), n);
            assert_eq!(start.elapsed().as_secs(), 10 + u64::from(n), "each after ten seconds of its own");
        }
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "the end comes through");
        assert_eq!(start.elapsed().as_secs(), 15, "as late as everything else");
    }
}
