//! What may be wrong with an audience, and with a body as such.

use serde_json::{Value, json};

use super::{Case, changed, raw, with_header};
use crate::api::world::{gzip, letter};

/// Whom it is for.
pub fn audiences() -> Vec<Case> {
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
pub fn bodies() -> Vec<Case> {
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
        renamed(
            table("name,phone\nA,a@example.org\n"),
            "a table without addresses",
            "#/columns",
            "required",
            "email",
        ),
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
