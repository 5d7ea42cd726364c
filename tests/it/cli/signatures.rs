//! Keys on the command line, and what the doctor says of their records: a name server of our own answers.

use crate::support::names::{Mood, NameServer};
use crate::support::program::{Ended, Place};

fn told(place: &Place, names: &NameServer, args: &[&str]) -> Ended {
    let mut command = place.command(args);
    command.env("HIKYAKU_DNS_SERVER", names.addr().to_string());
    crate::support::program::ended(command)
}

/// The doctor's line about signatures.
fn line(place: &Place, names: &NameServer) -> (Option<i32>, String) {
    let doctor = told(place, names, &["doctor"]);
    let line = doctor.out.lines().find(|line| line.contains("signatures"));
    (
        doctor.code,
        line.unwrap_or_else(|| panic!("no line about signatures:\n{}", doctor.out))
            .to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_compares_keys_with_the_dns() {
    let (place, names) = (Place::new(), NameServer::start().await);
    assert_eq!(told(&place, &names, &["migrate"]).code, Some(0));
    assert!(line(&place, &names).1.starts_with("ok"), "nothing leaves the house yet");

    let made = told(&place, &names, &["dkim", "create", "--domain", "example.org", "--selector", "s1"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    let strings: Vec<String> = made.out.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    let id = made
        .err
        .split_whitespace()
        .find(|word| word.starts_with("dkm_"))
        .unwrap()
        .to_owned();
    let refused = told(&place, &names, &["dkim", "enable", &id]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("publish it"), "{}", refused.err);

    assert_eq!(told(&place, &names, &["dkim", "enable", &id, "--unchecked"]).code, Some(0));
    let (code, said) = line(&place, &names);
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with("fail") && said.contains("s1._domainkey.example.org") && said.contains(&id),
        "{said}"
    );

    names.text("s1._domainkey.example.org", &strings);
    let (code, said) = line(&place, &names);
    assert!(code == Some(0) && said.starts_with("ok") && said.contains("published"), "{said}");
    assert_eq!(told(&place, &names, &["dkim", "check"]).code, Some(0));

    names.behave(Mood::Fails);
    let (code, said) = line(&place, &names);
    assert!(code == Some(0) && said.starts_with("warn") && said.contains("no answer"), "{said}");
}
