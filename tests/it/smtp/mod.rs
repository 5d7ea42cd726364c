//! The SMTP client against the capture relay: real sockets, real TLS, and streams that break where a
//! socket cannot be made to.

mod auth_and_tls;
mod chunking;
mod connecting;
mod cuts;
mod duties;
mod flights;
mod matrix;
mod options;
mod out_of_step;
mod sessions;
mod sink;
mod stages;
mod timeouts;

use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::message::MessageStatus;
use hikyaku::sink::{Extensions, Script, Sink, SinkHandle, SinkOptions};
use hikyaku::smtp::{Connection, Envelope, Failure, RelayConfig, Reply, TlsContext, verdict};
use tokio::io::{AsyncRead, AsyncWrite};

const BODY: &[u8] = b"Subject: hello\r\nMessage-ID: <1@example.org>\r\n\r\nHello\r\n";

fn envelope(to: &str) -> Envelope {
    Envelope::new("news@example.org", EmailAddress::parse(to).unwrap()).unwrap()
}

async fn start(options: SinkOptions) -> SinkHandle {
    Sink::start(options).await.unwrap()
}

fn with_script(script: Script) -> SinkOptions {
    SinkOptions {
        script,
        ..SinkOptions::default()
    }
}

fn without_pipelining() -> SinkOptions {
    SinkOptions {
        extensions: Extensions {
            pipelining: false,
            ..Extensions::default()
        },
        ..SinkOptions::default()
    }
}

fn relay(sink: &SinkHandle) -> RelayConfig {
    RelayConfig::clear("127.0.0.1", sink.addr().port())
}

async fn open(relay: &RelayConfig) -> Result<Connection, Failure> {
    let tls = TlsContext::new(relay).unwrap();
    Connection::open(relay, &tls).await
}

/// Hands one message over on an open connection.
async fn hand_over(connection: &mut Connection, to: &str) -> Result<Reply, Failure> {
    connection.begin(&envelope(to), BODY.len()).await?;
    connection.finish(BODY, None).await
}

/// What two messages came to, of which the second one was begun behind the first.
struct Pair {
    this: Result<Reply, Failure>,
    next: Result<(), Failure>,
}

/// One message with another one begun behind it.
async fn hand_over_with_next(connection: &mut Connection, to: &str, next: &str) -> Pair {
    connection.begin(&envelope(to), BODY.len()).await.unwrap();
    finish_and_begin(connection, (&envelope(next), BODY.len())).await
}

/// The end of the message at hand, and the beginning of the next.
async fn finish_and_begin<S>(connection: &mut Connection<S>, (next, size): (&Envelope, usize)) -> Pair
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let this = connection.finish(BODY, Some((next, size))).await;
    let next = connection.begin(next, size).await;
    Pair { this, next }
}

fn status(result: &Result<Reply, Failure>) -> MessageStatus {
    match result {
        Ok(reply) if reply.is_positive() => MessageStatus::Sent,
        Ok(reply) => panic!("{reply} passed for an acceptance"),
        Err(failure) => verdict(failure).status,
    }
}
