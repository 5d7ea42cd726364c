//! Renders a broadcast for each of its recipients and throws the mails away: what a dry run and the page before "Send now"
//! tell about everybody, not about the first hundred. Never holds more than a page of each source, and stops in time.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::problem::AcceptError;
use crate::domain::address::SortKey;
use crate::domain::broadcast::Audience;
use crate::domain::content::{Content, SharedData};
use crate::domain::id::BroadcastId;
use crate::domain::recipient::{self, Recipient};
use crate::store::Store;
use crate::store::fan_out::Source;
use crate::store::intake::Page;
use crate::template::{Context, Newsletter, Shared};

/// How long a dry run renders before it answers with what it has: proxies give up on an answer after a minute. One core
/// renders about a million plain newsletters in that time.
pub const DRY_RUN_MAX: Duration = Duration::from_secs(50);
/// Different problems that are told one by one: templates have few variables, so few are what is really wrong.
pub const KINDS_MAX: usize = 20;
/// Addresses that are named for each problem: enough to look one of them up.
pub const ADDRESSES_SHOWN_MAX: usize = 3;
/// Recipients rendered in one go on a thread of their own: some ten milliseconds.
const BATCH: usize = 500;
/// Stands for a recipient's own link, which no mail carries out of here.
const LINK: &str = "https://example.org/u/preview";

/// What rendering for everybody came to, or has come to so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendering {
    /// Recipients that were rendered, each address once.
    pub rendered: i64,
    /// Those of them whose mail cannot be made: they would get nothing.
    pub failed: i64,
    /// Whether everybody was rendered; `false` while it runs, and when the time was over first.
    pub is_complete: bool,
    /// The first [`KINDS_MAX`] different problems; the commonest come first.
    pub problems: Vec<RenderingProblem>,
}

/// One thing that is wrong, how often, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderingProblem {
    pub detail: String,
    pub count: i64,
    /// The first [`ADDRESSES_SHOWN_MAX`].
    pub first: Vec<String>,
}

impl Rendering {
    fn note(&mut self, found: Vec<(String, String)>, n: usize) {
        self.rendered += n as i64;
        self.failed += found.len() as i64;
        for (email, detail) in found {
            if let Some(problem) = self.problems.iter_mut().find(|p| p.detail == detail) {
                problem.count += 1;
                if problem.first.len() < ADDRESSES_SHOWN_MAX {
                    problem.first.push(email);
                }
            } else if self.problems.len() < KINDS_MAX {
                self.problems.push(RenderingProblem {
                    detail,
                    count: 1,
                    first: vec![email],
                });
            }
        }
        self.problems.sort_by_key(|p| std::cmp::Reverse(p.count));
    }
}

/// What is rendered, and for whom.
pub struct Trial {
    pub broadcast: BroadcastId,
    pub content: Content,
    pub data: SharedData,
    pub feeds: Vec<Feed>,
}

/// One stream of recipients in the order of their sort keys.
pub enum Feed {
    Stored(Source),
    /// Pages that are still in memory.
    AtHand(VecDeque<Page>),
}

impl Feed {
    /// The streams of a stored audience.
    #[must_use]
    pub fn of(audience: &Audience) -> Vec<Self> {
        match audience {
            Audience::All => vec![Feed::Stored(Source::Everyone)],
            Audience::Lists { list_ids } => list_ids
                .iter()
                .cloned()
                .map(|id| Feed::Stored(Source::List(id)))
                .collect(),
            Audience::Inline { runs } => (0..*runs).map(|run| Feed::Stored(Source::Run(run))).collect(),
        }
    }
}

/// Renders for everybody, for at most `time_max`, and keeps `found` up to date meanwhile.
///
/// # Errors
/// Of the store.
pub async fn render_all(
    store: &dyn Store,
    trial: Trial,
    time_max: Duration,
    found: &Mutex<Rendering>,
) -> Result<(), AcceptError> {
    let note = |batch: Vec<(String, String)>, n| found.lock().unwrap_or_else(PoisonError::into_inner).note(batch, n);
    let work = async {
        let newsletter = Newsletter::compile(&trial.content).map(Arc::new);
        let shared = Shared::new(&trial.broadcast, &trial.data);
        let mut merged = Merged::new(store, trial.broadcast, trial.feeds);
        loop {
            let batch = merged.next().await?;
            if batch.is_empty() {
                return Ok::<(), AcceptError>(());
            }
            let n = batch.len();
            let (newsletter, shared) = (newsletter.clone(), Arc::clone(&shared));
            let judged = tokio::task::spawn_blocking(move || match newsletter {
                Ok(newsletter) => batch.iter().filter_map(|r| judge(&newsletter, &shared, r)).collect(),
                Err(e) => batch.iter().map(|r| (r.email.to_string(), e.to_string())).collect(),
            });
            note(
                judged
                    .await
                    .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())),
                n,
            );
        }
    };
    match tokio::time::timeout(time_max, work).await {
        Ok(ended) => {
            ended?;
            found.lock().unwrap_or_else(PoisonError::into_inner).is_complete = true;
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// The address and what is wrong, when the mail cannot be made.
fn judge(newsletter: &Newsletter, shared: &Arc<Shared>, recipient: &Recipient) -> Option<(String, String)> {
    let render = || Context::new(shared, recipient, LINK).and_then(|context| newsletter.render(&context));
    let why = match catch_unwind(AssertUnwindSafe(render)) {
        Ok(Ok(_)) => return None,
        Ok(Err(e)) => e.to_string(),
        Err(_) => "rendering the message broke".to_owned(),
    };
    Some((recipient.email.to_string(), why))
}

/// All feeds as one, each address once.
struct Merged<'s> {
    store: &'s dyn Store,
    broadcast: BroadcastId,
    streams: Vec<Stream>,
    /// The last key that was given out.
    last: Option<SortKey>,
}

struct Stream {
    feed: Feed,
    waiting: VecDeque<(SortKey, Recipient)>,
    is_over: bool,
}

impl<'s> Merged<'s> {
    fn new(store: &'s dyn Store, broadcast: BroadcastId, feeds: Vec<Feed>) -> Self {
        let streams = feeds.into_iter().map(|feed| Stream {
            feed,
            waiting: VecDeque::new(),
            is_over: false,
        });
        Self {
            store,
            broadcast,
            streams: streams.collect(),
            last: None,
        }
    }

    /// The next recipients; none at the end.
    async fn next(&mut self) -> Result<Vec<Recipient>, AcceptError> {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH {
            for stream in &mut self.streams {
                stream.fill(self.store, &self.broadcast, self.last.as_ref()).await?;
            }
            let heads = self.streams.iter().enumerate();
            let first = heads
                .filter_map(|(i, s)| s.waiting.front().map(|(key, _)| (key, i)))
                .min();
            let Some((_, i)) = first else { break };
            let Some((key, recipient)) = self.streams[i].waiting.pop_front() else {
                break;
            };
            if self.last.as_ref() != Some(&key) {
                batch.push(recipient);
                self.last = Some(key);
            }
        }
        Ok(batch)
    }
}

impl Stream {
    /// Reads a page when none is at hand.
    async fn fill(&mut self, store: &dyn Store, id: &BroadcastId, last: Option<&SortKey>) -> Result<(), AcceptError> {
        if self.is_over || !self.waiting.is_empty() {
            return Ok(());
        }
        let page = match &mut self.feed {
            Feed::Stored(source) => store.source_page(id, source, last).await?,
            Feed::AtHand(pages) => pages
                .pop_front()
                .map(|page| recipient::decode(&page.payload).expect("written just now"))
                .unwrap_or_default(),
        };
        self.is_over = page.is_empty();
        self.waiting = page.into_iter().map(|r| (r.sort_key(), r)).collect();
        Ok(())
    }
}
