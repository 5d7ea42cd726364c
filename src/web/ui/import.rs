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
use crate::pipeline::accept::{AcceptError, Acceptor, Column, FieldProblem, Format, TableOptions};
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
    /// Columns that templates say in another way than the table.
    renamed: Vec<Column>,
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
    let acceptor = Acceptor::new(Arc::clone(&state.store), Arc::clone(&state.clock), FORM_BYTES_MAX as u64);
    let body = Cursor::new(form.raw("csv").to_owned().into_bytes());
    let table = TableOptions {
        charset: None,
        may_be_headless: true,
    };
    let done = match acceptor
        .import_contacts(Format::Csv, false, table, list.as_ref(), body)
        .await
    {
        Ok(imported) => Done {
            read: imported.received - imported.rejected,
            new: imported.created,
            rejected: imported.rejected,
            problems: imported.rejections.iter().flat_map(|r| in_words(&r.problems)).collect(),
            renamed: imported.columns.into_iter().filter(|c| c.name != c.variable).collect(),
        },
        Err(AcceptError::Invalid { problems, total }) => Done {
            read: 0,
            new: 0,
            rejected: total,
            problems: in_words(&problems),
            renamed: Vec::new(),
        },
        // Rows before the place are in when there are very many; reading them once more does no harm.
        Err(AcceptError::Malformed(problem)) => Done {
            read: 0,
            new: 0,
            rejected: 0,
            problems: in_words(&[problem]),
            renamed: Vec::new(),
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

/// What is wrong, with the line.
fn in_words(problems: &[FieldProblem]) -> Vec<String> {
    problems
        .iter()
        .map(|p| match p.line {
            Some(line) => format!("Line {line}: {}.", p.detail),
            None => format!("{}.", p.detail),
        })
        .collect()
}
