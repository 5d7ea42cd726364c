//! Relays whose replies do not fit the commands: nothing they say counts as sent.

use hikyaku::domain::message::MessageStatus;
use hikyaku::sink::{Act, At, Script, SinkOptions};
use hikyaku::smtp::{Cause, Connection, RelayConfig, Stage, TlsContext, verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    BODY, envelope, hand_over, hand_over_with_next, open, relay, start, status, with_script, without_pipelining,
};

async fn with_and_without_pipelining(script: impl Fn() -> Script, check: impl AsyncFn(SinkOptions)) {
    check(with_script(script())).await;
    check(SinkOptions {
        script: script(),
        ..without_pipelining()
    })
    .await;
}

/// Replies to the end of data that are no verdict.
const NO_VERDICTS: [&[u8]; 7] = [
    b"354 go on\r\n",
    b"334 \r\n",
    b"250-kept\r\n550 or not\r\n",
    b"550-no\r\n250 yes\r\n",
    b"250kept\r\n",
    b"ok\r\n",
    b"\r\n",
];

#[tokio::test]
async fn no_odd_reply_to_the_end_of_data_passes_for_sent() {
    for odd in NO_VERDICTS {
        let case = odd.escape_ascii().to_string();
        let script = || Script::default().always(At::Dot, Act::Say(odd.to_vec()));
        with_and_without_pipelining(script, async |options| {
            let sink = start(options).await;
            let mut connection = open(&relay(&sink)).await.unwrap();
            let result = hand_over(&mut connection, "anna@example.org").await;
            assert_eq!(status(&result), MessageStatus::Uncertain, "{case}");
            assert!(matches!(result.unwrap_err().cause, Cause::Desync(_)), "{case}");
            assert!(!connection.is_usable(), "{case}");

            let mut connection = open(&relay(&sink)).await.unwrap();
            let finished = hand_over_with_next(&mut connection, "anna@example.org", "bo@example.org").await;
            assert_eq!(status(&finished.this), MessageStatus::Uncertain, "{case}");
            assert!(finished.next.is_err() && !connection.is_usable(), "{case}");
        })
        .await;
    }
}

/// The first reply in the place of the end of data is the verdict, and what follows takes nothing of it back.
#[tokio::test]
async fn a_final_reply_is_final_whatever_comes_behind_it() {
    for (said, expected) in [
        ("250 kept\r\n250 and again\r\n", MessageStatus::Sent),
        ("250 kept\r\n550 or not\r\n", MessageStatus::Sent),
        ("250 kept\r\n354 go on\r\n", MessageStatus::Sent),
        ("250 kept\r\nrubbish\r\n", MessageStatus::Sent),
        ("503 bad sequence\r\n", MessageStatus::Deferred),
        ("451 later\r\n250 kept\r\n", MessageStatus::Deferred),
        ("554 never\r\n250 kept\r\n", MessageStatus::Failed),
    ] {
        let script = || Script::default().always(At::Dot, Act::Say(said.as_bytes().to_vec()));
        with_and_without_pipelining(script, async |options| {
            let sink = start(options).await;
            let mut connection = open(&relay(&sink)).await.unwrap();
            let result = hand_over(&mut connection, "anna@example.org").await;
            assert_eq!(status(&result), expected, "{said:?}");

            let mut connection = open(&relay(&sink)).await.unwrap();
            let finished = hand_over_with_next(&mut connection, "anna@example.org", "bo@example.org").await;
            assert_eq!(status(&finished.this), expected, "{said:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn no_content_is_sent_after_replies_that_do_not_fit() {
    let surplus = b"250 fine\r\n250 and more\r\n";
    let cases: [(At, &[u8]); 7] = [
        (At::Mail, surplus),
        (At::Mail, b"354 go on\r\n"),
        (At::Rcpt, surplus),
        (At::Rcpt, b"354 go on\r\n"),
        (At::Data, b"354 go on\r\n250 kept\r\n"),
        (At::Data, b"250 kept\r\n"),
        (At::Banner, b"220 hello\r\n250 hello\r\n"),
    ];
    for (at, odd) in cases {
        let case = format!("{at:?}: {}", odd.escape_ascii());
        let script = || Script::default().always(at, Act::Say(odd.to_vec()));
        with_and_without_pipelining(script, async |options| {
            let sink = start(options).await;
            let failure = match open(&relay(&sink)).await {
                Err(failure) => failure,
                Ok(mut connection) => {
                    let failure = hand_over(&mut connection, "anna@example.org").await.expect_err(&case);
                    assert!(!connection.is_usable(), "{case}");
                    failure
                }
            };
            assert!(matches!(failure.cause, Cause::Desync(_)), "{case}: {failure}");
            assert!(!failure.end_of_data_written, "{case}");
            assert_eq!(sink.sink().stats().accepted, 0, "{case}");
        })
        .await;
    }
}

#[tokio::test]
async fn endless_replies_end_the_connection() {
    let endless_lines = b"250-more\r\n".repeat(1_000);
    let endless_line = vec![b'2'; 1 << 20];
    for (at, endless) in [
        (At::Ehlo, &endless_lines),
        (At::Rcpt, &endless_lines),
        (At::Dot, &endless_lines),
        (At::Dot, &endless_line),
    ] {
        let sink = start(with_script(Script::default().always(at, Act::Say(endless.clone())))).await;
        let failure = match open(&relay(&sink)).await {
            Err(failure) => failure,
            Ok(mut connection) => hand_over(&mut connection, "anna@example.org").await.unwrap_err(),
        };
        assert!(matches!(failure.cause, Cause::Desync(_)), "{failure}");
    }
}

#[tokio::test]
async fn a_reply_split_into_bytes_is_one_reply() {
    let drip = Act::Drip(b"250-2.0.0 kept\r\n250 2.0.0 for you\r\n".to_vec(), std::time::Duration::ZERO);
    let sink = start(with_script(Script::default().always(At::Dot, drip))).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    let reply = hand_over(&mut connection, "anna@example.org").await.unwrap();
    assert_eq!(reply.text, "kept\nfor you");
    assert!(connection.is_usable());
}

#[tokio::test]
async fn nothing_is_sent_to_a_relay_that_spoke_out_of_turn() {
    for (spoken, is_goodbye) in [
        ("421 4.4.2 idle for too long\r\n", true),
        ("250 ok\r\n", false),
        ("250", false),
    ] {
        let relay = RelayConfig::clear("127.0.0.1", 25);
        let tls = TlsContext::new(&relay).unwrap();
        let (ours, mut theirs) = tokio::io::duplex(4 * 1024);
        theirs.write_all(b"220 hello\r\n").await.unwrap();
        let server = tokio::spawn(async move {
            let mut ehlo = [0; 64];
            assert_ne!(theirs.read(&mut ehlo).await.unwrap(), 0);
            theirs.write_all(b"250 hello\r\n").await.unwrap();
            theirs
        });
        let mut connection = Connection::establish(ours, &relay, &tls, "test.example").await.unwrap();
        let mut theirs = server.await.unwrap();
        theirs.write_all(spoken.as_bytes()).await.unwrap();

        let failure = connection
            .begin(&envelope("anna@example.org"), BODY.len())
            .await
            .unwrap_err();
        assert_eq!((failure.stage, verdict(&failure).counts_as_attempt), (Stage::Mail, false), "{spoken}");
        assert_eq!(matches!(failure.cause, Cause::Reply(_)), is_goodbye, "{failure}");
        assert!(!connection.is_usable());
        drop(connection);
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"", "{spoken}");
    }
}
