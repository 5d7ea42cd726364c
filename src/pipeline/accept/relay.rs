//! The relay that a broadcast names: is there one of this name. Never chooses one, never speaks to one.

use super::problem::{FieldProblem, quoted};
use crate::store::{self, Store};

/// Names that are shown when one is unknown: enough to see the slip of the pen.
const NAMES_SHOWN_MAX: usize = 20;

/// Whether there is such a relay. One that is paused counts: the broadcast waits for it.
pub(super) async fn check(store: &dyn Store, name: &str) -> store::Result<Result<(), FieldProblem>> {
    if store.relay(name).await?.is_some() {
        return Ok(Ok(()));
    }
    let names: Vec<String> = store.relays().await?.into_iter().map(|relay| relay.name).collect();
    let fix = match names.len() {
        0 => "no relay is stored; leave relay out, or add one with PUT /v1/relays/{name}".to_owned(),
        n if n > NAMES_SHOWN_MAX => {
            format!("known are {} and {} more", names[..NAMES_SHOWN_MAX].join(", "), n - NAMES_SHOWN_MAX)
        }
        _ => format!("known are {}", names.join(", ")),
    };
    let detail = format!("there is no relay {}; {fix}", quoted(name));
    Ok(Err(FieldProblem::new("#/relay", "not_found", detail)))
}
