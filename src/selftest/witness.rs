//! The witness: a relay that remembers what it takes and when, with a door of its own for each node, so that it knows how many
//! connections a node had open when it died. Never tells the nodes anything but SMTP.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::oracle::{BIN, Copies};
use crate::sink::{Sink, SinkOptions};

/// The relay and its doors.
pub struct Witness {
    ledger: Arc<Ledger>,
    doors: Vec<Arc<Door>>,
}

/// What was taken.
struct Ledger {
    opened: Instant,
    taken: Mutex<Taken>,
    n_taken: AtomicU64,
}

#[derive(Default)]
struct Taken {
    copies: HashMap<String, Copies>,
    /// Messages in each [`BIN`] since the opening.
    bins: Vec<u32>,
}

struct Door {
    addr: SocketAddr,
    open: AtomicU64,
    /// Ever.
    opened: AtomicU64,
    /// Nobody is let in, and who is inside is thrown out.
    shut: watch::Sender<bool>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, recipients: &[String]) {
        let now = Instant::now();
        let bin = ((now - self.opened).as_millis() / BIN.as_millis()) as usize;
        let mut taken = self.lock();
        if taken.bins.len() <= bin {
            taken.bins.resize(bin + 1, 0);
        }
        taken.bins[bin] += 1;
        for to in recipients {
            let copies = taken.copies.entry(to.clone()).or_insert(Copies {
                n: 0,
                first: now,
                last: now,
            });
            copies.n += 1;
            copies.last = now;
        }
        drop(taken);
        self.n_taken.fetch_add(1, Ordering::SeqCst);
    }
}

impl Witness {
    /// Opens so many doors. Each reply leaves `latency` late.
    ///
    /// # Errors
    /// When the system has no free port.
    pub async fn open(doors: usize, latency: Duration, seed: u64) -> io::Result<Self> {
        let ledger = Arc::new(Ledger {
            opened: Instant::now(),
            taken: Mutex::default(),
            n_taken: AtomicU64::new(0),
        });
        let book = Arc::clone(&ledger);
        let sink = Sink::new(SinkOptions {
            latency,
            seed,
            keep_mailbox: false,
            on_taken: Some(Arc::new(move |recipients| book.take(recipients))),
            ..SinkOptions::default()
        })?;
        let mut opened = Vec::new();
        for _ in 0..doors {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let door = Arc::new(Door {
                addr: listener.local_addr()?,
                open: AtomicU64::new(0),
                opened: AtomicU64::new(0),
                shut: watch::Sender::new(false),
            });
            tokio::spawn(attend(sink.clone(), listener, Arc::clone(&door)));
            opened.push(door);
        }
        Ok(Self { ledger, doors: opened })
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

    /// Connections that a node has ever opened.
    #[must_use]
    pub fn n_opened(&self, node: usize) -> u64 {
        self.doors[node].opened.load(Ordering::SeqCst)
    }

    #[must_use]
    pub fn n_open_in_all(&self) -> u64 {
        (0..self.doors.len()).map(|node| self.n_open(node)).sum()
    }

    /// Messages taken so far.
    #[must_use]
    pub fn n_taken(&self) -> u64 {
        self.ledger.n_taken.load(Ordering::SeqCst)
    }

    /// Copies of each of these addresses so far.
    #[must_use]
    pub fn copies<'a>(&self, of: impl Iterator<Item = &'a str>) -> HashMap<String, Copies> {
        let taken = self.ledger.lock();
        of.filter_map(|email| Some((email.to_owned(), *taken.copies.get(email)?)))
            .collect()
    }

    /// Messages in each [`BIN`] since the opening.
    #[must_use]
    pub fn bins(&self) -> Vec<u32> {
        self.ledger.lock().bins.clone()
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
            door.opened.fetch_add(1, Ordering::SeqCst);
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
