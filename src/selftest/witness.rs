//! The witness: a relay that counts what it takes, with a door of its own for each node, so that it knows how many
//! connections a node had open when it died. Never tells the nodes anything but SMTP.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::sink::{Sink, SinkOptions};

/// The relay and its doors.
pub struct Witness {
    sink: Sink,
    doors: Vec<Arc<Door>>,
}

struct Door {
    addr: SocketAddr,
    open: AtomicU64,
    /// Nobody is let in, and who is inside is thrown out.
    shut: watch::Sender<bool>,
}

impl Witness {
    /// Opens so many doors. Each reply leaves `latency` late.
    ///
    /// # Errors
    /// When the system has no free port.
    pub async fn open(doors: usize, latency: Duration, seed: u64) -> io::Result<Self> {
        let sink = Sink::new(SinkOptions {
            latency,
            seed,
            keep_mailbox: false,
            count_recipients: true,
            ..SinkOptions::default()
        })?;
        let mut opened = Vec::new();
        for _ in 0..doors {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let door = Arc::new(Door {
                addr: listener.local_addr()?,
                open: AtomicU64::new(0),
                shut: watch::Sender::new(false),
            });
            tokio::spawn(attend(sink.clone(), listener, Arc::clone(&door)));
            opened.push(door);
        }
        Ok(Self { sink, doors: opened })
    }

    #[must_use]
    pub fn addr(&self, node: usize) -> SocketAddr {
        self.doors[node].addr
    }

    /// Connections that a node has open now.
    #[must_use]
    pub fn n_open(&self, node: usize) -> u64 {
        self.doors[node].open.load(Ordering::SeqCst)
    }

    #[must_use]
    pub fn n_open_in_all(&self) -> u64 {
        (0..self.doors.len()).map(|node| self.n_open(node)).sum()
    }

    /// Messages taken so far.
    #[must_use]
    pub fn n_taken(&self) -> u64 {
        let stats = self.sink.stats();
        stats.accepted + stats.taken_unanswered
    }

    /// Copies of each address so far.
    #[must_use]
    pub fn copies(&self) -> HashMap<String, u32> {
        self.sink.copies()
    }

    /// Breaks every connection, wherever it stands, and lets nobody in until [`Witness::reopen`].
    pub fn shut(&self) {
        for door in &self.doors {
            door.shut.send_replace(true);
        }
    }

    pub fn reopen(&self) {
        for door in &self.doors {
            door.shut.send_replace(false);
        }
    }
}

async fn attend(sink: Sink, listener: TcpListener, door: Arc<Door>) {
    loop {
        // Out of descriptors, mostly: the next moment may be better.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if !*door.shut.borrow() {
            door.open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(sink.clone(), stream, Arc::clone(&door)));
        }
    }
}

async fn serve(sink: Sink, stream: TcpStream, door: Arc<Door>) {
    // Only a socket that is already closed refuses this.
    let _ = stream.set_nodelay(true);
    let mut shut = door.shut.subscribe();
    tokio::select! {
        () = sink.serve(stream) => {}
        _ = shut.wait_for(|is_shut| *is_shut) => {}
    }
    door.open.fetch_sub(1, Ordering::SeqCst);
}
