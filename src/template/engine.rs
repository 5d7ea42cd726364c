//! The template engine with everything taken out that a newsletter does not need, and a bound on all
//! that is left: steps, nesting, bytes. Never loads a template by name, never reads a file.

use std::io;

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, filters, tests};

use super::error::{Part, Problem, TemplateError};

/// Steps one part of one message may take. A newsletter of 100 products takes about 2,000. The
/// engine also charges one step for 64 bytes that it makes, so this bounds its memory to about 3 MB.
pub const FUEL: u64 = 50_000;
/// Most bytes of one rendered part. Gmail clips a mail beyond about 102 KB; five times that is no
/// newsletter any more. A message in memory is then at most a few MB.
pub const OUTPUT_BYTES_MAX: usize = 512 * 1024;
/// Deepest nesting of blocks.
const NESTING_MAX: usize = 64;

/// Filters that newsletters may use; none gives more than three times what it takes. The engine's others are left out on purpose: `replace`,
/// `format`, `indent`, `join`, `batch` and their like make long texts out of short ones.
pub const FILTERS: [&str; 19] = [
    "abs",
    "capitalize",
    "d",
    "default",
    "e",
    "escape",
    "first",
    "float",
    "int",
    "items",
    "last",
    "length",
    "lower",
    "round",
    "safe",
    "title",
    "trim",
    "upper",
    "urlencode",
];
/// Tests that newsletters may use behind `is`.
pub const TESTS: [&str; 11] = [
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "undefined",
];

/// An engine that knows nothing but the filters and tests above.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    env.set_auto_escape_callback(|name| match name {
        HTML => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    env.set_formatter(write_value);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(NESTING_MAX);
    // So that an error knows the name of the variable that has no value.
    env.set_debug(true);
    add_filters(&mut env);
    add_tests(&mut env);
    env
}

const HTML: &str = "html";

fn add_filters(env: &mut Environment<'static>) {
    env.add_filter("abs", filters::abs);
    env.add_filter("capitalize", filters::capitalize);
    env.add_filter("d", default);
    env.add_filter("default", default);
    env.add_filter("e", escape);
    env.add_filter("escape", escape);
    env.add_filter("first", filters::first);
    env.add_filter("float", filters::float);
    env.add_filter("int", filters::int);
    env.add_filter("items", filters::items);
    env.add_filter("last", filters::last);
    env.add_filter("length", filters::length);
    env.add_filter("lower", filters::lower);
    env.add_filter("round", filters::round);
    env.add_filter("safe", filters::safe);
    env.add_filter("title", filters::title);
    env.add_filter("trim", filters::trim);
    env.add_filter("upper", filters::upper);
    env.add_filter("urlencode", filters::urlencode);
}

fn add_tests(env: &mut Environment<'static>) {
    env.add_test("defined", tests::is_defined);
    env.add_test("divisibleby", tests::is_divisibleby);
    env.add_test("endingwith", tests::is_endingwith);
    env.add_test("even", tests::is_even);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("none", tests::is_none);
    env.add_test("number", tests::is_number);
    env.add_test("odd", tests::is_odd);
    env.add_test("sequence", tests::is_sequence);
    env.add_test("startingwith", tests::is_startingwith);
    env.add_test("undefined", tests::is_undefined);
}

/// Adds one part's source under the part's name.
pub(super) fn add(env: &mut Environment<'static>, part: Part, source: &str) -> Result<(), TemplateError> {
    env.add_template_owned(part.as_str(), source.to_owned())
        .map_err(|e| TemplateError::from_engine(part, source, &e))
}

/// Renders one part; it takes at most [`FUEL`] steps and gives at most [`OUTPUT_BYTES_MAX`] bytes.
pub(super) fn render(env: &Environment<'static>, part: Part, context: Value) -> Result<String, TemplateError> {
    let template = env
        .get_template(part.as_str())
        .expect("a newsletter renders the parts it has compiled");
    let mut capped = Capped {
        bytes: Vec::with_capacity(template.source().len() * 5 / 4),
        is_full: false,
    };
    match template.render_captured_to(context, &mut capped) {
        Ok(_) => Ok(String::from_utf8(capped.bytes).expect("the engine writes UTF-8")),
        Err(_) if capped.is_full => Err(TemplateError::new(
            part,
            None,
            Problem::TooLong(format!("the rendered {} is longer than {OUTPUT_BYTES_MAX} bytes", part.as_str())),
        )),
        Err(e) => Err(TemplateError::from_engine(part, template.source(), &e)),
    }
}

/// A writer that refuses what would go beyond [`OUTPUT_BYTES_MAX`].
struct Capped {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for &mut Capped {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > OUTPUT_BYTES_MAX {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes one value. Null is a missing value like any other: a mail must not say "Dear None". Nor is a
/// list or an object anything that a reader should see.
fn write_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let is_html = matches!(state.auto_escape(), AutoEscape::Html) && !value.is_safe();
    match value.kind() {
        ValueKind::None => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::String => match value.as_str() {
            Some(text) if is_html => write_escaped(out, text),
            Some(text) => out.write_str(text).map_err(Error::from),
            None => Ok(()),
        },
        ValueKind::Number | ValueKind::Bool | ValueKind::Undefined => write!(out, "{value}").map_err(Error::from),
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            "a list or an object cannot be printed; loop over it, or name one of its members",
        )),
    }
}

/// Escapes what could leave an HTML text or a quoted attribute. Unlike the engine's own escape it lets
/// `/` be: URLs in `href` stay readable, and nothing is gained by escaping it.
fn write_escaped(out: &mut Output, text: &str) -> Result<(), Error> {
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
        out.write_str(&rest[..at])?;
        out.write_str(match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            _ => "&#39;",
        })?;
        rest = &rest[at + 1..];
    }
    out.write_str(rest).map_err(Error::from)
}

/// `|escape`: in HTML every value is escaped anyway, so there it only says so; elsewhere there is
/// nothing to escape for.
fn escape(value: Value) -> Value {
    value
}

/// `|default('…')`: stands in for a value that is missing, null or empty. Empty counts, because a CSV
/// file has no other way to say that there is nothing.
fn default(value: Value, other: Option<Value>, _jinja_compatible: Option<bool>) -> Value {
    let is_empty = value.as_str().is_some_and(|s| s.trim().is_empty());
    if value.is_undefined() || value.is_none() || is_empty {
        return other.unwrap_or_else(|| Value::from(""));
    }
    value
}
