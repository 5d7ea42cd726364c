//! What becomes of a message: one story for each way it can go.

use hikyaku::domain::broadcast::{BroadcastStatus, OnUncertain};
use hikyaku::domain::message::MessageStatus::{Deferred, Failed, Sent, Suppressed, Uncertain};
use hikyaku::sink::{Act, At, Script, Sink, SinkOptions};
use hikyaku::store::reports::MessageView;
use serde_json::value::RawValue;

use super::stage::{Plan, Stage, eventually, people, to};
use super::stories;
use crate::support::database::TestDatabase;

stories!(
    a_refused_recipient_fails_and_the_others_go_on_the_same_connection,
    a_deferred_recipient_is_tried_again_and_sent,
    a_relay_that_is_down_costs_no_attempt_and_the_mail_goes_when_it_comes,
    a_relay_that_says_goodbye_before_a_message_costs_no_attempt,
    an_address_that_is_never_taken_does_not_hold_up_the_others,
    a_message_in_doubt_is_sent_again_and_flagged,
    a_message_in_doubt_is_held_where_that_is_wished,
    a_message_that_cannot_be_rendered_fails_alone,
    a_suppressed_address_gets_nothing,
    a_letter_that_nobody_can_render_is_set_aside,
);

fn one_connection(script: Script) -> Plan {
    Plan {
        sink: SinkOptions {
            script,
            ..SinkOptions::default()
        },
        connections: 1,
        ..Plan::default()
    }
}

async fn a_refused_recipient_fails_and_the_others_go_on_the_same_connection(database: TestDatabase) {
    let stage = Stage::open(database, one_connection(Script::default())).await;
    let worker = stage.hire().await;
    let mut recipients = people(20);
    recipients.extend(["reject-550-5.1.1@x.example", "dot-554-5.7.1@x.example"].map(to));
    let id = stage.send(recipients).await;
    let counts = stage.ended(&id).await.counts;
    assert_eq!((counts.sent, counts.failed), (20, 2));
    assert_eq!(stage.sink.sink().stats().connections, 1);

    let refused = stage.message(&id, "reject-550-5.1.1@x.example").await;
    assert_eq!((refused.status, refused.class.as_str(), refused.attempts), (Failed, "invalid_recipient", 1));
    let reply = refused.reply.unwrap();
    assert_eq!((reply.code, reply.enhanced.as_deref()), (Some(550), Some("5.1.1")));
    assert!(reply.text.contains("as the address asks for"), "{reply:?}");
    assert_eq!(refused.relay.as_deref(), Some("sink"));
    let at_dot = stage.message(&id, "dot-554-5.7.1@x.example").await;
    assert_eq!((at_dot.status, at_dot.reply.unwrap().code), (Failed, Some(554)));
    stage.assert_exactly_once(&id, 20).await;
    worker.end().await;
}

async fn a_deferred_recipient_is_tried_again_and_sent(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let worker = stage.hire().await;
    let later = "defer-once@x.example";
    let id = stage.send(people(20).into_iter().chain([to(later)]).collect()).await;
    let broadcast = stage.ended(&id).await;
    assert_eq!((broadcast.status, broadcast.counts.sent), (BroadcastStatus::Completed, 21));
    assert_eq!(stage.fates(&id, later).await, [Deferred, Sent]);
    let attempts = stage.attempts(&id, later).await;
    assert_eq!([attempts[0].reply.code, attempts[1].reply.code], [Some(451), Some(250)]);
    assert!(attempts[0].at < attempts[1].at);
    assert_eq!(stage.message(&id, later).await.attempts, 2);
    assert_eq!(
        stage.fates(&id, "r1@d1.example").await,
        [Sent],
        "sent at once has one attempt, without a row of its own"
    );
    stage.assert_exactly_once(&id, 21).await;
    worker.end().await;
}

async fn a_relay_that_is_down_costs_no_attempt_and_the_mail_goes_when_it_comes(database: TestDatabase) {
    let mut stage = Stage::open(database, Plan::default()).await;
    // Bound and not listening: connections are refused, and nobody else is given the port before the relay comes.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    stage.relay_at = reserved.local_addr().unwrap();
    let worker = stage.hire().await;
    let id = stage.send(people(20)).await;
    let now = stage.plan.clock.now();
    eventually(async || {
        let workers = stage.store.workers(now).await.unwrap();
        let trouble = workers.first().and_then(|w| w.stats.trouble.as_deref());
        trouble.is_some_and(|t| t.starts_with("connect"))
    })
    .await;
    assert_eq!(stage.broadcast(&id).await.counts.queued, 20);

    let options = SinkOptions {
        listen: stage.relay_at,
        count_recipients: true,
        ..SinkOptions::default()
    };
    stage.sink = Sink::start(options).await.unwrap();
    drop(reserved);
    assert_eq!(stage.ended(&id).await.counts.sent, 20);
    for recipient in people(20) {
        assert_eq!(stage.message(&id, recipient.email.as_str()).await.attempts, 1);
    }
    assert_eq!(worker.gauges.trouble(), None);
    stage.assert_exactly_once(&id, 20).await;
    worker.end().await;
}

async fn a_relay_that_says_goodbye_before_a_message_costs_no_attempt(database: TestDatabase) {
    let goodbye = Act::SayAndClose(b"421 4.3.2 shutting down\r\n".to_vec());
    let script = Script::default()
        .once(At::Mail, 0, goodbye.clone())
        .once(At::Mail, 5, goodbye.clone())
        .once(At::Mail, 9, goodbye);
    let stage = Stage::open(database, one_connection(script)).await;
    let worker = stage.hire().await;
    let id = stage.send(people(20)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 20);
    for recipient in people(20) {
        assert_eq!(stage.message(&id, recipient.email.as_str()).await.attempts, 1);
    }
    assert_eq!(stage.sink.sink().stats().connections, 4);
    stage.assert_exactly_once(&id, 20).await;
    worker.end().await;
}

/// The relay asks for patience with one address, again and again. It is not the address's failure, so that no try counts; but
/// neither may the messages behind it wait, nor the broadcast for ever.
async fn an_address_that_is_never_taken_does_not_hold_up_the_others(database: TestDatabase) {
    let mut plan = one_connection(Script::default());
    plan.settings.retry.max_age = std::time::Duration::from_millis(1_500);
    let stage = Stage::open(database, plan).await;
    let worker = stage.hire().await;
    let busy = "defer-450-4.2.1@x.example";
    let id = stage.send([to(busy)].into_iter().chain(people(50)).collect()).await;
    stage.accepted(50).await;
    let counts = stage.ended(&id).await.counts;
    assert_eq!((counts.sent, counts.failed), (50, 1));
    let message = stage.message(&id, busy).await;
    assert_eq!((message.status, message.class.as_str()), (Failed, "rate_limited"));
    assert!(message.attempts > 1, "{message:?}");
    worker.end().await;
}

/// Every fifth message or so is taken, and the connection closed instead of the reply.
fn forgetful() -> Plan {
    Plan {
        sink: SinkOptions {
            drop_after_data_rate: 0.2,
            seed: 7,
            ..SinkOptions::default()
        },
        ..Plan::default()
    }
}

async fn a_message_in_doubt_is_sent_again_and_flagged(database: TestDatabase) {
    let stage = Stage::open(database, forgetful()).await;
    let worker = stage.hire().await;
    let id = stage.send(people(60)).await;
    assert_eq!(stage.ended(&id).await.counts.sent, 60);
    let mut n_flagged = 0;
    for recipient in people(60) {
        let address = recipient.email.as_str();
        let copies = stage.copies(address);
        let mut fates = stage.fates(&id, address).await;
        assert_eq!(fates.pop(), Some(Sent), "{address}");
        assert_eq!(fates, vec![Uncertain; copies as usize - 1], "{address}");
        let message = stage.message(&id, address).await;
        assert_eq!(message.possible_duplicate, copies > 1, "{address}");
        n_flagged += i64::from(message.possible_duplicate);
    }
    assert!(n_flagged > 0, "the relay dropped some");
    assert_eq!(stage.n_flagged(&id).await, n_flagged);
    worker.end().await;
}

async fn a_message_in_doubt_is_held_where_that_is_wished(database: TestDatabase) {
    let stage = Stage::open(database, forgetful()).await;
    let worker = stage.hire().await;
    let hold = |b: &mut hikyaku::domain::broadcast::NewBroadcast| b.on_uncertain = OnUncertain::Hold;
    let id = stage.send_as(people(60), hold).await;
    let broadcast = stage.ended(&id).await;
    let stats = stage.sink.sink().stats();
    assert!(stats.taken_unanswered > 0, "the relay dropped some");
    assert_eq!(broadcast.status, BroadcastStatus::Completed);
    assert_eq!(broadcast.counts.uncertain as u64, stats.taken_unanswered);
    assert_eq!(broadcast.counts.sent as u64, stats.accepted);
    assert!(stage.sink.sink().copies().values().all(|&n| n == 1));
    let held = stage
        .store
        .messages(&id, Some(Uncertain), None, 100)
        .await
        .unwrap()
        .rows;
    let is_flagged = |m: &MessageView| m.possible_duplicate && m.attempts == 1;
    assert!(held.len() as i64 == broadcast.counts.uncertain && held.iter().all(is_flagged), "{held:?}");
    worker.end().await;
}

async fn a_message_that_cannot_be_rendered_fails_alone(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let worker = stage.hire().await;
    let with_code = people(30).into_iter().enumerate().map(|(n, mut recipient)| {
        if n % 3 != 0 {
            recipient.data = Some(RawValue::from_string(format!("{{\"code\":{n}}}")).unwrap());
        }
        recipient
    });
    let recipients = with_code.collect();
    let id = stage
        .send_as(recipients, |b| b.letter.content.text = Some("Your code: {{ code }}".into()))
        .await;
    let counts = stage.ended(&id).await.counts;
    assert_eq!((counts.sent, counts.failed), (20, 10));
    let failed = stage.message(&id, "r3@d3.example").await;
    assert_eq!((failed.status, failed.class.as_str(), failed.attempts), (Failed, "template_error", 0));
    assert!(failed.reply.unwrap().text.contains("code"), "the variable is named");
    stage.assert_exactly_once(&id, 20).await;
    worker.end().await;
}

async fn a_suppressed_address_gets_nothing(database: TestDatabase) {
    use hikyaku::domain::contact::SuppressionReason;
    let stage = Stage::open(database, Plan::default()).await;
    let now = stage.plan.clock.now();
    let unwanted = ["r1@d1.example".to_owned(), "r2@d2.example".to_owned()];
    stage
        .store
        .suppress(&unwanted, SuppressionReason::Manual, "test", now)
        .await
        .unwrap();
    let worker = stage.hire().await;
    let id = stage.send(people(20)).await;
    let counts = stage.ended(&id).await.counts;
    assert_eq!((counts.sent, counts.suppressed), (18, 2));
    let message = stage.message(&id, "r1@d1.example").await;
    assert_eq!((message.status, message.attempts), (Suppressed, 0));
    assert_eq!(stage.copies("r1@d1.example"), 0);
    stage.assert_exactly_once(&id, 18).await;
    worker.end().await;
}

/// The letter is checked when it is accepted; one that got in all the same waits for a person, and others go on.
async fn a_letter_that_nobody_can_render_is_set_aside(database: TestDatabase) {
    let stage = Stage::open(database, Plan::default()).await;
    let worker = stage.hire().await;
    let broken = stage
        .send_as(people(10), |b| b.letter.content.text = Some("{% if %}".into()))
        .await;
    eventually(async || !stage.store.jobs(Some("quarantined"), 5).await.unwrap().is_empty()).await;
    let aside = stage.store.jobs(Some("quarantined"), 5).await.unwrap();
    assert_eq!((aside[0].broadcast_id.as_str(), aside[0].size), (broken.as_str(), 10));
    assert!(aside[0].last_error.as_deref().is_some_and(|e| e.contains("letter")), "{aside:?}");
    let good = stage.send(people(10)).await;
    assert_eq!(stage.ended(&good).await.counts.sent, 10);
    assert_eq!(stage.broadcast(&broken).await.counts.queued, 10);
    worker.end().await;
}
