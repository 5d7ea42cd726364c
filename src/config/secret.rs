//! Values that may be used but not shown. They never print themselves: `Debug` and `Display` leave the secret part out.

use std::fmt;

/// What stands in the place of a secret when it is printed.
const REDACTED: &str = "***";

/// A secret word, such as an API key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a word that must not be printed from now on.
    #[must_use]
    pub fn new(word: impl Into<String>) -> Self {
        Self(word.into())
    }

    /// The word itself, for the one place that compares or sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A URL that may carry a password.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Takes a URL as typed; whether it makes sense is for its user to say.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password, for the one place that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The URL without its password. Text that is no URL with `//` is not shown at all: a password may be anywhere in it.
impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = match url::Url::parse(&self.0) {
            Ok(url) if url.has_authority() => url,
            _ => return f.write_str(REDACTED),
        };
        // A URL that cannot hold a password refuses to be given one, which is just as well.
        if url.password().is_some() && url.set_password(Some(REDACTED)).is_err() {
            return f.write_str(REDACTED);
        }
        // PostgreSQL's URLs take a password as a parameter as well (`?password=`, `?sslpassword=`).
        if url.query_pairs().any(|(key, _)| is_secret_parameter(&key)) {
            let shown: Vec<(String, String)> = url
                .query_pairs()
                .map(|(key, value)| match is_secret_parameter(&key) {
                    true => (key.into_owned(), REDACTED.to_owned()),
                    false => (key.into_owned(), value.into_owned()),
                })
                .collect();
            url.query_pairs_mut().clear().extend_pairs(shown);
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_secret_parameter(key: &str) -> bool {
    key.to_ascii_lowercase().contains("pass")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password_wherever_it_stands() {
        let cases = [
            ("postgres://app:hunter2@db:5432/mail", "postgres://app:***@db:5432/mail"),
            (
                "postgres://db/mail?password=hunter2&sslmode=require",
                "postgres://db/mail?password=***&sslmode=require",
            ),
            (
                "smtp://u:hunter2@mail.example.org:587?tls=starttls",
                "smtp://u:***@mail.example.org:587?tls=starttls",
            ),
            ("sqlite:///var/lib/hikyaku/hikyaku.db", "sqlite:///var/lib/hikyaku/hikyaku.db"),
            ("app:hunter2@db", "***"),
            ("postgres://app:hunter2@db:notaport/mail", "***"),
        ];
        for (given, shown) in cases {
            assert_eq!(SecretUrl::new(given).to_string(), shown);
            assert!(!format!("{:?}", SecretUrl::new(given)).contains("hunter2"));
        }
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}
