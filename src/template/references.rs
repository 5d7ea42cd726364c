//! Character references (`&amp;`, `&#228;`, `&copy`) as the HTML standard reads them (13.2.5.72 to 80), by the tokenizer of a
//! browser. In an attribute `&copy=` is no reference, in a text it is: a decoder that reads both alike makes `?region=EU` of a link
//! into `?®ion=EU`.

use std::cell::RefCell;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{BufferQueue, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};

/// The value of an attribute whose source this is, without its quotes.
pub(super) fn attribute(source: &str) -> String {
    if !source.contains('&') {
        return source.to_owned();
    }
    tokenized(&format!("<a b=\"{}\">", source.replace('"', "&quot;")))
}

/// The text that a piece of source between tags says.
pub(super) fn text(source: &str) -> String {
    if !source.contains('&') {
        return source.to_owned();
    }
    tokenized(&source.replace('<', "&lt;"))
}

/// A text as source that says it, between tags.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn tokenized(source: &str) -> String {
    let queue = BufferQueue::default();
    queue.push_back(StrTendril::from(source));
    let tokenizer = Tokenizer::new(Heard::default(), TokenizerOpts::default());
    // No script can end in one tag or in a text, which is what the tokenizer would stop for.
    let _ = tokenizer.feed(&queue);
    tokenizer.end();
    tokenizer.sink.0.into_inner()
}

/// All texts and all values of attributes, one behind the other.
#[derive(Default)]
struct Heard(RefCell<String>);

impl TokenSink for Heard {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let mut heard = self.0.borrow_mut();
        match token {
            Token::CharacterTokens(text) => heard.push_str(&text),
            Token::TagToken(tag) => tag.attrs.iter().for_each(|a| heard.push_str(&a.value)),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_the_standard_reads_them() {
        for (source, in_attribute, in_text) in [
            ("?a=1&region=EU&copy=2", "?a=1&region=EU&copy=2", "?a=1®ion=EU©=2"),
            ("?a=1&amp;b=2", "?a=1&b=2", "?a=1&b=2"),
            ("?a=1&ampb=2", "?a=1&ampb=2", "?a=1&b=2"),
            ("?a=1&copy", "?a=1©", "?a=1©"),
            ("?a=1&copy;=2", "?a=1©=2", "?a=1©=2"),
            ("&notin;&notit;", "∉&notit;", "∉¬it;"),
            ("&#8364;&#x20AC;&#x80;", "€€€", "€€€"),
            ("&#0;&#xD800;&#x110000;", "\u{fffd}\u{fffd}\u{fffd}", "\u{fffd}\u{fffd}\u{fffd}"),
            ("& &; &nosuch; &#; &#x;", "& &; &nosuch; &#; &#x;", "& &; &nosuch; &#; &#x;"),
            ("\"'&quot;&apos;", "\"'\"'", "\"'\"'"),
            ("a<b>c&lt;d", "a<b>c<d", "a<b>c<d"),
        ] {
            assert_eq!(attribute(source), in_attribute, "{source}");
            assert_eq!(text(source), in_text, "{source}");
        }
    }
}
