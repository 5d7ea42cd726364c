//! Relay URLs as they are shown: with [`MASK`] where the password stands. Never gives a stored password to another user or
//! host than the ones it was stored with.

use url::Url;

/// Stands for the password in a URL that is shown, and for "as it is stored" in one that comes back. A password that really is
/// three asterisks is written `%2A%2A%2A`.
pub const MASK: &str = "***";

/// The URL without its password.
#[must_use]
pub fn masked(url: &str) -> String {
    let Some(mut parsed) = Url::parse(url).ok().filter(Url::has_host) else {
        return "(unreadable)".to_owned();
    };
    if parsed.password().is_none() {
        return url.to_owned();
    }
    match parsed.set_password(Some(MASK)) {
        Ok(()) => parsed.to_string(),
        Err(()) => "(unreadable)".to_owned(),
    }
}

/// The URL with the stored password where [`MASK`] stands; as it is when no mask stands in it.
///
/// # Errors
/// A sentence: there is no stored password, or it belongs to another user or host.
pub fn unmasked(given: &str, stored: Option<&str>) -> Result<String, String> {
    let given = given.trim();
    let Ok(mut url) = Url::parse(given) else {
        return Ok(given.to_owned());
    };
    if url.password() != Some(MASK) {
        return Ok(given.to_owned());
    }
    let stored = stored.and_then(|stored| Url::parse(stored).ok());
    let Some((stored, password)) = stored.as_ref().and_then(|s| Some((s, s.password()?))) else {
        return Err(format!(
            "the relay URL has {MASK} for its password, and none is stored; write the password (one that really is {MASK} as \
             %2A%2A%2A)"
        ));
    };
    if (stored.username(), stored.host_str()) != (url.username(), url.host_str()) {
        return Err(format!(
            "the relay URL has {MASK} for its password, but names another user or host than the one it was stored for; write the \
             password again"
        ));
    }
    // What is stored is percent-encoded already, and what is encoded stays so.
    match url.set_password(Some(password)) {
        Ok(()) => Ok(url.to_string()),
        Err(()) => Err("the relay URL cannot hold a password; write it as smtp://user:password@host:port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::RelayConfig;

    const STORED: &str = "smtp://anna%40x:p%3Ass%25@mail.example.org:587?tls=starttls";

    #[test]
    fn a_shown_url_comes_back_with_its_password() {
        let shown = masked(STORED);
        assert_eq!(shown, "smtp://anna%40x:***@mail.example.org:587?tls=starttls");
        assert_eq!(unmasked(&shown, Some(STORED)).as_deref(), Ok(STORED));
        let moved = shown.replace("587", "2525").replace("starttls", "implicit");
        let relay = RelayConfig::parse(&unmasked(&moved, Some(STORED)).unwrap()).unwrap();
        assert_eq!((relay.port, relay.credentials.unwrap().password.as_str()), (2525, "p:ss%"));
    }

    #[test]
    fn a_password_goes_to_nobody_else() {
        for given in [
            "smtp://anna%40x:***@evil.example:587",
            "smtp://bob:***@mail.example.org:587",
        ] {
            assert!(unmasked(given, Some(STORED)).unwrap_err().contains("again"), "{given}");
        }
        assert!(unmasked("smtp://a:***@h", None).unwrap_err().contains("none is stored"));
        assert!(
            unmasked("smtp://a:***@h", Some("smtp://h"))
                .unwrap_err()
                .contains("none is stored")
        );
    }

    #[test]
    fn a_url_without_a_mask_stays_as_it_is() {
        for url in ["smtp://h", "smtp://a:b@h", "smtp://a:%2A%2A%2A@h", "nonsense"] {
            assert_eq!(unmasked(url, Some(STORED)).as_deref(), Ok(url));
        }
        assert_eq!(masked("smtp://h?rate=5"), "smtp://h?rate=5");
        assert_eq!(masked("smtp://a:%2A%2A%2A@h"), "smtp://a:***@h");
        assert_eq!(masked("a:hunter2@h h"), "(unreadable)");
    }
}
