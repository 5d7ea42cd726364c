//! Stage 6, settle: outcomes and intents of all connections of a worker → one group commit. Never lets a connection
//! go on before what it learnt, and what it is about to do, are durable.
//!
//! While one commit runs, the next group gathers by itself: the slower the disk, the larger the groups.
//! When the database is away, nobody gets an answer, so nobody sends; nothing learnt is forgotten, and
//! it is written when the database is back, unless the lease was lost meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::Clock;
use crate::domain::job::{Lease, Stop};
use crate::domain::message::MessageStatus;
use crate::store::delivery::{Ack, Progress, Settled};
use crate::store::{Store, StoreError};

/// Entries in one commit: enough for every connection of a busy worker, and small enough that a commit
/// stays in the milliseconds.
const GROUP_MAX: usize = 1_024;
/// Entries that may wait; each connection has one at most, so that this is never reached in practice.
const WAITING_MAX: usize = 4_096;
/// Pauses between tries while the database is away.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A commit without an answer is given up after this and repeated. It is longer than the store's own limits, so that it is only
/// reached when nothing comes back at all.
const COMMIT_MAX: Duration = Duration::from_secs(45);

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
    failed: Arc<Notify>,
}

impl Settler {
    /// Starts the task that commits. It ends when the last clone is gone and everything is written.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> (Self, tokio::task::JoinHandle<()>) {
        let (requests, incoming) = mpsc::channel(WAITING_MAX);
        let committer = Committer {
            store,
            clock,
            inflight: HashMap::new(),
            number: 0,
            failed: Arc::default(),
        };
        let failed = Arc::clone(&committer.failed);
        (Self { requests, failed }, tokio::spawn(committer.run(incoming)))
    }

    /// Called after each commit that recorded a failed message.
    #[must_use]
    pub fn failed(&self) -> Arc<Notify> {
        Arc::clone(&self.failed)
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
        self.settle(vec![Entry { lease, note }])
            .await
            .pop()
            .unwrap_or(Durable::No)
    }
}

/// Owns the truth about what is on the wire: the intents it writes are always all of a job's.
struct Committer {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    inflight: HashMap<Lease, BTreeSet<u16>>,
    /// Of the last commit; tells a repeated one from a new one.
    number: i64,
    failed: Arc<Notify>,
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
        self.number += 1;
        let newest = newest_epochs(by_lease.keys());
        let (current, stale): (Vec<_>, Vec<_>) = by_lease
            .into_iter()
            .partition(|(lease, _)| newest[&lease.job_id] == lease.epoch);
        let batch: Vec<Progress> = current
            .into_iter()
            .map(|(lease, settled)| self.progress(lease, settled))
            .collect();
        let mut result: HashMap<Lease, Durable> = stale.iter().map(|(lease, _)| (*lease, Durable::No)).collect();
        result.extend(batch.iter().map(|p| p.lease).zip(self.write(&batch).await));
        let has_failed = |p: &Progress| p.settled.iter().any(|s| s.outcome.status == MessageStatus::Failed);
        if batch.iter().any(has_failed) {
            self.failed.notify_one();
        }
        let is_idle = |p: &Progress| p.inflight.is_empty();
        for lease in batch
            .iter()
            .filter(|p| is_idle(p) || result[&p.lease] == Durable::No)
            .map(|p| p.lease)
        {
            self.inflight.remove(&lease);
        }
        for (leases, answer) in answers {
            // A connection that went away needs no answer.
            let _ = answer.send(leases.iter().map(|l| result[l]).collect());
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
        let inflight = self
            .inflight
            .get(&lease)
            .map(|set| set.iter().copied().collect())
            .unwrap_or_default();
        Progress {
            lease,
            number: self.number,
            settled,
            inflight,
        }
    }

    /// Writes a batch, however long the database is away. A commit whose answer was lost is repeated with the
    /// same number, so that it counts once.
    async fn write(&self, batch: &[Progress]) -> Vec<Durable> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.commit_once(batch).await {
                Ok(acks) => return acks.into_iter().map(Durable::from).collect(),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "Outcomes wait for the database");
                    // The jitter keeps many workers from coming back all at once.
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                Err(error) => return self.write_one_by_one(batch, &error).await,
            }
        }
    }

    /// A database that neither answers nor breaks the connection is one that is away.
    async fn commit_once(&self, batch: &[Progress]) -> crate::store::Result<Vec<Ack>> {
        let commit = self.store.commit_progress(batch, self.clock.now());
        tokio::time::timeout(COMMIT_MAX, commit)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("no answer to a commit".to_owned())))
    }

    /// What the store refuses must not spoil the other jobs of the group.
    async fn write_one_by_one(&self, batch: &[Progress], error: &StoreError) -> Vec<Durable> {
        if let [only] = batch {
            tracing::error!(%error, job.id = only.lease.job_id, "The store refused a job's outcomes; the job is left to be rescued");
            return vec![Durable::No];
        }
        let mut answers = Vec::with_capacity(batch.len());
        for progress in batch {
            answers.extend(Box::pin(self.write(std::slice::from_ref(progress))).await);
        }
        answers
    }
}

/// The newest epoch of each job. An older one of the same job is a lease that this very worker lost and got
/// again.
fn newest_epochs<'a>(leases: impl Iterator<Item = &'a Lease>) -> HashMap<i64, i64> {
    let mut newest = HashMap::new();
    for lease in leases {
        let epoch = newest.entry(lease.job_id).or_insert(lease.epoch);
        *epoch = lease.epoch.max(*epoch);
    }
    newest
}

impl From<Ack> for Durable {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Durable { stop } => Durable::Yes { stop },
            Ack::Fenced => Durable::No,
        }
    }
}
