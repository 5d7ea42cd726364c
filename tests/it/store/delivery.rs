//! Recording what became of messages: the group commit, counters, attempts. Never decides an outcome.

use hikyaku::domain::id::MessageId;
use hikyaku::domain::job::{JobKind, Lease, Stop};
use hikyaku::domain::message::{MessageStatus, Outcome, ReplyNote};
use hikyaku::store::StoreError;
use hikyaku::store::delivery::{Ack, Earlier, Progress, Settled};
use hikyaku::store::queue::Wish;

use super::contract;
use super::world::{World, at, progress, sent, settled};

contract! {
    a_group_commit_answers_for_each_job_and_a_fenced_one_spoils_no_other,
    an_empty_group_commit_writes_nothing,
    a_deferred_message_that_is_sent_moves_the_counters,
    every_outcome_has_its_counter,
    the_only_attempt_of_a_message_sent_at_once_is_shown,
    a_message_that_was_retried_keeps_every_attempt,
    an_outcome_that_reached_no_relay_is_no_attempt,
    an_attempt_may_be_in_doubt_while_its_message_goes_on,
    possible_duplicates_are_counted_once,
    a_commit_repeated_after_a_lost_answer_counts_once,
    words_of_relays_read_back_as_they_were,
    a_batch_that_the_counters_cannot_follow_is_refused,
    intents_replace_each_other,
    the_next_owner_sees_what_earlier_attempts_left,
    suppressions_are_seen_at_once,
    a_relay_has_one_id,
    unknown_jobs_and_broadcasts_are_errors_not_panics,
}

/// Messages that were all sent are written in one go, and others step by step: both come to the same.
const WAYS: [MessageStatus; 2] = [MessageStatus::Sent, MessageStatus::Failed];

async fn a_group_commit_answers_for_each_job_and_a_fenced_one_spoils_no_other(w: World) {
    for (n, last) in (1..).zip(WAYS) {
        let id = w.ready_broadcast(n, 9, 3).await;
        let worker = w.worker(at(0)).await;
        let jobs = w.claim(worker, JobKind::Deliver, 3, at(0)).await.unwrap();
        let stale = Lease {
            epoch: jobs[1].lease.epoch - 1,
            ..jobs[1].lease
        };
        let lines = || {
            let last = settled(2, MessageStatus::Queued, last, 1, at(1));
            vec![sent(0, at(1)), last]
        };
        let batch: Vec<Progress> = [jobs[0].lease, stale, jobs[2].lease]
            .into_iter()
            .map(|lease| progress(lease, lines(), &[1]))
            .collect();
        let acks = w.commit_progress(&batch, at(1)).await.unwrap();
        assert_eq!(acks, [Ack::Durable { stop: None }, Ack::Fenced, Ack::Durable { stop: None }]);
        let counts = w.show(&id).await.counts;
        let n_sent = if last == MessageStatus::Sent { 4 } else { 2 };
        assert_eq!((counts.queued, counts.sent, counts.failed), (5, n_sent, 4 - n_sent));
        assert_eq!(w.recount(&id).await.unwrap(), counts);
        let inflight = w
            .sql("SELECT inflight FROM jobs WHERE kind = 'deliver' ORDER BY id DESC LIMIT 3")
            .await;
        assert_eq!(inflight, ["[1]", "[]", "[1]"]);
    }
}

async fn an_empty_group_commit_writes_nothing(w: World) {
    assert!(w.commit_progress(&[], at(0)).await.unwrap().is_empty());
}

async fn a_deferred_message_that_is_sent_moves_the_counters(w: World) {
    let id = w.ready_broadcast(1, 2, 10).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let steps = [
        (MessageStatus::Queued, MessageStatus::Deferred, (1, 1, 0)),
        (MessageStatus::Deferred, MessageStatus::Deferred, (1, 1, 0)),
        (MessageStatus::Deferred, MessageStatus::Sent, (1, 0, 1)),
    ];
    for (tries, (before, after, expected)) in (1..).zip(steps) {
        let one = settled(1, before, after, tries, at(tries));
        w.commit_one(progress(job.lease, vec![one], &[]), at(tries)).await;
        let counts = w.show(&id).await.counts;
        assert_eq!((counts.queued, counts.deferred, counts.sent), expected, "after try {tries}");
        assert_eq!(w.recount(&id).await.unwrap(), counts);
    }
}

async fn every_outcome_has_its_counter(w: World) {
    let id = w.ready_broadcast(1, 7, 10).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let all = [
        MessageStatus::Sent,
        MessageStatus::Failed,
        MessageStatus::Deferred,
        MessageStatus::Suppressed,
        MessageStatus::Uncertain,
        MessageStatus::Expired,
    ];
    let lines = (0..)
        .zip(all)
        .map(|(o, after)| settled(o, MessageStatus::Queued, after, 1, at(1)));
    w.commit_one(progress(job.lease, lines.collect(), &[]), at(1)).await;
    let counts = w.show(&id).await.counts;
    assert!(all.iter().all(|s| counts.get(*s) == 1), "{counts:?}");
    assert_eq!((counts.queued, counts.total()), (1, 7));
    assert_eq!(w.recount(&id).await.unwrap(), counts);
}

/// The one job of a broadcast to this many people, claimed, and the id of its first message.
async fn claimed(w: &World, n: usize) -> (Lease, MessageId) {
    w.ready_broadcast(1, n, 1_000).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let job_id = job.lease.job_id;
    (job.lease, MessageId { job_id, ordinal: 0 })
}

async fn the_only_attempt_of_a_message_sent_at_once_is_shown(w: World) {
    let (lease, id) = claimed(&w, 1).await;
    assert!(w.attempts(id).await.unwrap().is_empty());
    let relay = w.relay_id("primary").await.unwrap();
    let one = Settled {
        relay_id: Some(relay),
        ..sent(0, at(5))
    };
    w.commit_one(progress(lease, vec![one], &[]), at(6)).await;
    assert_eq!(w.sql("SELECT COUNT(*) FROM attempts").await, ["0"], "the message's own row says it all");
    let attempts = w.attempts(id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    let only = &attempts[0];
    assert_eq!((only.n, only.status, only.at), (1, MessageStatus::Sent, at(5)));
    assert_eq!((only.reply.code, only.relay.as_deref()), (Some(250), Some("primary")));
}

async fn a_message_that_was_retried_keeps_every_attempt(w: World) {
    let (lease, id) = claimed(&w, 1).await;
    let (first, second) = (w.relay_id("first").await.unwrap(), w.relay_id("second").await.unwrap());
    let tries = [
        (MessageStatus::Queued, MessageStatus::Deferred, first),
        (MessageStatus::Deferred, MessageStatus::Deferred, second),
        (MessageStatus::Deferred, MessageStatus::Sent, second),
    ];
    for (n, (before, after, relay)) in (1..).zip(tries) {
        let one = Settled {
            relay_id: Some(relay),
            ..settled(0, before, after, n, at(n * 10))
        };
        w.commit_one(progress(lease, vec![one], &[]), at(n * 10)).await;
    }
    let attempts = w.attempts(id).await.unwrap();
    let told: Vec<_> = attempts
        .iter()
        .map(|a| (a.n, a.status, a.reply.code, a.relay.as_deref(), a.at))
        .collect();
    assert_eq!(
        told,
        [
            (1, MessageStatus::Deferred, Some(451), Some("first"), at(10)),
            (2, MessageStatus::Deferred, Some(451), Some("second"), at(20)),
            (3, MessageStatus::Sent, Some(250), Some("second"), at(30)),
        ]
    );
    let message = w.message(id).await.unwrap().expect("it exists");
    assert_eq!((message.attempts, message.status, message.at), (3, MessageStatus::Sent, Some(at(30))));
    assert_eq!((message.next_at, message.relay.as_deref()), (None, Some("second")));
}

async fn an_outcome_that_reached_no_relay_is_no_attempt(w: World) {
    let (lease, id) = claimed(&w, 1).await;
    let unreachable = Settled {
        attempt: None,
        ..settled(0, MessageStatus::Queued, MessageStatus::Deferred, 0, at(1))
    };
    w.commit_one(progress(lease, vec![unreachable], &[]), at(1)).await;
    assert!(w.attempts(id).await.unwrap().is_empty());
    let message = w.message(id).await.unwrap().expect("it exists");
    assert_eq!((message.attempts, message.next_at), (0, Some(at(60_001))));
    let one = settled(0, MessageStatus::Deferred, MessageStatus::Sent, 1, at(2));
    w.commit_one(progress(lease, vec![one], &[]), at(2)).await;
    assert_eq!(w.attempts(id).await.unwrap().len(), 1);
}

async fn an_attempt_may_be_in_doubt_while_its_message_goes_on(w: World) {
    let (lease, id) = claimed(&w, 1).await;
    let doubtful = Settled {
        attempt: Some(MessageStatus::Uncertain),
        ..settled(0, MessageStatus::Queued, MessageStatus::Deferred, 1, at(1))
    };
    w.commit_one(progress(lease, vec![doubtful], &[]), at(1)).await;
    assert_eq!(w.attempts(id).await.unwrap()[0].status, MessageStatus::Uncertain);
    let message = w.message(id).await.unwrap().expect("it exists");
    assert_eq!(message.status, MessageStatus::Deferred);
    assert_eq!(w.show(&message.broadcast_id).await.counts.deferred, 1);
}

async fn a_commit_repeated_after_a_lost_answer_counts_once(w: World) {
    for (n, status) in (1..).zip(WAYS) {
        let id = w.ready_broadcast(n, 4, 2).await;
        let worker = w.worker(at(0)).await;
        let jobs = w.claim(worker, JobKind::Deliver, 2, at(0)).await.unwrap();
        let line = settled(0, MessageStatus::Queued, status, 1, at(1));
        let first = progress(jobs[0].lease, vec![line], &[1]);
        w.commit_one(first.clone(), at(1)).await;
        // Repeated together with another job's news, and with a wish that came meanwhile.
        let reason = "look again".to_owned();
        w.control(&id, &Wish::Pause { reason }, at(2)).await.unwrap();
        let batch = [first.clone(), progress(jobs[1].lease, vec![sent(1, at(2))], &[])];
        let stop = Some(Stop::Hold);
        assert_eq!(w.commit_progress(&batch, at(2)).await.unwrap(), [Ack::Durable { stop }; 2]);
        let counts = w.show(&id).await.counts;
        assert_eq!((counts.sent + counts.failed, counts.queued), (2, 2));
        assert_eq!(w.recount(&id).await.unwrap(), counts);
        // An older commit than the last one is nobody's repetition.
        w.commit_one(progress(jobs[0].lease, Vec::new(), &[]), at(3)).await;
        assert_eq!(w.commit_progress(&[first], at(4)).await.unwrap(), [Ack::Fenced]);
    }
}

async fn possible_duplicates_are_counted_once(w: World) {
    let (lease, id) = claimed(&w, 2).await;
    for (tries, before, after, newly_flagged) in [
        (1, MessageStatus::Queued, MessageStatus::Deferred, true),
        (2, MessageStatus::Deferred, MessageStatus::Sent, false),
    ] {
        let plain = settled(0, before, after, tries, at(tries));
        let one = Settled {
            outcome: Outcome {
                possible_duplicate: true,
                ..plain.outcome.clone()
            },
            newly_flagged,
            ..plain
        };
        w.commit_one(progress(lease, vec![one], &[]), at(tries)).await;
    }
    let message = w.message(id).await.unwrap().expect("it exists");
    assert!(message.possible_duplicate);
    assert_eq!(w.rate(&message.broadcast_id, at(3)).await.unwrap().possible_duplicates, 1);
}

async fn words_of_relays_read_back_as_they_were(w: World) {
    let (lease, id) = claimed(&w, 4).await;
    let words = [
        "it's \"busy\" \\ {json: [1, null]} <a@b.example> \u{1F4EE} Żółw",
        "",
        "line\r\nbreak\tand \u{7f} \u{1b}[0m and $1 ?1 %s '; DROP TABLE jobs; --",
        "null",
    ];
    let lines = (0..).zip(words).map(|(ordinal, words)| {
        let plain = settled(ordinal, MessageStatus::Queued, MessageStatus::Failed, 1, at(1));
        Settled {
            outcome: Outcome {
                reply: ReplyNote {
                    code: None,
                    enhanced: None,
                    text: words.to_owned(),
                },
                class: "invalid_recipient",
                ..plain.outcome
            },
            ..plain
        }
    });
    w.commit_one(progress(lease, lines.collect(), &[]), at(1)).await;
    for (ordinal, words) in (0..).zip(words) {
        let id = MessageId { ordinal, ..id };
        let message = w.message(id).await.unwrap().expect("it exists");
        let expected = ReplyNote {
            code: None,
            enhanced: None,
            text: words.to_owned(),
        };
        assert_eq!((message.reply.as_ref(), message.class.as_str()), (Some(&expected), "invalid_recipient"));
        assert_eq!(w.attempts(id).await.unwrap()[0].reply, expected);
    }
}

async fn a_batch_that_the_counters_cannot_follow_is_refused(w: World) {
    let (lease, _) = claimed(&w, 5).await;
    let one = || progress(lease, vec![sent(0, at(1))], &[]);
    let canceled = settled(0, MessageStatus::Queued, MessageStatus::Canceled, 0, at(1));
    let reopened = settled(0, MessageStatus::Sent, MessageStatus::Failed, 1, at(1));
    for (what, batch) in [
        ("a job twice", vec![one(), one()]),
        ("a message twice", vec![progress(lease, vec![sent(0, at(1)), sent(0, at(1))], &[])]),
        ("canceled by itself", vec![progress(lease, vec![canceled], &[])]),
        ("settled anew", vec![progress(lease, vec![reopened], &[])]),
    ] {
        let refused = w.commit_progress(&batch, at(1)).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{what}: {refused:?}");
    }
    assert_eq!(w.sql("SELECT COUNT(*) FROM messages").await, ["0"]);
    w.commit_one(one(), at(1)).await;
}

async fn intents_replace_each_other(w: World) {
    let (lease, _) = claimed(&w, 5).await;
    for (inflight, stored) in [(&[0, 1, 2][..], "[0,1,2]"), (&[4], "[4]"), (&[], "[]")] {
        w.commit_one(progress(lease, Vec::new(), inflight), at(1)).await;
        assert_eq!(w.sql("SELECT inflight FROM jobs WHERE kind = 'deliver'").await, [stored]);
    }
}

async fn the_next_owner_sees_what_earlier_attempts_left(w: World) {
    let (lease, _) = claimed(&w, 3).await;
    let plain = settled(1, MessageStatus::Queued, MessageStatus::Deferred, 2, at(7));
    let one = Settled {
        burnt: 1,
        outcome: Outcome {
            possible_duplicate: true,
            ..plain.outcome.clone()
        },
        ..plain
    };
    w.commit_one(progress(lease, vec![one], &[]), at(7)).await;
    let earlier = w.chunk_work(lease).await.unwrap().earlier;
    let expected = Earlier {
        ordinal: 1,
        status: MessageStatus::Deferred,
        attempts: 2,
        burnt: 1,
        possible_duplicate: true,
        next_at: Some(at(60_007)),
    };
    assert_eq!(earlier, [expected]);
}

async fn suppressions_are_seen_at_once(w: World) {
    let asked = ["a@example.org", "o'neil@example.org", "ż@example.org", "d@example.org"].map(str::to_owned);
    assert!(w.suppressed_among(&asked).await.unwrap().is_empty());
    assert!(w.suppressed_among(&[]).await.unwrap().is_empty());
    let manual = hikyaku::domain::contact::SuppressionReason::Manual;
    w.suppress(&asked[1..3], manual, "ui", at(0)).await.unwrap();
    let found = w.suppressed_among(&asked).await.unwrap();
    assert_eq!(found, asked[1..3].iter().cloned().collect());
}

async fn a_relay_has_one_id(w: World) {
    let first = w.relay_id("smtp.example.org:587").await.unwrap();
    let other = w.relay_id("smtp.example.org:25").await.unwrap();
    assert_ne!(first, other);
    assert_eq!(w.relay_id("smtp.example.org:587").await.unwrap(), first);
}

async fn unknown_jobs_and_broadcasts_are_errors_not_panics(w: World) {
    let nobody = super::world::broadcast_id(404);
    assert!(w.brief(&nobody).await.is_err());
    assert!(w.sources(&nobody).await.is_err());
    let lease = Lease { job_id: 404, epoch: 1 };
    assert!(w.chunk_work(lease).await.is_err());
    assert!(w.broadcast(&nobody).await.unwrap().is_none());
    let id = MessageId {
        job_id: 404,
        ordinal: 0,
    };
    assert!(w.message(id).await.unwrap().is_none());
    assert!(w.attempts(id).await.unwrap().is_empty());
}
