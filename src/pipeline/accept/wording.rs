//! Checks the wording of a broadcast before anything is stored: a template that cannot be compiled must be known
//! to the person who sends it, not to a worker an hour later.

use super::problem::{FieldProblem, member};
use crate::domain::content::Content;
use crate::template::{Newsletter, TemplateError};

/// Most bytes of a subject's source; mail programs show about 70 characters of what becomes of it.
pub const SUBJECT_BYTES_MAX: usize = 2_000;

/// Checks the subject and compiles the sources.
///
/// # Errors
/// Points at the source that is wrong, with its line.
pub fn check(content: &Content) -> Result<(), FieldProblem> {
    check_subject(&content.subject).map_err(|(code, detail)| FieldProblem::new("#/subject", code, detail))?;
    Newsletter::compile(content).map(|_| ()).map_err(in_words)
}

/// Checks a subject's source: its code and a sentence when it is wrong.
pub(super) fn check_subject(subject: &str) -> Result<(), (&'static str, String)> {
    if subject.trim().is_empty() {
        return Err(("required", "the subject is empty".to_owned()));
    }
    if subject.len() > SUBJECT_BYTES_MAX {
        return Err(("too_long", format!("the subject has {} bytes; {SUBJECT_BYTES_MAX} is the most", subject.len())));
    }
    if subject.chars().any(char::is_control) {
        return Err(("invalid_value", "the subject holds a control character such as a line break".to_owned()));
    }
    Ok(())
}

/// A template's error as a problem of the field that holds the source.
#[must_use]
pub fn in_words(e: TemplateError) -> FieldProblem {
    let detail = match e.line {
        Some(line) => format!("line {line} of the template: {}", e.problem),
        None => e.problem.to_string(),
    };
    FieldProblem::new(member("#", e.part.as_str()), "invalid_template", detail)
}
