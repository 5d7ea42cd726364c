//! The capture relay by itself, spoken to by hand.

use std::time::Duration;

use hikyaku::sink::{Sink, SinkOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{hand_over, open, relay, start};

/// Sends it all, reads until the relay closes.
async fn talk(addr: std::net::SocketAddr, script: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(script.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

/// The codes of the last lines of replies, in order.
fn codes(said: &str) -> Vec<&str> {
    said.lines()
        .filter(|l| l.as_bytes().get(3) == Some(&b' '))
        .map(|l| &l[..3])
        .collect()
}

#[tokio::test]
async fn bdat_takes_chunks_without_dots() {
    let sink = start(SinkOptions::default()).await;
    let said = talk(
        sink.addr(),
        "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<anna@example.org>\r\nBDAT 6\r\n.one\r\nBDAT 5 LAST\r\ntwo\r\nQUIT\r\n",
    )
    .await;
    assert_eq!(codes(&said), ["220", "250", "250", "250", "250", "250", "221"]);
    assert_eq!(sink.sink().newest(1)[0].raw, b".one\r\ntwo\r\n");
}

#[tokio::test]
async fn commands_out_of_order_are_refused() {
    let sink = start(SinkOptions::default()).await;
    let said = talk(
        sink.addr(),
        "MAIL FROM:<>\r\nEHLO a\r\nRCPT TO:<a@example.org>\r\nDATA\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\nNONSENSE\r\nQUIT\r\n",
    )
    .await;
    assert_eq!(codes(&said), ["220", "503", "250", "503", "503", "250", "503", "554", "500", "221"]);
}

#[tokio::test]
async fn a_bare_lf_neither_ends_the_data_nor_goes_unnoticed() {
    let sink = start(SinkOptions::default()).await;
    let said = talk(
        sink.addr(),
        "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\nx\n.\nMAIL FROM:<>\r\n.\r\nQUIT\r\n",
    )
    .await;
    assert_eq!(codes(&said), ["220", "250", "250", "250", "354", "250", "221"]);
    assert_eq!(sink.sink().stats().violations, 2);
}

#[tokio::test]
async fn the_ground_truth_has_every_message_before_its_reply() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("truth.ndjson");
    let sink = start(SinkOptions {
        log: Some(log.clone()),
        ..SinkOptions::default()
    })
    .await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    hand_over(&mut connection, "anna@example.org").await.unwrap();
    hand_over(&mut connection, "dot-451@example.org").await.unwrap_err();
    hand_over(&mut connection, "drop-after-dot@example.org")
        .await
        .unwrap_err();
    sink.stop().await;

    let lines: Vec<serde_json::Value> = std::fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let events: Vec<_> = lines
        .iter()
        .map(|l| (l["event"].as_str().unwrap(), l["rcpt"][0].as_str().unwrap(), l["code"].as_u64()))
        .collect();
    assert_eq!(
        events,
        [
            ("data_complete", "anna@example.org", None),
            ("decision", "anna@example.org", Some(250)),
            ("reply_flushed", "anna@example.org", Some(250)),
            ("data_complete", "dot-451@example.org", None),
            ("decision", "dot-451@example.org", Some(451)),
            ("reply_flushed", "dot-451@example.org", Some(451)),
            ("data_complete", "drop-after-dot@example.org", None),
            ("decision", "drop-after-dot@example.org", None),
        ]
    );
    assert_eq!(lines[0]["message_id"], "<1@example.org>");
}

#[tokio::test]
async fn a_greylisted_address_is_taken_the_second_time() {
    let sink = start(SinkOptions::default()).await;
    let mut connection = open(&relay(&sink)).await.unwrap();
    hand_over(&mut connection, "defer-once@example.org").await.unwrap_err();
    hand_over(&mut connection, "defer-once@example.org").await.unwrap();
    hand_over(&mut connection, "defer-once+other@example.org")
        .await
        .unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn latency_delays_replies_and_not_each_other() {
    let sink = Sink::new(SinkOptions {
        latency: Duration::from_secs(1),
        ..SinkOptions::default()
    })
    .unwrap();
    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move { sink.serve(theirs).await });
    let start = Instant::now();
    let mut reply = [0; 1024];
    let banner_len = ours.read(&mut reply).await.unwrap();
    assert!(reply[..banner_len].starts_with(b"220 "));
    assert_eq!(start.elapsed().as_secs(), 1);
    for _ in 0..3 {
        ours.write_all(b"NOOP\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..3 {
        ours.read_exact(&mut reply[..14]).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_millis(2_300), "{:?}", start.elapsed());
}

#[tokio::test]
async fn it_listens_on_loopback_only_unless_told_otherwise() {
    let outside = SinkOptions {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..SinkOptions::default()
    };
    let error = Sink::start(outside.clone()).await.err().unwrap();
    assert!(error.to_string().contains("loopback"), "{error}");
    assert!(
        Sink::start(SinkOptions {
            allow_outside: true,
            ..outside
        })
        .await
        .is_ok()
    );
}
