//! `hikyaku dkim`: keys that mail is signed with, kept in the database itself, whether a server runs or not. Prints the record that
//! the DNS needs, and looks whether it stands there. Never prints a private key.

use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

use super::exit::{Exit, Failed, Outcome};
use super::settings::{DatabaseArgs, Overrides, database_url};
use super::terminal::{note, say, table};
use crate::clock::{Clock, SystemClock};
use crate::domain::dkim::{DkimAlgorithm, DkimKey, parse_domain, parse_selector};
use crate::domain::id::DkimKeyId;
use crate::mime::generate_dkim_key;
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
        } => create(&*open(&database).await?, &domain, selector.as_deref(), algorithm).await,
        Action::List { database } => list(&*open(&database).await?).await,
        Action::Check { domain, database } => check(&*open(&database).await?, domain.as_deref()).await,
        Action::Enable {
            id,
            unchecked,
            database,
        } => enable(&*open(&database).await?, &id, unchecked).await,
        Action::Disable { id, database } => {
            let store = open(&database).await?;
            let key = find(&*store, &id).await?;
            store.disable_dkim_key(&key.id).await?;
            say(format_args!("New broadcasts are not signed with {} any more.", key.record_name()));
            Ok(Exit::Done)
        }
        Action::Remove { id, database } => {
            let store = open(&database).await?;
            let key = find(&*store, &id).await?;
            store.remove_dkim_key(&key.id).await?;
            say(format_args!("{} is removed. Leave its record in the DNS for some days.", key.record_name()));
            Ok(Exit::Done)
        }
    }
}

async fn open(args: &DatabaseArgs) -> Result<Arc<dyn Store>, Failed> {
    let config = Overrides::default().database(args).load()?;
    Ok(store::open(&database_url(&config)?).await?)
}

async fn find(store: &dyn Store, id: &str) -> Result<DkimKey, Failed> {
    let keys = store.dkim_keys().await?;
    let found = keys.into_iter().find(|key| key.id.as_str() == id);
    found.ok_or_else(|| Failed::here(format!("there is no key {id}; `hikyaku dkim list` shows all")))
}

async fn create(store: &dyn Store, domain: &str, selector: Option<&str>, choice: Choice) -> Outcome {
    let domain = parse_domain(domain).map_err(|why| Failed::usage(format!("--domain: {why}")))?;
    let selector = match selector {
        Some(text) => parse_selector(text).map_err(|why| Failed::usage(format!("--selector: {why}")))?,
        None => free_selector(&store.dkim_keys().await?, &domain),
    };
    let wanted: &[(DkimAlgorithm, &str)] = match choice {
        Choice::Rsa => &[(DkimAlgorithm::Rsa, "")],
        Choice::Ed25519 => &[(DkimAlgorithm::Ed25519, "")],
        Choice::Both => &[(DkimAlgorithm::Rsa, ""), (DkimAlgorithm::Ed25519, "-ed25519")],
    };
    for (algorithm, suffix) in wanted {
        let selector = parse_selector(&format!("{selector}{suffix}")).map_err(Failed::usage)?;
        let (private_key, public_key) = generate_dkim_key(*algorithm).map_err(Failed::here)?;
        let now = SystemClock.now();
        let key = DkimKey {
            id: DkimKeyId::new(now, fastrand::u128(..)),
            domain: domain.clone(),
            selector,
            algorithm: *algorithm,
            private_key,
            public_key,
            created_at: now,
            enabled_at: None,
        };
        store.create_dkim_key(&key).await?;
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

fn free_selector(keys: &[DkimKey], domain: &str) -> String {
    let is_taken = |selector: &str| {
        let both = [selector.to_owned(), format!("{selector}-ed25519")];
        keys.iter()
            .any(|key| key.domain == domain && both.contains(&key.selector))
    };
    let mut names = (1..).map(|n| format!("hikyaku{n}"));
    names.find(|name| !is_taken(name)).expect("numbers do not end")
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

async fn check(store: &dyn Store, domain: Option<&str>) -> Outcome {
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
        let found = look_up(key).await;
        all_well &= found.is_ok();
        match found {
            Ok(()) => say(format_args!("ok    {}", key.record_name())),
            Err(why) => say(format_args!("fail  {}: {why}", key.record_name())),
        };
    }
    Ok(if all_well { Exit::Done } else { Exit::Failed })
}

async fn enable(store: &dyn Store, id: &str, unchecked: bool) -> Outcome {
    let key = find(store, id).await?;
    if !unchecked && let Err(why) = look_up(&key).await {
        return Err(Failed::here(format!(
            "{}: {why}. The key is not enabled; --unchecked enables it all the same",
            key.record_name()
        )));
    }
    store.enable_dkim_key(&key.id, SystemClock.now()).await?;
    say(format_args!("New broadcasts from {} are signed with {}.", key.domain, key.record_name()));
    Ok(Exit::Done)
}

/// Whether the DNS has the key's record, by the resolver of this machine.
async fn look_up(key: &DkimKey) -> Result<(), String> {
    let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
    let resolver = resolver.map_err(|e| format!("this machine has no resolver to ask: {e}"))?;
    // The dot at the end: the name is whole, and no search domain is to be tried behind it.
    let found = resolver.txt_lookup(format!("{}.", key.record_name())).await;
    let found = found.map_err(|e| format!("no record was found ({e}); publish it, or wait until it has spread"))?;
    let mut problem = Err("no TXT record was found; publish it, or wait until it has spread".to_owned());
    for record in found.answers() {
        if let RData::TXT(txt) = &record.data {
            let bytes: Vec<u8> = txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
            problem = key.check_record(&String::from_utf8_lossy(&bytes));
            if problem.is_ok() {
                break;
            }
        }
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dkim::PrivateKey;
    use crate::domain::time::Timestamp;

    #[test]
    fn a_new_key_gets_the_next_free_selector_of_its_domain() {
        let key = |domain: &str, selector: &str| DkimKey {
            id: DkimKeyId::new(Timestamp(0), 1),
            domain: domain.into(),
            selector: selector.into(),
            algorithm: DkimAlgorithm::Rsa,
            private_key: PrivateKey::new(String::new()),
            public_key: String::new(),
            created_at: Timestamp(0),
            enabled_at: None,
        };
        let keys = [
            key("a.example", "hikyaku1"),
            key("a.example", "hikyaku2-ed25519"),
            key("b.example", "hikyaku3"),
        ];
        assert_eq!(free_selector(&keys, "a.example"), "hikyaku3");
        assert_eq!(free_selector(&keys, "c.example"), "hikyaku1");
    }
}
