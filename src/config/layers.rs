//! The layers of the configuration, laid on each other key by key. Takes the names and types of the keys from the sample file;
//! never judges what a value means (that is the parent module).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::Problem;

/// The documented sample, which is the lowest layer and says which keys there are and of which type.
pub const SAMPLE: &str = include_str!("../../config.default.toml");

/// The environment variables and the keys they set. They are part of the interface: renaming one breaks installations.
pub const ENVIRONMENT: [(&str, &str); 9] = [
    ("HIKYAKU_DATA_DIR", "data_dir"),
    ("HIKYAKU_LISTEN", "web.listen"),
    ("HIKYAKU_PUBLIC_URL", "web.public_url"),
    ("HIKYAKU_API_KEY", "web.api_key"),
    ("HIKYAKU_DATABASE_URL", "database.url"),
    ("HIKYAKU_RELAY_URL", "relay.url"),
    ("HIKYAKU_DNS_SERVER", "dns.server"),
    ("HIKYAKU_LOG", "log.filter"),
    ("HIKYAKU_LOG_FORMAT", "log.format"),
];

/// The configuration as typed: every key of the sample, none of them judged yet. Not `Debug`: it holds secrets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub data_dir: String,
    pub web: RawWeb,
    pub database: RawDatabase,
    pub relay: RawRelay,
    pub dns: RawDns,
    pub worker: RawWorker,
    pub retry: RawRetry,
    pub safety: RawSafety,
    pub retention: RawRetention,
    pub log: RawLog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWeb {
    pub listen: String,
    pub public_url: String,
    pub api_key: String,
    pub json_mib_max: u64,
    pub stream_mib_max: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDatabase {
    pub url: String,
    pub connections: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRelay {
    pub url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDns {
    pub server: String,
    pub mx_lanes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWorker {
    pub concurrent_jobs: u64,
    pub lease_secs: u64,
    pub heartbeat_secs: u64,
    pub poll_secs: u64,
    pub drain_secs: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetry {
    pub delays_secs: Vec<u64>,
    pub jitter_percent: u64,
    pub max_age_hours: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSafety {
    pub failed_percent_max: u64,
    pub outcomes_min: u64,
    pub refused_percent_max: u64,
    pub refused_min: u64,
    pub doubts_max: u64,
    pub canary_wait_secs: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetention {
    pub messages_days: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub filter: String,
    pub format: String,
}

/// The layers laid so far, and for each key that is not the sample's own, where its value came from.
pub(super) struct Layers {
    table: Table,
    pub origins: BTreeMap<String, String>,
    pub problems: Vec<Problem>,
}

impl Layers {
    /// The lowest layer: the sample.
    pub fn from_sample() -> Self {
        let table = SAMPLE.parse().expect("the sample is compiled in, and a test reads it");
        Self {
            table,
            origins: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Lays a configuration file on top. What is wrong in it is noted, the rest of it counts.
    pub fn add_file(&mut self, path: &Path, text: &str) {
        let origin = path.display().to_string();
        match text.parse::<Table>() {
            Ok(given) => overlay(&mut self.table, given, "", &mut |key, problem| match problem {
                None => drop(self.origins.insert(key, origin.clone())),
                Some(what) => self.problems.push(Problem::new(key, &origin, what)),
            }),
            // Only the parser's sentence: its longer form quotes the line, and a password may stand there.
            Err(e) => {
                let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
                self.problems
                    .push(Problem::new(format!("line {line}"), &origin, e.message()));
            }
        }
    }

    /// Lays one value on top that came as a word, from the environment or the command line.
    ///
    /// Panics when `key` is not one of the sample: the names are the program's own, not the user's.
    pub fn add_word(&mut self, key: &str, word: &str, origin: &str) {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let table = match section {
            "" => &mut self.table,
            _ => self.table[section]
                .as_table_mut()
                .expect("a dotted key names a section of the sample"),
        };
        let slot = table.get_mut(name).expect("the key is one of the sample");
        let value = match slot {
            Value::Integer(_) => match word.parse() {
                Ok(n) => Value::Integer(n),
                Err(_) => return self.problems.push(Problem::new(key, origin, "must be a whole number")),
            },
            _ => Value::String(word.to_owned()),
        };
        *slot = value;
        self.origins.insert(key.to_owned(), origin.to_owned());
    }

    /// All layers as one. Every key has the sample's type by now.
    pub fn into_raw(self) -> RawConfig {
        self.table
            .try_into()
            .expect("overlay keeps the sample's keys and types")
    }
}

/// Lays `given` on `base`, which knows the keys and their types, and tells of each key whether it was taken (`None`) or why not.
fn overlay(base: &mut Table, given: Table, prefix: &str, tell: &mut dyn FnMut(String, Option<String>)) {
    let known = base.keys().cloned().collect::<Vec<_>>().join(", ");
    for (name, value) in given {
        let key = format!("{prefix}{name}");
        match (base.get_mut(&name), value) {
            (None, _) => tell(key, Some(format!("is not a setting; here can stand {known}"))),
            (Some(Value::Table(section)), Value::Table(inner)) => overlay(section, inner, &format!("{key}."), tell),
            (Some(slot), value) => match type_problem(slot, &value) {
                Some(what) => tell(key, Some(what)),
                None => {
                    *slot = value;
                    tell(key, None);
                }
            },
        }
    }
}

/// What is wrong with the type of `given` in the place of `expected`, if anything.
fn type_problem(expected: &Value, given: &Value) -> Option<String> {
    let fits = match (expected, given) {
        (Value::Integer(_), Value::Integer(n)) => *n >= 0,
        (Value::String(_), Value::String(_)) => true,
        (Value::Array(_), Value::Array(items)) => items.iter().all(|i| i.as_integer().is_some_and(|n| n >= 0)),
        _ => false,
    };
    let wanted = match expected {
        Value::Integer(_) => "a whole number, not negative, without quotes",
        Value::Array(_) => "a list of whole numbers, such as [60, 300]",
        Value::Table(_) => "a section, written as [name] with its keys below",
        _ => "a text in quotes",
    };
    (!fits).then(|| format!("must be {wanted}"))
}
