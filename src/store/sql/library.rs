//! Templates and campaigns: see [`crate::store::library`].

use async_trait::async_trait;

use super::intake::insert_broadcast;
use super::{Connection, SqlStore, from_json, parsed, to_json};
use crate::domain::broadcast::NewBroadcast;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::content::Content;
use crate::domain::id::{CampaignId, TemplateId};
use crate::domain::time::Timestamp;
use crate::store::library::{Library, NewCampaign, Template};
use crate::store::{Result, StoreError};

#[derive(sqlx::FromRow)]
struct TemplateRow {
    id: String,
    name: String,
    content: String,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl TemplateRow {
    fn into_template(self) -> Result<Template> {
        Ok(Template {
            id: parsed("templates.id", &self.id)?,
            name: self.name,
            content: from_json("templates.content", &self.content)?,
            version: self.version,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

#[derive(sqlx::FromRow)]
struct CampaignRow {
    id: String,
    name: String,
    status: String,
    draft: String,
    schedule: String,
    next_at: Option<i64>,
    last_at: Option<i64>,
    last_error: Option<String>,
    created_at: i64,
}

impl CampaignRow {
    fn into_campaign(self) -> Result<Campaign> {
        Ok(Campaign {
            id: parsed("campaigns.id", &self.id)?,
            name: self.name,
            status: match self.status.as_str() {
                "active" => CampaignStatus::Active,
                "paused" => CampaignStatus::Paused,
                _ => CampaignStatus::Finished,
            },
            draft: from_json("campaigns.draft", &self.draft)?,
            schedule: from_json("campaigns.schedule", &self.schedule)?,
            next_at: self.next_at.map(Timestamp),
            last_at: self.last_at.map(Timestamp),
            last_error: self.last_error,
            created_at: Timestamp(self.created_at),
        })
    }
}

#[async_trait]
impl Library for SqlStore {
    async fn put_template(&self, id: &TemplateId, name: &str, content: &Content, now: Timestamp) -> Result<Template> {
        let row: TemplateRow = sqlx::query_as(
            "-- put_template
            INSERT INTO templates (id, name, content, version, created_at, updated_at) VALUES ($1, $2, $3, 1, $4, $4)
            ON CONFLICT (id) DO UPDATE SET name = excluded.name, content = excluded.content,
                   version = templates.version + 1, updated_at = excluded.updated_at
            RETURNING id, name, content, version, created_at, updated_at",
        )
        .bind(id.as_str())
        .bind(name)
        .bind(to_json(content))
        .bind(now.0)
        .fetch_one(&self.writer)
        .await?;
        row.into_template()
    }

    async fn template(&self, id: &TemplateId) -> Result<Option<Template>> {
        let row: Option<TemplateRow> = sqlx::query_as("-- template\n SELECT * FROM templates WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.reader)
            .await?;
        row.map(TemplateRow::into_template).transpose()
    }

    async fn templates(&self) -> Result<Vec<Template>> {
        let rows: Vec<TemplateRow> = sqlx::query_as("-- templates\n SELECT * FROM templates ORDER BY name, id")
            .fetch_all(&self.reader)
            .await?;
        rows.into_iter().map(TemplateRow::into_template).collect()
    }

    async fn delete_template(&self, id: &TemplateId) -> Result<bool> {
        let mut tx = self.begin().await?;
        let drafts: Vec<(String, String)> =
            sqlx::query_as("-- live_drafts\n SELECT name, draft FROM campaigns WHERE status <> 'finished'")
                .fetch_all(&mut *tx)
                .await?;
        for (name, draft) in drafts {
            let draft: crate::domain::campaign::Draft = from_json("campaigns.draft", &draft)?;
            if draft.template_id == *id {
                return Err(StoreError::Conflict(format!("the campaign '{name}' uses this template")));
            }
        }
        let done = sqlx::query("-- delete_template\n DELETE FROM templates WHERE id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn create_campaign(&self, new: &NewCampaign, now: Timestamp) -> Result<()> {
        sqlx::query(
            "-- create_campaign
            INSERT INTO campaigns (id, name, status, draft, schedule, next_at, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
        )
        .bind(new.id.as_str())
        .bind(&new.name)
        .bind(if new.next_at.is_some() { "active" } else { "finished" })
        .bind(to_json(&new.draft))
        .bind(to_json(&new.schedule))
        .bind(new.next_at.map(|t| t.0))
        .bind(now.0)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn campaign(&self, id: &CampaignId) -> Result<Option<Campaign>> {
        let row: Option<CampaignRow> = sqlx::query_as("-- campaign\n SELECT * FROM campaigns WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.reader)
            .await?;
        row.map(CampaignRow::into_campaign).transpose()
    }

    async fn campaigns(&self) -> Result<Vec<Campaign>> {
        let rows: Vec<CampaignRow> = sqlx::query_as("-- campaigns\n SELECT * FROM campaigns ORDER BY id DESC")
            .fetch_all(&self.reader)
            .await?;
        rows.into_iter().map(CampaignRow::into_campaign).collect()
    }

    async fn due_campaigns(&self, now: Timestamp) -> Result<Vec<Campaign>> {
        let rows: Vec<CampaignRow> = sqlx::query_as(
            "-- due_campaigns
            SELECT * FROM campaigns WHERE status = 'active' AND next_at <= $1 ORDER BY next_at, id",
        )
        .bind(now.0)
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter().map(CampaignRow::into_campaign).collect()
    }

    async fn next_campaign_at(&self) -> Result<Option<Timestamp>> {
        let at: Option<i64> = sqlx::query_scalar(
            "-- next_campaign_at\n SELECT MIN(next_at) AS next_at FROM campaigns WHERE status = 'active'",
        )
        .fetch_one(&self.reader)
        .await?;
        Ok(at.map(Timestamp))
    }

    async fn start_run(
        &self,
        id: &CampaignId,
        planned: Timestamp,
        next_at: Option<Timestamp>,
        broadcast: &NewBroadcast,
        now: Timestamp,
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        if !move_plan(&mut tx, id, planned, next_at, None, now).await? {
            return Ok(false);
        }
        insert_broadcast(&mut tx, broadcast, now).await?;
        self.commit_and_wake(tx).await?;
        Ok(true)
    }

    async fn skip_run(
        &self,
        id: &CampaignId,
        planned: Timestamp,
        next_at: Option<Timestamp>,
        why: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        let moved = move_plan(&mut tx, id, planned, next_at, Some(why), now).await?;
        tx.commit().await?;
        Ok(moved)
    }

    async fn set_campaign_status(
        &self,
        id: &CampaignId,
        status: CampaignStatus,
        next_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "-- set_campaign_status
            UPDATE campaigns SET status = $2, next_at = $3, updated_at = $4 WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(status.as_str())
        .bind(next_at.map(|t| t.0))
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        self.commit_and_wake(tx).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn delete_campaign(&self, id: &CampaignId) -> Result<bool> {
        let done = sqlx::query("-- delete_campaign\n DELETE FROM campaigns WHERE id = $1")
            .bind(id.as_str())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Compare and swap on the planned time: of all nodes that see a run due, one moves the plan on.
async fn move_plan(
    tx: &mut Connection,
    id: &CampaignId,
    planned: Timestamp,
    next_at: Option<Timestamp>,
    error: Option<&str>,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query(
        "-- move_plan
        UPDATE campaigns SET last_at = next_at, next_at = $3, last_error = $4, updated_at = $5,
               status = CASE WHEN CAST($3 AS BIGINT) IS NULL THEN 'finished' ELSE status END
         WHERE id = $1 AND status = 'active' AND next_at = $2",
    )
    .bind(id.as_str())
    .bind(planned.0)
    .bind(next_at.map(|t| t.0))
    .bind(error)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}
