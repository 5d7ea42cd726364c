//! Replies on their way to the client, each leaving a fixed time after it was ready. Never reorders.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A batch of replies, and the ground truth that holds once they have left.
#[derive(Default)]
pub(super) struct Batch {
    pub replies: Vec<u8>,
    pub truth_after: Vec<u8>,
}

/// A line with a length: what goes in comes out `latency` later.
pub(super) struct Outbox {
    latency: Duration,
    queue: VecDeque<(Instant, Batch)>,
}

impl Outbox {
    pub fn new(latency: Duration) -> Self {
        Self {
            latency,
            queue: VecDeque::new(),
        }
    }

    pub fn is_instant(&self) -> bool {
        self.latency.is_zero()
    }

    pub fn push(&mut self, batch: Batch) {
        self.queue.push_back((Instant::now() + self.latency, batch));
    }

    /// When the next batch leaves.
    pub fn due(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }

    pub fn pop(&mut self) -> Option<Batch> {
        self.queue.pop_front().map(|(_, batch)| batch)
    }
}
