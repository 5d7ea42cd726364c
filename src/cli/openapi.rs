//! `hikyaku openapi`: the API's description, as a running server gives it at /openapi.json. Needs neither.

use clap::Args;

use super::exit::{Exit, Outcome};
use super::terminal::say;
use crate::web;

/// Prints the OpenAPI document of the API.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku openapi > openapi.json
  hikyaku openapi | jq '.paths | keys'

It is made from the code that answers the requests. A running server gives the
same at /openapi.json.")]
pub struct Openapi {}

/// Runs the command.
///
/// # Errors
/// None.
pub fn run() -> Outcome {
    say(web::api::openapi());
    Ok(Exit::Done)
}
