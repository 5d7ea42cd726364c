//! What the start and the doctor say about where mail goes, held against the relays that are stored: never one, one, one that is paused,
//! the last one removed.

use crate::support::program::{Place, Running};

const NOTHING_LEAVES: &str = "nothing leaves this machine";

/// What `serve` says when it starts now.
fn banner(place: &Place) -> String {
    let mut serving = place.serve();
    serving.read_until("Ready");
    let said = serving.banner.clone();
    assert_eq!(serving.signal("TERM").0, Some(0));
    said
}

/// What the doctor says now, and whether it is content.
fn doctor(place: &Place) -> (bool, String) {
    let ended = place.run(&["doctor"]);
    (ended.code == Some(0), ended.out)
}

fn relay(place: &Place, args: &[&str]) {
    let ended = place.run(&[&["relay"][..], args].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

fn sink(place: &Place) -> Running {
    Running::start(place.command(&["sink", "--listen", "127.0.0.1:0", "--auth", "user:hunter2"]), "Listening")
}

#[test]
fn what_is_said_about_where_mail_goes_is_so() {
    let place = Place::new();
    let sink = sink(&place);
    let address = sink.url.trim_end_matches(',').to_owned();

    // There never was a relay.
    assert!(banner(&place).contains(NOTHING_LEAVES));
    let (is_content, said) = doctor(&place);
    assert!(
        is_content && said.contains("built-in capture relay") && said.matches(NOTHING_LEAVES).count() == 3,
        "{said}"
    );

    // One is stored: mail leaves, and unsubscribe links and signatures are judged by that.
    let url = format!("smtp://user:hunter2@{address}?tls=none");
    relay(&place, &["put", "primary", "--url", &url]);
    let said = banner(&place);
    assert!(
        said.contains(&format!("primary: smtp://user:***@{address}")) && !said.contains(NOTHING_LEAVES),
        "{said}"
    );
    let (is_content, said) = doctor(&place);
    assert!(is_content && said.contains("primary answers in clear, logged in"), "{said}");
    assert!(!said.contains(NOTHING_LEAVES) && !said.contains("hunter2"), "{said}");
    for warning in ["warn  signatures", "warn  public address"] {
        assert!(said.contains(warning), "{warning}: {said}");
    }

    // It is paused.
    relay(&place, &["pause", "primary", "--reason", "moving house"]);
    let said = banner(&place);
    assert!(
        said.contains("paused: moving house") && said.contains("nothing goes out before a relay is resumed"),
        "{said}"
    );
    assert!(!said.contains(NOTHING_LEAVES), "{said}");
    let (_, said) = doctor(&place);
    assert!(said.contains("primary is paused (moving house)") && said.contains("all are paused"), "{said}");
    assert!(!said.contains(NOTHING_LEAVES), "{said}");

    // The last one is removed: mail waits, and the capture relay takes nothing.
    relay(&place, &["remove", "primary"]);
    let said = banner(&place);
    assert!(
        said.contains("none: the last one was removed, and mail waits") && !said.contains(NOTHING_LEAVES),
        "{said}"
    );
    let (_, said) = doctor(&place);
    assert!(
        said.contains("none: the last one was removed, and mail waits") && !said.contains(NOTHING_LEAVES),
        "{said}"
    );
}

#[test]
fn the_doctor_tests_each_stored_relay_and_the_configured_one_once() {
    let place = Place::new();
    let sink = sink(&place);
    let address = sink.url.trim_end_matches(',').to_owned();
    assert_eq!(place.run(&["migrate"]).code, Some(0));
    relay(
        &place,
        &[
            "put",
            "good",
            "--url",
            &format!("smtp://user:hunter2@{address}?tls=none"),
        ],
    );
    relay(
        &place,
        &[
            "put",
            "wrong",
            "--url",
            &format!("smtp://user:hunter3@{address}?tls=none"),
        ],
    );
    let (is_content, said) = doctor(&place);
    assert!(!is_content && said.contains("good answers"), "{said}");
    let failed = said.lines().find(|line| line.starts_with("fail")).expect("one fails");
    assert!(failed.contains("wrong: ") && failed.contains("hikyaku relay test wrong"), "{failed}");
    assert!(!said.contains("hunter"), "{said}");

    // The configured relay replaces the stored one of its name at the next start: that one is not asked.
    let url = format!("smtp://user:hunter2@{address}?tls=none&name=wrong");
    let ended = place.run(&["doctor", "--relay-url", &url]);
    assert_eq!(ended.code, Some(0), "{}", ended.out);
    assert_eq!(ended.out.matches("answers in clear, logged in").count(), 2, "{}", ended.out);
}
