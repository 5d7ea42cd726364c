//! Running the program: with an environment of nothing but what a test gives, in a directory that goes with the test.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// The bootstrap key of the servers under test.
pub const KEY: &str = "a-key-for-tests-of-the-command-line";

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A place for one test: its data directory and its files.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and returns its path as an argument.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.path().join(name);
        std::fs::write(&path, text).expect("a file can be written");
        path.display().to_string()
    }

    /// The program with these arguments, and with its data here.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hikyaku"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("TMPDIR", self.path())
            .env("HIKYAKU_DATA_DIR", self.path().join("data"))
            // Nobody: no name is to leave this machine.
            .env("HIKYAKU_DNS_SERVER", "127.0.0.1:9")
            .env("HIKYAKU_LOG", "warn");
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args))
    }

    /// Starts `hikyaku serve` on a free port, and waits until it listens.
    pub fn serve(&self) -> Running {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.env("HIKYAKU_API_KEY", KEY);
        Running::start(command, "listening ")
    }
}

/// Runs a command to its end.
pub fn ended(mut command: Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("the program prints UTF-8"),
        err: String::from_utf8(output.stderr).expect("the program prints UTF-8"),
    }
}

/// Runs a command that reads `input`.
pub fn ended_with_input(mut command: Command, input: &str) -> Ended {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin.write_all(input.as_bytes()).expect("the program reads");
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("the program prints UTF-8"),
        err: String::from_utf8(output.stderr).expect("the program prints UTF-8"),
    }
}

/// A program that stays up. Killed when the test is over, however it ends.
pub struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    /// What it printed until it was ready.
    pub banner: String,
    /// Where it listens: the first URL of the line that said so.
    pub url: String,
}

impl Running {
    /// Starts a command and reads what it prints, up to and including the line that holds `sign` and an address.
    pub fn start(command: Command, sign: &str) -> Self {
        Self::start_saying(command, sign, Stdio::inherit())
    }

    /// As [`Running::start`]; what goes to standard error goes to a file.
    pub fn start_with_log(command: Command, sign: &str, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("a file can be made");
        Self::start_saying(command, sign, log.into())
    }

    fn start_saying(mut command: Command, sign: &str, err: Stdio) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(err)
            .spawn()
            .expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let mut running = Self {
            child,
            out,
            banner: String::new(),
            url: String::new(),
        };
        let line = running.read_until(sign);
        let url = line.split_whitespace().find(|word| word.contains("127.0.0.1:"));
        running.url = url.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        running
    }

    /// Reads lines up to the one that holds `sign`.
    pub fn read_until(&mut self, sign: &str) -> String {
        loop {
            let mut line = String::new();
            let n = self.out.read_line(&mut line).expect("the program prints UTF-8");
            assert!(n > 0, "the program ended before it printed {sign:?}; it printed:\n{}", self.banner);
            self.banner.push_str(&line);
            if line.contains(sign) {
                return line;
            }
        }
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, within: std::time::Duration) -> std::process::ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                    return status;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(within, ended)
            .await
            .expect("the program ends by itself")
    }

    /// Sends a signal and waits for the end: the exit code, and what was printed after the start.
    pub fn signal(mut self, name: &str) -> (Option<i32>, String) {
        let killed = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()
            .expect("there is a shell");
        assert!(killed.success(), "the program was gone before SIG{name}");
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.out, &mut rest).expect("the program prints UTF-8");
        let status = self.child.wait().expect("the program ends");
        (status.code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is what most tests wait for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
