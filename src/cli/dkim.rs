//! `hikyaku dkim`: keys that mail is signed with, kept in the database itself, whether a server runs or not. Prints the record that
//! the DNS needs, and looks whether it stands there. Never prints a private key.

use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};

use super::exit::{Exit, Failed, Outcome};
use super::settings::{DatabaseArgs, Overrides, database_url};
use super::terminal::{note, say, table};
use crate::clock::{Clock, SystemClock};
use crate::dns::Dns;
use crate::domain::dkim::{DkimAlgorithm, DkimKey, parse_domain};
use crate::pipeline::dkim::{self, DkimError};
use crate::store::{self, Store};

/// Makes, checks and enables the keys that mail is signed with (DKIM).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku dkim create --domain example.org
  hikyaku dkim check --domain example.org
  hikyaku dkim enable dkm_01kb…

A new key signs nothing until it is enabled: first publish its record. Mail from
a subdomain is signed with the key of the nearest domain that has one. Broadcasts
that were accepted before keep the keys they were accepted with.

To change a key: create a new one, publish its record, enable it. It takes the
place of the one before; remove that, and its record, some days later.")]
pub struct Dkim {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a key and prints the DNS record that receivers check it by.
    Create {
        /// The domain after the @ of the sender, or one above it
        #[arg(long)]
        domain: String,
        /// A name for the key, unique within the domain [default: hikyaku and the next free number]
        #[arg(long)]
        selector: Option<String>,
        /// `both` makes two keys; the selector of the second ends in -ed25519
        #[arg(long, value_enum, default_value_t = Choice::Rsa)]
        algorithm: Choice,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Lists all keys, without their private halves.
    List {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Looks up the records and compares them with the keys.
    Check {
        /// Only the keys of this domain
        #[arg(long)]
        domain: Option<String>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Signs new broadcasts with a key, once its record is published.
    Enable {
        /// As `dkim list` shows it
        id: String,
        /// Do not look up the record first
        #[arg(long)]
        unchecked: bool,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Signs new broadcasts no longer with a key.
    Disable {
        id: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Forgets a key, unless a broadcast under way is signed with it.
    Remove {
        id: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// Every receiver can check it
    Rsa,
    /// A tenth of the work, but not every receiver knows it
    Ed25519,
    /// Two signatures
    Both,
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: Dkim) -> Outcome {
    match args.action {
        Action::Create {
            domain,
            selector,
            algorithm,
            database,
        } => create(&*open(&database).await?.0, &domain, selector.as_deref(), algorithm).await,
        Action::List { database } => list(&*open(&database).await?.0).await,
        Action::Check { domain, database } => {
            let (store, dns) = open(&database).await?;
            check(&*store, &dns, domain.as_deref()).await
        }
        Action::Enable {
            id,
            unchecked,
            database,
        } => {
            let (store, dns) = open(&database).await?;
            enable(&*store, Some(&dns).filter(|_| !unchecked), &id).await
        }
        Action::Disable { id, database } => {
            let key = dkim::disable(&*open(&database).await?.0, &id).await?;
            say(format_args!("New broadcasts are not signed with {} any more.", key.record_name()));
            Ok(Exit::Done)
        }
        Action::Remove { id, database } => {
            let key = dkim::remove(&*open(&database).await?.0, &id).await?;
            say(format_args!("{} is removed. Leave its record in the DNS for some days.", key.record_name()));
            Ok(Exit::Done)
        }
    }
}

impl From<DkimError> for Failed {
    fn from(e: DkimError) -> Self {
        match e {
            DkimError::NotFound(_) => Failed::here(format!("{e}; `hikyaku dkim list` shows all")),
            DkimError::Wrong { field, detail } => Failed::usage(format!("--{field}: {detail}")),
            DkimError::Unpublished { .. } => {
                Failed::here(format!("{e}. The key is not enabled; --unchecked enables it all the same"))
            }
            DkimError::NotMade(_) => Failed::here(e.to_string()),
            DkimError::Store(e) => e.into(),
        }
    }
}

async fn open(args: &DatabaseArgs) -> Result<(Arc<dyn Store>, Dns), Failed> {
    let config = Overrides::default().database(args).load()?;
    Ok((store::open(&database_url(&config)?).await?, Dns::of(config.dns.server)))
}

async fn create(store: &dyn Store, domain: &str, selector: Option<&str>, choice: Choice) -> Outcome {
    let wanted: &[(DkimAlgorithm, &str)] = match choice {
        Choice::Rsa => &[(DkimAlgorithm::Rsa, "")],
        Choice::Ed25519 => &[(DkimAlgorithm::Ed25519, "")],
        Choice::Both => &[(DkimAlgorithm::Rsa, ""), (DkimAlgorithm::Ed25519, "-ed25519")],
    };
    let domain = parse_domain(domain).map_err(|why| Failed::usage(format!("--domain: {why}")))?;
    let selector = match selector {
        Some(text) => text.to_owned(),
        None => dkim::free_selector(&store.dkim_keys().await?, &domain),
    };
    for (algorithm, suffix) in wanted {
        let selector = format!("{selector}{suffix}");
        let key = dkim::create(store, &domain, Some(&selector), *algorithm, SystemClock.now()).await?;
        say(key.zone_line());
        note(format_args!(
            "Key {} ({}). In a form: name {}, type TXT, value {}",
            key.id,
            algorithm.as_str(),
            key.record_name(),
            key.record()
        ));
        note(format_args!("When the record is published: hikyaku dkim enable {}", key.id));
    }
    Ok(Exit::Done)
}

async fn list(store: &dyn Store) -> Outcome {
    let keys = store.dkim_keys().await?;
    if keys.is_empty() {
        say("There are no keys yet; `hikyaku dkim create --domain DOMAIN` makes one.");
        return Ok(Exit::Done);
    }
    let row = |key: DkimKey| {
        let state = key
            .enabled_at
            .map_or_else(|| "not in use".to_owned(), |t| format!("signs since {t}"));
        let algorithm = key.algorithm.as_str().to_owned();
        vec![key.id.to_string(), key.domain, key.selector, algorithm, state]
    };
    let rows: Vec<Vec<String>> = keys.into_iter().map(row).collect();
    say(table(&["ID", "DOMAIN", "SELECTOR", "ALGORITHM", "STATE"], &[], &rows));
    Ok(Exit::Done)
}

async fn check(store: &dyn Store, dns: &Dns, domain: Option<&str>) -> Outcome {
    let domain = domain
        .map(parse_domain)
        .transpose()
        .map_err(|why| Failed::usage(format!("--domain: {why}")))?;
    let mut keys = store.dkim_keys().await?;
    keys.retain(|key| domain.as_ref().is_none_or(|domain| *domain == key.domain));
    if keys.is_empty() {
        return Err(Failed::here("there is no key to check; `hikyaku dkim create --domain DOMAIN` makes one"));
    }
    let mut all_well = true;
    for key in &keys {
        let found = dkim::check(dns, key).await;
        all_well &= found.is_ok();
        match found {
            Ok(()) => say(format_args!("ok    {}", key.record_name())),
            Err(why) => say(format_args!("fail  {}: {why}", key.record_name())),
        };
    }
    Ok(if all_well { Exit::Done } else { Exit::Failed })
}

async fn enable(store: &dyn Store, dns: Option<&Dns>, id: &str) -> Outcome {
    let key = dkim::enable(store, dns, id, SystemClock.now()).await?;
    say(format_args!("New broadcasts from {} are signed with {}.", key.domain, key.record_name()));
    Ok(Exit::Done)
}
