//! Addresses as they are pasted from documents and web pages.

use serde_json::json;

use super::{ALL, Case, Expected};

const HIDDEN: &str = "Unicode 5.21 and UTS 39: what cannot be seen makes two addresses look like one";
const QUOTE: &str = "word processors put it for an apostrophe; RFC 6531 would let it pass, and the mail would bounce";

fn one(name: &'static str, address: &str, expected: Expected, why: &'static str) -> Case {
    Case {
        name,
        content_type: "text/csv",
        input: format!("email\n{address}\n").into_bytes(),
        doors: ALL,
        expected,
        why,
    }
}

fn refused(name: &'static str, address: &str, says: &'static str, why: &'static str) -> Case {
    one(name, address, Expected::Refused(Some(2), says), why)
}

fn taken(name: &'static str, address: &str, stored: &'static str, why: &'static str) -> Case {
    one(name, address, Expected::Taken(vec![(stored, None, json!({}))]), why)
}

pub fn cases() -> Vec<Case> {
    vec![
        refused("a zero width space", "an\u{200b}na@example.org", "U+200B ZERO WIDTH SPACE", HIDDEN),
        refused("a second mark", "\u{feff}anna@example.org", "U+FEFF ZERO WIDTH NO-BREAK SPACE", HIDDEN),
        refused("a soft hyphen in the domain", "anna@exam\u{ad}ple.org", "U+00AD SOFT HYPHEN", HIDDEN),
        refused("a joiner", "anna\u{200d}@example.org", "U+200D ZERO WIDTH JOINER", HIDDEN),
        refused(
            "right to left",
            "anna\u{202e}gro.elpmaxe@example.org",
            "U+202E RIGHT-TO-LEFT OVERRIDE",
            "UAX 9: the address reads otherwise than it is sent",
        ),
        refused(
            "a directional mark",
            "anna@example.org\u{200e}",
            "U+200E LEFT-TO-RIGHT MARK",
            "UAX 9; copied out of contact lists of telephones",
        ),
        refused("an isolate", "\u{2068}anna@example.org\u{2069}", "U+2068 FIRST STRONG ISOLATE", "UAX 9"),
        refused("a typographic apostrophe", "o\u{2019}neil@example.org", "U+2019 RIGHT SINGLE QUOTATION MARK", QUOTE),
        refused("typographic quotes", "\u{201c}anna\u{201d}@example.org", "U+201C LEFT DOUBLE QUOTATION MARK", QUOTE),
        refused(
            "a replacement character",
            "m\u{fffd}ller@example.org",
            "U+FFFD REPLACEMENT CHARACTER",
            "the letter was lost in another character set",
        ),
        refused("a space within", "an na@example.org", "which no address may", "RFC 5321 4.1.2"),
        refused("two dots", "an..na@example.org", "dot stands", "RFC 5321 4.1.2 Dot-string"),
        refused(
            "a number for a domain",
            "anna@10.0.0.1",
            "ends in a number",
            "RFC 5321 4.1.3: a literal stands in brackets, and is not taken",
        ),
        taken("an apostrophe", "o'neil@example.org", "o'neil@example.org", "RFC 5322 3.2.3 atext"),
        taken("spaces around", "  anna@example.org ", "anna@example.org", "people copy them along"),
        taken("an international domain", "anna@m\u{fc}ller.example", "anna@xn--mller-kva.example", "RFC 5891"),
        taken(
            "composed and decomposed letters",
            "\u{e9}va@example.org\ne\u{301}va@example.org",
            "\u{e9}va@example.org",
            "RFC 6532 3.1: NFC; two spellings of one person",
        ),
    ]
    .into_iter()
    .map(|case| match case.name {
        // Both rows are read; they are one contact and get one mail.
        "composed and decomposed letters" => Case { doors: &[], ..case },
        _ => case,
    })
    .collect()
}
