//! Who may do what: API keys, users, sessions, and what the installation shares. Stores hashes only,
//! never a secret that somebody could present, except the installation's own signing secret.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::time::Timestamp;

/// An API key as it is listed: without its secret.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Public part, first in the key as presented.
    pub id: String,
    pub name: String,
    pub secret_hash: String,
    pub scopes: Vec<String>,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub struct User {
    pub id: i64,
    pub email: String,
    pub password_hash: String,
}

#[async_trait]
pub trait Access: Send + Sync {
    async fn create_api_key(&self, key: &ApiKey) -> Result<()>;

    async fn api_key(&self, id: &str) -> Result<Option<ApiKey>>;

    async fn api_keys(&self) -> Result<Vec<ApiKey>>;

    async fn revoke_api_key(&self, id: &str, now: Timestamp) -> Result<bool>;

    /// Notes the use of a key; called at most once a minute for each.
    async fn touch_api_key(&self, id: &str, now: Timestamp) -> Result<()>;

    async fn count_users(&self) -> Result<i64>;

    /// # Errors
    /// `Conflict` when the address has an account already.
    async fn create_user(&self, email: &str, password_hash: &str, now: Timestamp) -> Result<User>;

    async fn user_by_email(&self, email: &str) -> Result<Option<User>>;

    async fn create_session(&self, token_hash: &str, user: i64, expires_at: Timestamp, now: Timestamp) -> Result<()>;

    /// The user of a session that has not expired.
    async fn session_user(&self, token_hash: &str, now: Timestamp) -> Result<Option<User>>;

    async fn end_session(&self, token_hash: &str) -> Result<()>;

    async fn setting(&self, name: &str) -> Result<Option<String>>;

    /// Stores a value unless there is one, and returns the one that stands: two nodes that start at
    /// once agree.
    async fn setting_or_insert(&self, name: &str, value: &str) -> Result<String>;

    async fn put_setting(&self, name: &str, value: &str) -> Result<()>;

    /// Removes a setting if it still has this value; `true` for the one caller who removed it.
    async fn take_setting(&self, name: &str, value: &str) -> Result<bool>;
}
