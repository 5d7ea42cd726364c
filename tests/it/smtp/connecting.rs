//! The first column of the fault matrix: relays that cannot be reached at all. No message is concerned, so none pays.

use std::time::Duration;

use hikyaku::domain::message::MessageStatus;
use hikyaku::sink::SinkOptions;
use hikyaku::smtp::{Cause, Failure, Fault, RelayConfig, Stage, verdict};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{hand_over, open, start};

fn is_the_relays_failure(failure: &Failure) {
    let v = verdict(failure);
    let got = (failure.stage, v.status, v.fault, v.counts_as_attempt, v.keep_connection);
    let expected = (Stage::Connect, MessageStatus::Deferred, Fault::Relay, false, false);
    assert_eq!(got, expected, "{failure}");
    assert!(!failure.end_of_data_written, "{failure}");
    assert_eq!(v.class, "network", "{failure}");
}

/// A port at which nobody listens: the answer is a reset.
pub(super) async fn refused() -> Failure {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = RelayConfig::clear("127.0.0.1", listener.local_addr().unwrap().port());
    drop(listener);
    open(&relay).await.err().unwrap()
}

#[tokio::test]
async fn nobody_listens() {
    let failure = refused().await;
    assert!(matches!(failure.cause, Cause::Io(_)), "{failure}");
    is_the_relays_failure(&failure);
}

/// The patience of [`unanswered`].
const CONNECT_MAX: Duration = Duration::from_millis(300);

/// A listener whose queue is full answers no SYN, as a host behind a wall does.
pub(super) async fn unanswered() -> Failure {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Linux queues one more than it is told.
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let _queue = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let mut relay = RelayConfig::clear("127.0.0.1", address.port());
    relay.timeouts.connect = CONNECT_MAX;
    open(&relay).await.err().unwrap()
}

#[tokio::test]
async fn nobody_answers() {
    let failure = unanswered().await;
    assert_eq!(failure.cause, Cause::Timeout(CONNECT_MAX), "{failure}");
    is_the_relays_failure(&failure);
}

#[tokio::test]
async fn nobody_has_the_name() {
    // Longer than a label may be: no resolver has to be asked.
    let relay = RelayConfig::clear("a".repeat(64), 25);
    let failure = open(&relay).await.err().unwrap();
    assert!(matches!(&failure.cause, Cause::Io(what) if what.contains("looking up")), "{failure}");
    is_the_relays_failure(&failure);
}

/// Taken and reset at once, before the banner: no message is concerned here either.
#[tokio::test]
async fn somebody_hangs_up_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = RelayConfig::clear("127.0.0.1", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_zero_linger().unwrap();
    });
    let failure = open(&relay).await.err().unwrap();
    server.await.unwrap();
    let v = verdict(&failure);
    // The reset may overtake the end of connecting.
    assert!(matches!(failure.stage, Stage::Connect | Stage::Banner), "{failure}");
    assert_eq!(
        (v.status, v.fault, v.counts_as_attempt),
        (MessageStatus::Deferred, Fault::Relay, false),
        "{failure}"
    );
}

/// The name has two addresses as a rule, and the relay listens on one of them.
#[tokio::test]
async fn the_next_address_is_tried() {
    let sink = start(SinkOptions::default()).await;
    let relay = RelayConfig::clear("localhost", sink.addr().port());
    let mut connection = open(&relay).await.unwrap();
    hand_over(&mut connection, "anna@example.org").await.unwrap();
}
