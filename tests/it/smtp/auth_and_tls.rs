//! Encryption and passwords: nothing leaves in clear that should not.

use hikyaku::sink::{Act, At, Extensions, Script, Sink, SinkCertificate, SinkHandle, SinkOptions, SinkTls};
use hikyaku::smtp::{Cause, Connection, Credentials, RelayConfig, Stage, TlsContext, TlsMode, verdict};
use rustls::pki_types::CertificateDer;

use super::{hand_over, open, relay, start, with_script};

pub(super) fn certificate(name: &str) -> (SinkCertificate, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let pem = SinkCertificate {
        chain_pem: made.cert.pem(),
        key_pem: made.signing_key.serialize_pem(),
    };
    (pem, made.cert.der().clone())
}

/// A sink with a certificate for `name`, and a relay configuration that trusts it and calls it localhost.
pub(super) async fn encrypted(name: &str, mode: TlsMode, options: SinkOptions) -> (SinkHandle, RelayConfig) {
    let (pem, root) = certificate(name);
    let tls = match mode {
        TlsMode::None => SinkTls::None,
        TlsMode::StartTls => SinkTls::StartTls(pem),
        TlsMode::Implicit => SinkTls::Implicit(pem),
    };
    let sink = start(SinkOptions { tls, ..options }).await;
    let mut relay = RelayConfig::clear("localhost", sink.addr().port());
    relay.tls = mode;
    relay.extra_roots = vec![root];
    (sink, relay)
}

#[tokio::test]
async fn messages_go_over_starttls_and_implicit_tls() {
    for mode in [TlsMode::StartTls, TlsMode::Implicit] {
        let (sink, relay) = encrypted("localhost", mode, SinkOptions::default()).await;
        let mut connection = open(&relay).await.unwrap();
        hand_over(&mut connection, "anna@example.org").await.unwrap();
        hand_over(&mut connection, "bo@example.org").await.unwrap();
        connection.quit().await;
        assert_eq!((sink.sink().stats().accepted, sink.sink().stats().violations), (2, 0), "{mode:?}");
    }
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_bear_the_name() {
    for mode in [TlsMode::StartTls, TlsMode::Implicit] {
        let (sink, mut relay) = encrypted("other.example", mode, SinkOptions::default()).await;
        let failure = open(&relay)
            .await
            .err()
            .expect("a certificate for another name was taken");
        assert_eq!(failure.stage, Stage::StartTls);
        assert!(matches!(failure.cause, Cause::Tls(_)), "{failure}");

        relay.extra_roots = vec![certificate("localhost").1];
        let failure = open(&relay)
            .await
            .err()
            .expect("a certificate that nobody vouches for was taken");
        assert!(matches!(failure.cause, Cause::Tls(_)), "{failure}");
        assert!(!verdict(&failure).counts_as_attempt);

        relay.verify_certificate = false;
        let mut connection = open(&relay).await.expect("unchecked means unchecked");
        hand_over(&mut connection, "anna@example.org").await.unwrap();
        assert_eq!(sink.sink().stats().accepted, 1);
    }
}

#[tokio::test]
async fn without_starttls_nothing_is_sent_when_it_is_required() {
    let sink = start(SinkOptions {
        require_auth: Some(("anna".into(), "secret".into())),
        ..SinkOptions::default()
    })
    .await;
    let mut relay = relay(&sink);
    relay.tls = TlsMode::StartTls;
    relay.credentials = Some(Credentials {
        user: "anna".into(),
        password: "secret".into(),
    });
    let before = sink.sink().stats().flushes;
    let failure = open(&relay).await.err().unwrap();
    assert_eq!(failure.stage, Stage::StartTls);
    assert!(matches!(failure.cause, Cause::Unsupported(_)), "{failure}");
    assert_eq!(sink.sink().stats().flushes - before, 2, "the banner and EHLO, and no more");
}

#[tokio::test]
async fn a_refused_starttls_never_falls_back_to_clear() {
    let script = Script::default().always(At::StartTls, Act::Say(b"454 4.7.0 not now\r\n".to_vec()));
    let (sink, relay) = encrypted("localhost", TlsMode::StartTls, with_script(script)).await;
    let failure = open(&relay).await.err().unwrap();
    assert_eq!((failure.stage, verdict(&failure).class), (Stage::StartTls, "tls_required"));
    assert_eq!(sink.sink().stats().accepted, 0);
}

#[tokio::test]
async fn plain_text_slipped_in_behind_starttls_ends_the_connection() {
    let script =
        Script::default().always(At::StartTls, Act::Say(b"220 go ahead\r\n250-x\r\n250 AUTH PLAIN\r\n".to_vec()));
    let (_sink, relay) = encrypted("localhost", TlsMode::StartTls, with_script(script)).await;
    let failure = open(&relay).await.err().unwrap();
    assert_eq!(failure.stage, Stage::StartTls);
    assert!(matches!(failure.cause, Cause::Desync(_)), "{failure}");
}

fn with_password(relay: RelayConfig, password: &str) -> RelayConfig {
    let credentials = Credentials {
        user: "anna".into(),
        password: password.into(),
    };
    RelayConfig {
        credentials: Some(credentials),
        ..relay
    }
}

fn asking_for_a_password(mechanisms: &str) -> SinkOptions {
    SinkOptions {
        require_auth: Some(("anna".into(), "pässword".into())),
        extensions: Extensions {
            auth: mechanisms.into(),
            ..Extensions::default()
        },
        ..SinkOptions::default()
    }
}

#[tokio::test]
async fn the_right_password_opens_the_relay_and_a_wrong_one_is_the_relays_failure() {
    for mechanisms in ["PLAIN LOGIN", "PLAIN", "LOGIN"] {
        let (sink, relay) = encrypted("localhost", TlsMode::StartTls, asking_for_a_password(mechanisms)).await;
        let mut connection = open(&with_password(relay.clone(), "pässword")).await.unwrap();
        hand_over(&mut connection, "anna@example.org").await.unwrap();

        let failure = open(&with_password(relay, "guess")).await.err().unwrap();
        let v = verdict(&failure);
        assert_eq!(
            (failure.stage, v.class, v.counts_as_attempt),
            (Stage::Auth, "auth_required", false),
            "{mechanisms}"
        );
        assert_eq!(sink.sink().stats().refused, 1, "{mechanisms}: one try, and no other mechanism after it");
    }
}

#[tokio::test]
async fn a_mechanism_we_do_not_speak_is_said_so() {
    let (_sink, relay) = encrypted("localhost", TlsMode::StartTls, asking_for_a_password("GSSAPI")).await;
    let failure = open(&with_password(relay, "pässword")).await.err().unwrap();
    assert!(matches!(failure.cause, Cause::Unsupported(_)), "{failure}");
}

#[tokio::test]
async fn a_relay_that_overlooks_the_initial_response_gets_it_again() {
    let script = Script::default().once(At::Auth, 0, Act::Say(b"334 \r\n".to_vec()));
    let options = SinkOptions {
        script,
        ..asking_for_a_password("PLAIN")
    };
    let sink = start(options).await;
    let mut connection = open(&with_password(relay(&sink), "pässword")).await.unwrap();
    hand_over(&mut connection, "anna@example.org").await.unwrap();
}

#[tokio::test]
async fn a_password_never_goes_in_clear_to_another_machine() {
    let relay = with_password(RelayConfig::clear("mail.example.org", 25), "pässword");
    let tls = TlsContext::new(&relay).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let sink = Sink::new(asking_for_a_password("PLAIN LOGIN")).unwrap();
    let served = tokio::spawn({
        let sink = sink.clone();
        async move { sink.serve(theirs).await }
    });
    let failure = Connection::establish(ours, &relay, &tls, "test.example")
        .await
        .err()
        .unwrap();
    assert!(matches!(failure.cause, Cause::Unsupported(_)), "{failure}");
    served.await.unwrap();
    assert_eq!(sink.stats().flushes, 2, "the banner and EHLO, and no more");
}
