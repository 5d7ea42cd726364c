//! A table of wrong requests: each gets its status, its pointer and a sentence that names the fix, and none leaves a trace.

use reqwest::Method;
use serde_json::{Value, json};

use super::on_both_databases;
use super::world::{Api, gzip, letter, send};

on_both_databases!(every_wrong_request_is_told_what_is_wrong, every_wrong_item_is_listed_up_to_twenty);

/// A wrong request and the answer it must get.
struct Case {
    name: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    pointer: &'static str,
    code: &'static str,
    /// Part of the sentence.
    says: &'static str,
}

/// A JSON request that is right but for one change.
fn changed(name: &'static str, change: Value, pointer: &'static str, code: &'static str, says: &'static str) -> Case {
    let mut body = letter();
    body["recipients"] = json!(["anna@example.org"]);
    for (field, value) in change.as_object().unwrap() {
        body[field] = value.clone();
    }
    raw(name, "application/json", body.to_string(), 422, (pointer, code, says))
}

/// A request with a body of any type.
fn raw(
    name: &'static str,
    content_type: &str,
    body: impl Into<Vec<u8>>,
    status: u16,
    (pointer, code, says): (&'static str, &'static str, &'static str),
) -> Case {
    let headers = vec![("Content-Type", content_type.to_owned())];
    Case {
        name,
        path: "/v1/broadcasts",
        headers,
        body: body.into(),
        status,
        pointer,
        code,
        says,
    }
}

fn with_header(mut case: Case, name: &'static str, value: impl Into<String>) -> Case {
    case.headers.push((name, value.into()));
    case
}

/// Content of the broadcast.
fn letters() -> Vec<Case> {
    let long = "x".repeat(300 * 1024);
    vec![
        changed("no sender", json!({"from": null}), "#/from", "required", "give {\"email\""),
        changed("a bad sender", json!({"from": "News <news>"}), "#/from", "invalid_address", "no @ in 'news'"),
        changed("a sender without address", json!({"from": {"name": "x"}}), "#/from/email", "required", "missing"),
        changed(
            "an unknown field of the sender",
            json!({"from": {"email": "a@b.example", "nick": 1}}),
            "#/from/nick",
            "unknown_field",
            "use email and name",
        ),
        changed(
            "a line break in a name",
            json!({"from": {"email": "a@b.example", "name": "A\r\nBcc: x"}}),
            "#/from/name",
            "invalid_name",
            "line break",
        ),
        changed(
            "a bad reply address",
            json!({"reply_to": "x@"}),
            "#/reply_to",
            "invalid_address",
            "nothing stands after @",
        ),
        changed("no subject", json!({"subject": null}), "#/subject", "required", "give a subject"),
        changed("an empty subject", json!({"subject": "  "}), "#/subject", "required", "empty"),
        changed(
            "a line break in the subject",
            json!({"subject": "a\r\nBcc: b@c.example"}),
            "#/subject",
            "invalid_value",
            "line break",
        ),
        changed("no content", json!({"text": null}), "#/html", "required", "give html, text or a template_id"),
        changed(
            "a template that cannot be read",
            json!({"html": "<p>\n{{ name }"}),
            "#/html",
            "invalid_template",
            "line 2",
        ),
        changed(
            "a tag that is not allowed",
            json!({"text": "{% include 'x' %}"}),
            "#/text",
            "invalid_template",
            "include",
        ),
        changed(
            "content that is too long",
            json!({"html": long}),
            "#/html",
            "invalid_template",
            "262144 is the most",
        ),
        changed(
            "a template and own content",
            json!({"template_id": "tpl_00000000000000000000000000"}),
            "#/subject",
            "conflict",
            "leave one out",
        ),
        changed("a number for a text", json!({"html": 7}), "#/html", "wrong_type", "string"),
    ]
}

/// What else a broadcast says.
fn options() -> Vec<Case> {
    vec![
        changed(
            "an attachment that is a string",
            json!({"attachments": ["x"]}),
            "#/attachments/0",
            "wrong_type",
            "filename, content_type and content",
        ),
        changed(
            "an attachment without a name",
            json!({"attachments": [{"content": "eA=="}]}),
            "#/attachments/0/filename",
            "required",
            "such as report.pdf",
        ),
        changed(
            "an attachment with a path",
            json!({"attachments": [{"filename": "a.txt", "content": "eA=="}, {"filename": "../a", "content": "eA=="}]}),
            "#/attachments/1/filename",
            "invalid_value",
            "without a path",
        ),
        changed(
            "an attachment that is not base64",
            json!({"attachments": [{"filename": "a.txt", "content": "plain text"}]}),
            "#/attachments/0/content",
            "invalid_value",
            "not base64",
        ),
        changed(
            "an attached message",
            json!({"attachments": [{"filename": "a", "content_type": "message/rfc822", "content": "eA=="}]}),
            "#/attachments/0/content_type",
            "invalid_value",
            "application/octet-stream",
        ),
        changed(
            "attachments beyond the limit",
            json!({"attachments": [{"filename": "a", "content": "A".repeat(2_000_000)}, {"filename": "b", "content": "A".repeat(2_000_000)}]}),
            "#/attachments/1/content",
            "too_long",
            "behind a link",
        ),
        changed(
            "too many attachments",
            json!({"attachments": vec![json!({"filename": "a", "content": "eA=="}); 11]}),
            "#/attachments",
            "too_many",
            "10 is the most",
        ),
        changed(
            "two images of one name",
            json!({"attachments": vec![json!({"filename": "a", "content": "eA==", "content_id": "logo"}); 2]}),
            "#/attachments/1/content_id",
            "duplicate_field",
            "each its own",
        ),
        changed("an unknown field", json!({"sendat": "x"}), "#/sendat", "unknown_field", "known are from, reply_to"),
        changed(
            "a time without an offset",
            json!({"send_at": "2026-10-01 08:00"}),
            "#/send_at",
            "invalid_time",
            "2026-10-01T08:00:00Z",
        ),
        changed(
            "a plan far ahead",
            json!({"send_at": "2099-10-01T08:00:00Z"}),
            "#/send_at",
            "invalid_time",
            "366 days",
        ),
        changed(
            "an end in the past",
            json!({"expires_at": "2020-10-01T08:00:00Z"}),
            "#/expires_at",
            "invalid_time",
            "after the start",
        ),
        changed(
            "an end before the start",
            json!({"send_at": "2026-10-01T08:00:00Z", "expires_at": "2026-10-01T08:00:00Z"}),
            "#/expires_at",
            "invalid_time",
            "after the start",
        ),
        changed(
            "an unknown policy",
            json!({"on_uncertain": "retry"}),
            "#/on_uncertain",
            "invalid_value",
            "resend, hold",
        ),
        changed("an unknown priority", json!({"priority": 1}), "#/priority", "wrong_type", "high, normal, bulk"),
        changed("an unknown validation", json!({"validation": "lax"}), "#/validation", "invalid_value", "permissive"),
        changed("a relay that is not there", json!({"relay": "first"}), "#/relay", "not_found", "no relay is stored"),
        changed("a relay that is no name", json!({"relay": "a b"}), "#/relay", "invalid_value", "letters, digits"),
        changed("too many tags", json!({"tags": vec!["x"; 11]}), "#/tags", "too_many", "10 is the most"),
        changed("an empty tag", json!({"tags": ["a", ""]}), "#/tags/1", "invalid_value", "1 to 64"),
        changed("metadata that is no object", json!({"metadata": [1]}), "#/metadata", "wrong_type", "object"),
        changed("large metadata", json!({"metadata": {"x": "y".repeat(5_000)}}), "#/metadata", "too_long", "4096"),
        changed("data that is no object", json!({"data": "x"}), "#/data", "wrong_type", "object"),
        changed(
            "a header that is ours",
            json!({"headers": {"Bcc": "x@y.example"}}),
            "#/headers/Bcc",
            "invalid_header",
            "Bcc",
        ),
        changed(
            "a header with a line break",
            json!({"headers": {"X-A": "a\nBcc: b"}}),
            "#/headers/X-A",
            "invalid_header",
            "",
        ),
        changed("a dry run that is no truth", json!({"dry_run": "yes"}), "#/dry_run", "wrong_type", "true or false"),
    ]
}

/// Whom it is for.
fn audiences() -> Vec<Case> {
    let recipients = |list: Value| json!({ "recipients": list });
    vec![
        changed("no audience", json!({"recipients": null}), "#/recipients", "required", "recipients, list_ids or"),
        changed("nobody", recipients(json!([])), "#/recipients", "required", "name at least one"),
        changed("two audiences", json!({"all": true}), "#/all", "conflict", "keep one"),
        changed(
            "an unknown list",
            json!({"recipients": null, "list_ids": ["lst_00000000000000000000000000"]}),
            "#/list_ids/0",
            "not_found",
            "there is no list",
        ),
        changed(
            "a list that is no id",
            json!({"recipients": null, "list_ids": ["friends"]}),
            "#/list_ids/0",
            "invalid_value",
            "lst_",
        ),
        changed(
            "recipients that are no list",
            recipients(json!("anna@example.org")),
            "#/recipients",
            "wrong_type",
            "array",
        ),
        changed("a recipient that is a number", recipients(json!([7])), "#/recipients/0", "wrong_type", "an object"),
        changed(
            "a recipient without address",
            recipients(json!([{"name": "x"}])),
            "#/recipients/0/email",
            "required",
            "missing",
        ),
        changed(
            "a bad address",
            recipients(json!(["a@example.org", "bob"])),
            "#/recipients/1/email",
            "invalid_address",
            "no @ in 'bob'",
        ),
        changed(
            "an address with a null byte",
            recipients(json!(["bob\u{0}@example.org"])),
            "#/recipients/0/email",
            "invalid_address",
            "\\u{0}",
        ),
        changed(
            "an unknown field of a recipient",
            recipients(json!([{"email": "a@example.org", "to": 1}])),
            "#/recipients/0/to",
            "unknown_field",
            "email, name and data",
        ),
        changed(
            "data that is a list",
            recipients(json!([{"email": "a@example.org", "data": []}])),
            "#/recipients/0/data",
            "wrong_type",
            "object",
        ),
        changed(
            "data that is too long",
            recipients(json!([{"email": "a@example.org", "data": {"x": "y".repeat(17_000)}}])),
            "#/recipients/0/data",
            "too_long",
            "16384 is the most",
        ),
    ]
}

/// Bodies that are not what they say.
fn bodies() -> Vec<Case> {
    let good = {
        let mut body = letter();
        body["recipients"] = json!(["anna@example.org"]);
        body.to_string()
    };
    let shortened = {
        let packed = gzip(good.as_bytes());
        packed[..packed.len() - 6].to_vec()
    };
    let ndjson = "application/x-ndjson";
    let table = |rows: &'static str| {
        with_header(raw("", "text/csv", rows, 422, ("", "", "")), "X-Hikyaku-Broadcast", letter().to_string())
    };
    let renamed = |case: Case, name, pointer, code, says| Case {
        name,
        pointer,
        code,
        says,
        ..case
    };
    vec![
        raw("an empty body", "application/json", "", 400, ("#", "invalid_json", "ends at line 1")),
        raw(
            "half a body",
            "application/json",
            &good.as_bytes()[..40],
            400,
            ("#", "invalid_json", "before the JSON is complete"),
        ),
        raw("no JSON", "application/json", "{\"from\": x}", 400, ("#", "invalid_json", "line 1, column 10")),
        raw("a list", "application/json", "[]", 422, ("#", "wrong_type", "must be a JSON object")),
        raw(
            "a field twice",
            "application/json",
            "{\"all\":true,\"all\":true}",
            422,
            ("#/all", "duplicate_field", "keep one"),
        ),
        raw(
            "another type",
            "application/xml",
            "<x/>",
            415,
            ("", "unsupported_media_type", "application/x-ndjson"),
        ),
        with_header(
            raw("another packing", "application/json", good.clone(), 415, ("", "unsupported_media_type", "use gzip")),
            "Content-Encoding",
            "br",
        ),
        with_header(
            raw("no gzip", "application/json", good.clone(), 400, ("#", "invalid_gzip", "gzip")),
            "Content-Encoding",
            "gzip",
        ),
        with_header(
            raw("half a gzip", "application/json", shortened, 400, ("#", "invalid_gzip", "gzip")),
            "Content-Encoding",
            "gzip",
        ),
        with_header(
            raw(
                "a key of 256 characters",
                "application/json",
                good.clone(),
                422,
                ("#", "invalid_idempotency_key", "1 to 255"),
            ),
            "Idempotency-Key",
            "x".repeat(256),
        ),
        raw("lines without a broadcast", ndjson, "\n", 400, ("#", "invalid_json", "first line")),
        raw("recipients in the first line", ndjson, good, 422, ("#/recipients", "conflict", "one a line")),
        raw(
            "a bad line",
            ndjson,
            format!("{}\n\"a@example.org\"\n{{\n", letter()),
            422,
            ("#/recipients/1", "invalid_json", "not valid JSON"),
        ),
        raw(
            "a line that is not UTF-8",
            ndjson,
            [letter().to_string().as_bytes(), b"\n\"\xff@example.org\"\n"].concat(),
            422,
            ("#/recipients/0", "invalid_utf8", "UTF-8"),
        ),
        renamed(table("name,mail\nA,a@example.org\n"), "a table without addresses", "#/columns", "required", "email"),
        renamed(table("email;name\na@example.org;A\n"), "a table with semicolons", "#/columns", "required", "commas"),
        renamed(
            table("email,name\na@example.org,A,B\n"),
            "a row with a cell too many",
            "#/recipients/0",
            "invalid_csv",
            "3 cells",
        ),
        renamed(table("email\nbob\n"), "a bad address in a table", "#/recipients/0/email", "invalid_address", "no @"),
        Case {
            path: "/v1/broadcasts?dry_run=true",
            ..changed("a query beside JSON", json!({}), "#/dry_run", "conflict", "into the body")
        },
    ]
}

async fn every_wrong_request_is_told_what_is_wrong(api: Api) {
    let cases: Vec<Case> = [letters(), options(), audiences(), bodies()]
        .into_iter()
        .flatten()
        .collect();
    assert!(cases.len() >= 60, "the table has {} rows", cases.len());
    for case in cases {
        let mut request = api.request(Method::POST, case.path);
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        let answer = send(request.body(case.body)).await;
        assert_eq!(answer.status.as_u16(), case.status, "{}: {}", case.name, answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", case.name);
        let problem = answer.json();
        assert_eq!(problem["status"], case.status);
        assert_eq!(answer.header("x-request-id"), problem["request_id"].as_str());
        if case.pointer.is_empty() {
            assert_eq!(problem["code"], case.code, "{}", case.name);
            assert!(problem["detail"].as_str().unwrap().contains(case.says), "{}: {problem}", case.name);
            continue;
        }
        let first = &problem["errors"][0];
        assert_eq!(
            (&first["pointer"], &first["code"]),
            (&json!(case.pointer), &json!(case.code)),
            "{}: {problem}",
            case.name
        );
        assert!(first["detail"].as_str().unwrap().contains(case.says), "{}: {problem}", case.name);
    }
    api.nothing_is_stored("all wrong requests").await;
}

async fn every_wrong_item_is_listed_up_to_twenty(api: Api) {
    let mut body = letter();
    body["from"] = json!("nobody");
    body["recipients"] = (0..50).map(|n| json!(format!("r{n}"))).collect();
    let problem = api.post("/v1/broadcasts", &body).await.expect(422);
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 20);
    assert_eq!((&errors[0]["pointer"], &errors[19]["pointer"]), (&json!("#/from"), &json!("#/recipients/18/email")));
    assert_eq!(problem["detail"], "51 fields are wrong; the first 20 are listed");
    api.nothing_is_stored("many wrong recipients").await;
}
