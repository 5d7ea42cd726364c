//! Makes the plain-text part out of the HTML part, when the author wrote none.
//!
//! html2text needs about a millisecond for a newsletter, a template a few microseconds. So the *source*
//! is converted once, with every tag of the template language masked by a sign that HTML does not
//! know, and the tags are put back into the text. Where that cannot be proved to say the same as the
//! HTML (see [`text_source`]), the rendered HTML of every message is converted instead.
//! Never lays out tables in columns: in a mail, tables are layout.

use html2text::render::TrivialDecorator;

use super::references;
use super::scan::{Tag, TagKind, tags};

/// Masks stand between these two signs of the private use area.
const MASK_OPEN: char = '\u{E000}';
const MASK_CLOSE: char = '\u{E001}';
/// Stand for a space, a tab and a line break of `<pre>` while the text is laid out, so that nobody takes them for layout.
const KEPT: [(char, char); 3] = [(' ', '\u{E002}'), ('\t', '\u{E003}'), ('\n', '\u{E004}')];
/// No line is wrapped: mail programs wrap to the width of their window.
const WIDTH: usize = 1_000_000;

/// Turns HTML into readable text: blocks become lines, links show their address behind them, pictures
/// their description.
pub(super) fn html_to_text(html: &str) -> String {
    let simple = simplify(html);
    let text = lay_out(&simple).unwrap_or(simple.text);
    match simple.keeps_space {
        true => KEPT
            .iter()
            .fold(text, |text, (sign, kept)| text.replace(*kept, sign.encode_utf8(&mut [0; 4]))),
        false => text,
    }
}

/// The template source of a text part that says what the template source of the HTML part says; none
/// where that is not certain. It is certain when no tag puts HTML of its own into the page (`|safe`,
/// `{% raw %}`), no link opens inside a link, no reference such as `&copy` runs on into a value, nothing stands in `<pre>`, and the tags that stand in text or link addresses come out
/// once each and in order. Conditions and loops that fell away with an attribute, a style or a comment
/// must have done so in pairs: the caller compiles the result, which fails otherwise.
pub(super) fn text_source(html: &str) -> Option<String> {
    let tags = tags(html);
    if html.contains([MASK_OPEN, MASK_CLOSE]) || tags.iter().any(|t| t.word() == "raw" || uses_safe(t)) {
        return None;
    }
    let masked = mask(html, &tags);
    let simple = simplify(&masked);
    if simple.is_uncertain || simple.keeps_space || has_open_reference(&masked) {
        return None;
    }
    let text = lay_out(&simple)?;
    if masks(&text) != masks(&simple.text) {
        return None;
    }
    // Literal text that only looks like a tag, such as `&#123;{`, would come alive.
    if ["{{", "{%", "{#"].iter().any(|open| text.contains(open)) {
        return None;
    }
    Some(unmask(&text, html, &tags))
}

/// Whether a value may become part of a character reference, as in `&copy{{ x }}`.
fn has_open_reference(masked: &str) -> bool {
    masked.match_indices(MASK_OPEN).any(|(at, _)| {
        let before = masked[..at].trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '#');
        before.ends_with('&')
    })
}

fn lay_out(simple: &Simple) -> Option<String> {
    html2text::config::with_decorator(TrivialDecorator::new())
        .allow_width_overflow()
        .string_from_read(simple.text.as_bytes(), WIDTH)
        .ok()
        .map(|text| tidy(&text))
}

fn uses_safe(tag: &Tag) -> bool {
    tag.kind != TagKind::Comment && tag.inner.contains("safe")
}

/// Puts `OPEN number CLOSE` in place of every tag; comments are dropped.
fn mask(source: &str, tags: &[Tag]) -> String {
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    for (i, tag) in tags.iter().enumerate() {
        out.push_str(&source[at..tag.start]);
        if tag.kind != TagKind::Comment {
            out.push_str(&format!("{MASK_OPEN}{i}{MASK_CLOSE}"));
        }
        at = tag.end;
    }
    out.push_str(&source[at..]);
    out
}

/// The numbers of the masks in a text, in order.
fn masks(text: &str) -> Vec<usize> {
    text.split(MASK_OPEN)
        .skip(1)
        .filter_map(|rest| rest.split(MASK_CLOSE).next()?.parse().ok())
        .collect()
}

/// Puts the tags back. A line that holds nothing but one statement gives up its line break, so that a
/// loop over table rows gives a line for each row and not three.
fn unmask(text: &str, source: &str, tags: &[Tag]) -> String {
    let mut out = String::with_capacity(source.len());
    for line in text.split_inclusive('\n') {
        let numbers = masks(line);
        let is_bare = line.trim().matches([MASK_OPEN, MASK_CLOSE]).count() == 2
            && line.trim().starts_with(MASK_OPEN)
            && line.trim().ends_with(MASK_CLOSE)
            && numbers.iter().all(|&i| tags[i].kind == TagKind::Statement);
        let mut rest = if is_bare { line.trim() } else { line };
        for i in numbers {
            let (before, after) = rest
                .split_once(MASK_OPEN)
                .expect("the number was read behind this sign");
            out.push_str(before);
            out.push_str(&source[tags[i].start..tags[i].end]);
            rest = after.split_once(MASK_CLOSE).map_or("", |(_, after)| after);
        }
        out.push_str(rest);
    }
    out
}

/// No spaces at the ends of lines, never two empty lines in a row, none at the start, one line break at the end.
pub(super) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut n_empty = 0;
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() {
            n_empty += 1;
            continue;
        }
        if n_empty > 0 && !out.is_empty() {
            out.push('\n');
        }
        n_empty = 0;
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// HTML with nothing in it but paragraphs, line breaks and text: flat, so that nothing is in a place
/// from where a parser would move it, and html2text need not follow how deep the author nested
/// (20,000 nested `div` took it 18 seconds).
struct Simple {
    text: String,
    /// The break that is due before the next text.
    due: Break,
    /// A link was opened inside a link: which address belongs to which text depends on the data.
    is_uncertain: bool,
    /// Text of `<pre>` is in it, with [`KEPT`] signs.
    keeps_space: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Break {
    None,
    Line,
    Paragraph,
}

impl Simple {
    fn push(&mut self, text: &str) {
        if self.due != Break::None && text.trim().is_empty() {
            return;
        }
        self.settle_break();
        self.text.push_str(text);
    }

    /// Text of `<pre>`: its spaces and line breaks are text.
    fn push_kept(&mut self, source: &str) {
        let text = references::text(source).replace("\r\n", "\n").replace('\r', "\n");
        let kept = KEPT
            .iter()
            .fold(text, |text, (sign, kept)| text.replace(*sign, kept.encode_utf8(&mut [0; 4])));
        self.keeps_space = true;
        self.push(&references::escaped(&kept));
    }

    fn settle_break(&mut self) {
        let is_first = self.text == PARAGRAPH;
        match std::mem::replace(&mut self.due, Break::None) {
            Break::Line if !is_first => self.text.push_str("<br>"),
            Break::Paragraph if !is_first => self.text.push_str("</p><p>"),
            _ => {}
        }
    }

    fn break_here(&mut self, due: Break) {
        self.due = self.due.max(due);
    }

    /// Puts the link's address behind its text, unless it says the same.
    fn close_link(&mut self, link: Option<Link>) {
        let Some(Link {
            start,
            href: Some(href),
        }) = link
        else {
            return;
        };
        let href = href.trim();
        let address = href.strip_prefix("mailto:").unwrap_or(href);
        if !href.is_empty() && !href.starts_with('#') && references::text(self.text[start..].trim()) != address {
            self.push(&format!(" ({})", references::escaped(address)));
        }
    }
}

const PARAGRAPH: &str = "<p>";

struct Link {
    /// Where the link's text starts in the output.
    start: usize,
    href: Option<String>,
}

/// Rewrites HTML for html2text: blocks and table rows become lines, cells run on, list items get a
/// dash, a link is followed by its address, a picture becomes its description. Attributes, comments,
/// styles, scripts and the head are dropped.
fn simplify(html: &str) -> Simple {
    let mut simple = Simple {
        text: PARAGRAPH.to_owned(),
        due: Break::None,
        is_uncertain: false,
        keeps_space: false,
    };
    // A text that holds our own signs gets no `<pre>`.
    let may_keep = !html.contains(KEPT.map(|(_, kept)| kept));
    let mut pre = 0usize;
    let mut link: Option<Link> = None;
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        match pre {
            0 => simple.push(&rest[..at]),
            _ => simple.push_kept(&rest[..at]),
        }
        rest = &rest[at..];
        let Some(element) = Element::read(rest) else {
            simple.push("&lt;");
            rest = &rest[1..];
            continue;
        };
        rest = &rest[element.len..];
        match element.name.as_str() {
            "head" | "style" | "script" | "title" if !element.is_end => rest = skip_to_end(rest, &element.name),
            "a" if element.is_end => simple.close_link(link.take()),
            "a" => {
                simple.is_uncertain |= link.is_some();
                simple.settle_break();
                link = Some(Link {
                    start: simple.text.len(),
                    href: element.attribute("href"),
                });
            }
            "img" => simple.push(&references::escaped(&element.attribute("alt").unwrap_or_default())),
            "br" if pre > 0 => simple.push_kept("\n"),
            "br" => simple.push("<br>"),
            "pre" if may_keep => {
                simple.break_here(Break::Paragraph);
                match element.is_end {
                    true => pre = pre.saturating_sub(1),
                    false => {
                        pre += 1;
                        // HTML standard 13.2.6.4.7: a line break at once behind the tag is no text.
                        rest = rest
                            .strip_prefix("\r\n")
                            .or_else(|| rest.strip_prefix('\n'))
                            .unwrap_or(rest);
                    }
                }
            }
            "td" | "th" => simple.push(" "),
            "hr" => {
                simple.break_here(Break::Paragraph);
                simple.push("----------");
                simple.break_here(Break::Paragraph);
            }
            name => {
                simple.break_here(break_around(name));
                if name == "li" && !element.is_end {
                    simple.push("- ");
                }
            }
        }
    }
    match pre {
        0 => simple.push(rest),
        _ => simple.push_kept(rest),
    }
    simple.text.push_str("</p>");
    simple
}

/// How an element stands apart from what is around it; inline elements do not.
fn break_around(name: &str) -> Break {
    match name {
        "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "blockquote" | "ul" | "ol" | "pre" => Break::Paragraph,
        "div" | "table" | "tr" | "li" | "section" | "article" | "header" | "footer" | "main" | "nav" | "aside"
        | "center" | "address" | "figure" | "caption" | "dl" | "dt" | "dd" | "form" => Break::Line,
        _ => Break::None,
    }
}

/// What follows `</name…>`; nothing when the element is never closed.
fn skip_to_end<'h>(html: &'h str, name: &str) -> &'h str {
    let mut rest = html;
    while let Some(at) = rest.find("</") {
        rest = &rest[at + 2..];
        if rest.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name)) {
            return rest.split_once('>').map_or("", |(_, after)| after);
        }
    }
    ""
}

/// One start tag, end tag, comment or declaration at the start of a text.
struct Element<'h> {
    /// Lower case; empty for comments and declarations.
    name: String,
    is_end: bool,
    /// Bytes from `<` to `>`, or to the end when it is never closed: so does a browser.
    len: usize,
    attributes: &'h str,
}

impl<'h> Element<'h> {
    fn read(html: &'h str) -> Option<Self> {
        if html.starts_with("<!--") {
            let len = html.find("-->").map_or(html.len(), |at| at + 3);
            return Some(Self {
                name: String::new(),
                is_end: false,
                len,
                attributes: "",
            });
        }
        let is_end = html.starts_with("</");
        let inside = &html[1 + usize::from(is_end)..];
        if !inside.starts_with(|c: char| c.is_ascii_alphabetic() || c == '!' || c == '?') {
            return None;
        }
        let name_len = inside
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(inside.len());
        let attributes_len = unquoted_end(&inside[name_len..]).unwrap_or(inside.len() - name_len);
        Some(Self {
            name: inside[..name_len].to_ascii_lowercase(),
            is_end,
            len: (html.len() - inside.len() + name_len + attributes_len + 1).min(html.len()),
            attributes: &inside[name_len..name_len + attributes_len],
        })
    }

    /// The attribute's value, its character references decoded.
    fn attribute(&self, wanted: &str) -> Option<String> {
        let mut rest = self.attributes;
        while let Some((name, after)) = rest.split_once('=') {
            let name = name
                .rsplit(|c: char| c.is_whitespace() || c == '/')
                .find(|n| !n.is_empty())?;
            let after = after.trim_start();
            let (value, next) = match after.chars().next()? {
                quote @ ('"' | '\'') => after[1..].split_once(quote)?,
                _ => after.split_once(char::is_whitespace).unwrap_or((after, "")),
            };
            if name.eq_ignore_ascii_case(wanted) {
                return Some(references::attribute(value));
            }
            rest = next;
        }
        None
    }
}

/// Where the `>` stands that is in no quoted attribute.
fn unquoted_end(attributes: &str) -> Option<usize> {
    let mut quote = None;
    attributes.bytes().position(|b| {
        match (quote, b) {
            (None, b'>') => return true,
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(open), b) if open == b => quote = None,
            _ => {}
        }
        false
    })
}
