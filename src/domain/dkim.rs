//! Keys that mail is signed with (DKIM, RFC 6376): whose they are, and the record under which receivers find the public
//! half. Never signs and never looks anything up.

use std::fmt;
use std::str::FromStr;

use super::address::to_ascii_domain;
use super::id::DkimKeyId;
use super::time::Timestamp;

/// Longest selector: one label of a domain name (RFC 1035 2.3.4), so that it is easily typed into any provider's form.
pub const SELECTOR_BYTES_MAX: usize = 63;
/// Most bytes of one string of a TXT record (RFC 1035 3.3.14): an RSA key needs two.
pub const TXT_STRING_BYTES_MAX: usize = 255;

/// How a key signs. The words are those of the `k=` tag (RFC 6376 3.6.1, RFC 8463 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DkimAlgorithm {
    /// RSA with 2,048 bits and SHA-256: every receiver can check it.
    Rsa,
    /// Ed25519 with SHA-256: a tenth of the work and a short record, but not every receiver knows it yet.
    Ed25519,
}

impl DkimAlgorithm {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DkimAlgorithm::Rsa => "rsa",
            DkimAlgorithm::Ed25519 => "ed25519",
        }
    }
}

impl FromStr for DkimAlgorithm {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rsa" => Ok(DkimAlgorithm::Rsa),
            "ed25519" => Ok(DkimAlgorithm::Ed25519),
            _ => Err(format!("'{}' is not an algorithm; use rsa or ed25519", text.escape_debug())),
        }
    }
}

/// The secret half of a key: PKCS#8 as PEM text. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(String);

impl PrivateKey {
    #[must_use]
    pub fn new(pem: String) -> Self {
        Self(pem)
    }

    /// The text itself, for the database and for whoever signs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// A key of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimKey {
    pub id: DkimKeyId,
    /// Lower case, A-labels; signs for its subdomains as well.
    pub domain: String,
    /// Unique within the domain.
    pub selector: String,
    pub algorithm: DkimAlgorithm,
    pub private_key: PrivateKey,
    /// The `p=` tag: base64 of a SubjectPublicKeyInfo for RSA, of the bare 32 bytes for Ed25519 (RFC 8463 4).
    pub public_key: String,
    pub created_at: Timestamp,
    /// Since when new broadcasts are signed with it. A key is not in use before its record is published.
    pub enabled_at: Option<Timestamp>,
}

impl DkimKey {
    /// Where its record stands in the DNS.
    #[must_use]
    pub fn record_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// The record, as one text.
    #[must_use]
    pub fn record(&self) -> String {
        format!("v=DKIM1; k={}; p={}", self.algorithm.as_str(), self.public_key)
    }

    /// The record in the strings that a TXT record is made of; whoever reads them joins them without a space.
    #[must_use]
    pub fn record_strings(&self) -> Vec<String> {
        let record = self.record();
        let strings = record.as_bytes().chunks(TXT_STRING_BYTES_MAX);
        strings.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }

    /// The record as a line of a zone file (RFC 1035 5.1).
    #[must_use]
    pub fn zone_line(&self) -> String {
        let strings: Vec<String> = self.record_strings().iter().map(|s| format!("\"{s}\"")).collect();
        format!("{}. 3600 IN TXT ( {} )", self.record_name(), strings.join(" "))
    }

    /// Whether a record that was found in the DNS lets receivers check this key's signatures.
    ///
    /// # Errors
    /// What is wrong with it, with the fix.
    pub fn check_record(&self, found: &str) -> Result<(), String> {
        let tag = |name: &str| {
            let tags = found.split(';').filter_map(|tag| tag.split_once('='));
            let value = tags.into_iter().find(|(n, _)| n.trim() == name).map(|(_, value)| value);
            value.map(|v| v.split_ascii_whitespace().collect::<String>())
        };
        if let Some(version) = tag("v").filter(|v| v != "DKIM1") {
            return Err(format!("the record says v={version}; it must begin with v=DKIM1"));
        }
        // RFC 6376 3.6.1: without k= it is an RSA key.
        let kind = tag("k").unwrap_or_else(|| "rsa".to_owned());
        if kind != self.algorithm.as_str() {
            return Err(format!("the record says k={kind}; it must say k={}", self.algorithm.as_str()));
        }
        match tag("p") {
            None => Err("the record has no p=, the public key; publish the whole text".to_owned()),
            Some(p) if p.is_empty() => Err("the record's p= is empty, which revokes the key".to_owned()),
            Some(p) if p == self.public_key => Ok(()),
            Some(p) if self.public_key.starts_with(&p) => {
                Err("the record's p= is cut off; a value longer than 255 bytes needs two quoted strings".to_owned())
            }
            Some(_) => Err("the record holds another public key; publish this one, or use another selector".to_owned()),
        }
    }
}

/// A signing domain as people write it: lower case, A-labels.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_domain(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('.');
    to_ascii_domain(text).map_err(|why| match text.is_empty() {
        true => "the domain is empty".to_owned(),
        false => format!("{why}: '{}'", text.escape_debug()),
    })
}

/// A selector: letters, digits and hyphens, one label.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_selector(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    let is_right = (1..=SELECTOR_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    match is_right {
        true => Ok(text),
        false => Err(format!(
            "a selector has 1 to {SELECTOR_BYTES_MAX} letters, digits and inner hyphens, not '{}'",
            text.escape_debug()
        )),
    }
}

/// The domains whose keys may sign mail from this one, the nearest first: itself and those above it. A signature of the
/// organisation's domain counts for its subdomains (RFC 7489 3.1.1).
#[must_use]
pub fn signing_domains(from: &str) -> Vec<&str> {
    let above = std::iter::successors(Some(from), |domain| domain.split_once('.').map(|(_, above)| above));
    above.filter(|domain| domain.contains('.')).collect()
}

/// The keys that sign mail from this domain now: the enabled ones of the nearest domain that has any.
#[must_use]
pub fn signing_keys(keys: &[DkimKey], from: &str) -> Vec<DkimKey> {
    let enabled = |domain: &str| -> Vec<DkimKey> {
        let of_domain = keys
            .iter()
            .filter(|key| key.domain == domain && key.enabled_at.is_some());
        of_domain.cloned().collect()
    };
    let found = signing_domains(from)
        .into_iter()
        .map(enabled)
        .find(|keys| !keys.is_empty());
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(algorithm: DkimAlgorithm, public_key: &str) -> DkimKey {
        DkimKey {
            id: DkimKeyId::new(Timestamp(0), 1),
            domain: "example.org".into(),
            selector: "s1".into(),
            algorithm,
            private_key: PrivateKey::new("secret".into()),
            public_key: public_key.into(),
            created_at: Timestamp(0),
            enabled_at: None,
        }
    }

    #[test]
    fn a_long_record_is_cut_into_strings_that_join_to_it() {
        let long = key(DkimAlgorithm::Rsa, &"A".repeat(392));
        let strings = long.record_strings();
        assert_eq!(strings.iter().map(String::len).collect::<Vec<_>>(), [255, 155]);
        assert_eq!(strings.concat(), long.record());
        assert!(
            long.zone_line()
                .starts_with("s1._domainkey.example.org. 3600 IN TXT ( \"v=DKIM1; k=rsa; p=AAA")
        );
        assert_eq!(
            key(DkimAlgorithm::Ed25519, "QUJD").zone_line(),
            "s1._domainkey.example.org. 3600 IN TXT ( \"v=DKIM1; k=ed25519; p=QUJD\" )"
        );
    }

    #[test]
    fn a_record_is_told_right_from_wrong() {
        let rsa = key(DkimAlgorithm::Rsa, "QUJDREVG");
        for right in ["v=DKIM1; k=rsa; p=QUJDREVG", "p=QUJD REVG", " v = DKIM1;p=QUJDREVG;t=s"] {
            assert_eq!(rsa.check_record(right), Ok(()), "{right}");
        }
        for (wrong, says) in [
            ("v=DKIM2; p=QUJDREVG", "v=DKIM1"),
            ("v=DKIM1; k=ed25519; p=QUJDREVG", "k=rsa"),
            ("v=DKIM1; k=rsa", "no p="),
            ("v=DKIM1; p=", "revokes"),
            ("v=DKIM1; p=QUJD", "cut off"),
            ("v=DKIM1; p=WFla", "another public key"),
            ("v=spf1 -all", "must begin"),
        ] {
            let why = rsa.check_record(wrong).expect_err(wrong);
            assert!(why.contains(says), "{wrong}: {why}");
        }
    }

    #[test]
    fn domains_and_selectors_have_one_form() {
        assert_eq!(parse_domain(" Bücher.Example. ").as_deref(), Ok("xn--bcher-kva.example"));
        assert_eq!(parse_selector("S-1").as_deref(), Ok("s-1"));
        for wrong in ["", "org", "a b.example", "-a.example"] {
            assert!(parse_domain(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "a.b", "-a", "a_b", &"x".repeat(64)] {
            assert!(parse_selector(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_domain_is_signed_for_by_itself_or_by_one_above_it() {
        assert_eq!(signing_domains("a.b.example.org"), ["a.b.example.org", "b.example.org", "example.org"]);
        assert_eq!(signing_domains("example.org"), ["example.org"]);
    }

    #[test]
    fn a_private_key_is_never_printed() {
        assert!(!format!("{:?}", key(DkimAlgorithm::Rsa, "QUJD")).contains("secret"));
    }

    #[test]
    fn the_nearest_domain_with_an_enabled_key_signs() {
        let at = |domain: &str, selector: &str, is_enabled: bool| DkimKey {
            domain: domain.into(),
            selector: selector.into(),
            enabled_at: is_enabled.then_some(Timestamp(1)),
            ..key(DkimAlgorithm::Ed25519, "x")
        };
        let keys = [
            at("example.org", "a", true),
            at("example.org", "b", true),
            at("news.example.org", "c", true),
            at("deep.news.example.org", "d", false),
        ];
        let selectors =
            |from: &str| -> Vec<String> { signing_keys(&keys, from).into_iter().map(|key| key.selector).collect() };
        assert_eq!(selectors("example.org"), ["a", "b"]);
        assert_eq!(selectors("shop.example.org"), ["a", "b"]);
        assert_eq!(selectors("deep.news.example.org"), ["c"]);
        assert_eq!(selectors("example.com"), [""; 0]);
    }
}
