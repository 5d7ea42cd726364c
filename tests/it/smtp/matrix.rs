//! The fault matrix: every stage of a session, broken in every way a relay can break it. Time stands still until everybody waits, so
//! that ten minutes of silence take none; only a reset needs a real socket.

use std::time::Duration;

use hikyaku::domain::message::MessageStatus;
use hikyaku::sink::{Act, At, Script, Sink, SinkCertificate, SinkOptions, SinkTls};
use hikyaku::smtp::{
    Cause, Connection, Credentials, Failure, Fault, Mail, RelayConfig, Reply, TlsContext, TlsMode, verdict,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::cuts::Cut;
use super::{Extensions, connecting, envelope};

/// Larger than what a pipe between the two holds, so that a relay that does not read is noticed.
const BODY_LEN: usize = 100_000;
const PIPE_LEN: usize = 32 * 1024;

/// More than this is never read from a relay that has no end, in bytes: the longest reply, and what comes with it in one piece.
const HEARD_MAX: usize = 128 * 1024;

/// How a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    OneByOne,
    Pipelined,
    /// The second message of a connection, in a window of its own.
    Window,
}

/// A column: where it happens, how often that was passed before, and by which ways a message gets there.
struct Column {
    name: &'static str,
    at: At,
    skips: u32,
    good: &'static str,
    ways: &'static [Way],
    needs: Needs,
}

/// What a relay must ask for, for a session to come to a stage at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Tls,
    /// A login by this mechanism.
    Login(&'static str),
}

const DATA_WAYS: &[Way] = &[Way::OneByOne, Way::Pipelined];

#[rustfmt::skip]
const COLUMNS: [Column; 13] = [
    Column { name: "banner", at: At::Banner, skips: 0, good: "220 hello", ways: DATA_WAYS, needs: Needs::Nothing },
    Column { name: "EHLO", at: At::Ehlo, skips: 0, good: "250 hello", ways: DATA_WAYS, needs: Needs::Nothing },
    Column { name: "STARTTLS", at: At::StartTls, skips: 0, good: "220 go ahead", ways: DATA_WAYS, needs: Needs::Tls },
    Column { name: "EHLO/tls", at: At::Ehlo, skips: 1, good: "250 hello", ways: DATA_WAYS, needs: Needs::Tls },
    Column { name: "AUTH", at: At::Auth, skips: 0, good: "235 2.7.0 welcome", ways: DATA_WAYS, needs: Needs::Login("PLAIN") },
    // The third line of AUTH LOGIN: the password.
    Column { name: "LOGIN", at: At::Auth, skips: 2, good: "235 2.7.0 welcome", ways: DATA_WAYS, needs: Needs::Login("LOGIN") },
    Column { name: "MAIL", at: At::Mail, skips: 0, good: "250 2.1.0 ok", ways: DATA_WAYS, needs: Needs::Nothing },
    Column { name: "RCPT", at: At::Rcpt, skips: 0, good: "250 2.1.5 ok", ways: DATA_WAYS, needs: Needs::Nothing },
    Column { name: "DATA", at: At::Data, skips: 0, good: "354 go on", ways: DATA_WAYS, needs: Needs::Nothing },
    Column { name: "dot", at: At::Dot, skips: 0, good: "250 2.0.0 kept", ways: DATA_WAYS, needs: Needs::Nothing },
    Column { name: "MAIL/w", at: At::Mail, skips: 1, good: "250 2.1.0 ok", ways: &[Way::Window], needs: Needs::Nothing },
    Column { name: "RCPT/w", at: At::Rcpt, skips: 1, good: "250 2.1.5 ok", ways: &[Way::Window], needs: Needs::Nothing },
    Column { name: "BDAT", at: At::Dot, skips: 1, good: "250 2.0.0 kept", ways: &[Way::Window], needs: Needs::Nothing },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Temporary,
    Permanent,
    Goodbye,
    GoodbyeAndClose,
    Close,
    Reset,
    Silence,
    Slow,
    EndlessLines,
    EndlessLine,
    Split,
    TwoInOne,
    Surplus,
    GoOn,
    TwoCodes,
}

impl Kind {
    fn act(self, good: &str) -> Act {
        let say = |text: String| Act::Say(text.into_bytes());
        let code = &good[..3];
        match self {
            Kind::Temporary => say("451 4.3.0 later\r\n".into()),
            Kind::Permanent => say("554 5.3.0 never\r\n".into()),
            Kind::Goodbye => say("421 4.3.2 going down\r\n".into()),
            Kind::GoodbyeAndClose => Act::SayAndClose(b"421 4.3.2 going down\r\n".to_vec()),
            Kind::Close => Act::Close,
            Kind::Reset => Act::Reset,
            Kind::Silence => Act::Silence,
            Kind::Slow => Act::Drip(format!("{good} {}\r\n", "x".repeat(500)).into_bytes(), Duration::from_secs(10)),
            Kind::EndlessLines => say(format!("{code}-more\r\n").repeat(50_000)),
            Kind::EndlessLine => say(format!("{code} {}", "x".repeat(100 << 20))),
            Kind::Split => Act::Drip(format!("{good}\r\n").into_bytes(), Duration::from_millis(1)),
            Kind::TwoInOne => say(format!("{good}\r\n{good}\r\n")),
            Kind::Surplus => say(format!("{good}\r\n451 4.0.0 one more\r\n")),
            // To DATA it is the right answer, and 250 is the wrong one.
            Kind::GoOn if code == "354" => say("250 2.0.0 kept\r\n".into()),
            Kind::GoOn => say("354 go on\r\n".into()),
            Kind::TwoCodes => say(format!("{code}-one\r\n451 two\r\n")),
        }
    }
}

/// What a message came to, in four letters.
///
/// 1. **s**ent, **d**eferred, **f**ailed, **u**ncertain.
/// 2. Whose failure: the **r**ecipient's, the **m**essage's, the **b**roadcast's, the re**l**ay's, nobody's (`-`).
/// 3. The connection is **k**ept for the next message, or dropped (`x`).
/// 4. The attempt is **b**urnt, or **n**ot.
type Cell = &'static str;

#[rustfmt::skip]
const MATRIX: [(Kind, [Cell; 13]); 15] = [
    //                      banner  EHLO    STARTTLS EHLO/tls AUTH  LOGIN   MAIL    RCPT    DATA    dot     MAIL/w  RCPT/w  BDAT
    (Kind::Temporary,       ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlkn", "drkb", "dmkb", "dmkb", "dlkn", "drkb", "dmkb"]),
    (Kind::Permanent,       ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "fbkb", "frkb", "fmkb", "fmkb", "fbkb", "frkb", "fmkb"]),
    (Kind::Goodbye,         ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "drxb", "dmxb", "dmxb", "dlxn", "drxb", "dmxb"]),
    (Kind::GoodbyeAndClose, ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "drxb", "dmxb", "dmxb", "dlxn", "drxb", "dmxb"]),
    (Kind::Close,           ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "ulxb", "ulxb", "ulxb", "ulxb"]),
    (Kind::Reset,           ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "ulxb", "ulxb", "ulxb", "ulxb"]),
    (Kind::Silence,         ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "ulxb", "ulxb", "ulxb", "ulxb"]),
    (Kind::Slow,            ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "ulxb", "ulxb", "ulxb", "ulxb"]),
    (Kind::EndlessLines,    ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "ulxb", "ulxb", "ulxb", "ulxb"]),
    (Kind::EndlessLine,     ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "ulxb", "ulxb", "ulxb", "ulxb"]),
    (Kind::Split,           ["s-kb", "s-kb", "s-kb", "s-kb", "s-kb", "s-kb", "s-kb", "s-kb", "s-kb", "s-kb", "s-kb", "s-kb", "s-kb"]),
    (Kind::TwoInOne,        ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "dlxb", "s-xb", "ulxb", "ulxb", "s-xb"]),
    (Kind::Surplus,         ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "dlxb", "s-xb", "ulxb", "ulxb", "s-xb"]),
    (Kind::GoOn,            ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "ulxb", "ulxb", "ulxb", "ulxb"]),
    (Kind::TwoCodes,        ["dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxn", "dlxb", "dlxb", "ulxb", "ulxb", "ulxb", "ulxb"]),
];

fn options(column: &Column, way: Way, kind: Kind) -> SinkOptions {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = SinkCertificate {
        chain_pem: made.cert.pem(),
        key_pem: made.signing_key.serialize_pem(),
    };
    let auth = match column.needs {
        Needs::Login(mechanism) => mechanism,
        _ => "",
    };
    SinkOptions {
        script: Script::default().once(column.at, column.skips, kind.act(column.good)),
        tls: match column.needs {
            Needs::Tls => SinkTls::StartTls(certificate),
            _ => SinkTls::None,
        },
        require_auth: (!auth.is_empty()).then(|| ("anna".into(), "secret".into())),
        extensions: Extensions {
            pipelining: way != Way::OneByOne,
            auth: auth.into(),
            ..Extensions::default()
        },
        count_recipients: true,
        ..SinkOptions::default()
    }
}

fn relay(column: &Column) -> RelayConfig {
    let mut relay = RelayConfig::clear("127.0.0.1", 25);
    relay.verify_certificate = false;
    relay.chunking = 1;
    if column.needs == Needs::Tls {
        relay.tls = TlsMode::StartTls;
    }
    if matches!(column.needs, Needs::Login(_)) {
        relay.credentials = Some(Credentials {
            user: "anna".into(),
            password: "secret".into(),
        });
    }
    relay
}

async fn hand_over<S>(connection: &mut Connection<S>, to: &str, body: &[u8]) -> Result<Reply, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let envelope = envelope(to);
    if connection.window() == 0 {
        connection.begin(&envelope, body.len()).await?;
    }
    let mail = Mail {
        envelope: &envelope,
        body,
    };
    connection.send(&[mail], None).await.remove(0)
}

/// One session against a broken relay, and the four letters of what it came to.
async fn live_through<S>(stream: S, column: &Column, way: Way, body_len: usize, sink: &Sink) -> String
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let relay = relay(column);
    let tls = TlsContext::new(&relay).unwrap();
    let body = "A line of text.\r\n".repeat(body_len / 17);
    let (result, kept) = match Connection::establish(stream, &relay, &tls, "test.example").await {
        Err(failure) => (Err(failure), false),
        Ok(mut connection) => {
            if way == Way::Window {
                hand_over(&mut connection, "first@x.example", b"first\r\n")
                    .await
                    .unwrap();
                assert_eq!(connection.window(), 1);
            }
            let result = hand_over(&mut connection, "anna@x.example", body.as_bytes()).await;
            let kept = connection.is_usable();
            if kept {
                let next = hand_over(&mut connection, "next@x.example", b"next\r\n").await;
                next.expect("a connection that is kept is in order");
            }
            (result, kept)
        }
    };
    let v = result.as_ref().map_or_else(verdict, |_| hikyaku::smtp::Verdict::SENT);
    let copies = sink.copies().get("anna@x.example").copied().unwrap_or(0);
    assert!(v.status != MessageStatus::Sent || copies == 1, "{}: a false sent", column.name);
    assert!(v.status == MessageStatus::Sent || kept <= v.keep_connection, "{}: {v:?}", column.name);
    letters(&v, kept)
}

fn letters(v: &hikyaku::smtp::Verdict, kept: bool) -> String {
    let whose = match v.fault {
        _ if v.status == MessageStatus::Sent => '-',
        Fault::Recipient => 'r',
        Fault::Message => 'm',
        Fault::Broadcast => 'b',
        Fault::Relay => 'l',
    };
    let outcome = v.status.as_str().chars().next().unwrap();
    let (connection, attempt) = (if kept { 'k' } else { 'x' }, if v.counts_as_attempt { 'b' } else { 'n' });
    format!("{outcome}{whose}{connection}{attempt}")
}

async fn cell(column: &Column, way: Way, kind: Kind) -> String {
    // A window is all out before its first reply is read, which is where it differs.
    let body_len = if way == Way::Window { 1_000 } else { BODY_LEN };
    served(options(column, way, kind), column, way, body_len, kind).await
}

/// As [`live_through`], with a relay of these options.
async fn served(options: SinkOptions, column: &Column, way: Way, body_len: usize, kind: Kind) -> String {
    if kind == Kind::Reset {
        let sink = super::start(options).await;
        let stream = TcpStream::connect(sink.addr()).await.unwrap();
        return live_through(stream, column, way, body_len, sink.sink()).await;
    }
    let sink = Sink::new(options).unwrap();
    let (ours, theirs) = tokio::io::duplex(PIPE_LEN);
    let served = tokio::spawn({
        let sink = sink.clone();
        async move { sink.serve(theirs).await }
    });
    let (ours, counts) = Cut::never(ours);
    let cell = live_through(ours, column, way, body_len, &sink).await;
    served.abort();
    assert!(counts.read() < HEARD_MAX, "{kind:?} at {}: {} bytes were read", column.name, counts.read());
    cell
}

async fn check(rows: impl Iterator<Item = &'static (Kind, [Cell; 13])>) {
    let mut wrong = Vec::new();
    for (kind, cells) in rows {
        for (column, expected) in COLUMNS.iter().zip(cells) {
            for way in column.ways {
                let got = cell(column, *way, *kind).await;
                if got != *expected {
                    wrong.push(format!("{kind:?} at {} ({way:?}): {got} and not {expected}", column.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn every_fault_at_every_stage_ends_as_the_table_says() {
    check(MATRIX.iter().filter(|(kind, _)| *kind != Kind::Reset)).await;
}

#[tokio::test]
async fn a_reset_at_every_stage_ends_as_the_table_says() {
    check(MATRIX.iter().filter(|(kind, _)| *kind == Kind::Reset)).await;
}

/// The column of the content. Between the 354 and the end of data nothing is due from the relay: a reply that comes ends the
/// connection, and the message was not taken.
const BODY: Column = Column {
    name: "body",
    at: At::Data,
    skips: 0,
    good: "354 go on",
    ways: DATA_WAYS,
    needs: Needs::Nothing,
};
/// More than the sockets between the two hold: what was reset had not left.
const BODY_BEYOND_SOCKETS_LEN: usize = 24 << 20;

fn while_content_is_written(kind: Kind) -> (Act, Cell) {
    let said = |more: &str| format!("354 go on\r\n{more}").into_bytes();
    let say = |more: &str| Act::Say(said(more));
    match kind {
        Kind::Temporary => (say("451 4.3.0 later\r\n"), "dlxb"),
        Kind::Permanent => (say("554 5.3.0 never\r\n"), "dlxb"),
        Kind::Goodbye => (say("421 4.3.2 going down\r\n"), "dmxb"),
        Kind::GoodbyeAndClose => (Act::SayAndClose(said("421 4.3.2 going down\r\n")), "dmxb"),
        Kind::Close => (Act::SayAndClose(said("")), "dlxb"),
        Kind::Reset => (Act::SayAndReset(said("")), "dlxb"),
        Kind::Silence => (Act::SayAndHang(said("")), "dlxb"),
        // The 354 itself is in time. A byte behind it is no reply yet: the end of data leaves, and spoils the verdict that follows.
        Kind::Slow => (Act::Drip(said("2"), Duration::from_secs(10)), "ulxb"),
        Kind::EndlessLines => (say(&"250-more\r\n".repeat(50_000)), "dlxb"),
        Kind::EndlessLine => (say(&"x".repeat(100 << 20)), "dlxb"),
        Kind::Split => (Act::Drip(said("250 2.0.0 kept\r\n"), Duration::from_millis(1)), "dlxb"),
        Kind::TwoInOne => (say("250 2.0.0 kept\r\n250 2.0.0 kept\r\n"), "dlxb"),
        // Here every reply is one too many, also the one that will be right in a moment.
        Kind::Surplus => (say("250 2.0.0 kept\r\n"), "dlxb"),
        Kind::GoOn => (say("354 go on\r\n"), "dlxb"),
        Kind::TwoCodes => (say("250-one\r\n451 two\r\n"), "dlxb"),
    }
}

async fn check_body(kinds: impl Iterator<Item = Kind>) {
    let mut wrong = Vec::new();
    for kind in kinds {
        let (act, expected) = while_content_is_written(kind);
        let body_len = if kind == Kind::Reset {
            BODY_BEYOND_SOCKETS_LEN
        } else {
            BODY_LEN
        };
        for way in DATA_WAYS {
            let options = SinkOptions {
                script: Script::default().once(At::Data, 0, act.clone()),
                ..options(&BODY, *way, kind)
            };
            let got = served(options, &BODY, *way, body_len, kind).await;
            if got != expected {
                wrong.push(format!("{kind:?} ({way:?}): {got} and not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn every_fault_while_the_content_is_written_ends_as_the_table_says() {
    check_body(MATRIX.iter().map(|(kind, _)| *kind).filter(|kind| *kind != Kind::Reset)).await;
}

#[tokio::test]
async fn a_reset_while_the_content_is_written_leaves_the_message_deferred() {
    check_body(std::iter::once(Kind::Reset)).await;
}

/// The column of connecting: what there is of each fault, or why there is none.
async fn while_connecting(kind: Kind) -> Result<Failure, &'static str> {
    match kind {
        Kind::Reset => Ok(connecting::refused().await),
        Kind::Silence => Ok(connecting::unanswered().await),
        Kind::Close => Err("a connection that is closed was open: that is the banner's column"),
        Kind::Slow | Kind::Split => Err("a handshake has no bytes that could come one by one"),
        Kind::Temporary | Kind::Permanent | Kind::Goodbye | Kind::GoodbyeAndClose | Kind::GoOn => {
            Err("nothing is said before there is a connection")
        }
        Kind::EndlessLines | Kind::EndlessLine | Kind::TwoInOne | Kind::Surplus | Kind::TwoCodes => {
            Err("nothing is said before there is a connection, and so not too much either")
        }
    }
}

#[tokio::test]
async fn every_fault_while_connecting_is_the_relays_and_costs_nothing() {
    let mut n_possible = 0;
    for (kind, _) in &MATRIX {
        let Ok(failure) = while_connecting(*kind).await else {
            continue;
        };
        assert_eq!(failure.stage, hikyaku::smtp::Stage::Connect, "{kind:?}: {failure}");
        assert_eq!(letters(&verdict(&failure), false), "dlxn", "{kind:?}: {failure}");
        n_possible += 1;
    }
    assert_eq!(n_possible, 2);
}

/// A reply before its command is out answers nothing: whatever it says, the connection is dropped. What had left entirely is in doubt,
/// what had left in part was not taken, and what had not left costs nothing.
#[tokio::test(start_paused = true)]
async fn a_stray_reply_while_a_window_is_written_is_out_of_step() {
    for stray in ["451 4.3.0 later", "554 5.3.0 never", "250 2.0.0 kept", "354 go on"] {
        let script = Script::default().once(At::Rcpt, 2, Act::Say(format!("250 2.1.5 ok\r\n{stray}\r\n").into_bytes()));
        let sink = Sink::new(SinkOptions {
            script,
            count_recipients: true,
            ..SinkOptions::default()
        })
        .unwrap();
        let (ours, theirs) = tokio::io::duplex(PIPE_LEN);
        let served = tokio::spawn({
            let sink = sink.clone();
            async move { sink.serve(theirs).await }
        });
        let mut relay = RelayConfig::clear("127.0.0.1", 25);
        relay.chunking = 4;
        let tls = TlsContext::new(&relay).unwrap();
        let mut connection = Connection::establish(ours, &relay, &tls, "test.example").await.unwrap();
        hand_over(&mut connection, "first@x.example", b"first\r\n")
            .await
            .unwrap();
        let large = "A line of text.\r\n".repeat(BODY_LEN / 17);
        let envelopes = ["a@x.example", "large@x.example", "c@x.example"].map(envelope);
        let bodies = ["short\r\n", &large, &large];
        let load: Vec<Mail> = envelopes
            .iter()
            .zip(bodies)
            .map(|(envelope, body)| Mail {
                envelope,
                body: body.as_bytes(),
            })
            .collect();
        let verdicts = connection.send(&load, None).await;
        assert!(!connection.is_usable(), "{stray}");
        let got: Vec<_> = verdicts.iter().map(super::status).collect();
        let (doubt, later) = (MessageStatus::Uncertain, MessageStatus::Deferred);
        assert_eq!(got, [doubt, later, later], "{stray}: {verdicts:?}");
        let costs: Vec<bool> = verdicts
            .iter()
            .map(|v| verdict(v.as_ref().unwrap_err()).counts_as_attempt)
            .collect();
        assert_eq!(costs, [true, true, false], "{stray}: {verdicts:?}");
        assert!(matches!(verdicts[1].as_ref().unwrap_err().cause, Cause::Desync(_)), "{stray}: {verdicts:?}");
        drop(connection);
        served.await.unwrap();
        assert_eq!(sink.copies().get("large@x.example"), None, "{stray}: deferred, and it was taken");
    }
}

/// On a long line a stray refusal comes with the answer to RCPT, and the verdict a round trip later: the refusal of the last content
/// of a window is only believed when RSET has shown that nothing else was on its way.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_content_is_believed_when_nothing_comes_behind_it() {
    let sink_replies = ("250 2.0.0 kept as 1", "250 2.0.0 forgotten");
    let others = ("250 2.0.0 done", "250 2.0.0 done");
    for ((taken, reset), is_stray, expected, kept) in [
        (sink_replies, false, MessageStatus::Deferred, true),
        (sink_replies, true, MessageStatus::Uncertain, false),
        // Where the answer to RSET reads like a verdict, the number of replies until the end tells.
        (others, false, MessageStatus::Deferred, false),
        (others, true, MessageStatus::Uncertain, false),
    ] {
        let case = format!("{taken}, stray: {is_stray}");
        let mut relay = RelayConfig::clear("127.0.0.1", 25);
        relay.chunking = 1;
        let tls = TlsContext::new(&relay).unwrap();
        let (ours, theirs) = tokio::io::duplex(PIPE_LEN);
        let served = tokio::spawn(long_line(theirs, taken, reset, is_stray));
        let mut connection = Connection::establish(ours, &relay, &tls, "test.example").await.unwrap();
        hand_over(&mut connection, "first@x.example", b"first\r\n")
            .await
            .unwrap();
        assert_eq!(connection.window(), 1, "{case}");
        let this = hand_over(&mut connection, "anna@x.example", b"short\r\n").await;
        assert_eq!(super::status(&this), expected, "{case}: {this:?}");
        assert_eq!(connection.is_usable(), kept, "{case}");
        drop(connection);
        served.await.unwrap();
    }
}

/// A relay a second away that answers each command by itself, and refuses the content of the second message, or says so out of turn.
async fn long_line(stream: tokio::io::DuplexStream, taken: &str, reset: &str, is_stray: bool) {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 hello\r\n").await.unwrap();
    let mut n_messages = 0;
    let mut line = String::new();
    while stream.read_line(&mut line).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let verb = line.split_ascii_whitespace().next().unwrap_or_default().to_owned();
        let refusal = "451 4.3.0 later";
        let reply = match verb.as_str() {
            "EHLO" => "250-hello\r\n250-PIPELINING\r\n250 CHUNKING".to_owned(),
            "MAIL" => "250 2.1.0 ok".to_owned(),
            "RCPT" if n_messages == 1 && is_stray => format!("250 2.1.5 ok\r\n{refusal}"),
            "RCPT" => "250 2.1.5 ok".to_owned(),
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await.unwrap();
                while line != ".\r\n" {
                    line.clear();
                    stream.read_line(&mut line).await.unwrap();
                }
                n_messages += 1;
                taken.to_owned()
            }
            "BDAT" => {
                let len = line.split(' ').nth(1).unwrap().parse().unwrap();
                stream.read_exact(&mut vec![0; len]).await.unwrap();
                n_messages += 1;
                if is_stray { taken.to_owned() } else { refusal.to_owned() }
            }
            "RSET" => reset.to_owned(),
            _ => "221 2.0.0 bye".to_owned(),
        };
        // A client that is gone hears nothing.
        let _ = stream.write_all(format!("{reply}\r\n").as_bytes()).await;
        if verb == "QUIT" {
            return;
        }
        line.clear();
    }
}
