//! The dialogue of the capture relay, without any I/O: commands in, replies out. Strict: what RFC 5321
//! forbids a client is answered as a strict server would, and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::answers::Reception;
use super::outbox::Batch;
use super::script::{Act, At, Wish};
use super::{Shared, SinkTls, count};

mod auth;
mod content;

/// Longest command line, in bytes; the RFC's 512 with room for long AUTH responses.
const COMMAND_LEN_MAX: usize = 12 * 1024;
/// Most recipients of one message, the least that RFC 5321 4.5.3.1.8 allows a server to take.
const RECIPIENTS_MAX: usize = 100;

/// What the connection has to do next, after it wrote the replies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes are needed.
    Read,
    StartTls,
    Drip(Vec<u8>, Duration),
    Close,
    Reset,
    Silence,
    /// Silence, and deaf as well.
    Hang,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Command,
    Content,
    /// Bytes of a BDAT chunk that are still to come.
    Chunk {
        left: usize,
        is_last: bool,
    },
    AuthPlain,
    AuthXOAuth2,
    /// After a token was refused: the client has to say so with an empty line.
    AuthRefused,
    AuthLoginUser,
    AuthLoginPassword,
}

/// One session. The transaction's fields are emptied by `forget`.
pub(super) struct Session {
    shared: Arc<Shared>,
    id: u64,
    mode: Mode,
    is_tls: bool,
    is_greeted: bool,
    is_authenticated: bool,
    from: Option<String>,
    to: Vec<String>,
    /// MAIL and RCPT as they came.
    commands: Vec<String>,
    /// Whom the script is asked about.
    addressee: Option<String>,
    wish: Option<Wish>,
    content: Vec<u8>,
    content_len: usize,
    login_user: String,
    replies: Vec<u8>,
    truth_before: Vec<u8>,
    truth_after: Vec<u8>,
    next: Option<Step>,
    /// After a reply that drips.
    after: Option<Step>,
}

impl Session {
    pub fn new(shared: Arc<Shared>, id: u64) -> Self {
        Self {
            is_authenticated: shared.options.require_auth.is_none(),
            shared,
            id,
            mode: Mode::Command,
            is_tls: false,
            is_greeted: false,
            from: None,
            to: Vec::new(),
            commands: Vec::new(),
            addressee: None,
            wish: None,
            content: Vec::new(),
            content_len: 0,
            login_user: String::new(),
            replies: Vec::new(),
            truth_before: Vec::new(),
            truth_after: Vec::new(),
            next: None,
            after: None,
        }
    }

    /// With the banner as the first reply.
    pub fn greet(mut self) -> Self {
        self.is_tls = matches!(self.shared.options.tls, SinkTls::Implicit(_));
        self.answer(At::Banner, "220 hikyaku.invalid ESMTP capture relay, keeps everything\r\n");
        self
    }

    /// After STARTTLS everything begins again (RFC 3207 4.2).
    pub fn encrypted(self) -> Self {
        Self {
            is_tls: true,
            ..Self::new(self.shared, self.id)
        }
    }

    pub fn take_batch(&mut self) -> Batch {
        Batch {
            replies: std::mem::take(&mut self.replies),
            truth_after: std::mem::take(&mut self.truth_after),
        }
    }

    pub fn take_truth(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.truth_before)
    }

    /// Takes as much as is complete.
    pub fn eat(&mut self, inbox: &mut BytesMut) -> Step {
        loop {
            if let Some(step) = self.next.take().or_else(|| self.after.take()) {
                return step;
            }
            let went_on = match self.mode {
                Mode::Content => self.eat_content(inbox),
                Mode::Chunk { left, is_last } => self.eat_chunk(inbox, left, is_last),
                _ => self.eat_line(inbox),
            };
            if !went_on && self.next.is_none() {
                return Step::Read;
            }
        }
    }

    /// Whether there was a whole line.
    fn eat_line(&mut self, inbox: &mut BytesMut) -> bool {
        let Some(end) = inbox.iter().position(|&b| b == b'\n') else {
            if inbox.len() > COMMAND_LEN_MAX {
                self.say("500 5.5.2 line too long\r\n");
                self.next = Some(Step::Close);
            }
            return false;
        };
        let line = inbox.split_to(end + 1);
        if !line.ends_with(b"\r\n") {
            count(&self.shared.counters.violations);
        }
        if !inbox.is_empty() && !self.shared.options.extensions.pipelining {
            count(&self.shared.counters.violations);
        }
        let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        match self.mode {
            Mode::AuthPlain | Mode::AuthXOAuth2 | Mode::AuthRefused | Mode::AuthLoginUser | Mode::AuthLoginPassword => {
                self.auth_line(&line)
            }
            _ => self.command(&line, inbox),
        }
        true
    }

    fn command(&mut self, line: &str, inbox: &mut BytesMut) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => self.ehlo(),
            "HELO" => {
                self.is_greeted = true;
                self.say("250 hikyaku.invalid\r\n");
            }
            "STARTTLS" => self.start_tls(inbox),
            "AUTH" => self.auth(rest),
            "MAIL" => self.mail(rest),
            "RCPT" => self.rcpt(rest),
            "DATA" => self.data(),
            "BDAT" => self.bdat(rest),
            "RSET" => {
                if self.answer(At::Rset, "250 2.0.0 forgotten\r\n") == b'2' {
                    self.forget();
                }
            }
            "NOOP" => self.say("250 2.0.0 ok\r\n"),
            "QUIT" => {
                self.answer(At::Quit, "221 2.0.0 bye\r\n");
                self.next.get_or_insert(Step::Close);
            }
            _ => self.say("500 5.5.2 unknown command\r\n"),
        }
    }

    fn ehlo(&mut self) {
        let offers = &self.shared.options.extensions;
        if !offers.ehlo {
            return self.say("502 5.5.1 no such command\r\n");
        }
        let mut lines = vec!["hikyaku.invalid keeps everything".to_owned()];
        let mut offer = |is_offered: bool, line: &str| {
            if is_offered {
                lines.push(line.to_owned());
            }
        };
        offer(offers.pipelining, "PIPELINING");
        offer(offers.chunking, "CHUNKING");
        offer(offers.smtputf8, "SMTPUTF8");
        offer(offers.size.is_some(), &format!("SIZE {}", offers.size.unwrap_or(0)));
        offer(matches!(self.shared.options.tls, SinkTls::StartTls(_)) && !self.is_tls, "STARTTLS");
        offer(self.shared.options.require_auth.is_some(), &format!("AUTH {}", offers.auth));
        offer(offers.dsn, "DSN");
        offer(true, "8BITMIME");
        offer(true, "ENHANCEDSTATUSCODES");
        let last = lines.len() - 1;
        let mark = |n| if n == last { ' ' } else { '-' };
        let reply: String = lines
            .iter()
            .enumerate()
            .map(|(n, l)| format!("250{}{l}\r\n", mark(n)))
            .collect();
        if self.answer(At::Ehlo, &reply) == b'2' {
            self.is_greeted = true;
            self.forget();
        }
    }

    fn start_tls(&mut self, inbox: &mut BytesMut) {
        if self.shared.tls.is_none() || self.is_tls {
            return self.say("502 5.5.1 no TLS here\r\n");
        }
        if !inbox.is_empty() {
            // Plain text behind STARTTLS is what an attacker sends (RFC 3207 6).
            count(&self.shared.counters.violations);
            inbox.clear();
        }
        if self.answer(At::StartTls, "220 2.0.0 go ahead\r\n") == b'2' {
            match self.next {
                None => self.next = Some(Step::StartTls),
                Some(_) => self.after = Some(Step::StartTls),
            }
        }
    }

    fn mail(&mut self, rest: &str) {
        let size = parameter(rest, "SIZE")
            .and_then(|n| n.parse::<usize>().ok())
            .unwrap_or(0);
        let reply = match path(rest, "FROM:") {
            _ if !self.is_greeted => "503 5.5.1 say EHLO first\r\n",
            _ if !self.is_authenticated => "530 5.7.0 Authentication required\r\n",
            _ if self.from.is_some() => "503 5.5.1 nested MAIL\r\n",
            None => "501 5.5.4 syntax: MAIL FROM:<address>\r\n",
            Some(_) if size > self.size_max() => "552 5.3.4 message size exceeds fixed limit\r\n",
            Some(_) => "250 2.1.0 ok\r\n",
        };
        if self.answer(At::Mail, reply) == b'2' {
            self.from = Some(path(rest, "FROM:").unwrap_or_default());
            self.commands = vec![format!("MAIL {rest}")];
        }
    }

    fn rcpt(&mut self, rest: &str) {
        let Some(to) = path(rest, "TO:").filter(|to| !to.is_empty()) else {
            return self.say("501 5.5.4 syntax: RCPT TO:<address>\r\n");
        };
        self.addressee = Some(to.clone());
        let reception = match () {
            () if self.from.is_none() => Reception::Refuse("503 5.5.1 MAIL first\r\n".into()),
            () if self.to.len() >= RECIPIENTS_MAX => Reception::Refuse("452 4.5.3 too many recipients\r\n".into()),
            () => self.shared.receive(&to),
        };
        match reception {
            Reception::Close => self.next = Some(Step::Close),
            Reception::Stall => self.next = Some(Step::Silence),
            Reception::Refuse(reply) => {
                self.answer(At::Rcpt, &reply);
            }
            Reception::Accept(wish) => {
                if self.answer(At::Rcpt, "250 2.1.5 ok\r\n") == b'2' {
                    self.to.push(to);
                    self.commands.push(format!("RCPT {rest}"));
                    self.wish = wish.or(self.wish.take());
                }
            }
        }
    }

    fn data(&mut self) {
        if self.wish == Some(Wish::CloseAtData) {
            self.next = Some(Step::Close);
            return;
        }
        let reply = match self.to.is_empty() {
            true if self.from.is_none() => "503 5.5.1 MAIL first\r\n",
            true => "554 5.5.1 no valid recipients\r\n",
            false => "354 end with a dot on a line of its own\r\n",
        };
        if self.answer(At::Data, reply) == b'3' {
            self.mode = Mode::Content;
        }
    }

    fn bdat(&mut self, rest: &str) {
        let mut words = rest.split_ascii_whitespace();
        let Some(left) = words.next().and_then(|n| n.parse().ok()) else {
            self.say("501 5.5.4 syntax: BDAT size [LAST]\r\n");
            self.next = Some(Step::Close);
            return;
        };
        // The chunk follows whatever we think of it (RFC 3030 2).
        let is_last = words.next().is_some_and(|w| w.eq_ignore_ascii_case("LAST"));
        self.mode = Mode::Chunk { left, is_last };
    }

    fn forget(&mut self) {
        self.from = None;
        self.to.clear();
        self.addressee = None;
        self.wish = None;
        self.content.clear();
        self.content_len = 0;
    }

    fn size_max(&self) -> usize {
        self.shared.options.extensions.size.unwrap_or(super::MESSAGE_LEN_MAX)
    }

    fn say(&mut self, reply: &str) {
        self.replies.extend_from_slice(reply.as_bytes());
        match reply.as_bytes()[0] {
            b'4' => count(&self.shared.counters.deferred),
            b'5' => count(&self.shared.counters.refused),
            _ => 0,
        };
    }

    /// Says `reply`, or does what the script has for this stage. Returns the first digit of what was
    /// said, `0` when nothing was.
    fn answer(&mut self, at: At, reply: &str) -> u8 {
        let said = match self.shared.options.script.act(at, self.addressee.as_deref()) {
            None => {
                self.say(reply);
                return reply.as_bytes()[0];
            }
            Some(Act::Say(bytes)) => bytes,
            Some(Act::SayAndClose(bytes)) => {
                self.next = Some(Step::Close);
                bytes
            }
            Some(Act::SayAndReset(bytes)) => {
                self.next = Some(Step::Reset);
                bytes
            }
            Some(Act::SayAndHang(bytes)) => {
                self.next = Some(Step::Hang);
                bytes
            }
            Some(Act::Drip(bytes, pause)) => {
                let first = bytes.first().copied().unwrap_or(0);
                self.next = Some(Step::Drip(bytes, pause));
                return first;
            }
            Some(Act::Close) => return self.instead(Step::Close),
            Some(Act::Reset) => return self.instead(Step::Reset),
            Some(Act::Silence) => return self.instead(Step::Silence),
        };
        self.replies.extend_from_slice(&said);
        said.first().copied().unwrap_or(0)
    }

    fn instead(&mut self, step: Step) -> u8 {
        self.next = Some(step);
        0
    }
}

/// The address in `FROM:<address> parameters`.
fn path(rest: &str, keyword: &str) -> Option<String> {
    let head = rest.get(..keyword.len())?;
    let inner = rest[keyword.len()..].trim_start().strip_prefix('<')?;
    let (address, _parameters) = inner.split_once('>')?;
    head.eq_ignore_ascii_case(keyword).then(|| address.to_owned())
}

fn parameter<'a>(rest: &'a str, name: &str) -> Option<&'a str> {
    let parameters = rest.rsplit_once('>')?.1;
    parameters
        .split_ascii_whitespace()
        .find_map(|p| p.split_once('=').filter(|(n, _)| n.eq_ignore_ascii_case(name)))
        .map(|(_, value)| value)
}
