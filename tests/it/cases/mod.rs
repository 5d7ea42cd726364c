//! What people's files and programs send: a table of inputs that were reported as bugs somewhere, each with the standard or the
//! reason it is judged by, put through every door that takes it. Never asks how it is done, only what comes out.

mod addresses;
mod damage;
mod letters;
mod objects;
mod tables;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::world::{Api, letter, send};
use crate::support::program::{KEY, Place, Running, ended};
use crate::ui::app::App;

/// A way into the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `POST /v1/broadcasts`, as a dry run.
    Send,
    /// `POST /v1/contacts`, then the contacts one by one.
    Contacts,
    /// The page that imports contacts.
    Page,
    /// `hikyaku send --dry-run --to FILE`.
    Command,
}

/// Doors for tables that are UTF-8, and for those that are not: a page's form is always UTF-8.
pub const ALL: &[Door] = &[Door::Send, Door::Contacts, Door::Page, Door::Command];
pub const BYTES: &[Door] = &[Door::Send, Door::Contacts, Door::Command];
/// Doors for a body with a content type.
pub const API: &[Door] = &[Door::Send, Door::Contacts];

/// What must come of it.
#[derive(Debug, Clone)]
pub enum Expected {
    /// These people: address, name, and data as JSON.
    Taken(Vec<(&'static str, Option<&'static str>, Value)>),
    /// Nobody: the line, where there is one, and a part of the sentence.
    Refused(Option<u64>, &'static str),
}

/// One row of the table.
pub struct Case {
    pub name: &'static str,
    pub content_type: &'static str,
    pub input: Vec<u8>,
    pub doors: &'static [Door],
    pub expected: Expected,
    /// The standard, or the reason.
    pub why: &'static str,
}

/// How many rows the table has at least.
const CASES_MIN: usize = 60;

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = [tables::cases(), objects::cases(), addresses::cases()]
        .into_iter()
        .flatten()
        .collect();
    assert!(cases.iter().all(|case| !case.why.is_empty()));
    cases
}

#[test]
fn the_table_is_long_enough() {
    assert!(
        cases().len() + letters::cases().len() >= CASES_MIN,
        "{} rows",
        cases().len() + letters::cases().len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_through_the_api_on_sqlite() {
    through_the_api(Api::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_through_the_api_on_postgres() {
    through_the_api(Api::postgres().await).await;
}

async fn through_the_api(api: Api) {
    for case in cases() {
        if case.doors.contains(&Door::Send) {
            sent(&api, &case).await;
        }
        if case.doors.contains(&Door::Contacts) {
            imported(&api, &case).await;
        }
    }
    api.nothing_is_stored("dry runs").await;
    for case in letters::cases() {
        letters::judge(&api, &case).await;
    }
}

/// The case as a send request. JSON bodies are lists of recipients, which the rest of a request is put around.
async fn sent(api: &Api, case: &Case) {
    let mut head = letter();
    head["dry_run"] = true.into();
    let request = api
        .request(Method::POST, "/v1/broadcasts")
        .header("Content-Type", case.content_type);
    let request = match case.content_type {
        "application/json" => {
            let head = head.to_string();
            let whole = [
                head.trim_end_matches('}').as_bytes(),
                b",\"recipients\":",
                &case.input,
                b"}",
            ]
            .concat();
            request.body(whole)
        }
        "application/x-ndjson" => request.body([head.to_string().as_bytes(), b"\n", &case.input].concat()),
        _ => request
            .header("X-Hikyaku-Broadcast", head.to_string())
            .body(case.input.clone()),
    };
    let answer = send(request).await;
    match &case.expected {
        Expected::Taken(people) => {
            let body = answer.expect(200);
            assert_eq!(body["counts"]["received"], people.len(), "{}: {body}", case.name);
            assert_eq!(body["counts"]["rejected"], 0, "{}: {body}", case.name);
        }
        Expected::Refused(line, says) => {
            refused(case, &answer.text, answer.status.as_u16(), line_there(case, *line), says)
        }
    }
}

/// The head of a NDJSON request stands before the first line.
fn line_there(case: &Case, line: Option<u64>) -> Option<u64> {
    line.map(|line| line + u64::from(case.content_type == "application/x-ndjson"))
}

async fn imported(api: &Api, case: &Case) {
    let request = api
        .request(Method::POST, "/v1/contacts")
        .header("Content-Type", case.content_type);
    let request = match case.content_type {
        "application/json" => request.body([b"{\"contacts\":".as_slice(), &case.input, b"}"].concat()),
        _ => request.body(case.input.clone()),
    };
    let answer = send(request).await;
    match &case.expected {
        Expected::Taken(people) => {
            let body = answer.expect(200);
            assert_eq!(
                (&body["received"], &body["rejected_count"]),
                (&json!(people.len()), &json!(0)),
                "{}: {body}",
                case.name
            );
            for (email, name, data) in people {
                let path = format!("/v1/contacts/{email}");
                let contact = api.get(&path).await.expect(200);
                assert_eq!(contact["name"].as_str(), *name, "{}: {contact}", case.name);
                assert_eq!(contact["data"], *data, "{}: {contact}", case.name);
                api.delete(&path).await.expect(204);
            }
        }
        Expected::Refused(line, says) => refused(case, &answer.text, answer.status.as_u16(), *line, says),
    }
}

fn refused(case: &Case, text: &str, status: u16, line: Option<u64>, says: &str) {
    assert!([400, 415, 422].contains(&status), "{}: {status} {text}", case.name);
    let problem: Value = serde_json::from_str(text).expect("a problem is JSON");
    let first = &problem["errors"][0];
    let detail = first["detail"]
        .as_str()
        .or(problem["detail"].as_str())
        .unwrap_or_default();
    assert!(detail.contains(says), "{}: {problem}", case.name);
    assert_eq!(first["line"].as_u64(), line, "{}: {problem}", case.name);
}

#[tokio::test]
async fn every_case_through_the_import_page() {
    for app in App::both().await {
        app.sign_in().await;
        for case in cases().into_iter().filter(|case| case.doors.contains(&Door::Page)) {
            let text = String::from_utf8(case.input).expect("what a form sends is UTF-8");
            let page = app
                .post("/contacts/import", &[("csv", &text)])
                .await
                .text()
                .await
                .unwrap();
            match case.expected {
                Expected::Taken(people) => {
                    let n = people.len();
                    let read = format!("{n} line{} read", if n == 1 { "" } else { "s" });
                    assert!(page.contains(&read) && page.contains("0 lines left out"), "{}: {page}", case.name);
                    for (email, name, data) in people {
                        let contact = app.store.contact(email).await.unwrap().expect(case.name);
                        assert_eq!(contact.name.as_deref(), name, "{}", case.name);
                        let stored: Value = serde_json::from_str(contact.data.get()).unwrap();
                        assert_eq!(stored, data, "{}", case.name);
                        assert!(app.store.delete_contact(email).await.unwrap());
                    }
                }
                Expected::Refused(line, says) => {
                    let says = says.replace('\'', "&#39;").replace('"', "&#34;");
                    assert!(page.contains(&says), "{}: {page}", case.name);
                    let line = line.map_or_else(String::new, |line| format!("Line {line}: "));
                    assert!(page.contains(&line), "{}: no {line} in {page}", case.name);
                    // The page is a problem where nothing was read.
                    let has_read = !page.contains(r#"<div class="problem" role="status">"#);
                    assert!(!has_read, "{}: {page}", case.name);
                    assert_eq!(app.store.count_subscribed(None).await.unwrap(), 0, "{}", case.name);
                }
            }
        }
    }
}

#[test]
fn every_case_through_the_command_line() {
    let place = Place::new();
    let serving = place.serve();
    for case in cases().into_iter().filter(|case| case.doors.contains(&Door::Command)) {
        commanded(&place, &serving, &case);
    }
}

fn commanded(place: &Place, serving: &Running, case: &Case) {
    let path = place.path().join("recipients").display().to_string();
    std::fs::write(&path, &case.input).expect("a file can be written");
    let html = place.file("body.html", "<p>Hello</p>");
    let mut args = vec![
        "send",
        "--from",
        "news@example.org",
        "--subject",
        "Hi",
        "--html",
        &html,
        "--to",
        &path,
        "--dry-run",
    ];
    if let Some((_, charset)) = case.content_type.split_once("charset=") {
        args.extend(["--charset", charset]);
    }
    let mut command = place.command(&args);
    command.env("HIKYAKU_SERVER", &serving.url).env("HIKYAKU_API_KEY", KEY);
    let said = ended(command);
    match &case.expected {
        Expected::Taken(people) => {
            assert_eq!(said.code, Some(0), "{}: {said:?}", case.name);
            let n = people.len();
            let right = format!("Everything is right: {n} recipient{}", if n == 1 { "" } else { "s" });
            assert!(said.out.contains(&right), "{}: {said:?}", case.name);
        }
        Expected::Refused(line, says) => {
            assert!(matches!(said.code, Some(2 | 3)), "{}: {said:?}", case.name);
            assert!(said.err.contains(says), "{}: {said:?}", case.name);
            let line = line.map_or_else(String::new, |line| format!("line {line}"));
            assert!(said.err.contains(&line), "{}: no {line} in {said:?}", case.name);
        }
    }
}
