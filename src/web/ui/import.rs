//! Contacts out of a pasted CSV text. Lines that cannot be read are named and left out; the rest goes in.
//! Never takes a file of any size: for that there is the API, which streams.

use std::io::Cursor;
use std::sync::Arc;

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
use super::{contacts, format};
use crate::domain::contact::List;
use crate::pipeline::accept::{
    AcceptError, Acceptor, Column, FieldProblem, Format, Table, TableFault, TableOptions, VALUE_BYTES_MAX,
};
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Most bytes of the text: about 400,000 lines, and held in memory once.
pub const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most bytes of the form that carries it: a browser writes each `@`, comma and end of line with three.
pub const FORM_BYTES_MAX: usize = 3 * TEXT_BYTES_MAX + 64 * 1024;
/// A text up to here is shown again when it could not be read; a longer one is still in the browser's form, one step back.
const SHOWN_AGAIN_MAX: usize = 1024 * 1024;

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

impl Done {
    /// Nothing was stored.
    fn nothing(rejected: i64, problems: Vec<String>) -> Self {
        Self {
            read: 0,
            new: 0,
            rejected,
            problems,
            renamed: Vec::new(),
        }
    }
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
    form: Result<Form<Fields>, FormRejection>,
) -> Result<Response, UiError> {
    let form = match form {
        Ok(Form(form)) if form.raw("csv").len() <= TEXT_BYTES_MAX => form,
        Ok(_) => return too_long(&signed, &state).await,
        Err(e) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => return too_long(&signed, &state).await,
        Err(_) => return Err(UiError::Unreadable),
    };
    let list = match form.filled("list") {
        Some(id) => match contacts::find_list(&state, id).await? {
            Some(list) => Some(list.id),
            None => {
                let gone = "The list is deleted. Choose another one.".to_owned();
                return page_of(&signed, &state, &form, Done::nothing(0, vec![gone])).await;
            }
        },
        None => None,
    };
    let acceptor = Acceptor::new(Arc::clone(&state.store), Arc::clone(&state.clock), TEXT_BYTES_MAX as u64);
    let body = Cursor::new(form.raw("csv").to_owned().into_bytes());
    let table = TableOptions {
        charset: None,
        may_be_headless: true,
    };
    if let Err(problem) = look_through(form.raw("csv").as_bytes(), table) {
        return page_of(&signed, &state, &form, Done::nothing(0, vec![problem])).await;
    }
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
        Err(AcceptError::Invalid { problems, total }) => Done::nothing(total, in_words(&problems)),
        Err(AcceptError::Store(e)) => return Err(e.into()),
        Err(e) => Done::nothing(0, vec![format!("The text was not imported to its end: {e}.")]),
    };
    page_of(&signed, &state, &form, done).await
}

/// More than the page takes. It was not read, so it cannot be shown again.
async fn too_long(signed: &SignedIn, state: &WebState) -> Result<Response, UiError> {
    let why = format!(
        "The text is longer than {} MB. Nothing was imported. Go back, where it still is, and give a part of it at a time; or put the \
         whole file through the API, which takes any length.",
        TEXT_BYTES_MAX / 1024 / 1024
    );
    let mut page = page_of(signed, state, &Fields::default(), Done::nothing(0, vec![why])).await?;
    *page.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    Ok(page)
}

async fn page_of(signed: &SignedIn, state: &WebState, form: &Fields, done: Done) -> Result<Response, UiError> {
    let is_useless = done.read == 0;
    let page = ImportPage {
        chrome: Chrome::new(signed, Section::Contacts),
        lists: state.store.lists().await?,
        chosen: form.text("list").to_owned(),
        // What could not be read is there to be mended.
        csv: if is_useless && form.raw("csv").len() <= SHOWN_AGAIN_MAX {
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

/// Reads the whole text once before anything is stored: of what is no table nothing goes in, however long it is.
fn look_through(text: &[u8], options: TableOptions) -> Result<(), String> {
    let in_line = |line: Option<u64>, why: String| match line {
        Some(line) => format!("Line {line}: {why}."),
        None => format!("{why}."),
    };
    let mut table = match Table::open(text, options) {
        Ok(table) => table,
        Err(TableFault::Row(fault)) => return Err(in_line(fault.line(), fault.in_words())),
        // Empty, or without an address: the import says so, and stores nothing.
        Err(_) => return Ok(()),
    };
    loop {
        match table.advance() {
            Ok(false) => return Ok(()),
            Ok(true) if table.row.bytes() as u64 > VALUE_BYTES_MAX => {
                let why = format!("the row is longer than {VALUE_BYTES_MAX} bytes; a closing quote may be missing");
                return Err(in_line(Some(table.row.line()), why));
            }
            Ok(true) => {}
            Err(fault) => return Err(in_line(fault.line(), fault.in_words())),
        }
    }
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
