//! The canary and the automatic pause as a request asks for them: `{"first": 50}`, `{"percent": 5, "hold_above_percent": 2}`,
//! `false`. Never knows how large the audience is.

use serde_json::{Map, Value};

use super::fields::{Fault, object};
use super::problem::{FieldProblem, quoted};
use crate::domain::safety::{AutoPause, CANARY_MAX, CanaryRule, CanarySize, HOLD_ABOVE_PERCENT};

/// Reads a canary that stands in the field `canary`.
///
/// # Errors
/// What is wrong with it.
pub fn read_canary(value: &Value) -> Result<CanaryRule, FieldProblem> {
    canary(value).map_err(|fault| fault.at("canary"))
}

/// Reads what stands in the field `auto_pause`. `None` is the configured share.
///
/// # Errors
/// What is wrong with it.
pub fn read_auto_pause(value: &Value) -> Result<Option<AutoPause>, FieldProblem> {
    auto_pause(value).map_err(|fault| fault.at("auto_pause"))
}

pub(super) fn canary(value: &Value) -> Result<CanaryRule, Fault> {
    let map = only(value, "a canary", &["first", "percent", "hold_above_percent"])?;
    let first = match (given(&map, "first"), given(&map, "percent")) {
        (Some(n), None) => CanarySize::Count(whole("first", n, 1, CANARY_MAX)?),
        (None, Some(n)) => CanarySize::Percent(whole("percent", n, 1, 99)? as u8),
        (None, None) => {
            return Err(Fault::new("required", "say how many go first: {\"first\": 50} or {\"percent\": 5}"));
        }
        (Some(_), Some(_)) => {
            return Err(Fault::new("conflict", "first and percent exclude each other; keep one").below("percent"));
        }
    };
    let hold_above_percent = match given(&map, "hold_above_percent") {
        Some(n) => whole("hold_above_percent", n, 0, 100)? as u8,
        None => HOLD_ABOVE_PERCENT,
    };
    Ok(CanaryRule {
        first,
        hold_above_percent,
    })
}

pub(super) fn auto_pause(value: &Value) -> Result<Option<AutoPause>, Fault> {
    match value {
        Value::Bool(true) => return Ok(None),
        Value::Bool(false) => return Ok(Some(AutoPause::Off)),
        Value::Object(_) => {}
        _ => return Err(Fault::wrong_type("this must be true, false, or an object such as {\"above_percent\": 10}")),
    }
    let map = only(value, "auto_pause", &["above_percent"])?;
    let Some(n) = given(&map, "above_percent") else {
        return Err(Fault::new("required", "above_percent is missing; give 1 to 100").below("above_percent"));
    };
    Ok(Some(AutoPause::AbovePercent(whole("above_percent", n, 1, 100)? as u8)))
}

fn given<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).filter(|v| !v.is_null())
}

fn only(value: &Value, what: &str, names: &[&str]) -> Result<Map<String, Value>, Fault> {
    let map = object(value)?;
    match map.keys().find(|name| !names.contains(&name.as_str())) {
        None => Ok(map),
        Some(other) => {
            let detail = format!("{what} has no field {}; known are {}", quoted(other), names.join(", "));
            Err(Fault::new("unknown_field", detail).below(other))
        }
    }
}

fn whole(name: &str, value: &Value, min: i64, max: i64) -> Result<i64, Fault> {
    match value.as_i64() {
        Some(n) if (min..=max).contains(&n) => Ok(n),
        Some(n) => Err(Fault::new("invalid_value", format!("{name} is {n}; give {min} to {max}")).below(name)),
        None => Err(Fault::wrong_type(format!("{name} must be a whole number from {min} to {max}")).below(name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_canary_is_a_number_or_a_share() {
        let of = |value: Value| read_canary(&value).unwrap();
        let first = of(json!({"first": 50}));
        assert_eq!((first.first, first.hold_above_percent), (CanarySize::Count(50), HOLD_ABOVE_PERCENT));
        let share = of(json!({"percent": 5, "first": null, "hold_above_percent": 0}));
        assert_eq!((share.first, share.hold_above_percent), (CanarySize::Percent(5), 0));
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let canary = |value: Value| read_canary(&value).map_err(|p| p.pointer).unwrap_err();
        assert_eq!(canary(json!(50)), "#/canary");
        assert_eq!(canary(json!({})), "#/canary");
        assert_eq!(canary(json!({"first": 0})), "#/canary/first");
        assert_eq!(canary(json!({"first": "50"})), "#/canary/first");
        assert_eq!(canary(json!({"first": 5, "percent": 5})), "#/canary/percent");
        assert_eq!(canary(json!({"percent": 100})), "#/canary/percent");
        assert_eq!(canary(json!({"first": 5, "hold_above_percent": 101})), "#/canary/hold_above_percent");
        assert_eq!(canary(json!({"first": 5, "hold_above": 1})), "#/canary/hold_above");
        let pause = |value: Value| read_auto_pause(&value).map_err(|p| p.pointer);
        assert_eq!(pause(json!(true)), Ok(None));
        assert_eq!(pause(json!(false)), Ok(Some(AutoPause::Off)));
        assert_eq!(pause(json!({"above_percent": 20})), Ok(Some(AutoPause::AbovePercent(20))));
        assert_eq!(pause(json!({"above_percent": 0})), Err("#/auto_pause/above_percent".to_owned()));
        assert_eq!(pause(json!({})), Err("#/auto_pause/above_percent".to_owned()));
        assert_eq!(pause(json!("off")), Err("#/auto_pause".to_owned()));
    }
}
