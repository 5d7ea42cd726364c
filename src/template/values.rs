//! JSON as the engine's values. The engine's numbers have 128 bits and its reader's have 64, so a longer integer would become a
//! double and print other digits than were written. serde_json could keep every number as text (`arbitrary_precision`), but
//! the engine would then see an object in place of each number; so texts with long integers are read here, level by level, and
//! all others in one go.

use std::collections::BTreeMap;

use minijinja::value::Value;
use serde_json::value::RawValue;

/// The members of a JSON object.
pub(super) type Data = BTreeMap<String, Value>;

/// Every integer of fewer digits fits into 64 bits.
const LONG_DIGITS: usize = 19;

/// Reads a JSON object. Its depth was bounded when it came in.
///
/// # Errors
/// The text is no JSON object, or holds what no value can be made of.
pub(super) fn read(text: &str) -> serde_json::Result<Data> {
    match may_hold_long_integer(text) {
        false => serde_json::from_str(text),
        true => members(text),
    }
}

fn may_hold_long_integer(text: &str) -> bool {
    let (mut digits, mut before) = (0, b' ');
    for b in text.bytes() {
        digits = if b.is_ascii_digit() { digits + 1 } else { 0 };
        if digits >= LONG_DIGITS || (b == b'0' && before == b'-') {
            return true;
        }
        before = b;
    }
    false
}

fn members(text: &str) -> serde_json::Result<Data> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
    members
        .into_iter()
        .map(|(name, raw)| Ok((name, value(raw.get())?)))
        .collect()
}

fn value(text: &str) -> serde_json::Result<Value> {
    match text.as_bytes().first() {
        Some(b'{') => members(text).map(Value::from),
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let items: serde_json::Result<Vec<Value>> = items.into_iter().map(|raw| value(raw.get())).collect();
            items.map(Value::from)
        }
        Some(b'-' | b'0'..=b'9') if !text.contains(['.', 'e', 'E']) => Ok(integer(text)),
        _ => serde_json::from_str(text),
    }
}

/// A number where one of ours prints the same digits; else the digits.
fn integer(text: &str) -> Value {
    match text.parse::<i128>() {
        Ok(number) if number.to_string() == text => Value::from(number),
        _ => Value::from(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_print_as_they_were_written(text in "-?(0|[1-9][0-9]{0,60})") {
            let data = read(&format!("{{\"a\":{{\"b\":[{text}]}},\"c\":{text}}}")).unwrap();
            prop_assert_eq!(data["c"].to_string(), text.clone());
            let inner = data["a"].get_attr("b").unwrap().get_item(&Value::from(0)).unwrap();
            prop_assert_eq!(inner.to_string(), text);
        }

        /// Where both ways can read a text, they see the same.
        #[test]
        fn level_by_level_is_the_same_as_in_one_go(a in any::<i64>(), b in any::<f64>(), c in ".*") {
            let text = serde_json::json!({"a": [a, {"b": b}], "c": c, "d": null, "e": [true, {}]}).to_string();
            let quick: Data = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(members(&text).unwrap(), quick);
        }
    }
}
