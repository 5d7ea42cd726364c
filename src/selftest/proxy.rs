//! A line to the database that can be held up, cut and led to another server. Never looks at what it carries.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes carried at once.
const BUFFER_LEN: usize = 64 * 1024;

/// What the line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Up,
    /// Connections stand, and nothing moves: a hanging server, or a network that swallows everything.
    Held,
    /// Every connection breaks, and none is made.
    Cut,
}

/// A line to one server at a time.
pub struct Proxy {
    addr: SocketAddr,
    line: Arc<watch::Sender<Line>>,
    target: Arc<watch::Sender<SocketAddr>>,
    opened: Arc<AtomicU64>,
}

impl Proxy {
    /// Opens a line to a server.
    ///
    /// # Errors
    /// When the system has no free port.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (line, target) = (Arc::new(watch::Sender::new(Line::Up)), Arc::new(watch::Sender::new(target)));
        let opened = Arc::new(AtomicU64::new(0));
        tokio::spawn(attend(listener, Arc::clone(&line), Arc::clone(&target), Arc::clone(&opened)));
        Ok(Self {
            addr,
            line,
            target,
            opened,
        })
    }

    /// Connections that were ever made to it.
    #[must_use]
    pub fn n_opened(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

async fn attend(
    listener: TcpListener,
    line: Arc<watch::Sender<Line>>,
    target: Arc<watch::Sender<SocketAddr>>,
    opened: Arc<AtomicU64>,
) {
    loop {
        // Out of descriptors, mostly: the next moment may be better.
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        opened.fetch_add(1, Ordering::SeqCst);
        let target = *target.borrow();
        let line = line.subscribe();
        if *line.borrow() != Line::Cut {
            tokio::spawn(carry(client, target, line));
        }
    }
}

async fn carry(client: TcpStream, target: SocketAddr, line: watch::Receiver<Line>) {
    let mut cut = line.clone();
    let carried = async {
        wait_until_up(&mut line.clone()).await;
        let Ok(server) = TcpStream::connect(target).await else {
            return;
        };
        // Only a socket that is already closed refuses this.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = pump(from_client, to_server, line.clone()) => {}
            () = pump(from_server, to_client, line.clone()) => {}
        }
    };
    tokio::select! {
        () = carried => {}
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0; BUFFER_LEN];
    while let Ok(n) = from.read(&mut buffer).await {
        wait_until_up(&mut line).await;
        if n == 0 || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

async fn wait_until_up(line: &mut watch::Receiver<Line>) {
    // A line that is gone for good is the end of the test.
    let _ = line.wait_for(|line| *line == Line::Up).await;
}
