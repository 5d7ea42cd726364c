//! The stored audience: contacts one by one, and the lists they are on. Never decides who gets a
//! broadcast: that is read when it fans out.

use askama::Template;
use askama_web::WebTemplate;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::response::Redirect;

use super::chrome::{Chrome, Section};
use super::error::UiError;
use super::form::Fields;
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
    let after = query.filled("after");
    let contacts = state
        .store
        .contacts(shown.as_ref().map(|l| &l.id), after, PAGE_SIZE)
        .await?;
    Ok(ContactsPage {
        chrome: Chrome::new(&signed, Section::Contacts).noting(query.text("note")),
        lists: state.store.lists().await?,
        subscribed: state.store.count_subscribed(None).await?,
        shown,
        contacts,
        is_first_page: after.is_none(),
    })
}

/// Adds one contact, to a list if one is chosen.
pub async fn add(_: SignedIn, State(state): State<WebState>, Form(form): Form<Fields>) -> Result<Redirect, UiError> {
    let refuse = |why: String| UiError::Refused(format!("The contact was not added: {why}."));
    let email = EmailAddress::parse(form.text("email")).map_err(refuse)?;
    let name = Recipient::parse_name(form.text("name")).map_err(refuse)?;
    let list = match form.filled("list") {
        Some(id) => Some(read_list(&state, id).await?.id),
        None => None,
    };
    let contact = Recipient {
        email,
        name,
        data: None,
    };
    state
        .store
        .put_contacts(&[contact], list.as_ref(), state.clock.now())
        .await?;
    Ok(Redirect::to(&back_to(list.as_ref(), "added")))
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
    _: SignedIn,
    State(state): State<WebState>,
    Form(form): Form<Fields>,
) -> Result<Redirect, UiError> {
    let name = form.text("name");
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return Err(UiError::Refused(format!("A list needs a name of {NAME_CHARS_MAX} characters at most.")));
    }
    let now = state.clock.now();
    let id = ListId::new(now, fastrand::u128(..));
    state.store.create_list(&id, name, now).await?;
    Ok(Redirect::to(&back_to(Some(&id), "created")))
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
    let id: ListId = id.parse().map_err(|_| UiError::NotFound)?;
    state.store.list(&id).await?.ok_or(UiError::NotFound)
}

fn back_to(list: Option<&ListId>, note: &str) -> String {
    match list {
        Some(id) => format!("/contacts?list={id}&note={note}"),
        None => format!("/contacts?note={note}"),
    }
}
