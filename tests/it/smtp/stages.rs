//! Every stage, broken in every plain way: whose failure it is, and what may still be believed.

use hikyaku::domain::message::MessageStatus;
use hikyaku::sink::{Act, At, Script, SinkHandle, SinkOptions};
use hikyaku::smtp::{Connection, Failure, Fault, Reply, Stage, verdict};

use super::{
    BODY, envelope, hand_over, hand_over_with_next, open, relay, start, status, with_script, without_pipelining,
};

const STAGES: [(At, Stage); 6] = [
    (At::Banner, Stage::Banner),
    (At::Ehlo, Stage::Ehlo),
    (At::Mail, Stage::Mail),
    (At::Rcpt, Stage::Rcpt),
    (At::Data, Stage::Data),
    (At::Dot, Stage::FinalDot),
];

/// What became of one message, from the first packet on.
struct Tried {
    sink: SinkHandle,
    connection: Option<Connection>,
    result: Result<Reply, Failure>,
}

async fn try_once(script: Script, pipelining: bool) -> Tried {
    let options = if pipelining {
        SinkOptions::default()
    } else {
        without_pipelining()
    };
    let sink = start(SinkOptions { script, ..options }).await;
    match open(&relay(&sink)).await {
        Ok(mut connection) => {
            let result = hand_over(&mut connection, "anna@example.org").await;
            Tried {
                sink,
                connection: Some(connection),
                result,
            }
        }
        Err(failure) => Tried {
            sink,
            connection: None,
            result: Err(failure),
        },
    }
}

#[tokio::test]
async fn a_lost_connection_is_uncertain_after_the_end_of_data_and_only_then() {
    for act in [Act::Close, Act::Reset] {
        for (at, stage) in STAGES {
            for pipelining in [true, false] {
                let tried = try_once(Script::default().always(at, act.clone()), pipelining).await;
                let failure = tried.result.unwrap_err();
                let case = format!("{act:?} at {stage}: {failure}");
                assert_eq!(failure.end_of_data_written, stage == Stage::FinalDot, "{case}");
                let v = verdict(&failure);
                let expected = if stage == Stage::FinalDot {
                    MessageStatus::Uncertain
                } else {
                    MessageStatus::Deferred
                };
                assert_eq!((v.status, v.fault, v.keep_connection), (expected, Fault::Relay, false), "{case}");
                assert_eq!(v.counts_as_attempt, stage > Stage::Mail, "{case}");
                assert!(tried.connection.is_none_or(|c| !c.is_usable()), "{case}");
                assert_eq!(tried.sink.sink().stats().accepted, 0, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_421_at_any_stage_ends_the_connection_and_is_no_uncertainty() {
    for act in [
        Act::Say(b"421 4.3.2 going down\r\n".to_vec()),
        Act::SayAndClose(b"421 4.3.2 going down\r\n".to_vec()),
    ] {
        for (at, stage) in STAGES {
            for pipelining in [true, false] {
                let tried = try_once(Script::default().always(at, act.clone()), pipelining).await;
                let failure = tried.result.unwrap_err();
                let v = verdict(&failure);
                assert_eq!((failure.stage, v.status), (stage, MessageStatus::Deferred), "{failure}");
                assert!(!v.keep_connection && tried.connection.is_none_or(|c| !c.is_usable()), "{failure}");
                assert_eq!(v.counts_as_attempt, stage > Stage::Mail, "{failure}");
            }
        }
    }
}

#[tokio::test]
async fn refusals_before_the_message_burn_no_attempt_and_those_after_keep_the_connection() {
    for (reply, hard) in [("451 4.3.0 later\r\n", false), ("554 5.3.0 never\r\n", true)] {
        for (at, stage) in STAGES {
            for pipelining in [true, false] {
                let script = Script::default().once(at, 0, Act::Say(reply.into()));
                let tried = try_once(script, pipelining).await;
                let failure = tried.result.unwrap_err();
                let v = verdict(&failure);
                assert_eq!(failure.stage, stage);
                let is_hard = hard && stage >= Stage::Mail;
                let expected = if is_hard {
                    MessageStatus::Failed
                } else {
                    MessageStatus::Deferred
                };
                assert_eq!(v.status, expected, "{failure}");
                assert_eq!(v.counts_as_attempt, is_hard || stage > Stage::Mail, "{failure}");
                assert_eq!(v.keep_connection, stage >= Stage::Mail, "{failure}");
                if let Some(mut connection) = tried.connection {
                    assert!(connection.is_usable(), "{failure}");
                    hand_over(&mut connection, "bo@example.org")
                        .await
                        .expect("the connection is in order");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_connection_lost_behind_the_verdict_leaves_the_message_sent() {
    // The relay takes one message and closes at the next MAIL.
    let script = Script::default().once(At::Mail, 1, Act::Close);
    let sink = start(with_script(script)).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    let finished = hand_over_with_next(&mut connection, "anna@example.org", "bo@example.org").await;
    assert_eq!(status(&finished.this), MessageStatus::Sent);
    let next = finished.next.unwrap_err();
    assert!(!verdict(&next).counts_as_attempt, "{next}");
    assert_eq!(sink.sink().newest(9).len(), 1);
}

#[tokio::test]
async fn goodbye_behind_the_verdict_leaves_the_message_sent() {
    let script = Script::default().always(At::Dot, Act::SayAndClose(b"250 kept\r\n421 enough for today\r\n".to_vec()));
    let sink = start(with_script(script)).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    assert_eq!(status(&hand_over(&mut connection, "anna@example.org").await), MessageStatus::Sent);
    assert!(!connection.is_usable());

    let mut connection = open(&relay(&sink)).await.unwrap();
    let finished = hand_over_with_next(&mut connection, "anna@example.org", "bo@example.org").await;
    assert_eq!(status(&finished.this), MessageStatus::Sent);
    assert!(!verdict(&finished.next.unwrap_err()).counts_as_attempt);
}

#[tokio::test]
async fn a_message_taken_without_a_reply_is_uncertain_and_was_taken() {
    let sink = start(SinkOptions {
        count_recipients: true,
        ..Default::default()
    })
    .await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    let result = hand_over(&mut connection, "drop-after-dot@example.org").await;
    assert_eq!(status(&result), MessageStatus::Uncertain);
    assert_eq!(sink.sink().copies()["drop-after-dot@example.org"], 1);
    assert_eq!(sink.sink().stats().taken_unanswered, 1);
}

#[tokio::test]
async fn nobody_listening_is_the_relays_failure() {
    let sink = start(SinkOptions::default()).await;
    let relay = relay(&sink);
    sink.stop().await;
    let failure = open(&relay).await.err().unwrap();
    let v = verdict(&failure);
    assert_eq!(
        (failure.stage, v.status, v.fault, v.counts_as_attempt),
        (Stage::Connect, MessageStatus::Deferred, Fault::Relay, false)
    );
}

#[tokio::test]
async fn a_relay_that_left_while_idle_costs_no_attempt() {
    let sink = start(SinkOptions::default()).await;
    let relay = relay(&sink);
    let mut connection = open(&relay).await.unwrap();
    hand_over(&mut connection, "anna@example.org").await.unwrap();
    sink.stop().await;
    let failure = connection
        .begin(&envelope("bo@example.org"), BODY.len())
        .await
        .unwrap_err();
    assert_eq!((failure.stage, verdict(&failure).counts_as_attempt), (Stage::Mail, false), "{failure}");
    assert!(!connection.is_usable());
}
