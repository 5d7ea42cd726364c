//! What a request says beside its recipients, and what the mail makes of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::world::{Api, letter, send};

/// One row: what is changed in a request that is right, and what the answer to a dry run says.
pub struct Case {
    name: &'static str,
    change: &'static str,
    /// The status, a pointer into the answer, and what stands there.
    status: u16,
    at: &'static str,
    says: &'static str,
    why: &'static str,
}

fn case(
    name: &'static str,
    change: &'static str,
    (status, at, says): (u16, &'static str, &'static str),
    why: &'static str,
) -> Case {
    Case {
        name,
        change,
        status,
        at,
        says,
        why,
    }
}

const DETAIL: &str = "/errors/0/detail";
const RENDERED: &str = "/rendering/problems/0/detail";

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "a misspelt variable",
            r#""subject":"Hi {{ fist_name }}","data":{"first_name":"A"}"#,
            (200, RENDERED, "`first_name` has one, if that is meant"),
            "it is said before anybody gets a mail, with the name that may be meant",
        ),
        case(
            "a variable by another spelling",
            r#""subject":"Hi {{ first_name }}","data":{"First Name":"A"}"#,
            (200, "/rendering/failed", "0"),
            "names of columns have no case, hyphens or spaces to people",
        ),
        case(
            "a subject that comes out empty",
            r#""subject":"{{ topic|default('') }}""#,
            (200, RENDERED, "the subject is empty"),
            "RFC 5322 3.6.5 wants text; filters and readers distrust a mail without",
        ),
        case(
            "a start long past",
            r#""send_at":"2020-01-01T00:00:00Z""#,
            (422, DETAIL, "leave it out to send now"),
            "a slip of the pen would send at once",
        ),
        case(
            "a start a minute past",
            r#""send_at":"2026-09-21T14:12:20Z""#,
            (200, "/status", "checked"),
            "clocks differ, and requests wait",
        ),
        case(
            "a header that looks like a template",
            r#""headers":{"X-Order":"{{ order }}"}"#,
            (422, DETAIL, "headers are no templates"),
            "it would arrive as it stands",
        ),
        case(
            "a number beyond doubles in data",
            r#""data":{"n":1e400}"#,
            (422, "/errors/0/pointer", "#/data/n"),
            "RFC 8259 6",
        ),
        case(
            "half a surrogate pair in metadata",
            r#""metadata":{"a":["\ud83d"]}"#,
            (422, "/errors/0/pointer", "#/metadata/a/0"),
            "RFC 8259 8.2",
        ),
        case(
            "half a surrogate pair in the subject",
            r#""subject":"a\ud83d""#,
            (422, "/errors/0/pointer", "#/subject"),
            "RFC 8259 8.2",
        ),
        case(
            "an integer that metadata cannot give back",
            r#""metadata":{"n":123456789012345678901234567890}"#,
            (422, DETAIL, "does not fit into 64 bits"),
            "metadata are shown again, and must be the same",
        ),
        case(
            "a long integer in data",
            r#""data":{"n":123456789012345678901234567890}"#,
            (200, "/rendering/failed", "0"),
            "it goes into the mail digit by digit",
        ),
        case(
            "a field twice",
            r#""tags":["a"],"tags":["b"]"#,
            (422, "/errors/0/code", "duplicate_field"),
            "RFC 8259 4: what a second one means is not defined",
        ),
        case(
            "a typographic quote in the sender",
            r#""from":"o’neil@example.org""#,
            (422, DETAIL, "U+2019 RIGHT SINGLE QUOTATION MARK"),
            "as for recipients",
        ),
    ]
}

pub async fn judge(api: &Api, case: &Case) {
    assert!(!case.why.is_empty());
    let mut head = letter();
    head["dry_run"] = true.into();
    head["recipients"] = json!(["anna@example.org"]);
    head["subject"] = "Hello".into();
    head["text"] = "Hello {{ n|default('') }}".into();
    // A changed field is left out of the rest, so that it stands there once.
    for field in ["subject", "from"] {
        if case.change.contains(&format!("\"{field}\":")) {
            head.as_object_mut().unwrap().remove(field);
        }
    }
    let head = head.to_string();
    // With a byte order mark, which every one of these requests may have.
    let body = format!("\u{feff}{},{}}}", head.trim_end_matches('}'), case.change);
    let request = api
        .request(Method::POST, "/v1/broadcasts")
        .header("Content-Type", "application/json");
    let answer = send(request.body(body)).await;
    let found: Value = answer.expect(case.status);
    let value = found.pointer(case.at).unwrap_or(&Value::Null);
    let said = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    assert!(said.contains(case.says), "{}: {found}", case.name);
}
