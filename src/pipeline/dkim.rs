//! An operator's keys that mail is signed with: made, compared with the DNS, put into use, removed. Never gives a private key away,
//! and never signs: that is `mime`'s.

use crate::dns::{Dns, DnsError};
use crate::domain::dkim::{DkimAlgorithm, DkimKey, parse_domain, parse_selector};
use crate::domain::id::DkimKeyId;
use crate::domain::time::Timestamp;
use crate::mime::generate_dkim_key;
use crate::store::{Store, StoreError};

/// Most keys. All are read together, and a domain needs two while one takes the place of another.
pub const KEYS_MAX: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum DkimError {
    #[error("there is no key {0}")]
    NotFound(String),
    /// The field, and what is wrong with it.
    #[error("{field}: {detail}")]
    Wrong { field: &'static str, detail: String },
    /// The record does not let receivers check the key.
    #[error("{name}: {why}")]
    Unpublished { name: String, why: Unpublished },
    #[error("a key could not be made: {0}")]
    NotMade(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why receivers cannot check a key's signatures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpublished {
    #[error("no TXT record was found; publish it, or wait until it has spread")]
    Absent,
    /// What is wrong with the record, with the fix.
    #[error("{0}")]
    Wrong(String),
    /// It may be there: nobody could be asked.
    #[error("{0}; it cannot be told whether the record is published")]
    Unknown(String),
}

/// Makes a key. It signs nothing before it is [enabled](enable). Without a selector it gets the next free one.
///
/// # Errors
/// `Wrong` for the domain or the selector; a conflict of the store when the selector is taken.
pub async fn create(
    store: &dyn Store,
    domain: &str,
    selector: Option<&str>,
    algorithm: DkimAlgorithm,
    now: Timestamp,
) -> Result<DkimKey, DkimError> {
    let wrong = |field| move |detail| DkimError::Wrong { field, detail };
    let domain = parse_domain(domain).map_err(wrong("domain"))?;
    let keys = store.dkim_keys().await?;
    if keys.len() >= KEYS_MAX {
        let why = format!("there are {KEYS_MAX} keys already; remove some that are not in use");
        return Err(StoreError::Conflict(why).into());
    }
    let selector = match selector {
        Some(text) => parse_selector(text).map_err(wrong("selector"))?,
        None => free_selector(&keys, &domain),
    };
    // An RSA key takes some tenths of a second.
    let made = tokio::task::spawn_blocking(move || generate_dkim_key(algorithm)).await;
    let made = made.unwrap_or_else(|_| Err("it was broken off".to_owned()));
    let (private_key, public_key) = made.map_err(DkimError::NotMade)?;
    let key = DkimKey {
        id: DkimKeyId::new(now, fastrand::u128(..)),
        domain,
        selector,
        algorithm,
        private_key,
        public_key,
        created_at: now,
        enabled_at: None,
    };
    store.create_dkim_key(&key).await?;
    Ok(key)
}

/// The next free one of `hikyaku1`, `hikyaku2` …; those are free of which no variant is in use either.
#[must_use]
pub fn free_selector(keys: &[DkimKey], domain: &str) -> String {
    let is_taken = |selector: &str| {
        let both = [selector.to_owned(), format!("{selector}-ed25519")];
        keys.iter()
            .any(|key| key.domain == domain && both.contains(&key.selector))
    };
    let mut names = (1..).map(|n| format!("hikyaku{n}"));
    names.find(|name| !is_taken(name)).expect("numbers do not end")
}

/// # Errors
/// `NotFound`, and those of the store.
pub async fn find(store: &dyn Store, id: &str) -> Result<DkimKey, DkimError> {
    let keys = store.dkim_keys().await?;
    let found = keys.into_iter().find(|key| key.id.as_str() == id);
    found.ok_or_else(|| DkimError::NotFound(id.to_owned()))
}

/// Whether the DNS has the key's record, so that receivers can check its signatures.
///
/// # Errors
/// What stands there instead, with the fix.
pub async fn check(dns: &Dns, key: &DkimKey) -> Result<(), Unpublished> {
    let found = dns.texts(&key.record_name()).await.map_err(|e| match e {
        DnsError::Absent => Unpublished::Absent,
        DnsError::Silent(_) => Unpublished::Unknown(e.to_string()),
    })?;
    let mut problem = Unpublished::Absent;
    for text in found {
        match key.check_record(&text) {
            Ok(()) => return Ok(()),
            Err(why) => problem = Unpublished::Wrong(why),
        }
    }
    Err(problem)
}

/// Signs new broadcasts with this key, and no longer with another one of its domain and algorithm. With `dns` only once its record
/// is found there: mail with a signature that cannot be checked is worse off than mail without.
///
/// # Errors
/// `NotFound`, `Unpublished`, and those of the store.
pub async fn enable(store: &dyn Store, dns: Option<&Dns>, id: &str, now: Timestamp) -> Result<DkimKey, DkimError> {
    let key = find(store, id).await?;
    if let Some(dns) = dns {
        check(dns, &key).await.map_err(|why| DkimError::Unpublished {
            name: key.record_name(),
            why,
        })?;
    }
    match store.enable_dkim_key(&key.id, now).await? {
        true => find(store, id).await,
        false => Err(DkimError::NotFound(id.to_owned())),
    }
}

/// Signs new broadcasts no longer with this key.
///
/// # Errors
/// `NotFound`, and those of the store.
pub async fn disable(store: &dyn Store, id: &str) -> Result<DkimKey, DkimError> {
    let key = find(store, id).await?;
    store.disable_dkim_key(&key.id).await?;
    Ok(DkimKey {
        enabled_at: None,
        ..key
    })
}

/// Forgets a key, and tells which it was.
///
/// # Errors
/// `NotFound`; a conflict of the store while a broadcast under way is signed with it.
pub async fn remove(store: &dyn Store, id: &str) -> Result<DkimKey, DkimError> {
    let key = find(store, id).await?;
    match store.remove_dkim_key(&key.id).await? {
        true => Ok(key),
        false => Err(DkimError::NotFound(id.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dkim::PrivateKey;

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
