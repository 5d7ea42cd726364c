//! E-mail addresses: parsed once at the edge, in one normal form for de-duplication and suppression.
//! Never looks anything up; an address that parses here is well formed, not necessarily alive.

use std::fmt;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::sign::hidden_sign;

/// Longest address accepted: the path limit of RFC 5321 4.5.3.1.3 less its two angle brackets.
pub const ADDRESS_LEN_MAX: usize = 254;
/// Longest local part: RFC 5321 4.5.3.1.1.
pub const LOCAL_LEN_MAX: usize = 64;

/// One mailbox address as it goes on the wire. The domain is lower case and in its A-label form
/// (RFC 5891); the local part keeps its case, because only the receiving host may interpret it
/// (RFC 5321 2.4), and is in Unicode's form NFC, as RFC 6532 3.1 asks for, so that two spellings of one letter are one
/// mailbox. No signs that cannot be seen, no typographic quotes, no control characters, no spaces, no quoted local parts, no address literals.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct EmailAddress(Box<str>);

/// For what is stored: it was parsed when it came in, maybe by an older program that took more.
impl From<String> for EmailAddress {
    fn from(text: String) -> Self {
        Self::from_stored(text)
    }
}

impl From<EmailAddress> for String {
    fn from(address: EmailAddress) -> String {
        address.0.into_string()
    }
}

impl EmailAddress {
    /// Parses `local@domain`; surrounding white space is dropped.
    ///
    /// # Errors
    /// A short sentence that names what is wrong, fit to be shown beside the field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the address is empty".into());
        }
        if let Some(c) = text.chars().find(|c| c.is_control() || c.is_whitespace()) {
            return Err(format!("the address holds {}, which no address may", c.escape_unicode()));
        }
        if let Some(sign) = hidden_sign(text) {
            let hint = "type the address anew, and a domain with such a sign in its xn-- form";
            return Err(format!("the address holds {sign}, which no address may; {hint}"));
        }
        let (local, domain) = text
            .rsplit_once('@')
            .ok_or_else(|| format!("no @ in '{}'", shorten(text)))?;
        let local: String = local.nfc().collect();
        if local.len() > LOCAL_LEN_MAX {
            return Err(format!("the part before @ has {} bytes; {LOCAL_LEN_MAX} is the most", local.len()));
        }
        check_local(&local).map_err(|why| format!("{why} in '{}'", shorten(text)))?;
        let domain = to_ascii_domain(domain).map_err(|why| format!("{why} in '{}'", shorten(text)))?;
        let whole = format!("{local}@{domain}");
        if whole.len() > ADDRESS_LEN_MAX {
            return Err(format!("the address has {} bytes; {ADDRESS_LEN_MAX} is the most", whole.len()));
        }
        Ok(Self(whole.into_boxed_str()))
    }

    /// Trusts a text that was parsed before, such as one read back from the database.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text.into_boxed_str())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn local(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(l, _)| l)
    }

    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, d)| d)
    }

    /// The form in which two spellings of one mailbox are equal: all lower case. Receivers that
    /// tell `Anna@` from `anna@` are not known to exist; two copies to one person are.
    #[must_use]
    pub fn normalised(&self) -> String {
        self.0.to_lowercase()
    }

    /// Whether SMTPUTF8 (RFC 6531) is needed to carry it: the local part is not ASCII.
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.0.is_ascii()
    }

    /// The key that orders recipients: see [`SortKey`].
    #[must_use]
    pub fn sort_key(&self) -> SortKey {
        SortKey::of(&self.normalised())
    }

    /// For logs: the first letter and the domain, `a…@example.org`. Never the whole address.
    #[must_use]
    pub fn masked(&self) -> String {
        let first = self.0.chars().next().unwrap_or('?');
        format!("{first}…@{}", self.domain())
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What recipients are sorted by: 16 hex digits of a hash of the normalised address, then the
/// normalised address itself.
///
/// One key does four things. Sorting by it mixes the domains, so that every chunk has the
/// broadcast's mix. Equal keys are equal addresses, so duplicates meet in a merge. It is the cursor
/// of a fan-out that was interrupted. And a chunk knows its first and last key, so that one
/// recipient is found without an index on addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SortKey(Box<str>);

impl SortKey {
    /// Of an address in normal form. The hash is the start of SHA-256: the order is part of the
    /// stored data and must never change with a library.
    #[must_use]
    pub fn of(normalised: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, normalised.as_bytes());
        let head = u64::from_be_bytes(hash.as_ref()[..8].try_into().expect("SHA-256 has 32 bytes"));
        Self(format!("{head:016x}{normalised}").into_boxed_str())
    }

    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text.into_boxed_str())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The normalised address that the key was made of.
    #[must_use]
    pub fn normalised(&self) -> &str {
        self.0.get(16..).unwrap_or("")
    }
}

fn check_local(local: &str) -> Result<(), String> {
    if local.is_empty() {
        return Err("nothing stands before @".into());
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return Err("a dot stands at an end or beside another dot before @".into());
    }
    // RFC 5321 4.1.2 Dot-string, with the UTF-8 of RFC 6531 3.3.
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii();
    match local.chars().find(|&c| !allowed(c)) {
        Some(c) => Err(format!("'{c}' may not stand before @")),
        None => Ok(()),
    }
}

pub(super) fn to_ascii_domain(domain: &str) -> Result<String, String> {
    if domain.is_empty() {
        return Err("nothing stands after @".into());
    }
    if domain.starts_with('[') {
        return Err("address literals such as [127.0.0.1] are not accepted".into());
    }
    let ascii = if domain.is_ascii() {
        domain.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii(domain).map_err(|_| "the domain is not a valid international name".to_owned())?
    };
    if ascii.len() > 253 {
        return Err("the domain is longer than 253 bytes".into());
    }
    let labels: Vec<&str> = ascii.split('.').collect();
    if labels.len() < 2 {
        return Err("the domain has no dot".into());
    }
    for label in &labels {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if label.is_empty() || label.len() > 63 || !label.bytes().all(inner) {
            return Err("the domain is malformed".into());
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a part of the domain starts or ends with -".into());
        }
    }
    if labels.last().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit())) {
        return Err("the domain ends in a number".into());
    }
    Ok(ascii)
}

/// Addresses in error messages are cut to this many characters.
fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    if text.chars().count() <= SHOWN_MAX {
        return text.to_owned();
    }
    text.chars().take(SHOWN_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_parse_to_their_wire_form() {
        for (given, wire) in [
            ("anna@example.org", "anna@example.org"),
            ("  anna@Example.ORG ", "anna@example.org"),
            ("Anna.B+tag@example.org", "Anna.B+tag@example.org"),
            ("anna@müller.example", "anna@xn--mller-kva.example"),
            ("änna@example.org", "änna@example.org"),
            ("o'neil@a-b.example", "o'neil@a-b.example"),
        ] {
            assert_eq!(EmailAddress::parse(given).map(|a| a.to_string()), Ok(wire.to_owned()));
        }
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for (given, part) in [
            ("", "empty"),
            ("bob", "no @"),
            ("@example.org", "before @"),
            ("bob@", "after @"),
            ("bob@localhost", "no dot"),
            ("bob@example..org", "malformed"),
            ("bob@-x.org", "starts or ends"),
            ("bob@10.0.0.1", "number"),
            ("bob@[10.0.0.1]", "literals"),
            ("b ob@example.org", "holds"),
            ("bob\u{0}@example.org", "holds"),
            ("bob\r\n@example.org", "holds"),
            ("\"bob\"@example.org", "may not stand"),
            (".bob@example.org", "dot"),
            ("bo..b@example.org", "dot"),
        ] {
            let e = EmailAddress::parse(given).expect_err(given);
            assert!(e.contains(part), "{given:?}: {e}");
        }
        assert!(EmailAddress::parse(&format!("{}@example.org", "x".repeat(65))).is_err());
        assert!(EmailAddress::parse(&format!("x@{}.org", "x.".repeat(130))).is_err());
    }

    #[test]
    fn signs_that_nobody_sees_are_refused_by_name() {
        for (given, sign) in [
            ("anna\u{200b}@example.org", "U+200B ZERO WIDTH SPACE"),
            ("\u{feff}anna@example.org", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
            ("anna@exam\u{ad}ple.org", "U+00AD SOFT HYPHEN"),
            ("anna\u{202e}@example.org", "U+202E RIGHT-TO-LEFT OVERRIDE"),
            ("o\u{2019}neil@example.org", "U+2019 RIGHT SINGLE QUOTATION MARK"),
            ("\u{201c}anna\u{201d}@example.org", "U+201C LEFT DOUBLE QUOTATION MARK"),
            ("m\u{fffd}ller@example.org", "U+FFFD REPLACEMENT CHARACTER"),
        ] {
            let why = EmailAddress::parse(given).expect_err(given);
            assert!(why.contains(sign), "{why}");
        }
    }

    #[test]
    fn composed_and_decomposed_letters_are_one_person() {
        let (composed, decomposed) = ("\u{e4}nna@m\u{fc}ller.example", "a\u{308}nna@mu\u{308}ller.example");
        let addresses = [composed, decomposed].map(|text| EmailAddress::parse(text).unwrap());
        assert_eq!(addresses[0], addresses[1]);
        assert_eq!(addresses[0].as_str(), "\u{e4}nna@xn--mller-kva.example");
    }

    #[test]
    fn stored_addresses_stay_what_they_were() {
        for stored in [
            "a\u{308}nna@example.org",
            "o\u{2019}neil@example.org",
            "anna@example.org",
            "\u{130}da@example.org",
        ] {
            let address: EmailAddress = serde_json::from_value(stored.into()).unwrap();
            assert_eq!(address.as_str(), stored);
            assert_eq!(address.normalised(), stored.to_lowercase());
        }
    }

    #[test]
    fn two_spellings_of_one_mailbox_have_one_sort_key() {
        let a = EmailAddress::parse("Anna@Example.org").unwrap();
        let b = EmailAddress::parse("anna@example.org").unwrap();
        assert_ne!(a, b);
        assert_eq!(a.sort_key(), b.sort_key());
        assert_eq!(a.sort_key().as_str(), "a3bf86238a1c59bdanna@example.org");
        assert_eq!(a.sort_key().normalised(), "anna@example.org");
    }

    #[test]
    fn a_masked_address_shows_no_more_than_a_letter() {
        assert_eq!(EmailAddress::parse("anna@example.org").unwrap().masked(), "a…@example.org");
    }
}
