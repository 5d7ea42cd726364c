//! What may be wrong with a letter and its options.

use serde_json::json;

use super::{Case, changed};

/// Content of the broadcast.
pub fn letters() -> Vec<Case> {
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
pub fn options() -> Vec<Case> {
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
