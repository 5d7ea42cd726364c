//! What can be wrong with a newsletter, in words for the person who wrote it. Never holds a value of
//! a recipient's data: these texts are stored, shown and logged.

use std::fmt;

use minijinja::ErrorKind;

/// The three sources of a newsletter, and the data that is merged into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Subject,
    Html,
    Text,
    Data,
}

impl Part {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Subject => "subject",
            Part::Html => "html",
            Part::Text => "text",
            Part::Data => "data",
        }
    }
}

/// Where a newsletter is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    pub part: Part,
    /// Line of the part's source, from 1, where it is known.
    pub line: Option<usize>,
    pub problem: Problem,
}

/// How a newsletter is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The source cannot be read; the parser's words.
    Syntax(String),
    /// The source uses something that newsletters may not use.
    NotAllowed(String),
    /// The variable has no value for this recipient; `nearest` is a known name that may be meant.
    Missing { name: String, nearest: Option<String> },
    /// More steps than `FUEL`.
    TooMuchWork,
    /// The source or what became of it is too long.
    TooLong(String),
    /// Anything else that went wrong while it was rendered.
    Other(String),
}

impl TemplateError {
    pub(super) fn new(part: Part, line: Option<usize>, problem: Problem) -> Self {
        Self { part, line, problem }
    }

    /// Puts the engine's error into our words; `source` is the part's source.
    pub(super) fn from_engine(part: Part, source: &str, error: &minijinja::Error) -> Self {
        Self::new(part, error.line(), problem(source, error))
    }
}

impl Problem {
    fn missing(name: &str) -> Self {
        Problem::Missing {
            name: name.to_owned(),
            nearest: None,
        }
    }
}

fn problem(source: &str, error: &minijinja::Error) -> Problem {
    let detail = error.detail().unwrap_or("");
    if let Some(name) = detail.strip_suffix("` is undefined").and_then(|d| d.strip_prefix('`')) {
        return Problem::missing(name);
    }
    match error.kind() {
        ErrorKind::UndefinedError => {
            let shown = error.range().and_then(|r| source.get(r)).unwrap_or("a value");
            Problem::missing(shown.trim())
        }
        ErrorKind::SyntaxError => Problem::Syntax(detail.to_owned()),
        ErrorKind::OutOfFuel => Problem::TooMuchWork,
        ErrorKind::UnknownFilter | ErrorKind::UnknownFunction | ErrorKind::UnknownTest | ErrorKind::UnknownMethod => {
            Problem::NotAllowed(format!("{} cannot be used here", detail))
        }
        kind if detail.is_empty() => Problem::Other(kind.to_string()),
        kind => Problem::Other(format!("{kind}: {detail}")),
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.part.as_str())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Syntax(why) => write!(f, "{why}"),
            Problem::NotAllowed(what) | Problem::TooLong(what) | Problem::Other(what) => write!(f, "{what}"),
            Problem::Missing {
                name,
                nearest: Some(nearest),
            } => write!(
                f,
                "`{name}` has no value for this recipient; `{nearest}` has one, if that is meant; else give `{name}` in the data, or \
                 write {{{{ {name}|default('…') }}}}"
            ),
            Problem::Missing { name, nearest: None } => write!(
                f,
                "`{name}` has no value for this recipient; give it in the recipient's data or in the \
                 broadcast's data, or write {{{{ {name}|default('…') }}}}"
            ),
            Problem::TooMuchWork => {
                write!(f, "the template does more than {} steps; use fewer or shorter loops", super::engine::FUEL)
            }
        }
    }
}

impl std::error::Error for TemplateError {}
