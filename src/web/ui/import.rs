//! Contacts out of a pasted CSV text. Lines that cannot be read are named and left out; the rest goes in.
//! Never takes a file of any size: for that there is the API, which streams.

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
use super::{contacts, format};
use crate::domain::address::EmailAddress;
use crate::domain::contact::List;
use crate::domain::recipient::{DATA_BYTES_MAX, Recipient};
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Most bytes of the form: about 200,000 lines, and a request that is held in memory once.
pub const FORM_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Contacts stored in one transaction.
const BATCH: usize = 1_000;
/// Bad lines named on the page; beyond it the file itself is wrong, not its lines.
const PROBLEMS_MAX: usize = 20;

#[derive(Template, WebTemplate)]
#[template(path = "import.html")]
struct ImportPage {
    chrome: Chrome,
    lists: Vec<List>,
    chosen: String,
    csv: String,
    done: Option<Done>,
}

/// What became of an import.
struct Done {
    read: i64,
    new: i64,
    rejected: i64,
    problems: Vec<String>,
}

/// The lines of a text as contacts, and what is wrong with the others.
#[derive(Debug, Default)]
struct Parsed {
    contacts: Vec<Recipient>,
    rejected: i64,
    problems: Vec<String>,
}

pub async fn show(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<Response, UiError> {
    let lists = state.store.lists().await?;
    let chrome = Chrome::new(&signed, Section::Contacts);
    let chosen = query.text("list").to_owned();
    Ok(ImportPage {
        chrome,
        lists,
        chosen,
        csv: String::new(),
        done: None,
    }
    .into_response())
}

pub async fn submit(
    signed: SignedIn,
    State(state): State<WebState>,
    Form(form): Form<Fields>,
) -> Result<Response, UiError> {
    let list = match form.filled("list") {
        Some(id) => Some(contacts::read_list(&state, id).await?.id),
        None => None,
    };
    let parsed = parse(form.raw("csv"));
    let now = state.clock.now();
    let mut new = 0;
    for batch in parsed.contacts.chunks(BATCH) {
        new += state.store.put_contacts(batch, list.as_ref(), now).await?;
    }
    let code = if parsed.contacts.is_empty() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let page = ImportPage {
        chrome: Chrome::new(&signed, Section::Contacts),
        lists: state.store.lists().await?,
        chosen: form.text("list").to_owned(),
        // What could not be read is there to be mended.
        csv: if parsed.contacts.is_empty() {
            form.raw("csv").to_owned()
        } else {
            String::new()
        },
        done: Some(Done {
            read: parsed.contacts.len() as i64,
            new: new as i64,
            rejected: parsed.rejected,
            problems: parsed.problems,
        }),
    };
    Ok((code, page).into_response())
}

/// Reads `email,name,…` with a head line, or without one when the first line begins with an address.
/// Every column beside `email` and `name` becomes data.
fn parse(text: &str) -> Parsed {
    let text = text.trim_start_matches('\u{feff}');
    let mut parsed = Parsed::default();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut head: Option<Vec<String>> = None;
    for record in reader.records() {
        let read = record.map_err(|e| e.to_string()).and_then(|r| match &head {
            Some(head) => read_line(head, &r).map(Some),
            None => {
                let (named, is_line) = head_of(&r)?;
                let first = if is_line { Some(read_line(&named, &r)?) } else { None };
                head = Some(named);
                Ok(first)
            }
        });
        match read {
            Ok(contact) => parsed.contacts.extend(contact),
            Err(why) => parsed.reject(&why),
        }
        if head.is_none() {
            return parsed;
        }
    }
    parsed
}

impl Parsed {
    fn reject(&mut self, why: &str) {
        self.rejected += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(why.to_owned());
        }
    }
}

/// The columns' names, and whether the first line is a contact already.
fn head_of(first: &csv::StringRecord) -> Result<(Vec<String>, bool), String> {
    if first.get(0).is_some_and(|f| f.contains('@')) {
        return Ok((vec!["email".to_owned(), "name".to_owned()], true));
    }
    let names: Vec<String> = first.iter().map(str::to_lowercase).collect();
    if names.iter().any(|n| n == "email") {
        return Ok((names, false));
    }
    Err("The first line names no column `email`; write `email,name` above the contacts.".to_owned())
}

fn read_line(head: &[String], line: &csv::StringRecord) -> Result<Recipient, String> {
    let at = |why: String| format!("Line {}: {why}.", line.position().map_or(0, csv::Position::line));
    let mut data = serde_json::Map::new();
    let (mut email, mut name) = (None, None);
    for (column, value) in head.iter().zip(line) {
        match column.as_str() {
            "email" => email = Some(EmailAddress::parse(value).map_err(at)?),
            "name" => name = Recipient::parse_name(value).map_err(at)?,
            _ if value.is_empty() => {}
            _ => drop(data.insert(column.clone(), value.into())),
        }
    }
    let email = email.ok_or_else(|| at("there is no address".to_owned()))?;
    let data = match data.is_empty() {
        true => None,
        false => Some(serde_json::value::to_raw_value(&data).map_err(|e| at(e.to_string()))?),
    };
    if data.as_ref().is_some_and(|d| d.get().len() > DATA_BYTES_MAX) {
        return Err(at(format!("the data are longer than {DATA_BYTES_MAX} bytes")));
    }
    Ok(Recipient { email, name, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_beside_email_and_name_become_data() {
        let parsed = parse("\u{feff}Email,Name,City\nanna@example.org,\"Anna, A\",Köln\nbob@example.org,,\n");
        assert!(parsed.problems.is_empty(), "{parsed:?}");
        let anna = &parsed.contacts[0];
        assert_eq!(anna.name.as_deref(), Some("Anna, A"));
        assert_eq!(anna.data.as_ref().unwrap().get(), r#"{"city":"Köln"}"#);
        assert!(parsed.contacts[1].data.is_none());
    }

    #[test]
    fn addresses_alone_need_no_head() {
        let parsed = parse("anna@example.org\nbob@example.org,Bob\n");
        assert_eq!(parsed.contacts.len(), 2);
        assert_eq!(parsed.contacts[1].name.as_deref(), Some("Bob"));
    }

    #[test]
    fn a_bad_line_is_named_and_the_rest_goes_in() {
        let parsed = parse("email\nanna@example.org\nnobody\nbob@example.org");
        assert_eq!((parsed.contacts.len(), parsed.rejected), (2, 1));
        assert!(parsed.problems[0].starts_with("Line 3: no @"), "{:?}", parsed.problems);
        let parsed = parse("address\nanna@example.org");
        assert_eq!((parsed.contacts.len(), parsed.rejected), (0, 1));
        assert!(parse("").contacts.is_empty());
    }
}
