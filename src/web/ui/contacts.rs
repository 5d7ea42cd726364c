//! The stored audience: contacts one by one, and the lists they are on. Never decides who gets a
//! broadcast: that is read when it fans out.

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::{Fields, Problems};
use super::format;
use super::templates::NAME_CHARS_MAX;
use crate::domain::address::EmailAddress;
use crate::domain::contact::{Contact, List};
use crate::domain::id::ListId;
use crate::domain::recipient::Recipient;
use crate::store::reports::Slice;
use crate::web::WebState;
use crate::web::session::SignedIn;

/// Rows on a page.
const PAGE_SIZE: i64 = 50;

#[derive(Template, WebTemplate)]
#[template(path = "contacts.html")]
pub(super) struct ContactsPage {
    chrome: Chrome,
    lists: Vec<List>,
    subscribed: i64,
    /// The list whose members are shown.
    shown: Option<List>,
    contacts: Slice<Contact>,
    is_first_page: bool,
    /// What was typed, and what is wrong with it: under `email`, `name` or `list-name`.
    typed: Fields,
    problems: Problems,
}

pub async fn list(
    signed: SignedIn,
    State(state): State<WebState>,
    Query(query): Query<Fields>,
) -> Result<ContactsPage, UiError> {
    let shown = match query.filled("list") {
        Some(id) => Some(read_list(&state, id).await?),
        None => None,
    };
    let chrome = Chrome::new(&signed, Section::Contacts).noting(query.text("note"));
    page(&state, chrome, shown, query.filled("after"), Fields::default(), Problems::default()).await
}

async fn page(
    state: &WebState,
    chrome: Chrome,
    shown: Option<List>,
    after: Option<&str>,
    typed: Fields,
    problems: Problems,
) -> Result<ContactsPage, UiError> {
    let contacts = state
        .store
        .contacts(shown.as_ref().map(|l| &l.id), after, PAGE_SIZE)
        .await?;
    Ok(ContactsPage {
        chrome,
        lists: state.store.lists().await?,
        subscribed: state.store.count_subscribed(None).await?,
        shown,
        contacts,
        is_first_page: after.is_none(),
        typed,
        problems,
    })
}

/// Adds one contact, to a list if one is chosen. What cannot be read stays in its field, with a word on it.
pub async fn add(
    signed: SignedIn,
    State(state): State<WebState>,
    Form(typed): Form<Fields>,
) -> Result<Response, UiError> {
    let mut problems = Problems::default();
    let refused = |why: String| format!("The contact was not added: {why}.");
    let email = problems.take("email", EmailAddress::parse(typed.text("email")).map_err(refused));
    let name = problems.take("name", Recipient::parse_name(typed.text("name")).map_err(refused));
    let list = match typed.filled("list") {
        Some(id) => find_list(&state, id).await?,
        None => None,
    };
    if list.is_none() && typed.filled("list").is_some() {
        problems.add("email", "The contact was not added: the list is deleted.");
    }
    let (Some(email), Some(name), true) = (email, name, problems.is_empty()) else {
        return refused_page(&signed, &state, list, typed, problems).await;
    };
    let contact = Recipient {
        email,
        name,
        data: None,
    };
    let list = list.map(|list| list.id);
    state
        .store
        .put_contacts(&[contact], list.as_ref(), state.clock.now())
        .await?;
    Ok(Redirect::to(&back_to(list.as_ref(), "added")).into_response())
}

/// The page again, with what was typed.
async fn refused_page(
    signed: &SignedIn,
    state: &WebState,
    shown: Option<List>,
    typed: Fields,
    problems: Problems,
) -> Result<Response, UiError> {
    let chrome = Chrome::new(signed, Section::Contacts);
    let page = page(state, chrome, shown, None, typed, problems).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

pub async fn delete(_: SignedIn, State(state): State<WebState>, Form(form): Form<Fields>) -> Result<Redirect, UiError> {
    let email = form.text("email").to_lowercase();
    if !state.store.delete_contact(&email).await? {
        return Err(UiError::NotFound);
    }
    let list: Option<ListId> = form.text("list").parse().ok();
    Ok(Redirect::to(&back_to(list.as_ref(), "deleted")))
}

pub async fn create_list(
    signed: SignedIn,
    State(state): State<WebState>,
    Form(typed): Form<Fields>,
) -> Result<Response, UiError> {
    let name = typed.text("list-name");
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        let mut problems = Problems::default();
        problems.add("list-name", format!("A list needs a name of {NAME_CHARS_MAX} characters at most."));
        return refused_page(&signed, &state, None, typed, problems).await;
    }
    let now = state.clock.now();
    let id = ListId::new(now, fastrand::u128(..));
    state.store.create_list(&id, name, now).await?;
    Ok(Redirect::to(&back_to(Some(&id), "created")).into_response())
}

/// The contacts stay; only the list goes.
pub async fn delete_list(
    _: SignedIn,
    State(state): State<WebState>,
    Path(id): Path<String>,
) -> Result<Redirect, UiError> {
    let list = read_list(&state, &id).await?;
    state.store.delete_list(&list.id).await?;
    Ok(Redirect::to(&back_to(None, "deleted")))
}

pub(super) async fn read_list(state: &WebState, id: &str) -> Result<List, UiError> {
    find_list(state, id).await?.ok_or(UiError::NotFound)
}

/// The list of this id, if there is one.
pub(super) async fn find_list(state: &WebState, id: &str) -> Result<Option<List>, UiError> {
    match id.parse::<ListId>() {
        Ok(id) => Ok(state.store.list(&id).await?),
        Err(_) => Ok(None),
    }
}

fn back_to(list: Option<&ListId>, note: &str) -> String {
    match list {
        Some(id) => format!("/contacts?list={id}&note={note}"),
        None => format!("/contacts?note={note}"),
    }
}
