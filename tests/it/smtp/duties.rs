//! Duties of a client that show in what it says, and in what it does not.

use hikyaku::sink::{Act, At, Extensions, Script, Sink, SinkOptions};
use hikyaku::smtp::{Cause, Connection, RelayConfig, Stage, TlsContext, TlsMode, verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::auth_and_tls::encrypted;
use super::{BODY, envelope, hand_over, open, relay, start, with_script, without_pipelining};

#[tokio::test]
async fn what_was_offered_in_clear_is_forgotten_behind_tls() {
    // In clear the relay, or whoever sits in between, offers everything; behind TLS the real one does not.
    let tempting = b"250-hello\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 10\r\n250 STARTTLS\r\n".to_vec();
    let options = SinkOptions {
        script: Script::default().once(At::Ehlo, 0, Act::Say(tempting)),
        ..without_pipelining()
    };
    let (sink, mut relay) = encrypted("localhost", TlsMode::StartTls, options).await;
    relay.chunking = 4;
    let mut connection = open(&relay).await.unwrap();
    for _ in 0..2 {
        hand_over(&mut connection, "anna@example.org").await.unwrap();
        assert_eq!(connection.window(), 0);
    }
    let stats = sink.sink().stats();
    assert_eq!((stats.accepted, stats.violations), (2, 0), "nothing was sent ahead, and SIZE 10 did not count");
}

/// The versions that a ClientHello offers (extension 43, RFC 8446 4.2.1).
fn versions_offered(hello: &[u8]) -> Vec<u16> {
    let at = |i: usize| usize::from(u16::from_be_bytes([hello[i], hello[i + 1]]));
    // Record and handshake headers, version, random; then session id, suites, compressions.
    let mut i = 5 + 4 + 2 + 32;
    i += 1 + usize::from(hello[i]);
    i += 2 + at(i);
    i += 1 + usize::from(hello[i]);
    let end = i + 2 + at(i);
    i += 2;
    while i < end {
        let (kind, len) = (at(i), at(i + 2));
        if kind == 43 {
            return hello[i + 5..i + 4 + len]
                .chunks(2)
                .map(|v| u16::from_be_bytes([v[0], v[1]]))
                .collect();
        }
        i += 4 + len;
    }
    vec![]
}

#[tokio::test]
async fn nothing_below_tls_1_2_is_offered_or_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut relay = RelayConfig::clear("localhost", listener.local_addr().unwrap().port());
    relay.host = "127.0.0.1".into();
    relay.tls = TlsMode::Implicit;
    relay.verify_certificate = false;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        let len = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
        hello.resize(5 + len, 0);
        stream.read_exact(&mut hello[5..]).await.unwrap();
        // A ServerHello of TLS 1.1 with a suite of its time, no session and no extensions.
        let mut answer = vec![22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
        answer.extend([7; 32]);
        answer.extend([0, 0, 0x2f, 0]);
        stream.write_all(&answer).await.unwrap();
        let mut rest = Vec::new();
        // The client may close or reset, now that it has heard enough.
        let _ = stream.read_to_end(&mut rest).await;
        (hello, rest)
    });
    let failure = open(&relay).await.err().expect("TLS 1.1 was taken");
    assert_eq!(failure.stage, Stage::StartTls);
    assert!(matches!(failure.cause, Cause::Tls(_)), "{failure}");
    assert!(!verdict(&failure).counts_as_attempt);
    let (hello, rest) = server.await.unwrap();
    let mut versions = versions_offered(&hello);
    versions.sort_unstable();
    assert_eq!(versions, [0x0303, 0x0304], "TLS 1.2 and 1.3");
    assert!(rest.is_empty() || rest[0] == 21, "an alert, and no more");
}

#[tokio::test]
async fn rset_is_said_after_a_transaction_that_failed_and_never_else() {
    for options in [SinkOptions::default(), without_pipelining()] {
        // Whoever says RSET is cut off.
        let script = || Script::default().always(At::Rset, Act::Close);
        let sink = start(SinkOptions {
            script: script(),
            ..options.clone()
        })
        .await;
        let mut connection = open(&relay(&sink)).await.unwrap();
        for _ in 0..3 {
            hand_over(&mut connection, "anna@example.org").await.unwrap();
        }
        // Refused at its end a transaction is over, too.
        hand_over(&mut connection, "dot-451@example.org").await.unwrap_err();
        hand_over(&mut connection, "anna@example.org").await.unwrap();
        assert_eq!(sink.sink().stats().accepted, 4);
        // Refused at RCPT it is not.
        hand_over(&mut connection, "reject-550@example.org").await.unwrap_err();
        assert!(connection.is_usable());
        let failure = hand_over(&mut connection, "anna@example.org").await.unwrap_err();
        assert_eq!((failure.stage, verdict(&failure).counts_as_attempt), (Stage::Reset, false), "{failure}");
    }
}

#[tokio::test]
async fn connections_that_were_opened_together_do_not_end_together() {
    let mut relay = RelayConfig::clear("127.0.0.1", 25);
    relay.messages_per_connection_max = 20;
    let tls = TlsContext::new(&relay).unwrap();
    let mut carried = Vec::new();
    for _ in 0..60 {
        let sink = Sink::new(SinkOptions::default()).unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let served = tokio::spawn(async move { sink.serve(theirs).await });
        let mut connection = Connection::establish(ours, &relay, &tls, "test.example").await.unwrap();
        while connection.is_usable() {
            connection
                .begin(&envelope("anna@example.org"), BODY.len())
                .await
                .unwrap();
            connection.finish(BODY, None).await.unwrap();
        }
        carried.push(connection.messages_sent());
        drop(connection);
        served.await.unwrap();
    }
    carried.sort_unstable();
    carried.dedup();
    assert!(carried.iter().all(|n| (18..=20).contains(n)), "{carried:?}");
    assert!(carried.len() > 1, "all ended after {carried:?}");
}

#[tokio::test]
async fn an_idle_connection_is_looked_at_before_it_is_used() {
    let script = Script::default().once(At::Dot, 0, Act::SayAndClose(b"250 2.0.0 kept\r\n".to_vec()));
    let sink = start(with_script(script)).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    assert!(connection.check_idle().await.is_ok(), "nothing has happened yet");
    hand_over(&mut connection, "anna@example.org").await.unwrap();
    // The close is on its way: looking does not wait for it, so look until it is there.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let failure = loop {
        match connection.check_idle().await {
            Err(failure) => break failure,
            Ok(()) => assert!(tokio::time::Instant::now() < deadline, "the close was never noticed"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((failure.stage, &failure.cause), (Stage::Mail, &Cause::Closed));
    assert!(!verdict(&failure).counts_as_attempt && !connection.is_usable());
}

#[tokio::test]
async fn a_size_without_a_number_limits_nothing() {
    let offers = b"250-hello\r\n250-PIPELINING\r\n250 SIZE\r\n".to_vec();
    let options = SinkOptions {
        script: Script::default().always(At::Ehlo, Act::Say(offers)),
        extensions: Extensions {
            size: None,
            ..Extensions::default()
        },
        ..SinkOptions::default()
    };
    let sink = start(options).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    hand_over(&mut connection, "anna@example.org").await.unwrap();
    assert_eq!(sink.sink().newest(1)[0].commands[0], "MAIL FROM:<news@example.org>");
}
