//! The pace of the cluster: see [`crate::store::pacing`].

use std::collections::HashMap;

use async_trait::async_trait;
use serde::Serialize;

use super::{SqlStore, json_texts, retrying, to_json};
use crate::domain::ledger::{Account, Ask, Grant, PaceRow};
use crate::domain::time::Timestamp;
use crate::store::Result;
use crate::store::pacing::{FASTER_GAP_MS, PERMILLE_MIN, Pacing, RelayAt, SLOWER_GAP_MS, Slower};

#[derive(sqlx::FromRow)]
struct Row {
    relay_id: i64,
    lane: String,
    next_us: i64,
    hour: i64,
    hour_taken: i64,
    day: i64,
    day_taken: i64,
    permille: i64,
    base_us: i64,
    suspended_until: Option<i64>,
    reason: Option<String>,
    failures: i64,
    probe_until: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    lane: String,
    next_us: i64,
    hour: i64,
    hour_taken: i64,
    day: i64,
    day_taken: i64,
}

/// An account as the bulk statement reads it.
#[derive(Serialize)]
struct Moved<'a> {
    l: &'a str,
    n: i64,
    h: i64,
    ht: i64,
    d: i64,
    dt: i64,
}

#[async_trait]
impl Pacing for SqlStore {
    async fn take_permits(&self, relay_id: i64, asks: &[Ask], now: Timestamp) -> Result<Vec<Grant>> {
        retrying(|| self.try_take_permits(relay_id, asks, now)).await
    }

    async fn paces(&self) -> Result<Vec<PaceRow>> {
        let rows: Vec<Row> = sqlx::query_as(
            "-- paces
            SELECT relay_id, lane, next_us, hour, hour_taken, day, day_taken, permille, base_us, suspended_until, reason,
                   failures, probe_until
              FROM pace WHERE lane = '' OR permille < 1000 OR suspended_until IS NOT NULL ORDER BY relay_id, lane",
        )
        .fetch_all(&self.reader)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| PaceRow {
                relay_id: r.relay_id,
                lane: r.lane,
                account: Account {
                    next_us: r.next_us,
                    hour: r.hour,
                    hour_taken: r.hour_taken,
                    day: r.day,
                    day_taken: r.day_taken,
                },
                permille: r.permille,
                base_us: r.base_us,
                suspended_until: r.suspended_until.map(Timestamp),
                reason: r.reason,
                failures: r.failures,
                probe_until: r.probe_until.map(Timestamp),
            })
            .collect())
    }

    async fn slow_down(&self, slower: &Slower<'_>, now: Timestamp) -> Result<bool> {
        let done = sqlx::query(
            "-- slow_down
            INSERT INTO pace (relay_id, lane, permille, base_us, slowed_at, suspended_until, reason, updated_at)
            VALUES ($1, $2, 500, $3, $4, $5, $6, $4)
            ON CONFLICT (relay_id, lane) DO UPDATE SET
                   permille = CASE WHEN pace.permille / 2 < $7 THEN $7 ELSE pace.permille / 2 END,
                   base_us = CASE WHEN pace.permille < 1000 AND pace.base_us > 0 THEN pace.base_us ELSE excluded.base_us END,
                   slowed_at = excluded.slowed_at, reason = excluded.reason, updated_at = excluded.updated_at,
                   suspended_until = CASE WHEN pace.suspended_until > excluded.suspended_until THEN pace.suspended_until
                                          ELSE excluded.suspended_until END
             WHERE pace.permille = 1000 OR pace.slowed_at <= $4 - $8",
        )
        .bind(slower.relay_id)
        .bind(slower.lane)
        .bind(slower.base_us)
        .bind(now.0)
        .bind(now.plus_ms(slower.pause_ms).0)
        .bind(slower.reason)
        .bind(PERMILLE_MIN)
        .bind(SLOWER_GAP_MS)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn speed_up(&self, relay_id: i64, lane: &str, now: Timestamp) -> Result<bool> {
        let done = sqlx::query(
            "-- speed_up
            UPDATE pace SET permille = CASE WHEN permille * 5 / 4 + 1 >= 1000 THEN 1000 ELSE permille * 5 / 4 + 1 END,
                   reason = CASE WHEN permille * 5 / 4 + 1 >= 1000 THEN NULL ELSE reason END,
                   suspended_until = CASE WHEN failures = 0 THEN NULL ELSE suspended_until END,
                   slowed_at = $3, updated_at = $3
             WHERE relay_id = $1 AND lane = $2 AND permille < 1000 AND slowed_at + $4 <= $3
               AND (suspended_until IS NULL OR suspended_until + $4 <= $3)",
        )
        .bind(relay_id)
        .bind(lane)
        .bind(now.0)
        .bind(FASTER_GAP_MS)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn relay_failed(&self, relay: RelayAt, reason: &str, pause_ms: i64, now: Timestamp) -> Result<i64> {
        let failures: Option<i64> = sqlx::query_scalar(
            "-- relay_failed
            INSERT INTO pace (relay_id, lane, failures, suspended_until, reason, updated_at)
            SELECT id, '', 1, CAST($3 AS BIGINT), $4, CAST($2 AS BIGINT) FROM relays WHERE id = $1 AND version = $5
            ON CONFLICT (relay_id, lane) DO UPDATE SET failures = pace.failures + 1, suspended_until = excluded.suspended_until,
                   reason = excluded.reason, probe_worker = NULL, probe_until = NULL, updated_at = excluded.updated_at
             WHERE pace.suspended_until IS NULL OR pace.suspended_until <= $2
            RETURNING failures",
        )
        .bind(relay.id)
        .bind(now.0)
        .bind(now.plus_ms(pause_ms).0)
        .bind(reason)
        .bind(relay.version)
        .fetch_optional(&self.writer)
        .await?;
        Ok(failures.unwrap_or(0))
    }

    async fn try_probe(&self, relay: RelayAt, worker: i64, until: Timestamp, now: Timestamp) -> Result<bool> {
        let done = sqlx::query(
            "-- try_probe
            UPDATE pace SET probe_worker = $2, probe_until = $3, updated_at = $4
             WHERE relay_id = $1 AND lane = '' AND failures > 0 AND suspended_until <= $4
               AND (probe_until IS NULL OR probe_until <= $4)
               AND EXISTS (SELECT 1 FROM relays WHERE id = $1 AND version = $5)",
        )
        .bind(relay.id)
        .bind(worker)
        .bind(until.0)
        .bind(now.0)
        .bind(relay.version)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn relay_works(&self, relay_id: i64, now: Timestamp) -> Result<()> {
        sqlx::query(
            "-- relay_works
            UPDATE pace SET failures = 0, suspended_until = NULL, probe_worker = NULL, probe_until = NULL, updated_at = $2,
                   reason = CASE WHEN permille < 1000 THEN reason END
             WHERE relay_id = $1 AND lane = '' AND failures > 0",
        )
        .bind(relay_id)
        .bind(now.0)
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}

impl SqlStore {
    /// The relay's own row is locked first, so that no two workers lock its lanes in different orders.
    async fn try_take_permits(&self, relay_id: i64, asks: &[Ask], now: Timestamp) -> Result<Vec<Grant>> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "-- lock_pace
            INSERT INTO pace (relay_id, lane, updated_at) VALUES ($1, '', $2)
            ON CONFLICT (relay_id, lane) DO UPDATE SET updated_at = excluded.updated_at",
        )
        .bind(relay_id)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        let rows: Vec<AccountRow> = sqlx::query_as(
            "-- accounts
            SELECT lane, next_us, hour, hour_taken, day, day_taken FROM pace
             WHERE relay_id = $1 AND lane IN (SELECT value->>'v' FROM json_each($2))",
        )
        .bind(relay_id)
        .bind(json_texts(asks.iter().map(|a| &a.lane)))
        .fetch_all(&mut *tx)
        .await?;
        let mut accounts: HashMap<String, Account> = rows
            .into_iter()
            .map(|r| {
                let account = Account {
                    next_us: r.next_us,
                    hour: r.hour,
                    hour_taken: r.hour_taken,
                    day: r.day,
                    day_taken: r.day_taken,
                };
                (r.lane, account)
            })
            .collect();
        let grants: Vec<Grant> = asks
            .iter()
            .map(|ask| accounts.entry(ask.lane.clone()).or_default().deal(ask, now))
            .collect();
        let moved: Vec<Moved> = accounts
            .iter()
            .map(|(lane, a)| Moved {
                l: lane,
                n: a.next_us,
                h: a.hour,
                ht: a.hour_taken,
                d: a.day,
                dt: a.day_taken,
            })
            .collect();
        sqlx::query(
            "-- move_accounts
            INSERT INTO pace (relay_id, lane, next_us, hour, hour_taken, day, day_taken, updated_at)
            SELECT $1, value->>'l', CAST(value->>'n' AS BIGINT), CAST(value->>'h' AS BIGINT), CAST(value->>'ht' AS BIGINT),
                   CAST(value->>'d' AS BIGINT), CAST(value->>'dt' AS BIGINT), $3
              FROM json_each($2) WHERE true
            ON CONFLICT (relay_id, lane) DO UPDATE SET next_us = excluded.next_us, hour = excluded.hour,
                   hour_taken = excluded.hour_taken, day = excluded.day, day_taken = excluded.day_taken,
                   updated_at = excluded.updated_at",
        )
        .bind(relay_id)
        .bind(to_json(&moved))
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(grants)
    }
}
