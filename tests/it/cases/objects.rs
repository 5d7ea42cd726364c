//! JSON and NDJSON as programs write them: what another parser would refuse later is refused at the door.

use serde_json::{Value, json};

use super::{API, Case, Expected};

const RFC_8259: &str = "RFC 8259 6: a number beyond what a double holds has no meaning that two programs share";
const SURROGATE: &str = "RFC 8259 8.2: half a surrogate pair is no character, and nobody can write it back";

/// A recipient with data, as JSON and as a line.
fn both(name: &'static str, data: &str, expected: &Expected, why: &'static str) -> [Case; 2] {
    let object = format!("{{\"email\":\"a@example.org\",\"data\":{data}}}");
    let line = match expected {
        Expected::Refused(_, says) => Expected::Refused(Some(1), says),
        taken => taken.clone(),
    };
    let case = |content_type, input: String, expected| Case {
        name,
        content_type,
        input: input.into_bytes(),
        doors: API,
        expected,
        why,
    };
    [
        case("application/json", format!("[{object}]"), expected.clone()),
        case("application/x-ndjson", format!("{object}\n"), line),
    ]
}

fn taken(name: &'static str, data: &str, why: &'static str) -> [Case; 2] {
    let value: Value = serde_json::from_str(data).expect(data);
    both(name, data, &Expected::Taken(vec![("a@example.org", None, value)]), why)
}

fn refused(name: &'static str, data: &str, says: &'static str, why: &'static str) -> [Case; 2] {
    both(name, data, &Expected::Refused(None, says), why)
}

pub fn cases() -> Vec<Case> {
    let all = [
        refused("1e400", r#"{"n":1e400}"#, "a number that no double holds", RFC_8259),
        refused("-1e400", r#"{"n":[-1e400]}"#, "a number that no double holds", RFC_8259),
        refused("1e-400", r#"{"n":1e-400}"#, "a number that no double holds", RFC_8259),
        refused("half a pair", r#"{"n":"\ud83d"}"#, "half of a surrogate pair", SURROGATE),
        refused("the second half", r#"{"n":"\ude00"}"#, "half of a surrogate pair", SURROGATE),
        refused("a name with half a pair", r#"{"\ud83d":1}"#, "half of a surrogate pair", SURROGATE),
        refused(
            "half a pair that a second value hides",
            r#"{"n":"\ud83d","n":1}"#,
            "half of a surrogate pair",
            SURROGATE,
        ),
        taken("a whole pair", r#"{"n":"\ud83d\ude00"}"#, "RFC 8259 7"),
        taken(
            "an escaped NUL",
            r#"{"n":"a\u0000b"}"#,
            "RFC 8259 7 allows it; it is kept escaped, so that any database can hold it",
        ),
        taken(
            "a long decimal",
            r#"{"n":100000000002631450E-2}"#,
            "IEEE 754: the nearest double, and the same each time it is read",
        ),
        taken("the largest double", r#"{"n":1.7976931348623157e308}"#, "IEEE 754"),
        taken(
            "a 64-bit integer",
            r#"{"n":18446744073709551615}"#,
            "RFC 8259 6: an integer is exact as far as both sides hold it",
        ),
        taken("an empty name", r#"{"":1}"#, "RFC 8259 4 allows any string"),
        taken("nested data", r#"{"a":{"b":[1,null,true,{"c":"d"}]}}"#, "RFC 8259"),
    ];
    let mut all: Vec<Case> = all.into_iter().flatten().collect();
    for (content_type, input) in [
        ("application/x-ndjson", "\u{feff}{\"email\":\"a@example.org\"}\n"),
        ("application/x-ndjson", "\r\n{\"email\":\"a@example.org\"}\r\n\r\n"),
        ("application/json", "[\"a@example.org\"]"),
    ] {
        // A mark before the first line of a send request stands before its head; that is one of the letters' cases.
        let doors: &[_] = if input.starts_with('\u{feff}') {
            &[super::Door::Contacts]
        } else {
            API
        };
        all.push(Case {
            name: "a mark, empty lines, an address alone",
            content_type,
            input: input.into(),
            doors,
            expected: Expected::Taken(vec![("a@example.org", None, json!({}))]),
            why: "RFC 8259 8.1: a parser may ignore a byte order mark; editors write it",
        });
    }
    all
}
