//! Whether a JSON text can be kept and read back as it is. A parser that skips a value lets through what another parser
//! refuses later: half of a surrogate pair, a number beyond all doubles. Here they are found while somebody can mend them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::fields::Fault;
use super::given::json_words;
use super::problem::quoted;

/// What is asked of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Kept as they are written: an integer may have any length.
    AsWritten,
    /// Kept in 64 bits: what is longer would come back as another number.
    SixtyFourBits,
}

/// Checks valid JSON of bounded depth.
///
/// # Errors
/// The first value that cannot be kept, with its place below `text`.
pub(super) fn check(text: &str, numbers: Numbers) -> Result<(), Fault> {
    if is_plain(text) {
        return Ok(());
    }
    check_value(text, numbers)
}

/// Whether nothing in the text can be at fault: no escaped code unit, no exponent, no long number. That is nearly every text.
fn is_plain(text: &str) -> bool {
    let mut digits = 0;
    let mut before = b' ';
    for b in text.bytes() {
        let is_digit = b.is_ascii_digit();
        digits = if is_digit { digits + 1 } else { 0 };
        let is_exponent = matches!(b, b'e' | b'E') && before.is_ascii_digit();
        let is_negative_zero = b == b'0' && before == b'-';
        if digits > PLAIN_DIGITS_MAX || is_exponent || is_negative_zero || (b == b'u' && before == b'\\') {
            return false;
        }
        before = b;
    }
    true
}

/// A number of so many digits fits into 64 bits and into a double.
const PLAIN_DIGITS_MAX: usize = 15;

fn check_value(text: &str, numbers: Numbers) -> Result<(), Fault> {
    let unreadable = |e: serde_json::Error| Fault::new("invalid_json", in_words(&e));
    match text.as_bytes().first() {
        Some(b'{') => {
            for (name, value) in serde_json::from_str::<Members>(text).map_err(unreadable)?.0 {
                check_value(value.get(), numbers).map_err(|fault| fault.below(&name))?;
            }
            Ok(())
        }
        Some(b'[') => {
            let items = serde_json::from_str::<Items>(text).map_err(unreadable)?.0;
            for (i, value) in items.into_iter().enumerate() {
                check_value(value.get(), numbers).map_err(|fault| fault.below(&i.to_string()))?;
            }
            Ok(())
        }
        Some(b'"') => serde_json::from_str::<Text>(text).map(|_| ()).map_err(unreadable),
        Some(b'-' | b'0'..=b'9') => check_number(text, numbers),
        _ => Ok(()),
    }
}

/// The parser's words, and what to do about half a character.
pub(super) fn in_words(e: &serde_json::Error) -> String {
    let words = json_words(e);
    match words.contains("surrogate") || words.contains("unexpected end of hex escape") {
        true => "the text holds half of a surrogate pair (such as \\ud83d alone), which is no character; give both halves, or \
                 cut texts between characters"
            .to_owned(),
        false => words,
    }
}

fn check_number(text: &str, numbers: Numbers) -> Result<(), Fault> {
    let is_integer = !text.contains(['.', 'e', 'E']);
    let inexact = |why: &str| Err(Fault::new("invalid_number", format!("{} {why}; give it as a text", quoted(text))));
    if is_integer {
        let fits = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
        return match numbers == Numbers::SixtyFourBits && (!fits || text == "-0") {
            true => inexact("does not fit into 64 bits"),
            false => Ok(()),
        };
    }
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let is_zero = !mantissa.contains(|c: char| ('1'..='9').contains(&c));
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && (number != 0.0 || is_zero) => Ok(()),
        _ => inexact("is a number that no double holds"),
    }
}

/// The members of an object, unread, each as often as it stands there.
pub(super) struct Members<'a>(pub Vec<(String, &'a RawValue)>);

struct Items<'a>(Vec<&'a RawValue>);

#[derive(Deserialize)]
struct Text<'a>(
    #[serde(borrow)]
    #[expect(dead_code, reason = "it is read to see whether it can be")]
    Cow<'a, str>,
);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        d.deserialize_map(Seen)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Items<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Items<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = array.next_element::<&RawValue>()? {
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        d.deserialize_seq(Seen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(text: &str, numbers: Numbers) -> Option<(String, &'static str)> {
        let raw = RawValue::from_string(text.to_owned()).expect(text);
        let problem = check(raw.get(), numbers).err()?.at("data");
        Some((problem.pointer, problem.code))
    }

    #[test]
    fn what_cannot_be_kept_is_pointed_at() {
        for (text, pointer, code) in [
            (r#"{"a":[1,1e400]}"#, "#/data/a/1", "invalid_number"),
            (r#"{"a":-1e400}"#, "#/data/a", "invalid_number"),
            (r#"{"a":1e-400}"#, "#/data/a", "invalid_number"),
            (r#"{"a":{"b/c":"x\ud800"}}"#, "#/data/a/b~1c", "invalid_json"),
            (r#"{"a":"\udc00\ud800"}"#, "#/data/a", "invalid_json"),
            (r#"{"a\ud800":1}"#, "#/data", "invalid_json"),
            (r#"{"a":"\ud800","a":1}"#, "#/data/a", "invalid_json"),
        ] {
            for numbers in [Numbers::AsWritten, Numbers::SixtyFourBits] {
                assert_eq!(problem(text, numbers), Some((pointer.to_owned(), code)), "{text}");
            }
        }
        for text in [
            r#"{"a":[0.0,0e-999,1e308,-2.5E-300,12345678901234567890.5,"\ud83d\ude00\u0000"],"b":18446744073709551615}"#,
            r#"{"a":0.1000000000000000055511151231257827,"e1e":"1e999"}"#,
        ] {
            assert_eq!(problem(text, Numbers::SixtyFourBits), None, "{text}");
        }
        let long = r#"{"a":123456789012345678901234567890}"#;
        assert_eq!(problem(long, Numbers::AsWritten), None);
        assert_eq!(problem(long, Numbers::SixtyFourBits), Some(("#/data/a".to_owned(), "invalid_number")));
    }

    proptest! {
        /// What is let through is read by a parser that skips nothing, and comes back the same.
        #[test]
        fn what_is_let_through_reads_back(text in "(\\{\"a\":)?(-?[0-9]{1,22}(\\.[0-9]{1,3})?([eE]-?[0-9]{1,4})?|\"(\\\\u[dD][89cC][0-9a-f]{2}){0,3}\")\\}?") {
            if let Ok(raw) = RawValue::from_string(text.clone()) && check(raw.get(), Numbers::SixtyFourBits).is_ok() {
                let value: serde_json::Value = serde_json::from_str(raw.get()).expect(&text);
                let again: serde_json::Value = serde_json::from_str(&value.to_string()).expect(&text);
                prop_assert_eq!(value, again);
            }
        }
    }
}
