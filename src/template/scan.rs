//! Finds the tags of a template source, and refuses the ones that newsletters may not use. Never
//! judges syntax: the engine has read the source before.

use super::engine::{FILTERS, TESTS};
use super::error::{Part, Problem, TemplateError};

/// Statements that newsletters may use. No `include`, `extends`, `import` (there is nothing to load),
/// no `macro`, `call`, `block`, `filter`, `autoescape`, `do`.
const STATEMENTS: [&str; 12] = [
    "if", "elif", "else", "endif", "for", "endfor", "set", "endset", "with", "endwith", "raw", "endraw",
];
/// Words of the language that may stand before a parenthesis without being called.
const KEYWORDS: [&str; 8] = ["if", "elif", "else", "in", "is", "not", "and", "or"];
/// The one thing that may be called: a recursive loop's own `loop(…)`.
const CALLABLE: &str = "loop";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagKind {
    /// `{{ … }}`
    Expression,
    /// `{% … %}`
    Statement,
    /// `{# … #}`
    Comment,
}

/// One tag of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag<'s> {
    pub kind: TagKind,
    /// Byte range of the whole tag, delimiters included.
    pub start: usize,
    pub end: usize,
    /// What stands between the delimiters and their `-` or `+`, trimmed.
    pub inner: &'s str,
}

impl Tag<'_> {
    /// The statement's first word.
    pub fn word(&self) -> &str {
        self.inner
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .unwrap_or("")
    }
}

/// All tags in order. What stands in `{% raw %}` has none.
pub(super) fn tags(source: &str) -> Vec<Tag<'_>> {
    let mut found: Vec<Tag> = Vec::new();
    let mut at = 0;
    while let Some(tag) = next_tag(source, at) {
        at = tag.end;
        let is_in_raw = found
            .last()
            .is_some_and(|t| t.kind == TagKind::Statement && t.word() == "raw");
        if is_in_raw && !(tag.kind == TagKind::Statement && tag.word() == "endraw") {
            at = tag.start + 2;
            continue;
        }
        found.push(tag);
    }
    found
}

fn next_tag(source: &str, from: usize) -> Option<Tag<'_>> {
    let mut at = from;
    loop {
        let start = at + source.get(at..)?.find('{')?;
        let kind = match source.as_bytes().get(start + 1) {
            Some(b'{') => TagKind::Expression,
            Some(b'%') => TagKind::Statement,
            Some(b'#') => TagKind::Comment,
            _ => {
                at = start + 1;
                continue;
            }
        };
        let inner_start = start + 2;
        let inner_len = match kind {
            TagKind::Comment => source[inner_start..].find("#}")?,
            TagKind::Expression => inner_len(&source[inner_start..], "}}")?,
            TagKind::Statement => inner_len(&source[inner_start..], "%}")?,
        };
        let inner = source[inner_start..inner_start + inner_len]
            .trim_matches(['-', '+'])
            .trim();
        return Some(Tag {
            kind,
            start,
            end: inner_start + inner_len + 2,
            inner,
        });
    }
}

/// Length of a tag's inside: up to the closing delimiter that stands in no string and no brackets.
fn inner_len(text: &str, close: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        if depth == 0 && bytes[at..].starts_with(close.as_bytes()) {
            return Some(at);
        }
        match bytes[at] {
            quote @ (b'"' | b'\'') => at = string_end(bytes, at, quote)?,
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the closing quote of the string that opens at `at` stands.
fn string_end(bytes: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b if b == quote => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Refuses statements, filters, tests and calls that are not on the lists, wherever they stand: the
/// engine itself would notice only when a recipient's data leads there.
///
/// # Errors
/// The first one that is not allowed, with its line and what is allowed.
pub(super) fn check(part: Part, source: &str) -> Result<(), TemplateError> {
    for tag in tags(source) {
        let found = match tag.kind {
            TagKind::Comment => None,
            TagKind::Expression => bad_word(tag.inner),
            TagKind::Statement if !STATEMENTS.contains(&tag.word()) => {
                Some(not_allowed(&format!("{{% {} %}}", tag.word()), &["if", "for", "set", "with", "raw"]))
            }
            TagKind::Statement => bad_word(tag.inner),
        };
        if let Some(what) = found {
            let line = 1 + source[..tag.start].matches('\n').count();
            return Err(TemplateError::new(part, Some(line), Problem::NotAllowed(what)));
        }
    }
    Ok(())
}

fn not_allowed(what: &str, allowed: &[&str]) -> String {
    format!("{what} cannot be used in a newsletter; use one of: {}", allowed.join(", "))
}

/// The first filter, test or call inside a tag that is not allowed, as a sentence.
fn bad_word(inner: &str) -> Option<String> {
    let tokens = tokens(inner);
    for (i, &token) in tokens.iter().enumerate() {
        let before = i.checked_sub(1).map_or("", |b| tokens[b]);
        let before_that = i.checked_sub(2).map_or("", |b| tokens[b]);
        let after = tokens.get(i + 1).copied().unwrap_or("");
        if !is_word(token) {
            continue;
        }
        let is_tested =
            (before == "is" && before_that != "." && token != "not") || (before == "not" && before_that == "is");
        if before == "|" {
            if !FILTERS.contains(&token) {
                return Some(not_allowed(&format!("the filter '{token}'"), &FILTERS));
            }
        } else if is_tested {
            if !TESTS.contains(&token) {
                return Some(not_allowed(&format!("the test '{token}'"), &TESTS));
            }
        } else if after == "(" && token != CALLABLE && !KEYWORDS.contains(&token) {
            return Some(format!("'{token}(…)' cannot be called in a newsletter; there are filters and tests only"));
        }
    }
    None
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words and single signs; strings are left out, but never join what stands around them.
fn tokens(inner: &str) -> Vec<&str> {
    let bytes = inner.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = inner.get(at..).and_then(|rest| rest.chars().next()) {
        let start = at;
        at += c.len_utf8();
        if c == '"' || c == '\'' {
            at = string_end(bytes, start, c as u8).map_or(bytes.len(), |end| end + 1);
            found.push("''");
        } else if c.is_alphanumeric() || c == '_' {
            let len = inner[start..]
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(inner.len() - start);
            at = start + len;
            found.push(&inner[start..at]);
        } else if !c.is_whitespace() {
            found.push(&inner[start..at]);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inners(source: &str) -> Vec<&str> {
        tags(source).iter().map(|t| t.inner).collect()
    }

    #[test]
    fn tags_end_where_the_engine_ends_them() {
        assert_eq!(inners("a {{ b }} c {%- if d -%} { {# e #}"), ["b", "if d", "e"]);
        assert_eq!(inners(r#"{{ "}}" }}{{ 'it\'s }}' }}"#), [r#""}}""#, r"'it\'s }}'"]);
        assert_eq!(inners("{{ {'a': {'b': 1}}.a.b }}"), ["{'a': {'b': 1}}.a.b"]);
        assert_eq!(inners("{% raw %}{{ x }}{% y %}{% endraw %}{{ z }}"), ["raw", "endraw", "z"]);
        assert_eq!(inners("{{ open"), Vec::<&str>::new());
    }

    #[test]
    fn what_newsletters_need_is_allowed() {
        for source in [
            "{{ name|default('a(b|c') }} {{ (a + b)|round(2) }}",
            "{% if (a and not(b)) or c in (d) %}x{% elif a is not defined %}y{% else %}z{% endif %}",
            "{% for a in b recursive %}{{ loop(a.c) }}{{ loop.index }}{% endfor %}",
            "{% if n is divisibleby(3) %}{% endif %}{{ item.is }}{{ item.format }}",
        ] {
            assert_eq!(check(Part::Text, source), Ok(()), "{source}");
        }
    }

    #[test]
    fn what_newsletters_may_not_use_is_refused_with_its_line() {
        for (source, part) in [
            ("\n{% include 'x' %}", "{% include %}"),
            ("\n{% macro m() %}{% endmacro %}", "{% macro %}"),
            ("\n{{ x|replace('a', 'b') }}", "the filter 'replace'"),
            ("\n{% if false %}{{ x|upper|format }}{% endif %}", "the filter 'format'"),
            ("\n{% for i in range(9) %}{% endfor %}", "'range(…)'"),
            ("\n{{ x.items() }}", "'items(…)'"),
            ("\n{{ x is not filter('x') }}", "the test 'filter'"),
        ] {
            let error = check(Part::Html, source).expect_err(source);
            assert_eq!(error.line, Some(2), "{source}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
