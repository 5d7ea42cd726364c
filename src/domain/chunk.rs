//! Chunks: how a broadcast is cut for the queue. Never larger than one lease can answer for.

use super::address::SortKey;
use super::recipient::Recipient;

/// Recipients in a chunk. A lock per thousand messages instead of per message keeps the queue's
/// share of the database's work below one per mille, and a chunk's payload near 100 KB.
pub const CHUNK_SIZE: usize = 1_000;

/// Up to [`CHUNK_SIZE`] recipients of one broadcast in the order of their sort keys.
/// A message's ordinal is its place here.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub recipients: Vec<Recipient>,
}

impl Chunk {
    /// The sort keys of the first and the last recipient; `None` for an empty chunk.
    #[must_use]
    pub fn key_range(&self) -> Option<(SortKey, SortKey)> {
        Some((self.recipients.first()?.sort_key(), self.recipients.last()?.sort_key()))
    }
}
