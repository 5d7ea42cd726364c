//! One broadcast on the stage, from the request to the judgement, and somebody who looks at it all the while.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Row;
use super::client::Client;
use super::faults::Fault;
use super::oracle::{Due, Ledger, judge, odd_attempts};
use super::stage::Stage;
use crate::domain::id::BroadcastId;
use crate::domain::time::Timestamp;
use crate::store::scratch;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// A broadcast in which nothing moves for so long has come to a stop.
const STANDSTILL: Duration = Duration::from_secs(180);
/// One recipient in so many must not be mailed.
const SUPPRESSED_EACH: usize = 400;
/// So many are suppressed at once while the broadcast is on its way.
const SUPPRESSED_ON_THE_WAY: usize = 8;
/// Of so many messages in doubt the attempts are looked at.
const ATTEMPTS_LOOKED_AT: usize = 20;

/// A broadcast that is under way.
pub struct Show {
    pub id: String,
    expected: Vec<(String, Due)>,
    over: watch::Receiver<bool>,
    watcher: JoinHandle<Result<u64, String>>,
}

/// A request for a broadcast: its recipients and its body.
pub struct Request {
    pub key: String,
    pub body: String,
    pub expected: Vec<(String, Due)>,
}

impl Request {
    /// A new one, of the plan's size.
    pub fn new(stage: &mut Stage) -> Self {
        Self::to(stage, stage.plan.recipients, None)
    }

    /// A new one. No address is used twice, so that copies tell which broadcast they are of.
    pub fn to(stage: &mut Stage, n_recipients: usize, send_at: Option<Timestamp>) -> Self {
        stage.n_broadcasts += 1;
        let n = stage.n_broadcasts;
        let due = |i: usize| match i % SUPPRESSED_EACH {
            7 => Due::Nothing,
            _ => Due::Mail,
        };
        let expected: Vec<(String, Due)> = (0..n_recipients)
            .map(|i| (format!("r{i}@b{n}.d{}.example", i % 13), due(i)))
            .collect();
        let mut letter = json!({ "from": "news@example.org", "subject": "News", "text": "For {{ email }}" });
        if let Some(at) = send_at {
            letter["send_at"] = json!(at.to_string());
        }
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
        let forbidden = self.expected.iter().filter(|(_, due)| matches!(due, Due::Nothing));
        forbidden.map(|(email, _)| email.clone()).collect()
    }
}

impl Show {
    /// Asks for a broadcast and begins to look at it; what is done to the service meanwhile is the fault's business.
    ///
    /// # Errors
    /// When the API answers what it must not.
    pub async fn open(stage: &mut Stage, fault: Fault, row: &mut Row) -> Result<Self, String> {
        let request = Request::new(stage);
        stage.client.suppress(&request.suppressed()).await?;
        let id = super::faults::ask(stage, fault, &request, row).await?;
        Ok(Self::watch(stage, id, request.expected, row))
    }

    /// Looks at a broadcast that was accepted.
    pub fn watch(stage: &Stage, id: String, expected: Vec<(String, Due)>, row: &mut Row) -> Self {
        row.broadcasts += 1;
        let (tell, over) = watch::channel(false);
        let watcher = tokio::spawn(watch_over(stage.client.clone(), id.clone(), tell));
        Show {
            id,
            expected,
            over,
            watcher,
        }
    }

    /// Suppresses a few of the recipients while the broadcast is on its way. What goes to them afterwards may only come from chunks
    /// that were being sent already.
    ///
    /// # Errors
    /// When no node does it.
    pub async fn suppress_some(&mut self, stage: &mut Stage) -> Result<(), String> {
        let places: Vec<usize> = (0..SUPPRESSED_ON_THE_WAY)
            .map(|_| stage.random.usize(..self.expected.len()))
            .filter(|place| matches!(self.expected[*place].1, Due::Mail))
            .collect();
        let emails: Vec<String> = places.iter().map(|place| self.expected[*place].0.clone()).collect();
        if emails.is_empty() {
            return Ok(());
        }
        stage.client.suppress(&emails).await?;
        // Asked afterwards, so that no chunk which was claimed before is missing.
        let running = stage.client.running(&self.id).await?;
        let at = Instant::now();
        for place in places {
            self.expected[place].1 = Due::MailBefore {
                at,
                running: running.clone(),
            };
        }
        Ok(())
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
        let copies = stage
            .witness
            .copies(self.expected.iter().map(|(email, _)| email.as_str()));
        row.findings.add(&judge(&self.expected, &said, &copies));
        // On PostgreSQL the server's clock counts, which nobody turns.
        let is_clock_turned = stage.is_sqlite() && row.by_fault.contains_key(Fault::Clock.name());
        for message in said.iter().filter(|m| m.flagged).take(ATTEMPTS_LOOKED_AT) {
            if let Some(shown) = stage.client.ask(&format!("/v1/messages/{}", message.id)).await
                && let Some(odd) = odd_attempts(&shown, is_clock_turned)
            {
                row.findings.breaks(odd);
            }
        }
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
        if let Some(running) = stage
            .client
            .running(&self.id)
            .await
            .ok()
            .filter(|running| !running.is_empty())
        {
            row.findings
                .breaks(format!("jobs of a completed broadcast are still running: {running:?}"));
        }
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
