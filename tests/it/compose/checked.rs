//! Thousands of messages made of hostile names, subjects, texts and files, read by programs that nobody here wrote: Python's
//! `email` in strict mode, and dkimpy and Mail::DKIM for the signatures, which find their keys in the very lines that
//! `hikyaku dkim create` prints. Ed25519 has one judge, dkimpy: Mail::DKIM verifies RSA only.
//!
//! `HIKYAKU_TEST_MESSAGES` says how many (`HIKYAKU_TEST_MESSAGES=100000 scripts/test a_strict_parser`), and
//! `HIKYAKU_TEST_SEED` which ones.

use std::num::NonZero;
use std::thread;

use super::jury::{Heard, Jury};
use super::letters::{Case, numbered};

const N_MESSAGES: usize = 2_000;
const SEED: u64 = 20_260_921;
/// One message in so many is composed twice, by two composers.
const TWICE: usize = 10;

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => default,
    }
}

#[test]
fn a_strict_parser_finds_nothing_but_what_was_put_in() {
    let n = number("HIKYAKU_TEST_MESSAGES", N_MESSAGES as u64) as usize;
    let seed = number("HIKYAKU_TEST_SEED", SEED);
    let benches = thread::available_parallelism().map_or(1, NonZero::get);
    let mut heard = Heard::default();
    thread::scope(|scope| {
        let tried = (0..benches).map(|bench| scope.spawn(move || tried((bench..n).step_by(benches), seed)));
        let tried: Vec<_> = tried.collect();
        for bench in tried {
            match bench.join() {
                Ok(of_bench) => heard += of_bench,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    assert_eq!(heard.messages, n as u64);
    println!(
        "HIKYAKU_TEST_SEED={seed}: {n} messages without a defect; {} RSA signatures verified by dkimpy and Mail::DKIM, \
         {} Ed25519 signatures by dkimpy",
        heard.rsa, heard.ed25519
    );
}

/// Has a jury of its own judge these messages.
fn tried(messages: impl Iterator<Item = usize>, seed: u64) -> Heard {
    let mut jury = Jury::sit();
    for i in messages {
        let case = numbered(seed, i);
        jury.hear(&case.expected, &bytes(&case, i));
    }
    jury.verdict()
}

fn bytes(case: &Case, i: usize) -> Vec<u8> {
    let bytes = case.bytes();
    if i.is_multiple_of(TWICE) {
        assert!(bytes == case.bytes(), "message {i} is not the same the second time");
    }
    bytes
}
