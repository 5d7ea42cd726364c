//! Public ids: a prefix that tells what it names, then 26 characters that sort by creation time.
//! Never made from a clock or randomness of its own: both are given.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// Crockford's base 32, lower case: no i, l, o, u, so that an id can be read aloud.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn encode(mut value: u128, len: usize) -> String {
    let mut out = vec![b'0'; len];
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[(value & 31) as usize];
        value >>= 5;
    }
    String::from_utf8(out).expect("the alphabet is ASCII")
}

fn decode(text: &str) -> Option<u128> {
    text.bytes().try_fold(0u128, |acc, b| {
        let digit = ALPHABET.iter().position(|&a| a == b)?;
        acc.checked_mul(32)?.checked_add(digit as u128)
    })
}

macro_rules! public_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// A new id from the creation time and 80 random bits (the upper 48 are ignored).
            #[must_use]
            pub fn new(at: Timestamp, random: u128) -> Self {
                let ms = u128::from(at.0.max(0) as u64) & ((1 << 48) - 1);
                let value = (ms << 80) | (random & ((1 << 80) - 1));
                Self(format!("{}{}", $prefix, encode(value, 26)))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text.strip_prefix($prefix) {
                    Some(rest) if rest.len() == 26 && decode(rest).is_some() => Ok(Self(text.to_owned())),
                    _ => Err(format!("'{}' is not an id of the form {}…", text.escape_debug(), $prefix)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

public_id!(
    /// Names a broadcast: what one accepted send request becomes.
    BroadcastId, "brd_");
public_id!(
    /// Names a campaign: a saved newsletter with a schedule.
    CampaignId, "cmp_");
public_id!(
    /// Names a stored template.
    TemplateId, "tpl_");
public_id!(
    /// Names a list of contacts.
    ListId, "lst_");
public_id!(
    /// Names a key that mail is signed with.
    DkimKeyId, "dkm_");

/// Names one message: one recipient's copy of a broadcast. It is made of the job and the place in
/// its chunk, so that a message has its id before it has a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    pub job_id: i64,
    pub ordinal: u16,
}

impl MessageId {
    pub const PREFIX: &'static str = "msg_";
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = (u128::from(self.job_id as u64) << 16) | u128::from(self.ordinal);
        write!(f, "{}{}", Self::PREFIX, encode(value, 16))
    }
}

impl FromStr for MessageId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{}' is not an id of the form msg_…", text.escape_debug());
        let rest = text
            .strip_prefix(Self::PREFIX)
            .filter(|r| r.len() == 16)
            .ok_or_else(bad)?;
        let value = decode(rest).ok_or_else(bad)?;
        let job_id = i64::try_from(value >> 16).map_err(|_| bad())?;
        Ok(MessageId {
            job_id,
            ordinal: (value & 0xffff) as u16,
        })
    }
}

impl Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_their_time_and_read_back() {
        let a = BroadcastId::new(Timestamp(1_000), u128::MAX);
        let b = BroadcastId::new(Timestamp(1_001), 0);
        assert!(a < b);
        assert_eq!(a.as_str().len(), "brd_".len() + 26);
        assert_eq!(a.as_str().parse::<BroadcastId>(), Ok(a));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let t = TemplateId::new(Timestamp(5), 7);
        assert!(t.as_str().parse::<BroadcastId>().is_err());
        assert!("brd_\u{0}".parse::<BroadcastId>().is_err());
    }

    #[test]
    fn a_message_id_holds_its_job_and_ordinal() {
        for (job_id, ordinal) in [(1, 0), (77_123, 999), (i64::MAX >> 2, 65_535)] {
            let id = MessageId { job_id, ordinal };
            assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
        }
    }
}
