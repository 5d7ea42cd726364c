//! Takes send requests in: reads a body of any length, checks everything that can be known now, and makes the
//! broadcast durable. Never answers before that, renders mails for dry runs only, never waits for one to be sent.
//!
//! How memory stays flat while a million recipients stream in:
//!
//! ```text
//!  socket ─▶ unpack, hash, parse, check, sort      ─▶ at most one run ─▶ stage_run ─▶ … ─▶ accept
//!            (a blocking thread; waits when the       of 20,000            (this task)     (one transaction)
//!             run before is not yet stored)           recipients
//! ```
//!
//! A body that fits one run is staged only when all of it was found right, so that a small wrong request never
//! touches the database. A larger one that turns out wrong, or whose client goes away, is discarded; a process
//! that dies in between leaves pages that nobody refers to, which the sweep removes.

mod aside;
mod body;
mod collect;
mod contacts;
mod draft;
mod exact;
mod fields;
mod files;
mod given;
mod head;
mod json;
mod keys;
mod lines;
mod order;
mod problem;
mod read;
mod relay;
mod rendering;
mod run;
mod safety;
mod staged;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod wording;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncRead;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use self::body::{GZIP_RATIO_MAX, VALUE_BYTES_MAX};
pub use self::collect::REJECTIONS_SHOWN_MAX;
pub use self::contacts::Imported;
pub use self::draft::{accept_draft, check_draft, start_run_now};
pub use self::given::Rejection;
pub use self::head::{Head, HeadFault, read_head};
pub use self::keys::{IdempotencyKey, KEY_CHARS_MAX};
pub use self::order::KNOWN;
pub use self::problem::{AcceptError, FieldProblem, PROBLEMS_SHOWN_MAX, member, quoted};
pub use self::read::{Format, HEAD_BYTES_MAX};
pub use self::rendering::{Feed, Rendering, RenderingProblem, Trial, render_all};
pub use self::safety::{read_auto_pause, read_canary};
pub use self::table::{Charset, Column, Columns, Options as TableOptions, Row, RowFault, Table, TableFault};
pub use self::values::{check_tags, read_mailbox};
pub use self::wording::{check as check_wording, in_words as template_problem};

use self::aside::Aside;
use self::keys::InFlight;
use self::order::{Order, Wanted, Wording};
use self::read::{Reading, Shape};
use self::run::Run;
use self::staged::Staged;
use crate::clock::Clock;
use crate::domain::broadcast::{Audience, BroadcastStatus, NewBroadcast};
use crate::domain::content::{Content, Letter};
use crate::domain::id::BroadcastId;
use crate::domain::time::Timestamp;
use crate::store::Store;
use crate::store::intake::Replay;

/// Bodies that are read at the same time. Each has a thread while it streams, and a few runs in memory.
pub const INTAKES_MAX: usize = 64;

const RECIPIENTS: Shape = Shape {
    array: "recipients",
    has_head_line: true,
    limit: run::RUN_LIMIT,
};

/// One send request, but for its body.
#[derive(Debug)]
pub struct Request {
    /// The id that the broadcast will have.
    pub id: BroadcastId,
    pub format: Format,
    pub is_gzip: bool,
    /// What is said about the bytes of a CSV body.
    pub charset: Option<Charset>,
    /// Fields that came beside the body, as CSV bodies need; they win over the body's.
    pub head: Head,
    pub key: Option<IdempotencyKey>,
    /// Writes the body of the answer, which is stored with the broadcast and repeated to a retry.
    pub answer: fn(&Receipt) -> String,
}

/// What was taken in.
#[derive(Debug)]
pub struct Receipt {
    pub id: BroadcastId,
    pub status: BroadcastStatus,
    pub created_at: Timestamp,
    /// Recipients that came with the request, or for a dry run the subscribed contacts that are meant. `None`
    /// when a stored audience is counted later, by the fan-out.
    pub received: Option<i64>,
    pub rejected: i64,
    /// The first [`REJECTIONS_SHOWN_MAX`].
    pub rejections: Vec<Rejection>,
    /// The columns of a CSV body, and how a template says them.
    pub columns: Vec<Column>,
    /// For a dry run: what rendering for everybody came to.
    pub rendering: Option<Rendering>,
}

/// How a request ended well.
#[derive(Debug)]
pub enum Taken {
    /// Durable now.
    Accepted { id: String, answer: String },
    /// The same request was answered before; nothing was stored this time.
    Replayed { id: String, answer: String },
    /// A dry run: everything is right, nothing was stored.
    Checked(Receipt),
}

/// Takes requests in; one for each process.
pub struct Acceptor {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    in_flight: InFlight,
    room: Semaphore,
    body_bytes_max: u64,
}

impl Acceptor {
    /// `body_bytes_max` bounds every body, unpacked.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, body_bytes_max: u64) -> Self {
        Self {
            store,
            clock,
            in_flight: InFlight::default(),
            room: Semaphore::new(INTAKES_MAX),
            body_bytes_max,
        }
    }

    /// Reads, checks and stores one request. When it answers [`Taken::Accepted`], the broadcast is durable.
    /// Dropping the future leaves nothing behind, unless the broadcast is being committed: that is finished.
    ///
    /// # Errors
    /// See [`AcceptError`]; nothing of the request is stored.
    pub async fn accept(
        &self,
        request: Request,
        body: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Taken, AcceptError> {
        let _room = self.room()?;
        let entered = match &request.key {
            Some(key) => Some(self.in_flight.enter(key).ok_or(AcceptError::KeyInFlight)?),
            None => None,
        };
        if let Some(key) = &request.key
            && let Some(earlier) = self.store.find_replay(&key.owner, &key.key).await?
        {
            let reading = Reading {
                hash_only: true,
                ..self.reading(request.format, request.is_gzip, TableOptions::default(), request.head)
            };
            let parsed = Aside::start(body, reading, RECIPIENTS, run::cut).finish().await?;
            return same_or_reused(&parsed.hash, earlier);
        }
        let mut staged = Staged::new(Arc::clone(&self.store), request.id.clone());
        let checked = match self.check(&request, body, &mut staged).await {
            Ok(checked) if !checked.dry_run => checked,
            Ok(checked) => {
                let rendered = self.render(checked, staged.runs()).await;
                staged.discard().await;
                return rendered.map(Taken::Checked);
            }
            Err(e) => {
                staged.discard().await;
                return Err(e);
            }
        };
        let answer = (request.answer)(&checked.receipt);
        // On a task of its own: once begun, a commit must come to its end although the client has gone, or else
        // the recipients of a durable broadcast would be discarded.
        let task = tokio::spawn(async move {
            let _entered = entered;
            staged.commit(checked, request.key, answer).await
        });
        task.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// Reads the body to its end, staging full runs, and checks everything.
    async fn check(
        &self,
        request: &Request,
        body: impl AsyncRead + Send + Unpin + 'static,
        staged: &mut Staged,
    ) -> Result<Checked, AcceptError> {
        let table = TableOptions {
            charset: request.charset,
            may_be_headless: false,
        };
        let reading = self.reading(request.format, request.is_gzip, table, request.head.clone());
        let mut aside = Aside::start(body, reading, RECIPIENTS, run::cut);
        while let Some(run) = aside.next().await {
            staged.stage(&run, self.clock.now()).await?;
        }
        let parsed = aside.finish().await?;
        let now = self.clock.now();
        let is_permissive = order::is_permissive(&parsed.head);
        let has_recipients = parsed.has_array || parsed.tally.received > 0;
        let mut problems = Vec::new();
        let order = Order::check(parsed.head, has_recipients, now)
            .map_err(|found| problems = found)
            .ok();
        let content = match &order {
            Some(order) => self.look_up(order).await?.map_err(|found| problems.push(found)).ok(),
            None => None,
        };
        let tally = parsed.tally;
        let nobody_left = has_recipients && tally.received == tally.rejected;
        let mut total = problems.len() as i64;
        if !is_permissive || nobody_left {
            total += tally.rejected;
            problems.extend(tally.problems());
        }
        if has_recipients && tally.received == 0 {
            total += 1;
            problems.push(FieldProblem::new(
                "#/recipients",
                "required",
                "there is not a single recipient; name at least one",
            ));
        }
        problems.truncate(PROBLEMS_SHOWN_MAX);
        let (Some(order), Some(content), true) = (order, content, problems.is_empty()) else {
            return Err(AcceptError::Invalid { problems, total });
        };
        let dry_run = order.dry_run;
        let received = match &order.wanted {
            Wanted::Recipients => Some(tally.received),
            Wanted::Lists(ids) if dry_run => Some(self.store.count_subscribed(Some(ids)).await?),
            Wanted::All if dry_run => Some(self.store.count_subscribed(None).await?),
            Wanted::Lists(_) | Wanted::All => None,
        };
        let receipt = Receipt {
            id: request.id.clone(),
            status: if order.send_at.is_some() {
                BroadcastStatus::Scheduled
            } else {
                BroadcastStatus::Accepted
            },
            created_at: now,
            received,
            rejected: tally.rejected,
            rejections: tally.rejections,
            columns: parsed.columns,
            rendering: None,
        };
        let broadcast = to_broadcast(&receipt, order, content);
        Ok(Checked {
            receipt,
            broadcast,
            dry_run,
            last_run: parsed.last_batch,
            hash: parsed.hash,
            now,
        })
    }

    /// Renders a dry run for each of its recipients.
    async fn render(&self, checked: Checked, runs: i64) -> Result<Receipt, AcceptError> {
        let NewBroadcast {
            id, letter, audience, ..
        } = checked.broadcast;
        let audience = match audience {
            Audience::Inline { .. } => Audience::Inline { runs },
            stored => stored,
        };
        let mut feeds = Feed::of(&audience);
        feeds.extend(checked.last_run.map(|run| Feed::AtHand(run.pages.into())));
        let trial = Trial {
            broadcast: id,
            content: letter.content,
            data: letter.data,
            feeds,
        };
        let found = Mutex::default();
        render_all(&*self.store, trial, rendering::DRY_RUN_MAX, &found).await?;
        let rendering = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Receipt {
            rendering: Some(rendering),
            ..checked.receipt
        })
    }

    /// What only the store knows: the template's content, and whether the lists and the relay exist. Compiles the wording.
    async fn look_up(&self, order: &Order) -> Result<Result<Content, FieldProblem>, AcceptError> {
        if let Wanted::Lists(ids) = &order.wanted {
            for (i, id) in ids.iter().enumerate() {
                if self.store.list(id).await?.is_none() {
                    let detail = format!("there is no list {id}");
                    return Ok(Err(FieldProblem::new(format!("#/list_ids/{i}"), "not_found", detail)));
                }
            }
        }
        if let Some(name) = &order.relay
            && let Err(found) = relay::check(&*self.store, name).await?
        {
            return Ok(Err(found));
        }
        match &order.wording {
            Wording::Inline(content) => Ok(wording::check(content).map(|()| content.clone())),
            Wording::Template(id) => match self.store.template(id).await? {
                None => Ok(Err(FieldProblem::new("#/template_id", "not_found", format!("there is no template {id}")))),
                Some(template) => Ok(wording::check(&template.content)
                    .map(|()| template.content)
                    .map_err(|p| FieldProblem {
                        pointer: "#/template_id".to_owned(),
                        ..p
                    })),
            },
        }
    }

    fn room(&self) -> Result<SemaphorePermit<'_>, AcceptError> {
        self.room.try_acquire().map_err(|_| AcceptError::Busy)
    }

    fn reading(&self, format: Format, is_gzip: bool, table: TableOptions, head: Head) -> Reading {
        Reading {
            format,
            is_gzip,
            table,
            head,
            bytes_max: self.body_bytes_max,
            hash_only: false,
        }
    }
}

/// A request that is right and can be stored.
struct Checked {
    receipt: Receipt,
    broadcast: NewBroadcast,
    dry_run: bool,
    /// Recipients that are not staged yet.
    last_run: Option<Run>,
    /// SHA-256 of the request, in hex.
    hash: String,
    now: Timestamp,
}

fn to_broadcast(receipt: &Receipt, order: Order, content: Content) -> NewBroadcast {
    let (audience, received) = match order.wanted {
        Wanted::Recipients => (Audience::Inline { runs: 0 }, receipt.received.unwrap_or_default()),
        Wanted::Lists(list_ids) => (Audience::Lists { list_ids }, 0),
        Wanted::All => (Audience::All, 0),
    };
    NewBroadcast {
        id: receipt.id.clone(),
        letter: Letter {
            from: order.from,
            reply_to: order.reply_to,
            content,
            headers: order.headers,
            attachments: order.attachments,
            data: order.data,
        },
        audience,
        template_id: match order.wording {
            Wording::Template(id) => Some(id),
            Wording::Inline(_) => None,
        },
        campaign: None,
        send_at: order.send_at,
        expires_at: order.expires_at,
        on_uncertain: order.on_uncertain,
        priority: order.priority,
        relay: order.relay,
        tags: order.tags,
        metadata: order.metadata,
        received,
        rejected: receipt.rejected,
        // Counted when the last run is staged.
        duplicates: 0,
        safety: order.safety,
    }
}

/// The answer to a request whose key was used before.
fn same_or_reused(hash: &str, earlier: Replay) -> Result<Taken, AcceptError> {
    match earlier.body_hash == hash {
        true => Ok(Taken::Replayed {
            id: earlier.broadcast_id,
            answer: earlier.answer,
        }),
        false => Err(AcceptError::KeyReused),
    }
}
