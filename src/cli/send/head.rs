//! What a broadcast says beside its recipients, from options and files. Checks only what it must to read them: the server
//! judges, and its words name the field.

use std::fs;

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::exit::Failed;
use crate::domain::content::SOURCE_BYTES_MAX;
use crate::domain::safety::{CanaryRule, CanarySize};

/// The options for sender and content.
#[derive(Debug, Args)]
#[command(next_help_heading = "Content")]
pub struct HeadArgs {
    /// The sender, as name@example.org or 'Name <name@example.org>'
    #[arg(long, value_name = "MAILBOX")]
    from: String,

    /// Where answers go, if not to the sender
    #[arg(long, value_name = "MAILBOX")]
    reply_to: Option<String>,

    /// A stored template; it has subject, HTML and text
    #[arg(long, value_name = "tpl_…", conflicts_with_all = ["subject", "html", "text"], required_unless_present_any = ["html", "text"])]
    template: Option<String>,

    /// The subject; {{ name }} and the data of the recipient may stand in it
    #[arg(long, value_name = "TEXT", required_unless_present = "template")]
    subject: Option<String>,

    /// A file with the HTML
    #[arg(long, value_name = "FILE")]
    html: Option<String>,

    /// A file with the plain text; made from the HTML when it is missing
    #[arg(long, value_name = "FILE")]
    text: Option<String>,

    /// A file with a JSON object: data for all recipients, of which their own wins
    #[arg(long, value_name = "FILE")]
    data: Option<String>,

    /// A word to find the broadcast by; may be given several times
    #[arg(long, value_name = "WORD")]
    tag: Vec<String>,

    /// The only relay it may go through; `hikyaku relay list` shows their names [default: any]
    #[arg(long, value_name = "NAME")]
    relay: Option<String>,

    /// When to start, such as 2026-10-01T08:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    send_at: Option<String>,

    /// When news has become old: what is not sent by then is not sent
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,

    /// Send to so many first, such as 50 or 5%, and hold the rest when too many of them fail
    #[arg(long, value_name = "N|N%")]
    canary: Option<String>,

    /// How many per cent of the canary may fail [default: 5]
    #[arg(long, value_name = "PERCENT", requires = "canary")]
    hold_above: Option<String>,
}

impl HeadArgs {
    /// The fields of the request, its recipients aside.
    ///
    /// # Errors
    /// When a file cannot be read, naming the option.
    pub fn read(&self, lists: &[String], all: bool) -> Result<Map<String, Value>, Failed> {
        let mut head = Map::new();
        let words = [
            ("from", Some(&self.from)),
            ("reply_to", self.reply_to.as_ref()),
            ("template_id", self.template.as_ref()),
            ("subject", self.subject.as_ref()),
            ("relay", self.relay.as_ref()),
            ("send_at", self.send_at.as_ref()),
            ("expires_at", self.expires_at.as_ref()),
        ];
        for (field, word) in words {
            if let Some(word) = word {
                head.insert(field.to_owned(), word.as_str().into());
            }
        }
        for (field, path) in [("html", &self.html), ("text", &self.text)] {
            if let Some(path) = path {
                head.insert(field.to_owned(), read_file(field, path)?.into());
            }
        }
        if let Some(path) = &self.data {
            let text = read_file("data", path)?;
            let data: Map<String, Value> = serde_json::from_str(&text)
                .map_err(|e| Failed::usage(format!("--data {path}: {e}; it must hold one JSON object")))?;
            head.insert("data".to_owned(), data.into());
        }
        if let Some(first) = &self.canary {
            let rule = CanaryRule::parse(first, self.hold_above.as_deref())
                .map_err(|why| Failed::usage(format!("--canary: {why}")))?;
            let mut canary = Map::new();
            match rule.first {
                CanarySize::Count(n) => canary.insert("first".to_owned(), n.into()),
                CanarySize::Percent(percent) => canary.insert("percent".to_owned(), percent.into()),
            };
            canary.insert("hold_above_percent".to_owned(), rule.hold_above_percent.into());
            head.insert("canary".to_owned(), canary.into());
        }
        if !self.tag.is_empty() {
            head.insert("tags".to_owned(), self.tag.clone().into());
        }
        if !lists.is_empty() {
            head.insert("list_ids".to_owned(), lists.to_vec().into());
        }
        if all {
            head.insert("all".to_owned(), true.into());
        }
        Ok(head)
    }
}

/// A file as text. One that the server would refuse for its size is not read at all: it may be anything.
fn read_file(option: &str, path: &str) -> Result<String, Failed> {
    let failed = |why: String| Failed::usage(format!("--{option} {path}: {why}"));
    let size = fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if size > SOURCE_BYTES_MAX as u64 {
        return Err(failed(format!("the file has {size} bytes; {SOURCE_BYTES_MAX} is the most")));
    }
    let bytes = fs::read(path).map_err(|e| failed(e.to_string()))?;
    String::from_utf8(bytes).map_err(|_| failed("the file is not UTF-8; save it as UTF-8".to_owned()))
}
