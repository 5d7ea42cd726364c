//! One recipient of one broadcast: address, name, data. Never knows which template will use the data.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::address::{EmailAddress, SortKey};

/// Longest display name in characters; RFC 5322 2.1.1 allows 998 bytes a line, people need far less.
pub const NAME_CHARS_MAX: usize = 200;
/// Most bytes of `data` of one recipient: a chunk of 1,000 then stays under 16 MiB.
pub const DATA_BYTES_MAX: usize = 16 * 1024;

/// Address + name + data, as given for one broadcast.
#[derive(Debug, Clone)]
pub struct Recipient {
    pub email: EmailAddress,
    pub name: Option<Box<str>>,
    /// A JSON object, kept as text: it is read only when the message is composed.
    pub data: Option<Box<RawValue>>,
}

impl Recipient {
    #[must_use]
    pub fn sort_key(&self) -> SortKey {
        self.email.sort_key()
    }

    /// Checks a display name and drops the white space around it; an empty one is no name.
    ///
    /// # Errors
    /// A sentence for the person who gave the name.
    pub fn parse_name(text: &str) -> Result<Option<Box<str>>, String> {
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err("the name holds a control character such as a line break".into());
        }
        if text.chars().count() > NAME_CHARS_MAX {
            return Err(format!("the name is longer than {NAME_CHARS_MAX} characters"));
        }
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

/// A recipient as it is stored in a chunk or an intake page: short field names, since there is one
/// for every message.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    e: std::borrow::Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    n: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    d: Option<&'a RawValue>,
}

/// Writes recipients as the payload of a chunk or page: a JSON array.
#[must_use]
pub fn encode(recipients: &[Recipient]) -> Vec<u8> {
    let rows: Vec<Stored> = recipients
        .iter()
        .map(|r| Stored {
            e: r.email.as_str().into(),
            n: r.name.as_deref().map(Into::into),
            d: r.data.as_deref(),
        })
        .collect();
    serde_json::to_vec(&rows).expect("strings and raw JSON always serialise")
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// The parser's words when the payload is damaged.
pub fn decode(payload: &[u8]) -> Result<Vec<Recipient>, serde_json::Error> {
    let rows: Vec<Stored> = serde_json::from_slice(payload)?;
    Ok(rows
        .into_iter()
        .map(|r| Recipient {
            email: EmailAddress::from_stored(r.e.into_owned()),
            name: r.n.map(|n| n.into_owned().into_boxed_str()),
            data: r.d.map(ToOwned::to_owned),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_read_back_as_they_were_written() {
        let given = vec![
            Recipient {
                email: EmailAddress::parse("anna@example.org").unwrap(),
                name: Some("Anna \"A\" Ünal".into()),
                data: Some(RawValue::from_string(r#"{"n":1,"s":"a\nb"}"#.into()).unwrap()),
            },
            Recipient {
                email: EmailAddress::parse("bob@example.org").unwrap(),
                name: None,
                data: None,
            },
        ];
        let back = decode(&encode(&given)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{given:?}"));
    }

    #[test]
    fn a_name_with_a_line_break_is_refused() {
        assert!(Recipient::parse_name("Anna\r\nBcc: x@example.org").is_err());
        assert_eq!(Recipient::parse_name("  "), Ok(None));
    }
}
