//! Outages of the relay and of the database: gone for a while, under load. Looks at what the API says meanwhile, at the nodes'
//! memory and logs, and at how soon mail flows again.

use std::time::Duration;

use tokio::time::Instant;

use super::{Fault, next_message};
use crate::selftest::Row;
use crate::selftest::client::Answer;
use crate::selftest::node::n_lines;
use crate::selftest::proxy::Line;
use crate::selftest::show::{Request, Show};
use crate::selftest::stage::Stage;

/// From the database's return to the next message, at most.
const BACK_MAX: Duration = Duration::from_secs(5);
/// Lines of log that a node may write in a second of an outage: a few for each thing that waits, and not one for each try.
const LINES_PER_SEC_MAX: u64 = 10;
/// Memory that a node may take in an outage beside what it had, in KiB.
const GROWTH_KIB_MAX: u64 = 64 * 1_024;

/// The relay breaks every connection and lets nobody in for up to a second.
pub async fn relay(stage: &mut Stage, show: &Show, row: &mut Row) -> Result<(), String> {
    row.bound += stage.witness.n_open_in_all();
    stage.witness.shut();
    row.n += 1;
    tokio::time::sleep(Duration::from_millis(stage.random.u64(50..1_000))).await;
    let (before, since) = (stage.witness.n_taken(), Instant::now());
    stage.witness.reopen();
    next_message(stage, show, row, before, since).await;
    Ok(())
}

/// The database is gone for a while.
pub async fn database(stage: &mut Stage, fault: Fault, show: &Show, row: &mut Row) -> Result<(), String> {
    let (lines, memory) = (log_lines(stage), memory(stage));
    // A lease may lapse meanwhile, with a message on each connection.
    row.bound += stage.witness.n_open_in_all();
    row.n += 1;
    let gone = Instant::now();
    begin(stage, fault)?;
    ask_meanwhile(stage, row).await;
    let outage = stage.plan.outage;
    if fault != Fault::Failover {
        tokio::time::sleep(outage.saturating_sub(gone.elapsed())).await;
    }
    let before = stage.witness.n_taken();
    finish(stage, fault)?;
    let back = Instant::now();
    let n_before = row.next_ms.len();
    next_message(stage, show, row, before, back).await;
    if row.next_ms[n_before..]
        .iter()
        .any(|ms| u128::from(*ms) > BACK_MAX.as_millis())
    {
        row.findings
            .breaks(format!("the next message came {} ms after the database", row.next_ms[n_before]));
    }
    let seconds = gone.elapsed().as_secs() + 1;
    for (node, (before, now)) in lines.into_iter().zip(log_lines(stage)).enumerate() {
        row.remarks
            .push(format!("node {node}: {} lines of log in {seconds} s", now - before));
        if now - before > LINES_PER_SEC_MAX * seconds {
            row.findings
                .breaks(format!("node {node} wrote {} lines of log in {seconds} s", now - before));
        }
    }
    for (before, now) in memory.into_iter().zip(self::memory(stage)) {
        if now > before + GROWTH_KIB_MAX {
            row.findings.breaks(format!("a node grew from {before} to {now} KiB"));
        }
    }
    Ok(())
}

fn begin(stage: &mut Stage, fault: Fault) -> Result<(), String> {
    let line = |line: Line| {
        if let Some(proxy) = &stage.proxy {
            proxy.set(line);
        }
    };
    let cluster = stage.cluster.as_ref().ok_or("the test has no server of its own");
    match fault {
        Fault::Cut => line(Line::Cut),
        Fault::Hang => line(Line::Held),
        Fault::Freeze => cluster?.signal_all("STOP")?,
        _ => tokio::task::block_in_place(|| cluster?.crash())?,
    }
    Ok(())
}

fn finish(stage: &mut Stage, fault: Fault) -> Result<(), String> {
    match (fault, &stage.proxy, &mut stage.cluster) {
        (Fault::Cut | Fault::Hang, Some(proxy), _) => proxy.set(Line::Up),
        (Fault::Freeze, _, Some(cluster)) => cluster.signal_all("CONT")?,
        (Fault::Crash, _, Some(cluster)) => tokio::task::block_in_place(|| cluster.start())?,
        (Fault::Failover, Some(proxy), Some(cluster)) => {
            let addr = tokio::task::block_in_place(|| cluster.promote())?;
            proxy.lead_to(addr);
            stage.url = moved(&stage.url, addr)?;
        }
        _ => return Err("this outage cannot be ended".to_owned()),
    }
    Ok(())
}

/// The same database on another server.
fn moved(url: &crate::store::DatabaseUrl, addr: std::net::SocketAddr) -> Result<crate::store::DatabaseUrl, String> {
    let crate::store::DatabaseUrl::Postgres(url) = url else {
        return Ok(url.clone());
    };
    let mut url = url::Url::parse(url).map_err(|e| e.to_string())?;
    let moved = url.set_port(Some(addr.port()));
    moved.map_err(|()| "the database URL takes no port".to_owned())?;
    crate::store::DatabaseUrl::parse(url.as_str())
}

/// What the API says while the database is gone: it lives, it is not ready, and a request to send is refused with 503 and a
/// time to come back.
async fn ask_meanwhile(stage: &mut Stage, row: &mut Row) {
    let mut wrong = Vec::new();
    if stage.client.probe(0, "/healthz").await != Some(200) {
        wrong.push("/healthz does not say that the process lives".to_owned());
    }
    let ready = stage.client.probe(0, "/readyz").await;
    if ready != Some(503) {
        wrong.push(format!("/readyz says {ready:?} without a database"));
    }
    // A small one, which belongs to no play.
    let recipients = std::mem::replace(&mut stage.plan.recipients, 3);
    let request = Request::new(stage);
    stage.plan.recipients = recipients;
    match stage.client.send_once(&request.key, &request.body).await {
        Answer::NotNow {
            status: 503,
            says_when: true,
        } => {}
        other => wrong.push(format!("a request to send without a database: {other:?}")),
    }
    for what in wrong {
        row.findings.breaks(what);
    }
}

fn log_lines(stage: &Stage) -> Vec<u64> {
    stage.recipes.iter().map(|recipe| n_lines(&recipe.log())).collect()
}

fn memory(stage: &Stage) -> Vec<u64> {
    let resident = |node: &Option<crate::selftest::node::Node>| node.as_ref().map_or(0, |up| up.resident_kib());
    stage.nodes.iter().map(resident).collect()
}
