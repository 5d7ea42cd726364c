//! The faults: each does its harm, notes what that explains, and measures how long it takes until mail flows again. Never harms
//! anything but the nodes, the relay and the database of the test.

mod clock;
mod disk;
mod io;
mod outages;

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::client::{Answer, Client};
use super::oracle::fastest_second;
use super::show::{Request, Show};
use super::stage::Stage;
use super::{Database, Row};

pub use disk::{remove_small_disk, small_disk};

/// What stands between a node and the C library, and what it needs in the environment.
///
/// # Errors
/// What is to be installed.
pub fn preload(faults: &[Fault], dir: &Path, node: usize) -> Result<Vec<(String, String)>, String> {
    let mut between = Vec::new();
    if faults.contains(&Fault::Io) {
        between.push(io::preload(dir)?);
    }
    if faults.contains(&Fault::Clock) {
        between.push(clock::preload(dir, node)?);
    }
    let (libraries, environments): (Vec<_>, Vec<_>) = between.into_iter().unzip();
    let mut environment: Vec<(String, String)> = environments.into_iter().flatten().collect();
    if !libraries.is_empty() {
        environment.push(("LD_PRELOAD".to_owned(), libraries.join(" ")));
    }
    Ok(environment)
}

/// Between two looks at the relay: what is measured is no finer.
const LOOK: Duration = Duration::from_millis(2);
/// After so long without a message the service counts as stuck, which the watcher then says.
const NEXT_MAX: Duration = Duration::from_secs(60);
/// An orderly end takes `drain_secs` (8) and the last writes; a debug build on a busy machine takes its time.
const END_MAX: Duration = Duration::from_secs(30);

/// What can be done to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL at a random instant of a delivery.
    Kill,
    /// SIGKILL while the request to send is read.
    Accept,
    /// SIGTERM: the orderly end.
    Term,
    /// A second SIGTERM right behind the first: the end at once.
    Twice,
    /// SIGSTOP for longer than the lease, then SIGCONT.
    Stop,
    /// The relay breaks every connection and is gone for a while.
    Relay,
    /// The line to the database breaks and is gone for a while.
    Cut,
    /// The database does not answer, and its connections stand.
    Hang,
    /// The database server crashes and is started again.
    Crash,
    /// The processes of the database server are frozen for a while.
    Freeze,
    /// The database server crashes, and its synchronous standby takes over.
    Failover,
    /// The disk of the database is full for a while.
    Disk,
    /// Writes and syncs of the database file fail now and then.
    Io,
    /// The clock of a node jumps by hours or days, and back.
    Clock,
}

impl Fault {
    /// Every fault, its name, and what it needs.
    pub const ALL: [(Fault, &str, Need); 14] = [
        (Fault::Kill, "kill", Need::Nothing),
        (Fault::Accept, "accept", Need::Nothing),
        (Fault::Term, "term", Need::Nothing),
        (Fault::Twice, "twice", Need::Nothing),
        (Fault::Stop, "stop", Need::Nothing),
        (Fault::Relay, "relay", Need::Nothing),
        (Fault::Cut, "cut", Need::Server),
        (Fault::Hang, "hang", Need::Server),
        (Fault::Crash, "crash", Need::Own),
        (Fault::Freeze, "freeze", Need::Own),
        (Fault::Failover, "failover", Need::Own),
        (Fault::Disk, "disk", Need::Sqlite),
        (Fault::Io, "io", Need::Sqlite),
        (Fault::Clock, "clock", Need::Nothing),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(fault, ..)| *fault == self)
            .map_or("", |(_, name, _)| name)
    }

    /// Whether it can be done on this database.
    #[must_use]
    pub fn fits(self, database: &Database) -> bool {
        let need = Self::ALL
            .iter()
            .find(|(fault, ..)| *fault == self)
            .map(|(_, _, need)| *need);
        match need {
            Some(Need::Server) => *database != Database::Sqlite,
            Some(Need::Own) => matches!(database, Database::Own(_)),
            Some(Need::Sqlite) => *database == Database::Sqlite,
            _ => true,
        }
    }
}

/// What a fault needs of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// A PostgreSQL server.
    Server,
    /// A PostgreSQL server of the test's own.
    Own,
    /// An SQLite file.
    Sqlite,
}

/// Does a fault once.
///
/// # Errors
/// When it could not be done.
pub async fn inject(stage: &mut Stage, fault: Fault, show: &mut Show, row: &mut Row) -> Result<(), String> {
    match fault {
        Fault::Kill => kill(stage, show, row).await,
        // Done with the request for the next broadcast; this one may end in peace.
        Fault::Accept => {
            show.is_over_within(NEXT_MAX).await;
            Ok(())
        }
        Fault::Term => end(stage, show, row, None).await,
        Fault::Twice => {
            let gap = Duration::from_micros(stage.random.u64(0..20_000));
            end(stage, show, row, Some(gap)).await
        }
        Fault::Stop => stop(stage, show, row).await,
        Fault::Relay => outages::relay(stage, show, row).await,
        Fault::Disk => disk::fill(stage, show, row).await,
        Fault::Io => io::fail(stage, show, row).await,
        Fault::Clock => clock::jump(stage, row).await,
        database => outages::database(stage, database, show, row).await,
    }
}

/// Asks for a broadcast; the fault `accept` kills the node that reads the request.
///
/// # Errors
/// When the API answers what it must not.
pub async fn ask(stage: &mut Stage, fault: Fault, request: &Request, row: &mut Row) -> Result<String, String> {
    if fault == Fault::Disk {
        return disk::ask(stage, request, row).await;
    }
    if fault != Fault::Accept {
        return stage.client.send(&request.key, &request.body).await;
    }
    let (client, key, body) = (stage.client.clone(), request.key.clone(), request.body.clone());
    let asked = tokio::spawn(async move { client.send_once(&key, &body).await });
    // The request goes to the first node.
    tokio::time::sleep(Duration::from_micros(stage.random.u64(0..400_000))).await;
    let (_, killed) = bring_down(stage, 0, row);
    row.count(Fault::Accept);
    stage.start(0).await?;
    let first = asked.await.map_err(|e| e.to_string())?;
    let id = stage.client.send(&request.key, &request.body).await?;
    row.next_ms.push(killed.elapsed().as_millis() as u64);
    // What was answered with 202 before the kill must be that very broadcast.
    match first {
        Answer::Accepted(earlier) if earlier != id => {
            row.findings
                .breaks(format!("one key made two broadcasts: {earlier} and {id}"));
        }
        Answer::Wrong(what) => row
            .findings
            .breaks(format!("a request to send was answered with {what}")),
        _ => {}
    }
    Ok(id)
}

/// SIGKILL. Returns what the relay had taken when nothing of the dead could reach it any more, and when the kill was.
fn bring_down(stage: &mut Stage, node: usize, row: &mut Row) -> (u64, Instant) {
    let open = stage.witness.n_open(node);
    stage.client.set(node, None);
    let killed = Instant::now();
    if let Some(mut victim) = stage.nodes[node].take() {
        victim.kill();
    }
    row.bound += open.max(stage.witness.n_open(node));
    (stage.witness.n_taken(), killed)
}

async fn kill(stage: &mut Stage, show: &Show, row: &mut Row) -> Result<(), String> {
    let node = stage.any_node();
    let pid = stage.nodes[node].as_ref().map_or(0, super::node::Node::pid);
    let (_, killed) = bring_down(stage, node, row);
    row.count(Fault::Kill);
    if !stage.is_sqlite() {
        let (client, times) = (stage.client.clone(), Arc::clone(&stage.taken_over_ms));
        tokio::spawn(async move {
            if let Some(ms) = taken_over(&client, pid, killed).await {
                times.lock().unwrap_or_else(PoisonError::into_inner).push(ms);
            }
        });
    }
    // What it had written is read to its end before the next message is waited for.
    let quiet = Instant::now();
    while stage.witness.n_open(node) > 0 && quiet.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(LOOK).await;
    }
    let before = stage.witness.n_taken();
    stage.start(node).await?;
    next_message(stage, show, row, before, killed).await;
    Ok(())
}

/// From a death until no job runs in the dead worker's name, in milliseconds. `None` when it had none.
async fn taken_over(client: &Client, pid: u32, died: Instant) -> Option<u64> {
    let mut worker = None;
    let mut had_jobs = false;
    while died.elapsed() < NEXT_MAX {
        if worker.is_none()
            && let Some(workers) = client.ask("/v1/workers").await
        {
            let mine = workers["data"].as_array()?.iter().find(|w| w["pid"] == pid)?;
            worker = mine["id"].as_i64();
        }
        if let Some(id) = worker
            && let Some(jobs) = client.ask("/v1/jobs?state=running&limit=100").await
        {
            let has_jobs = jobs["data"].as_array()?.iter().any(|job| job["worker_id"] == id);
            if !has_jobs {
                return had_jobs.then(|| died.elapsed().as_millis() as u64);
            }
            had_jobs = true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

/// Waits for the next message at the relay, and notes how long after `since` it came. Nothing to note when none was left.
async fn next_message(stage: &Stage, show: &Show, row: &mut Row, before: u64, since: Instant) {
    while since.elapsed() < NEXT_MAX {
        if stage.witness.n_taken() > before {
            row.next_ms.push(since.elapsed().as_millis() as u64);
            return;
        }
        if show.is_over() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    row.findings
        .breaks(format!("no message in {} s after a fault", NEXT_MAX.as_secs()));
}

/// SIGTERM, and perhaps a second one after a while.
async fn end(stage: &mut Stage, show: &Show, row: &mut Row, again: Option<Duration>) -> Result<(), String> {
    let node = stage.any_node();
    stage.client.set(node, None);
    let Some(mut leaving) = stage.nodes[node].take() else {
        return Ok(());
    };
    leaving.signal(Signal::TERM);
    if let Some(gap) = again {
        tokio::time::sleep(gap).await;
        row.bound += stage.witness.n_open(node);
        leaving.signal(Signal::TERM);
    }
    row.count(if again.is_some() { Fault::Twice } else { Fault::Term });
    let told = Instant::now();
    let code = leaving.ended(END_MAX).await.map(|status| status.code());
    row.exit_ms.push(told.elapsed().as_millis() as u64);
    // 143 is 128 and SIGTERM: the second signal came before the end.
    let is_right = code == Some(Some(0)) || (again.is_some() && code == Some(Some(143)));
    if !is_right {
        row.findings
            .breaks(format!("a node that was to end ended with {code:?}"));
    }
    let (before, since) = (stage.witness.n_taken(), Instant::now());
    stage.start(node).await?;
    next_message(stage, show, row, before, since).await;
    Ok(())
}

/// Freezes all nodes but one for longer than their lease, or the only one, and thaws them.
async fn stop(stage: &mut Stage, show: &Show, row: &mut Row) -> Result<(), String> {
    let all = stage.nodes.len();
    let spared = if all > 1 { Some(stage.any_node()) } else { None };
    let frozen: Vec<usize> = (0..all).filter(|node| Some(*node) != spared).collect();
    let mut urls = Vec::new();
    for &node in &frozen {
        stage.client.set(node, None);
        if let Some(up) = &stage.nodes[node] {
            up.signal(Signal::STOP);
            urls.push((node, up.url.clone()));
        }
        row.bound += stage.witness.n_open(node);
        row.count(Fault::Stop);
    }
    let lease = Duration::from_secs(stage.plan.lease_secs);
    tokio::time::sleep(lease + Duration::from_millis(stage.random.u64(500..2_500))).await;
    let (before, since) = (stage.witness.n_taken(), Instant::now());
    for (node, url) in urls {
        if let Some(up) = &stage.nodes[node] {
            up.signal(Signal::CONT);
        }
        stage.client.set(node, Some(url));
    }
    next_message(stage, show, row, before, since).await;
    Ok(())
}

/// What can be said at the end: memory, logs, and how often a stale write was refused.
pub async fn take_stock(stage: &mut Stage, row: &mut Row) {
    for (node, up) in stage.nodes.iter_mut().enumerate() {
        if let Some(up) = up
            && !up.is_up()
        {
            row.findings.breaks(format!("node {node} ended by itself"));
        }
    }
    let logs: Vec<String> = stage
        .recipes
        .iter()
        .map(|recipe| std::fs::read_to_string(recipe.log()).unwrap_or_default())
        .collect();
    let count = |word: &str| logs.iter().map(|log| log.matches(word).count()).sum::<usize>();
    row.remarks
        .push(format!("{} log lines", logs.iter().map(|log| log.lines().count()).sum::<usize>()));
    row.n_refused = count("The lease on a job has lapsed") as u64;
    if row.n_refused > 0 {
        row.remarks
            .push(format!("{} times a node dropped work that was no longer its own", row.n_refused));
    }
    if let Some(rate) = stage.plan.rate_per_sec {
        // A twentieth is the burst; and what a node holds back when it is frozen, or the relay is away, goes at once afterwards:
        // a message at hand and one announced on each connection.
        let held_back = 2 * u64::from(stage.plan.connections) * stage.nodes.len() as u64;
        row.pace = Some((fastest_second(&stage.witness.bins()), rate + rate / 20 + held_back));
    }
    if let Some(cluster) = &stage.cluster {
        let damage = tokio::task::block_in_place(|| cluster.damage());
        damage.into_iter().for_each(|what| row.findings.breaks(what));
    }
    if count("set aside") > 0 {
        row.findings
            .breaks("a job was set aside for a person to look at".to_owned());
    }
}
