//! Who is signed in: passwords, login sessions, and the one-time link that makes the first user. Never
//! stores anything that somebody could present: the database holds hashes only.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use aws_lc_rs::{digest, rand};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Semaphore;

use super::WebState;
use super::ui::error::UiError;
use crate::domain::time::Timestamp;
use crate::store::access::User;
use crate::store::{Result, Store, StoreError};

/// How long a login lasts: two weeks, so that whoever looks in every week need not sign in each time.
pub const SESSION_MS: i64 = 14 * 24 * 3_600 * 1_000;
/// Random bytes in a session or set-up token: 256 bits cannot be guessed.
const TOKEN_BYTES: usize = 32;
/// Fewest characters of a password (NIST SP 800-63B 3.1.1.2 asks for 8 at the least); no other rule.
pub const PASSWORD_CHARS_MIN: usize = 10;
/// Most bytes of a password: nobody types more, and hashing must not be fed megabytes.
pub const PASSWORD_BYTES_MAX: usize = 512;
/// Passwords hashed at the same time. One takes about 20 MB and 20 ms of a core, and a flood of logins
/// must leave the machine its cores and memory.
const HASHES_AT_ONCE_MAX: usize = 2;

static HASHING: Semaphore = Semaphore::const_new(HASHES_AT_ONCE_MAX);

/// What is verified when there is no such user, so that the answer takes as long as for a known one.
const NOBODYS_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The setting that holds the SHA-256 of the set-up token while there is no user.
const SETUP_SETTING: &str = "setup_token_sha256";

/// The user who asks. Every handler of a page takes it, and what a page is made of needs it, so that no
/// page can be shown to anybody who is not signed in: those are sent to the login page.
pub struct SignedIn {
    pub user: User,
    /// Whether there is a mailbox of captured mail to be looked at.
    pub has_mailbox: bool,
}

impl FromRequestParts<WebState> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &WebState) -> std::result::Result<Self, Response> {
        let user = match token_of(&parts.headers, &state.public_url) {
            Some(token) => state
                .store
                .session_user(&sha256_hex(&token), state.clock.now())
                .await
                .map_err(|e| UiError::from(e).into_response())?,
            None => None,
        };
        let has_mailbox = state.capture.is_some();
        user.map(|user| SignedIn { user, has_mailbox }).ok_or_else(|| {
            // Only a page can be come back to; the answer to a form cannot.
            let wanted = if parts.method == Method::GET {
                parts.uri.path_and_query()
            } else {
                None
            };
            to_login(wanted.map(|p| p.as_str())).into_response()
        })
    }
}

fn to_login(next: Option<&str>) -> Redirect {
    match next.filter(|n| *n != "/") {
        Some(next) => {
            let query: String = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("next", next)
                .finish();
            Redirect::to(&format!("/login?{query}"))
        }
        None => Redirect::to("/login"),
    }
}

/// Where to go after the login: the page that was asked for, if it is one of ours. Anything that a
/// browser could read as another host (`//host`, `/\host`, a scheme, a control character) is not.
#[must_use]
pub fn safe_next(next: &str) -> &str {
    let is_ours = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && next.bytes().all(|b| b.is_ascii_graphic());
    if is_ours { next } else { "/" }
}

/// Checks an address and a password. Takes as long for an unknown address as for a known one.
///
/// # Errors
/// Those of the store.
pub async fn check_password(store: &dyn Store, email: &str, password: String) -> Result<Option<User>> {
    let user = store.user_by_email(email).await?;
    let hash = user
        .as_ref()
        .map_or_else(|| NOBODYS_HASH.to_owned(), |u| u.password_hash.clone());
    let is_right = blocking(move || {
        PasswordHash::new(&hash).is_ok_and(|h| Argon2::default().verify_password(password.as_bytes(), &h).is_ok())
    })
    .await;
    Ok(user.filter(|_| is_right))
}

/// The hash under which a new password is stored: argon2id with the parameters OWASP names.
async fn hash_password(password: String) -> String {
    blocking(move || {
        Argon2::default()
            .hash_password(password.as_bytes())
            .expect("a bounded password can always be hashed")
            .to_string()
    })
    .await
}

/// Runs a hash on a thread where it holds nobody up, at most [`HASHES_AT_ONCE_MAX`] at a time.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let _permit = HASHING.acquire().await.expect("the semaphore is never closed");
    tokio::task::spawn_blocking(work).await.expect("hashing does not panic")
}

/// Starts a session and returns the `Set-Cookie` of it, the only copy of its token.
///
/// # Errors
/// Those of the store.
pub async fn start(state: &WebState, user: &User) -> Result<String> {
    let (token, now) = (new_token(), state.clock.now());
    state
        .store
        .create_session(&sha256_hex(&token), user.id, now.plus_ms(SESSION_MS), now)
        .await?;
    Ok(cookie(&state.public_url, &token, SESSION_MS / 1_000))
}

/// Ends the session that these headers show, and returns the `Set-Cookie` that removes the cookie.
///
/// # Errors
/// Those of the store.
pub async fn end(state: &WebState, headers: &HeaderMap) -> Result<String> {
    if let Some(token) = token_of(headers, &state.public_url) {
        state.store.end_session(&sha256_hex(&token)).await?;
    }
    Ok(cookie(&state.public_url, "", 0))
}

fn token_of(headers: &HeaderMap, public_url: &str) -> Option<String> {
    let jar = CookieJar::from_headers(headers);
    jar.get(cookie_name(public_url)).map(|c| c.value().to_owned())
}

/// `__Host-` keeps other hosts of the domain from setting it, but browsers take it over https only.
fn cookie_name(public_url: &str) -> &'static str {
    if is_https(public_url) {
        "__Host-hikyaku"
    } else {
        "hikyaku"
    }
}

fn is_https(public_url: &str) -> bool {
    public_url.starts_with("https://")
}

fn cookie(public_url: &str, token: &str, age_secs: i64) -> String {
    let name = cookie_name(public_url);
    let secure = if is_https(public_url) { "; Secure" } else { "" };
    format!("{name}={token}; Path=/; Max-Age={age_secs}; HttpOnly; SameSite=Lax{secure}")
}

/// The link that makes the first user, while there is none. Each call makes the links before it void.
/// It is for the operator's eyes: print it, never log it.
///
/// # Errors
/// Those of the store.
pub async fn setup_link(state: &WebState) -> Result<Option<String>> {
    if state.store.count_users().await? > 0 {
        return Ok(None);
    }
    let token = new_token();
    state.store.put_setting(SETUP_SETTING, &sha256_hex(&token)).await?;
    Ok(Some(format!("{}/setup?token={token}", state.public_url)))
}

/// Whether a set-up token is the one that stands, and there is no user yet.
///
/// # Errors
/// Those of the store.
pub async fn is_setup_token(store: &dyn Store, token: &str) -> Result<bool> {
    let expected = store.setting(SETUP_SETTING).await?;
    Ok(expected.is_some_and(|e| e == sha256_hex(token)) && store.count_users().await? == 0)
}

/// Makes the first user and uses the token up. `None` when somebody was faster, or the token is wrong.
///
/// # Errors
/// Those of the store.
pub async fn use_setup_token(
    store: &dyn Store,
    token: &str,
    email: &str,
    password: String,
    now: Timestamp,
) -> Result<Option<User>> {
    if !is_setup_token(store, token).await? {
        return Ok(None);
    }
    let hash = hash_password(password).await;
    if !store.take_setting(SETUP_SETTING, &sha256_hex(token)).await? {
        return Ok(None);
    }
    match store.create_user(email, &hash, now).await {
        Ok(user) => Ok(Some(user)),
        Err(StoreError::Conflict(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// 256 random bits in the alphabet of URLs.
#[must_use]
pub fn new_token() -> String {
    let mut bytes = [0u8; TOKEN_BYTES];
    rand::fill(&mut bytes).expect("the system has randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token has 256 random bits, so a fast hash keeps it as safe as a slow one would.
fn sha256_hex(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_are_gone_back_to() {
        for ours in ["/", "/broadcasts/brd_1?status=failed", "/find?email=a%40b.example"] {
            assert_eq!(safe_next(ours), ours);
        }
        for other in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nb",
            "/a b",
            "evil",
        ] {
            assert_eq!(safe_next(other), "/", "{other:?}");
        }
    }

    #[test]
    fn the_cookie_is_locked_to_the_host_when_there_is_tls() {
        let secure = cookie("https://mail.example", "t", 60);
        assert_eq!(secure, "__Host-hikyaku=t; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure");
        let plain = cookie("http://127.0.0.1:8025", "t", 60);
        assert_eq!(plain, "hikyaku=t; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
    }

    #[tokio::test]
    async fn a_stored_hash_answers_to_its_password_only() {
        let hash = hash_password("correct horse".into()).await;
        let parsed = PasswordHash::new(&hash).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"correct house", &parsed).is_err());
        assert!(PasswordHash::new(NOBODYS_HASH).is_ok());
        assert!(hash.starts_with(&NOBODYS_HASH[..31]), "both take the same time: {hash}");
    }
}
