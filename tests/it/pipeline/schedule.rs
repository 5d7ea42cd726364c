//! Campaigns whose time has come, with many who would start them.

use std::sync::Arc;
use std::time::Duration;

use hikyaku::clock::{Clock, ManualClock, SystemClock};
use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::broadcast::{Audience, BroadcastStatus, OnUncertain, Priority};
use hikyaku::domain::campaign::{Draft, Schedule};
use hikyaku::domain::content::{Content, Mailbox};
use hikyaku::domain::id::{CampaignId, TemplateId};
use hikyaku::domain::time::Timestamp;
use hikyaku::pipeline::schedule::start_due_campaigns;
use hikyaku::store::library::NewCampaign;

use super::stage::{Plan, Stage, eventually, people};
use super::stories;
use crate::support::database::{TestDatabase, fresh_postgres};

stories!(of_many_who_try_one_starts_the_run, a_campaign_without_its_template_keeps_nobody_waiting);

const DAY_MS: i64 = 86_400_000;

async fn stage_with_contacts(database: TestDatabase) -> (Stage, ManualClock) {
    let clock = ManualClock::at(SystemClock.now());
    let mut plan = Plan {
        clock: Arc::new(clock.clone()),
        ..Plan::default()
    };
    plan.settings.poll = Duration::from_millis(50);
    plan.settings.heartbeat = Duration::from_millis(50);
    let stage = Stage::open(database, plan).await;
    stage.store.put_contacts(&people(30), None, clock.now()).await.unwrap();
    (stage, clock)
}

/// A campaign to everybody; the first run is at `at`, the others every night.
async fn campaign(stage: &Stage, at: Timestamp) -> CampaignId {
    let content = Content {
        subject: "News".into(),
        html: None,
        text: Some("For {{ email }}".into()),
    };
    let template_id = TemplateId::new(at, fastrand::u128(..));
    stage
        .store
        .put_template(&template_id, "News", &content, at)
        .await
        .unwrap();
    let new = NewCampaign {
        id: CampaignId::new(at, fastrand::u128(..)),
        name: "Nightly".into(),
        draft: Draft {
            from: Mailbox {
                email: EmailAddress::parse("news@example.org").unwrap(),
                name: None,
            },
            reply_to: None,
            template_id,
            audience: Audience::All,
            on_uncertain: OnUncertain::Resend,
            priority: Priority::Normal,
            relay: None,
            expires_after_secs: None,
            tags: vec![],
            safety: Default::default(),
        },
        schedule: Schedule::Recurring {
            cron: "0 3 * * *".into(),
            time_zone: "Europe/Berlin".into(),
        },
        next_at: Some(at),
    };
    stage.store.create_campaign(&new, at).await.unwrap();
    new.id
}

async fn of_many_who_try_one_starts_the_run(database: TestDatabase) {
    let (stage, clock) = stage_with_contacts(database).await;
    let due = clock.now().plus_ms(1_000);
    let id = campaign(&stage, due).await;
    assert_eq!(start_due_campaigns(&*stage.store, &clock).await.unwrap(), 0, "not before its time");
    clock.advance_ms(1_000);
    let tries = (0..5).map(|_| {
        let (store, clock) = (Arc::clone(&stage.store), clock.clone());
        tokio::spawn(async move { start_due_campaigns(&*store, &clock).await.unwrap() })
    });
    let mut started = 0;
    for one in tries.collect::<Vec<_>>() {
        started += one.await.unwrap();
    }
    assert_eq!(started, 1);
    let broadcasts = stage.store.broadcasts(None, 10).await.unwrap().rows;
    assert_eq!(broadcasts.len(), 1);
    assert_eq!(broadcasts[0].campaign_id.as_deref(), Some(id.as_str()));
    let campaign = stage.store.campaign(&id).await.unwrap().unwrap();
    assert!(campaign.next_at.is_some_and(|next| next > due && next - due <= DAY_MS), "{campaign:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_start_each_run_once_and_deliver_it() {
    let (stage, clock) = stage_with_contacts(fresh_postgres().await).await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(stage.hire_on(stage.another_store().await).await);
    }
    campaign(&stage, clock.now().plus_ms(1_000)).await;
    for run in 1..=3 {
        clock.advance_ms(if run == 1 { 1_000 } else { DAY_MS });
        eventually(async || stage.store.broadcasts(None, 10).await.unwrap().rows.len() == run).await;
        let newest = stage.store.broadcasts(None, 10).await.unwrap().rows[0].clone();
        let ended = stage.ended(&newest.id).await;
        assert_eq!((ended.status, ended.counts.sent), (BroadcastStatus::Completed, 30));
    }
    for worker in workers {
        worker.end().await;
    }
    assert_eq!(stage.store.broadcasts(None, 10).await.unwrap().rows.len(), 3);
    assert!(stage.sink.sink().copies().values().all(|&n| n == 3));
}

async fn a_campaign_without_its_template_keeps_nobody_waiting(database: TestDatabase) {
    let (stage, clock) = stage_with_contacts(database).await;
    let due = clock.now().plus_ms(1_000);
    let orphan = campaign(&stage, due).await;
    let template = stage.store.campaign(&orphan).await.unwrap().unwrap().draft.template_id;
    // A campaign that may still run protects its template.
    use hikyaku::domain::campaign::CampaignStatus::{Active, Finished};
    stage
        .store
        .set_campaign_status(&orphan, Finished, None, due)
        .await
        .unwrap();
    assert!(stage.store.delete_template(&template).await.unwrap());
    stage
        .store
        .set_campaign_status(&orphan, Active, Some(due), due)
        .await
        .unwrap();
    campaign(&stage, due).await;
    let worker = stage.hire().await;
    clock.advance_ms(1_000);
    eventually(async || stage.store.broadcasts(None, 10).await.unwrap().rows.len() == 1).await;
    let id = stage.store.broadcasts(None, 10).await.unwrap().rows[0].id.clone();
    assert_eq!(stage.ended(&id).await.counts.sent, 30);
    let skipped = stage.store.campaign(&orphan).await.unwrap().unwrap();
    assert!(skipped.last_error.is_some_and(|e| e.contains("template")));
    assert!(skipped.next_at.is_some_and(|next| next > due));
    worker.end().await;
}
