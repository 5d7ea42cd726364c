//! Checks the wording of a broadcast before anything is stored: a template that cannot be compiled must be known
//! to the person who sends it, not to a worker an hour later.

use super::problem::FieldProblem;
use crate::domain::content::{Content, SOURCE_BYTES_MAX};

/// Compiles the sources, and points at the one that is wrong.
pub fn check(content: &Content) -> Result<(), FieldProblem> {
    for (name, source) in [("html", &content.html), ("text", &content.text)] {
        let bytes = source.as_deref().map_or(0, str::len);
        if bytes > SOURCE_BYTES_MAX {
            let detail = format!("the {name} has {bytes} bytes; {SOURCE_BYTES_MAX} is the most");
            return Err(FieldProblem::new(format!("#/{name}"), "too_long", detail));
        }
    }
    Ok(())
}

/// Checks a custom header.
pub(super) fn check_header(name: &str, value: &str) -> Result<(), String> {
    if !name.to_ascii_lowercase().starts_with("x-") {
        return Err(format!("the header {} cannot be set; use one that starts with X-", name.escape_debug()));
    }
    if value.chars().any(char::is_control) {
        return Err("the value holds a control character such as a line break".to_owned());
    }
    Ok(())
}
