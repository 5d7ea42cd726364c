//! Finds the tags of a template source, and refuses the ones that newsletters may not use, before the
//! engine reads them. Never judges the rest of the syntax: that is the engine's part.

use super::engine::{FILTERS, TESTS};
use super::error::{Part, Problem, TemplateError};

/// Statements that newsletters may use. There is nothing to load (`include`, `extends`, `import`), and
/// nothing may be named (`set`, `with`, `macro`): a name can hold twice what it held before, and thirty
/// such steps make a list of a thousand million parts, which the engine's fuel does not notice.
const STATEMENTS: [&str; 8] = ["if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"];
/// Words of the language, which name nothing.
const KEYWORDS: [&str; 8] = ["if", "elif", "else", "in", "is", "not", "and", "or"];
/// Words that a list in the source may hold.
const CONSTANTS: [&str; 6] = ["true", "false", "none", "True", "False", "None"];
/// Most words and signs in one tag. The engine follows a chain such as `a ~ b ~ c` by recursion: at some
/// ten thousand it overflows the stack, which ends the process.
const TOKENS_MAX: usize = 200;
/// Most `{% elif %}` in one source, for the same reason.
const ELIF_MAX: usize = 100;
/// Most `+` in one tag: a sum of lists is as long as all of them, and is no news.
const PLUS_MAX: usize = 8;

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

/// All tags in order. What stands in `{% raw %}` has none, and what is never closed is none.
pub(super) fn tags(source: &str) -> Vec<Tag<'_>> {
    scan(source).0
}

/// All tags, and where the one starts that is never closed.
fn scan(source: &str) -> (Vec<Tag<'_>>, Option<usize>) {
    let mut found: Vec<Tag> = Vec::new();
    let mut at = 0;
    while let Some((start, kind)) = next_open(source, at) {
        let is_in_raw = found
            .last()
            .is_some_and(|t| t.kind == TagKind::Statement && t.word() == "raw");
        match close(source, start, kind) {
            Some(tag) if !is_in_raw || (kind == TagKind::Statement && tag.word() == "endraw") => {
                at = tag.end;
                found.push(tag);
            }
            None if !is_in_raw => return (found, Some(start)),
            _ => at = start + 2,
        }
    }
    (found, None)
}

fn next_open(source: &str, from: usize) -> Option<(usize, TagKind)> {
    let mut at = from;
    loop {
        let start = at + source[at..].find('{')?;
        match source.as_bytes().get(start + 1) {
            Some(b'{') => return Some((start, TagKind::Expression)),
            Some(b'%') => return Some((start, TagKind::Statement)),
            Some(b'#') => return Some((start, TagKind::Comment)),
            _ => at = start + 1,
        }
    }
}

fn close(source: &str, start: usize, kind: TagKind) -> Option<Tag<'_>> {
    let inside = &source[start + 2..];
    let len = match kind {
        TagKind::Comment => inside.find("#}")?,
        TagKind::Expression => inner_len(inside, "}}")?,
        TagKind::Statement => inner_len(inside, "%}")?,
    };
    let inner = inside[..len].trim_matches(['-', '+']).trim();
    Some(Tag {
        kind,
        start,
        end: start + 2 + len + 2,
        inner,
    })
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

/// Refuses what is not on the lists, wherever it stands: the engine itself would notice only when a
/// recipient's data leads there. What is left cannot make anything longer than the source and the
/// data: no names are bound but those of loops, loops go over what is there, nothing is repeated.
///
/// # Errors
/// The first thing that is not allowed, with its line and what is allowed.
pub(super) fn check(part: Part, source: &str) -> Result<(), TemplateError> {
    let line_of = |at: usize| Some(1 + source[..at].matches('\n').count());
    let (tags, unclosed) = scan(source);
    let mut n_elif = 0;
    for tag in tags {
        n_elif += usize::from(tag.kind == TagKind::Statement && tag.word() == "elif");
        if n_elif > ELIF_MAX {
            let what = format!("there are more than {ELIF_MAX} {{% elif %}}; look the text up in the data");
            return Err(TemplateError::new(part, line_of(tag.start), Problem::NotAllowed(what)));
        }
        check_tag(&tag).map_err(|what| TemplateError::new(part, line_of(tag.start), Problem::NotAllowed(what)))?;
    }
    match unclosed {
        Some(at) => {
            let what = format!("'{}' is never closed", &source[at..at + 2]);
            Err(TemplateError::new(part, line_of(at), Problem::Syntax(what)))
        }
        None => Ok(()),
    }
}

fn check_tag(tag: &Tag) -> Result<(), String> {
    let tokens = tokens(tag.inner);
    if tag.kind != TagKind::Comment && tokens.len() > TOKENS_MAX {
        return Err(format!("the tag has {} words and signs; {TOKENS_MAX} is the most", tokens.len()));
    }
    match tag.kind {
        TagKind::Comment => Ok(()),
        TagKind::Expression => check_expression(&tokens),
        TagKind::Statement if !STATEMENTS.contains(&tag.word()) => {
            Err(not_allowed(&format!("{{% {} %}}", tag.word()), &["if", "for", "raw"]))
        }
        TagKind::Statement if tag.word() == "for" => check_loop(&tokens),
        TagKind::Statement => check_expression(tokens.get(1..).unwrap_or_default()),
    }
}

/// `for a, b in path|filter if condition`: the loop goes over something that the data hold.
fn check_loop(tokens: &[&str]) -> Result<(), String> {
    let start = tokens.iter().position(|&t| t == "in").map_or(tokens.len(), |at| at + 1);
    let rest = &tokens[start..];
    let (over, condition) = rest.split_at(rest.iter().position(|&t| t == "if").unwrap_or(rest.len()));
    if let Some(sign) = over
        .iter()
        .find(|t| ["+", "-", "~", "/", "%", "recursive"].contains(*t))
    {
        return Err(format!("'{sign}' cannot be used in a loop's list; loop over what the data hold"));
    }
    check_expression(over)?;
    check_expression(condition)
}

fn not_allowed(what: &str, allowed: &[&str]) -> String {
    format!("{what} cannot be used in a newsletter; use one of: {}", allowed.join(", "))
}

/// What an open bracket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    /// Arguments of a filter or test.
    Arguments,
    Group,
    Index,
    /// A list of texts and numbers.
    List,
}

fn check_expression(tokens: &[&str]) -> Result<(), String> {
    let token_at = |i: Option<usize>| i.and_then(|i| tokens.get(i)).copied().unwrap_or("");
    let mut brackets: Vec<Bracket> = Vec::new();
    let mut n_plus = 0;
    for (i, &token) in tokens.iter().enumerate() {
        let [before, before_that, first] = [1, 2, 3].map(|back| token_at(i.checked_sub(back)));
        let is_behind_value = is_name(before) || [")", "]", TEXT].contains(&before);
        let inside = brackets.last().copied();
        match token {
            "[" if is_behind_value => brackets.push(Bracket::Index),
            "[" => brackets.push(Bracket::List),
            "(" if takes_arguments(first, before_that, before) => brackets.push(Bracket::Arguments),
            "(" if is_behind_value => {
                return Err(format!(
                    "'{before}(…)' cannot be called in a newsletter; there are filters and tests only"
                ));
            }
            "(" => brackets.push(Bracket::Group),
            ")" | "]" => drop(brackets.pop()),
            "{" => return Err("objects cannot be written in a newsletter; give them in the data".into()),
            "*" => return Err("'*' cannot be used in a newsletter; multiply where the data are made".into()),
            "+" => n_plus += 1,
            "," if !matches!(inside, Some(Bracket::Arguments | Bracket::List)) => {
                return Err("a comma cannot be used here; several values go into several tags".into());
            }
            _ if is_word(token) => check_word(token, before, before_that, inside)?,
            _ => {}
        }
    }
    match n_plus > PLUS_MAX {
        true => Err(format!("there are more than {PLUS_MAX} '+' in a tag; join texts with '~'")),
        false => Ok(()),
    }
}

/// Whether the word before a `(` is a filter, a test or `loop.cycle`.
fn takes_arguments(first: &str, before_that: &str, before: &str) -> bool {
    before_that == "|" || is_tested(before_that, first) || [first, before_that, before] == ["loop", ".", "cycle"]
}

/// Whether these two tokens, `is` or `is not`, make the next word a test.
fn is_tested(before: &str, before_that: &str) -> bool {
    (before == "is" && before_that != ".") || (before == "not" && before_that == "is")
}

fn check_word(word: &str, before: &str, before_that: &str, inside: Option<Bracket>) -> Result<(), String> {
    if before == "|" && !FILTERS.contains(&word) {
        return Err(not_allowed(&format!("the filter '{word}'"), &FILTERS));
    }
    if is_tested(before, before_that) && word != "not" && !TESTS.contains(&word) {
        return Err(not_allowed(&format!("the test '{word}'"), &TESTS));
    }
    if inside == Some(Bracket::List) && !CONSTANTS.contains(&word) {
        return Err("a list in a newsletter holds texts and numbers only".into());
    }
    Ok(())
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn is_name(token: &str) -> bool {
    is_word(token) && !KEYWORDS.contains(&token)
}

/// Stands for any text in quotes.
const TEXT: &str = "''";

/// Words, numbers, texts and single signs.
fn tokens(inner: &str) -> Vec<&str> {
    let bytes = inner.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = inner.get(at..).and_then(|rest| rest.chars().next()) {
        let start = at;
        at += c.len_utf8();
        if c == '"' || c == '\'' {
            at = string_end(bytes, start, c as u8).map_or(bytes.len(), |end| end + 1);
            found.push(TEXT);
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
            "{{ name|default('a(b|c', true)|upper }} {{ (a + b)|round(2) }} {{ -1 }} {{ a - b / c % 2 }}",
            "{% if (a and not(b)) or c in ('x') %}x{% elif a is not defined %}y{% else %}z{% endif %}",
            "{% if a in ['x', 1.5, -2, [true]] and b is not divisibleby(3) %}{% endif %}",
            "{% for a in b.c[0]['d']|default([]) if a.ok and a.n + 1 > 2 %}{{ loop.index }}{% endfor %}",
            "{% for k, v in a|items %}{{ loop.cycle('x', k) }}{% else %}{% endfor %}",
            "{{ item.is }}{{ item.format }}{{ x[a.b] ~ 'c' }}{{ a if b is defined else 'c, d' }}",
            "{% raw %}{% set x = 1 %}{{ x * 9 }}{% endraw %}{# {% include %} #}",
        ] {
            assert_eq!(check(Part::Text, source), Ok(()), "{source}");
        }
    }

    #[test]
    fn what_newsletters_may_not_use_is_refused_with_its_line() {
        for (source, part) in [
            ("\n{% include 'x' %}", "{% include %}"),
            ("\n{% macro m() %}{% endmacro %}", "{% macro %}"),
            ("\n{% set x = [x, x] %}", "{% set %}"),
            ("\n{% with x = y %}{% endwith %}", "{% with %}"),
            ("\n{{ x|replace('a', 'b') }}", "the filter 'replace'"),
            ("\n{% if false %}{{ x|upper|format }}{% endif %}", "the filter 'format'"),
            ("\n{% for i in range(9) %}{% endfor %}", "'range(…)'"),
            ("\n{{ x.items() }}", "'items(…)'"),
            ("\n{{ x[0](1) }}", "'](…)'"),
            ("\n{{ x is not filter('x') }}", "the test 'filter'"),
            ("\n{% for a in b recursive %}{{ loop(a.c) }}{% endfor %}", "'recursive'"),
            ("\n{% for a in b + b %}{% endfor %}", "'+'"),
            ("\n{% for a in [b, b] %}{% endfor %}", "a list in a newsletter"),
            ("\n{% for a in [[b, b]] %}{% endfor %}", "a list in a newsletter"),
            ("\n{% for a in (b, b) %}{% endfor %}", "a comma"),
            ("\n{% for a in {'b': b} %}{% endfor %}", "objects"),
            ("\n{{ (b, b) ~ '' }}", "a comma"),
            ("\n{{ b, b }}", "a comma"),
            ("\n{{ 'x' * 9 }}", "'*'"),
            ("\n{{ 9 ** 9 }}", "'*'"),
            ("\n{{ a+a+a+a+a+a+a+a+a+a }}", "more than 8 '+'"),
        ] {
            let error = check(Part::Html, source).expect_err(source);
            assert_eq!(error.line, Some(2), "{source}");
            assert!(error.to_string().contains(part), "{source}: {error}");
        }
    }
}
