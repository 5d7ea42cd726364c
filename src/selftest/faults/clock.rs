//! Clocks that jump by hours and days, with broadcasts that are to begin at a time. Done by libfaketime, which stands between the
//! process and the C library (Debian's package libfaketime); the program under test is the very same.
//!
//! On PostgreSQL one node's clock jumps and the server's is right. On SQLite there is one clock, which is right by itself: what
//! is due by it may go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::Fault;
use crate::clock::{Clock as _, SystemClock};
use crate::selftest::oracle::Due;
use crate::selftest::row::Row;
use crate::selftest::show::{Request, Show};
use crate::selftest::stage::Stage;

/// Where Debian and others keep it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];
/// Recipients of a broadcast that is to begin at a time.
const RECIPIENTS: usize = 50;
/// How early a message may be: the clocks of the nodes follow the database's within a second.
const SKEW: Duration = Duration::from_secs(1);
const HOUR_SECS: i64 = 3_600;

/// What a node needs in its environment.
///
/// # Errors
/// When the library is not here.
pub fn preload(dir: &Path, node: usize) -> Result<(String, Vec<(String, String)>), String> {
    let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
    let library = library.ok_or("the fault `clock` needs libfaketimeMT.so.1: install libfaketime")?;
    write(dir, node, 0)?;
    let set = |name: &str, value: String| (name.to_owned(), value);
    let environment = vec![
        set("FAKETIME_TIMESTAMP_FILE", file(dir, node).display().to_string()),
        set("FAKETIME_NO_CACHE", "1".to_owned()),
        set("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    Ok(((*library).to_owned(), environment))
}

fn file(dir: &Path, node: usize) -> PathBuf {
    dir.join(format!("clock-{node}"))
}

fn write(dir: &Path, node: usize, ahead_secs: i64) -> Result<(), String> {
    let path = file(dir, node);
    // Put in place whole: a half-written one is read as no jump at all.
    let fresh = path.with_extension("new");
    let written = std::fs::write(&fresh, format!("{ahead_secs:+}\n")).and_then(|()| std::fs::rename(&fresh, &path));
    written.map_err(|e| format!("{}: {e}", path.display()))
}

/// One node's clock jumps while a broadcast waits for its time, and goes back to what it was.
pub async fn jump(stage: &mut Stage, row: &mut Row) -> Result<(), String> {
    let node = stage.any_node();
    let hours = stage.random.i64(1..72);
    let ahead_secs = if stage.random.bool() { hours } else { -hours } * HOUR_SECS + stage.random.i64(0..HOUR_SECS);
    let wait = Duration::from_millis(stage.random.u64(1_000..4_000));
    row.count(Fault::Clock);

    // Far beyond every jump where the node's own clock decides; within its reach where it must not.
    let far = Duration::from_secs(if stage.is_sqlite() { 20 * 24 * 3_600 } else { 1_800 });
    let later = Request::to(stage, RECIPIENTS, Some(SystemClock.now() + far));
    let later_id = stage.client.send(&later.key, &later.body).await?;
    let (asked, now) = (Instant::now(), SystemClock.now());
    let mut soon = Request::to(stage, RECIPIENTS, Some(now + wait));
    stage.client.suppress(&soon.suppressed()).await?;
    let soon_id = stage.client.send(&soon.key, &soon.body).await?;
    let jumped = Instant::now();
    write(&stage.dir, node, ahead_secs)?;

    let is_due_at_once = stage.is_sqlite() && ahead_secs > 0;
    let earliest = if is_due_at_once {
        jumped
    } else {
        asked + wait.saturating_sub(SKEW)
    };
    for (_, due) in &mut soon.expected {
        if matches!(due, Due::Mail) {
            *due = Due::MailAfter(earliest);
        }
    }
    let mut show = Show::watch(stage, soon_id, soon.expected, row);
    show.is_over_within(wait + Duration::from_millis(stage.random.u64(0..3_000)))
        .await;
    write(&stage.dir, node, 0)?;
    show.close(stage, row).await?;
    let early = stage
        .witness
        .copies(later.expected.iter().map(|(email, _)| email.as_str()))
        .len();
    if early > 0 {
        row.findings.forbidden += early as u64;
        row.findings
            .breaks(format!("{early} messages went out {} s before their time", far.as_secs()));
    }
    stage.client.cancel(&later_id).await
}
