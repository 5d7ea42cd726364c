//! `hikyaku relay`: relays kept from the command line, and tested over real TLS. Passwords go in and never come out.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::program::{Ended, KEY, Place, Running, ended, ended_with_input};

const SECRET: &str = "hunter2-secret";

/// Runs the program and looks that it lets no secret out.
fn run(place: &Place, args: &[&str]) -> Ended {
    quiet(ended(place.command(args)))
}

fn quiet(ended: Ended) -> Ended {
    let said = format!("{}{}", ended.out, ended.err);
    // What AUTH PLAIN writes of it, and what AUTH LOGIN writes.
    for secret in [SECRET, "AGFubmEAaHVudGVyMi", "aHVudGVyMi1zZWNyZXQ"] {
        assert!(!said.contains(secret), "{said}");
    }
    ended
}

#[test]
fn a_relay_is_kept_from_the_command_line() {
    let place = Place::new();
    let none = run(&place, &["relay", "list"]);
    assert!(none.code == Some(0) && none.out.contains("relay put NAME"), "{none:?}");
    let url = format!("smtp://anna:{SECRET}@mail.example.org:587");
    let put = run(&place, &["relay", "put", "primary", "--url", &url, "--per-day", "5000"]);
    assert_eq!(put.code, Some(0), "{put:?}");
    assert!(
        put.out
            .contains("primary is added: smtp://anna:***@mail.example.org:587"),
        "{}",
        put.out
    );
    let put = run(&place, &["relay", "put", "primary", "--weight", "3", "--per-second", "20"]);
    assert!(put.out.contains("primary is changed"), "{put:?}");

    let list = run(&place, &["relay", "list"]);
    let row = list
        .out
        .lines()
        .find(|line| line.starts_with("primary"))
        .expect("it is listed");
    for part in ["active", " 3 ", "20/s 5000/d", "smtp://anna:***@mail.example.org:587"] {
        assert!(row.contains(part), "{part}: {row}");
    }
    let paused = run(&place, &["relay", "pause", "primary", "--reason", "moving house"]);
    assert_eq!(paused.code, Some(0));
    assert!(run(&place, &["relay", "list"]).out.contains("moving house"));
    assert!(
        run(&place, &["relay", "put", "primary", "--weight", "2"])
            .err
            .contains("moving house"),
        "still paused"
    );
    assert!(run(&place, &["relay", "resume", "primary"]).out.contains("goes on"));
    assert_eq!(run(&place, &["relay", "resume", "primary"]).code, Some(0), "twice is as good as once");
    assert_eq!(run(&place, &["relay", "remove", "primary"]).code, Some(0));
    let gone = run(&place, &["relay", "remove", "primary"]);
    assert_eq!(gone.code, Some(2));
    assert!(gone.err.contains("relay list"), "{}", gone.err);
}

#[test]
fn what_is_shown_can_be_put_again() {
    let place = Place::new();
    let url = format!("smtp://anna:{SECRET}@mail.example.org:587");
    let put = ended_with_input(place.command(&["relay", "put", "primary", "--url", "-"]), &format!("{url}\n"));
    assert_eq!(quiet(put).code, Some(0));
    let shown = run(&place, &["relay", "show", "primary"]).out;
    let mut spec: serde_json::Value = serde_json::from_str(&shown).expect("JSON is printed");
    spec["weight"] = 7.into();
    spec["url"] = spec["url"].as_str().unwrap().replace("587", "2587").into();
    spec["quiet_hours"] = serde_json::json!({"from": "22:00", "until": "07:00", "time_zone": "Europe/Berlin"});
    let file = place.file("primary.json", &spec.to_string());
    assert_eq!(run(&place, &["relay", "put", "primary", "--spec", &file]).code, Some(0));
    // The password is the stored one: with another user it is asked for.
    spec["url"] = spec["url"].as_str().unwrap().replace("anna", "bob").into();
    let put = ended_with_input(place.command(&["relay", "put", "primary", "--spec", "-"]), &spec.to_string());
    assert!(put.code == Some(2) && put.err.contains("write the password again"), "{put:?}");
    let again: serde_json::Value = serde_json::from_str(&run(&place, &["relay", "show", "primary"]).out).unwrap();
    assert_eq!((&again["weight"], &again["url"]), (&7.into(), &"smtp://anna:***@mail.example.org:2587".into()));
    assert_eq!(again["quiet_hours"]["time_zone"], "Europe/Berlin");
}

#[test]
fn what_cannot_be_is_refused_and_names_the_field() {
    let place = Place::new();
    let file = |text: &str| place.file("spec.json", text);
    let clear = format!("smtp://anna:{SECRET}@mail.example.org?tls=none");
    for (args, part) in [
        (vec!["put", "a b", "--url", "smtp://h"], "name: "),
        (vec!["put", "..", "--url", "smtp://h"], "name: "),
        (vec!["put", "r"], "--url"),
        (vec!["put", "r", "--weight", "3"], "--url"),
        (vec!["put", "r", "--url", "mail.example.org"], "url: "),
        (vec!["put", "r", "--url", &clear], "clear"),
        (vec!["put", "r", "--url", "smtp://h?rate=5"], "limits.per_sec"),
        (vec!["put", "r", "--url", "smtp://h", "--weight", "101"], "weight: "),
        (vec!["put", "r", "--url", "smtp://h", "--weight", "heavy"], "--weight"),
        (vec!["put", "r", "--url", "smtp://h", "--spec", "x"], "--spec"),
        (vec!["put", "r", "--spec", "/nowhere.json"], "/nowhere.json"),
        (vec!["show", "r"], "relay list"),
        (vec!["pause", "r"], "relay list"),
        (vec!["test", "r"], "relay list"),
        (vec!["test", "r", "--to", "anna@example.org"], "--from"),
    ] {
        let ended = run(&place, &[&["relay"][..], &args].concat());
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(ended.err.contains(part), "{args:?}: {}", ended.err);
    }
    for (text, part) in [
        ("{", "--spec"),
        (r#"{"weight": 1}"#, "url"),
        (r#"{"url": "smtp://h", "speed": 5}"#, "speed"),
        (r#"{"url": "smtp://h", "limits": {"per_sec": 0}}"#, "limits/per_sec: "),
        (r#"{"url": "smtp://h", "lanes": [{"lane": "Gmail!"}]}"#, "lanes/0/lane: "),
    ] {
        let ended = run(&place, &["relay", "put", "r", "--spec", &file(text)]);
        assert_eq!(ended.code, Some(2), "{text}: {ended:?}");
        assert!(ended.err.contains(part), "{text}: {}", ended.err);
    }
    assert!(run(&place, &["relay", "list"]).out.contains("No relay"), "nothing was stored");
}

#[test]
fn a_relay_that_a_broadcast_names_is_kept() {
    let place = Place::new();
    let serving = place.serve();
    assert_eq!(run(&place, &["relay", "put", "slow", "--url", "smtp://127.0.0.1:1"]).code, Some(0));
    let to = place.file("people.csv", "email\nanna@example.org\n");
    let html = place.file("body.html", "<p>Hello</p>");
    let send = |relay: &str| {
        let args = [
            "send",
            "--from",
            "news@example.org",
            "--subject",
            "Hi",
            "--html",
            &html,
            "--to",
            &to,
            "--relay",
            relay,
            "--no-wait",
        ];
        let mut command = place.command(&args);
        command.env("HIKYAKU_SERVER", &serving.url).env("HIKYAKU_API_KEY", KEY);
        ended(command)
    };
    assert_eq!(run(&place, &["relay", "pause", "slow"]).code, Some(0));
    let unknown = send("fast");
    assert!(unknown.code == Some(3) && format!("{unknown:?}").contains("known are slow"), "{unknown:?}");
    let sent = send("slow");
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let refused = run(&place, &["relay", "remove", "slow"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err.contains("one broadcast is under way") && refused.err.contains("pause"),
        "{}",
        refused.err
    );
    assert!(run(&place, &["relay", "list"]).out.contains("slow"));
}

/// A certificate for `localhost` in files: the arguments of `sink`, and the file that trusts it.
fn certificate(place: &Place) -> (Vec<String>, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = place.file("cert.pem", &made.cert.pem());
    let key = place.file("key.pem", &made.signing_key.serialize_pem());
    (vec!["--cert".into(), cert.clone(), "--key".into(), key], cert)
}

/// The capture relay as a process of its own, and its port.
fn sink(place: &Place, args: &[&str]) -> (Running, String) {
    let args = [&["sink", "--listen", "127.0.0.1:0"][..], args].concat();
    let running = Running::start(place.command(&args), "Listening");
    let port = running.url.trim_end_matches(',').rsplit_once(':').unwrap().1.to_owned();
    (running, port)
}

fn put(place: &Place, url: &str) {
    let put = run(place, &["relay", "put", "r", "--url", url]);
    assert_eq!(put.code, Some(0), "{put:?}");
}

/// `relay test` of a machine that trusts nothing but this certificate.
fn test_trusting(place: &Place, trusted: &str, args: &[&str]) -> Ended {
    let mut command: Command = place.command(&[&["relay", "test", "r"][..], args].concat());
    command
        .env("SSL_CERT_FILE", trusted)
        .env("SSL_CERT_DIR", place.path().join("none"));
    quiet(ended(command))
}

#[test]
fn a_test_goes_over_starttls_and_implicit_tls() {
    for (mode, words) in [
        ("starttls", "encrypted by STARTTLS, logged in"),
        ("implicit", "encrypted by TLS, logged in"),
    ] {
        let place = Place::new();
        let (files, trusted) = certificate(&place);
        let login = format!("anna:{SECRET}");
        let mut args = vec!["--tls", mode, "--auth", &login];
        args.extend(files.iter().map(String::as_str));
        let (sink, port) = sink(&place, &args);
        put(&place, &format!("smtp://{login}@localhost:{port}?tls={mode}"));

        let tested = test_trusting(&place, &trusted, &[]);
        assert_eq!(tested.code, Some(0), "{tested:?}");
        for part in [
            words,
            "Nothing was sent",
            "TLS 1.3",
            "> AUTH PLAIN ***",
            "< 235",
            "> QUIT",
        ] {
            assert!(tested.out.contains(part), "{mode}: {part}: {}", tested.out);
        }
        let to = ["--to", "bo@example.org", "--from", "ops@example.org"];
        let tested = test_trusting(&place, &trusted, &to);
        assert_eq!(tested.code, Some(0), "{tested:?}");
        assert!(tested.out.contains("took the message for bo@example.org"), "{}", tested.out);

        let other = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
        let other = place.file("other.pem", &other.cert.pem());
        let tested = test_trusting(&place, &other, &[]);
        assert_eq!(tested.code, Some(1), "{tested:?}");
        assert!(tested.out.contains("the name localhost") && !tested.out.contains("> AUTH"), "{}", tested.out);

        put(&place, &format!("smtp://anna:***@localhost:{port}?tls={mode}&verify=no"));
        assert_eq!(test_trusting(&place, &other, &[]).code, Some(0), "on this machine it may go unchecked");
        let (code, counts) = sink.signal("INT");
        assert_eq!(code, Some(0));
        assert!(
            counts
                .lines()
                .any(|line| line.trim() == "1  messages answered with 250"),
            "{counts}"
        );
    }
}

#[test]
fn a_wrong_guess_at_the_encryption_is_told() {
    let place = Place::new();
    let (_clear, port) = sink(&place, &[]);
    put(&place, &format!("smtp://localhost:{port}?tls=starttls"));
    let tested = run(&place, &["relay", "test", "r"]);
    assert_eq!(tested.code, Some(1));
    assert!(tested.out.contains("does not offer STARTTLS"), "{}", tested.out);
}

#[test]
fn a_login_that_is_refused_is_told_without_the_password() {
    let place = Place::new();
    let (_sink, port) = sink(&place, &["--auth", "anna:right-one"]);
    for (auth, said) in [
        ("plain", "> AUTH PLAIN ***"),
        ("login", "> AUTH LOGIN"),
        ("xoauth2", "> AUTH XOAUTH2 ***"),
    ] {
        put(&place, &format!("smtp://anna:{SECRET}@127.0.0.1:{port}?auth={auth}"));
        let tested = run(&place, &["relay", "test", "r"]);
        assert_eq!(tested.code, Some(1), "{tested:?}");
        for part in [
            said,
            "< 535",
            "class auth_required, the relay's failure",
            "Check user and password",
        ] {
            assert!(tested.out.contains(part), "{auth}: {part}: {}", tested.out);
        }
    }
    let tested = run(&place, &["relay", "test", "r", "--to", "nobody", "--from", "ops@example.org"]);
    assert!(tested.code == Some(2) && tested.err.contains("--to: "), "{tested:?}");
}

#[test]
fn a_test_of_a_relay_that_says_nothing_ends_by_itself() {
    let place = Place::new();
    // The step's own limit, and where the step may take five minutes, the limit of the whole test.
    for (rule, options, least) in [("banner=silence", "?banner_secs=1", 1), ("ehlo=silence", "", 20)] {
        let (_sink, port) = sink(&place, &["--rule", rule]);
        put(&place, &format!("smtp://127.0.0.1:{port}{options}"));
        let begun = Instant::now();
        let tested = run(&place, &["relay", "test", "r"]);
        let took = begun.elapsed();
        assert_eq!(tested.code, Some(1), "{tested:?}");
        assert!(tested.out.contains("fail"), "{}", tested.out);
        assert!(took >= Duration::from_secs(least), "{rule}: it took {took:?}");
        // Twice what is promised: the machine may be slow, but five minutes are never waited.
        assert!(took < Duration::from_secs(80), "{rule}: it took {took:?}");
    }
}
