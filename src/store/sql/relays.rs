//! Relays: see [`crate::store::relays`].

use async_trait::async_trait;

use super::{Connection, SqlStore, from_json, to_json};
use crate::domain::relay::{Relay, RelaySpec};
use crate::domain::time::Timestamp;
use crate::store::Result;
use crate::store::relays::Relays;

#[derive(sqlx::FromRow)]
struct RelayRow {
    id: i64,
    name: String,
    spec: String,
    paused: Option<String>,
    paused_at: Option<i64>,
    version: i64,
    updated_at: i64,
}

impl RelayRow {
    fn into_relay(self) -> Result<Relay> {
        Ok(Relay {
            id: self.id,
            name: self.name,
            spec: from_json("relays.spec", &self.spec)?,
            paused: self.paused,
            paused_at: self.paused_at.map(Timestamp),
            version: self.version,
            updated_at: Timestamp(self.updated_at),
        })
    }
}

#[async_trait]
impl Relays for SqlStore {
    async fn put_relay(&self, name: &str, spec: &RelaySpec, now: Timestamp) -> Result<Relay> {
        let mut tx = self.begin().await?;
        let before: Option<String> = sqlx::query_scalar("-- spec_before\n SELECT spec FROM relays WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *tx)
            .await?
            .flatten();
        let before: Option<RelaySpec> = before.map(|spec| from_json("relays.spec", &spec)).transpose()?;
        let row: RelayRow = sqlx::query_as(
            "-- put_relay
            INSERT INTO relays (name, spec, version, updated_at) VALUES ($1, $2, 1, $3)
            ON CONFLICT (name) DO UPDATE SET spec = excluded.spec, version = relays.version + 1, updated_at = excluded.updated_at
            RETURNING id, name, spec, paused, paused_at, version, updated_at",
        )
        .bind(name)
        .bind(to_json(spec))
        .bind(now.0)
        .fetch_one(&mut *tx)
        .await?;
        if before.is_some_and(|before| before.url != spec.url) {
            try_at_once(&mut tx, &row.name, now).await?;
        }
        self.commit_and_wake(tx).await?;
        row.into_relay()
    }

    async fn relay(&self, name: &str) -> Result<Option<Relay>> {
        let row: Option<RelayRow> = sqlx::query_as(
            "-- relay
            SELECT id, name, spec, paused, paused_at, version, updated_at FROM relays WHERE name = $1 AND spec IS NOT NULL",
        )
        .bind(name)
        .fetch_optional(&self.reader)
        .await?;
        row.map(RelayRow::into_relay).transpose()
    }

    async fn relays(&self) -> Result<Vec<Relay>> {
        let rows: Vec<RelayRow> = sqlx::query_as(
            "-- relays
            SELECT id, name, spec, paused, paused_at, version, updated_at FROM relays WHERE spec IS NOT NULL ORDER BY name",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter().map(RelayRow::into_relay).collect()
    }

    async fn has_had_relays(&self) -> Result<bool> {
        let n: i64 = sqlx::query_scalar("-- has_had_relays\n SELECT COUNT(*) AS n FROM relays WHERE version > 0")
            .fetch_one(&self.reader)
            .await?;
        Ok(n > 0)
    }

    async fn pause_relay(&self, name: &str, reason: Option<&str>, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "-- pause_relay
            UPDATE relays
               SET paused_at = CASE WHEN CAST($2 AS TEXT) IS NULL THEN NULL ELSE COALESCE(paused_at, $3) END, paused = $2,
                   version = version + 1, updated_at = $3
             WHERE name = $1 AND spec IS NOT NULL",
        )
        .bind(name)
        .bind(reason)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        if reason.is_none() {
            try_at_once(&mut tx, name, now).await?;
        }
        self.commit_and_wake(tx).await?;
        Ok(done.rows_affected() > 0)
    }

    async fn broadcasts_bound_to(&self, name: &str) -> Result<i64> {
        Ok(sqlx::query_scalar(
            "-- broadcasts_bound_to
            SELECT COUNT(*) AS n FROM broadcasts WHERE relay = $1 AND status NOT IN ('completed', 'canceled', 'failed')",
        )
        .bind(name)
        .fetch_one(&self.reader)
        .await?)
    }

    async fn delete_relay(&self, name: &str, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "-- delete_relay
            UPDATE relays SET spec = NULL, paused = NULL, paused_at = NULL, version = version + 1, updated_at = $2
             WHERE name = $1 AND spec IS NOT NULL",
        )
        .bind(name)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        self.commit_and_wake(tx).await?;
        Ok(done.rows_affected() > 0)
    }
}

/// Somebody has mended a relay: if it was failing, one message tries it now, and whoever was trying it does not count.
async fn try_at_once(connection: &mut Connection, name: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "-- try_at_once
        UPDATE pace SET failures = 1, suspended_until = $2, probe_worker = NULL, probe_until = NULL, updated_at = $2
         WHERE relay_id = (SELECT id FROM relays WHERE name = $1) AND lane = '' AND failures > 0",
    )
    .bind(name)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}
