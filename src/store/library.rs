//! Templates and campaigns. A broadcast copies what it says, so that an edit never changes one on its way.

use async_trait::async_trait;

use super::error::Result;
use crate::domain::broadcast::NewBroadcast;
use crate::domain::campaign::{Campaign, CampaignStatus, Draft, Schedule};
use crate::domain::content::Content;
use crate::domain::id::{CampaignId, TemplateId};
use crate::domain::time::Timestamp;

/// A stored template; `version` rises with every change.
#[derive(Debug, Clone)]
pub struct Template {
    pub id: TemplateId,
    pub name: String,
    pub content: Content,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A campaign to be stored.
#[derive(Debug, Clone)]
pub struct NewCampaign {
    pub id: CampaignId,
    pub name: String,
    pub draft: Draft,
    pub schedule: Schedule,
    pub next_at: Option<Timestamp>,
}

#[async_trait]
pub trait Library: Send + Sync {
    /// Creates a template, or replaces its name and content and raises its version.
    async fn put_template(&self, id: &TemplateId, name: &str, content: &Content, now: Timestamp) -> Result<Template>;

    async fn template(&self, id: &TemplateId) -> Result<Option<Template>>;

    /// All templates by name.
    async fn templates(&self) -> Result<Vec<Template>>;

    /// `false` when there is none.
    /// # Errors
    /// `Conflict` when an active campaign uses it.
    async fn delete_template(&self, id: &TemplateId) -> Result<bool>;

    async fn create_campaign(&self, new: &NewCampaign, now: Timestamp) -> Result<()>;

    async fn campaign(&self, id: &CampaignId) -> Result<Option<Campaign>>;

    /// All campaigns, newest first.
    async fn campaigns(&self) -> Result<Vec<Campaign>>;

    /// Active campaigns whose time has come.
    async fn due_campaigns(&self, now: Timestamp) -> Result<Vec<Campaign>>;

    /// When the next active campaign falls due.
    async fn next_campaign_at(&self) -> Result<Option<Timestamp>>;

    /// Starts the run planned for `planned`: moves the plan on and accepts the broadcast in one
    /// transaction. `false` when another node was first.
    async fn start_run(
        &self,
        id: &CampaignId,
        planned: Timestamp,
        next_at: Option<Timestamp>,
        broadcast: &NewBroadcast,
        now: Timestamp,
    ) -> Result<bool>;

    /// Moves the plan on without a run, and says why. `false` when another node was first.
    async fn skip_run(
        &self,
        id: &CampaignId,
        planned: Timestamp,
        next_at: Option<Timestamp>,
        why: &str,
        now: Timestamp,
    ) -> Result<bool>;

    /// Pauses or resumes the plan. `false` when there is no such campaign.
    async fn set_campaign_status(
        &self,
        id: &CampaignId,
        status: CampaignStatus,
        next_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool>;

    async fn delete_campaign(&self, id: &CampaignId) -> Result<bool>;
}
