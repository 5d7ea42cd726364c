//! Newsletters: written by people, compiled once per broadcast, rendered once per recipient.
//!
//! A newsletter is untrusted: it is somebody's text in a programming language. So it may take only so
//! many steps, give only so many bytes, and use only what stands on a list (`engine`, `scan`). What
//! the recipients' data hold is untrusted too: in HTML every value is escaped unless the author says
//! `|safe`, and a value never becomes template source.
//! Never loads anything by name, never touches files, clocks or the network.

mod context;
mod engine;
mod error;
mod references;
mod scan;
mod starters;
mod text;
mod title;
mod values;

use std::collections::BTreeSet;

use minijinja::Environment;

pub use self::context::{Context, RESERVED, Shared};
pub use self::engine::{FILTERS, FUEL, OUTPUT_BYTES_MAX, TESTS};
pub use self::error::{Part, Problem, TemplateError};
pub use self::starters::{STARTERS, Starter};
pub use self::title::title;
use crate::domain::content::{Content, SOURCE_BYTES_MAX};

/// Most characters of a rendered subject; what is longer is cut. Mail programs show about 70.
pub const SUBJECT_CHARS_MAX: usize = 250;

/// A compiled newsletter. Share it by `Arc`: rendering needs no lock and changes nothing.
#[derive(Debug)]
pub struct Newsletter {
    env: Environment<'static>,
    has_html: bool,
    text: TextPart,
    variables: Vec<String>,
}

/// Where the plain-text part comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPart {
    /// The author wrote it.
    Written,
    /// A template made once from the HTML part's source.
    Derived,
    /// Made from the rendered HTML of every message: slower, about a millisecond each.
    PerMessage,
}

/// One recipient's newsletter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line, at most [`SUBJECT_CHARS_MAX`] characters.
    pub subject: String,
    pub html: Option<String>,
    pub text: String,
}

impl Newsletter {
    /// Checks and compiles the sources.
    ///
    /// # Errors
    /// The first thing that is wrong, with its part and line: neither HTML nor text is given, a source
    /// is longer than [`SOURCE_BYTES_MAX`], cannot be read, or uses what newsletters may not use.
    pub fn compile(content: &Content) -> Result<Self, TemplateError> {
        let mut env = engine::environment();
        add_checked(&mut env, Part::Subject, &content.subject)?;
        if let Some(html) = &content.html {
            add_checked(&mut env, Part::Html, html)?;
        }
        let text = match (&content.text, &content.html) {
            (Some(text), _) => {
                add_checked(&mut env, Part::Text, text)?;
                TextPart::Written
            }
            (None, Some(html)) => add_derived(&mut env, html),
            (None, None) => {
                let why = "there is neither an html nor a text part; give at least one".to_owned();
                return Err(TemplateError::new(Part::Text, None, Problem::Other(why)));
            }
        };
        let variables = variables(&env);
        Ok(Self {
            env,
            has_html: content.html.is_some(),
            text,
            variables,
        })
    }

    /// Renders all parts for one recipient.
    ///
    /// # Errors
    /// A variable has no value for this recipient, the subject becomes empty, or a part takes more than [`FUEL`] steps or gives
    /// more than [`OUTPUT_BYTES_MAX`] bytes. It concerns this message, not the broadcast.
    pub fn render(&self, context: &Context) -> Result<Rendered, TemplateError> {
        self.render_parts(context).map_err(|mut error| {
            if let Problem::Missing { name, nearest } = &mut error.problem {
                *nearest = context.nearest(name);
            }
            error
        })
    }

    fn render_parts(&self, context: &Context) -> Result<Rendered, TemplateError> {
        let subject = one_line(&engine::render(&self.env, Part::Subject, context.value())?);
        if subject.trim().is_empty() {
            let why = "the subject is empty for this recipient; give its variables a value, or a default as in \
                       {{ topic|default('News') }}";
            return Err(TemplateError::new(Part::Subject, None, Problem::Other(why.to_owned())));
        }
        let html = match self.has_html {
            true => Some(engine::render(&self.env, Part::Html, context.value())?),
            false => None,
        };
        let text = match self.text {
            TextPart::Written => engine::render(&self.env, Part::Text, context.value())?,
            TextPart::Derived => text::tidy(&engine::render(&self.env, Part::Text, context.value())?),
            TextPart::PerMessage => text::html_to_text(html.as_deref().unwrap_or_default()),
        };
        Ok(Rendered { subject, html, text })
    }

    /// Names the newsletter asks for and that the data must give, such as `first_name` or
    /// `order.total`, sorted; without [`RESERVED`]. Some may have a default in the template.
    #[must_use]
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    #[must_use]
    pub fn text_part(&self) -> TextPart {
        self.text
    }

    /// Data for a preview without a recipient: every variable holds its own name in brackets.
    #[must_use]
    pub fn sample_data(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut data = serde_json::Map::new();
        for variable in &self.variables {
            put_sample(&mut data, variable, variable);
        }
        data
    }
}

fn put_sample(data: &mut serde_json::Map<String, serde_json::Value>, path: &str, shown: &str) {
    match path.split_once('.') {
        None => {
            data.entry(path).or_insert_with(|| format!("[{shown}]").into());
        }
        Some((first, rest)) => {
            let inner = data.entry(first).or_insert_with(|| serde_json::Map::new().into());
            if !inner.is_object() {
                *inner = serde_json::Map::new().into();
            }
            put_sample(inner.as_object_mut().expect("made an object just now"), rest, shown);
        }
    }
}

fn add_checked(env: &mut Environment<'static>, part: Part, source: &str) -> Result<(), TemplateError> {
    if source.len() > SOURCE_BYTES_MAX {
        let why = format!("the source has {} bytes; {SOURCE_BYTES_MAX} is the most", source.len());
        return Err(TemplateError::new(part, None, Problem::TooLong(why)));
    }
    scan::check(part, source)?;
    engine::add(env, part, source)
}

/// A text template from the HTML's source, where that is certain to say the same.
fn add_derived(env: &mut Environment<'static>, html: &str) -> TextPart {
    match text::text_source(html) {
        Some(source) if engine::add(env, Part::Text, &source).is_ok() => TextPart::Derived,
        _ => TextPart::PerMessage,
    }
}

fn variables(env: &Environment<'static>) -> Vec<String> {
    let all: BTreeSet<String> = env
        .templates()
        .flat_map(|(_, t)| t.undeclared_variables(true))
        .collect();
    let is_ours = |name: &str| name == "loop" || RESERVED.contains(&name.split('.').next().unwrap_or(name));
    all.into_iter().filter(|name| !is_ours(name)).collect()
}

/// Line breaks and other control characters become spaces, spaces in a row become one.
fn one_line(text: &str) -> String {
    let is_gap = |c: char| c == ' ' || c.is_control() || c == '\u{2028}' || c == '\u{2029}';
    let mut line = String::with_capacity(text.len());
    for word in text.split(is_gap).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(SUBJECT_CHARS_MAX) {
        None => line,
        Some(_) => line.chars().take(SUBJECT_CHARS_MAX - 1).chain(['…']).collect(),
    }
}
