//! `hikyaku relay put`: what is given about a relay, on top of what is stored. Never stores what cannot be.

use std::io::Read as _;

use super::refused;
use crate::cli::exit::{Exit, Failed, Outcome};
use crate::cli::terminal::{note, say};
use crate::clock::{Clock, SystemClock};
use crate::domain::relay::{Limits, Relay, RelaySpec};
use crate::pipeline::relays;
use crate::store::Store;

/// What `put` was told.
pub struct Change {
    pub url: Option<String>,
    pub weight: Option<u32>,
    /// A second, an hour, a day; 0 is none.
    pub limits: [Option<u32>; 3],
    pub whole: Option<RelaySpec>,
}

impl Change {
    /// What is stored with the change; nothing is stored yet for a new relay.
    fn applied_to(self, stored: Option<&Relay>) -> Result<RelaySpec, Failed> {
        if let Some(whole) = self.whole {
            return Ok(whole);
        }
        let mut spec = match (stored, self.url) {
            (Some(relay), None) => relay.spec.clone(),
            (Some(relay), Some(url)) => RelaySpec {
                url,
                ..relay.spec.clone()
            },
            (None, Some(url)) => RelaySpec::of(url),
            (None, None) => {
                return Err(Failed::usage("there is no relay of this name yet; give --url, or --spec, to add it"));
            }
        };
        spec.weight = self.weight.unwrap_or(spec.weight);
        let limit = |given: Option<u32>, stored: Option<u32>| match given {
            Some(0) => None,
            given => given.or(stored),
        };
        let [per_sec, per_hour, per_day] = self.limits;
        spec.limits = Limits {
            per_sec: limit(per_sec, spec.limits.per_sec),
            per_hour: limit(per_hour, spec.limits.per_hour),
            per_day: limit(per_day, spec.limits.per_day),
        };
        Ok(spec)
    }
}

/// A word, or what standard input holds for `-`.
pub fn from_input(word: &str, option: &str) -> Result<String, Failed> {
    if word != "-" {
        return Ok(word.to_owned());
    }
    let mut text = String::new();
    // A description is a few kilobytes; more is another file.
    std::io::stdin()
        .take(64 * 1024)
        .read_to_string(&mut text)
        .map_err(|e| Failed::usage(format!("{option} -: standard input cannot be read: {e}")))?;
    Ok(text.trim().to_owned())
}

/// A description in a file, or from standard input for `-`.
pub fn read_spec(file: &str) -> Result<RelaySpec, Failed> {
    let text = match file {
        "-" => from_input(file, "--spec")?,
        file => std::fs::read_to_string(file).map_err(|e| Failed::usage(format!("--spec {file}: {e}")))?,
    };
    let mut parser = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut parser)
        .map_err(|e| Failed::usage(format!("--spec {file}: {}: {}", e.path(), e.inner())))
}

pub async fn put(store: &dyn Store, name: &str, change: Change) -> Outcome {
    let stored = store.relay(name).await?;
    let is_new = stored.is_none();
    let spec = change.applied_to(stored.as_ref())?;
    let relay = relays::put(store, name, spec, SystemClock.now())
        .await
        .map_err(refused)?;
    let done = if is_new { "added" } else { "changed" };
    say(format_args!("Relay {name} is {done}: {}", relays::shown(&relay.spec).url));
    match relay.paused {
        Some(reason) => note(format_args!("It is paused ({reason}); `hikyaku relay resume {name}` lets it go on.")),
        None => note(format_args!("`hikyaku relay test {name}` shows whether it answers.")),
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    #[test]
    fn what_is_not_given_stays_as_it_was() {
        let mut spec = RelaySpec::of("smtp://h");
        spec.limits.per_day = Some(7);
        spec.limits.per_hour = Some(5);
        let stored = Relay {
            id: 1,
            name: "r".into(),
            spec,
            paused: None,
            paused_at: None,
            version: 1,
            updated_at: Timestamp(0),
        };
        let change = |url: Option<&str>| Change {
            url: url.map(str::to_owned),
            weight: None,
            limits: [Some(3), None, Some(0)],
            whole: None,
        };
        let changed = change(None).applied_to(Some(&stored)).unwrap();
        let limits = Limits {
            per_sec: Some(3),
            per_hour: Some(5),
            per_day: None,
        };
        assert_eq!((changed.url.as_str(), changed.limits), ("smtp://h", limits));
        assert_eq!(change(Some("smtp://new")).applied_to(Some(&stored)).unwrap().url, "smtp://new");
        assert!(change(None).applied_to(None).unwrap_err().message.contains("--url"));
    }
}
