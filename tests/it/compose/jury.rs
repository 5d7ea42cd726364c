//! Three readers of mail that nobody here wrote, each in a process of its own: Python's `email` in strict mode, dkimpy, and Mail::DKIM.
//! They hear messages one by one and say at the end how many were wrong. Mail::DKIM knows no Ed25519, so of the signatures only
//! the RSA ones have two judges. Never holds the messages: they go through pipes.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

struct Judge {
    name: &'static str,
    process: Child,
    ear: BufWriter<ChildStdin>,
}

/// The three, and what they heard so far.
pub struct Jury {
    judges: [Judge; 3],
    pub heard: Heard,
}

/// How much was heard.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub messages: u64,
    pub rsa: u64,
    pub ed25519: u64,
}

impl std::ops::AddAssign for Heard {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.rsa += other.rsa;
        self.ed25519 += other.ed25519;
    }
}

impl Jury {
    pub fn sit() -> Self {
        let judges = [
            ("Python's email", debian_python(), "check_mime.py"),
            ("dkimpy", debian_python(), "check_dkim.py"),
            ("Mail::DKIM", "perl".into(), "check_dkim.pl"),
        ];
        Self {
            judges: judges.map(|(name, program, script)| judge(name, &program, script)),
            heard: Heard::default(),
        }
    }

    /// Has a message judged: its bytes, and what must be found in it, as [`super::letters::Case::expected`] says it.
    pub fn hear(&mut self, expected: &Value, bytes: &[u8]) {
        let number = |member: &str| {
            expected[member]
                .as_u64()
                .expect("a case says how many signatures there are")
        };
        self.heard += Heard {
            messages: 1,
            rsa: number("rsa"),
            ed25519: number("ed25519"),
        };
        let signed = json!({ "zone": expected["zone"], "rsa": expected["rsa"], "ed25519": expected["ed25519"] });
        let line = format!("{signed}\t{expected}\t{}\n", STANDARD.encode(bytes));
        for judge in &mut self.judges {
            // A judge that is gone is asked why at the end.
            drop(judge.ear.write_all(line.as_bytes()));
        }
    }

    /// Waits for the verdicts, all of which must be that nothing was wrong.
    pub fn verdict(self) -> Heard {
        let Heard { messages, rsa, ed25519 } = self.heard;
        let wanted = [
            format!("{messages} messages, 0 wrong"),
            format!("{messages} messages, {rsa} RSA and {ed25519} Ed25519 signatures verified, 0 wrong"),
            format!("{messages} messages, {rsa} RSA signatures verified, {ed25519} others not, 0 wrong"),
        ];
        // All are told first that nothing follows, so that they come to their ends side by side.
        let ended = self.judges.map(|judge| {
            drop(judge.ear);
            (judge.name, judge.process)
        });
        for ((name, process), wanted) in ended.into_iter().zip(wanted) {
            let output = process.wait_with_output().expect("a judge comes to an end");
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said.trim(), wanted, "{name}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{name}: {}", output.status);
        }
        self.heard
    }
}

/// Debian's own Python, which has dkimpy and PyNaCl; another one in the PATH would not.
fn debian_python() -> String {
    std::env::var("AIOSMTPD_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".into())
}

fn judge(name: &'static str, program: &str, script: &str) -> Judge {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/compose"));
    let mut process = Command::new(program)
        .arg(folder.join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("this test needs {program} ({e}): scripts/test installs it"));
    let ear = BufWriter::new(process.stdin.take().expect("standard input is piped"));
    Judge { name, process, ear }
}
