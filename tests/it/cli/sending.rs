//! `send` and `status` against a server: a file in, a broadcast watched to its end, and the exit codes that scripts rely on.

use crate::support::program::{Ended, KEY, Place, Running, ended, ended_with_input};

const SENDER: [&str; 4] = [
    "--from",
    "News <news@example.org>",
    "--subject",
    "Hello {{ name|default('you') }}",
];

/// `hikyaku send` with a sender, a subject and a body, to a server.
fn send(place: &Place, serving: &Running, args: &[&str]) -> Ended {
    ended(send_command(place, serving, args))
}

fn send_command(place: &Place, serving: &Running, args: &[&str]) -> std::process::Command {
    let html = place.file("body.html", "<p>Hello {{ name|default('there') }}</p>");
    let all = [&["send"][..], &SENDER, &["--html", &html], args].concat();
    let mut command = place.command(&all);
    command.env("HIKYAKU_SERVER", &serving.url).env("HIKYAKU_API_KEY", KEY);
    command
}

/// The id in what `send` printed.
fn id(ended: &Ended) -> String {
    let words = ended.out.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let found = words.into_iter().find(|word| word.starts_with("brd_"));
    found.unwrap_or_else(|| panic!("no id in {ended:?}")).to_owned()
}

#[test]
fn a_table_of_recipients_is_sent_and_its_status_is_told() {
    let (place, table) = (
        Place::new(),
        "Email,Name,city\nanna@example.org,Anna,Bern\nbob@example.org,Bob,\nANNA@example.org,Anna,Bern\n",
    );
    let serving = place.serve();
    let to = place.file("people.csv", table);
    let sent = send(&place, &serving, &["--to", &to]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(sent.out.contains("2 accepted = 2 sent (the other 7 are 0)"), "{}", sent.out);
    assert!(sent.out.contains("1 recipient stood more than once"), "{}", sent.out);

    // From the database, while the server runs; then from the server.
    let id = id(&sent);
    let list = place.run(&["status"]);
    assert!(list.out.contains(&id) && list.out.contains("completed"), "{list:?}");
    let one = place.run(&["status", &id]);
    assert_eq!(one.code, Some(0), "{one:?}");
    assert!(one.out.contains("2 accepted = 2 sent"), "{}", one.out);
    let json = place.run(&["status", &id, "--json", "--server", &serving.url, "--key", KEY]);
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON is printed");
    assert_eq!(json["counts"]["sent"], 2);
}

#[test]
fn other_forms_of_recipients_are_seen_by_themselves() {
    let place = Place::new();
    let serving = place.serve();
    let array =
        place.file("people.json", "[\"anna@example.org\",\n {\"email\": \"bob@example.org\", \"name\": \"Bob\"}]");
    let sent = send(&place, &serving, &["--to", &array]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(sent.out.contains("2 accepted = 2 sent"), "{}", sent.out);
    let lines = "{\"email\": \"anna@example.org\"}\n{\"email\": \"bob@example.org\", \"data\": {\"n\": 1}}\n";
    let piped = ended_with_input(send_command(&place, &serving, &["--to", "-"]), lines);
    assert_eq!(piped.code, Some(0), "{piped:?}");
}

#[test]
fn one_wrong_recipient_refuses_all_unless_told_otherwise() {
    let place = Place::new();
    let serving = place.serve();
    let to = place.file("people.csv", "email\nanna@example.org\nbob\n");
    let refused = send(&place, &serving, &["--to", &to]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(
        refused.err.contains("#/recipients/1/email") && refused.err.contains("no @ in 'bob'"),
        "{}",
        refused.err
    );
    assert!(place.run(&["status"]).out.contains("no broadcasts yet"));
    let sent = send(&place, &serving, &["--to", &to, "--permissive"]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(sent.out.contains("1 recipient left out") && sent.out.contains("no @ in 'bob'"), "{}", sent.out);
}

#[test]
fn a_table_that_cannot_be_read_sends_nothing() {
    let place = Place::new();
    let serving = place.serve();
    let to = place.file("people.csv", "email,name\nanna@example.org,Anna\nbob@example.org\n");
    let refused = send(&place, &serving, &["--to", &to]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.err.contains("people.csv: line 3"), "{}", refused.err);
    assert!(place.run(&["status"]).out.contains("no broadcasts yet"));
}

#[test]
fn a_message_that_was_not_sent_shows_in_the_exit_code() {
    let place = Place::new();
    let serving = place.serve();
    let to = place.file("people.csv", "email\nanna@example.org\nreject-550-5.1.1@example.org\n");
    let sent = send(&place, &serving, &["--to", &to]);
    assert_eq!(sent.code, Some(4), "{sent:?}");
    assert!(sent.out.contains("2 accepted = 1 sent + 1 failed"), "{}", sent.out);
    assert!(sent.out.contains("failed  reject-550-5.1.1@example.org  550"), "{}", sent.out);
    assert_eq!(place.run(&["status", &id(&sent)]).code, Some(4));
}

#[test]
fn a_dry_run_and_a_later_start_return_at_once() {
    let place = Place::new();
    let serving = place.serve();
    let to = place.file("people.csv", "email\nanna@example.org\n");
    let checked = send(&place, &serving, &["--to", &to, "--dry-run"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.out.contains("1 recipient. Nothing was sent"), "{}", checked.out);
    assert!(place.run(&["status"]).out.contains("no broadcasts yet"));
    // Far ahead of any clock that runs this test, within the year that may be planned.
    let later = jiff::Timestamp::from_second(in_a_month())
        .expect("a month from now exists")
        .to_string();
    let planned = send(&place, &serving, &["--to", &to, "--send-at", &later]);
    assert_eq!(planned.code, Some(0), "{planned:?}");
    assert!(place.run(&["status"]).out.contains("scheduled"));
}

/// Seconds since the epoch, a month from now, by the clock of the file system, which is the machine's.
fn in_a_month() -> i64 {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    let now = file
        .as_file()
        .metadata()
        .and_then(|about| about.modified())
        .expect("files have times");
    let since = now.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_secs() as i64 + 30 * 86_400
}

#[test]
fn the_same_key_never_sends_twice() {
    let place = Place::new();
    let serving = place.serve();
    let to = place.file("people.csv", "email\nanna@example.org\n");
    let once = send(&place, &serving, &["--to", &to, "--idempotency-key", "news-1"]);
    let twice = send(&place, &serving, &["--to", &to, "--idempotency-key", "news-1"]);
    assert_eq!((once.code, twice.code), (Some(0), Some(0)), "{once:?} {twice:?}");
    assert_eq!(id(&once), id(&twice));
}

#[test]
fn a_server_that_is_away_is_told_from_one_that_refuses() {
    let place = Place::new();
    // A port that was free a moment ago and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let away = format!("http://127.0.0.1:{port}");
    let html = place.file("body.html", "<p>Hi</p>");
    let all = [
        &["send"][..],
        &SENDER,
        &["--html", &html, "--all", "--server", &away, "--key", KEY],
    ]
    .concat();
    let ended = place.run(&all);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.err.contains("hikyaku serve"), "{}", ended.err);
}
