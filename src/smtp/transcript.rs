//! What was said while a connection was opened, written down for the person who looks after the relay: step by step, both
//! sides, with the time each step took. Never holds a password or what proves one, and nothing of it is kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tokio::time::Instant;

use super::config::{Credentials, RelayConfig};
use super::failure::Stage;

/// Most lines that are written down: a session has about thirty, and a relay that says more is not read to its end.
pub const LINES_MAX: usize = 400;
/// Longest line that is written down, in characters.
pub const LINE_CHARS_MAX: usize = 1_000;
/// Stands where a secret was.
const MASK: &str = "***";
/// Secrets shorter than this are not looked for in what the relay says: they would be found in ordinary words.
const SECRET_LEN_MIN: usize = 4;

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Voice {
    Us,
    Relay,
    /// What happened beside the dialogue, such as a TLS handshake.
    Note,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub voice: Voice,
    pub text: String,
}

/// One step of a session with what was said in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub stage: Stage,
    pub said: Vec<Said>,
    pub took: Duration,
}

/// Writes down one session. Clones share what is written.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Mutex<Tape>>);

#[derive(Debug)]
struct Tape {
    steps: Vec<Step>,
    begun: Instant,
    lines_left: usize,
    /// Whether the relay has let us in: from then on no line proves anything.
    is_in: bool,
    /// The longest first, so that no part of one is left standing.
    secrets: Vec<String>,
}

impl Recorder {
    /// An empty transcript of a session with this relay.
    #[must_use]
    pub fn new(relay: &RelayConfig) -> Self {
        Self(Arc::new(Mutex::new(Tape {
            steps: Vec::new(),
            begun: Instant::now(),
            lines_left: LINES_MAX,
            is_in: false,
            secrets: relay.credentials.as_ref().map(secrets_of).unwrap_or_default(),
        })))
    }

    /// Another step begins, and the one before has taken its time.
    pub fn enter(&self, stage: Stage) {
        let mut tape = self.tape();
        tape.end_step();
        tape.steps.push(Step {
            stage,
            said: Vec::new(),
            took: Duration::ZERO,
        });
    }

    /// Something that nobody said.
    pub fn note(&self, text: impl AsRef<str>) {
        self.tape().push(Voice::Note, text.as_ref());
    }

    /// What we write.
    pub(super) fn sent(&self, bytes: &[u8]) {
        let mut tape = self.tape();
        match tape.steps.last().map(|step| step.stage) {
            Some(Stage::Body) => tape.push(Voice::Us, &format!("(the message and its end, {} bytes)", bytes.len())),
            stage => {
                for line in String::from_utf8_lossy(bytes).lines() {
                    match stage {
                        Some(Stage::Auth) if !tape.is_in => tape.push(Voice::Us, &without_proof(line)),
                        _ => tape.push(Voice::Us, line),
                    }
                }
            }
        }
    }

    /// What the relay says: one reply, or what was taken for one.
    pub(super) fn heard(&self, bytes: &[u8]) {
        let mut tape = self.tape();
        let is_login = tape.steps.last().is_some_and(|step| step.stage == Stage::Auth);
        for line in String::from_utf8_lossy(bytes).lines() {
            // RFC 4954 4: 235 says that we are in.
            tape.is_in |= is_login && line.starts_with("235");
            tape.push(Voice::Relay, line);
        }
    }

    /// A text of the relay without our secrets.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        self.tape().mask(text)
    }

    /// The step that was begun last.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.tape().steps.last().map(|step| step.stage)
    }

    /// All steps so far; the last one has taken until now.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut tape = self.tape();
        tape.end_step();
        tape.steps.clone()
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tape {
    fn end_step(&mut self) {
        let now = Instant::now();
        if let Some(step) = self.steps.last_mut() {
            step.took += now - self.begun;
        }
        self.begun = now;
    }

    fn push(&mut self, voice: Voice, text: &str) {
        let text = match self.lines_left {
            0 => return,
            1 => "(more was said than is written down)".to_owned(),
            _ => self.mask(text),
        };
        let text = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LINE_CHARS_MAX)
            .collect::<String>();
        if let Some(step) = self.steps.last_mut() {
            self.lines_left -= 1;
            step.said.push(Said { voice, text });
        }
    }

    fn mask(&self, text: &str) -> String {
        self.secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }
}

/// Every form in which AUTH carries the password, and the password itself.
fn secrets_of(c: &Credentials) -> Vec<String> {
    let mut secrets = vec![
        STANDARD.encode(format!("\0{}\0{}", c.user, c.password)),
        STANDARD.encode(&c.password),
        c.password.clone(),
    ];
    secrets.retain(|secret| secret.len() >= SECRET_LEN_MIN);
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// A line of ours during AUTH: the mechanism may be seen, nothing else.
fn without_proof(line: &str) -> String {
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("AUTH"), Some(mechanism), None) => format!("AUTH {mechanism}"),
        (Some("AUTH"), Some(mechanism), Some(_)) => format!("AUTH {mechanism} {MASK}"),
        (Some(line @ ("*" | "")), None, _) => line.to_owned(),
        _ => MASK.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(user: &str, password: &str) -> Recorder {
        Recorder::new(&RelayConfig {
            credentials: Some(Credentials {
                user: user.into(),
                password: password.into(),
            }),
            ..RelayConfig::clear("127.0.0.1", 25)
        })
    }

    fn texts(recorder: &Recorder) -> Vec<String> {
        let steps = recorder.steps().into_iter();
        steps.flat_map(|step| step.said).map(|said| said.text).collect()
    }

    #[tokio::test]
    async fn no_form_of_a_password_is_written_down() {
        let r = recorder("anna", "hunter2");
        r.enter(Stage::Auth);
        let plain = STANDARD.encode("\0anna\0hunter2");
        r.sent(format!("AUTH PLAIN {plain}\r\n").as_bytes());
        r.sent(b"AUTH LOGIN\r\n");
        r.sent(format!("{}\r\n", STANDARD.encode("hunter2")).as_bytes());
        r.heard(format!("535 5.7.8 {plain} is wrong, hunter2\r\n").as_bytes());
        assert_eq!(texts(&r), ["AUTH PLAIN ***", "AUTH LOGIN", "***", "535 5.7.8 *** is wrong, ***"]);
        assert_eq!(r.mask("no hunter2 here"), "no *** here");
    }

    #[tokio::test]
    async fn after_the_login_there_is_nothing_to_mask() {
        let r = recorder("anna", "hunter2");
        r.enter(Stage::Auth);
        r.sent(b"QUIT\r\n");
        r.heard(b"235 2.7.0 welcome\r\n");
        r.sent(b"QUIT\r\n");
        assert_eq!(texts(&r), ["***", "235 2.7.0 welcome", "QUIT"]);
    }

    #[tokio::test(start_paused = true)]
    async fn every_step_takes_its_own_time() {
        let r = recorder("a", "b");
        for (stage, secs) in [(Stage::Connect, 1), (Stage::Ehlo, 2), (Stage::Ehlo, 3)] {
            r.enter(stage);
            tokio::time::advance(Duration::from_secs(secs)).await;
        }
        let took: Vec<_> = r.steps().into_iter().map(|s| (s.stage, s.took.as_secs())).collect();
        assert_eq!(took, [(Stage::Connect, 1), (Stage::Ehlo, 2), (Stage::Ehlo, 3)]);
    }

    #[tokio::test]
    async fn a_relay_that_talks_without_end_fills_no_memory() {
        let r = recorder("a", "b");
        r.enter(Stage::Ehlo);
        for _ in 0..LINES_MAX * 2 {
            r.heard(&[b'x'; LINE_CHARS_MAX * 2]);
        }
        let texts = texts(&r);
        assert_eq!((texts.len(), texts[0].len()), (LINES_MAX, LINE_CHARS_MAX));
        assert!(texts.last().unwrap().contains("more was said"));
    }
}
