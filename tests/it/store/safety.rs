//! The gate behind a canary, the automatic pause, another try for what failed, and what refusals teach about addresses.
//! Conservation holds throughout.

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::contact::SuppressionReason;
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::job::{Claimed, JobEnd, JobKind, Stop};
use hikyaku::domain::message::MessageStatus::{Deferred, Failed, Queued, Sent};
use hikyaku::domain::safety::{
    CanaryRule, CanarySize, CanaryState, Evidence, Pause, PauseKind, Safety, Seen, Step, Watched,
};
use hikyaku::store::StoreError;
use hikyaku::store::delivery::{Ack, Bounce, BounceKind, FULL_SPAN_MS, INACTIVE_SPAN_MS, Settled};
use hikyaku::store::queue::Wish;

use super::contract;
use super::world::{World, at, broadcast, broadcast_id, people, progress, sent, settled, step};

contract! {
    what_stands_behind_a_canary_waits_for_its_gate,
    the_gate_opens_once_whoever_comes_first,
    a_chunk_cut_after_the_gate_opened_is_not_held,
    a_pause_and_a_resume_do_not_open_the_gate,
    a_held_canary_lets_the_rest_go_when_somebody_resumes_it,
    a_canceled_broadcast_is_canceled_behind_its_gate_too,
    a_planned_broadcast_waits_behind_its_canary_for_its_time,
    the_size_of_a_canary_is_decided_once,
    a_canary_that_was_everybody_is_over_with_its_broadcast,
    failures_are_counted_by_reason_and_only_once,
    an_automatic_pause_rests_on_what_was_seen,
    an_automatic_pause_reaches_a_running_job_in_its_next_commit,
    failed_messages_are_put_back_and_a_completed_broadcast_goes_on,
    a_retry_leaves_other_reasons_and_running_chunks_alone,
    a_retry_of_a_paused_broadcast_waits_for_the_resume,
    what_is_over_for_good_is_not_tried_again,
    a_hard_bounce_suppresses_in_the_same_commit,
    a_shut_mailbox_is_suppressed_when_it_stays_shut,
    a_full_mailbox_is_suppressed_after_three_sends_in_two_weeks,
    an_address_taken_off_the_list_begins_anew,
}

/// A broadcast to so many people whose first chunk of `first` is the canary, cut into chunks of five.
async fn with_canary(w: &World, recipients: usize, first: usize) -> BroadcastId {
    let mut new = broadcast(1, recipients);
    new.safety = first_few(first as i64);
    w.accept_new(&new, &people(recipients), at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    assert_eq!(w.canary_left(&new.id).await.unwrap(), first as i64);
    let all = people(recipients);
    cut(w, &job, 0, &all[..first], true).await;
    for (seq, chunk) in (1..).zip(all[first..].chunks(5)) {
        cut(w, &job, seq, chunk, false).await;
    }
    w.finish_fan_out(job.lease, 0, 0, at(0)).await.unwrap();
    w.retire_worker(worker, at(0)).await.unwrap();
    new.id
}

fn first_few(n: i64) -> Safety {
    Safety {
        canary: Some(CanaryRule {
            first: CanarySize::Count(n),
            hold_above_percent: 5,
        }),
        auto_pause: None,
    }
}

async fn cut(w: &World, job: &Claimed, seq: i64, chunk: &[hikyaku::domain::recipient::Recipient], is_canary: bool) {
    let mut next = step(seq, chunk);
    next.is_canary = is_canary;
    w.fan_out_next(job.lease, &next, at(0)).await.unwrap();
}

/// The broadcast as this worker watches it.
async fn watched(w: &World, worker: i64) -> Watched {
    w.watched(worker).await.unwrap().pop().expect("it is under watch").1
}

async fn states(w: &World) -> Vec<String> {
    w.sql("SELECT state FROM jobs WHERE kind = 'deliver' ORDER BY seq")
        .await
}

fn fail(ordinal: u16, class: &'static str, ms: i64) -> Settled {
    let mut one = settled(ordinal, Queued, Failed, 1, at(ms));
    one.outcome.class = class;
    one
}

fn pause_for(class: &str) -> Step {
    Step::Pause(Pause {
        kind: PauseKind::Refused,
        evidence: Some(Evidence {
            class: class.into(),
            failed: 2,
            outcomes: 3,
            percent_max: 5,
            concerns_the_rest: true,
            example: None,
        }),
    })
}

async fn assert_counted(w: &World, id: &BroadcastId) {
    let shown = w.show(id).await;
    assert_eq!(shown.counts.total(), shown.received.accepted());
    assert_eq!(w.recount(id).await.unwrap(), shown.counts);
    let by_reason: i64 = w.failures(id).await.unwrap().iter().map(|f| f.n).sum();
    assert_eq!(by_reason, shown.counts.failed, "failures by reason are all of them");
}

async fn what_stands_behind_a_canary_waits_for_its_gate(w: World) {
    let id = with_canary(&w, 13, 3).await;
    assert_eq!(states(&w).await, ["ready", "held", "held"]);
    let worker = w.worker(at(1)).await;
    let claimed = w.claim(worker, JobKind::Deliver, 9, at(1)).await.unwrap();
    assert_eq!(claimed.iter().map(|j| j.seq).collect::<Vec<_>>(), [0]);
    let seen = watched(&w, worker).await;
    assert_eq!((seen.canary, seen.canary_size), (Some(CanaryState::Running), 3));
    assert_eq!((seen.tally.size, seen.tally.queued, seen.tally.is_split), (3, 3, true));
    w.send_all(&claimed[0], at(2)).await;
    let seen = watched(&w, worker).await;
    assert_eq!((seen.tally.sent, seen.tally.queued), (3, 0), "the rest is not counted");
    assert_eq!(w.show(&id).await.counts.queued, 10);

    assert!(w.take_step(&id, &seen, &Step::OpenGate, at(3)).await.unwrap());
    assert_eq!(states(&w).await, ["done", "ready", "ready"]);
    assert_eq!(w.show(&id).await.canary, Some((CanaryState::Passed, Some(3))));
    for job in w.claim(worker, JobKind::Deliver, 9, at(4)).await.unwrap() {
        w.send_all(&job, at(5)).await;
    }
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Completed);
    assert_counted(&w, &id).await;
}

async fn the_gate_opens_once_whoever_comes_first(w: World) {
    let id = with_canary(&w, 13, 3).await;
    let worker = w.worker(at(1)).await;
    let seen = watched(&w, worker).await;
    let nodes = [w.share(), w.open_again().await, w.share()];
    let mut tries = tokio::task::JoinSet::new();
    for node in nodes {
        let (id, seen) = (id.clone(), seen.clone());
        tries.spawn(async move { node.take_step(&id, &seen, &Step::OpenGate, at(2)).await.unwrap() });
    }
    let opened = tries.join_all().await.into_iter().filter(|done| *done).count();
    assert_eq!(opened, 1);
    // Whoever decided for a hold on the same sight comes too late.
    assert!(!w.take_step(&id, &seen, &pause_for("auth_policy"), at(3)).await.unwrap());
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Sending);
}

async fn a_chunk_cut_after_the_gate_opened_is_not_held(w: World) {
    let mut new = broadcast(1, 13);
    new.safety = first_few(3);
    w.accept_new(&new, &people(13), at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    let all = people(13);
    cut(&w, &job, 0, &all[..3], true).await;
    cut(&w, &job, 1, &all[3..8], false).await;
    assert_eq!(w.canary_left(&new.id).await.unwrap(), 0, "a fan-out that starts again has no canary left to cut");
    let seen = watched(&w, worker).await;
    assert!(!seen.tally.is_split);
    assert!(w.take_step(&new.id, &seen, &Step::OpenGate, at(1)).await.unwrap());
    cut(&w, &job, 2, &all[8..], false).await;
    assert_eq!(states(&w).await, ["ready", "ready", "ready"]);
}

async fn a_pause_and_a_resume_do_not_open_the_gate(w: World) {
    let id = with_canary(&w, 13, 3).await;
    let worker = w.worker(at(1)).await;
    let seen = watched(&w, worker).await;
    assert!(w.take_step(&id, &seen, &Step::CanaryTried, at(1)).await.unwrap());
    assert_eq!(watched(&w, worker).await.canary_tried_at, Some(at(1)));
    let reason = "look again".to_owned();
    w.control(&id, &Wish::Pause { reason }, at(2)).await.unwrap();
    assert_eq!(states(&w).await, ["held", "held", "held"]);
    assert!(w.watched(worker).await.unwrap().is_empty(), "what is paused is not judged");
    assert!(!w.take_step(&id, &seen, &Step::OpenGate, at(3)).await.unwrap());
    w.control(&id, &Wish::Resume, at(4)).await.unwrap();
    assert_eq!(states(&w).await, ["ready", "held", "held"]);
    let again = watched(&w, worker).await;
    assert_eq!((again.canary, again.canary_tried_at), (Some(CanaryState::Running), None), "the wait begins anew");
    // To resume what is not paused changes nothing.
    w.control(&id, &Wish::Resume, at(5)).await.unwrap();
    assert_eq!(states(&w).await, ["ready", "held", "held"]);
}

async fn a_held_canary_lets_the_rest_go_when_somebody_resumes_it(w: World) {
    let id = with_canary(&w, 13, 3).await;
    let worker = w.worker(at(1)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(1)).await;
    let lines = vec![fail(0, "auth_policy", 1), fail(1, "auth_policy", 1), sent(2, at(1))];
    w.commit_one(progress(job.lease, lines, &[]), at(1)).await;
    w.finish(job.lease, JobEnd::Done, at(1)).await.unwrap();
    let seen = watched(&w, worker).await;
    assert_eq!((seen.tally.failed, seen.tally.sent), (2, 1));
    let Step::Pause(mut pause) = pause_for("auth_policy") else {
        unreachable!()
    };
    pause.kind = PauseKind::Canary;
    assert!(w.take_step(&id, &seen, &Step::Pause(pause), at(2)).await.unwrap());
    let shown = w.show(&id).await;
    assert_eq!((shown.status, shown.canary), (BroadcastStatus::Paused, Some((CanaryState::Held, Some(3)))));
    assert!(shown.reason.unwrap().contains("2 of the first 3 messages failed"));
    let (pause, since) = shown.pause.unwrap();
    assert_eq!((pause.kind, since), (PauseKind::Canary, at(2)));
    let example = pause.evidence.unwrap().example.expect("a failed message is shown");
    assert_eq!((example.code, example.text.as_str()), (Some(550), "no such user"));

    w.control(&id, &Wish::Resume, at(3)).await.unwrap();
    assert_eq!(states(&w).await, ["done", "ready", "ready"]);
    let shown = w.show(&id).await;
    assert_eq!((shown.canary, shown.pause), (Some((CanaryState::Released, Some(3))), None));
    assert_counted(&w, &id).await;
}

async fn a_canceled_broadcast_is_canceled_behind_its_gate_too(w: World) {
    let id = with_canary(&w, 13, 3).await;
    let worker = w.worker(at(1)).await;
    let seen = watched(&w, worker).await;
    w.control(&id, &Wish::Cancel, at(2)).await.unwrap();
    assert!(!w.take_step(&id, &seen, &Step::OpenGate, at(3)).await.unwrap());
    assert_eq!(states(&w).await, ["canceled", "canceled", "canceled"]);
    let shown = w.show(&id).await;
    assert_eq!((shown.counts.canceled, shown.canary), (13, Some((CanaryState::Over, Some(3)))));
    assert_counted(&w, &id).await;
}

async fn a_planned_broadcast_waits_behind_its_canary_for_its_time(w: World) {
    let mut new = broadcast(1, 8);
    new.safety = first_few(3);
    new.send_at = Some(at(10_000));
    w.accept_new(&new, &people(8), at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    assert_eq!(w.canary_left(&new.id).await.unwrap(), 3);
    let all = people(8);
    cut(&w, &job, 0, &all[..3], true).await;
    cut(&w, &job, 1, &all[3..], false).await;
    w.finish_fan_out(job.lease, 0, 0, at(0)).await.unwrap();
    assert_eq!(states(&w).await, ["waiting", "held"]);
    assert!(w.watched(worker).await.unwrap().is_empty(), "nothing is on its way");
    w.promote(at(10_000)).await.unwrap();
    assert_eq!(states(&w).await, ["ready", "held"]);
    let seen = watched(&w, worker).await;
    assert!(w.take_step(&new.id, &seen, &Step::OpenGate, at(10_001)).await.unwrap());
    assert_eq!(states(&w).await, ["ready", "ready"]);
}

async fn the_size_of_a_canary_is_decided_once(w: World) {
    let mut new = broadcast(1, 30);
    new.received = 41;
    new.rejected = 6;
    new.duplicates = 5;
    new.safety.canary = Some(CanaryRule {
        first: CanarySize::Percent(10),
        hold_above_percent: 5,
    });
    w.accept_new(&new, &people(30), at(0)).await;
    assert_eq!(w.show(&new.id).await.canary, Some((CanaryState::Running, None)));
    assert_eq!(w.canary_left(&new.id).await.unwrap(), 3);
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    cut(&w, &job, 0, &people(30)[..2], true).await;
    assert_eq!(w.canary_left(&new.id).await.unwrap(), 1);
    assert_eq!(w.show(&new.id).await.canary, Some((CanaryState::Running, Some(3))));
    let plain = broadcast(2, 1);
    w.accept_new(&plain, &people(1), at(0)).await;
    assert_eq!(w.canary_left(&plain.id).await.unwrap(), 0);
}

async fn a_canary_that_was_everybody_is_over_with_its_broadcast(w: World) {
    let id = with_canary(&w, 3, 3).await;
    let worker = w.worker(at(1)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(1)).await;
    w.send_all(&job, at(2)).await;
    let shown = w.show(&id).await;
    assert_eq!((shown.status, shown.canary), (BroadcastStatus::Completed, Some((CanaryState::Over, Some(3)))));
}

async fn failures_are_counted_by_reason_and_only_once(w: World) {
    let id = w.ready_broadcast(1, 12, 6).await;
    let worker = w.worker(at(0)).await;
    let jobs = w.claim(worker, JobKind::Deliver, 2, at(0)).await.unwrap();
    assert!(w.watched(worker).await.unwrap().is_empty(), "where nothing failed there is nothing to look at");
    let one = progress(jobs[0].lease, vec![fail(0, "unknown", 1), fail(1, "auth_policy", 1), sent(2, at(1))], &[]);
    let other = progress(jobs[1].lease, vec![fail(3, "auth_policy", 2)], &[]);
    w.commit_progress(&[one.clone(), other], at(2)).await.unwrap();
    // Its answer was lost, and it is repeated.
    let acks = w.commit_progress(&[one], at(3)).await.unwrap();
    assert!(matches!(acks[..], [Ack::Durable { .. }]));
    let mut later = fail(4, "auth_policy", 4);
    later.outcome.reply.text = "the latest".into();
    let mut tried = settled(5, Queued, Deferred, 1, at(4));
    tried.outcome.class = "greylisted";
    w.commit_one(progress(jobs[0].lease, vec![later, tried], &[]), at(4))
        .await;
    let found = w.failures(&id).await.unwrap();
    let told: Vec<_> = found
        .iter()
        .map(|f| (f.class.as_str(), f.n, f.example.text.as_str()))
        .collect();
    assert_eq!(told, [("auth_policy", 3, "the latest"), ("unknown", 1, "no such user")]);
    let example = w
        .message(found[0].example.message_id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((example.status, example.class.as_str()), (Failed, "auth_policy"));
    let seen = watched(&w, worker).await;
    assert_eq!((seen.tally.failed, seen.tally.sent, seen.tally.deferred, seen.tally.queued), (4, 1, 1, 6));
    assert_eq!(seen.tally.by_class[0].n, 3);
    // A lapsed lease counts nothing.
    let lost = w.worker(at(0)).await;
    let late = at(super::world::LEASE_MS + 1);
    let rescuer = w.worker(late).await;
    w.rescue(rescuer, late).await.unwrap();
    let acks = w
        .commit_progress(&[progress(jobs[1].lease, vec![fail(0, "unknown", 9)], &[])], at(9))
        .await
        .unwrap();
    assert_eq!(acks, [Ack::Fenced]);
    assert!(w.watched(lost).await.unwrap().is_empty(), "another worker's broadcast is its business");
    assert_counted(&w, &id).await;
}

async fn an_automatic_pause_rests_on_what_was_seen(w: World) {
    let id = w.ready_broadcast(1, 12, 6).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let lines = vec![fail(0, "auth_policy", 1), fail(1, "auth_policy", 1), sent(2, at(1))];
    w.commit_one(progress(job.lease, lines, &[]), at(1)).await;
    let seen = watched(&w, worker).await;
    assert_eq!(seen.seen, Seen::default());
    let reckoned = seen.seen.at(&seen.tally);
    assert!(
        w.take_step(&id, &seen, &Step::Reckon(reckoned.clone()), at(2))
            .await
            .unwrap()
    );
    // Another node decided on the counts before: its evidence is not the present one.
    assert!(!w.take_step(&id, &seen, &pause_for("auth_policy"), at(3)).await.unwrap());
    let seen = watched(&w, worker).await;
    assert_eq!(seen.seen, reckoned);
    assert!(w.take_step(&id, &seen, &pause_for("auth_policy"), at(4)).await.unwrap());
    assert!(!w.take_step(&id, &seen, &pause_for("auth_policy"), at(5)).await.unwrap(), "it is paused already");
    let shown = w.show(&id).await;
    assert_eq!(shown.status, BroadcastStatus::Paused);
    assert!(shown.reason.unwrap().contains("2 of the last 3"));

    w.control(&id, &Wish::Resume, at(6)).await.unwrap();
    let seen = watched(&w, worker).await;
    assert_eq!((seen.seen.failed, seen.seen.outcomes, seen.seen.refused_percent), (2, 3, 50), "seen, and let pass");
    assert_eq!(seen.seen.by_class[0].n, 2);
}

async fn an_automatic_pause_reaches_a_running_job_in_its_next_commit(w: World) {
    let id = w.ready_broadcast(1, 12, 6).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    w.commit_one(progress(job.lease, vec![fail(0, "auth_policy", 1)], &[]), at(1))
        .await;
    let seen = watched(&w, worker).await;
    assert!(w.take_step(&id, &seen, &pause_for("auth_policy"), at(2)).await.unwrap());
    let acks = w
        .commit_progress(&[progress(job.lease, vec![sent(1, at(3))], &[])], at(3))
        .await
        .unwrap();
    assert_eq!(acks, [Ack::Durable { stop: Some(Stop::Hold) }]);
    w.finish(job.lease, JobEnd::Stopped, at(4)).await.unwrap();
    assert_eq!(states(&w).await, ["held", "held"]);
    assert_counted(&w, &id).await;
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
