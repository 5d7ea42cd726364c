//! What is removed when it has been kept long enough: recipients and outcomes go, counts stay, and nothing that is not over
//! is touched.

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::job::{JobEnd, JobKind};
use hikyaku::domain::message::MessageStatus;

use super::contract;
use super::world::{World, at, progress, settled};

contract! {
    an_old_broadcast_keeps_its_counts_and_loses_its_recipients,
    what_relays_said_goes_and_how_many_failed_why_stays,
    a_broadcast_that_is_not_over_or_not_old_is_not_touched,
}

async fn an_old_broadcast_keeps_its_counts_and_loses_its_recipients(w: World) {
    let id = w.ready_broadcast(1, 25, 10).await;
    let worker = w.worker(at(0)).await;
    for job in w.claim(worker, JobKind::Deliver, 10, at(0)).await.unwrap() {
        w.send_all(&job, at(100)).await;
    }
    let before = w.show(&id).await;
    assert_eq!((before.status, before.counts.sent), (BroadcastStatus::Completed, 25));
    let kept = w.messages(&id, None, None, 100).await.unwrap().rows;
    assert_eq!(kept.len(), 25);

    assert_eq!(w.prune(at(100), 2).await.unwrap(), 0, "not older than the given time");
    let removed = [
        w.prune(at(101), 2).await.unwrap(),
        w.prune(at(101), 2).await.unwrap(),
        w.prune(at(101), 2).await.unwrap(),
    ];
    assert_eq!(removed, [2, 1, 0], "a few chunks at a time");
    let after = w.show(&id).await;
    assert_eq!((after.status, after.counts), (before.status, before.counts));
    assert!(w.messages(&id, None, None, 100).await.unwrap().rows.is_empty());
    assert!(w.message(kept[0].id).await.unwrap().is_none());
    for table in ["messages", "attempts", "chunks"] {
        assert_eq!(w.sql(&format!("SELECT COUNT(*) FROM {table}")).await, ["0"], "{table}");
    }
}

async fn what_relays_said_goes_and_how_many_failed_why_stays(w: World) {
    let id = w.ready_broadcast(1, 1, 10).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let refused = settled(0, MessageStatus::Queued, MessageStatus::Failed, 1, at(1));
    w.commit_one(progress(job.lease, vec![refused], &[]), at(1)).await;
    w.finish(job.lease, JobEnd::Done, at(2)).await.unwrap();
    w.sql("UPDATE broadcasts SET pause = '{}', paused_at = 1").await;
    assert_eq!(w.sql("SELECT reply FROM failures").await, ["no such user"]);

    assert_eq!(w.prune(at(3), 10).await.unwrap(), 1);
    assert_eq!(w.sql("SELECT reply FROM failures").await, [""]);
    assert_eq!(w.sql("SELECT COALESCE(pause, 'none') FROM broadcasts").await, ["none"], "it may hold an example");
    let failures = w.failures(&id).await.unwrap();
    assert_eq!((failures.len(), failures[0].n, failures[0].class.as_str()), (1, 1, "some_reason"));
}

async fn a_broadcast_that_is_not_over_or_not_old_is_not_touched(w: World) {
    let going_on = w.ready_broadcast(1, 20, 10).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    w.send_all(&job, at(1)).await;
    assert_eq!(w.prune(at(1_000_000), 100).await.unwrap(), 0);
    assert_eq!(w.messages(&going_on, None, None, 100).await.unwrap().rows.len(), 20);
}
