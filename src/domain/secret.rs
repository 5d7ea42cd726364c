//! The installation's signing secret. Never printed, never compared byte by byte.

use std::fmt;

/// 256 random bits from which unsubscribe tokens, Message-IDs and boundaries are derived. Shared by all
/// nodes of one database, so that every attempt of a message has the same bytes wherever it is made.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the 64 hex digits under which it is stored.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0u8; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reads_back_and_does_not_show() {
        let key = SecretKey::new([0xa5; 32]);
        assert_eq!(SecretKey::from_hex(&key.to_hex()).map(|k| *k.as_bytes()), Some([0xa5; 32]));
        assert!(SecretKey::from_hex("a5").is_none());
        assert_eq!(format!("{key:?}"), "SecretKey(…)");
    }
}
