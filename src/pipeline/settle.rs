//! Stage 6, settle: outcomes and intents of all connections of a worker → one group commit. Never lets a connection
//! go on before what it learnt, and what it is about to do, are durable.
//!
//! While one commit runs, the next group gathers by itself: the slower the disk, the larger the groups.
//! When the database is away, nobody gets an answer, so nobody sends; nothing learnt is forgotten, and
//! it is written when the database is back, unless the lease was lost meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::domain::job::{Lease, Stop};
use crate::store::delivery::{Ack, Progress, Settled};
use crate::store::{Store, StoreError};

/// Entries in one commit: enough for every connection of a busy worker, and small enough that a commit
/// stays in the milliseconds.
const GROUP_MAX: usize = 1_024;
/// Entries that may wait; each connection has one at most, so that this is never reached in practice.
const WAITING_MAX: usize = 4_096;
/// Pauses between tries while the database is away.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// One thing a connection wants durable before it goes on.
#[derive(Debug)]
pub struct Entry {
    pub lease: Lease,
    pub note: Note,
}

#[derive(Debug)]
pub enum Note {
    /// What became of a message. It is no longer on the wire.
    Outcome(Settled),
    /// This ordinal's end of data is about to be written.
    Intent(u16),
    /// An intent that was not carried out: its end of data was never written.
    Retraction(u16),
}

/// The answer to an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// It is. An operator may want the job stopped.
    Yes { stop: Option<Stop> },
    /// The lease has lapsed or the store refused: drop the work.
    No,
}

struct Request {
    entries: Vec<Entry>,
    answer: oneshot::Sender<Vec<Durable>>,
}

/// The connections' way to the group commit. Clones share it.
#[derive(Clone)]
pub struct Settler {
    requests: mpsc::Sender<Request>,
}

impl Settler {
    /// Starts the task that commits. It ends when the last clone is gone and everything is written.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> (Self, tokio::task::JoinHandle<()>) {
        let (requests, incoming) = mpsc::channel(WAITING_MAX);
        let committer = Committer { store, clock, inflight: HashMap::new() };
        (Self { requests }, tokio::spawn(committer.run(incoming)))
    }

    /// Makes the entries durable; the answers come in their order.
    pub async fn settle(&self, entries: Vec<Entry>) -> Vec<Durable> {
        let n = entries.len();
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Request { entries, answer }).await.is_err() {
            return vec![Durable::No; n];
        }
        answered.await.unwrap_or_else(|_| vec![Durable::No; n])
    }

    /// Makes one entry durable.
    pub async fn settle_one(&self, lease: Lease, note: Note) -> Durable {
        self.settle(vec![Entry { lease, note }]).await.pop().unwrap_or(Durable::No)
    }
}

/// Owns the truth about what is on the wire: the intents it writes are always all of a job's.
struct Committer {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    inflight: HashMap<Lease, BTreeSet<u16>>,
}

impl Committer {
    async fn run(mut self, mut incoming: mpsc::Receiver<Request>) {
        let mut group = Vec::new();
        while incoming.recv_many(&mut group, GROUP_MAX).await > 0 {
            self.commit(std::mem::take(&mut group)).await;
        }
    }

    async fn commit(&mut self, group: Vec<Request>) {
        let mut answers = Vec::with_capacity(group.len());
        let mut by_lease: HashMap<Lease, Vec<Settled>> = HashMap::new();
        for request in group {
            let leases: Vec<Lease> = request.entries.iter().map(|e| e.lease).collect();
            for entry in request.entries {
                self.take_note(entry, &mut by_lease);
            }
            answers.push((leases, request.answer));
        }
        let batch: Vec<Progress> = by_lease.into_iter().map(|(lease, settled)| self.progress(lease, settled)).collect();
        let acks = self.write(&batch).await;
        for (progress, ack) in batch.iter().zip(&acks) {
            if *ack == Durable::No || progress.inflight.is_empty() {
                self.inflight.remove(&progress.lease);
            }
        }
        let by_lease: HashMap<Lease, Durable> = batch.iter().map(|p| p.lease).zip(acks).collect();
        for (leases, answer) in answers {
            // A connection that went away needs no answer.
            let _ = answer.send(leases.iter().map(|l| by_lease[l]).collect());
        }
    }

    fn take_note(&mut self, entry: Entry, by_lease: &mut HashMap<Lease, Vec<Settled>>) {
        let settled = by_lease.entry(entry.lease).or_default();
        let inflight = self.inflight.entry(entry.lease).or_default();
        match entry.note {
            Note::Outcome(outcome) => {
                inflight.remove(&outcome.ordinal);
                settled.push(outcome);
            }
            Note::Intent(ordinal) => drop(inflight.insert(ordinal)),
            Note::Retraction(ordinal) => drop(inflight.remove(&ordinal)),
        }
    }

    fn progress(&self, lease: Lease, settled: Vec<Settled>) -> Progress {
        let inflight = self.inflight.get(&lease).map(|set| set.iter().copied().collect()).unwrap_or_default();
        Progress { lease, settled, inflight }
    }

    /// Writes a batch, however long the database is away. A commit whose answer was lost may have taken
    /// effect; repeating it then writes the same rows, but would move the counters twice, so the
    /// store's own transaction is what decides: it is repeated only when it was not applied.
    async fn write(&self, batch: &[Progress]) -> Vec<Durable> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.store.commit_progress(batch, self.clock.now()).await {
                Ok(acks) => return acks.into_iter().map(Durable::from).collect(),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "Outcomes wait for the database");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                Err(error) => {
                    report(&error, batch);
                    return vec![Durable::No; batch.len()];
                }
            }
        }
    }
}

impl From<Ack> for Durable {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Durable { stop } => Durable::Yes { stop },
            Ack::Fenced => Durable::No,
        }
    }
}

fn report(error: &StoreError, batch: &[Progress]) {
    let jobs: Vec<i64> = batch.iter().map(|p| p.lease.job_id).collect();
    tracing::error!(%error, ?jobs, "The store refused a group commit; its jobs are abandoned and will be rescued");
}
