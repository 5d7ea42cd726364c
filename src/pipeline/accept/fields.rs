//! Takes fields out of a JSON object one by one, and keeps every problem with its pointer. What nobody took is
//! an unknown field: a misspelt name must not be a silent default.

use serde_json::{Map, Value};

use super::problem::{FieldProblem, member, quoted};

/// What is wrong with one value: where below the field, a code, a sentence.
pub(super) struct Fault {
    below: String,
    code: &'static str,
    detail: String,
}

impl Fault {
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            below: String::new(),
            code,
            detail: detail.into(),
        }
    }

    pub fn wrong_type(detail: impl Into<String>) -> Self {
        Self::new("wrong_type", detail)
    }

    /// The same, further down.
    pub fn below(mut self, name: &str) -> Self {
        self.below = member("", name) + &self.below;
        self
    }

    /// As the problem of the field `name`.
    pub fn at(self, name: &str) -> FieldProblem {
        self.below_at(&member("#", name))
    }

    /// As the problem of the value at this pointer.
    pub fn below_at(self, pointer: &str) -> FieldProblem {
        FieldProblem::new(pointer.to_owned() + &self.below, self.code, self.detail)
    }
}

/// The fields of an object, and what was found wrong with them.
pub(super) struct Fields {
    map: Map<String, Value>,
    problems: Vec<FieldProblem>,
}

impl Fields {
    pub fn new(map: Map<String, Value>) -> Self {
        Self {
            map,
            problems: Vec::new(),
        }
    }

    /// Whether the field is given and not null.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|v| !v.is_null())
    }

    /// The field's value, if it is given and right. Null is the same as not given.
    pub fn take<T>(&mut self, name: &str, parse: impl FnOnce(&Value) -> Result<T, Fault>) -> Option<T> {
        let value = self.map.remove(name).filter(|v| !v.is_null())?;
        match parse(&value) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.problems.push(fault.at(name));
                None
            }
        }
    }

    /// As [`Fields::take`]; it is a problem when the field is missing.
    pub fn need<T>(&mut self, name: &str, fix: &str, parse: impl FnOnce(&Value) -> Result<T, Fault>) -> Option<T> {
        if !self.has(name) {
            self.map.remove(name);
            self.problem(member("#", name), "required", format!("{name} is missing; {fix}"));
            return None;
        }
        self.take(name, parse)
    }

    pub fn problem(&mut self, pointer: String, code: &'static str, detail: impl Into<String>) {
        self.problems.push(FieldProblem::new(pointer, code, detail));
    }

    /// All problems; whatever is left is unknown.
    pub fn finish(mut self, known: &str) -> Vec<FieldProblem> {
        for name in self.map.keys() {
            let detail = format!("there is no field {}; known are {known}", quoted(name));
            self.problems
                .push(FieldProblem::new(member("#", name), "unknown_field", detail));
        }
        self.problems
    }
}

/// A text, as it stands.
pub(super) fn text(value: &Value) -> Result<String, Fault> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Fault::wrong_type("this must be a string")),
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, Fault> {
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let fix = || format!("use one of {}", all.join(", "));
    let given = value
        .as_str()
        .ok_or_else(|| Fault::wrong_type(format!("this must be a string; {}", fix())))?;
    let found = words.iter().find(|(word, _)| *word == given);
    found
        .map(|(_, meaning)| *meaning)
        .ok_or_else(|| Fault::new("invalid_value", format!("{} is unknown; {}", quoted(given), fix())))
}

pub(super) fn truth(value: &Value) -> Result<bool, Fault> {
    value
        .as_bool()
        .ok_or_else(|| Fault::wrong_type("this must be true or false"))
}

pub(super) fn object(value: &Value) -> Result<Map<String, Value>, Fault> {
    value
        .as_object()
        .cloned()
        .ok_or_else(|| Fault::wrong_type("this must be an object, such as {\"key\": \"value\"}"))
}

/// An array of at most `max` values; each is parsed, the first that is wrong is pointed at.
pub(super) fn list<T>(value: &Value, max: usize, parse: impl Fn(&Value) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    let items = value
        .as_array()
        .ok_or_else(|| Fault::wrong_type("this must be an array"))?;
    if items.len() > max {
        return Err(Fault::new("too_many", format!("{} values are given; {max} is the most", items.len())));
    }
    let parsed = items
        .iter()
        .enumerate()
        .map(|(i, item)| parse(item).map_err(|fault| fault.below(&i.to_string())));
    parsed.collect()
}
