//! The relay that a broadcast names. Never chooses one, never speaks to one.

use super::problem::{FieldProblem, quoted};

/// Refuses any: workers send through the relay of their configuration only, and a request that relies on another must not be
/// sent without it.
pub(super) fn check(name: &str) -> Result<(), FieldProblem> {
    let detail = format!(
        "{} cannot be chosen yet: workers send through the relay that HIKYAKU_RELAY_URL names; leave relay out",
        quoted(name)
    );
    Err(FieldProblem::new("#/relay", "not_supported", detail))
}
