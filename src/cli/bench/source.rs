//! Postfix's load generator, as it is installed. Never given anything that would slow it down: each of its sessions keeps its
//! connection, and it renders and records nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::super::exit::Failed;
use super::Smtp;
use super::field::{Field, Slice};

/// Where Debian has it, off the PATH of ordinary users.
pub(super) const PROGRAM: &str = "/usr/sbin/smtp-source";
/// Between two looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether it is there.
pub(super) fn check(program: &Path) -> Result<(), Failed> {
    match program.is_file() {
        true => Ok(()),
        false => Err(Failed::usage(format!(
            "{} is not there; it comes with the package postfix (apt-get install --no-install-recommends postfix), or name it with --source",
            program.display()
        ))),
    }
}

/// Hands `n` messages over.
pub(super) async fn turn(args: &Smtp, n: u64) -> Result<Slice, Failed> {
    let field = Field::lay(args.latency).await?;
    let mut running = Running::start(args, n, &field.addr().to_string())?;
    let ended = async {
        loop {
            match running.0.try_wait() {
                Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(Failed::here(format!("smtp-source failed: {status}"))),
                Err(e) => return Err(Failed::here(format!("smtp-source: {e}"))),
            }
        }
    };
    Ok(field.time(n, ended).await?.0)
}

/// The process, which does not outlive us.
struct Running(Child);

impl Running {
    fn start(args: &Smtp, n: u64, to: &str) -> Result<Self, Failed> {
        let (n, size, sessions) = (n.to_string(), args.size.to_string(), args.connections.to_string());
        Command::new(&args.source)
            // -d keeps the connection, -N numbers the recipients.
            .args(["-d", "-N", "-s", &sessions, "-m", &n, "-l", &size])
            .args([
                "-M",
                "bench.example",
                "-f",
                "news@sender.example",
                "-t",
                "reader@d.example",
                to,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|e| Failed::here(format!("{}: {e}", args.source.display())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is what it should do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
