//! Access: see [`crate::store::access`].

use async_trait::async_trait;

use super::{SqlStore, from_json, to_json};
use crate::domain::time::Timestamp;
use crate::store::access::{Access, ApiKey, User};
use crate::store::{Result, StoreError};

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: String,
    name: String,
    secret_hash: String,
    scopes: String,
    created_at: i64,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
}

impl KeyRow {
    fn into_key(self) -> Result<ApiKey> {
        Ok(ApiKey {
            id: self.id,
            name: self.name,
            secret_hash: self.secret_hash,
            scopes: from_json("api_keys.scopes", &self.scopes)?,
            created_at: Timestamp(self.created_at),
            last_used_at: self.last_used_at.map(Timestamp),
            revoked_at: self.revoked_at.map(Timestamp),
        })
    }
}

#[derive(sqlx::FromRow)]
struct UserRow {
    id: i64,
    email: String,
    password_hash: String,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        User {
            id: row.id,
            email: row.email,
            password_hash: row.password_hash,
        }
    }
}

#[async_trait]
impl Access for SqlStore {
    async fn create_api_key(&self, key: &ApiKey) -> Result<()> {
        sqlx::query(
            "-- create_api_key
            INSERT INTO api_keys (id, name, secret_hash, scopes, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&key.id)
        .bind(&key.name)
        .bind(&key.secret_hash)
        .bind(to_json(&key.scopes))
        .bind(key.created_at.0)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn api_key(&self, id: &str) -> Result<Option<ApiKey>> {
        let row: Option<KeyRow> = sqlx::query_as("-- api_key\n SELECT * FROM api_keys WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.reader)
            .await?;
        row.map(KeyRow::into_key).transpose()
    }

    async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        let rows: Vec<KeyRow> = sqlx::query_as("-- api_keys\n SELECT * FROM api_keys ORDER BY created_at, id")
            .fetch_all(&self.reader)
            .await?;
        rows.into_iter().map(KeyRow::into_key).collect()
    }

    async fn revoke_api_key(&self, id: &str, now: Timestamp) -> Result<bool> {
        let done = sqlx::query(
            "-- revoke_api_key
            UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
        )
        .bind(id)
        .bind(now.0)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn touch_api_key(&self, id: &str, now: Timestamp) -> Result<()> {
        sqlx::query("-- touch_api_key\n UPDATE api_keys SET last_used_at = $2 WHERE id = $1")
            .bind(id)
            .bind(now.0)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn count_users(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("-- count_users\n SELECT COUNT(*) AS n FROM users")
            .fetch_one(&self.reader)
            .await?)
    }

    async fn create_user(&self, email: &str, password_hash: &str, now: Timestamp) -> Result<User> {
        let row: Option<UserRow> = sqlx::query_as(
            "-- create_user
            INSERT INTO users (email, password_hash, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (email) DO NOTHING RETURNING id, email, password_hash",
        )
        .bind(email)
        .bind(password_hash)
        .bind(now.0)
        .fetch_optional(&self.writer)
        .await?;
        row.map(User::from)
            .ok_or_else(|| StoreError::Conflict(format!("{email} has an account already")))
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        let row: Option<UserRow> =
            sqlx::query_as("-- user_by_email\n SELECT id, email, password_hash FROM users WHERE email = $1")
                .bind(email)
                .fetch_optional(&self.reader)
                .await?;
        Ok(row.map(User::from))
    }

    async fn create_session(&self, token_hash: &str, user: i64, expires_at: Timestamp, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("-- sweep_sessions\n DELETE FROM sessions WHERE expires_at < $1")
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "-- create_session
            INSERT INTO sessions (token_hash, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
        )
        .bind(token_hash)
        .bind(user)
        .bind(now.0)
        .bind(expires_at.0)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    async fn session_user(&self, token_hash: &str, now: Timestamp) -> Result<Option<User>> {
        let row: Option<UserRow> = sqlx::query_as(
            "-- session_user
            SELECT u.id, u.email, u.password_hash FROM sessions s JOIN users u ON u.id = s.user_id
             WHERE s.token_hash = $1 AND s.expires_at > $2",
        )
        .bind(token_hash)
        .bind(now.0)
        .fetch_optional(&self.reader)
        .await?;
        Ok(row.map(User::from))
    }

    async fn end_session(&self, token_hash: &str) -> Result<()> {
        sqlx::query("-- end_session\n DELETE FROM sessions WHERE token_hash = $1")
            .bind(token_hash)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn setting(&self, name: &str) -> Result<Option<String>> {
        Ok(sqlx::query_scalar("-- setting\n SELECT value FROM settings WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.reader)
            .await?)
    }

    async fn setting_or_insert(&self, name: &str, value: &str) -> Result<String> {
        Ok(sqlx::query_scalar(
            "-- setting_or_insert
            INSERT INTO settings (name, value) VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET value = settings.value RETURNING value",
        )
        .bind(name)
        .bind(value)
        .fetch_one(&self.writer)
        .await?)
    }

    async fn put_setting(&self, name: &str, value: &str) -> Result<()> {
        sqlx::query(
            "-- put_setting
            INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn take_setting(&self, name: &str, value: &str) -> Result<bool> {
        let done = sqlx::query("-- take_setting\n DELETE FROM settings WHERE name = $1 AND value = $2")
            .bind(name)
            .bind(value)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
