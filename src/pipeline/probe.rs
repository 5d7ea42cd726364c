//! Tests a relay for the person who looks after it: opens one connection as a worker would, writes down what is said, and says what
//! it means. Never touches the queue, and never sends anything but one test message to an address that person typed; that
//! message is nobody's mail, has no row, and is told about in the answer alone.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::domain::address::EmailAddress;
use crate::domain::dkim::{DkimKey, signing_keys};
use crate::domain::relay::Relay;
use crate::domain::time::Timestamp;
use crate::mime;
pub use crate::smtp::transcript::{Step, Voice};
use crate::smtp::{
    Cause, Connection, Envelope, Failure, Fault, Recorder, RelayConfig, Reply, Stage, Timeouts, TlsContext, TlsMode,
    verdict,
};
use crate::store::findings::Found;
use crate::store::{Store, StoreError};

mod advice;
mod learnt;

use self::advice::advice;
use self::learnt::Learnt;
pub use self::learnt::keep;

/// How long connecting, TLS and login may take together. Relays that work need less than two seconds, and somebody waits.
pub const OPEN_MAX: Duration = Duration::from_secs(20);
/// How long the test message may take besides. A relay that looks at content takes some seconds.
pub const MESSAGE_MAX: Duration = Duration::from_secs(20);
/// Messages that are begun and forgotten, at most: limits that matter are below, and each costs a round trip or two.
pub const SESSION_TRIED_MAX: u32 = 1_000;
/// Tests at the same time in one process, so that nobody makes a flood of them.
const PROBES_MAX: usize = 4;

static ROOM: Semaphore = Semaphore::const_new(PROBES_MAX);

/// One message to see whether mail gets through.
#[derive(Debug, Clone)]
pub struct TestMail {
    from: EmailAddress,
    to: EmailAddress,
    /// It is signed as a broadcast from this sender would be.
    dkim_keys: Vec<DkimKey>,
    /// Up to how many messages are begun, and forgotten, to see how many a session takes; 0 does without.
    session: u32,
}

/// Why there is no test message.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("{0}")]
    Wrong(Unfit),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with the wish for a test message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unfit {
    /// `from` or `to`.
    pub field: &'static str,
    /// A stable word.
    pub code: &'static str,
    pub detail: String,
}

impl TestMail {
    /// Reads from whom and to whom. `None` when neither is named: then nothing is sent.
    ///
    /// # Errors
    /// `Wrong` when one is missing or no address, or the recipient is suppressed.
    pub async fn read(store: &dyn Store, from: Option<&str>, to: Option<&str>) -> Result<Option<Self>, MailError> {
        let wrong = |field, code, detail: String| MailError::Wrong(Unfit { field, code, detail });
        let named = |text: Option<&str>| {
            text.map(str::trim)
                .filter(|text| !text.is_empty())
                .map(ToOwned::to_owned)
        };
        let (from, to) = match (named(from), named(to)) {
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                let detail = "from is missing; name a sender that this relay sends for";
                return Err(wrong("from", "required", detail.to_owned()));
            }
            (Some(_), None) => {
                let detail = "to is missing; name who gets the test message";
                return Err(wrong("to", "required", detail.to_owned()));
            }
            (Some(from), Some(to)) => (from, to),
        };
        let to = EmailAddress::parse(&to).map_err(|why| wrong("to", "invalid_address", why))?;
        let from = EmailAddress::parse(&from).map_err(|why| wrong("from", "invalid_address", why))?;
        if store.suppression(&to.normalised()).await?.is_some() {
            let detail = format!("{to} is suppressed and gets no mail, not even a test; use another address");
            return Err(wrong("to", "suppressed", detail));
        }
        let dkim_keys = signing_keys(&store.dkim_keys().await?, from.domain());
        Ok(Some(Self {
            from,
            to,
            dkim_keys,
            session: 0,
        }))
    }

    /// The same message, and then up to `n` others that are begun and forgotten, to see how many messages a session takes.
    ///
    /// # Errors
    /// A sentence when that is more than [`SESSION_TRIED_MAX`].
    pub fn with_session(self, n: u32) -> Result<Self, String> {
        match n {
            0..=SESSION_TRIED_MAX => Ok(Self { session: n, ..self }),
            _ => Err(format!("session is {n}; use a whole number up to {SESSION_TRIED_MAX}")),
        }
    }
}

/// What a test came to.
#[derive(Debug)]
pub struct Report {
    /// Whether everything that was tried went well.
    pub is_good: bool,
    /// One sentence.
    pub summary: String,
    pub trouble: Option<Trouble>,
    pub steps: Vec<Step>,
    /// What the relay announces, of what matters here.
    pub announced: Vec<String>,
    /// What was found out and is kept from now on: see [`keep`].
    pub found: Vec<Found>,
    /// Sentences about what was tried.
    pub notes: Vec<String>,
    pub took: Duration,
}

/// What stands in the way.
#[derive(Debug)]
pub struct Trouble {
    pub stage: Stage,
    /// The reason class, a stable name.
    pub class: &'static str,
    /// `relay`, `broadcast`, `message` or `recipient`.
    pub fault: &'static str,
    /// What to do about it.
    pub advice: String,
    /// What the relay asks to wait for.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{PROBES_MAX} tests are running already; try again in a moment")]
    Busy,
    /// What is stored cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// Tests a relay, in at most [`OPEN_MAX`], and [`MESSAGE_MAX`] more with a message.
///
/// # Errors
/// `Busy`; `Unusable` when the relay's URL cannot be read, or nothing is trusted for TLS. What the relay does wrong is in the report.
pub async fn probe(relay: &Relay, mail: Option<&TestMail>, now: Timestamp) -> Result<Report, ProbeError> {
    let _room = ROOM.try_acquire().map_err(|_| ProbeError::Busy)?;
    let mut config = RelayConfig::parse(&relay.spec.url).map_err(ProbeError::Unusable)?;
    config.name.clone_from(&relay.name);
    config.timeouts = impatient(&config.timeouts);
    let tls = TlsContext::new(&config).map_err(ProbeError::Unusable)?;
    let letter = match mail {
        Some(mail) => Some(Letter::write(&config, mail, now).await?),
        None => None,
    };
    let (recorder, begun) = (Recorder::new(&config), Instant::now());
    let mut learnt = Learnt::of(&config);
    let outcome = run(&config, &tls, &recorder, letter.as_ref(), &mut learnt).await;
    let steps = recorder.steps();
    let took = begun.elapsed();
    let (is_good, summary, trouble) = match outcome {
        Ok(taken) => (true, good_news(&config, mail.zip(taken.as_ref()), &recorder), None),
        Err(failure) => {
            let told = recorder.mask(&failure.to_string());
            (false, format!("{told}."), Some(trouble(&failure, &config)))
        }
    };
    Ok(Report {
        is_good,
        summary,
        trouble,
        steps,
        announced: learnt.announced,
        found: learnt.found,
        notes: learnt.notes,
        took,
    })
}

/// No step may take longer than all of them together.
fn impatient(t: &Timeouts) -> Timeouts {
    Timeouts {
        connect: t.connect.min(OPEN_MAX / 2),
        banner: t.banner.min(OPEN_MAX),
        ehlo: t.ehlo.min(OPEN_MAX),
        auth: t.auth.min(OPEN_MAX),
        ..t.clone()
    }
}

async fn run(
    config: &RelayConfig,
    tls: &TlsContext,
    recorder: &Recorder,
    letter: Option<&Letter>,
    learnt: &mut Learnt,
) -> Result<Option<Reply>, Failure> {
    let too_slow = |limit| {
        let stage = recorder.stage().unwrap_or(Stage::Connect);
        Failure {
            end_of_data_written: stage == Stage::Body,
            ..Failure::new(stage, Cause::Timeout(limit))
        }
    };
    let opening = Connection::open_recorded(config, tls, recorder);
    let mut connection = timeout(OPEN_MAX, opening).await.map_err(|_| too_slow(OPEN_MAX))??;
    learnt.announced = connection.announced();
    let Some(letter) = letter else {
        connection.quit().await;
        return Ok(None);
    };
    let handing = hand_over(&mut connection, recorder, letter, learnt);
    let taken = timeout(MESSAGE_MAX, handing).await.map_err(|_| too_slow(MESSAGE_MAX))?;
    if taken.is_ok() {
        if letter.session > 0 && connection.is_usable() {
            let trying = connection.begin_and_forget(&letter.envelope, letter.session);
            match timeout(MESSAGE_MAX, trying).await {
                Ok((n, refusal)) => learnt.note_session(n + 1, refusal.as_ref()),
                Err(_) => learnt
                    .notes
                    .push("How many messages a session takes was not found out in time.".to_owned()),
            }
        }
        connection.quit().await;
    }
    taken.map(Some)
}

async fn hand_over(
    connection: &mut Connection,
    recorder: &Recorder,
    letter: &Letter,
    learnt: &mut Learnt,
) -> Result<Reply, Failure> {
    recorder.enter(Stage::Mail);
    connection.begin(&letter.envelope, letter.bytes.len()).await?;
    recorder.enter(Stage::Body);
    let verdict = connection.finish_with_reset_ahead(&letter.bytes).await;
    learnt.note_flight(connection.take_sign().as_ref());
    verdict
}

/// The test message, ready for the wire.
struct Letter {
    envelope: Envelope,
    bytes: Vec<u8>,
    session: u32,
}

impl Letter {
    async fn write(config: &RelayConfig, mail: &TestMail, now: Timestamp) -> Result<Self, ProbeError> {
        let envelope = Envelope::new(mail.from.as_str(), mail.to.clone());
        let (text, keys) = (message(config, mail, now).into_bytes(), mail.dkim_keys.clone());
        let signing = tokio::task::spawn_blocking(move || mime::sign(text, &keys));
        let signed = signing
            .await
            .unwrap_or_else(|_| Err("signing the message was broken off".to_owned()));
        Ok(Self {
            envelope: envelope.map_err(ProbeError::Unusable)?,
            bytes: signed.map_err(ProbeError::Unusable)?,
            session: mail.session,
        })
    }
}

/// A plain message that says what it is. Written by hand: it has no template, no list, and nobody to unsubscribe.
fn message(config: &RelayConfig, mail: &TestMail, now: Timestamp) -> String {
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_string(&now.to_jiff())
        .unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned());
    let (from, to, name) = (mail.from.as_str(), mail.to.as_str(), &config.name);
    let id = format!("{:032x}", fastrand::u128(..));
    format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: Test of the relay {name}\r\nDate: {date}\r\n\
         Message-ID: <{id}@{domain}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n\
         Somebody asked Hikyaku to test the relay {name}.\r\nIt took this message. Nothing else was sent.\r\n",
        domain = mail.from.domain(),
    )
}

fn good_news(config: &RelayConfig, taken: Option<(&TestMail, &Reply)>, recorder: &Recorder) -> String {
    let tls = match config.tls {
        TlsMode::None => "in clear",
        TlsMode::StartTls => "encrypted by STARTTLS",
        TlsMode::Implicit => "encrypted by TLS",
    };
    let auth = config.credentials.as_ref().map_or("without a login", |_| "logged in");
    match taken {
        None => format!("The relay is ready for mail, {tls}, {auth}. Nothing was sent."),
        Some((mail, reply)) => format!(
            "The relay took the message for {} ({}). Look whether it arrives: what happens behind the relay is not seen from here.",
            mail.to,
            recorder.mask(&reply.to_string())
        ),
    }
}

fn trouble(failure: &Failure, config: &RelayConfig) -> Trouble {
    let v = verdict(failure);
    Trouble {
        stage: failure.stage,
        class: v.class,
        fault: match v.fault {
            Fault::Recipient => "recipient",
            Fault::Message => "message",
            Fault::Broadcast => "broadcast",
            Fault::Relay => "relay",
        },
        advice: advice(failure, config, v.fault),
        retry_after: v.retry_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_message_is_plain_and_says_what_it_is() {
        let mail = TestMail {
            from: EmailAddress::parse("ops@example.org").unwrap(),
            to: EmailAddress::parse("anna@example.net").unwrap(),
            dkim_keys: Vec::new(),
            session: 0,
        };
        let text = message(&RelayConfig::clear("127.0.0.1", 25), &mail, Timestamp(1_790_000_000_000));
        assert!(text.is_ascii());
        assert!(text.lines().all(|line| line.len() < 78), "{text}");
        assert!(text.contains("Date: Mon, 21 Sep 2026 "), "{text}");
        assert!(text.contains("\r\n\r\nSomebody asked"), "{text}");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    }

    #[test]
    fn every_failure_has_advice_of_its_own() {
        let config = RelayConfig::clear("mail.example.org", 587);
        let reply = |code| {
            Cause::Reply(Reply {
                code,
                enhanced: None,
                text: String::new(),
            })
        };
        let cases = [
            (Stage::Connect, Cause::Closed, "port 587"),
            (Stage::Banner, Cause::Timeout(OPEN_MAX), "tls=implicit"),
            (Stage::StartTls, Cause::Tls("x".into()), "mail.example.org"),
            (Stage::StartTls, Cause::Unsupported("x".into()), "465"),
            (Stage::Auth, reply(535), "user and password"),
            (Stage::Rcpt, reply(550), "recipient"),
        ];
        for (stage, cause, part) in cases {
            let failure = Failure::new(stage, cause);
            let text = advice(&failure, &config, verdict(&failure).fault);
            assert!(text.contains(part), "{failure}: {text}");
        }
    }
}
