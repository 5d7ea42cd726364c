//! Outages of the relay and of the database: gone for a while, under load. Looks at what the API says meanwhile, at the nodes'
//! memory and logs, and at how soon mail flows again.

use std::time::Duration;

use tokio::time::Instant;

use super::{Fault, next_message};
use crate::selftest::Row;
use crate::selftest::client::Answer;
use crate::selftest::node::n_lines;
use crate::selftest::proxy::Line;
use crate::selftest::row::LINES_OVER_SECS;
use crate::selftest::show::{Request, Show};
use crate::selftest::stage::Stage;

/// The speed before an outage is measured for so long.
const BEFORE: Duration = Duration::from_secs(1);
/// Speed is looked at over so long afterwards, this often, and for so long at most.
const OVER: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(50);
const FULL_MAX: Duration = Duration::from_secs(60);
/// This much of the speed before is full speed: half seconds differ by as much among themselves.
const FULL_PERCENT: u64 = 70;

/// The relay breaks every connection and lets nobody in for up to a second.
pub async fn relay(stage: &mut Stage, show: &Show, row: &mut Row) -> Result<(), String> {
    row.bound += stage.witness.n_open_in_all();
    stage.witness.shut();
    row.count(Fault::Relay);
    tokio::time::sleep(Duration::from_millis(stage.random.u64(50..1_000))).await;
    let (before, since) = (stage.witness.n_taken(), Instant::now());
    stage.witness.reopen();
    next_message(stage, show, row, before, since).await;
    Ok(())
}

/// The database is gone for a while.
pub async fn database(stage: &mut Stage, fault: Fault, show: &Show, row: &mut Row) -> Result<(), String> {
    let before = stage.witness.n_taken();
    tokio::time::sleep(BEFORE).await;
    let per_half_second = (stage.witness.n_taken() - before) * OVER.as_millis() as u64 / BEFORE.as_millis() as u64;
    let (lines, memory) = (log_lines(stage), memory(stage));
    // A lease may lapse meanwhile, with a message on each connection.
    row.bound += stage.witness.n_open_in_all();
    row.count(fault);
    row.n_outages += 1;
    let gone = Instant::now();
    begin(stage, fault)?;
    ask_meanwhile(stage, row).await;
    let outage = if fault == Fault::Failover {
        Duration::ZERO
    } else {
        stage.plan.outage
    };
    let mut peak = self::memory(stage);
    while gone.elapsed() < outage {
        tokio::time::sleep(LOOK).await;
        peak = peak
            .into_iter()
            .zip(self::memory(stage))
            .map(|(a, b)| a.max(b))
            .collect();
    }
    let before = stage.witness.n_taken();
    finish(stage, fault)?;
    let back = Instant::now();
    next_message(stage, show, row, before, back).await;
    match full_speed(stage, show, per_half_second, back).await {
        Some(ms) => row.full_ms.push(ms),
        None if show.is_over() => row
            .remarks
            .push("a broadcast was over before full speed could be seen".to_owned()),
        None => row.full_ms.push(FULL_MAX.as_millis() as u64),
    }
    let seconds = gone.elapsed().as_secs_f64().max(LINES_OVER_SECS);
    for (before, now) in lines.into_iter().zip(log_lines(stage)) {
        row.lines_per_sec = row.lines_per_sec.max((now - before) as f64 / seconds);
    }
    let peak = peak.into_iter().zip(self::memory(stage)).map(|(a, b)| a.max(b));
    for (before, peak) in memory.into_iter().zip(peak) {
        row.growth_kib = row.growth_kib.max(peak.saturating_sub(before));
    }
    if let (Fault::Failover, Some(cluster)) = (fault, &mut stage.cluster) {
        tokio::task::block_in_place(|| cluster.add_standby())?;
    }
    Ok(())
}

/// How long it takes until messages flow as they did, in milliseconds. `None` when they do not in time, or there are none left.
async fn full_speed(stage: &Stage, show: &Show, per_half_second: u64, back: Instant) -> Option<u64> {
    let mut looks = std::collections::VecDeque::from([(Instant::now(), stage.witness.n_taken())]);
    while back.elapsed() < FULL_MAX && !show.is_over() {
        tokio::time::sleep(LOOK).await;
        looks.push_back((Instant::now(), stage.witness.n_taken()));
        while looks.len() > 1 && looks[1].0.elapsed() >= OVER {
            looks.pop_front();
        }
        let (at, n) = looks[0];
        let is_full = stage.witness.n_taken() - n >= per_half_second * FULL_PERCENT / 100;
        if at.elapsed() >= OVER && is_full {
            return Some(back.elapsed().as_millis() as u64);
        }
    }
    None
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
    let request = Request::to(stage, 3, None);
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
