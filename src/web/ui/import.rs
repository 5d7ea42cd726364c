//! Contacts out of a pasted CSV text. Lines that cannot be read are named and left out; the rest goes in.
//! Never takes a file of any size: for that there is the API, which streams.

use std::io::Cursor;
use std::sync::Arc;

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
use crate::domain::contact::List;
use crate::pipeline::accept::{AcceptError, Acceptor, FieldProblem, Format};
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Most bytes of the form: about 200,000 lines, and a request that is held in memory once.
pub const FORM_BYTES_MAX: usize = 16 * 1024 * 1024;
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
    let (text, is_without_head) = with_head(form.raw("csv"));
    let acceptor = Acceptor::new(Arc::clone(&state.store), Arc::clone(&state.clock), FORM_BYTES_MAX as u64);
    let body = Cursor::new(text.into_bytes());
    let done = match acceptor.import_contacts(Format::Csv, false, list.as_ref(), body).await {
        Ok(imported) => Done {
            read: imported.received - imported.rejected,
            new: imported.created,
            rejected: imported.rejected,
            problems: imported
                .rejections
                .iter()
                .flat_map(|r| in_words(&r.problems, is_without_head))
                .collect(),
        },
        Err(AcceptError::Invalid { problems, total }) => Done {
            read: 0,
            new: 0,
            rejected: total,
            problems: in_words(&problems, is_without_head),
        },
        Err(AcceptError::Store(e)) => return Err(e.into()),
        Err(e) => return Err(UiError::Refused(format!("The text was not imported to its end: {e}."))),
    };
    let is_useless = done.read == 0;
    let page = ImportPage {
        chrome: Chrome::new(&signed, Section::Contacts),
        lists: state.store.lists().await?,
        chosen: form.text("list").to_owned(),
        // What could not be read is there to be mended.
        csv: if is_useless {
            form.raw("csv").to_owned()
        } else {
            String::new()
        },
        done: Some(done),
    };
    let code = if is_useless {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    Ok((code, page).into_response())
}

/// The text with a head line, and whether it had none: then its first line begins with an address.
fn with_head(text: &str) -> (String, bool) {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let first = text.split([',', ';', '\t', '\n']).next().unwrap_or_default();
    match first.contains('@') {
        true => (format!("email,name\n{text}"), true),
        false => (text.to_owned(), false),
    }
}

/// What is wrong, with the line as it was typed.
fn in_words(problems: &[FieldProblem], is_without_head: bool) -> Vec<String> {
    let line = |p: &FieldProblem| Some(p.line?.saturating_sub(u64::from(is_without_head)));
    problems
        .iter()
        .map(|p| match line(p) {
            Some(line) => format!("Line {line}: {}.", p.detail),
            None => format!("{}.", p.detail),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_alone_need_no_head() {
        assert_eq!(with_head("anna@example.org\n"), ("email,name\nanna@example.org\n".to_owned(), true));
        let table = "email,city\nanna@example.org,Ulm";
        assert_eq!(with_head(&format!("\u{feff}{table}")), (table.to_owned(), false));
    }

    #[test]
    fn lines_count_as_they_were_typed() {
        let problem = FieldProblem::new("#/contacts/1/email", "invalid_address", "no @ in 'x'").on_line(Some(3));
        assert_eq!(in_words(std::slice::from_ref(&problem), true), ["Line 2: no @ in 'x'."]);
        assert_eq!(in_words(&[problem], false), ["Line 3: no @ in 'x'."]);
    }
}
