//! What a template sees of one recipient and of the broadcast. Never copies what all messages share.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value};

use super::error::{Part, Problem, TemplateError};
use crate::domain::id::BroadcastId;
use crate::domain::recipient::Recipient;

/// Names that always mean the same, whatever the data say: a link to unsubscribe must be ours.
pub const RESERVED: [&str; 4] = ["broadcast", "email", "recipient", "unsubscribe_url"];

type Data = BTreeMap<String, Value>;

/// What all messages of one broadcast have in common; made once, shared by all contexts.
#[derive(Debug)]
pub struct Shared {
    broadcast: Value,
    defaults: Data,
}

impl Shared {
    /// `data` are the broadcast's own data: the values a recipient falls back to.
    #[must_use]
    pub fn new(broadcast: &BroadcastId, data: &serde_json::Map<String, serde_json::Value>) -> Arc<Self> {
        let defaults = data
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), Value::from(minijinja::value::Serde(v))))
            .collect();
        let broadcast = Value::from(BTreeMap::from([("id".to_owned(), Value::from(broadcast.as_str()))]));
        Arc::new(Self { broadcast, defaults })
    }
}

/// What a template sees:
///
/// | name | value |
/// |---|---|
/// | `email` | the recipient's address |
/// | `name` | the recipient's display name; if there is none, `name` of the data |
/// | `recipient` | `recipient.email`, `recipient.name`, `recipient.data` |
/// | `unsubscribe_url` | the recipient's own link to unsubscribe |
/// | `broadcast` | `broadcast.id` |
/// | anything else | the recipient's data, then the broadcast's data |
///
/// Null is the same as not given: the next in the row stands in. What nobody gives is an error that
/// names the variable, unless the template has a `|default(…)` for it.
#[derive(Debug, Clone)]
pub struct Context(Value);

impl Context {
    /// Reads the recipient's data straight into the engine's values.
    ///
    /// # Errors
    /// The data are not a JSON object.
    pub fn new(shared: &Arc<Shared>, recipient: &Recipient, unsubscribe_url: &str) -> Result<Self, TemplateError> {
        let mut data: Data = match &recipient.data {
            None => Data::new(),
            Some(raw) => serde_json::from_str(raw.get()).map_err(|_| {
                TemplateError::new(
                    Part::Data,
                    None,
                    Problem::Other("the recipient's data are not a JSON object".into()),
                )
            })?,
        };
        data.retain(|_, value| !value.is_none());
        Ok(Self(Value::from_object(Sight {
            shared: Arc::clone(shared),
            email: Value::from(recipient.email.as_str()),
            name: recipient.name.as_deref().map(Value::from),
            unsubscribe_url: Value::from(unsubscribe_url),
            data,
        })))
    }

    pub(super) fn value(&self) -> Value {
        self.0.clone()
    }
}

/// The names of one context, looked up as the template asks for them.
#[derive(Debug)]
struct Sight {
    shared: Arc<Shared>,
    email: Value,
    name: Option<Value>,
    unsubscribe_url: Value,
    data: Data,
}

impl Object for Sight {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "email" => Some(self.email.clone()),
            "unsubscribe_url" => Some(self.unsubscribe_url.clone()),
            "broadcast" => Some(self.shared.broadcast.clone()),
            "recipient" => Some(self.recipient()),
            "name" if self.name.is_some() => self.name.clone(),
            _ => self.data.get(key).or_else(|| self.shared.defaults.get(key)).cloned(),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

impl Sight {
    fn recipient(&self) -> Value {
        let mut members = Data::from([
            ("email".to_owned(), self.email.clone()),
            ("data".to_owned(), Value::from(self.data.clone())),
        ]);
        if let Some(name) = &self.name {
            members.insert("name".to_owned(), name.clone());
        }
        Value::from(members)
    }
}
