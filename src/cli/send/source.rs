//! The recipients on their way from a file into the request: read on a thread of its own, a piece at a time, so that memory
//! stays flat however many there are. Never looks at what it carries: the forms are read next door.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::forms::{Copied, Fault, How, copy};
use crate::cli::exit::{Exit, Failed};
use crate::cli::terminal::{note, plural};

/// Bytes of the request that are handed on at a time: few enough to be nothing, enough to be one write.
pub(super) const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that may wait for the network before the reading waits too.
const PIECES_WAITING: usize = 4;
/// How long the reading thread has to say why it broke a request off.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Rows that are named when they were left out; the first ones tell the pattern.
const SKIPPED_SHOWN: usize = 5;

/// Who gets it, as far as the command line says it.
pub struct Audience {
    input: Option<Input>,
    how: How,
}

/// A file of recipients.
struct Input {
    name: String,
    /// The file, opened before anything else happens; `None` when it must be opened anew, or for standard input.
    first: Option<File>,
    is_stdin: bool,
    len: Option<u64>,
    read: Arc<AtomicU64>,
}

/// A request's body and the thread that fills it.
pub struct Feed {
    pub body: reqwest::Body,
    pub content_type: &'static str,
    pub reader: Reader,
}

/// The thread that reads the file.
pub struct Reader {
    name: String,
    thread: Option<JoinHandle<Result<Copied, Fault>>>,
}

impl Audience {
    /// Opens the file of recipients, if one is named.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(to: Option<&str>, how: How) -> Result<Self, Failed> {
        let Some(name) = to else {
            return Ok(Self { input: None, how });
        };
        let is_stdin = name == "-";
        let (mut first, mut len) = (None, None);
        if !is_stdin {
            let failed = |e: io::Error| Failed::usage(format!("--to {name}: {e}"));
            let file = File::open(name).map_err(failed)?;
            let about = file.metadata().map_err(failed)?;
            if about.is_dir() {
                return Err(Failed::usage(format!("--to {name}: this is a directory; name a file")));
            }
            len = about.is_file().then_some(about.len());
            first = Some(file);
        }
        let name = if is_stdin {
            "standard input".to_owned()
        } else {
            name.to_owned()
        };
        Ok(Self {
            input: Some(Input {
                name,
                first,
                is_stdin,
                len,
                read: Arc::default(),
            }),
            how,
        })
    }

    /// Bytes of the file; `None` when there is none or its length is not known.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        self.input.as_ref()?.len
    }

    /// Bytes of the file that were read.
    #[must_use]
    pub fn read_so_far(&self) -> u64 {
        self.input
            .as_ref()
            .map_or(0, |input| input.read.load(Ordering::Relaxed))
    }

    /// Whether the request can be made a second time: what came through a pipe is gone.
    #[must_use]
    pub fn can_be_read_again(&self) -> bool {
        self.input.as_ref().is_none_or(|input| input.len.is_some())
    }

    /// Whether the file turned out to be a table.
    #[must_use]
    pub fn is_table(&self) -> bool {
        self.how.is_table.load(Ordering::Relaxed)
    }

    /// The body of the request: `head`, then the recipients of the file.
    ///
    /// # Errors
    /// When the file cannot be opened again.
    pub fn feed(&mut self, head: &Map<String, Value>) -> Result<Feed, Failed> {
        let head = serde_json::to_vec(head).expect("a JSON object always serialises");
        let Some(input) = &mut self.input else {
            let reader = Reader {
                name: String::new(),
                thread: None,
            };
            return Ok(Feed {
                body: head.into(),
                content_type: "application/json",
                reader,
            });
        };
        input.read.store(0, Ordering::Relaxed);
        let raw: Box<dyn Read + Send> = match (input.is_stdin, input.first.take()) {
            (true, _) => Box::new(io::stdin()),
            (false, Some(file)) => Box::new(file),
            (false, None) => {
                Box::new(File::open(&input.name).map_err(|e| Failed::usage(format!("--to {}: {e}", input.name)))?)
            }
        };
        let counted = Counted {
            inner: raw,
            read: Arc::clone(&input.read),
        };
        let (out, pieces) = mpsc::channel(PIECES_WAITING);
        let (how, name) = (self.how.clone(), input.name.clone());
        // What the form is shows in the first bytes, and the server must know it before: so everything becomes NDJSON.
        let thread = tokio::task::spawn_blocking(move || {
            let mut out = Pieces::new(out, head);
            out.line_end()?;
            let read = copy(counted, &mut out, &how);
            match &read {
                Ok(_) => out.flush()?,
                Err(_) => out.break_off(),
            }
            read
        });
        Ok(Feed {
            body: reqwest::Body::wrap_stream(ReceiverStream::new(pieces)),
            content_type: "application/x-ndjson",
            reader: Reader {
                name,
                thread: Some(thread),
            },
        })
    }
}

impl Reader {
    /// Waits for the thread and says what it left out. A request that was not taken (`is_taken`) does not wait long: the thread
    /// may be stuck in a pipe that nobody writes to.
    ///
    /// # Errors
    /// When the file was at fault: that is why the request broke off.
    pub async fn finish(self, is_taken: bool) -> Result<(), Failed> {
        let Some(thread) = self.thread else {
            return Ok(());
        };
        let patience = if is_taken { Duration::MAX } else { LAST_WORDS };
        let Ok(ended) = tokio::time::timeout(patience, thread).await else {
            return Ok(());
        };
        match ended {
            Ok(Ok(Copied { skipped, renamed })) => {
                for column in renamed {
                    note(format_args!("Templates say {{{{ {} }}}} for the column {}.", column.variable, column.name));
                }
                if !skipped.is_empty() {
                    note(format_args!("{} of {} left out:", plural(skipped.len() as i64, "row"), self.name));
                }
                skipped
                    .iter()
                    .take(SKIPPED_SHOWN)
                    .for_each(|why| note(format_args!("  {why}")));
                Ok(())
            }
            Ok(Err(Fault::Input(why))) => Err(Failed::new(Exit::Refused, format!("{}: {why}", self.name))),
            Ok(Err(Fault::NobodyReads)) => Ok(()),
            Err(e) => Err(Failed::here(format!("reading {} stopped: {e}", self.name))),
        }
    }
}

/// Collects bytes to pieces and hands them to the request.
pub(super) struct Pieces {
    out: mpsc::Sender<io::Result<Bytes>>,
    held: Vec<u8>,
}

impl Pieces {
    /// `held` goes before everything else.
    pub(super) fn new(out: mpsc::Sender<io::Result<Bytes>>, held: Vec<u8>) -> Self {
        Self { out, held }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.held.extend_from_slice(bytes);
        if self.held.len() < PIECE_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn line_end(&mut self) -> Result<(), Fault> {
        self.push(b"\n")
    }

    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        let piece = Bytes::from(std::mem::take(&mut self.held));
        self.out.blocking_send(Ok(piece)).map_err(|_| Fault::NobodyReads)
    }

    /// Breaks the request off, so that the server throws away what it has.
    fn break_off(&self) {
        // When nobody reads any more, it is broken off already.
        drop(
            self.out
                .blocking_send(Err(io::Error::other("the recipients cannot be read"))),
        );
    }
}

/// Counts the bytes that pass.
struct Counted {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
