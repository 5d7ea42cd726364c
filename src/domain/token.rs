//! Secrets and what is proved with them: unsubscribe tokens, and the codes that message ids are made
//! of. Never stores anything: a token is checked by computing it again.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::address::{ADDRESS_LEN_MAX, EmailAddress};
use super::id::BroadcastId;

/// Bytes of the secret key: as many as the hash gives, so that the key is no weaker than it (RFC 2104 3).
pub const SECRET_BYTES: usize = 32;

/// Bytes of the code at the end of a token: 128 bits cannot be guessed, and the URL stays short.
const CODE_BYTES: usize = 16;
/// Characters of a broadcast id after its prefix.
const ID_CHARS: usize = 26;
/// First byte of a token, so that its form may change later.
const VERSION: u8 = 1;
/// Second byte: what the token allows. A token of one kind is never good for another.
const KIND_UNSUBSCRIBE: u8 = 1;

/// The installation's secret. Whoever knows it can unsubscribe anybody, so it is never printed.
#[derive(Clone)]
pub struct SecretKey(hmac::Key);

impl SecretKey {
    #[must_use]
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
    }

    /// Reads the hex digits under which the secret is stored, two for each byte.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 2 * SECRET_BYTES || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0u8; SECRET_BYTES];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self::new(bytes))
    }

    /// HMAC-SHA256 over `purpose` and the parts, each ended by a zero byte. The purpose keeps one use
    /// of the key from answering for another; no part may hold a zero byte itself.
    #[must_use]
    pub fn code(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [purpose].iter().chain(parts) {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        let tag = context.sign();
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// The opaque, hard to forge part of an unsubscribe link (RFC 8058 3.1): base64url of version, kind,
/// broadcast, normalised address and a code over all of them. It needs no table, never runs out,
/// and tells the endpoint whom to suppress and which broadcast it was.
pub struct UnsubscribeToken;

impl UnsubscribeToken {
    /// The token for one recipient of one broadcast; at most about 400 characters of the base64url
    /// alphabet, the same for every spelling of the address.
    #[must_use]
    pub fn mint(key: &SecretKey, broadcast: &BroadcastId, address: &EmailAddress) -> String {
        let mut bytes = vec![VERSION, KIND_UNSUBSCRIBE];
        bytes.extend_from_slice(bare_id(broadcast).as_bytes());
        bytes.extend_from_slice(address.normalised().as_bytes());
        let code = token_code(key, &bytes);
        bytes.extend_from_slice(&code);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whom a token names: the broadcast and the normalised address. Nothing for anything that
    /// [`UnsubscribeToken::mint`] did not make with this key; why is not told, so that nobody learns
    /// from the answer. Takes the same time for every wrong code.
    #[must_use]
    pub fn verify(key: &SecretKey, token: &str) -> Option<(BroadcastId, String)> {
        const TOKEN_CHARS_MAX: usize = (2 + ID_CHARS + 2 * ADDRESS_LEN_MAX + CODE_BYTES) * 4 / 3 + 4;
        if token.len() > TOKEN_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (told, code) = bytes.split_last_chunk::<CODE_BYTES>()?;
        constant_time::verify_slices_are_equal(code, &token_code(key, told)).ok()?;
        let [VERSION, KIND_UNSUBSCRIBE, rest @ ..] = told else {
            return None;
        };
        let (id, address) = std::str::from_utf8(rest).ok()?.split_at_checked(ID_CHARS)?;
        let broadcast = format!("{}{id}", BroadcastId::PREFIX).parse().ok()?;
        Some((broadcast, address.to_owned()))
    }
}

fn bare_id(broadcast: &BroadcastId) -> &str {
    broadcast.as_str().trim_start_matches(BroadcastId::PREFIX)
}

fn token_code(key: &SecretKey, told: &[u8]) -> [u8; CODE_BYTES] {
    let mut context = hmac::Context::with_key(&key.0);
    context.update(b"token\0");
    context.update(told);
    let tag = context.sign();
    tag.as_ref()[..CODE_BYTES].try_into().expect("HMAC-SHA256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn parts() -> (SecretKey, BroadcastId, EmailAddress) {
        let key = SecretKey::new([7; SECRET_BYTES]);
        let broadcast = BroadcastId::new(Timestamp(1_790_000_000_000), 42);
        (key, broadcast, EmailAddress::parse("Anna.B+tag@Example.org").unwrap())
    }

    #[test]
    fn a_token_names_its_broadcast_and_address() {
        let (key, broadcast, address) = parts();
        let token = UnsubscribeToken::mint(&key, &broadcast, &address);
        assert!(
            token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
            "{token}"
        );
        let found = UnsubscribeToken::verify(&key, &token);
        assert_eq!(found, Some((broadcast, "anna.b+tag@example.org".to_owned())));
    }

    #[test]
    fn the_longest_address_has_a_token_that_verifies() {
        let (key, broadcast, _) = parts();
        let domain = format!("{}.{}.{}.org", "d".repeat(63), "e".repeat(63), "f".repeat(57));
        let address = EmailAddress::parse(&format!("{}@{domain}", "a".repeat(64))).unwrap();
        assert_eq!(address.as_str().len(), ADDRESS_LEN_MAX);
        let token = UnsubscribeToken::mint(&key, &broadcast, &address);
        assert!(UnsubscribeToken::verify(&key, &token).is_some());
        assert!(token.len() <= 400, "{}", token.len());
    }

    #[test]
    fn tokens_that_were_not_minted_are_refused() {
        let (key, broadcast, address) = parts();
        let token = UnsubscribeToken::mint(&key, &broadcast, &address);
        let other_key = SecretKey::new([8; SECRET_BYTES]);
        for (what, given) in [
            ("empty", String::new()),
            ("too short for a code", "AQE".to_owned()),
            ("not base64url", "+/=".to_owned()),
            ("padded", format!("{token}=")),
            ("with something behind it", format!("{token}A")),
            ("without its end", token[..token.len() - 1].to_owned()),
            ("of another key", UnsubscribeToken::mint(&other_key, &broadcast, &address)),
            ("huge", "A".repeat(1_000_000)),
            ("a control character", format!("{token}\r\n")),
        ] {
            assert_eq!(UnsubscribeToken::verify(&key, &given), None, "{what}");
        }
    }

    #[test]
    fn a_token_of_another_kind_or_version_is_refused() {
        let (key, broadcast, address) = parts();
        for head in [[VERSION, 2], [2, KIND_UNSUBSCRIBE], [0, 0]] {
            let mut bytes = head.to_vec();
            bytes.extend_from_slice(bare_id(&broadcast).as_bytes());
            bytes.extend_from_slice(address.normalised().as_bytes());
            let code = token_code(&key, &bytes);
            bytes.extend_from_slice(&code);
            assert_eq!(UnsubscribeToken::verify(&key, &URL_SAFE_NO_PAD.encode(bytes)), None);
        }
    }

    #[test]
    fn ten_thousand_mutated_tokens_are_refused() {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (key, broadcast, address) = parts();
        let token = UnsubscribeToken::mint(&key, &broadcast, &address);
        let mut random = fastrand::Rng::with_seed(1);
        let mut n_refused = 0;
        while n_refused < 10_000 {
            let mut bytes = token.clone().into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                match random.u8(..4) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes.insert(at, ALPHABET[random.usize(..ALPHABET.len())]),
                    _ => bytes[at] = ALPHABET[random.usize(..ALPHABET.len())],
                }
            }
            let mutated = String::from_utf8(bytes).unwrap();
            if mutated == token {
                continue;
            }
            assert_eq!(UnsubscribeToken::verify(&key, &mutated), None, "{mutated}");
            n_refused += 1;
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", SecretKey::new([7; SECRET_BYTES])), "SecretKey(…)");
    }

    #[test]
    fn one_purpose_does_not_answer_for_another() {
        let key = SecretKey::new([7; SECRET_BYTES]);
        assert_ne!(key.code("a", &["b", "c"]), key.code("a", &["bc"]));
        assert_ne!(key.code("a", &["b"]), key.code("b", &["a"]));
        assert_eq!(key.code("a", &["b"]), key.code("a", &["b"]));
    }
}
