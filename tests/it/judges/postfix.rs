//! Through a real Postfix: its own smtpd, queue and smtp client in an instance of ours on loopback, which hands everything on to the
//! capture relay. What comes out is what went in, with a trace line on top, and its signatures still verify.
//!
//! Postfix's master runs as root, so that without it this test uses `sudo` and fails where there is none.
//! `HIKYAKU_TEST_RELAYED` says how many messages.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use hikyaku::domain::address::EmailAddress;
use hikyaku::sink::{Captured, Sink, SinkOptions};
use hikyaku::smtp::{Connection, Envelope, Mail, RelayConfig, TlsContext};
use serde_json::json;
use tempfile::TempDir;

use super::{free_port, is_root};
use crate::compose::checked::number;
use crate::compose::jury::Jury;
use crate::compose::letters::{Case, numbered};
use crate::pipeline::stage::eventually;

const N_MESSAGES: u64 = 300;
const SEED: u64 = 20_261_125;
/// At once: less than the capture relay keeps.
const BATCH: usize = 300;

const SERVICES: &str = "\
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
";

/// A Postfix of our own. It ends with the value.
struct Postfix {
    folder: TempDir,
    port: u16,
}

impl Postfix {
    /// Starts one that hands all mail on to this address.
    fn start(next: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // Postfix's processes give up root and must still find their way in.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in ["conf", "queue", "data"] {
            fs::create_dir(at(name)).unwrap();
        }
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\nmaillog_file = {}\n\
             maillog_file_prefixes = {}\nmyhostname = relay.example\nmydestination =\nlocal_recipient_maps =\nalias_maps =\n\
             alias_database =\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\ndisable_dns_lookups = yes\n\
             relayhost = [{}]:{}\nin_flow_delay = 0\nmessage_size_limit = 0\nmailbox_size_limit = 0\n",
            at("queue"),
            at("data"),
            at("log"),
            folder.path().display(),
            next.ip(),
            next.port()
        );
        fs::write(at("conf/main.cf"), main).unwrap();
        fs::write(at("conf/master.cf"), format!("127.0.0.1:{port} inet n - n - - smtpd\n{SERVICES}")).unwrap();
        run(as_root("chown").args(["-R", "root"]).arg(folder.path()), "chown");
        run(as_root("chown").arg("postfix").arg(at("data")), "chown");
        let postfix = Self { folder, port };
        // It comes back when the ports are open. A file for its words: a pipe would stay open in the daemon.
        let said = tempfile::NamedTempFile::new().unwrap();
        let words = |file: &File| Stdio::from(file.try_clone().unwrap());
        let status = postfix
            .command("start")
            .stdin(Stdio::null())
            .stdout(words(said.as_file()))
            .stderr(words(said.as_file()))
            .status()
            .expect("postfix can be run: scripts/test installs it");
        assert!(status.success(), "{}\n{}", fs::read_to_string(said.path()).unwrap(), postfix.log());
        postfix
    }

    fn command(&self, action: &str) -> Command {
        let mut command = as_root(program().to_str().expect("the path is text"));
        command.arg("-c").arg(self.folder.path().join("conf")).arg(action);
        command
    }

    fn relay(&self) -> RelayConfig {
        let mut relay = RelayConfig::clear("127.0.0.1", self.port);
        relay.messages_per_connection_max = 100_000;
        relay
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // What is root's cannot be removed by who is not, so that it goes here; the rest goes with the folder.
        drop(
            self.command("abort")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status(),
        );
        for name in ["queue", "data", "conf", "log"] {
            drop(as_root("rm").arg("-rf").arg(self.folder.path().join(name)).status());
        }
    }
}

/// Beside `smtp-sink`, since Debian keeps both off the path of ordinary users.
fn program() -> PathBuf {
    match std::env::var_os("SMTP_SINK") {
        Some(sink) => Path::new(&sink).with_file_name("postfix"),
        None => "postfix".into(),
    }
}

fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn run(command: &mut Command, name: &str) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{name}: {e}; run as root, or with sudo at hand"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One message on its way.
struct Sent {
    case: Case,
    envelope: Envelope,
    bytes: Vec<u8>,
}

/// The i-th random message, to an address that tells it from the others. Every tenth needs SMTPUTF8.
fn sent(i: usize) -> Sent {
    let case = numbered(SEED, i);
    let to = match i % 10 {
        9 => format!("jürgen{i}@bücher.example"),
        _ => format!("r{i}@d{}.example", i % 7),
    };
    let envelope = Envelope::new("news@example.org", EmailAddress::parse(&to).unwrap()).unwrap();
    let bytes = case.bytes();
    Sent { case, envelope, bytes }
}

/// Hands messages over on one connection, and every one must be taken.
async fn hand_over(relay: &RelayConfig, messages: &[Sent]) {
    let tls = TlsContext::new(relay).unwrap();
    let mut connection = Connection::open(relay, &tls).await.unwrap();
    let mut at = 0;
    while at < messages.len() {
        if !connection.awaits_content() && connection.window() == 0 {
            connection
                .begin(&messages[at].envelope, messages[at].bytes.len())
                .await
                .unwrap();
        }
        let n = if connection.awaits_content() {
            1
        } else {
            connection.window()
        };
        let load = &messages[at..messages.len().min(at + n)];
        let mails: Vec<Mail> = load
            .iter()
            .map(|m| Mail {
                envelope: &m.envelope,
                body: &m.bytes,
            })
            .collect();
        at += load.len();
        let next = messages.get(at).filter(|_| connection.takes_next());
        let next = next.map(|next| (&next.envelope, next.bytes.len()));
        for verdict in connection.send(&mails, next).await {
            assert!(verdict.unwrap().is_positive());
        }
        if let Some((envelope, size)) = next {
            connection.begin(envelope, size).await.unwrap();
        }
    }
    connection.quit().await;
}

/// What came out is what went in behind one trace line, and the jury finds in it what was put in.
fn judge(jury: &mut Jury, sent: &Sent, captured: &Captured) {
    let came = &captured.raw;
    let trace = came.strip_suffix(&sent.bytes[..]).unwrap_or_else(|| {
        panic!("{:?} was changed on the way:\n{}", captured.to, String::from_utf8_lossy(came));
    });
    let trace = String::from_utf8(trace.to_vec()).expect("a trace line is text");
    let is_one_field = trace
        .trim_end()
        .lines()
        .skip(1)
        .all(|line| line.starts_with([' ', '\t']));
    assert!(trace.starts_with("Received: from ") && is_one_field, "{trace}");
    let mut expected = sent.case.expected.clone();
    expected["headers"].as_array_mut().unwrap().push(json!("Received"));
    // It repeats the address, in UTF-8 where that is what the address needs.
    expected["trace_bytes"] = json!(trace.len());
    jury.hear(&expected, came);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postfix_passes_on_is_what_it_was_given() {
    let n = number("HIKYAKU_TEST_RELAYED", N_MESSAGES) as usize;
    let sink = Sink::start(SinkOptions::default()).await.unwrap();
    let postfix = Postfix::start(sink.addr());
    let mut chunking = postfix.relay();
    chunking.chunking = 8;
    let relays = [postfix.relay(), chunking];
    let mut jury = Jury::sit();
    for start in (0..n).step_by(BATCH) {
        let batch: Vec<Sent> = (start..n.min(start + BATCH)).map(sent).collect();
        let (some, others) = batch.split_at(batch.len() / 2);
        tokio::join!(hand_over(&relays[0], some), hand_over(&relays[1], others));
        let end = start + batch.len();
        eventually(async || sink.sink().stats().accepted >= end as u64).await;
        let came: Vec<Arc<Captured>> = sink.sink().newest(batch.len());
        let by_address: HashMap<&str, &Sent> = batch.iter().map(|sent| (sent.envelope.to().as_str(), sent)).collect();
        assert_eq!(came.len(), batch.len());
        for captured in &came {
            let sent = by_address.get(captured.to[0].as_str());
            judge(&mut jury, sent.unwrap_or_else(|| panic!("nobody wrote to {:?}", captured.to)), captured);
        }
    }
    assert_eq!(sink.sink().stats().accepted, n as u64, "each once");
    let heard = jury.verdict();
    println!(
        "{n} messages came through Postfix as they were; {} RSA signatures verified by dkimpy and Mail::DKIM, {} Ed25519 \
         signatures by dkimpy",
        heard.rsa, heard.ed25519
    );
}
