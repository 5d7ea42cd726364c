//! Names of data: when two spellings of a column and of a variable mean the same. Never changes what is stored.

use std::collections::BTreeMap;

/// The form in which two spellings of a name are equal: without regard to case, and to `-`, `_` and spaces.
/// `First Name`, `first_name` and `FIRST-NAME` are one.
#[must_use]
pub fn fold(name: &str) -> String {
    let is_gap = |c: char| c == '-' || c == '_' || c == '\u{2010}' || c == '\u{2011}' || c.is_whitespace();
    name.chars()
        .filter(|c| !is_gap(*c))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Names by their folded form; one that two names share leads nowhere.
#[derive(Debug, Default)]
pub struct Folded(BTreeMap<String, Option<String>>);

impl Folded {
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: BTreeMap<String, Option<String>> = BTreeMap::new();
        for name in names {
            all.entry(fold(name))
                .and_modify(|found| *found = None)
                .or_insert_with(|| Some(name.to_owned()));
        }
        Self(all)
    }

    /// The one name that `wanted` is a spelling of.
    #[must_use]
    pub fn find(&self, wanted: &str) -> Option<&str> {
        self.0.get(&fold(wanted))?.as_deref()
    }
}

/// Whether a template can say the name as it stands.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_equal() {
        for name in [
            "First Name",
            "first_name",
            "FIRST-NAME",
            "firstName",
            " first\u{a0}name ",
        ] {
            assert_eq!(fold(name), "firstname");
        }
        assert_ne!(fold("first.name"), fold("first name"));
    }

    #[test]
    fn what_two_names_share_leads_nowhere() {
        let folded = Folded::of(["First Name", "City", "zip code", "zip_code"]);
        assert_eq!(folded.find("first_name"), Some("First Name"));
        assert_eq!(folded.find("CITY"), Some("City"));
        assert_eq!(folded.find("zipcode"), None);
        assert_eq!(folded.find("street"), None);
    }
}
