//! `hikyaku migrate`: brings the schema of the database up to date and says what it did. `serve`, `web` and `worker` do the same
//! at their start; this is for those who want it to happen at a time of their own.

use clap::Args;

use super::exit::{Exit, Failed, Outcome};
use super::settings::{DatabaseArgs, Overrides, database_url};
use super::terminal::{plural, say};
use crate::store::schema::{self, Inspection};
use crate::store::{self, DatabaseUrl};

/// Brings the schema of the database up to date.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku migrate
  hikyaku migrate --database-url postgres://hikyaku@db/hikyaku

serve, web and worker do it at their start, too. Running it twice does nothing
the second time, and two at once wait for each other.")]
pub struct Migrate {
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: Migrate) -> Outcome {
    let config = Overrides::default().database(&args.database).load()?;
    let url = database_url(&config)?;
    let before = schema::inspect(&url).await?;
    if let Some(before) = &before {
        refuse_newer(before)?;
    }
    drop(store::open(&url).await?);
    let Some(after) = schema::inspect(&url).await? else {
        return Err(Failed::here(format!("the database {} is gone again", config.database.url)));
    };
    let done = match before {
        None => created(&url, &after),
        Some(before) if before.missing.is_empty() => "the schema was up to date".to_owned(),
        Some(before) => {
            format!("applied {} ({})", plural(before.missing.len() as i64, "migration"), numbers(&before.missing))
        }
    };
    say(format_args!("{} ({}): {done}", config.database.url, after.engine));
    Ok(Exit::Done)
}

fn created(url: &DatabaseUrl, _after: &Inspection) -> String {
    match url {
        DatabaseUrl::Sqlite(_) => "made the file and its schema".to_owned(),
        DatabaseUrl::Postgres(_) => "made the schema".to_owned(),
    }
}

/// A newer program may have changed the database so that this one cannot live with it; then it says so.
fn refuse_newer(found: &Inspection) -> Result<(), Failed> {
    if !found.is_too_new() {
        return Ok(());
    }
    Err(Failed::new(
        Exit::Aside,
        format!(
            "the database has migrations this program does not know ({}): it was used by a newer one; update this program",
            numbers(&found.unknown)
        ),
    ))
}

fn numbers(migrations: &[i64]) -> String {
    migrations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
