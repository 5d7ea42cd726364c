//! Gathers recipients as they are parsed, and hands them on in batches of bounded size. Never holds more
//! than one batch, and waits when nobody takes it: that is what keeps memory flat.

use tokio::sync::mpsc;

use super::given::{Place, Rejection};
use super::problem::{FieldProblem, PROBLEMS_SHOWN_MAX};
use crate::domain::recipient::Recipient;

/// Rejected recipients that are listed one by one; the others are only counted.
pub const REJECTIONS_SHOWN_MAX: usize = 100;
/// What a recipient takes in memory beside its texts: the struct, its sort key, three allocations.
const RECIPIENT_OVERHEAD_BYTES: usize = 160;

/// How large a batch may grow.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimit {
    pub recipients: usize,
    pub bytes: usize,
}

/// What came in so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub received: i64,
    pub rejected: i64,
    /// The first [`REJECTIONS_SHOWN_MAX`].
    pub rejections: Vec<Rejection>,
}

impl Tally {
    /// The first problems of the rejected recipients.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let all = self.rejections.iter().flat_map(|r| r.problems.iter().cloned());
        all.take(PROBLEMS_SHOWN_MAX).collect()
    }
}

/// The receiving side has gone away: nobody wants the rest.
#[derive(Debug)]
pub(super) struct NobodyListens;

/// Collects recipients into batches and shapes each batch on this thread before it is handed on.
pub(super) struct Collector<T> {
    array: &'static str,
    limit: BatchLimit,
    shape: fn(Vec<Recipient>) -> T,
    out: mpsc::Sender<T>,
    batch: Vec<Recipient>,
    batch_bytes: usize,
    tally: Tally,
}

impl<T> Collector<T> {
    pub fn new(array: &'static str, limit: BatchLimit, shape: fn(Vec<Recipient>) -> T, out: mpsc::Sender<T>) -> Self {
        Self {
            array,
            limit,
            shape,
            out,
            batch: Vec::new(),
            batch_bytes: 0,
            tally: Tally::default(),
        }
    }

    /// The name under which the recipients stand in a JSON body.
    pub fn array(&self) -> &'static str {
        self.array
    }

    /// Where the next recipient stands.
    pub fn next_place(&self, line: Option<u64>) -> Place {
        Place {
            array: self.array,
            index: self.tally.received,
            line,
        }
    }

    /// Takes the next recipient. Blocks while the batch before is still being stored.
    pub fn take(&mut self, given: Result<Recipient, Rejection>) -> Result<(), NobodyListens> {
        self.tally.received += 1;
        match given {
            Ok(recipient) => self.keep(recipient),
            Err(rejection) => {
                self.tally.rejected += 1;
                if self.tally.rejections.len() < REJECTIONS_SHOWN_MAX {
                    self.tally.rejections.push(rejection);
                }
                Ok(())
            }
        }
    }

    /// The last batch, which may be empty, and the tally.
    pub fn finish(self) -> (Option<T>, Tally) {
        let last = (!self.batch.is_empty()).then(|| (self.shape)(self.batch));
        (last, self.tally)
    }

    fn keep(&mut self, recipient: Recipient) -> Result<(), NobodyListens> {
        let name_bytes = recipient.name.as_deref().map_or(0, str::len);
        let data_bytes = recipient.data.as_deref().map_or(0, |d| d.get().len());
        let bytes = RECIPIENT_OVERHEAD_BYTES + 2 * recipient.email.as_str().len() + name_bytes + data_bytes;
        if self.batch.len() >= self.limit.recipients || self.batch_bytes + bytes > self.limit.bytes {
            let full = std::mem::take(&mut self.batch);
            self.batch_bytes = 0;
            self.out.blocking_send((self.shape)(full)).map_err(|_| NobodyListens)?;
        }
        self.batch_bytes += bytes;
        self.batch.push(recipient);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::address::EmailAddress;

    fn recipient(n: usize) -> Recipient {
        let email = EmailAddress::parse(&format!("r{n}@example.org")).unwrap();
        Recipient {
            email,
            name: None,
            data: None,
        }
    }

    #[test]
    fn a_batch_goes_out_when_the_next_recipient_would_not_fit() {
        let (out, mut got) = mpsc::channel(10);
        let limit = BatchLimit {
            recipients: 3,
            bytes: 1_000_000,
        };
        let mut collector = Collector::new("recipients", limit, |batch| batch.len(), out);
        for n in 0..7 {
            collector.take(Ok(recipient(n))).unwrap();
        }
        let (last, tally) = collector.finish();
        assert_eq!((got.try_recv().ok(), got.try_recv().ok(), got.try_recv().ok()), (Some(3), Some(3), None));
        assert_eq!((last, tally.received, tally.rejected), (Some(1), 7, 0));
    }

    #[test]
    fn rejected_recipients_are_counted_and_the_first_are_listed() {
        let (out, _got) = mpsc::channel(1);
        let mut collector = Collector::new(
            "recipients",
            BatchLimit {
                recipients: 3,
                bytes: 1_000,
            },
            |batch| batch.len(),
            out,
        );
        for _ in 0..REJECTIONS_SHOWN_MAX + 5 {
            let place = collector.next_place(None);
            let rejection = place.reject(place.problem("email", "invalid_address", "no @"));
            collector.take(Err(rejection)).unwrap();
        }
        let (last, tally) = collector.finish();
        assert_eq!(last, None);
        assert_eq!((tally.rejected, tally.rejections.len()), (105, REJECTIONS_SHOWN_MAX));
        assert_eq!(tally.problems().len(), PROBLEMS_SHOWN_MAX);
        assert_eq!(tally.rejections[7].problems[0].pointer, "#/recipients/7/email");
    }

    #[test]
    fn nobody_listening_ends_the_collection() {
        let (out, got) = mpsc::channel(1);
        drop(got);
        let mut collector = Collector::new(
            "recipients",
            BatchLimit {
                recipients: 1,
                bytes: 1_000,
            },
            |batch| batch.len(),
            out,
        );
        collector.take(Ok(recipient(0))).unwrap();
        assert!(collector.take(Ok(recipient(1))).is_err());
    }
}
