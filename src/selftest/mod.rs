//! The selftest: this very program as real processes on a real database, with faults done to them from outside, and a relay that
//! knows what it took. Holds what the service says against that, during every run and after it. Never part of the service.
//!
//! `oracle` judges, `row` sums up, `witness` is the relay, `node` a process, `proxy` and `cluster` the database's line and server,
//! `stage` puts them together, `show` is one broadcast on it, `faults` does the harm.

mod client;
mod cluster;
mod faults;
mod node;
pub mod oracle;
pub mod proxy;
mod row;
mod show;
mod stage;
mod witness;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use show::Show;
use stage::Stage;

pub use faults::Fault;
pub use row::{Claim, Row};

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program under test.
    pub program: PathBuf,
    pub database: Database,
    pub faults: Vec<Fault>,
    pub length: Length,
    /// Times are told and not held against the program.
    pub is_untimed: bool,
    pub recipients: usize,
    pub nodes: usize,
    pub connections: u16,
    /// The relay's limit, for all nodes together.
    pub rate_per_sec: Option<u64>,
    /// How late each reply of the relay leaves.
    pub latency: Duration,
    pub lease_secs: u64,
    /// How long the database and the relay stay away.
    pub outage: Duration,
    pub seed: u64,
}

/// How long it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Each fault so often, one kind after the other.
    Times(u64),
    /// A mixture of them for so long.
    Minutes(u64),
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

/// Does every fault of the plan, or a mixture of them, and judges; each row is told as soon as it is there.
///
/// # Errors
/// What kept the test itself from being done. What the service did wrong stands in the rows.
pub async fn run(plan: &Plan, mut tell: impl FnMut(&Row)) -> Result<Vec<Row>, String> {
    let runs: Vec<&[Fault]> = match plan.length {
        Length::Times(_) => plan.faults.chunks(1).collect(),
        Length::Minutes(_) => vec![&plan.faults],
    };
    let mut rows = Vec::new();
    for (i, faults) in runs.into_iter().enumerate() {
        let seed = plan.seed.wrapping_add(i as u64);
        let mut stage = Stage::set(plan, faults, seed).await?;
        let row = perform(&mut stage, faults).await;
        let row = stage.clear(row).await?;
        tell(&row);
        rows.push(row);
    }
    Ok(rows)
}

/// One kind of fault, or some of them by lot, as often or as long as the plan says, over as many broadcasts as that takes.
async fn perform(stage: &mut Stage, faults: &[Fault]) -> Result<Row, String> {
    let mut row = Row {
        title: match faults {
            [only] => only.name().to_owned(),
            _ => "mixture".to_owned(),
        },
        is_server: !stage.is_sqlite(),
        is_untimed: stage.plan.is_untimed,
        ..Row::default()
    };
    let started = Instant::now();
    let is_over = |row: &Row, plan: &Plan| match plan.length {
        Length::Times(times) => row.n() >= times,
        Length::Minutes(minutes) => started.elapsed() >= Duration::from_secs(minutes * 60),
    };
    let mut by_lot = fastrand::Rng::with_seed(stage.random.u64(..));
    let mut any = move || faults[by_lot.usize(..faults.len())];
    while !is_over(&row, &stage.plan) {
        let mut show = Show::open(stage, any(), &mut row).await?;
        while !is_over(&row, &stage.plan) {
            // Early instants meet the fan-out, later ones the delivery.
            let calm = Duration::from_millis(stage.random.u64(20..700));
            if show.is_over_within(calm).await {
                break;
            }
            if stage.random.u8(..4) == 0 {
                show.suppress_some(stage).await?;
            }
            faults::inject(stage, any(), &mut show, &mut row).await?;
        }
        show.close(stage, &mut row).await?;
    }
    faults::take_stock(stage, &mut row).await;
    Ok(row)
}
