//! Flights against a relay that answers as the dice fall: a final reply is final, and nothing that was answered is in doubt. The relay
//! writes down what it answered to each end of data, and the outcomes are held against that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use hikyaku::domain::message::MessageStatus;
use hikyaku::smtp::{Connection, Flights, RelayConfig, Sign, TlsContext};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::{BODY, envelope, status};

const SEEDS: u64 = 3_000;
/// Messages that are tried on one connection.
const MESSAGES: usize = 6;

/// What the relay has answered to the end of data of each recipient's message: the first whole reply, if it is one.
type Answers = Arc<Mutex<HashMap<String, u16>>>;

/// Says something, ordinary in most cases. `false` ends the session.
async fn say(stream: &mut DuplexStream, dice: &mut fastrand::Rng, good: &str, answered: impl FnOnce(u16)) -> bool {
    let odd = [
        "451 4.3.0 later\r\n",
        "554 5.3.0 never\r\n",
        "503 5.5.1 too early\r\n",
        "421 4.3.2 bye\r\n",
        "250 2.0.0 one\r\n250 2.0.0 and one more\r\n",
        "451 4.3.0 one\r\n250 2.0.0 and one more\r\n",
        "rubbish\r\n",
        "250-2.0.0 half a reply\r\n",
        "",
    ];
    let text = match dice.u8(0..8) {
        0 => odd[dice.usize(0..odd.len())],
        _ => good,
    };
    let cut = match dice.u8(0..16) {
        0 => dice.usize(0..=text.len()),
        _ => text.len(),
    };
    let out = &text.as_bytes()[..cut];
    let first = text.find("\r\n").filter(|end| end + 2 <= cut).map(|end| &text[..end]);
    let code = first.and_then(|line| line.get(..3)?.parse::<u16>().ok());
    if let Some(code) = code.filter(|_| first.is_some_and(|line| line.as_bytes().get(3) == Some(&b' '))) {
        answered(code);
    }
    let is_out = stream.write_all(out).await.is_ok();
    // Behind a goodbye, half a reply, or none at all, nothing more is said.
    let is_last = text.is_empty() || text.starts_with("421") || text.starts_with("250-");
    is_out && cut == text.len() && !is_last
}

/// A session that answers each command in its order, and hangs up when it has answered oddly enough.
async fn relay(mut stream: DuplexStream, mut dice: fastrand::Rng, answers: Answers) {
    let (mut inbox, mut in_data, mut n_lines, mut to) = (Vec::new(), false, 0, String::new());
    if stream.write_all(b"220 hello\r\n").await.is_err() {
        return;
    }
    loop {
        while let Some(end) = inbox.windows(2).position(|w| w == b"\r\n") {
            let line = String::from_utf8_lossy(&inbox[..end]).into_owned();
            inbox.drain(..end + 2);
            let goes_on = if in_data {
                if line != "." {
                    n_lines += 1;
                    continue;
                }
                in_data = false;
                // A lone dot ends a message that was given up: its reply is nobody's.
                let key = (n_lines > 0).then(|| to.clone());
                let note = |code| {
                    if let Some(key) = key {
                        answers.lock().unwrap().insert(key, code);
                    }
                };
                n_lines = 0;
                say(&mut stream, &mut dice, "250 2.0.0 kept\r\n", note).await
            } else if line.starts_with("EHLO") {
                stream.write_all(b"250-hello\r\n250 PIPELINING\r\n").await.is_ok()
            } else if line == "DATA" {
                // A relay that refuses DATA gets no content.
                in_data = dice.u8(0..10) > 0;
                let good = if in_data {
                    "354 go on\r\n"
                } else {
                    "451 4.3.0 not now\r\n"
                };
                stream.write_all(good.as_bytes()).await.is_ok()
            } else {
                if let Some(rest) = line.strip_prefix("RCPT TO:<") {
                    to = rest.split('>').next().unwrap_or_default().to_owned();
                }
                say(&mut stream, &mut dice, "250 2.1.0 ok\r\n", |_| ()).await
            };
            if !goes_on {
                return;
            }
        }
        if stream.read_buf(&mut inbox).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// Sends up to [`MESSAGES`] on one connection, each with the next one's commands behind it as the dice fall; what each came to.
async fn send_some(
    connection: &mut Connection<DuplexStream>,
    dice: &mut fastrand::Rng,
) -> HashMap<String, MessageStatus> {
    let mut outcomes = HashMap::new();
    let names: Vec<String> = (0..MESSAGES).map(|n| format!("r{n}@x.example")).collect();
    let mut begun = false;
    for (n, name) in names.iter().enumerate() {
        connection.set_flights([Flights::Off, Flights::Trial, Flights::On][dice.usize(0..3)]);
        if !begun && connection.begin(&envelope(name), BODY.len()).await.is_err() {
            if !connection.is_usable() {
                break;
            }
            continue;
        }
        let next = names
            .get(n + 1)
            .filter(|_| dice.bool() && connection.has_room())
            .map(|name| envelope(name));
        let verdict = connection
            .finish(BODY, next.as_ref().map(|next| (next, BODY.len())))
            .await;
        outcomes.insert(name.clone(), status(&verdict));
        begun = match &next {
            Some(next) => connection.begin(next, BODY.len()).await.is_ok(),
            None => false,
        };
        if !begun && !connection.is_usable() {
            break;
        }
    }
    outcomes
}

#[tokio::test(start_paused = true)]
async fn nothing_that_was_answered_is_in_doubt_and_a_final_reply_is_final() {
    let (mut n_sent, mut n_refused, mut n_in_doubt) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let answers = Answers::default();
        let served = tokio::spawn(relay(theirs, fastrand::Rng::with_seed(seed), Arc::clone(&answers)));
        let config = RelayConfig::clear("127.0.0.1", 25);
        let tls = TlsContext::new(&config).unwrap();
        let mut dice = fastrand::Rng::with_seed(seed ^ 0xf00d);
        let mut connection = Connection::establish(ours, &config, &tls, "test.example")
            .await
            .unwrap();
        let outcomes = send_some(&mut connection, &mut dice).await;
        drop(connection);
        served.await.unwrap();
        let answers = answers.lock().unwrap();
        for (name, outcome) in outcomes {
            let answered = answers.get(&name).copied();
            let expected: &[MessageStatus] = match answered.map(|code| code / 100) {
                Some(2) => &[MessageStatus::Sent],
                Some(4) => &[MessageStatus::Deferred],
                // A refusal of the dialogue is tried again.
                Some(5) => &[MessageStatus::Failed, MessageStatus::Deferred],
                // Nothing that is a reply: it is in doubt, or the content never left.
                _ => &[MessageStatus::Uncertain, MessageStatus::Deferred],
            };
            // A reply that came before its command was out ends the connection, and the content stays here.
            let is_kept_back = outcome == MessageStatus::Deferred && answered.is_none();
            assert!(
                expected.contains(&outcome) || is_kept_back,
                "seed {seed}: {name} was answered {answered:?} and is {outcome}"
            );
            n_sent += usize::from(outcome == MessageStatus::Sent);
            n_refused += usize::from(answered.is_some_and(|code| code >= 400));
            n_in_doubt += usize::from(outcome == MessageStatus::Uncertain);
        }
    }
    assert!(
        n_sent > 1_000 && n_refused > 100 && n_in_doubt > 100,
        "{n_sent} sent, {n_refused} refused, {n_in_doubt} in doubt"
    );
}

/// What a relay does with a command that came early, as it is told.
#[tokio::test(start_paused = true)]
async fn the_sign_of_a_flight_is_told_once() {
    for (behind, expected) in [
        ("250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n", Some(Sign::Taken)),
        ("503 early\r\n503 early\r\n503 early\r\n503 early\r\n", Some(Sign::Refused("503 early".into()))),
        ("250 ok\r\n250 ok\r\n550 5.1.1 nobody\r\n503 no recipient\r\n", Some(Sign::Taken)),
        ("250 ok\r\n550 5.7.1 not this sender\r\n503 no\r\n503 no\r\n", None),
        ("421 bye\r\n", Some(Sign::Lost("421 bye".into()))),
    ] {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let script = format!("250 kept\r\n{behind}");
        let served = tokio::spawn(async move {
            theirs.write_all(b"220 hello\r\n").await.unwrap();
            let mut heard = Vec::new();
            let until = async |theirs: &mut DuplexStream, heard: &mut Vec<u8>, sign: &[u8]| {
                while !heard.windows(sign.len()).any(|w| w == sign) {
                    theirs.read_buf(heard).await.unwrap();
                }
                heard.clear();
            };
            until(&mut theirs, &mut heard, b"\r\n").await;
            theirs.write_all(b"250-hello\r\n250 PIPELINING\r\n").await.unwrap();
            until(&mut theirs, &mut heard, b"DATA\r\n").await;
            theirs.write_all(b"250 ok\r\n250 ok\r\n354 go on\r\n").await.unwrap();
            until(&mut theirs, &mut heard, b"DATA\r\n").await;
            theirs.write_all(script.as_bytes()).await.unwrap();
            theirs
        });
        let config = RelayConfig::clear("127.0.0.1", 25);
        let tls = TlsContext::new(&config).unwrap();
        let mut connection = Connection::establish(ours, &config, &tls, "test.example")
            .await
            .unwrap();
        connection.begin(&envelope("a@x.example"), BODY.len()).await.unwrap();
        let next = envelope("b@x.example");
        let verdict = connection.finish(BODY, Some((&next, BODY.len()))).await;
        assert_eq!(status(&verdict), MessageStatus::Sent, "{behind:?}");
        let _theirs = served.await.unwrap();
        let begun = connection.begin(&next, BODY.len()).await;
        assert_eq!(begun.is_ok(), expected == Some(Sign::Taken) && !behind.contains("550"), "{behind:?}: {begun:?}");
        assert_eq!(connection.take_sign(), expected, "{behind:?}");
        assert_eq!(connection.take_sign(), None, "{behind:?}");
    }
}
