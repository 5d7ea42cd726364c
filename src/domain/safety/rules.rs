//! What a request asks for to be safe: a canary of its own, and its own word on the automatic pause. Pure; what follows from it
//! is decided in `safety`.

use serde::{Deserialize, Serialize};

/// More failures than this among a canary hold the rest, when a request names no limit of its own: a list in use has
/// fewer dead addresses.
pub const HOLD_ABOVE_PERCENT: u8 = 5;
/// Most recipients of a canary, as a number: one that is larger is the broadcast itself.
pub const CANARY_MAX: i64 = 100_000;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Safety {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_pause: Option<AutoPause>,
}

/// The first messages go alone; the rest waits for what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRule {
    pub first: CanarySize,
    /// 0 to 100: more failures than this hold the rest.
    pub hold_above_percent: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanarySize {
    /// So many recipients.
    Count(i64),
    /// So many hundredths of the audience; one recipient at least.
    Percent(u8),
}

impl CanaryRule {
    /// Reads `50` or `5%`, and the share of failures that holds the rest, as people type them.
    ///
    /// # Errors
    /// A sentence for them.
    pub fn parse(first: &str, hold_above: Option<&str>) -> Result<Self, String> {
        let wrong = || format!("'{first}' is neither a number from 1 to {CANARY_MAX} nor a share from 1% to 99%.");
        let size = match first.trim().strip_suffix('%') {
            Some(share) => match share.trim().parse::<u8>() {
                Ok(percent @ 1..=99) => CanarySize::Percent(percent),
                _ => return Err(wrong()),
            },
            None => match first.trim().parse::<i64>() {
                Ok(n @ 1..=CANARY_MAX) => CanarySize::Count(n),
                _ => return Err(wrong()),
            },
        };
        let hold_above_percent = match hold_above.map(|p| p.trim().trim_end_matches('%').trim().parse::<u8>()) {
            None => HOLD_ABOVE_PERCENT,
            Some(Ok(percent @ 0..=100)) => percent,
            Some(_) => return Err("The share of failures is a whole number from 0 to 100.".to_owned()),
        };
        Ok(Self {
            first: size,
            hold_above_percent,
        })
    }

    /// In words: "the first 50 go alone; …".
    #[must_use]
    pub fn describe(&self) -> String {
        let first = match self.first {
            CanarySize::Count(n) => format!("the first {n}"),
            CanarySize::Percent(percent) => format!("the first {percent} %"),
        };
        format!("{first} go alone; the rest follows unless more than {} % of them fail", self.hold_above_percent)
    }
}

impl CanarySize {
    /// Recipients of a canary among so many.
    #[must_use]
    pub fn of(self, audience: i64) -> i64 {
        match self {
            CanarySize::Count(n) => n,
            CanarySize::Percent(percent) => ((audience * i64::from(percent) + 99) / 100).max(1),
        }
    }
}

/// A broadcast's own word on the automatic pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoPause {
    Off,
    /// 1 to 100: instead of the configured share of failures.
    AbovePercent(u8),
}

impl AutoPause {
    /// Reads a share such as `3` or `3 %`, or `off`, as people type them.
    ///
    /// # Errors
    /// A sentence for them.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        match text.trim().trim_end_matches('%').trim().parse::<u8>() {
            Ok(percent @ 1..=100) => Ok(Self::AbovePercent(percent)),
            _ => Err(format!("'{}' is neither a whole number from 1 to 100 nor off.", text.trim())),
        }
    }

    /// In words: "when more than 3 % fail".
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            AutoPause::Off => "never, however many fail".to_owned(),
            AutoPause::AbovePercent(percent) => format!("when more than {percent} % fail"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_read_as_people_type_it() {
        for (text, rule) in [
            ("3", AutoPause::AbovePercent(3)),
            (" 100 % ", AutoPause::AbovePercent(100)),
            ("Off", AutoPause::Off),
        ] {
            assert_eq!(AutoPause::parse(text), Ok(rule), "{text}");
        }
        for text in ["", "0", "101", "2.5", "never"] {
            assert!(AutoPause::parse(text).unwrap_err().contains("1 to 100"), "{text}");
        }
        assert_eq!(AutoPause::AbovePercent(3).describe(), "when more than 3 % fail");
    }
}
