//! Commands that need no server: help, checks, migrations, the capture relay, the demo.

use std::process::Stdio;

use crate::support::program::{Place, Running, ended};

#[test]
fn the_help_page_is_ordered_by_what_people_want() {
    let place = Place::new();
    let alone = place.run(&[]);
    assert_eq!((alone.code, alone.err.as_str()), (Some(0), ""));
    insta::assert_snapshot!("help", alone.out);
    assert_eq!(place.run(&["--help"]).out, alone.out);
}

#[test]
fn what_cannot_be_understood_exits_with_2_and_says_where() {
    let place = Place::new();
    for (args, part) in [
        (&["sned"][..], "'send'"),
        (&["demo", "--recipients", "many"], "--recipients"),
        (&["demo", "--recipients", "0"], "--recipients"),
        (&["send", "--from", "a@example.org", "--subject", "x"], "--to"),
        (&["send", "--from", "a@example.org", "--all", "--template", "tpl_1"], "hikyaku key create"),
        (&["status", "tpl_1"], "brd_"),
        (&["key", "create", "--name", "x", "--scope", "root"], "send, read, manage or admin"),
        (&["sink", "--tls", "implicit"], "--cert"),
        (&["sink", "--latency", "soon"], "20ms"),
        (&["bench", "smtp", "--latency", "0ms"], "--latency"),
        (
            &["bench", "smtp", "--source", "/nowhere/smtp-source"],
            "apt-get install --no-install-recommends postfix",
        ),
    ] {
        let ended = place.run(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(part), "{args:?}: {}", ended.err);
    }
}

#[test]
fn a_wrong_configuration_names_the_key_and_where_it_was_set() {
    let place = Place::new();
    for (args, name, word, parts) in [
        (&["serve"][..], "HIKYAKU_LISTEN", "everywhere", ["web.listen", "HIKYAKU_LISTEN"]),
        (&["worker"], "HIKYAKU_DATABASE_URL", "mysql://db/mail", ["database.url", "sqlite:"]),
        (&["key", "list"], "HIKYAKU_API_KEY", "short", ["web.api_key", "16"]),
        (&["serve", "--listen", "nowhere"], "HIKYAKU_LOG", "warn", ["web.listen", "the command line"]),
        (&["serve"], "HIKYAKU_LOG", "hikyaku=debgu", ["log.filter", "HIKYAKU_LOG"]),
    ] {
        let mut command = place.command(args);
        command.env(name, word);
        let ended = ended(command);
        assert_eq!(ended.code, Some(2), "{name}={word}: {}", ended.err);
        assert!(parts.iter().all(|part| ended.err.contains(part)), "{name}={word}: {}", ended.err);
    }
}

#[test]
fn a_relay_url_that_cannot_be_read_is_refused_without_showing_its_password() {
    let place = Place::new();
    let ended = place.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--relay-url",
        "smtp://u:hunter2@relay?tls=perhaps",
    ]);
    assert_ne!(ended.code, Some(0));
    assert!(ended.err.contains("tls"), "{}", ended.err);
    assert!(!format!("{ended:?}").contains("hunter2"));
}

#[test]
fn migrating_twice_does_nothing_the_second_time() {
    let place = Place::new();
    let before = place.run(&["doctor", "--ready"]);
    assert_eq!(before.code, Some(1), "{}", before.out);
    let first = place.run(&["migrate"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.out.contains("made the file and its schema"), "{}", first.out);
    assert!(place.run(&["migrate"]).out.contains("the schema was up to date"));
    let after = place.run(&["doctor", "--ready"]);
    assert_eq!(after.code, Some(0), "{}", after.out);
}

#[tokio::test]
async fn migrating_postgresql_says_what_it_did() {
    let database = crate::support::database::fresh_postgres().await;
    let place = Place::new();
    let migrate = ["migrate", "--database-url", &database.url];
    let first = place.run(&migrate);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.out.contains("applied") && first.out.contains("PostgreSQL"), "{}", first.out);
    assert!(place.run(&migrate).out.contains("the schema was up to date"));
    let doctor = place.run(&["doctor", "--database-url", &database.url]);
    assert_eq!(doctor.code, Some(0), "{}", doctor.out);
    assert!(doctor.out.contains("schema up to date") && doctor.out.contains("clock"), "{}", doctor.out);
}

#[test]
fn the_doctor_finds_a_relay_that_is_not_there() {
    let place = Place::new();
    // A port that was free a moment ago and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let relay = format!("smtp://user:hunter2@127.0.0.1:{port}");
    let ended = place.run(&["doctor", "--relay-url", &relay]);
    assert_eq!(ended.code, Some(1), "{}", ended.out);
    let line = ended
        .out
        .lines()
        .find(|line| line.starts_with("fail"))
        .expect("a line fails");
    assert!(line.contains("relay") && line.contains("HIKYAKU_RELAY_URL"), "{line}");
    assert!(!ended.out.contains("hunter2"));
}

#[test]
fn the_doctor_greets_a_relay_and_sends_nothing() {
    let place = Place::new();
    let sink =
        Running::start(place.command(&["sink", "--listen", "127.0.0.1:0", "--auth", "user:hunter2"]), "Listening");
    let address = sink.url.trim_end_matches(',').to_owned();
    let relay = |password: &str| format!("smtp://user:{password}@{address}");
    let good = place.run(&["doctor", "--relay-url", &relay("hunter2")]);
    assert_eq!(good.code, Some(0), "{}", good.out);
    assert!(good.out.contains("logged in"), "{}", good.out);
    assert_eq!(place.run(&["doctor", "--relay-url", &relay("hunter3")]).code, Some(1));
    let (code, counts) = sink.signal("INT");
    assert_eq!(code, Some(0));
    assert!(
        counts
            .lines()
            .any(|line| line.trim() == "0  messages answered with 250"),
        "{counts}"
    );
}

#[test]
fn the_capture_relay_stays_on_loopback_unless_told_otherwise() {
    let ended = Place::new().run(&["sink", "--listen", "0.0.0.0:0"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("--allow-outside"), "{}", ended.err);
}

#[test]
fn output_that_nobody_reads_is_no_accident() {
    let mut child = Place::new()
        .command(&["openapi"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn the_demo_sends_to_all_and_every_count_agrees() {
    let place = Place::new();
    let ended = place.run(&["demo", "--recipients", "2000", "--exit-when-done"]);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    assert!(ended.out.contains("2,000 accepted = 2,000 sent (the other 7 are 0)"), "{}", ended.out);
    assert!(ended.out.contains("2,000 messages taken by the relay"), "{}", ended.out);
    assert!(!ended.out.contains('\x1b'), "colours are for terminals");
    let left: Vec<_> = std::fs::read_dir(place.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert!(left.is_empty(), "the demo cleans up: {left:?}");
}

#[test]
fn the_demo_never_touches_what_is_set_for_real_work() {
    let place = Place::new();
    let mut command = place.command(&["demo", "--recipients", "5", "--exit-when-done"]);
    command
        .env("HIKYAKU_RELAY_URL", "smtp://127.0.0.1:1")
        .env("HIKYAKU_DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    let ended = ended(command);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    let again = place.run(&[
        "demo",
        "--data-dir",
        &place.path().display().to_string(),
        "--recipients",
        "5",
        "--exit-when-done",
    ]);
    assert_eq!(again.code, Some(0), "{}", again.err);
    let third = place.run(&["demo", "--data-dir", &place.path().display().to_string()]);
    assert_eq!(third.code, Some(2), "a directory with a database is refused: {}", third.err);
}

#[test]
fn a_demo_that_is_interrupted_does_not_claim_that_everything_agrees() {
    let place = Place::new();
    let command = place.command(&[
        "demo",
        "--recipients",
        "50000",
        "--listen",
        "127.0.0.1:0",
        "--exit-when-done",
    ]);
    let demo = Running::start(command, "Pages ");
    assert_eq!(demo.signal("INT").0, Some(130));
    let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "the demo cleans up: {left:?}");
}

#[test]
fn the_benchmark_counts_what_every_party_handed_over() {
    let place = Place::new();
    let sink = std::env::var("SMTP_SINK").unwrap_or_else(|_| "/usr/sbin/smtp-sink".into());
    let source = sink.replace("smtp-sink", "smtp-source");
    let small = [
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--latency",
        "10ms",
        "--connections",
        "4",
        "--in-flight",
        "2",
    ];
    let args = [&["bench", "smtp", "--source", &source][..], &small].concat();
    let ended = place.run(&args);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    for party in [
        "smtp-source",
        "sessions, PIPELINING",
        "sessions, CHUNKING",
        "program, PIPELINING",
        "program, CHUNKING",
    ] {
        let row = ended.out.lines().find(|line| line.starts_with(party));
        let row = row.unwrap_or_else(|| panic!("{party} is not in\n{}", ended.out));
        assert!(row.ends_with("0 / 0"), "{row}");
    }
    assert!(!ended.out.contains("aimed at"), "on another line the aims mean nothing");
}
