//! What goes right, and the refusals that are part of it.

use hikyaku::domain::message::MessageStatus;
use hikyaku::sink::{Act, At, Extensions, Script, SinkOptions};
use hikyaku::smtp::{Cause, Stage};

use super::{
    BODY, envelope, finish_and_begin, hand_over, hand_over_with_next, open, relay, start, status, with_script,
    without_pipelining,
};

#[tokio::test]
async fn a_message_arrives_as_it_was_written() {
    let sink = start(SinkOptions::default()).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    let body = b"Subject: dots\r\n\r\n.\r\n..\r\n.a\nbare\rends\r\n\r\n";
    connection
        .begin(&envelope("anna@example.org"), body.len())
        .await
        .unwrap();
    let reply = connection.finish(body, None).await.unwrap();
    assert_eq!((reply.code, reply.enhanced.unwrap().to_string()), (250, "2.0.0".to_owned()));

    let kept = &sink.sink().newest(9)[0];
    assert_eq!((kept.from.as_str(), kept.to.as_slice()), ("news@example.org", &["anna@example.org".to_owned()][..]));
    assert_eq!(
        kept.raw.escape_ascii().to_string(),
        b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nbare\r\nends\r\n\r\n"
            .escape_ascii()
            .to_string()
    );
    assert_eq!(sink.sink().stats().violations, 0);
}

#[tokio::test]
async fn any_body_arrives_whole_and_alone() {
    let sink = start(SinkOptions::default()).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for n in 1..=300u64 {
        let pieces = ["\r\n", "\n", "\r", ".", "..", "a", "RCPT TO:<x@y>", "\r\n.\r\n", "é"];
        let body: String = (0..random.usize(0..40))
            .map(|_| pieces[random.usize(0..pieces.len())])
            .collect();
        connection
            .begin(&envelope("anna@example.org"), body.len())
            .await
            .unwrap();
        connection.finish(body.as_bytes(), None).await.unwrap();
        let mut expected = body.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
        if !expected.is_empty() && !expected.ends_with("\r\n") {
            expected.push_str("\r\n");
        }
        let kept = &sink.sink().newest(1)[0];
        assert_eq!((kept.id, String::from_utf8_lossy(&kept.raw).into_owned()), (n, expected), "from {body:?}");
    }
    assert_eq!(sink.sink().stats().violations, 0);
}

#[tokio::test]
async fn with_pipelining_a_message_costs_one_round_trip() {
    let sink = start(SinkOptions::default()).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    let to = envelope("anna@example.org");
    let before = sink.sink().stats().flushes;
    connection.begin(&to, BODY.len()).await.unwrap();
    for _ in 0..9 {
        let finished = finish_and_begin(&mut connection, (&to, BODY.len())).await;
        assert_eq!((status(&finished.this), finished.next), (MessageStatus::Sent, Ok(())));
    }
    connection.finish(BODY, None).await.unwrap();
    let stats = sink.sink().stats();
    assert_eq!((stats.accepted, stats.violations), (10, 0));
    assert_eq!(stats.flushes - before, 11, "one to begin, and one for each message");
    assert_eq!(connection.messages_sent(), 10);
}

#[tokio::test]
async fn without_pipelining_nothing_is_sent_ahead() {
    for by_config in [true, false] {
        let options = if by_config {
            SinkOptions::default()
        } else {
            without_pipelining()
        };
        let sink = start(options).await;
        let mut relay = relay(&sink);
        relay.pipelining = !by_config;
        let mut connection = open(&relay).await.unwrap();
        let before = sink.sink().stats().flushes;
        let finished = hand_over_with_next(&mut connection, "anna@example.org", "bo@example.org").await;
        assert_eq!((status(&finished.this), finished.next), (MessageStatus::Sent, Ok(())));
        connection.finish(BODY, None).await.unwrap();
        let stats = sink.sink().stats();
        assert_eq!((stats.accepted, stats.violations, stats.flushes - before), (2, 0, 8));
    }
}

#[tokio::test]
async fn a_refused_recipient_keeps_the_connection() {
    for options in [SinkOptions::default(), without_pipelining()] {
        let sink = start(options).await;
        let mut connection = open(&relay(&sink)).await.unwrap();
        for n in 0..3 {
            let refused = hand_over(&mut connection, "reject-550-5.1.1@example.org")
                .await
                .unwrap_err();
            assert_eq!((refused.stage, refused.end_of_data_written), (Stage::Rcpt, false));
            assert!(connection.is_usable());
            hand_over(&mut connection, &format!("anna{n}@example.org"))
                .await
                .unwrap();
        }
        let stats = sink.sink().stats();
        assert_eq!((stats.connections, stats.accepted, stats.violations), (1, 3, 0));
    }
}

#[tokio::test]
async fn a_refused_next_recipient_leaves_this_message_sent() {
    for options in [SinkOptions::default(), without_pipelining()] {
        let sink = start(options).await;
        let mut connection = open(&relay(&sink)).await.unwrap();
        let finished = hand_over_with_next(&mut connection, "anna@example.org", "reject-550@example.org").await;
        assert_eq!(status(&finished.this), MessageStatus::Sent);
        assert_eq!(finished.next.unwrap_err().stage, Stage::Rcpt);
        hand_over(&mut connection, "bo@example.org").await.unwrap();
        assert_eq!((sink.sink().stats().accepted, sink.sink().stats().connections), (2, 1));
    }
}

#[tokio::test]
async fn a_message_refused_at_its_end_leaves_the_next_one_begun() {
    let sink = start(SinkOptions::default()).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    let finished = hand_over_with_next(&mut connection, "dot-554-5.7.1@example.org", "anna@example.org").await;
    assert_eq!((status(&finished.this), finished.next), (MessageStatus::Failed, Ok(())));
    connection.finish(BODY, None).await.unwrap();
    assert_eq!(sink.sink().newest(9).len(), 1);
}

#[tokio::test]
async fn content_asked_for_after_all_were_refused_is_ended_at_once() {
    let script = Script::default().once(At::Data, 0, Act::Say(b"354 go on anyway\r\n".to_vec()));
    let sink = start(with_script(script)).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    let refused = hand_over(&mut connection, "reject-550-5.1.1@example.org")
        .await
        .unwrap_err();
    assert_eq!(refused.stage, Stage::Rcpt);
    assert!(connection.is_usable());
    hand_over(&mut connection, "anna@example.org").await.unwrap();
    let kept = sink.sink().newest(9);
    assert_eq!((kept[0].raw.as_slice(), kept[1].raw.len(), kept.len()), (BODY, 0, 2));
}

#[tokio::test]
async fn a_refused_sender_keeps_the_connection() {
    for options in [SinkOptions::default(), without_pipelining()] {
        let script = Script::default().once(At::Mail, 0, Act::Say(b"550 5.1.8 who are you\r\n".to_vec()));
        let sink = start(SinkOptions { script, ..options }).await;
        let mut connection = open(&relay(&sink)).await.unwrap();
        let refused = hand_over(&mut connection, "anna@example.org").await.unwrap_err();
        assert_eq!(refused.stage, Stage::Mail);
        hand_over(&mut connection, "anna@example.org").await.unwrap();
        assert_eq!(sink.sink().stats().connections, 1);
    }
}

#[tokio::test]
async fn a_251_to_rcpt_is_an_acceptance() {
    let script = Script::default().always(At::Rcpt, Act::Say(b"251 will forward\r\n".to_vec()));
    // The relay itself goes by the first digit too.
    let sink = start(with_script(script)).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    hand_over(&mut connection, "anna@example.org").await.unwrap();
}

#[tokio::test]
async fn what_the_relay_cannot_take_is_not_even_tried() {
    let extensions = Extensions {
        size: Some(50),
        smtputf8: false,
        ..Extensions::default()
    };
    let sink = start(SinkOptions {
        extensions,
        ..SinkOptions::default()
    })
    .await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    let before = sink.sink().stats().flushes;

    let too_large = connection.begin(&envelope("anna@example.org"), 51).await.unwrap_err();
    assert_eq!(too_large.cause, Cause::TooLarge { size: 51, limit: 50 });
    let no_utf8 = connection.begin(&envelope("änna@example.org"), 10).await.unwrap_err();
    assert_eq!(no_utf8.cause, Cause::NoSmtpUtf8);
    assert_eq!(sink.sink().stats().flushes, before, "something was sent");

    connection.begin(&envelope("anna@example.org"), 10).await.unwrap();
    let next = envelope("bo@example.org");
    let this = connection.finish(b"short\r\n", Some((&next, 99))).await;
    assert_eq!(status(&this), MessageStatus::Sent);
    let next = connection.begin(&next, 99).await;
    assert!(matches!(next.unwrap_err().cause, Cause::TooLarge { .. }));
    assert!(connection.is_usable());
}

#[tokio::test]
async fn an_international_address_goes_to_a_relay_that_takes_it() {
    let sink = start(SinkOptions::default()).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    hand_over(&mut connection, "änna@müller.example").await.unwrap();
    assert_eq!(sink.sink().newest(1)[0].to, ["änna@xn--mller-kva.example"]);
}

#[tokio::test]
async fn a_relay_that_knows_no_ehlo_is_greeted_with_helo() {
    let extensions = Extensions {
        ehlo: false,
        pipelining: false,
        ..Extensions::default()
    };
    let sink = start(SinkOptions {
        extensions,
        ..SinkOptions::default()
    })
    .await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    hand_over(&mut connection, "anna@example.org").await.unwrap();
    assert_eq!(sink.sink().stats().violations, 0);
}

#[tokio::test]
async fn a_connection_has_room_for_so_many_messages() {
    let sink = start(SinkOptions::default()).await;
    let mut relay = relay(&sink);
    relay.messages_per_connection_max = 2;
    let mut connection = open(&relay).await.unwrap();
    hand_over(&mut connection, "anna@example.org").await.unwrap();
    assert!(connection.is_usable());
    hand_over(&mut connection, "anna@example.org").await.unwrap();
    assert!(!connection.is_usable() && !connection.has_room());
    connection.quit().await;
}
