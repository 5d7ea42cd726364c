//! Processes that stay up: what they say at the start, how they end, and what may be done beside them.

use crate::support::program::{KEY, Place, Running, ended};

#[test]
fn serving_says_where_and_how_the_first_user_is_made_and_ends_in_good_order() {
    let place = Place::new();
    let mut serving = place.serve();
    serving.read_until("Ready");
    for part in ["sqlite://", "nothing leaves this machine", "/setup?token="] {
        assert!(serving.banner.contains(part), "{part} in {}", serving.banner);
    }
    assert!(!serving.banner.contains(KEY));
    let healthy = place.run(&["doctor", "--ready", "--health", &serving.url]);
    assert_eq!(healthy.code, Some(0), "{}", healthy.out);
    assert_eq!(serving.signal("TERM").0, Some(0));
}

#[test]
fn a_worker_ends_in_good_order_too() {
    let place = Place::new();
    let mut command = place.command(&["worker"]);
    command.env("HIKYAKU_RELAY_URL", "smtp://127.0.0.1:1");
    let mut worker = Running::start(command, "relay ");
    worker.read_until("Ready");
    assert!(!worker.banner.contains("listening"), "{}", worker.banner);
    assert_eq!(worker.signal("INT").0, Some(0));
}

#[test]
fn a_second_process_on_one_database_file_is_told_why_it_may_not_send() {
    let place = Place::new();
    let _serving = place.serve();
    let second = place.run(&["worker", "--relay-url", "smtp://127.0.0.1:1"]);
    assert_eq!(second.code, Some(1));
    assert!(second.err.contains("PostgreSQL"), "{}", second.err);
}

#[test]
fn keys_are_made_and_revoked_while_the_server_runs() {
    let place = Place::new();
    let serving = place.serve();
    let made = place.run(&["key", "create", "--name", "shop", "--scope", "read,send"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    let key = made.out.trim();
    assert!(key.starts_with("hk_") && made.out.lines().count() == 1, "{}", made.out);
    let status = |key: &str| {
        let mut command = place.command(&["status", "--server", &serving.url]);
        command.env("HIKYAKU_API_KEY", key);
        ended(command)
    };
    assert_eq!(status(key).code, Some(0), "{}", status(key).err);
    let wrong = status("hk_0000000000000000_0000");
    assert_eq!(wrong.code, Some(3));
    assert!(wrong.err.contains("hikyaku key create"), "{}", wrong.err);

    let listed = place.run(&["key", "list"]);
    let id = listed
        .out
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next())
        .expect("a key is listed");
    assert!(listed.out.contains("send,read") && listed.out.contains("shop"), "{}", listed.out);
    assert!(!listed.out.contains(key.rsplit('_').next().unwrap()), "the secret is never shown again");
    assert_eq!(place.run(&["key", "revoke", id]).code, Some(0));
    assert_eq!(place.run(&["key", "revoke", id]).code, Some(1));
    assert!(place.run(&["key", "list"]).out.contains("revoked"));
}
