//! The attachments of a request: what is said about each, and whether all of them together are within their limits. Never keeps
//! the content in another form than the one in which it goes out.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::{Map, Value};

use super::fields::{Fault, list, text};
use super::problem::quoted;
use crate::domain::content::{ATTACHMENTS_BYTES_MAX, ATTACHMENTS_MAX, Attachment};
use crate::mime::check_attachment;

/// What a file is when nothing is said about it (RFC 2046 4.5.1).
const CONTENT_TYPE_DEFAULT: &str = "application/octet-stream";
const MEMBERS: [&str; 4] = ["filename", "content_type", "content", "content_id"];

/// Takes base64 with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads `[{"filename": …, "content_type": …, "content": …}]`.
pub(super) fn attachments(value: &Value) -> Result<Vec<Attachment>, Fault> {
    let parsed = list(value, ATTACHMENTS_MAX, attachment)?;
    let mut total = 0;
    for (i, (attachment, bytes)) in parsed.iter().enumerate() {
        total += bytes;
        if total > ATTACHMENTS_BYTES_MAX {
            let detail = format!(
                "the attachments have more than {ATTACHMENTS_BYTES_MAX} bytes together; put large files behind a link"
            );
            return Err(Fault::new("too_long", detail).below("content").below(&i.to_string()));
        }
        let same = |(other, _): &(Attachment, usize)| {
            attachment.content_id.is_some() && other.content_id == attachment.content_id
        };
        if parsed[..i].iter().any(same) {
            let detail = "two attachments have this content_id; give each its own";
            return Err(Fault::new("duplicate_field", detail)
                .below("content_id")
                .below(&i.to_string()));
        }
    }
    Ok(parsed.into_iter().map(|(attachment, _)| attachment).collect())
}

/// One attachment, and how many bytes its content has.
fn attachment(value: &Value) -> Result<(Attachment, usize), Fault> {
    let Some(map) = value.as_object() else {
        return Err(Fault::wrong_type("an attachment is an object with filename, content_type and content in base64"));
    };
    if let Some(other) = map.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
        let detail = format!("an attachment has no field {}; known are {}", quoted(other), MEMBERS.join(", "));
        return Err(Fault::new("unknown_field", detail).below(other));
    }
    let filename = needed(map, "filename", "the name that recipients see, such as report.pdf")?
        .trim()
        .to_owned();
    let content_type = given(map, "content_type")?.unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned());
    let content_id = given(map, "content_id")?;
    check_attachment(&filename, &content_type, content_id.as_deref())
        .map_err(|(field, why)| Fault::new("invalid_value", why).below(field))?;
    let (content, bytes) = content(&needed(map, "content", "the file in base64")?)?;
    let attachment = Attachment {
        filename,
        content_type,
        content_id,
        content,
    };
    Ok((attachment, bytes))
}

fn given(map: &Map<String, Value>, name: &str) -> Result<Option<String>, Fault> {
    match map.get(name).filter(|v| !v.is_null()) {
        None => Ok(None),
        Some(v) => text(v).map(Some).map_err(|fault| fault.below(name)),
    }
}

fn needed(map: &Map<String, Value>, name: &'static str, fix: &str) -> Result<String, Fault> {
    given(map, name)?.ok_or_else(|| Fault::new("required", format!("{name} is missing; give {fix}")).below(name))
}

/// The content in the one form in which it is kept: base64 with padding and without line breaks.
fn content(text: &str) -> Result<(String, usize), Fault> {
    let fault = |code, detail: String| Fault::new(code, detail).below("content");
    let digits: String = text.split_ascii_whitespace().collect();
    let bytes = LENIENT
        .decode(&digits)
        .map_err(|e| fault("invalid_value", format!("content is not base64 of the standard alphabet: {e}")))?;
    match bytes.is_empty() {
        true => Err(fault("required", "content is empty; leave an empty file out".to_owned())),
        false => Ok((STANDARD.encode(&bytes), bytes.len())),
    }
}
