//! Schedule: due campaigns → broadcasts. Never a leader's task: any node may run it, and of all that try,
//! one moves the plan on.

use crate::clock::Clock;
use crate::domain::campaign::Campaign;
use crate::domain::id::BroadcastId;
use crate::store::{Result, Store};

/// Starts every run that is due and returns the number of broadcasts this node started. Runs missed while
/// nothing was running are not made up one by one: one late run starts, then the plan goes on from now.
///
/// # Errors
/// Of the store, the last one; the campaigns concerned stay due, the others have started.
pub async fn start_due_campaigns(store: &dyn Store, clock: &dyn Clock) -> Result<usize> {
    let mut started = 0;
    let mut failed = None;
    for campaign in store.due_campaigns(clock.now()).await? {
        match start_run(store, clock, &campaign).await {
            Ok(is_ours) => started += usize::from(is_ours),
            // The others are not to wait for this one.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(started), Err)
}

async fn start_run(store: &dyn Store, clock: &dyn Clock, campaign: &Campaign) -> Result<bool> {
    let Some(planned) = campaign.next_at else {
        return Ok(false);
    };
    let now = clock.now();
    let next = campaign.schedule.next_after(now);
    let draft = &campaign.draft;
    let Some(template) = store.template(&draft.template_id).await? else {
        let why = format!("the template {} does not exist any more", draft.template_id);
        tracing::warn!(campaign.id = %campaign.id, why, "A run was skipped");
        store.skip_run(&campaign.id, planned, next, &why, now).await?;
        return Ok(false);
    };
    let id = BroadcastId::new(now, fastrand::u128(..));
    let mut broadcast = draft.to_broadcast(id, template.content, Some(planned));
    broadcast.campaign = Some((campaign.id.clone(), planned));
    let started = store.start_run(&campaign.id, planned, next, &broadcast, now).await?;
    if started {
        tracing::info!(campaign.id = %campaign.id, broadcast.id = %broadcast.id, "Started a run of campaign {}", campaign.id);
    }
    Ok(started)
}
