//! A full disk: the SQLite file stands on a small file system in memory, which a ballast fills. Needs root, for mounting.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use super::{Fault, next_message};
use crate::selftest::Row;
use crate::selftest::client::Answer;
use crate::selftest::show::{Request, Show};
use crate::selftest::stage::Stage;

/// Room for the database and its log of a few broadcasts.
const SIZE: &str = "size=256m";
/// Written at once.
static BLOCK: [u8; 64 * 1_024] = [0; 64 * 1_024];

fn place(dir: &Path) -> PathBuf {
    dir.join("small-disk")
}

/// Makes a small file system in `dir`.
///
/// # Errors
/// When this is not root, or the system does not let it.
pub fn small_disk(dir: &Path) -> Result<PathBuf, String> {
    let place = place(dir);
    std::fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
        .arg(&place)
        .output();
    match mounted {
        Ok(output) if output.status.success() => Ok(place),
        Ok(output) => Err(format!(
            "the fault `disk` mounts a small file system, which takes root: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(e) => Err(format!("mount: {e}")),
    }
}

/// Takes it away again, if there is one.
pub fn remove_small_disk(dir: &Path) {
    let place = place(dir);
    if place.exists() {
        // What does not go away now goes with the next start of the machine.
        drop(Command::new("umount").arg("-l").arg(&place).output());
    }
}

fn ballast(stage: &Stage) -> PathBuf {
    place(&stage.dir).join("ballast")
}

/// Fills the disk to its last byte.
fn fill_up(stage: &Stage) -> Result<(), String> {
    let path = ballast(stage);
    let mut file = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    while file.write_all(&BLOCK).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
    Ok(())
}

fn make_room(stage: &Stage) {
    // Without it the disk stays full, which the play then shows.
    drop(std::fs::remove_file(ballast(stage)));
}

/// The disk is full when a request comes: it is refused, and nothing of it stays. One that finds room in what the database's log
/// keeps for itself may be accepted, and then holds.
pub async fn ask(stage: &mut Stage, request: &Request, row: &mut Row) -> Result<String, String> {
    fill_up(stage)?;
    row.count(Fault::Disk);
    let first = stage.client.send_once(&request.key, &request.body).await;
    make_room(stage);
    let id = stage.client.send(&request.key, &request.body).await?;
    match first {
        Answer::NotNow { status: 503 | 507, .. } => row.n_full += 1,
        Answer::Accepted(earlier) if earlier == id => {}
        other => row
            .findings
            .breaks(format!("a request to send on a full disk: {other:?}")),
    }
    Ok(id)
}

/// The disk is full for a while in a fan-out or a delivery.
pub async fn fill(stage: &mut Stage, show: &Show, row: &mut Row) -> Result<(), String> {
    fill_up(stage)?;
    row.count(Fault::Disk);
    tokio::time::sleep(Duration::from_millis(stage.random.u64(500..3_000))).await;
    let (before, since) = (stage.witness.n_taken(), Instant::now());
    make_room(stage);
    next_message(stage, show, row, before, since).await;
    Ok(())
}
