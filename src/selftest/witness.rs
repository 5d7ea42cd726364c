//! The witness: a relay that remembers what it takes and when, and knows from which node each connection comes, so that it can say how
//! many a node had open when it died. All nodes come through one door, as what is said about a relay holds for all of them: the
//! system is asked whose socket is at the other end. Never tells the nodes anything but SMTP.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::oracle::{BIN, Copies};
use crate::sink::{Sink, SinkOptions};

/// The relay and its door.
pub struct Witness {
    ledger: Arc<Ledger>,
    door: Arc<Door>,
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
    tallies: Vec<Tally>,
    /// Nobody is let in, and who is inside is thrown out.
    shut: watch::Sender<bool>,
}

/// The connections of one node.
#[derive(Default)]
struct Tally {
    /// Of the node's process; 0 before its first start.
    pid: AtomicU32,
    open: AtomicU64,
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
    /// Opens the door to so many nodes. Each reply leaves `latency` late.
    ///
    /// # Errors
    /// When the system has no free port.
    pub async fn open(n_nodes: usize, latency: Duration, seed: u64) -> io::Result<Self> {
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let door = Arc::new(Door {
            addr: listener.local_addr()?,
            tallies: (0..n_nodes).map(|_| Tally::default()).collect(),
            shut: watch::Sender::new(false),
        });
        tokio::spawn(attend(sink, listener, Arc::clone(&door)));
        Ok(Self { ledger, door })
    }

    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.door.addr
    }

    /// The node runs as this process from now on.
    pub fn expect(&self, node: usize, pid: u32) {
        self.door.tallies[node].pid.store(pid, Ordering::SeqCst);
    }

    /// Connections that a node has open now.
    #[must_use]
    pub fn n_open(&self, node: usize) -> u64 {
        self.door.tallies[node].open.load(Ordering::SeqCst)
    }

    #[must_use]
    pub fn n_open_in_all(&self) -> u64 {
        (0..self.door.tallies.len()).map(|node| self.n_open(node)).sum()
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
        self.door.shut.send_replace(true);
    }

    pub fn reopen(&self) {
        self.door.shut.send_replace(false);
    }
}

async fn attend(sink: Sink, listener: TcpListener, door: Arc<Door>) {
    loop {
        // Out of descriptors, mostly: the next moment may be better.
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if !*door.shut.borrow() {
            // Before the greeting: no message can be on the wire of a connection that is not counted.
            let node = door.whose(peer);
            if let Some(tally) = node.map(|node| &door.tallies[node]) {
                tally.open.fetch_add(1, Ordering::SeqCst);
            }
            tokio::spawn(serve(sink.clone(), stream, Arc::clone(&door), node));
        }
    }
}

async fn serve(sink: Sink, stream: TcpStream, door: Arc<Door>, node: Option<usize>) {
    // Only a socket that is already closed refuses this.
    let _ = stream.set_nodelay(true);
    let mut shut = door.shut.subscribe();
    tokio::select! {
        () = sink.serve(stream) => {}
        _ = shut.wait_for(|is_shut| *is_shut) => {}
    }
    if let Some(node) = node {
        door.tallies[node].open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Door {
    /// The node at the other end. `None` for one that has died since: the relay never spoke to it.
    fn whose(&self, peer: SocketAddr) -> Option<usize> {
        let inode = inode_between(peer.port(), self.addr.port())?;
        let link = format!("socket:[{inode}]");
        self.tallies.iter().position(|tally| {
            let handles = std::fs::read_dir(format!("/proc/{}/fd", tally.pid.load(Ordering::SeqCst)));
            let mut links = handles
                .into_iter()
                .flatten()
                .flatten()
                .map(|handle| std::fs::read_link(handle.path()));
            links.any(|found| found.is_ok_and(|found| found.as_os_str() == link.as_str()))
        })
    }
}

/// The inode of the socket on loopback that has one port and is connected to the other. See proc_pid_net(5), `/proc/net/tcp`.
fn inode_between(own: u16, other: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let (own, other) = (format!(":{own:04X}"), format!(":{other:04X}"));
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.get(1)?.ends_with(&own) && words.get(2)?.ends_with(&other);
        is_it.then(|| words.get(9)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_counted_for_the_process_that_holds_it() {
        let witness = Witness::open(2, Duration::ZERO, 1).await.unwrap();
        witness.expect(1, std::process::id());
        let mut stream = TcpStream::connect(witness.addr()).await.unwrap();
        let mut greeting = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut greeting)
            .await
            .unwrap();
        assert_eq!([witness.n_open(0), witness.n_open(1), witness.n_open_in_all()], [0, 1, 1]);
        drop(stream);
        while witness.n_open(1) > 0 {
            tokio::task::yield_now().await;
        }
    }
}
