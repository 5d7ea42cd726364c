//! The gate behind a canary, and the automatic pause. Conservation holds throughout.

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::job::{Claimed, JobEnd, JobKind, Stop};
use hikyaku::domain::message::MessageStatus::{Deferred, Failed, Queued};
use hikyaku::domain::safety::{
    CanaryRule, CanarySize, CanaryState, Evidence, Pause, PauseKind, Safety, Seen, Step, Watched,
};
use hikyaku::store::delivery::{Ack, Settled};
use hikyaku::store::queue::Wish;

use super::contract;
use super::world::{World, at, broadcast, people, progress, sent, settled, step};

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
pub async fn watched(w: &World, worker: i64) -> Watched {
    w.watched(worker).await.unwrap().pop().expect("it is under watch").1
}

pub async fn states(w: &World) -> Vec<String> {
    w.sql("SELECT state FROM jobs WHERE kind = 'deliver' ORDER BY seq")
        .await
}

pub fn fail(ordinal: u16, class: &'static str, ms: i64) -> Settled {
    let mut one = settled(ordinal, Queued, Failed, 1, at(ms));
    one.outcome.class = class;
    one
}

pub fn pause_for(class: &str) -> Step {
    Step::Pause(Pause {
        kind: PauseKind::Refused,
        evidence: Some(Evidence {
            class: class.into(),
            failed: 2,
            outcomes: 3,
            percent_max: 5,
            over_all: None,
            concerns_the_rest: true,
            relay: None,
            example: None,
        }),
    })
}

pub async fn assert_counted(w: &World, id: &BroadcastId) {
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
