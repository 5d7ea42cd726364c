//! Pause, resume and cancel: an operator's wish reaches every job, wherever it is. Conservation holds throughout.

use hikyaku::domain::broadcast::{Audience, BroadcastStatus, NewBroadcast};
use hikyaku::domain::counts::Counts;
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::job::{JobEnd, JobKind, Stop};
use hikyaku::domain::message::MessageStatus;
use hikyaku::store::StoreError;
use hikyaku::store::delivery::Ack;
use hikyaku::store::queue::Wish;

use super::contract;
use super::world::{LEASE_MS, NOBODY, World, at, broadcast, broadcast_id, people, progress, sent, settled};

contract! {
    a_pause_reaches_a_running_job_in_its_next_commit,
    a_pause_reaches_an_idle_owner_through_its_wanted_stops,
    a_paused_broadcast_gives_out_no_work,
    a_job_that_would_wait_is_held_while_its_broadcast_is_paused,
    a_resume_before_the_owner_noticed_changes_nothing,
    a_resumed_job_still_waits_for_its_time,
    a_broadcast_resumed_after_its_time_starts,
    pausing_twice_keeps_the_first_reason,
    canceling_counts_what_was_not_settled_as_canceled,
    a_running_job_of_a_canceled_broadcast_ends_canceled,
    what_a_dead_owner_had_on_the_wire_is_wound_up_by_the_next_one,
    a_broadcast_can_be_canceled_while_paused_or_scheduled,
    a_quarantined_job_is_canceled_with_its_broadcast,
    a_job_released_from_quarantine_keeps_to_a_pause,
    a_rescued_job_of_a_paused_broadcast_comes_to_rest,
    a_wish_that_does_not_fit_a_final_state_is_a_conflict,
}

async fn pause(w: &World, id: &BroadcastId, ms: i64) {
    let reason = "look again".to_owned();
    w.control(id, &Wish::Pause { reason }, at(ms)).await.unwrap();
}

async fn resume(w: &World, id: &BroadcastId, ms: i64) {
    w.control(id, &Wish::Resume, at(ms)).await.unwrap();
}

async fn cancel(w: &World, id: &BroadcastId, ms: i64) {
    w.control(id, &Wish::Cancel, at(ms)).await.unwrap();
}

async fn a_pause_reaches_a_running_job_in_its_next_commit(w: World) {
    let id = w.ready_broadcast(1, 3, 10).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    pause(&w, &id, 1).await;
    let shown = w.show(&id).await;
    assert_eq!((shown.status, shown.reason.as_deref()), (BroadcastStatus::Paused, Some("look again")));

    let acks = w
        .commit_progress(&[progress(job.lease, vec![sent(0, at(2))], &[])], at(2))
        .await
        .unwrap();
    let stop = Some(Stop::Hold);
    assert_eq!(acks, [Ack::Durable { stop }], "what is on the wire still counts");
    w.finish(job.lease, JobEnd::Stopped, at(3)).await.unwrap();
    assert_eq!(w.jobs(Some("held"), 10).await.unwrap().len(), 1);
    resume(&w, &id, 4).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(5)).await;
    assert_eq!(job.stop, None);
    assert_eq!((w.show(&id).await.status, w.show(&id).await.reason), (BroadcastStatus::Sending, None));
}

async fn a_pause_reaches_an_idle_owner_through_its_wanted_stops(w: World) {
    let (paused, canceled) = (w.ready_broadcast(1, 1, 1).await, w.ready_broadcast(2, 1, 1).await);
    w.ready_broadcast(3, 1, 1).await;
    let worker = w.worker(at(0)).await;
    let jobs = w.claim(worker, JobKind::Deliver, 3, at(0)).await.unwrap();
    assert!(w.wanted_stops(worker).await.unwrap().is_empty());
    pause(&w, &paused, 1).await;
    cancel(&w, &canceled, 1).await;
    let mut stops = w.wanted_stops(worker).await.unwrap();
    stops.sort_by_key(|(lease, _)| lease.job_id);
    assert_eq!(stops, [(jobs[0].lease, Stop::Hold), (jobs[1].lease, Stop::Cancel)]);
}

async fn a_paused_broadcast_gives_out_no_work(w: World) {
    let id = w.ready_broadcast(1, 4, 2).await;
    let worker = w.worker(at(0)).await;
    pause(&w, &id, 1).await;
    assert!(w.claim(worker, JobKind::Deliver, 9, at(2)).await.unwrap().is_empty());
    assert_eq!(w.show(&id).await.counts.queued, 4);
    resume(&w, &id, 3).await;
    assert_eq!(w.claim(worker, JobKind::Deliver, 9, at(4)).await.unwrap().len(), 2);
}

async fn a_job_that_would_wait_is_held_while_its_broadcast_is_paused(w: World) {
    let id = w.ready_broadcast(1, 2, 1).await;
    let worker = w.worker(at(0)).await;
    let jobs = w.claim(worker, JobKind::Deliver, 2, at(0)).await.unwrap();
    pause(&w, &id, 1).await;
    w.finish(jobs[0].lease, JobEnd::Waiting(at(9_000)), at(2))
        .await
        .unwrap();
    w.finish(jobs[1].lease, JobEnd::Released, at(2)).await.unwrap();
    assert_eq!(w.jobs(Some("held"), 10).await.unwrap().len(), 2);
    assert_eq!(w.promote(at(10_000)).await.unwrap(), 0);
    assert!(
        w.claim(worker, JobKind::Deliver, 9, at(10_000))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_resume_before_the_owner_noticed_changes_nothing(w: World) {
    let id = w.ready_broadcast(1, 2, 10).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    pause(&w, &id, 1).await;
    resume(&w, &id, 2).await;
    let acks = w
        .commit_progress(&[progress(job.lease, vec![sent(0, at(3))], &[1])], at(3))
        .await
        .unwrap();
    assert_eq!(acks, [Ack::Durable { stop: None }]);
    // An owner that did notice in time gives the job back, and it is ready, not held.
    w.finish(job.lease, JobEnd::Stopped, at(4)).await.unwrap();
    w.claim_one(worker, JobKind::Deliver, at(5)).await;
}

async fn a_resumed_job_still_waits_for_its_time(w: World) {
    let id = w.ready_broadcast(1, 1, 1).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    w.finish(job.lease, JobEnd::Waiting(at(9_000)), at(1)).await.unwrap();
    pause(&w, &id, 2).await;
    assert_eq!(w.next_due().await.unwrap(), None);
    resume(&w, &id, 3).await;
    assert_eq!(w.next_due().await.unwrap(), Some(at(9_000)));
    pause(&w, &id, 4).await;
    resume(&w, &id, 9_000).await;
    w.claim_one(worker, JobKind::Deliver, at(9_000)).await;
}

async fn a_broadcast_resumed_after_its_time_starts(w: World) {
    let mut inline = broadcast(1, 2);
    let mut stored = NewBroadcast {
        audience: Audience::All,
        ..broadcast(2, 0)
    };
    (inline.send_at, stored.send_at) = (Some(at(1_000)), Some(at(1_000)));
    w.accept_new(&inline, &people(2), at(0)).await;
    w.accept(&stored, None, at(0)).await.unwrap();
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    w.fan_out(&job, 10, at(0)).await;
    for id in [&inline.id, &stored.id] {
        pause(&w, id, 1).await;
    }
    assert_eq!(w.promote(at(2_000)).await.unwrap(), 0);
    for (id, status) in [
        (&inline.id, BroadcastStatus::Sending),
        (&stored.id, BroadcastStatus::Accepted),
    ] {
        resume(&w, id, 3_000).await;
        let shown = w.show(id).await;
        assert_eq!((shown.status, shown.started_at), (status, Some(at(3_000))));
    }
    // Resumed before its time, it is scheduled still.
    let mut early = broadcast(3, 0);
    early.send_at = Some(at(9_000));
    w.accept(&early, None, at(3_000)).await.unwrap();
    pause(&w, &early.id, 3_001).await;
    resume(&w, &early.id, 3_002).await;
    assert_eq!(w.show(&early.id).await.status, BroadcastStatus::Scheduled);
}

async fn pausing_twice_keeps_the_first_reason(w: World) {
    let id = w.ready_broadcast(1, 1, 1).await;
    pause(&w, &id, 1).await;
    let reason = "another".to_owned();
    w.control(&id, &Wish::Pause { reason }, at(2)).await.unwrap();
    assert_eq!(w.show(&id).await.reason.as_deref(), Some("look again"));
    resume(&w, &id, 3).await;
    resume(&w, &id, 4).await;
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Sending);
}

async fn canceling_counts_what_was_not_settled_as_canceled(w: World) {
    let id = w.ready_broadcast(1, 12, 4).await;
    let worker = w.worker(at(0)).await;
    let jobs = w.claim(worker, JobKind::Deliver, 2, at(0)).await.unwrap();
    w.send_all(&jobs[0], at(1)).await;
    let two = vec![
        sent(0, at(2)),
        settled(1, MessageStatus::Queued, MessageStatus::Deferred, 1, at(2)),
        settled(2, MessageStatus::Queued, MessageStatus::Failed, 1, at(2)),
    ];
    w.commit_one(progress(jobs[1].lease, two, &[]), at(2)).await;
    w.finish(jobs[1].lease, JobEnd::Waiting(at(9_000)), at(3))
        .await
        .unwrap();
    cancel(&w, &id, 4).await;
    cancel(&w, &id, 5).await;
    let shown = w.show(&id).await;
    assert_eq!((shown.status, shown.finished_at), (BroadcastStatus::Canceled, Some(at(4))));
    let expected = Counts {
        sent: 5,
        failed: 1,
        canceled: 6,
        ..Counts::default()
    };
    assert_eq!(shown.counts, expected);
    assert_eq!(w.recount(&id).await.unwrap(), expected);
    assert_eq!(w.promote(at(10_000)).await.unwrap(), 0);
    assert!(
        w.claim(worker, JobKind::Deliver, 9, at(10_000))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_running_job_of_a_canceled_broadcast_ends_canceled(w: World) {
    let id = w.ready_broadcast(1, 4, 10).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    w.commit_one(progress(job.lease, Vec::new(), &[0, 1]), at(1)).await;
    cancel(&w, &id, 2).await;
    let shown = w.show(&id).await;
    assert_eq!((shown.status, shown.finished_at), (BroadcastStatus::Canceled, None));
    assert_eq!(shown.counts.queued, 4, "two of them may be on the wire: nothing is canceled yet");
    let last = progress(job.lease, vec![sent(0, at(3)), sent(1, at(3))], &[]);
    let stop = Some(Stop::Cancel);
    assert_eq!(w.commit_progress(&[last], at(3)).await.unwrap(), [Ack::Durable { stop }]);
    w.finish(job.lease, JobEnd::Stopped, at(4)).await.unwrap();
    let shown = w.show(&id).await;
    let expected = Counts {
        sent: 2,
        canceled: 2,
        ..Counts::default()
    };
    assert_eq!((shown.status, shown.finished_at, shown.counts), (BroadcastStatus::Canceled, Some(at(4)), expected));
    assert_eq!(w.recount(&id).await.unwrap(), expected);
}

async fn what_a_dead_owner_had_on_the_wire_is_wound_up_by_the_next_one(w: World) {
    let id = w.ready_broadcast(1, 3, 10).await;
    let dead = w.worker(at(0)).await;
    let job = w.claim_one(dead, JobKind::Deliver, at(0)).await;
    w.commit_one(progress(job.lease, Vec::new(), &[2]), at(1)).await;
    let now = at(LEASE_MS + 1);
    w.rescue(NOBODY, now).await.unwrap();
    pause(&w, &id, LEASE_MS + 1).await;
    cancel(&w, &id, LEASE_MS + 2).await;
    assert_eq!(w.show(&id).await.finished_at, None);
    let heir = w.worker(now).await;
    let job = w.claim_one(heir, JobKind::Deliver, now).await;
    assert_eq!((job.stop, job.inflight.as_slice()), (Some(Stop::Cancel), &[2][..]));
    let doubt = settled(2, MessageStatus::Queued, MessageStatus::Uncertain, 1, now);
    w.commit_one(progress(job.lease, vec![doubt], &[]), now).await;
    w.finish(job.lease, JobEnd::Stopped, now).await.unwrap();
    let shown = w.show(&id).await;
    let expected = Counts {
        uncertain: 1,
        canceled: 2,
        ..Counts::default()
    };
    assert_eq!((shown.counts, shown.finished_at), (expected, Some(now)));
}

async fn a_broadcast_can_be_canceled_while_paused_or_scheduled(w: World) {
    let paused = w.ready_broadcast(1, 3, 1).await;
    pause(&w, &paused, 1).await;
    let mut scheduled = broadcast(2, 3);
    scheduled.send_at = Some(at(9_000));
    w.accept_new(&scheduled, &people(3), at(0)).await;
    for id in [&paused, &scheduled.id] {
        cancel(&w, id, 2).await;
        let shown = w.show(id).await;
        let settled = (shown.status, shown.reason, shown.counts.canceled, shown.finished_at);
        assert_eq!(settled, (BroadcastStatus::Canceled, None, 3, Some(at(2))));
    }
    assert_eq!(w.sql("SELECT COUNT(*) FROM intake").await, ["0"]);
}

async fn a_quarantined_job_is_canceled_with_its_broadcast(w: World) {
    let id = w.ready_broadcast(1, 2, 1).await;
    let worker = w.worker(at(0)).await;
    let jobs = w.claim(worker, JobKind::Deliver, 2, at(0)).await.unwrap();
    w.commit_one(progress(jobs[1].lease, Vec::new(), &[0]), at(1)).await;
    for job in &jobs {
        w.quarantine(job.lease, "poison", at(2)).await.unwrap();
    }
    cancel(&w, &id, 3).await;
    // The one with a message on the wire still needs somebody to say what became of it.
    let job = w.claim_one(worker, JobKind::Deliver, at(4)).await;
    assert_eq!((job.lease.job_id, job.stop), (jobs[1].lease.job_id, Some(Stop::Cancel)));
    w.finish(job.lease, JobEnd::Stopped, at(5)).await.unwrap();
    let shown = w.show(&id).await;
    assert_eq!((shown.counts.canceled, shown.finished_at), (2, Some(at(5))));
}

async fn a_job_released_from_quarantine_keeps_to_a_pause(w: World) {
    let id = w.ready_broadcast(1, 1, 1).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    pause(&w, &id, 1).await;
    w.quarantine(job.lease, "poison", at(2)).await.unwrap();
    assert!(w.release_quarantined(job.lease.job_id, at(3)).await.unwrap());
    assert!(w.claim(worker, JobKind::Deliver, 1, at(4)).await.unwrap().is_empty());
    resume(&w, &id, 5).await;
    assert_eq!(w.claim_one(worker, JobKind::Deliver, at(6)).await.stop, None);
}

async fn a_rescued_job_of_a_paused_broadcast_comes_to_rest(w: World) {
    let id = w.ready_broadcast(1, 1, 1).await;
    let dead = w.worker(at(0)).await;
    w.claim_one(dead, JobKind::Deliver, at(0)).await;
    pause(&w, &id, 1).await;
    let now = at(LEASE_MS + 1);
    w.rescue(NOBODY, now).await.unwrap();
    let heir = w.worker(now).await;
    let job = w.claim_one(heir, JobKind::Deliver, now).await;
    assert_eq!(job.stop, Some(Stop::Hold));
    w.finish(job.lease, JobEnd::Stopped, now).await.unwrap();
    assert!(w.claim(heir, JobKind::Deliver, 1, now).await.unwrap().is_empty());
    assert_eq!(w.jobs(Some("held"), 10).await.unwrap().len(), 1);
}

async fn a_wish_that_does_not_fit_a_final_state_is_a_conflict(w: World) {
    let (completed, canceled) = (w.ready_broadcast(1, 1, 1).await, w.ready_broadcast(2, 1, 1).await);
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    w.send_all(&job, at(1)).await;
    cancel(&w, &canceled, 1).await;
    let reason = String::new();
    for (id, wish, word) in [
        (&completed, Wish::Cancel, "completed"),
        (&completed, Wish::Resume, "completed"),
        (&completed, Wish::Pause { reason: reason.clone() }, "completed"),
        (&canceled, Wish::Resume, "canceled"),
        (&canceled, Wish::Pause { reason }, "canceled"),
        (&broadcast_id(9), Wish::Cancel, "no broadcast"),
    ] {
        let answer = w.control(id, &wish, at(2)).await;
        assert!(matches!(&answer, Err(StoreError::Conflict(why)) if why.contains(word)), "{wish:?}: {answer:?}");
    }
}
