//! One broadcast on the stage, from the request to the judgement, and somebody who looks at it all the while.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Row;
use super::client::Client;
use super::oracle::{Ledger, judge};
use super::stage::Stage;
use crate::domain::id::BroadcastId;
use crate::store::scratch;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// A broadcast in which nothing moves for so long has come to a stop.
const STANDSTILL: Duration = Duration::from_secs(180);
/// One recipient in so many must not be mailed.
const SUPPRESSED_EACH: usize = 400;

/// A broadcast that is under way.
pub struct Show {
    pub id: String,
    expected: Vec<(String, bool)>,
    over: watch::Receiver<bool>,
    watcher: JoinHandle<Result<u64, String>>,
}

/// A request for a broadcast: its recipients and its body.
pub struct Request {
    pub key: String,
    pub body: String,
    pub expected: Vec<(String, bool)>,
}

impl Request {
    /// A new one. No address is used twice, so that copies tell which broadcast they are of.
    pub fn new(stage: &mut Stage) -> Self {
        stage.n_broadcasts += 1;
        let n = stage.n_broadcasts;
        let expected: Vec<(String, bool)> = (0..stage.plan.recipients)
            .map(|i| (format!("r{i}@b{n}.d{}.example", i % 13), i % SUPPRESSED_EACH != 7))
            .collect();
        let letter = json!({ "from": "news@example.org", "subject": "News", "text": "For {{ email }}" });
        let mut body = format!("{letter}\n");
        for (email, _) in &expected {
            body.push_str(&format!("{{\"email\":\"{email}\"}}\n"));
        }
        Request {
            key: format!("selftest-{n}-{:x}", stage.random.u64(..)),
            body,
            expected,
        }
    }

    pub fn suppressed(&self) -> Vec<String> {
        let forbidden = self.expected.iter().filter(|(_, may_be_mailed)| !may_be_mailed);
        forbidden.map(|(email, _)| email.clone()).collect()
    }
}

impl Show {
    /// Asks for a broadcast and begins to look at it.
    ///
    /// # Errors
    /// When the API answers what it must not.
    pub async fn open(stage: &mut Stage, row: &mut Row) -> Result<Self, String> {
        let request = Request::new(stage);
        stage.client.suppress(&request.suppressed()).await?;
        let id = super::faults::ask(stage, &request, row).await?;
        row.broadcasts += 1;
        let (tell, over) = watch::channel(false);
        let watcher = tokio::spawn(watch_over(stage.client.clone(), id.clone(), tell));
        Ok(Show {
            id,
            expected: request.expected,
            over,
            watcher,
        })
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits so long; `true` as soon as the broadcast is over.
    pub async fn is_over_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.over.wait_for(|over| *over))
            .await
            .is_ok()
    }

    /// Waits for the end and judges.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn close(self, stage: &mut Stage, row: &mut Row) -> Result<(), String> {
        match self.watcher.await.map_err(|e| e.to_string())? {
            Ok(looks) => row.looks += looks,
            Err(what) => row.findings.breaks(what),
        }
        let said = stage.client.messages(&self.id).await?;
        row.findings.add(&judge(&self.expected, &said, &stage.witness.copies()));
        // The rows themselves, counted again past the nodes: a stale write that was applied would show here.
        let store = crate::store::open(&stage.url).await.map_err(|e| e.to_string())?;
        let id: BroadcastId = self.id.parse()?;
        let recount = store.recount(&id).await.map_err(|e| e.to_string())?;
        let shown = store.broadcast(&id).await.map_err(|e| e.to_string())?;
        if shown.as_ref().map(|b| b.counts) != Some(recount) {
            row.findings
                .breaks(format!("the counters say {:?}, the rows {recount:?}", shown.map(|b| b.counts)));
        }
        drop(store);
        for what in scratch::damage(&stage.url).await.map_err(|e| e.to_string())? {
            row.findings.breaks(format!("the database is damaged: {what}"));
        }
        Ok(())
    }
}

/// Looks until the broadcast is over. Silence is no fault: nodes are down at times.
async fn watch_over(client: Client, id: String, tell: watch::Sender<bool>) -> Result<u64, String> {
    let mut ledger = Ledger::default();
    let (mut before, mut moved) = (String::new(), Instant::now());
    loop {
        if let Some(shown) = client.ask(&format!("/v1/broadcasts/{id}")).await {
            if let Err(what) = ledger.look(&shown) {
                tell.send_replace(true);
                return Err(what);
            }
            if shown["status"] == "completed" {
                tell.send_replace(true);
                return Ok(ledger.looks);
            }
            let now = shown["counts"].to_string();
            if now != before {
                (before, moved) = (now, Instant::now());
            }
        }
        if moved.elapsed() > STANDSTILL {
            tell.send_replace(true);
            let jobs = client.ask("/v1/jobs?limit=5").await.unwrap_or_default();
            return Err(format!("nothing moves any more at {before}; jobs: {jobs}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}
