//! CHUNKING: several messages in flight, each with its own verdict, and none believed that may be another's.

use hikyaku::domain::message::MessageStatus::{self, Deferred, Failed, Sent, Uncertain};
use hikyaku::sink::{Act, At, Extensions, Script, SinkHandle, SinkOptions};
use hikyaku::smtp::{Cause, Connection, Envelope, Failure, Mail, Reply, Stage};

use super::{BODY, envelope, hand_over, open, relay, start, status, with_script};

/// Opens a connection with four messages in flight; the first message has gone with DATA already.
async fn chunking(sink: &SinkHandle) -> Connection {
    let mut relay = relay(sink);
    relay.chunking = 4;
    let mut connection = open(&relay).await.unwrap();
    assert_eq!(connection.window(), 0, "the first message goes with DATA");
    hand_over(&mut connection, "first@example.org").await.unwrap();
    connection
}

async fn window(connection: &mut Connection, to: &[&str]) -> Vec<Result<Reply, Failure>> {
    let envelopes: Vec<Envelope> = to.iter().map(|to| envelope(to)).collect();
    let load: Vec<Mail> = envelopes.iter().map(|envelope| Mail { envelope, body: BODY }).collect();
    connection.send(&load, None).await
}

fn statuses(verdicts: &[Result<Reply, Failure>]) -> Vec<MessageStatus> {
    verdicts.iter().map(status).collect()
}

/// What the window behind the first message comes to when the relay does `act` at a stage that was passed `skips` times before.
async fn window_against(at: At, skips: u32, act: Act) -> (Vec<Result<Reply, Failure>>, bool, SinkHandle) {
    let sink = start(with_script(Script::default().once(at, skips, act))).await;
    let mut connection = chunking(&sink).await;
    let verdicts = window(&mut connection, &["a@x.example", "b@x.example", "c@x.example", "d@x.example"]).await;
    (verdicts, connection.is_usable(), sink)
}

#[tokio::test]
async fn a_window_of_messages_costs_one_round_trip() {
    let sink = start(SinkOptions::default()).await;
    let mut connection = chunking(&sink).await;
    assert_eq!(connection.window(), 4);
    let before = sink.sink().stats().flushes;
    for _ in 0..3 {
        let verdicts = window(&mut connection, &["a@x.example", "b@x.example", "c@x.example", "d@x.example"]).await;
        assert_eq!(statuses(&verdicts), [Sent; 4]);
    }
    let stats = sink.sink().stats();
    assert_eq!((stats.accepted, stats.violations, stats.flushes - before), (13, 0, 3));
    assert_eq!(connection.messages_sent(), 13);
    let kept = sink.sink().newest(12);
    assert!(kept.iter().all(|m| m.raw == BODY), "the content is the same as with DATA");
    assert_eq!(kept[0].to, ["d@x.example"]);
}

#[tokio::test]
async fn a_window_is_used_only_where_it_is_offered_wanted_and_safe() {
    let offers = |chunking, pipelining| Extensions {
        chunking,
        pipelining,
        ..Extensions::default()
    };
    for (extensions, wanted, pipelining, works) in [
        (offers(true, true), 4, true, true),
        (offers(false, true), 4, true, false),
        (offers(true, false), 4, true, false),
        (offers(true, true), 0, true, false),
        (offers(true, true), 4, false, false),
    ] {
        let sink = start(SinkOptions {
            extensions,
            ..SinkOptions::default()
        })
        .await;
        let mut relay = relay(&sink);
        (relay.chunking, relay.pipelining) = (wanted, pipelining);
        let mut connection = open(&relay).await.unwrap();
        hand_over(&mut connection, "anna@example.org").await.unwrap();
        assert_eq!(connection.window() > 0, works);
        assert_eq!(sink.sink().stats().violations, 0);
    }
}

#[tokio::test]
async fn a_relay_whose_replies_all_read_alike_gets_data() {
    let script = Script::default()
        .always(At::Rcpt, Act::Say(b"250 ok\r\n".to_vec()))
        .always(At::Dot, Act::Say(b"250 ok\r\n".to_vec()));
    let sink = start(with_script(script)).await;
    let mut connection = chunking(&sink).await;
    assert_eq!(connection.window(), 0);
    hand_over(&mut connection, "anna@example.org").await.unwrap();
}

#[tokio::test]
async fn each_message_of_a_window_has_its_own_verdict() {
    let sink = start(SinkOptions::default()).await;
    let mut connection = chunking(&sink).await;
    let to = [
        "a@x.example",
        "reject-550-5.1.1@x.example",
        "dot-451@x.example",
        "b@x.example",
    ];
    let verdicts = window(&mut connection, &to).await;
    assert_eq!(statuses(&verdicts), [Sent, Failed, Deferred, Sent]);
    let stages: Vec<Stage> = verdicts
        .iter()
        .flat_map(|v| v.as_ref().err())
        .map(|f| f.stage)
        .collect();
    assert_eq!(stages, [Stage::Rcpt, Stage::FinalDot]);
    assert!(connection.is_usable());
    // The last one of a window refused, too: the next window begins with it forgotten.
    let verdicts = window(&mut connection, &["c@x.example", "reject-550@x.example"]).await;
    assert_eq!(statuses(&verdicts), [Sent, Failed]);
    assert_eq!(statuses(&window(&mut connection, &["d@x.example"]).await), [Sent]);
    let stats = sink.sink().stats();
    assert_eq!((stats.accepted, stats.connections, stats.violations), (5, 1, 0));
}

#[tokio::test]
async fn a_refused_sender_concerns_its_own_message_only() {
    let act = Act::Say(b"451 4.3.0 not now\r\n".to_vec());
    let (verdicts, is_usable, sink) = window_against(At::Mail, 2, act).await;
    assert_eq!(statuses(&verdicts), [Sent, Deferred, Sent, Sent]);
    assert!(is_usable);
    assert_eq!(sink.sink().stats().accepted, 4);
}

#[tokio::test]
async fn what_was_in_flight_when_the_connection_broke_is_uncertain_and_nothing_else() {
    for act in [Act::Close, Act::Reset] {
        for (at, in_doubt) in [(At::Mail, 3), (At::Rcpt, 3), (At::Dot, 3)] {
            let (verdicts, is_usable, sink) = window_against(at, 2, act.clone()).await;
            // A reset may overtake the replies before it.
            let n_in_doubt = statuses(&verdicts).iter().filter(|s| **s == Uncertain).count();
            let n_sent = statuses(&verdicts).iter().filter(|s| **s == Sent).count();
            assert_eq!(n_in_doubt + n_sent, 4, "{act:?} at {at:?}: {verdicts:?}");
            assert!(n_in_doubt >= in_doubt && !is_usable, "{act:?} at {at:?}: {verdicts:?}");
            assert!((n_sent as u64) < sink.sink().stats().accepted);
            if act == Act::Close && n_sent == 1 {
                assert_eq!(statuses(&verdicts)[0], Sent);
            }
        }
    }
}

#[tokio::test]
async fn what_stood_behind_a_goodbye_was_not_heard_and_costs_no_attempt() {
    for (at, this) in [(At::Mail, Deferred), (At::Rcpt, Deferred), (At::Dot, Deferred)] {
        let act = Act::SayAndClose(b"421 4.3.2 going down\r\n".to_vec());
        let (verdicts, is_usable, sink) = window_against(at, 2, act).await;
        assert_eq!(statuses(&verdicts), [Sent, this, Deferred, Deferred], "{at:?}");
        assert!(!is_usable);
        for behind in &verdicts[2..] {
            let failure = behind.as_ref().unwrap_err();
            assert_eq!((failure.stage, failure.end_of_data_written), (Stage::Mail, false), "{at:?}");
            assert!(!hikyaku::smtp::verdict(failure).counts_as_attempt);
        }
        assert_eq!(sink.sink().stats().accepted, 2);
    }
}

#[tokio::test]
async fn a_relay_that_goes_on_after_its_goodbye_is_taken_at_its_word() {
    let act = Act::Say(b"421 4.3.2 going down\r\n".to_vec());
    let (verdicts, is_usable, sink) = window_against(At::Rcpt, 2, act).await;
    assert_eq!(statuses(&verdicts), [Sent, Deferred, Sent, Sent]);
    assert!(!is_usable);
    assert_eq!(sink.sink().stats().accepted, 4);
}

#[tokio::test]
async fn a_reply_that_does_not_fit_leaves_what_was_answered_before_it() {
    const U: MessageStatus = Uncertain;
    /// Where, after how many, what is said; what the messages come to, and whether the connection is kept.
    type Case = (At, u32, &'static [u8], [MessageStatus; 4], bool);
    let odd: [Case; 9] = [
        (At::Mail, 2, b"250 2.1.0 ok\r\n250 2.1.0 ok\r\n", [Sent, U, U, U], false),
        (At::Rcpt, 1, b"250 2.1.5 ok\r\n250 2.1.5 ok\r\n", [U; 4], false),
        (At::Rcpt, 4, b"250 2.1.5 ok\r\n250 2.1.5 ok\r\n", [Sent, Sent, Sent, U], false),
        (At::Dot, 4, b"250 2.0.0 kept\r\n250 2.0.0 kept\r\n", [Sent; 4], false),
        (At::Dot, 3, b"354 go on\r\n", [Sent, Sent, U, U], false),
        (At::Mail, 2, b"354 go on\r\n", [Sent, U, U, U], false),
        (At::Dot, 2, b"250-2.0.0 kept\r\n550 5.0.0 or not\r\n", [Sent, U, U, U], false),
        // Refusals that are in step.
        (At::Dot, 3, b"503 5.5.1 what\r\n", [Sent, Sent, Deferred, Sent], true),
        (At::Rcpt, 2, b"503 5.5.1 what\r\n", [Sent, Deferred, Sent, Sent], true),
    ];
    for (at, skips, bytes, expected, kept) in odd {
        let case = format!("{at:?} {skips}: {}", bytes.escape_ascii());
        let (verdicts, is_usable, _sink) = window_against(at, skips, Act::Say(bytes.to_vec())).await;
        assert_eq!(statuses(&verdicts), expected, "{case}: {verdicts:?}");
        assert_eq!(is_usable, kept, "{case}");
    }
}

#[tokio::test]
async fn content_taken_for_a_refused_recipient_is_out_of_step() {
    let script = Script::default()
        .once(At::Rcpt, 2, Act::Say(b"550 5.1.1 nobody\r\n".to_vec()))
        .once(At::NoRecipient, 0, Act::Say(b"250 2.0.0 kept all the same\r\n".to_vec()));
    let sink = start(with_script(script)).await;
    let mut connection = chunking(&sink).await;
    let verdicts = window(&mut connection, &["a@x.example", "b@x.example", "c@x.example"]).await;
    assert_eq!(statuses(&verdicts), [Sent, Uncertain, Uncertain]);
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn what_the_relay_cannot_take_leaves_the_window_without_it() {
    let extensions = Extensions {
        smtputf8: false,
        ..Extensions::default()
    };
    let sink = start(SinkOptions {
        extensions,
        ..SinkOptions::default()
    })
    .await;
    let mut connection = chunking(&sink).await;
    let verdicts = window(&mut connection, &["änna@x.example", "a@x.example", "ö@x.example"]).await;
    assert_eq!(statuses(&verdicts), [Failed, Sent, Failed]);
    let verdicts = window(&mut connection, &["ö@x.example"]).await;
    assert_eq!(verdicts[0].as_ref().unwrap_err().cause, Cause::NoSmtpUtf8);
    assert!(connection.is_usable());
}

#[tokio::test]
async fn a_window_ends_where_the_connection_does() {
    let sink = start(SinkOptions::default()).await;
    let mut relay = relay(&sink);
    (relay.chunking, relay.messages_per_connection_max) = (4, 6);
    let mut connection = open(&relay).await.unwrap();
    hand_over(&mut connection, "first@example.org").await.unwrap();
    window(&mut connection, &["a@x.example", "b@x.example", "c@x.example"]).await;
    assert_eq!(connection.window(), 2);
    window(&mut connection, &["a@x.example", "b@x.example"]).await;
    assert_eq!((connection.window(), connection.is_usable()), (0, false));
}
