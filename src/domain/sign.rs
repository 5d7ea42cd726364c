//! Signs that look like nothing or like another sign: they have no place in an address. A refusal names the sign, because
//! it cannot be seen.

/// Signs by their code and their Unicode name. A range has one name for all.
const SIGNS: &[(u32, u32, &str)] = &[
    // Quotes as word processors set them.
    (0x00ab, 0x00ab, "LEFT-POINTING DOUBLE ANGLE QUOTATION MARK"),
    (0x00b4, 0x00b4, "ACUTE ACCENT"),
    (0x00bb, 0x00bb, "RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK"),
    (0x2018, 0x2018, "LEFT SINGLE QUOTATION MARK"),
    (0x2019, 0x2019, "RIGHT SINGLE QUOTATION MARK"),
    (0x201a, 0x201a, "SINGLE LOW-9 QUOTATION MARK"),
    (0x201b, 0x201b, "SINGLE HIGH-REVERSED-9 QUOTATION MARK"),
    (0x201c, 0x201c, "LEFT DOUBLE QUOTATION MARK"),
    (0x201d, 0x201d, "RIGHT DOUBLE QUOTATION MARK"),
    (0x201e, 0x201e, "DOUBLE LOW-9 QUOTATION MARK"),
    (0x201f, 0x201f, "DOUBLE HIGH-REVERSED-9 QUOTATION MARK"),
    (0x2032, 0x2032, "PRIME"),
    (0x2033, 0x2033, "DOUBLE PRIME"),
    (0x2039, 0x2039, "SINGLE LEFT-POINTING ANGLE QUOTATION MARK"),
    (0x203a, 0x203a, "SINGLE RIGHT-POINTING ANGLE QUOTATION MARK"),
    (0x275b, 0x275e, "HEAVY QUOTATION MARK ORNAMENT"),
    (0x301d, 0x301d, "REVERSED DOUBLE PRIME QUOTATION MARK"),
    (0x301e, 0x301e, "DOUBLE PRIME QUOTATION MARK"),
    (0x301f, 0x301f, "LOW DOUBLE PRIME QUOTATION MARK"),
    (0xff02, 0xff02, "FULLWIDTH QUOTATION MARK"),
    (0xff07, 0xff07, "FULLWIDTH APOSTROPHE"),
    // Signs that turn the direction of the text around them (Unicode Standard Annex 9).
    (0x061c, 0x061c, "ARABIC LETTER MARK"),
    (0x200e, 0x200e, "LEFT-TO-RIGHT MARK"),
    (0x200f, 0x200f, "RIGHT-TO-LEFT MARK"),
    (0x202a, 0x202a, "LEFT-TO-RIGHT EMBEDDING"),
    (0x202b, 0x202b, "RIGHT-TO-LEFT EMBEDDING"),
    (0x202c, 0x202c, "POP DIRECTIONAL FORMATTING"),
    (0x202d, 0x202d, "LEFT-TO-RIGHT OVERRIDE"),
    (0x202e, 0x202e, "RIGHT-TO-LEFT OVERRIDE"),
    (0x2066, 0x2066, "LEFT-TO-RIGHT ISOLATE"),
    (0x2067, 0x2067, "RIGHT-TO-LEFT ISOLATE"),
    (0x2068, 0x2068, "FIRST STRONG ISOLATE"),
    (0x2069, 0x2069, "POP DIRECTIONAL ISOLATE"),
    // Signs that cannot be seen (Default_Ignorable_Code_Point of the Unicode Standard 5.21).
    (0x00ad, 0x00ad, "SOFT HYPHEN"),
    (0x034f, 0x034f, "COMBINING GRAPHEME JOINER"),
    (0x115f, 0x115f, "HANGUL CHOSEONG FILLER"),
    (0x1160, 0x1160, "HANGUL JUNGSEONG FILLER"),
    (0x17b4, 0x17b5, "KHMER INHERENT VOWEL"),
    (0x180b, 0x180d, "MONGOLIAN FREE VARIATION SELECTOR"),
    (0x180e, 0x180e, "MONGOLIAN VOWEL SEPARATOR"),
    (0x180f, 0x180f, "MONGOLIAN FREE VARIATION SELECTOR FOUR"),
    (0x200b, 0x200b, "ZERO WIDTH SPACE"),
    (0x200c, 0x200c, "ZERO WIDTH NON-JOINER"),
    (0x200d, 0x200d, "ZERO WIDTH JOINER"),
    (0x2060, 0x2060, "WORD JOINER"),
    (0x2061, 0x2064, "INVISIBLE OPERATOR"),
    (0x2065, 0x2065, "UNASSIGNED INVISIBLE SIGN"),
    (0x206a, 0x206f, "DEPRECATED FORMATTING SIGN"),
    (0x3164, 0x3164, "HANGUL FILLER"),
    (0xfe00, 0xfe0f, "VARIATION SELECTOR"),
    (0xfeff, 0xfeff, "ZERO WIDTH NO-BREAK SPACE (BYTE ORDER MARK)"),
    (0xffa0, 0xffa0, "HALFWIDTH HANGUL FILLER"),
    (0xfff0, 0xfff8, "UNASSIGNED INVISIBLE SIGN"),
    (0xfff9, 0xfffb, "INTERLINEAR ANNOTATION SIGN"),
    (0xfffc, 0xfffc, "OBJECT REPLACEMENT CHARACTER"),
    // What is left of a letter that was read in the wrong character set.
    (0xfffd, 0xfffd, "REPLACEMENT CHARACTER"),
    (0x1bca0, 0x1bca3, "SHORTHAND FORMAT SIGN"),
    (0x1d173, 0x1d17a, "MUSICAL SYMBOL FORMAT SIGN"),
    (0xe0000, 0xe007f, "TAG CHARACTER"),
    (0xe0100, 0xe01ef, "VARIATION SELECTOR"),
    (0xe0080, 0xe0fff, "UNASSIGNED INVISIBLE SIGN"),
];

/// The first sign of a text that cannot be seen or is a typographic quote, with its code and name, such as
/// `U+200B ZERO WIDTH SPACE`.
#[must_use]
pub fn hidden_sign(text: &str) -> Option<String> {
    // Nearly every address is ASCII, which has none of them.
    if text.is_ascii() {
        return None;
    }
    text.chars().find_map(|c| {
        let code = u32::from(c);
        let (.., name) = SIGNS.iter().find(|(from, to, _)| (*from..=*to).contains(&code))?;
        Some(format!("U+{code:04X} {name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_told_by_code_and_name() {
        assert_eq!(hidden_sign("a\u{200b}b").as_deref(), Some("U+200B ZERO WIDTH SPACE"));
        assert_eq!(hidden_sign("o\u{2019}neil").as_deref(), Some("U+2019 RIGHT SINGLE QUOTATION MARK"));
        assert_eq!(hidden_sign("\u{e0041}").as_deref(), Some("U+E0041 TAG CHARACTER"));
        assert_eq!(hidden_sign("änna.o'neil-飛脚-\u{e9}-اسم"), None);
    }
}
