//! What a relay's configuration asks for beyond the plain: tokens, reports, the age of connections, an end to patience.

use std::time::Duration;

use hikyaku::sink::{Act, At, Extensions, Script, Sink, SinkOptions};
use hikyaku::smtp::{AuthMethod, Cause, Connection, Credentials, Notify, RelayConfig, Stage, TlsContext, verdict};
use tokio::io::AsyncReadExt;

use super::{BODY, envelope, hand_over, open, relay, start, with_script};

fn with_token(relay: RelayConfig, token: &str) -> RelayConfig {
    RelayConfig {
        auth: AuthMethod::XOAuth2,
        credentials: Some(Credentials {
            user: "anna@example.org".into(),
            password: token.into(),
        }),
        ..relay
    }
}

fn asking_for_a_token() -> SinkOptions {
    SinkOptions {
        require_auth: Some(("anna@example.org".into(), "ya29.token".into())),
        extensions: Extensions {
            auth: "PLAIN XOAUTH2".into(),
            ..Extensions::default()
        },
        ..SinkOptions::default()
    }
}

#[tokio::test]
async fn a_token_opens_the_relay_and_a_refused_one_is_answered_to_the_end() {
    let sink = start(asking_for_a_token()).await;
    let mut connection = open(&with_token(relay(&sink), "ya29.token")).await.unwrap();
    hand_over(&mut connection, "anna@example.org").await.unwrap();

    let failure = open(&with_token(relay(&sink), "stale")).await.err().unwrap();
    let v = verdict(&failure);
    assert_eq!((failure.stage, v.class, v.counts_as_attempt), (Stage::Auth, "auth_required", false));
    // The 535 behind the empty line, and not the 334 with the reason in JSON.
    assert!(matches!(&failure.cause, Cause::Reply(reply) if reply.code == 535), "{failure}");
    assert_eq!(sink.sink().stats().violations, 0);
}

#[tokio::test]
async fn a_relay_that_overlooks_the_token_gets_it_again() {
    let script = Script::default().once(At::Auth, 0, Act::Say(b"334 \r\n".to_vec()));
    let sink = start(SinkOptions {
        script,
        ..asking_for_a_token()
    })
    .await;
    assert!(open(&with_token(relay(&sink), "stale")).await.is_err(), "a wrong one is still wrong");
}

#[tokio::test]
async fn only_the_way_in_that_was_asked_for_is_tried() {
    let sink = start(SinkOptions {
        require_auth: Some(("anna@example.org".into(), "secret".into())),
        extensions: Extensions {
            auth: "PLAIN".into(),
            ..Extensions::default()
        },
        ..SinkOptions::default()
    })
    .await;
    for method in [AuthMethod::XOAuth2, AuthMethod::Login] {
        let mut relay = with_token(relay(&sink), "secret");
        relay.auth = method;
        let failure = open(&relay).await.err().unwrap();
        assert!(matches!(failure.cause, Cause::Unsupported(_)), "{failure}");
    }
    let mut relay = with_token(relay(&sink), "secret");
    relay.auth = AuthMethod::Plain;
    open(&relay).await.unwrap();
}

const NOTIFY: Notify = Notify {
    success: false,
    failure: true,
    delay: true,
};

#[tokio::test]
async fn reports_are_asked_for_where_they_are_wanted_and_offered() {
    for (offered, wanted, commands) in [
        (
            true,
            Some(NOTIFY),
            [
                "MAIL FROM:<news@example.org> SIZE=54 RET=HDRS ENVID=msg+2B1",
                "RCPT TO:<anna+1@example.org> NOTIFY=FAILURE,DELAY ORCPT=rfc822;anna+2B1@example.org",
            ],
        ),
        (false, Some(NOTIFY), ["MAIL FROM:<news@example.org> SIZE=54", "RCPT TO:<anna+1@example.org>"]),
        (true, None, ["MAIL FROM:<news@example.org> SIZE=54", "RCPT TO:<anna+1@example.org>"]),
    ] {
        let sink = start(SinkOptions {
            extensions: Extensions {
                dsn: offered,
                ..Extensions::default()
            },
            ..SinkOptions::default()
        })
        .await;
        let mut relay = relay(&sink);
        relay.notify = wanted;
        let mut connection = open(&relay).await.unwrap();
        let to = envelope("anna+1@example.org").with_id("msg+1");
        connection.begin(&to, BODY.len()).await.unwrap();
        connection.finish(BODY, None).await.unwrap();
        assert_eq!(BODY.len(), 54, "the SIZE above");
        assert_eq!(sink.sink().newest(1)[0].commands, commands);
    }
}

#[tokio::test]
async fn a_relay_that_refuses_the_parameters_it_offers_gets_the_message_without_them() {
    for at in [At::Mail, At::Rcpt] {
        let script = Script::default().once(at, 0, Act::Say(b"555 5.5.4 what is that\r\n".to_vec()));
        let sink = start(with_script(script)).await;
        let mut relay = relay(&sink);
        relay.notify = Some(NOTIFY);
        let mut connection = open(&relay).await.unwrap();
        hand_over(&mut connection, "anna@example.org").await.unwrap();
        let commands = &sink.sink().newest(1)[0].commands;
        assert!(commands.iter().all(|c| !c.contains("RET=") && !c.contains("NOTIFY=")), "{commands:?}");
    }
}

/// A session over a pipe, so that time can stand still.
async fn piped(relay: &RelayConfig, options: SinkOptions) -> Connection<tokio::io::DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let sink = Sink::new(options).unwrap();
    tokio::spawn(async move { sink.serve(theirs).await });
    let tls = TlsContext::new(relay).unwrap();
    Connection::establish(ours, relay, &tls, "test.example").await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_grows_old_and_not_all_at_the_same_time() {
    let mut relay = RelayConfig::clear("127.0.0.1", 25);
    relay.age_max = Duration::from_secs(100);
    let mut ages = Vec::new();
    for _ in 0..20 {
        let connection = piped(&relay, SinkOptions::default()).await;
        let opened = tokio::time::Instant::now();
        while connection.is_usable() {
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        ages.push(opened.elapsed());
    }
    assert!(
        ages.iter()
            .all(|a| (Duration::from_secs(89)..=Duration::from_secs(101)).contains(a)),
        "{ages:?}"
    );
    ages.sort();
    ages.dedup();
    assert!(ages.len() > 5, "{ages:?}");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_takes_each_block_just_in_time_is_given_up_in_the_end() {
    let relay = RelayConfig::clear("127.0.0.1", 25);
    let tls = TlsContext::new(&relay).unwrap();
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let mut ignored = vec![0; 64 * 1024];
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
        // A block every 170 s, where 180 s are allowed.
        loop {
            tokio::time::sleep(Duration::from_secs(170)).await;
            if theirs.read_exact(&mut ignored).await.is_err() {
                return;
            }
        }
    });
    let mut connection = Connection::establish(ours, &relay, &tls, "test.example").await.unwrap();
    let body = vec![b'x'; 8 << 20];
    connection
        .begin(&envelope("anna@example.org"), body.len())
        .await
        .unwrap();
    let start = tokio::time::Instant::now();
    let failure = connection.finish(&body, None).await.unwrap_err();
    assert_eq!((failure.stage, failure.end_of_data_written), (Stage::Body, false), "{failure}");
    let took = start.elapsed().as_secs();
    assert!((1_190..=1_210).contains(&took), "{took} s");
    drop(connection);
    server.await.unwrap();
}
