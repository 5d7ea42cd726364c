//! Thousands of messages made of hostile names, subjects, texts and files, read by programs that nobody here wrote: Python's
//! `email` in strict mode, and dkimpy and Mail::DKIM for the signatures, which find their keys in the very lines that
//! `hikyaku dkim create` prints.
//!
//! `HIKYAKU_TEST_MESSAGES` says how many (`HIKYAKU_TEST_MESSAGES=100000 scripts/test a_strict_parser`), and
//! `HIKYAKU_TEST_SEED` which ones.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use serde_json::Value;

use super::letters::case;

const N_MESSAGES: usize = 2_000;
const SEED: u64 = 20_260_921;
/// Messages in one file: some tens of megabytes.
const BATCH: usize = 5_000;
/// One message in so many is composed twice, by two composers.
const TWICE: usize = 10;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => default,
    }
}

#[test]
fn a_strict_parser_finds_nothing_but_what_was_put_in() {
    let n = number("HIKYAKU_TEST_MESSAGES", N_MESSAGES as u64) as usize;
    let seed = number("HIKYAKU_TEST_SEED", SEED);
    let mut random = Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("messages.jsonl");
    let (mut n_signatures, mut n_rsa) = (0, 0);
    for start in (0..n).step_by(BATCH) {
        let count = BATCH.min(n - start);
        let cases: Vec<Value> = (start..start + count).map(|i| message(&mut random, i)).collect();
        let sum = |member: &str| cases.iter().filter_map(|case| case[member].as_u64()).sum::<u64>();
        let (signatures, rsa) = (sum("signatures"), sum("rsa"));
        let lines: Vec<String> = cases.iter().map(|case| format!("{case}\n")).collect();
        std::fs::write(&file, lines.concat()).expect("the temporary folder can be written to");
        let judges = [
            (judge("python3", "check_mime.py", &file), format!("{count} messages, 0 wrong")),
            (judge(&debian_python(), "check_dkim.py", &file), format!("{signatures} signatures, 0 wrong")),
            (judge("perl", "check_dkim.pl", &file), format!("{rsa} RSA signatures, 0 wrong")),
        ];
        for (judge, verdict) in judges {
            let output = judge.wait_with_output().expect("a judge comes to an end");
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said.trim(), verdict, "{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success());
        }
        n_signatures += signatures;
        n_rsa += rsa;
    }
    println!(
        "HIKYAKU_TEST_SEED={seed}: {n} messages without a defect; {n_signatures} signatures verified by dkimpy, \
         {n_rsa} by Mail::DKIM"
    );
}

/// Debian's own Python, which has dkimpy and PyNaCl; another one in the PATH would not.
fn debian_python() -> String {
    std::env::var("AIOSMTPD_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".into())
}

fn judge(program: &str, script: &str, file: &Path) -> Child {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/compose"));
    Command::new(program)
        .arg(folder.join(script))
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("this test needs {program} ({e}): scripts/test installs it"))
}

/// One message and what a reader must find in it.
fn message(random: &mut Rng, i: usize) -> Value {
    let case = case(random, i);
    let bytes = case.bytes();
    if i.is_multiple_of(TWICE) {
        assert!(bytes == case.bytes(), "message {i} is not the same the second time");
    }
    let mut expected = case.expected;
    expected["bytes"] = STANDARD.encode(&bytes).into();
    expected
}
