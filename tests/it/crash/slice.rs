//! A slice of `hikyaku selftest`: a minute of mixed harm on each database, and the oracle's verdict. No time is held against the
//! program here, because tests run on machines that are busy with other things. `HIKYAKU_TEST_SEED=n` repeats a run.

use std::process::Command;

use crate::support::program::{Place, ended};

/// Small broadcasts, so that many of them meet each fault in a minute, and a lease that lapses in it.
const SIZE: [&str; 5] = ["--recipients", "2000", "--lease-secs", "6", "--untimed"];

fn selftest(place: &Place, more: &[&str]) -> Command {
    let mut command = place.command(&["selftest"]);
    command.args(SIZE).args(more);
    command.args(["--seed", &super::seed().to_string()]);
    // Where the logs of a run that failed are kept.
    command.env("TMPDIR", std::env::temp_dir());
    command
}

fn holds(command: Command) {
    let ended = ended(command);
    println!("{}{}", ended.out, ended.err);
    assert_eq!(ended.code, Some(0), "the oracle found something: see above");
    assert!(ended.out.contains("every rule held"));
}

#[test]
fn a_minute_of_harm_on_sqlite_loses_nobody() {
    let mixture = "kill,accept,term,twice,stop,relay,clock";
    holds(selftest(&Place::new(), &["--minutes", "1", "--faults", mixture]));
}

#[test]
fn a_minute_of_harm_to_three_nodes_on_postgres_loses_nobody() {
    let server = std::env::var("HIKYAKU_TEST_POSTGRES_URL").expect("scripts/test sets HIKYAKU_TEST_POSTGRES_URL");
    let mixture = "kill,accept,term,twice,stop,relay,cut,clock";
    let on_server = [
        "--minutes",
        "1",
        "--faults",
        mixture,
        "--outage-secs",
        "3",
        "--database-url",
        &server,
    ];
    holds(selftest(&Place::new(), &on_server));
}

#[test]
fn a_limit_is_kept_by_three_nodes_that_come_and_go() {
    let server = std::env::var("HIKYAKU_TEST_POSTGRES_URL").expect("scripts/test sets HIKYAKU_TEST_POSTGRES_URL");
    let limited = [
        "--faults",
        "kill",
        "--times",
        "6",
        "--rate",
        "400",
        "--database-url",
        &server,
    ];
    holds(selftest(&Place::new(), &limited));
}
