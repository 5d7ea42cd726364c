//! Another try for what failed, and what refusals teach about addresses. Conservation holds throughout.

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::contact::SuppressionReason;
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::job::{JobEnd, JobKind};
use hikyaku::domain::message::MessageStatus::{Deferred, Queued, Sent};
use hikyaku::store::StoreError;
use hikyaku::store::delivery::{Ack, Bounce, BounceKind, FULL_SPAN_MS, INACTIVE_SPAN_MS, Settled};
use hikyaku::store::queue::Wish;

use super::contract;
use super::safety::{assert_counted, fail, pause_for, states, watched};
use super::world::{World, at, broadcast, broadcast_id, people, progress, sent, settled};

contract! {
    failed_messages_are_put_back_and_a_completed_broadcast_goes_on,
    a_retry_leaves_other_reasons_and_running_chunks_alone,
    a_retry_of_a_paused_broadcast_waits_for_the_resume,
    what_is_over_for_good_is_not_tried_again,
    a_hard_bounce_suppresses_in_the_same_commit,
    a_shut_mailbox_is_suppressed_when_it_stays_shut,
    a_full_mailbox_is_suppressed_after_three_sends_in_two_weeks,
    an_address_taken_off_the_list_begins_anew,
}

/// Fails two of six for the sender's sake and one for good, and completes the broadcast.
async fn completed_with_failures(w: &World, worker: i64) -> BroadcastId {
    let id = w.ready_broadcast(1, 6, 6).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(1)).await;
    let mut lines: Vec<Settled> = (3..6).map(|o| sent(o, at(1))).collect();
    lines.extend([
        fail(0, "auth_policy", 1),
        fail(1, "auth_policy", 1),
        fail(2, "invalid_recipient", 1),
    ]);
    w.commit_one(progress(job.lease, lines, &[]), at(1)).await;
    w.finish(job.lease, JobEnd::Done, at(1)).await.unwrap();
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Completed);
    id
}

async fn failed_messages_are_put_back_and_a_completed_broadcast_goes_on(w: World) {
    let worker = w.worker(at(0)).await;
    let id = completed_with_failures(&w, worker).await;
    let classes = ["auth_policy".to_owned()];
    let retried = w.retry_failed(&id, &classes, at(10)).await.unwrap();
    assert_eq!((retried.messages, retried.has_more), (2, false));
    let shown = w.show(&id).await;
    assert_eq!((shown.status, shown.finished_at), (BroadcastStatus::Sending, None));
    assert_eq!((shown.counts.deferred, shown.counts.failed, shown.counts.sent), (2, 1, 3));
    assert_counted(&w, &id).await;
    assert_eq!(w.retry_failed(&id, &classes, at(11)).await.unwrap().messages, 0, "once");

    let job = w.claim_one(worker, JobKind::Deliver, at(12)).await;
    let work = w.chunk_work(job.lease).await.unwrap();
    let open: Vec<_> = work.earlier.iter().filter(|e| !e.status.is_final()).collect();
    let told: Vec<_> = open
        .iter()
        .map(|e| (e.ordinal, e.status, e.attempts, e.burnt, e.next_at))
        .collect();
    assert_eq!(told, [(0, Deferred, 1, 0, Some(at(10))), (1, Deferred, 1, 0, Some(at(10)))]);
    let lines = vec![
        settled(0, Deferred, Sent, 2, at(13)),
        settled(1, Deferred, Sent, 2, at(13)),
    ];
    w.commit_one(progress(job.lease, lines, &[]), at(13)).await;
    w.finish(job.lease, JobEnd::Done, at(13)).await.unwrap();
    let shown = w.show(&id).await;
    assert_eq!((shown.status, shown.finished_at, shown.counts.sent), (BroadcastStatus::Completed, Some(at(13)), 5));
    let attempts = w
        .attempts(w.message_to(&id, "p0@example.org").await.unwrap().unwrap().id)
        .await
        .unwrap();
    assert!(!attempts.is_empty(), "what was tried before stays on record");
    assert_counted(&w, &id).await;
}

async fn a_retry_leaves_other_reasons_and_running_chunks_alone(w: World) {
    let id = w.ready_broadcast(1, 12, 6).await;
    let worker = w.worker(at(0)).await;
    let jobs = w.claim(worker, JobKind::Deliver, 2, at(0)).await.unwrap();
    for job in &jobs {
        let lines = vec![fail(0, "auth_policy", 1), fail(1, "unknown", 1)];
        w.commit_one(progress(job.lease, lines, &[]), at(1)).await;
    }
    w.finish(jobs[0].lease, JobEnd::Waiting(at(60_000)), at(2))
        .await
        .unwrap();
    let classes = ["auth_policy".to_owned()];
    assert_eq!(w.retry_failed(&id, &classes, at(3)).await.unwrap().messages, 1, "the other one is being worked on");
    assert_eq!(states(&w).await, ["ready", "running"], "nobody waits for what is due");
    assert_counted(&w, &id).await;
    w.finish(jobs[1].lease, JobEnd::Released, at(4)).await.unwrap();
    assert_eq!(w.retry_failed(&id, &classes, at(5)).await.unwrap().messages, 1);
    let left = w.failures(&id).await.unwrap();
    assert_eq!(left.iter().map(|f| (f.class.as_str(), f.n)).collect::<Vec<_>>(), [("unknown", 2)]);
    assert_counted(&w, &id).await;
}

async fn a_retry_of_a_paused_broadcast_waits_for_the_resume(w: World) {
    let worker = w.worker(at(0)).await;
    let id = w.ready_broadcast(1, 12, 6).await;
    let jobs = w.claim(worker, JobKind::Deliver, 2, at(0)).await.unwrap();
    let lines = (0..6).map(|o| fail(o, "auth_policy", 1)).collect();
    w.commit_one(progress(jobs[0].lease, lines, &[]), at(1)).await;
    w.finish(jobs[0].lease, JobEnd::Done, at(1)).await.unwrap();
    let seen = watched(&w, worker).await;
    assert!(w.take_step(&id, &seen, &pause_for("auth_policy"), at(2)).await.unwrap());
    w.finish(jobs[1].lease, JobEnd::Stopped, at(2)).await.unwrap();
    assert_eq!(
        w.retry_failed(&id, &["auth_policy".to_owned()], at(3))
            .await
            .unwrap()
            .messages,
        6
    );
    assert_eq!(states(&w).await, ["held", "held"]);
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Paused);
    w.control(&id, &Wish::Resume, at(4)).await.unwrap();
    assert_eq!(states(&w).await, ["ready", "ready"]);
    for job in w.claim(worker, JobKind::Deliver, 2, at(5)).await.unwrap() {
        let work = w.chunk_work(job.lease).await.unwrap();
        let before = if work.earlier.is_empty() { Queued } else { Deferred };
        let lines = (0..6).map(|o| settled(o, before, Sent, 2, at(6))).collect();
        w.commit_one(progress(job.lease, lines, &[]), at(6)).await;
        w.finish(job.lease, JobEnd::Done, at(6)).await.unwrap();
    }
    let shown = w.show(&id).await;
    assert_eq!((shown.status, shown.counts.sent), (BroadcastStatus::Completed, 12));
    assert_counted(&w, &id).await;
}

async fn what_is_over_for_good_is_not_tried_again(w: World) {
    let classes = ["auth_policy".to_owned()];
    let none = w.retry_failed(&broadcast_id(9), &classes, at(0)).await;
    assert!(matches!(none, Err(StoreError::Conflict(_))), "{none:?}");
    let worker = w.worker(at(0)).await;
    let id = w.ready_broadcast(1, 6, 6).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    w.commit_one(progress(job.lease, vec![fail(0, "auth_policy", 1)], &[]), at(1))
        .await;
    w.control(&id, &Wish::Cancel, at(2)).await.unwrap();
    let canceled = w.retry_failed(&id, &classes, at(3)).await;
    assert!(matches!(canceled, Err(StoreError::Conflict(_))), "{canceled:?}");
    let mut late = broadcast(2, 5);
    late.expires_at = Some(at(100));
    w.accept_new(&late, &people(5), at(0)).await;
    let expired = w.retry_failed(&late.id, &classes, at(100)).await;
    assert!(matches!(expired, Err(StoreError::Conflict(_))), "{expired:?}");
}

fn bounced(ordinal: u16, class: &'static str, address: &str, kind: BounceKind, ms: i64) -> Settled {
    let mut one = fail(ordinal, class, ms);
    one.bounce = Some(Bounce {
        address: address.into(),
        kind,
    });
    one
}

async fn a_hard_bounce_suppresses_in_the_same_commit(w: World) {
    let id = w.ready_broadcast(1, 6, 6).await;
    let worker = w.worker(at(0)).await;
    let manual = ["known@example.org".to_owned()];
    w.suppress(&manual, SuppressionReason::Manual, "ui", at(0))
        .await
        .unwrap();
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let lines = vec![
        bounced(0, "invalid_recipient", "gone@example.org", BounceKind::Hard, 1),
        bounced(1, "bad_domain", "x@nowhere.example", BounceKind::Hard, 1),
        bounced(2, "invalid_recipient", "known@example.org", BounceKind::Hard, 1),
        fail(3, "unknown", 1),
    ];
    w.commit_one(progress(job.lease, lines, &[]), at(1)).await;
    let all = w.suppressions(None, 10).await.unwrap().rows;
    let told: Vec<_> = all
        .iter()
        .map(|s| (s.email.as_str(), s.reason.as_str(), s.source.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("gone@example.org", "hard_bounce", id.as_str()),
            ("known@example.org", "manual", "ui"),
            ("x@nowhere.example", "hard_bounce", id.as_str()),
        ]
    );
    // A lapsed lease teaches nothing.
    let late = at(super::world::LEASE_MS + 1);
    let rescuer = w.worker(late).await;
    w.rescue(rescuer, late).await.unwrap();
    let zombie = bounced(4, "invalid_recipient", "late@example.org", BounceKind::Hard, 2);
    assert_eq!(
        w.commit_progress(&[progress(job.lease, vec![zombie], &[])], at(2))
            .await
            .unwrap(),
        [Ack::Fenced]
    );
    assert!(w.suppression("late@example.org").await.unwrap().is_none());
}

/// One soft bounce of an address, by a broadcast of its own at this time.
async fn bounce_softly(w: &World, n: u128, class: &'static str, ms: i64) {
    w.ready_broadcast(n, 1, 1).await;
    let worker = w.worker(at(ms)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(ms)).await;
    let line = bounced(0, class, "full@example.org", BounceKind::Soft, ms);
    w.commit_one(progress(job.lease, vec![line], &[]), at(ms)).await;
    w.finish(job.lease, JobEnd::Done, at(ms)).await.unwrap();
}

async fn is_suppressed(w: &World) -> bool {
    w.suppression("full@example.org").await.unwrap().is_some()
}

async fn a_shut_mailbox_is_suppressed_when_it_stays_shut(w: World) {
    bounce_softly(&w, 1, "inactive_mailbox", 0).await;
    bounce_softly(&w, 2, "inactive_mailbox", INACTIVE_SPAN_MS - 1).await;
    assert!(!is_suppressed(&w).await, "within a day");
    bounce_softly(&w, 3, "inactive_mailbox", INACTIVE_SPAN_MS).await;
    let found = w.suppression("full@example.org").await.unwrap().unwrap();
    assert_eq!((found.reason.as_str(), found.source.as_str()), ("hard_bounce", broadcast_id(3).as_str()));
}

async fn a_full_mailbox_is_suppressed_after_three_sends_in_two_weeks(w: World) {
    bounce_softly(&w, 1, "mailbox_full", 0).await;
    bounce_softly(&w, 2, "mailbox_full", FULL_SPAN_MS).await;
    assert!(!is_suppressed(&w).await, "two sends");
    bounce_softly(&w, 3, "mailbox_full", FULL_SPAN_MS + 1).await;
    assert!(is_suppressed(&w).await);
    assert_eq!(w.forget_bounces(at(FULL_SPAN_MS + 1)).await.unwrap(), 0);
    assert_eq!(w.forget_bounces(at(FULL_SPAN_MS + 2)).await.unwrap(), 1);
}

async fn an_address_taken_off_the_list_begins_anew(w: World) {
    bounce_softly(&w, 1, "inactive_mailbox", 0).await;
    bounce_softly(&w, 2, "inactive_mailbox", INACTIVE_SPAN_MS).await;
    assert!(w.unsuppress("full@example.org").await.unwrap());
    bounce_softly(&w, 3, "inactive_mailbox", INACTIVE_SPAN_MS + 1).await;
    assert!(!is_suppressed(&w).await);
}
