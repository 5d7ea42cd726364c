//! A node: this very program as a process of its own, started, signalled and killed from outside. Never touches its memory
//! or its files.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

/// How long a node may take to listen.
const START_MAX: Duration = Duration::from_secs(60);

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub program: PathBuf,
    /// For its data and its log.
    pub dir: PathBuf,
    pub number: usize,
    pub environment: Vec<(String, String)>,
}

/// A process that is up, or was.
pub struct Node {
    child: Child,
    /// Where its API is.
    pub url: String,
}

impl Recipe {
    /// Where its log is; it is written on from life to life.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("node-{}.log", self.number))
    }

    /// Starts the node and waits until it listens. `born` hears of its process before it has done anything.
    ///
    /// # Errors
    /// When it ends before, or does not listen in a minute.
    pub async fn start(&self, born: impl FnOnce(u32)) -> Result<Node, String> {
        let failed = |e: io::Error| format!("node {} cannot be started: {e}", self.number);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(failed)?;
        let mut child = Command::new(&self.program)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.dir)
            // Nobody: the recipients' domains do not exist, and no name is to leave this machine.
            .env("HIKYAKU_DNS_SERVER", "127.0.0.1:9")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        born(child.id());
        let (tell, told) = oneshot::channel();
        let out = child.stdout.take();
        std::thread::spawn(move || read_out(out, tell));
        let mut node = Node {
            child,
            url: String::new(),
        };
        match tokio::time::timeout(START_MAX, told).await {
            Ok(Ok(url)) => {
                node.url = url;
                Ok(node)
            }
            _ => Err(format!("node {} did not start; its log is {}", self.number, self.log().display())),
        }
    }
}

/// Reads what the node prints, to its end: a full pipe would hold it up.
fn read_out(out: Option<std::process::ChildStdout>, tell: oneshot::Sender<String>) {
    let mut tell = Some(tell);
    for line in out.into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let Ok(line) = line else { return };
        let url = line.split_whitespace().skip_while(|word| *word != "listening").nth(1);
        if let Some((url, tell)) = url.and_then(|url| Some((url, tell.take()?))) {
            // Nobody waits any more.
            let _ = tell.send(url.to_owned());
        }
    }
}

impl Node {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself; whoever waits for it learns that.
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        // The same: it may have ended.
        let _ = (self.child.kill(), self.child.wait());
    }

    /// Waits until it has ended by itself. `None` when it has not in time.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let ended = async {
            loop {
                if let Ok(Some(status)) = self.child.try_wait() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(within, ended).await.ok()
    }

    /// Whether it is still running.
    pub fn is_up(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Memory it holds, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Lines of a log so far.
#[must_use]
pub fn n_lines(log: &Path) -> u64 {
    std::fs::read(log).map_or(0, |text| text.iter().filter(|b| **b == b'\n').count() as u64)
}
