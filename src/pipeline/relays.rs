//! An operator's changes of relays: put, pause, remove. Says what is wrong with a description before it is stored, and never
//! speaks to a relay: that is `probe`'s. Workers hear of every change by themselves.

use crate::domain::finding::Finding;
use crate::domain::relay::{Relay, RelaySpec, check_name};
use crate::domain::time::Timestamp;
use crate::smtp::RelayConfig;
use crate::smtp::masked::{masked, unmasked};
pub use crate::smtp::parts::{PartProblem, RelayParts};
use crate::store::{Store, StoreError};

/// Longest URL of a relay, in bytes: host names, passwords and options are shorter by far.
pub const URL_BYTES_MAX: usize = 2_000;
/// Most bytes of the reason of a pause: it stands in one line.
pub const REASON_BYTES_MAX: usize = 200;
/// Most relays. Every worker keeps connections to each.
pub const RELAYS_MAX: usize = 100;

/// What is wrong with a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// A JSON pointer without its first `/`, such as `lanes/0/connections`.
    pub field: String,
    pub detail: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("there is no relay {0}")]
    NotFound(String),
    #[error("{}", .0.detail)]
    Wrong(Wrong),
    /// Unfinished broadcasts name it and could go nowhere else.
    #[error("{} that no other relay may carry; let them end, or cancel them, and pause the relay meanwhile", broadcasts(*.0))]
    InUse(i64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn broadcasts(n: i64) -> String {
    match n {
        1 => "one broadcast is under way".to_owned(),
        n => format!("{n} broadcasts are under way"),
    }
}

fn wrong<T>(field: &str, detail: impl Into<String>) -> Result<T, RelayError> {
    Err(RelayError::Wrong(Wrong {
        field: field.to_owned(),
        detail: detail.into(),
    }))
}

/// Makes a relay, or replaces what is said about it. `***` for the password keeps the stored one.
///
/// # Errors
/// `Wrong` names the first field that cannot be; nothing is stored then.
pub async fn put(store: &dyn Store, name: &str, spec: RelaySpec, now: Timestamp) -> Result<Relay, RelayError> {
    if let Err(why) = check_name(name) {
        return wrong("name", why);
    }
    let stored = store.relay(name).await?;
    if stored.is_none() && store.relays().await?.len() >= RELAYS_MAX {
        return wrong("name", format!("there are {RELAYS_MAX} relays, which is the most; remove one first"));
    }
    let spec = checked(spec, stored.as_ref())?;
    Ok(store.put_relay(name, &spec, now).await?)
}

/// The description with its password, if all of it can be.
///
/// # Errors
/// `Wrong`.
pub fn checked(spec: RelaySpec, stored: Option<&Relay>) -> Result<RelaySpec, RelayError> {
    if spec.url.len() > URL_BYTES_MAX {
        return wrong("url", format!("the relay URL has {} bytes; {URL_BYTES_MAX} is the most", spec.url.len()));
    }
    let url = match unmasked(&spec.url, stored.map(|relay| relay.spec.url.as_str())) {
        Ok(url) => url,
        Err(why) => return wrong("url", why),
    };
    let config = match RelayConfig::parse(&url) {
        Ok(config) => config,
        Err(why) => return wrong("url", why),
    };
    if config.rate_per_sec.is_some() {
        return wrong(
            "url",
            "the relay URL says rate=; remove it and give limits.per_sec, so that it stands in one place",
        );
    }
    if url::Url::parse(&url).is_ok_and(|url| url.query_pairs().any(|(key, _)| key == "name")) {
        return wrong("url", "the relay URL says name=; remove it, the relay has its name already");
    }
    let spec = RelaySpec { url, ..spec };
    match spec.check() {
        Ok(()) => Ok(spec),
        Err((field, detail)) => wrong(&field, detail),
    }
}

/// Pauses a relay with a reason, or lets it go on, and returns it as it then stands. May be said twice.
///
/// # Errors
/// `NotFound`; `Wrong` for a reason that is too long.
pub async fn pause(store: &dyn Store, name: &str, reason: Option<&str>, now: Timestamp) -> Result<Relay, RelayError> {
    if let Some(reason) = reason
        && (reason.is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control))
    {
        return wrong("reason", format!("the reason must have 1 to {REASON_BYTES_MAX} bytes, in one line"));
    }
    if store.pause_relay(name, reason, now).await? {
        return find(store, name).await;
    }
    Err(RelayError::NotFound(name.to_owned()))
}

/// Forgets a relay. Its name stays in what it has sent.
///
/// # Errors
/// `NotFound`; `InUse` while broadcasts that are not over name it.
pub async fn remove(store: &dyn Store, name: &str, now: Timestamp) -> Result<(), RelayError> {
    find(store, name).await?;
    match store.broadcasts_bound_to(name).await? {
        0 if store.delete_relay(name, now).await? => Ok(()),
        0 => Err(RelayError::NotFound(name.to_owned())),
        n => Err(RelayError::InUse(n)),
    }
}

/// The relay of this name.
///
/// # Errors
/// `NotFound`.
pub async fn find(store: &dyn Store, name: &str) -> Result<Relay, RelayError> {
    let found = match check_name(name) {
        Ok(()) => store.relay(name).await?,
        Err(_) => None,
    };
    found.ok_or_else(|| RelayError::NotFound(name.to_owned()))
}

/// What was found out about a relay and holds now, and what is still to be tried.
///
/// # Errors
/// Of the store.
pub async fn findings(store: &dyn Store, relay: &Relay, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
    let Ok(address) = RelayConfig::parse(&relay.spec.url).map(|config| config.address()) else {
        return Ok(Vec::new());
    };
    let all = store.findings().await?;
    let holds = |f: &Finding| match f.value {
        None => f.address == address,
        Some(_) => f.value_at(&address, now).is_some(),
    };
    Ok(all.into_iter().filter(|f| f.relay_id == relay.id && holds(f)).collect())
}

/// Forgets what was found out about a relay, so that workers try it anew.
///
/// # Errors
/// `NotFound`.
pub async fn forget_findings(store: &dyn Store, name: &str) -> Result<Relay, RelayError> {
    let relay = find(store, name).await?;
    store.forget_findings(relay.id).await?;
    Ok(relay)
}

/// What is said about a relay, without its password.
#[must_use]
pub fn shown(spec: &RelaySpec) -> RelaySpec {
    RelaySpec {
        url: masked(&spec.url),
        ..spec.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(url: &str, stored: Option<&Relay>) -> String {
        match checked(RelaySpec::of(url), stored) {
            Err(RelayError::Wrong(wrong)) => {
                assert!(!wrong.detail.contains("hunter2"), "{}", wrong.detail);
                wrong.field
            }
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn what_stands_in_two_places_is_refused_in_one() {
        for url in [
            "smtp://h?rate=5",
            "smtp://h?name=x",
            "smtp://u:hunter2@h?tls=none",
            "smtp://u:***@h",
            "ftp://u:hunter2@h",
        ] {
            assert_eq!(field(url, None), "url", "{url}");
        }
        assert_eq!(field(&format!("smtp://h?helo={}", "x".repeat(URL_BYTES_MAX)), None), "url");
    }

    #[test]
    fn a_mask_keeps_the_stored_password() {
        let stored = Relay {
            id: 1,
            name: "r".into(),
            spec: RelaySpec::of("smtp://u:hunter2@relay.example:587"),
            paused: None,
            paused_at: None,
            version: 1,
            updated_at: Timestamp(0),
        };
        let edited = RelaySpec {
            weight: 7,
            ..shown(&stored.spec)
        };
        assert_eq!(edited.url, "smtp://u:***@relay.example:587");
        let spec = checked(edited, Some(&stored)).unwrap();
        assert_eq!((spec.url, spec.weight), (stored.spec.url.clone(), 7));
        assert_eq!(field("smtp://u:***@other.example:587", Some(&stored)), "url");
    }
}
