//! What a template sees of one recipient and of the broadcast. Never copies what all messages share.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use minijinja::value::{Enumerator, Object, Value};

use super::error::{Part, Problem, TemplateError};
use super::values::{self, Data};
use crate::domain::content::SharedData;
use crate::domain::data_name::{Folded, fold};
use crate::domain::id::BroadcastId;
use crate::domain::recipient::Recipient;

/// Names that always mean the same, whatever the data say: a link to unsubscribe must be ours.
pub const RESERVED: [&str; 4] = ["broadcast", "email", "recipient", "unsubscribe_url"];

/// What all messages of one broadcast have in common; made once, shared by all contexts.
#[derive(Debug)]
pub struct Shared {
    broadcast: Value,
    defaults: Data,
    folded: Folded,
}

impl Shared {
    /// `data` are the broadcast's own data: the values a recipient falls back to.
    #[must_use]
    pub fn new(broadcast: &BroadcastId, data: &SharedData) -> Arc<Self> {
        // They were an object when they came in. Damaged ones are as missing ones: a message that needs them says what it lacks.
        let mut defaults = values::read(data.get()).unwrap_or_default();
        defaults.retain(|_, value| !value.is_none());
        let folded = Folded::of(defaults.keys().map(String::as_str));
        let broadcast = Value::from(BTreeMap::from([("id".to_owned(), Value::from(broadcast.as_str()))]));
        Arc::new(Self {
            broadcast,
            defaults,
            folded,
        })
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
/// Where no name is spelt exactly so, one that differs in nothing but case, `-`, `_` and spaces stands in, when there is just
/// one: `{{ first_name }}` is the column `First Name`. A recipient's own data go before the broadcast's, also in this.
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
            Some(raw) => values::read(raw.get()).map_err(|_| {
                let why = "the recipient's data are not a JSON object that can be read; give the recipient, or the contact, \
                           anew with its data";
                TemplateError::new(Part::Data, None, Problem::Other(why.into()))
            })?,
        };
        data.retain(|_, value| !value.is_none());
        Ok(Self(Value::from_object(Sight {
            shared: Arc::clone(shared),
            email: Value::from(recipient.email.as_str()),
            name: recipient.name.as_deref().map(Value::from),
            unsubscribe_url: Value::from(unsubscribe_url),
            data,
            folded: OnceLock::new(),
        })))
    }

    pub(super) fn value(&self) -> Value {
        self.0.clone()
    }

    /// The known name that is nearest to one that leads nowhere.
    pub(super) fn nearest(&self, name: &str) -> Option<String> {
        self.0.downcast_object_ref::<Sight>()?.nearest(name)
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
    /// Made when a name is first asked for that is not spelt so: a template may ask for very many.
    folded: OnceLock<Folded>,
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
            _ => self
                .data
                .get(key)
                .cloned()
                .or_else(|| self.own_spelt_otherwise(key))
                .or_else(|| self.shared.defaults.get(key).cloned())
                .or_else(|| self.shared.defaults.get(self.shared.folded.find(key)?).cloned()),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

impl Sight {
    /// What the recipient has under another spelling of the name.
    fn own_spelt_otherwise(&self, key: &str) -> Option<Value> {
        match fold(key).as_str() {
            "email" => return Some(self.email.clone()),
            "name" if self.name.is_some() => return self.name.clone(),
            _ => {}
        }
        let folded = self
            .folded
            .get_or_init(|| Folded::of(self.data.keys().map(String::as_str)));
        self.data.get(folded.find(key)?).cloned()
    }

    /// The known name that is nearest to one that leads nowhere, when it is near enough to be meant.
    fn nearest(&self, path: &str) -> Option<String> {
        let (first, rest) = match path.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        let names = self.data.keys().chain(self.shared.defaults.keys()).map(String::as_str);
        let inner = self.data.get(first).or_else(|| self.shared.defaults.get(first));
        if let (Some(rest), Some(inner)) = (rest, inner) {
            let members: Vec<String> = inner
                .try_iter()
                .ok()?
                .map(|name| name.to_string())
                .take(NAMES_COMPARED_MAX)
                .collect();
            return nearest(rest, members.iter().map(String::as_str)).map(|name| format!("{first}.{name}"));
        }
        nearest(first, names.chain(RESERVED).chain(["name"]).take(NAMES_COMPARED_MAX)).map(|name| match rest {
            Some(rest) => format!("{name}.{rest}"),
            None => name,
        })
    }

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

/// Most names that a wrong one is compared with; a newsletter's data have some ten.
const NAMES_COMPARED_MAX: usize = 200;
/// Longest name that is compared.
const NAME_COMPARED_CHARS_MAX: usize = 60;

/// The name that differs least: at most in a third of its letters.
fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    let wanted = fold(wanted);
    if wanted.chars().count() > NAME_COMPARED_CHARS_MAX {
        return None;
    }
    let far = (wanted.chars().count() / 3).max(1);
    names
        .filter(|name| name.chars().count() <= NAME_COMPARED_CHARS_MAX)
        .map(|name| (strsim::damerau_levenshtein(&wanted, &fold(name)), name))
        .filter(|(distance, _)| (1..=far).contains(distance))
        .min()
        .map(|(_, name)| name.to_owned())
}
