//! Databases that are made to be thrown away, and a look at whether one is sound. Never used by the service itself.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::{DatabaseUrl, Result, StoreError};

/// Makes an empty database on the PostgreSQL server at `url`. The name must be a plain word.
///
/// # Errors
/// When the server cannot be reached, or does not let this user make databases.
pub async fn create(url: &str, name: &str) -> Result<()> {
    on_server(url, format!("CREATE DATABASE {name} TEMPLATE template0")).await
}

/// Removes it again, with whoever is still connected.
///
/// # Errors
/// Those of [`create`].
pub async fn remove(url: &str, name: &str) -> Result<()> {
    on_server(url, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

async fn on_server(url: &str, statement: String) -> Result<()> {
    let options = PgConnectOptions::from_str(url).map_err(|e| StoreError::Refused(format!("the database URL: {e}")))?;
    let mut connection = options.connect().await?;
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// What is wrong with an SQLite file: its pages, its indices, its references. Empty when nothing is; on PostgreSQL always,
/// which looks after its pages itself.
///
/// # Errors
/// When it cannot be read.
pub async fn damage(url: &DatabaseUrl) -> Result<Vec<String>> {
    let DatabaseUrl::Sqlite(path) = url else {
        return Ok(Vec::new());
    };
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await?;
    let mut said: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_all(&mut connection)
        .await?;
    said.retain(|line| line != "ok");
    let dangling = sqlx::query("PRAGMA foreign_key_check")
        .fetch_all(&mut connection)
        .await?;
    if !dangling.is_empty() {
        said.push(format!("{} references lead nowhere", dangling.len()));
    }
    connection.close().await?;
    Ok(said)
}
