//! What was found out about relays: see [`crate::store::findings`].

use async_trait::async_trait;

use super::SqlStore;
use crate::domain::finding::{FINDING_KEPT_MS, Finding, FindingKind};
use crate::domain::time::Timestamp;
use crate::store::findings::{Findings, Found};
use crate::store::pacing::RelayAt;
use crate::store::{Result, StoreError};

#[derive(sqlx::FromRow)]
struct Row {
    relay_id: i64,
    kind: String,
    address: String,
    value: Option<i64>,
    words: String,
    found_at: i64,
    trial_worker: Option<i64>,
}

impl Row {
    fn into_finding(self) -> Result<Finding> {
        Ok(Finding {
            relay_id: self.relay_id,
            kind: self.kind.parse().map_err(StoreError::Corrupt)?,
            address: self.address,
            value: self.value,
            words: self.words,
            found_at: Timestamp(self.found_at),
            trial_worker: self.trial_worker,
        })
    }
}

#[async_trait]
impl Findings for SqlStore {
    async fn findings(&self) -> Result<Vec<Finding>> {
        let rows: Vec<Row> = sqlx::query_as(
            "-- findings
            SELECT relay_id, kind, address, value, words, found_at, trial_worker FROM findings ORDER BY relay_id, kind",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter().map(Row::into_finding).collect()
    }

    async fn try_out(
        &self,
        relay: RelayAt,
        kind: FindingKind,
        address: &str,
        worker: i64,
        now: Timestamp,
    ) -> Result<bool> {
        let done = sqlx::query(
            "-- try_out
            INSERT INTO findings (relay_id, kind, address, found_at, trial_worker)
            SELECT id, $2, $3, CAST($4 AS BIGINT), CAST($5 AS BIGINT) FROM relays WHERE id = $1 AND version = $6
            ON CONFLICT (relay_id, kind) DO UPDATE SET address = excluded.address, value = NULL, words = '',
                   found_at = excluded.found_at, trial_worker = excluded.trial_worker
             WHERE (findings.address <> excluded.address OR findings.found_at <= $4 - $7 AND COALESCE(findings.value, 0) = 0
                    OR findings.value IS NULL)
               AND NOT EXISTS (SELECT 1 FROM workers WHERE id = findings.trial_worker AND id <> $5
                               AND state IN ('live', 'draining') AND lease_until > $4)",
        )
        .bind(relay.id)
        .bind(kind.as_str())
        .bind(address)
        .bind(now.0)
        .bind(worker)
        .bind(relay.version)
        .bind(FINDING_KEPT_MS)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn give_up_trial(&self, relay_id: i64, kind: FindingKind, worker: i64) -> Result<()> {
        sqlx::query(
            "-- give_up_trial
            DELETE FROM findings WHERE relay_id = $1 AND kind = $2 AND value IS NULL AND trial_worker = $3",
        )
        .bind(relay_id)
        .bind(kind.as_str())
        .bind(worker)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn write_finding(&self, relay: RelayAt, found: &Found, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        let done = match found.value {
            None => {
                sqlx::query(
                    "-- doubt_finding
                    DELETE FROM findings WHERE relay_id = $1 AND kind = $2 AND value > 0
                       AND EXISTS (SELECT 1 FROM relays WHERE id = $1 AND version = $3)",
                )
                .bind(relay.id)
                .bind(found.kind.as_str())
                .bind(relay.version)
                .execute(&mut *tx)
                .await?
            }
            Some(value) => {
                sqlx::query(
                    "-- write_finding
                    INSERT INTO findings (relay_id, kind, address, value, words, found_at)
                    SELECT id, $2, $3, CAST($4 AS BIGINT), $5, CAST($6 AS BIGINT) FROM relays WHERE id = $1 AND version = $7
                    ON CONFLICT (relay_id, kind) DO UPDATE SET address = excluded.address, value = excluded.value,
                           words = excluded.words, found_at = excluded.found_at, trial_worker = NULL
                     WHERE findings.kind IN ('flights', 'windows') OR findings.address <> excluded.address
                        OR findings.value IS NULL OR findings.found_at <= $6 - $8 OR findings.value > excluded.value",
                )
                .bind(relay.id)
                .bind(found.kind.as_str())
                .bind(&found.address)
                .bind(value)
                .bind(&found.words)
                .bind(now.0)
                .bind(relay.version)
                .bind(FINDING_KEPT_MS)
                .execute(&mut *tx)
                .await?
            }
        };
        self.commit_and_wake(tx).await?;
        Ok(done.rows_affected() > 0)
    }

    async fn forget_findings(&self, relay_id: i64) -> Result<i64> {
        let mut tx = self.begin().await?;
        let done = sqlx::query("-- forget_findings\n DELETE FROM findings WHERE relay_id = $1")
            .bind(relay_id)
            .execute(&mut *tx)
            .await?;
        self.commit_and_wake(tx).await?;
        Ok(done.rows_affected() as i64)
    }
}
