//! The selftest: this very program as real processes on a real database, with faults done to them from outside, and a relay that
//! knows what it took. Holds what the service says against that, during every run and after it. Never part of the service.
//!
//! `oracle` judges, `witness` is the relay, `node` a process, `proxy` and `cluster` the database's line and server,
//! `stage` puts them together, `show` is one broadcast on it, `faults` does the harm.

mod client;
mod cluster;
mod faults;
mod node;
pub mod oracle;
pub mod proxy;
mod show;
mod stage;
mod witness;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use oracle::Findings;
use show::Show;
use stage::Stage;

pub use faults::Fault;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program under test.
    pub program: PathBuf,
    pub database: Database,
    pub faults: Vec<Fault>,
    /// How often each fault is done.
    pub times: u64,
    /// No fault is begun after this, of each kind.
    pub time_max: Option<Duration>,
    pub recipients: usize,
    pub nodes: usize,
    pub connections: u16,
    /// How late each reply of the relay leaves.
    pub latency: Duration,
    pub lease_secs: u64,
    /// How long the database and the relay stay away.
    pub outage: Duration,
    pub seed: u64,
}

/// On what the nodes stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A file of its own.
    Sqlite,
    /// A database of its own on this server.
    Server(String),
    /// A PostgreSQL server of its own, made with the programs in this directory.
    Own(PathBuf),
}

/// What one kind of fault came to.
#[derive(Debug, Clone)]
pub struct Row {
    pub fault: Fault,
    /// How often it was done.
    pub n: u64,
    pub broadcasts: u64,
    /// How often the law of conservation was looked at meanwhile.
    pub looks: u64,
    pub findings: Findings,
    /// Connections open at the faults: as many copies beyond one are explained.
    pub bound: u64,
    /// From each fault, or its end, to the next message, in milliseconds.
    pub next_ms: Vec<u64>,
    /// From each death to when the dead node's jobs were somebody else's, in milliseconds.
    pub taken_over_ms: Vec<u64>,
    /// What else was measured.
    pub remarks: Vec<String>,
}

impl Row {
    fn of(fault: Fault) -> Self {
        Row {
            fault,
            n: 0,
            broadcasts: 0,
            looks: 0,
            findings: Findings::default(),
            bound: 0,
            next_ms: Vec::new(),
            taken_over_ms: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Whether every rule held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.findings.is_clean() && self.findings.extra <= self.bound && self.findings.flagged <= self.bound
    }
}

/// Does every fault of the plan and judges; each row is told as soon as it is there.
///
/// # Errors
/// What kept the test itself from being done. What the service did wrong stands in the rows.
pub async fn run(plan: &Plan, mut tell: impl FnMut(&Row)) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for (i, fault) in plan.faults.iter().enumerate() {
        let seed = plan.seed.wrapping_add(i as u64);
        let mut stage = Stage::set(plan, *fault, seed).await?;
        let row = perform(&mut stage, *fault).await;
        let row = stage.clear(row).await?;
        tell(&row);
        rows.push(row);
    }
    Ok(rows)
}

/// One kind of fault, as often as the plan says, over as many broadcasts as that takes.
async fn perform(stage: &mut Stage, fault: Fault) -> Result<Row, String> {
    let mut row = Row::of(fault);
    let started = Instant::now();
    let is_time_left = |plan: &Plan| plan.time_max.is_none_or(|max| started.elapsed() < max);
    while row.n < stage.plan.times && is_time_left(&stage.plan) {
        let mut show = Show::open(stage, &mut row).await?;
        while row.n < stage.plan.times && is_time_left(&stage.plan) {
            // Early instants meet the fan-out, later ones the delivery.
            let calm = Duration::from_millis(stage.random.u64(20..700));
            if show.is_over_within(calm).await {
                break;
            }
            faults::inject(stage, fault, &mut show, &mut row).await?;
        }
        show.close(stage, &mut row).await?;
    }
    faults::take_stock(stage, &mut row).await;
    Ok(row)
}
