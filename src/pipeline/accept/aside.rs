//! A body that is read on a blocking thread while this task stores what the thread found. Never lets the thread run
//! ahead by more than one batch: it waits until the batch before is taken.

use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::io::SyncIoBridge;

use super::problem::AcceptError;
use super::read::{self, Parsed, Reading, Shape};
use crate::domain::recipient::Recipient;

/// The thread's two ends: the batches, and how it came to its end. When this is dropped the thread finds nobody
/// listening and stops.
pub(super) struct Aside<T> {
    batches: mpsc::Receiver<T>,
    reader: JoinHandle<Result<Parsed<T>, AcceptError>>,
}

impl<T: Send + 'static> Aside<T> {
    /// Begins to read. `make` shapes each batch on the thread.
    pub fn start(
        body: impl AsyncRead + Send + Unpin + 'static,
        reading: Reading,
        shape: Shape,
        make: fn(Vec<Recipient>) -> T,
    ) -> Self {
        let (out, batches) = mpsc::channel(1);
        let raw = SyncIoBridge::new(body);
        let reader = tokio::task::spawn_blocking(move || read::read(raw, reading, shape, make, out));
        Self { batches, reader }
    }

    /// The next full batch. `None` when there is no other: what is left comes with [`Aside::finish`].
    pub async fn next(&mut self) -> Option<T> {
        self.batches.recv().await
    }

    /// Waits for the end of the body.
    pub async fn finish(self) -> Result<Parsed<T>, AcceptError> {
        self.reader
            .await
            .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }
}
