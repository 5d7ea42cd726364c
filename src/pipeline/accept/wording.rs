//! Checks the wording of a broadcast before anything is stored: a template that cannot be compiled must be known
//! to the person who sends it, not to a worker an hour later.

use super::problem::{FieldProblem, member};
use crate::domain::content::Content;
use crate::template::{Newsletter, TemplateError};

/// Compiles the sources.
///
/// # Errors
/// Points at the source that is wrong, with its line.
pub fn check(content: &Content) -> Result<(), FieldProblem> {
    Newsletter::compile(content).map(|_| ()).map_err(in_words)
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
