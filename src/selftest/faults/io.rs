//! Writes and syncs of the database file that fail now and then, as on a dying disk. Done by libfiu, which stands between the
//! process and the C library (Debian's package fiu-utils); the program under test is the very same.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use super::{Fault, next_message};
use crate::selftest::row::Row;
use crate::selftest::show::Show;
use crate::selftest::stage::Stage;

/// What stands between; both are in one package.
const LIBRARIES: [&str; 2] = ["/usr/lib/fiu/fiu_run_preload.so", "/usr/lib/fiu/fiu_posix_preload.so"];
/// Which calls fail, and with which error: EIO is 5, ENOSPC is 28. Only SQLite writes with pwrite, and only it syncs.
const FAILURES: [(&str, u8); 4] = [
    ("posix/io/sync/*", 5),
    ("posix/io/rw/pwrite", 5),
    ("posix/io/rw/pwrite", 28),
    ("posix/io/rw/pwrite/reduce", 0),
];

/// What a node needs in its environment.
///
/// # Errors
/// When the libraries are not here.
pub fn preload(dir: &Path) -> Result<(String, Vec<(String, String)>), String> {
    if let Some(missing) = LIBRARIES.iter().find(|path| !Path::new(path).exists()) {
        return Err(format!("the fault `io` needs {missing}: install fiu-utils"));
    }
    let control = ("FIU_CTRL_FIFO".to_owned(), prefix(dir));
    Ok((LIBRARIES.join(" "), vec![control]))
}

fn prefix(dir: &Path) -> String {
    dir.join("fiu").display().to_string()
}

/// Some calls of a node fail for a while.
pub async fn fail(stage: &mut Stage, show: &Show, row: &mut Row) -> Result<(), String> {
    let node = stage.any_node();
    let Some(pid) = stage.nodes[node].as_ref().map(|up| up.pid()) else {
        return Ok(());
    };
    let (name, errno) = FAILURES[stage.random.usize(..FAILURES.len())];
    let share = [0.01, 0.1, 0.5, 1.0][stage.random.usize(..4)];
    row.count(Fault::Io);
    tell(stage, pid, &format!("enable_random name={name},probability={share},failinfo={errno}"))?;
    tokio::time::sleep(Duration::from_millis(stage.random.u64(50..2_000))).await;
    let before = stage.witness.n_taken();
    let since = Instant::now();
    tell(stage, pid, &format!("disable name={name}"))?;
    next_message(stage, show, row, before, since).await;
    Ok(())
}

fn tell(stage: &Stage, pid: u32, command: &str) -> Result<(), String> {
    let mut told = Command::new("fiu-ctrl");
    told.args(["-f", &prefix(&stage.dir), "-c", command, &pid.to_string()]);
    let output = tokio::task::block_in_place(|| told.output()).map_err(|e| format!("fiu-ctrl: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("fiu-ctrl {command}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
