//! The starter mails that come with the program: sources to copy and change. Never used by themselves.

use crate::domain::content::Content;

/// One starter mail and data that fill it for a preview.
#[derive(Debug, Clone, Copy)]
pub struct Starter {
    pub name: &'static str,
    /// What it is good for, in a line.
    pub about: &'static str,
    subject: &'static str,
    html: &'static str,
    text: &'static str,
    sample: &'static str,
}

macro_rules! starter {
    ($name:literal, $about:literal) => {
        Starter {
            name: $name,
            about: $about,
            subject: include_str!(concat!("../../templates/newsletters/", $name, "/subject.txt")),
            html: include_str!(concat!("../../templates/newsletters/", $name, "/body.html")),
            text: include_str!(concat!("../../templates/newsletters/", $name, "/body.txt")),
            sample: include_str!(concat!("../../templates/newsletters/", $name, "/sample.json")),
        }
    };
}

pub const STARTERS: [Starter; 3] = [
    starter!("plain", "A letter: a greeting, a few paragraphs, a signature"),
    starter!("announcement", "One piece of news with a headline and a button"),
    starter!("digest", "Several articles, each with a title, a summary and a link"),
];

impl Starter {
    #[must_use]
    pub fn content(&self) -> Content {
        Content {
            subject: self.subject.trim_end().to_owned(),
            html: Some(self.html.to_owned()),
            text: Some(self.text.to_owned()),
        }
    }

    /// Data for every variable that the starter uses.
    #[must_use]
    pub fn sample_data(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(self.sample).expect("the samples are tested to be JSON objects")
    }
}
