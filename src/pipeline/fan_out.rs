//! Stage 2, fan-out: a broadcast's audience → chunks of 1,000. Never holds the audience in memory, never skips or
//! repeats a recipient, wherever it is killed.
//!
//! Every source (a staged run, a list, all contacts) is a stream in the order of sort keys. Merging them
//! gives each address once, with the domains mixed, and the key of the last recipient in a chunk is
//! the cursor: a fan-out that starts again asks every source for what comes after it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::clock::Clock;
use crate::domain::address::SortKey;
use crate::domain::chunk::{CHUNK_SIZE, Chunk};
use crate::domain::id::BroadcastId;
use crate::domain::job::{Claimed, JobEnd, Stop};
use crate::domain::recipient::Recipient;
use crate::store::fan_out::{FanOutStep, Source};
use crate::store::{Result, Store};

/// Runs a claimed fan-out from where it stands to its end, or until an operator or `stop_asked` wants it
/// stopped; then the job is given back and goes on from its cursor another time.
///
/// # Errors
/// `LeaseLost` when others have taken the job; what was written stays and is whole.
pub async fn fan_out(store: &dyn Store, clock: &dyn Clock, job: &Claimed, stop_asked: impl Fn() -> bool) -> Result<()> {
    if job.stop.is_some() {
        return store.finish(job.lease, JobEnd::Stopped, clock.now()).await;
    }
    let id = &job.broadcast_id;
    let sources = store.sources(id).await?;
    let is_stored = sources.iter().all(|s| !matches!(s, Source::Run(_)));
    let mut merge = Merge::open(store, id, sources, job.cursor.clone()).await?;
    let mut seq = store.next_seq(id).await?;
    let mut canary_left = usize::try_from(store.canary_left(id).await?).unwrap_or(0);
    loop {
        // The canary ends with a chunk: what stands in one is sent together.
        let is_canary = canary_left > 0;
        let size = if is_canary {
            CHUNK_SIZE.min(canary_left)
        } else {
            CHUNK_SIZE
        };
        let batch = merge.next_chunk(size).await?;
        canary_left -= batch.recipients.len().min(canary_left);
        // What came with the request was counted when it was received.
        let received = if is_stored { batch.taken } else { 0 };
        let Some(cursor) = batch.recipients.last().map(Recipient::sort_key) else {
            return store
                .finish_fan_out(job.lease, received, batch.duplicates, clock.now())
                .await;
        };
        let suppressed = suppressed(store, &batch.recipients).await?;
        let chunk = Chunk {
            recipients: batch.recipients,
        };
        let step = FanOutStep {
            seq,
            chunk,
            suppressed,
            received,
            duplicates: batch.duplicates,
            cursor,
            is_canary,
        };
        let wish = store.fan_out_next(job.lease, &step, clock.now()).await?;
        match wish {
            Some(Stop::Hold | Stop::Cancel) => return store.finish(job.lease, JobEnd::Stopped, clock.now()).await,
            None if stop_asked() => return store.finish(job.lease, JobEnd::Released, clock.now()).await,
            None => seq += 1,
        }
    }
}

/// The places in the chunk of addresses that must not be mailed.
async fn suppressed(store: &dyn Store, recipients: &[Recipient]) -> Result<Vec<u16>> {
    let addresses: Vec<String> = recipients.iter().map(|r| r.email.normalised()).collect();
    let found = store.suppressed_among(&addresses).await?;
    Ok((0u16..)
        .zip(&addresses)
        .filter(|(_, a)| found.contains(*a))
        .map(|(place, _)| place)
        .collect())
}

/// What a merge hands out at a time.
struct Batch {
    recipients: Vec<Recipient>,
    /// Recipients consumed for it, repeats included.
    taken: i64,
    /// Repeats dropped on the way.
    duplicates: i64,
}

/// A merge of ordered sources. Holds one page of each.
struct Merge<'a> {
    store: &'a dyn Store,
    id: &'a BroadcastId,
    sources: Vec<Stream>,
    /// The next key of every source that has one, smallest first.
    heads: BinaryHeap<Reverse<(SortKey, usize)>>,
}

struct Stream {
    source: Source,
    page: VecDeque<(SortKey, Recipient)>,
}

impl<'a> Merge<'a> {
    async fn open(
        store: &'a dyn Store,
        id: &'a BroadcastId,
        sources: Vec<Source>,
        cursor: Option<SortKey>,
    ) -> Result<Self> {
        let mut merge = Merge {
            store,
            id,
            sources: Vec::new(),
            heads: BinaryHeap::new(),
        };
        for source in sources {
            merge.sources.push(Stream {
                source,
                page: VecDeque::new(),
            });
            merge.turn_page(merge.sources.len() - 1, cursor.as_ref()).await?;
        }
        Ok(merge)
    }

    /// The next `size` recipients; fewer at the end, none behind it.
    async fn next_chunk(&mut self, size: usize) -> Result<Batch> {
        let mut batch = Batch {
            recipients: Vec::with_capacity(size),
            taken: 0,
            duplicates: 0,
        };
        let mut last: Option<SortKey> = None;
        // A full chunk still takes the repeats of its last recipient: the cursor passes over them, and a
        // repeat that nobody counted would look like a recipient that is still to come.
        while let Some(Reverse((key, _))) = self.heads.peek()
            && (batch.recipients.len() < size || Some(key) == last.as_ref())
        {
            let Some((key, recipient)) = self.pop().await? else {
                break;
            };
            batch.taken += 1;
            if last.as_ref() == Some(&key) {
                batch.duplicates += 1;
            } else {
                batch.recipients.push(recipient);
                last = Some(key);
            }
        }
        Ok(batch)
    }

    async fn pop(&mut self) -> Result<Option<(SortKey, Recipient)>> {
        let Some(Reverse((_, place))) = self.heads.pop() else {
            return Ok(None);
        };
        let taken = self.sources[place].page.pop_front();
        match self.sources[place].page.front() {
            Some((key, _)) => self.heads.push(Reverse((key.clone(), place))),
            None => {
                let after = taken.as_ref().map(|(key, _)| key.clone());
                self.turn_page(place, after.as_ref()).await?;
            }
        }
        Ok(taken)
    }

    async fn turn_page(&mut self, place: usize, after: Option<&SortKey>) -> Result<()> {
        let stream = &mut self.sources[place];
        let page = self.store.source_page(self.id, &stream.source, after).await?;
        stream.page = page.into_iter().map(|r| (r.sort_key(), r)).collect();
        if let Some((key, _)) = stream.page.front() {
            self.heads.push(Reverse((key.clone(), place)));
        }
        Ok(())
    }
}
