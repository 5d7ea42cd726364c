//! Points in time as the whole program knows them. Never reads a clock: time is told.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the Unix epoch, UTC. Stored as a 64-bit integer in both databases, so that
/// it sorts and compares the same everywhere. In JSON it is an RFC 3339 string in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads an RFC 3339 date and time with an offset, such as `2026-10-01T08:00:00Z`.
    ///
    /// # Errors
    /// A sentence that says what was expected, fit to be shown to the person who typed it.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse::<jiff::Timestamp>()
            .map(|t| Timestamp(t.as_millisecond()))
            .map_err(|_| format!("'{text}' is not a date and time with an offset, such as 2026-10-01T08:00:00Z"))
    }

    /// This instant `ms` milliseconds later (earlier when negative); saturates at the ends of time.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Timestamp(self.0.saturating_add(ms))
    }

    /// As [`jiff::Timestamp`]; the ends of what jiff can represent stand in for anything beyond.
    #[must_use]
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.to_jiff())
    }
}

impl Add<std::time::Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, d: std::time::Duration) -> Timestamp {
        self.plus_ms(i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The time between two instants in milliseconds; negative when `other` is later.
impl Sub for Timestamp {
    type Output = i64;
    fn sub(self, other: Timestamp) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Timestamp::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints() {
        let t = Timestamp(1_790_000_000_123);
        assert_eq!(t.to_string(), "2026-09-21T14:13:20.123Z");
        assert_eq!(Timestamp::parse(&t.to_string()), Ok(t));
    }

    #[test]
    fn a_time_without_an_offset_is_refused_with_an_example() {
        let e = Timestamp::parse("2026-10-01 08:00").unwrap_err();
        assert!(e.contains("2026-10-01T08:00:00Z"), "{e}");
    }
}
