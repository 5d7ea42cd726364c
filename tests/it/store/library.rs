//! Templates and campaigns: of many nodes one starts a run, and an edit never changes a broadcast on its way.

use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::broadcast::{Audience, BroadcastStatus, NewBroadcast, OnUncertain, Priority};
use hikyaku::domain::campaign::{CampaignStatus, Draft, Schedule};
use hikyaku::domain::content::{Content, Mailbox};
use hikyaku::domain::id::{CampaignId, TemplateId};
use hikyaku::domain::safety::{AutoPause, CanaryRule, CanarySize, Safety};
use hikyaku::domain::time::Timestamp;
use hikyaku::store::StoreError;
use hikyaku::store::library::NewCampaign;
use tokio::task::JoinSet;

use super::contract;
use super::world::{World, at, broadcast, people};

contract! {
    a_template_rises_in_version_with_every_change,
    an_edited_or_deleted_template_does_not_change_an_accepted_broadcast,
    a_template_that_a_campaign_uses_is_not_deleted,
    a_campaign_reads_back_as_it_was_stored,
    due_campaigns_come_in_the_order_of_their_times,
    of_many_nodes_one_starts_a_run,
    a_run_that_cannot_start_leaves_the_plan_as_it_was,
    a_skipped_run_says_why_and_moves_the_plan_on,
    a_campaign_without_a_next_run_is_finished,
    a_paused_campaign_starts_nothing,
    a_deleted_campaign_leaves_its_broadcasts,
}

fn content(subject: &str) -> Content {
    Content {
        subject: subject.into(),
        html: Some("<p>{{ \"it's\" }}</p>".into()),
        text: None,
    }
}

fn template_id(n: u128) -> TemplateId {
    TemplateId::new(at(0), n)
}

fn campaign(n: u128, next_at: Option<Timestamp>) -> NewCampaign {
    NewCampaign {
        id: CampaignId::new(at(0), n),
        name: format!("Weekly \"{n}\""),
        draft: Draft {
            from: Mailbox {
                email: EmailAddress::parse("news@example.com").unwrap(),
                name: None,
            },
            reply_to: None,
            template_id: template_id(n),
            audience: Audience::All,
            on_uncertain: OnUncertain::Hold,
            priority: Priority::Bulk,
            relay: None,
            expires_after_secs: Some(3_600),
            tags: vec!["weekly".into()],
            safety: Safety {
                canary: Some(CanaryRule {
                    first: CanarySize::Percent(5),
                    hold_above_percent: 2,
                }),
                auto_pause: Some(AutoPause::AbovePercent(20)),
            },
        },
        schedule: Schedule::Recurring {
            cron: "0 9 * * MON".into(),
            time_zone: "Europe/Berlin".into(),
        },
        next_at,
    }
}

/// The broadcast of one run, as whichever node starts it makes it.
fn run_of(new: &NewCampaign, broadcast_n: u128, planned: Timestamp) -> NewBroadcast {
    NewBroadcast {
        campaign: Some((new.id.clone(), planned)),
        audience: Audience::All,
        ..broadcast(broadcast_n, 0)
    }
}

async fn a_template_rises_in_version_with_every_change(w: World) {
    let id = template_id(1);
    assert!(w.template(&id).await.unwrap().is_none());
    let first = w.put_template(&id, "News", &content("One"), at(0)).await.unwrap();
    let second = w
        .put_template(&id, "Better news", &content("Two"), at(1))
        .await
        .unwrap();
    assert_eq!((first.version, second.version), (1, 2));
    assert_eq!((second.created_at, second.updated_at), (at(0), at(1)));
    w.put_template(&template_id(2), "A starter", &content("Three"), at(2))
        .await
        .unwrap();
    let names: Vec<String> = w.templates().await.unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["A starter", "Better news"]);
    assert_eq!(w.template(&id).await.unwrap().expect("it is stored").content, content("Two"));
}

async fn an_edited_or_deleted_template_does_not_change_an_accepted_broadcast(w: World) {
    let id = template_id(1);
    w.put_template(&id, "News", &content("Before"), at(0)).await.unwrap();
    let mut new = broadcast(1, 1);
    new.template_id = Some(id.clone());
    new.letter.content = content("Before");
    w.accept_new(&new, &people(1), at(0)).await;
    w.put_template(&id, "News", &content("After"), at(1)).await.unwrap();
    assert!(w.delete_template(&id).await.unwrap());
    assert!(!w.delete_template(&id).await.unwrap());
    assert_eq!(w.brief(&new.id).await.unwrap().letter.content, content("Before"));
    assert_eq!(w.show(&new.id).await.template_id.as_deref(), Some(id.as_str()));
}

async fn a_template_that_a_campaign_uses_is_not_deleted(w: World) {
    let new = campaign(1, Some(at(1_000)));
    w.put_template(&template_id(1), "News", &content("One"), at(0))
        .await
        .unwrap();
    w.create_campaign(&new, at(0)).await.unwrap();
    for status in [CampaignStatus::Active, CampaignStatus::Paused] {
        w.set_campaign_status(&new.id, status, Some(at(1_000)), at(1))
            .await
            .unwrap();
        let refused = w.delete_template(&template_id(1)).await;
        assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("Weekly")), "{refused:?}");
    }
    w.set_campaign_status(&new.id, CampaignStatus::Finished, None, at(2))
        .await
        .unwrap();
    assert!(w.delete_template(&template_id(1)).await.unwrap());
}

async fn a_campaign_reads_back_as_it_was_stored(w: World) {
    let new = campaign(1, Some(at(1_000)));
    w.create_campaign(&new, at(5)).await.unwrap();
    w.create_campaign(&campaign(2, None), at(6)).await.unwrap();
    let stored = w.campaign(&new.id).await.unwrap().expect("it is stored");
    assert_eq!((&stored.name, &stored.draft, &stored.schedule), (&new.name, &new.draft, &new.schedule));
    assert_eq!((stored.next_at, stored.last_at, stored.created_at), (Some(at(1_000)), None, at(5)));
    let all: Vec<_> = w
        .campaigns()
        .await
        .unwrap()
        .into_iter()
        .map(|c| (c.id, c.status))
        .collect();
    let newest = (campaign(2, None).id, CampaignStatus::Finished);
    assert_eq!(all, [newest, (new.id, CampaignStatus::Active)]);
}

async fn due_campaigns_come_in_the_order_of_their_times(w: World) {
    for (n, next_at) in [(1, Some(at(300))), (2, Some(at(100))), (3, Some(at(900))), (4, None)] {
        w.create_campaign(&campaign(n, next_at), at(0)).await.unwrap();
    }
    assert_eq!(w.next_campaign_at().await.unwrap(), Some(at(100)));
    assert!(w.due_campaigns(at(99)).await.unwrap().is_empty());
    let due: Vec<_> = w
        .due_campaigns(at(300))
        .await
        .unwrap()
        .into_iter()
        .map(|c| c.id)
        .collect();
    assert_eq!(due, [campaign(2, None).id, campaign(1, None).id]);
}

async fn of_many_nodes_one_starts_a_run(w: World) {
    let new = campaign(1, Some(at(1_000)));
    w.create_campaign(&new, at(0)).await.unwrap();
    let mut nodes = JoinSet::new();
    for n in 0..16 {
        let (store, id, run) = (w.share(), new.id.clone(), run_of(&new, n, at(1_000)));
        nodes.spawn(async move {
            let next = Some(at(2_000));
            store.start_run(&id, at(1_000), next, &run, at(1_001)).await.unwrap()
        });
    }
    let won = nodes.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    let started = w.broadcasts(None, 50).await.unwrap().rows;
    assert_eq!(started.len(), 1);
    assert_eq!(
        (started[0].campaign_id.as_deref(), started[0].status),
        (Some(new.id.as_str()), BroadcastStatus::Accepted)
    );
    let after = w.campaign(&new.id).await.unwrap().expect("it is stored");
    assert_eq!((after.next_at, after.last_at, after.last_error), (Some(at(2_000)), Some(at(1_000)), None));
}

async fn a_run_that_cannot_start_leaves_the_plan_as_it_was(w: World) {
    let new = campaign(1, Some(at(1_000)));
    w.create_campaign(&new, at(0)).await.unwrap();
    let taken = broadcast(1, 0);
    w.accept(&taken, None, at(0)).await.unwrap();
    let run = run_of(&new, 1, at(1_000));
    let failed = w.start_run(&new.id, at(1_000), Some(at(2_000)), &run, at(1_000)).await;
    assert!(matches!(failed, Err(StoreError::Conflict(_))), "{failed:?}");
    let after = w.campaign(&new.id).await.unwrap().expect("it is stored");
    assert_eq!((after.next_at, after.last_at), (Some(at(1_000)), None));
}

async fn a_skipped_run_says_why_and_moves_the_plan_on(w: World) {
    let new = campaign(1, Some(at(1_000)));
    w.create_campaign(&new, at(0)).await.unwrap();
    let why = "the template is gone";
    assert!(
        w.skip_run(&new.id, at(1_000), Some(at(2_000)), why, at(1_000))
            .await
            .unwrap()
    );
    assert!(
        !w.skip_run(&new.id, at(1_000), Some(at(2_000)), why, at(1_000))
            .await
            .unwrap()
    );
    let skipped = w.campaign(&new.id).await.unwrap().expect("it is stored");
    assert_eq!((skipped.next_at, skipped.last_error.as_deref()), (Some(at(2_000)), Some(why)));
    let run = run_of(&new, 1, at(2_000));
    assert!(
        w.start_run(&new.id, at(2_000), Some(at(3_000)), &run, at(2_000))
            .await
            .unwrap()
    );
    assert_eq!(w.campaign(&new.id).await.unwrap().expect("it is stored").last_error, None);
}

async fn a_campaign_without_a_next_run_is_finished(w: World) {
    let new = campaign(1, Some(at(1_000)));
    w.create_campaign(&new, at(0)).await.unwrap();
    assert!(
        w.start_run(&new.id, at(1_000), None, &run_of(&new, 1, at(1_000)), at(1_000))
            .await
            .unwrap()
    );
    let after = w.campaign(&new.id).await.unwrap().expect("it is stored");
    assert_eq!((after.status, after.next_at), (CampaignStatus::Finished, None));
    assert_eq!(w.next_campaign_at().await.unwrap(), None);
}

async fn a_paused_campaign_starts_nothing(w: World) {
    let new = campaign(1, Some(at(1_000)));
    w.create_campaign(&new, at(0)).await.unwrap();
    assert!(
        w.set_campaign_status(&new.id, CampaignStatus::Paused, None, at(1))
            .await
            .unwrap()
    );
    assert!(w.due_campaigns(at(9_000)).await.unwrap().is_empty());
    assert!(
        !w.start_run(&new.id, at(1_000), None, &run_of(&new, 1, at(1_000)), at(1_000))
            .await
            .unwrap()
    );
    assert!(w.broadcasts(None, 1).await.unwrap().rows.is_empty());
    assert!(
        w.set_campaign_status(&new.id, CampaignStatus::Active, Some(at(5_000)), at(2))
            .await
            .unwrap()
    );
    assert_eq!(w.due_campaigns(at(5_000)).await.unwrap().len(), 1);
    let unknown = CampaignId::new(at(0), 404);
    assert!(
        !w.set_campaign_status(&unknown, CampaignStatus::Paused, None, at(1))
            .await
            .unwrap()
    );
}

async fn a_deleted_campaign_leaves_its_broadcasts(w: World) {
    let new = campaign(1, Some(at(1_000)));
    w.create_campaign(&new, at(0)).await.unwrap();
    let run = run_of(&new, 1, at(1_000));
    w.start_run(&new.id, at(1_000), Some(at(2_000)), &run, at(1_000))
        .await
        .unwrap();
    assert!(w.delete_campaign(&new.id).await.unwrap());
    assert!(!w.delete_campaign(&new.id).await.unwrap());
    assert!(w.campaign(&new.id).await.unwrap().is_none());
    assert_eq!(w.show(&run.id).await.campaign_id.as_deref(), Some(new.id.as_str()));
}
