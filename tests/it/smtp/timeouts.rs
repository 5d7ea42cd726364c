//! Relays that fall silent or speak too slowly, with time standing still until everybody waits.

use std::time::Duration;

use hikyaku::sink::{Act, At, Script, Sink, SinkTls};
use hikyaku::smtp::{Cause, Connection, Credentials, Failure, RelayConfig, Stage, TlsContext, TlsMode, verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::auth_and_tls::certificate;
use super::{BODY, envelope, with_script};

/// One message over an in-memory stream; how it failed and how long that took.
async fn fail_against(script: Script) -> (Failure, Duration) {
    let relay = RelayConfig::clear("127.0.0.1", 25);
    let tls = TlsContext::new(&relay).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let sink = Sink::new(with_script(script)).unwrap();
    tokio::spawn(async move { sink.serve(theirs).await });
    let start = Instant::now();
    let mut connection = match Connection::establish(ours, &relay, &tls, "test.example").await {
        Ok(connection) => connection,
        Err(failure) => return (failure, start.elapsed()),
    };
    let failure = match connection.begin(&envelope("anna@example.org"), BODY.len()).await {
        Ok(()) => connection.finish(BODY, None).await.unwrap_err(),
        Err(failure) => failure,
    };
    assert!(!connection.is_usable());
    (failure, start.elapsed())
}

/// Stages with the least patience that RFC 5321 4.5.3.2 asks for, or our own.
const PATIENCE: [(At, Stage, u64); 6] = [
    (At::Banner, Stage::Banner, 60),
    (At::Ehlo, Stage::Ehlo, 300),
    (At::Mail, Stage::Mail, 300),
    (At::Rcpt, Stage::Rcpt, 300),
    (At::Data, Stage::Data, 120),
    (At::Dot, Stage::FinalDot, 600),
];

#[tokio::test(start_paused = true)]
async fn each_stage_has_its_own_patience() {
    for (at, stage, secs) in PATIENCE {
        let (failure, took) = fail_against(Script::default().always(at, Act::Silence)).await;
        assert_eq!((failure.stage, &failure.cause), (stage, &Cause::Timeout(Duration::from_secs(secs))));
        assert!(took.abs_diff(Duration::from_secs(secs)) < Duration::from_millis(10), "{stage} took {took:?}");
        assert_eq!(failure.end_of_data_written, stage == Stage::FinalDot);
        assert_eq!(verdict(&failure).counts_as_attempt, stage > Stage::Mail);
    }
}

/// Before the first message and between two: each wait has an end of its own, and no message pays for it.
#[tokio::test(start_paused = true)]
async fn handshake_login_and_reset_have_their_own_patience() {
    for (at, stage, secs) in [
        (At::StartTls, Stage::StartTls, 300),
        (At::Auth, Stage::Auth, 60),
        (At::Rset, Stage::Reset, 20),
    ] {
        let mut relay = RelayConfig::clear("127.0.0.1", 25);
        let mut options = with_script(Script::default().always(at, Act::Silence));
        if at == At::StartTls {
            relay.tls = TlsMode::StartTls;
            relay.verify_certificate = false;
            options.tls = SinkTls::StartTls(certificate("127.0.0.1").0);
        }
        if at == At::Auth {
            let (user, password) = ("anna".to_owned(), "secret".to_owned());
            options.require_auth = Some((user.clone(), password.clone()));
            relay.credentials = Some(Credentials { user, password });
        }
        let tls = TlsContext::new(&relay).unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let sink = Sink::new(options).unwrap();
        tokio::spawn(async move { sink.serve(theirs).await });
        let mut start = Instant::now();
        let failure = match Connection::establish(ours, &relay, &tls, "test.example").await {
            Err(failure) => failure,
            Ok(mut connection) => {
                let refused = envelope("reject-550@example.org");
                connection.begin(&refused, BODY.len()).await.unwrap_err();
                start = Instant::now();
                let failure = connection.begin(&refused, BODY.len()).await.unwrap_err();
                assert!(!connection.is_usable());
                failure
            }
        };
        let patience = Duration::from_secs(secs);
        assert_eq!((failure.stage, &failure.cause), (stage, &Cause::Timeout(patience)));
        assert!(start.elapsed().abs_diff(patience) < Duration::from_millis(10), "{stage} took {:?}", start.elapsed());
        assert!(!verdict(&failure).counts_as_attempt, "{failure}");
    }
}

/// The handshake itself: the relay says 220 and then nothing.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_gets_no_answer_is_given_up() {
    let mut relay = RelayConfig::clear("127.0.0.1", 25);
    (relay.tls, relay.verify_certificate) = (TlsMode::Implicit, false);
    let tls = TlsContext::new(&relay).unwrap();
    let (ours, _theirs) = tokio::io::duplex(64 * 1024);
    let start = Instant::now();
    let failure = Connection::establish(ours, &relay, &tls, "test.example")
        .await
        .err()
        .unwrap();
    assert_eq!((failure.stage, failure.cause), (Stage::StartTls, Cause::Timeout(Duration::from_secs(60))));
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_buys_no_patience() {
    let slowly = Act::Drip(b"250-".repeat(500), Duration::from_secs(10));
    for (at, stage, secs) in PATIENCE {
        let (failure, took) = fail_against(Script::default().always(at, slowly.clone())).await;
        assert_eq!(failure.stage, stage);
        assert!(took <= Duration::from_secs(secs + 1), "{stage} took {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_not_read_is_given_up_before_the_end_of_data_is_out() {
    let relay = RelayConfig::clear("127.0.0.1", 25);
    let tls = TlsContext::new(&relay).unwrap();
    // The pipe holds 4 KiB, the message is larger, and nobody reads after the 354.
    let (ours, mut theirs) = tokio::io::duplex(4 * 1024);
    let server = tokio::spawn(async move {
        let mut ignored = [0; 4 * 1024];
        for reply in [
            "220 hello\r\n",
            "250-hello\r\n250 PIPELINING\r\n",
            "250 ok\r\n250 ok\r\n354 go on\r\n",
        ] {
            theirs.write_all(reply.as_bytes()).await.unwrap();
            if !reply.contains("354") {
                assert_ne!(theirs.read(&mut ignored).await.unwrap(), 0);
            }
        }
        std::future::pending::<()>().await;
    });
    let mut connection = Connection::establish(ours, &relay, &tls, "test.example").await.unwrap();
    let body = vec![b'x'; 100_000];
    connection
        .begin(&envelope("anna@example.org"), body.len())
        .await
        .unwrap();
    let failure = connection.finish(&body, None).await.unwrap_err();
    server.abort();
    assert_eq!(failure.cause, Cause::Timeout(Duration::from_secs(180)));
    assert_eq!((failure.stage, failure.end_of_data_written), (Stage::Body, false), "{failure}");
}
