//! What a request says beside its recipients, as it comes in: field by field, each kept only if it can be read back as it is.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::exact::{self, Members, Numbers};
use super::fields::Fault;
use super::given::{depth, json_words};
use super::problem::{FieldProblem, member, quoted};

/// The fields, unchecked but for what no field may hold. `data` stands there as its JSON text: the templates' numbers must
/// arrive as they were written, and a parsed integer has 64 bits.
pub type Head = Map<String, Value>;

/// Deepest nesting of a field; the parser takes 128.
const HEAD_DEPTH_MAX: usize = 100;

/// Why a head cannot be used.
#[derive(Debug)]
pub enum HeadFault {
    /// It is no JSON object: the parser's words.
    Malformed(String),
    /// A field is wrong.
    Invalid(FieldProblem),
}

/// Reads a JSON object that holds nothing but fields.
///
/// # Errors
/// See [`HeadFault`].
pub fn read_head(text: &[u8]) -> Result<Head, HeadFault> {
    let members: Members = serde_json::from_slice(text).map_err(|e| HeadFault::Malformed(json_words(&e)))?;
    let mut head = Head::new();
    for (name, value) in members.0 {
        if head.contains_key(&name) {
            return Err(HeadFault::Invalid(repeated(&name)));
        }
        let value = read_field(&name, value).map_err(HeadFault::Invalid)?;
        head.insert(name, value);
    }
    Ok(head)
}

pub(super) fn repeated(name: &str) -> FieldProblem {
    let detail = format!("the field {} stands here twice; keep one", quoted(name));
    FieldProblem::new(member("#", name), "duplicate_field", detail)
}

/// Reads one field.
///
/// # Errors
/// Points at the value that cannot be kept.
pub(super) fn read_field(name: &str, value: &RawValue) -> Result<Value, FieldProblem> {
    let text = value.get();
    if depth(text) > HEAD_DEPTH_MAX {
        return Err(Fault::new("too_deep", format!("the field is nested deeper than {HEAD_DEPTH_MAX} levels")).at(name));
    }
    let is_data = name == "data";
    let numbers = if is_data {
        Numbers::AsWritten
    } else {
        Numbers::SixtyFourBits
    };
    exact::check(text, numbers).map_err(|fault| fault.at(name))?;
    match is_data && text != "null" {
        true => Ok(Value::from(text)),
        false => serde_json::from_str(text)
            .map_err(|e| FieldProblem::new(member("#", name), "invalid_json", exact::in_words(&e))),
    }
}
