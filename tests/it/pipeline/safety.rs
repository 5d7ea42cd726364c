//! A broadcast that goes wrong stops, and one that starts with a few goes on when they went well. Real workers, real refusals.

use hikyaku::domain::broadcast::{BroadcastStatus, NewBroadcast, OnUncertain};
use hikyaku::domain::finding::FindingKind;
use hikyaku::domain::message::MessageStatus::{Deferred, Failed, Sent};
use hikyaku::domain::recipient::Recipient;
use hikyaku::domain::safety::{AutoPause, CanaryRule, CanarySize, CanaryState, PauseKind};
use hikyaku::pipeline::control::retry;
use hikyaku::sink::{Act, At, Script, Sink, SinkOptions};
use hikyaku::store::queue::Wish;

use super::stage::{Plan, Stage, eventually, people, to};
use super::stories;
use crate::support::database::TestDatabase;

stories!(
    the_rest_waits_for_its_canary_and_follows_it,
    a_canary_that_fails_holds_the_rest_until_somebody_resumes_it,
    a_canary_waits_for_its_deferred_messages_and_not_for_ever,
    a_broadcast_whose_sender_is_refused_stops_goes_on_and_leaves_nobody_out,
    a_list_of_dead_addresses_stops_and_a_second_look_lets_it_pass,
    one_odd_receiver_does_not_stop_everybody,
    an_address_that_nobody_has_is_suppressed_for_the_next_broadcast,
    a_dialogue_that_breaks_its_rules_is_tried_three_times,
    a_receiver_that_has_had_enough_of_a_session_gets_a_fresh_one_at_once,
    a_relay_that_takes_mail_without_a_word_gets_nobody_a_second_copy,
    a_relay_that_restarts_does_not_stop_a_broadcast,
);

fn canary(first: i64) -> impl FnOnce(&mut NewBroadcast) {
    move |b| {
        b.safety.canary = Some(CanaryRule {
            first: CanarySize::Count(first),
            hold_above_percent: 5,
        });
    }
}

/// `n` recipients, every `nth` of whom is refused with this reply.
fn every(nth: usize, n: usize, wish: &str) -> Vec<Recipient> {
    people(n)
        .into_iter()
        .enumerate()
        .map(|(i, good)| match i % nth {
            0 => to(&format!("{wish}+{i}@d{}.example", i % 7)),
            _ => good,
        })
        .collect()
}

async fn paused(stage: &Stage, id: &hikyaku::domain::id::BroadcastId) -> hikyaku::domain::broadcast::Broadcast {
    eventually(async || stage.broadcast(id).await.status == BroadcastStatus::Paused).await;
    eventually(async || stage.n_running(id).await == 0).await;
    stage.broadcast(id).await
}

async fn the_rest_waits_for_its_canary_and_follows_it(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let workers = [stage.hire().await, stage.hire_on(stage.another_store().await).await];
    let id = stage.send_as(people(2_500), canary(50)).await;
    let ended = stage.ended(&id).await;
    assert_eq!((ended.status, ended.counts.sent), (BroadcastStatus::Completed, 2_500));
    assert_eq!(ended.canary, Some((CanaryState::Passed, Some(50))));
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = stage.store.messages(&id, None, after.as_deref(), 500).await.unwrap();
        all.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let last_of_canary = all[..50].iter().filter_map(|m| m.at).max().unwrap();
    let first_of_rest = all[50..].iter().filter_map(|m| m.at).min().unwrap();
    assert!(last_of_canary <= first_of_rest, "{last_of_canary} and {first_of_rest}");
    let chunk = all[0].id.job_id;
    assert_eq!(all.iter().filter(|m| m.id.job_id == chunk).count(), 50, "the canary is a chunk of its own");
    stage.assert_exactly_once(&id, 2_500).await;
    for worker in workers {
        worker.end().await;
    }
}

async fn a_canary_that_fails_holds_the_rest_until_somebody_resumes_it(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let worker = stage.hire().await;
    let change = |b: &mut NewBroadcast| {
        canary(100)(b);
        b.safety.auto_pause = Some(AutoPause::Off);
    };
    let id = stage.send_as(every(4, 1_200, "reject-550-5.1.1"), change).await;
    let held = paused(&stage, &id).await;
    assert!(held.counts.sent + held.counts.failed <= 100, "{:?}", held.counts);
    assert!(held.counts.failed > 5, "{:?}", held.counts);
    assert_eq!(held.canary, Some((CanaryState::Held, Some(100))));
    let (pause, _) = held.pause.unwrap();
    let evidence = pause.evidence.unwrap();
    assert_eq!((pause.kind, evidence.class.as_str()), (PauseKind::Canary, "invalid_recipient"));
    assert!(held.reason.unwrap().contains("messages failed"));

    stage.wish(&id, Wish::Resume).await;
    let ended = stage.ended(&id).await;
    assert_eq!(ended.status, BroadcastStatus::Completed);
    assert_eq!((ended.counts.sent, ended.counts.failed), (900, 300));
    assert_eq!(ended.canary, Some((CanaryState::Released, Some(100))));
    stage.assert_exactly_once(&id, 900).await;
    worker.end().await;
}

async fn a_canary_waits_for_its_deferred_messages_and_not_for_ever(database: TestDatabase) {
    let mut plan = Plan::default();
    plan.settings.safety.canary_wait_ms = 700;
    plan.settings.retry.delays = vec![std::time::Duration::from_secs(3_600)];
    plan.settings.retry.max_age = std::time::Duration::from_secs(48 * 3_600);
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let mut recipients = people(200);
    recipients.extend((0..400).map(|i| to(&format!("defer-451-4.3.0+{i}@x.example"))));
    let id = stage.send_as(recipients, canary(60)).await;
    // Some of the canary is sent and much of it waits for an hour; after the wait those with an outcome decide.
    eventually(async || stage.broadcast(&id).await.counts.sent == 200).await;
    let shown = stage.broadcast(&id).await;
    assert_eq!(shown.canary, Some((CanaryState::Passed, Some(60))));
    eventually(async || stage.broadcast(&id).await.counts.deferred == 400).await;
    stage.wish(&id, Wish::Cancel).await;
    assert_eq!(stage.ended(&id).await.counts.canceled, 400);
    worker.end().await;
}

/// Every message is refused for the domain's sake; the pause comes long before everybody was refused. When it was put right
/// (the second relay takes them), the failed ones are tried again.
async fn a_broadcast_whose_sender_is_refused_stops_goes_on_and_leaves_nobody_out(database: TestDatabase) {
    let refusal = b"550 5.7.26 This mail has been blocked because the sender is unauthenticated\r\n".to_vec();
    let plan = Plan {
        sink: SinkOptions {
            script: Script::default().always(At::Dot, Act::Say(refusal)),
            latency: std::time::Duration::from_millis(20),
            ..SinkOptions::default()
        },
        ..Plan::default()
    };
    let mut stage = Stage::open(database, plan).await;
    let workers = [stage.hire().await, stage.hire_on(stage.another_store().await).await];
    let id = stage.send(people(20_000)).await;
    let held = paused(&stage, &id).await;
    let refused = held.counts.failed;
    assert!((20..20_000).contains(&refused) && held.counts.sent == 0, "{:?}", held.counts);
    println!("{refused} were refused before it stood still");
    let (pause, _) = held.pause.clone().unwrap();
    let evidence = pause.evidence.clone().unwrap();
    assert_eq!((pause.kind, evidence.class.as_str()), (PauseKind::Refused, "auth_policy"));
    assert!(evidence.example.unwrap().text.contains("unauthenticated"));
    assert!(pause.advice().unwrap().contains("DKIM"));
    for worker in workers {
        worker.end().await;
    }

    let good = Sink::start(SinkOptions {
        count_recipients: true,
        ..SinkOptions::default()
    });
    stage.sink = good.await.unwrap();
    stage.relay_at = stage.sink.addr();
    let worker = stage.hire().await;
    let (retried, shown) = retry(&*stage.store, &id, None, stage.plan.clock.now()).await.unwrap();
    assert_eq!((retried, shown.counts.failed, shown.counts.deferred), (refused, 0, refused));
    assert_eq!(shown.status, BroadcastStatus::Paused, "a retry is no resume");
    stage.wish(&id, Wish::Resume).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 20_000);
    stage.assert_exactly_once(&id, 20_000).await;
    assert!(stage.store.failures(&id).await.unwrap().is_empty());
    worker.end().await;
}

async fn a_list_of_dead_addresses_stops_and_a_second_look_lets_it_pass(database: TestDatabase) {
    let plan = Plan {
        sink: SinkOptions {
            latency: std::time::Duration::from_millis(20),
            ..SinkOptions::default()
        },
        ..Plan::default()
    };
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let id = stage.send(every(5, 8_000, "reject-550-5.2.1")).await;
    let held = paused(&stage, &id).await;
    let (pause, _) = held.pause.unwrap();
    assert_eq!(pause.kind, PauseKind::Failures);
    let evidence = pause.evidence.unwrap();
    assert!(evidence.outcomes >= 200 && evidence.failed * 10 > evidence.outcomes, "{evidence:?}");
    assert!(held.counts.queued > 0, "{:?}", held.counts);
    // It goes on as it was seen to be: a fifth fails, and that is known.
    stage.wish(&id, Wish::Resume).await;
    let ended = stage.ended(&id).await;
    assert_eq!((ended.counts.sent, ended.counts.failed), (6_400, 1_600));
    worker.end().await;
}

async fn one_odd_receiver_does_not_stop_everybody(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let worker = stage.hire().await;
    // 30 of 1,500 find it spam: more than the number, less than the share.
    let id = stage.send(every(50, 1_500, "dot-550-5.7.26")).await;
    let ended = stage.ended(&id).await;
    assert_eq!((ended.status, ended.counts.sent, ended.counts.failed), (BroadcastStatus::Completed, 1_470, 30));
    worker.end().await;
}

async fn an_address_that_nobody_has_is_suppressed_for_the_next_broadcast(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let worker = stage.hire().await;
    let gone = "reject-550-5.1.1@x.example";
    let unclear = "reject-550@x.example";
    let recipients = || {
        people(20)
            .into_iter()
            .chain([to(gone), to(unclear)])
            .collect::<Vec<_>>()
    };
    let first = stage.send(recipients()).await;
    let counts = stage.ended(&first).await.counts;
    assert_eq!((counts.sent, counts.failed, counts.suppressed), (20, 2, 0));
    let learnt = stage.store.suppression(gone).await.unwrap().unwrap();
    assert_eq!((learnt.reason.as_str(), learnt.source.as_str()), ("hard_bounce", first.as_str()));
    assert!(
        stage.store.suppression(unclear).await.unwrap().is_none(),
        "a refusal without a reason teaches nothing"
    );
    let second = stage.send(recipients()).await;
    let counts = stage.ended(&second).await.counts;
    assert_eq!((counts.sent, counts.failed, counts.suppressed), (20, 1, 1));
    worker.end().await;
}

async fn a_dialogue_that_breaks_its_rules_is_tried_three_times(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let worker = stage.hire().await;
    let odd = "reject-501-5.5.4@x.example";
    let id = stage.send(people(10).into_iter().chain([to(odd)]).collect()).await;
    let counts = stage.ended(&id).await.counts;
    assert_eq!((counts.sent, counts.failed), (10, 1));
    assert_eq!(stage.fates(&id, odd).await, [Deferred, Deferred, Deferred]);
    let message = stage.message(&id, odd).await;
    assert_eq!((message.status, message.class.as_str(), message.attempts), (Failed, "protocol_error", 3));
    worker.end().await;
}

async fn a_receiver_that_has_had_enough_of_a_session_gets_a_fresh_one_at_once(database: TestDatabase) {
    let mut plan = Plan {
        connections: 1,
        ..Plan::default()
    };
    plan.settings.retry.delays = vec![std::time::Duration::from_secs(3_600)];
    plan.settings.retry.max_age = std::time::Duration::from_secs(48 * 3_600);
    plan.sink.script = Script::default().once(At::Rcpt, 3, Act::Say(b"452 4.5.3 Too many recipients\r\n".to_vec()));
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let id = stage.send(people(10)).await;
    let ended = stage.ended(&id).await;
    assert_eq!(ended.counts.sent, 10, "nobody waited for an hour");
    for recipient in people(10) {
        assert_eq!(stage.fates(&id, recipient.email.as_str()).await, [Sent], "no attempt was burnt");
    }
    assert_eq!(stage.sink.sink().stats().connections, 2);
    let findings = stage.store.findings().await.unwrap();
    let limits = findings.iter().filter(|f| f.kind == FindingKind::SessionMessages);
    assert_eq!(limits.count(), 0, "one refusal of a recipient is no limit");
    worker.end().await;
}

async fn a_relay_that_takes_mail_without_a_word_gets_nobody_a_second_copy(database: TestDatabase) {
    let mut plan = Plan::default();
    plan.settings.retry.delays = vec![std::time::Duration::from_secs(2)];
    plan.sink.count_recipients = true;
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let silent = |n| {
        (0..n)
            .map(|i| to(&format!("drop-after-dot+{i}@d{}.example", i % 7)))
            .collect::<Vec<_>>()
    };
    let id = stage.send(silent(400).into_iter().chain(people(100)).collect()).await;
    let stopped = paused(&stage, &id).await;
    let (pause, _) = stopped.pause.expect("it says why");
    assert_eq!(pause.kind, PauseKind::Doubt);
    let why = pause.sentence().unwrap();
    assert!(
        why.contains("the relay sink gave no reply") && why.contains("the relay closed the connection"),
        "{why}"
    );
    assert_eq!(stopped.on_uncertain, OnUncertain::Hold);
    assert!(pause.advice().unwrap().contains("pipelining"));

    // A person lets the rest go on: what is in doubt stays held, and the breaker holds again.
    stage.wish(&id, Wish::Resume).await;
    let stopped = paused(&stage, &id).await;
    assert!(stopped.counts.uncertain > 0, "{:?}", stopped.counts);
    let copies = stage.sink.sink().copies();
    assert!(copies.values().all(|n| *n == 1), "somebody got two");
    assert!(copies.len() < 300, "it went on and on: {}", copies.len());
    worker.end().await;
}

async fn a_relay_that_restarts_does_not_stop_a_broadcast(database: TestDatabase) {
    let mut plan = Plan::default();
    plan.sink.script = (0..8).fold(Script::default(), |script, _| script.once(At::Dot, 20, Act::Close));
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let id = stage.send(people(1_000)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 1_000);
    worker.end().await;
}
