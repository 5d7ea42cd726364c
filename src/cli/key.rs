//! `hikyaku key`: API keys, made and revoked on the database itself, whether a server runs or not. Shows a key once, when it is
//! made; only its hash is kept.

use clap::{Args, Subcommand};

use super::exit::{Exit, Failed, Outcome};
use super::settings::{DatabaseArgs, Overrides, database_url};
use super::terminal::{note, say, table};
use crate::clock::{Clock, SystemClock};
use crate::store::{self, Store};
use crate::web::auth::{Scope, new_key};

/// Longest name of a key, in characters: it stands in a table.
const NAME_CHARS_MAX: usize = 100;

/// Makes, lists and revokes API keys.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku key create --name shop --scope send --scope read
  HIKYAKU_API_KEY=$(hikyaku key create --name cli --scope send,read)
  hikyaku key revoke 3f2a9c0d1e4b5a67")]
pub struct Key {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a key and prints it, this once.
    #[command(after_long_help = "\
Examples:
  hikyaku key create --name shop --scope send --scope read
  docker compose exec web hikyaku key create --name admin --scope read,admin

Scopes (none includes another):
  send    start, pause, resume and cancel broadcasts and campaigns
  read    see everything except keys
  manage  change templates, lists, contacts, suppressions, campaigns, jobs
  admin   make and revoke API keys; see, change and test relays

Only the key goes to standard output, so $(hikyaku key create …) is the key.")]
    Create {
        /// What it is for; shown in lists
        #[arg(long)]
        name: String,
        /// What it may do; may be given several times
        #[arg(long, required = true, value_delimiter = ',')]
        scope: Vec<Scope>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Lists all keys, without their secrets.
    List {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Revokes a key: within seconds no server takes it any more.
    Revoke {
        /// The id of the key, as `key list` shows it
        id: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: Key) -> Outcome {
    match args.action {
        Action::Create { name, scope, database } => create(&*open(&database).await?, name.trim(), scope).await,
        Action::List { database } => list(&*open(&database).await?).await,
        Action::Revoke { id, database } => revoke(&*open(&database).await?, &id).await,
    }
}

async fn open(args: &DatabaseArgs) -> Result<std::sync::Arc<dyn Store>, Failed> {
    let config = Overrides::default().database(args).load()?;
    Ok(store::open(&database_url(&config)?).await?)
}

async fn create(store: &dyn Store, name: &str, mut scopes: Vec<Scope>) -> Outcome {
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Failed::usage(format!("--name must have 1 to {NAME_CHARS_MAX} characters, in one line")));
    }
    scopes.sort_unstable();
    scopes.dedup();
    let (key, shown) = new_key(name, &scopes, SystemClock.now());
    store.create_api_key(&key).await?;
    say(shown);
    note(format_args!("Key {} ({name}) may {}. It is shown this once.", key.id, key.scopes.join(", ")));
    Ok(Exit::Done)
}

async fn list(store: &dyn Store) -> Outcome {
    let keys = store.api_keys().await?;
    if keys.is_empty() {
        say("There are no keys yet; `hikyaku key create --name NAME --scope send` makes one.");
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = keys
        .into_iter()
        .map(|key| {
            let used = key.last_used_at.map_or_else(|| "never".to_owned(), |t| t.to_string());
            let state = key
                .revoked_at
                .map_or_else(|| "good".to_owned(), |t| format!("revoked {t}"));
            vec![
                key.id,
                key.scopes.join(","),
                key.created_at.to_string(),
                used,
                state,
                key.name,
            ]
        })
        .collect();
    say(table(&["ID", "SCOPES", "CREATED", "LAST USED", "STATE", "NAME"], &[], &rows));
    Ok(Exit::Done)
}

async fn revoke(store: &dyn Store, id: &str) -> Outcome {
    // Whoever has only the key at hand may give it: the id is its middle.
    let bare = id.strip_prefix("hk_").unwrap_or(id);
    let bare = bare.split_once('_').map_or(bare, |(id, _)| id);
    if !store.revoke_api_key(bare, SystemClock.now()).await? {
        return Err(Failed::here(format!("there is no good key {bare}; `hikyaku key list` shows all")));
    }
    say(format_args!("Key {bare} is revoked; running servers stop to take it within seconds."));
    Ok(Exit::Done)
}
