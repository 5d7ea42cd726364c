//! Random letters that try to break what is made of them: hostile names, subjects, texts, headers and files. The same seed gives
//! the same letters. Each comes with what a reader must find in it; nothing is checked here.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use hikyaku::domain::content::{Attachment, Letter, Mailbox};
use hikyaku::domain::dkim::{DkimAlgorithm, DkimKey};
use hikyaku::domain::id::DkimKeyId;
use hikyaku::domain::recipient::Recipient;
use hikyaku::domain::time::Timestamp;
use hikyaku::mime::{check_attachment, check_header, generate_dkim_key};
use serde_json::{Value, json};

use super::{address, composer_signing, content, letter, recipient};

/// What may break a header, a quoted string, an encoded word, a body or the SMTP session.
const PAYLOADS: [&str; 43] = [
    "\r\nBcc: victim@example.org",
    "\nBcc: victim@example.org",
    "\rBcc: victim@example.org",
    "\r\n\r\n<script>alert(1)</script>",
    "\r\n.\r\nMAIL FROM:<x@example.org>\r\n",
    "\0",
    "\u{85}",
    "\u{2028}Bcc: x@y.example",
    "\u{2029}",
    "\u{b}",
    "\u{c}",
    "\t",
    "=?utf-8?q?=0D=0ABcc:_x@example.org?=",
    "=?utf-8?b?DQpCY2M6IHg=?=",
    "=?broken?x?=",
    "\"",
    "\\",
    "\\\"",
    "\"a\r\nRCPT TO:<x>\"@d",
    "<x@example.org>",
    ",",
    ";",
    ":",
    "@",
    "(comment)",
    "äöü",
    "飛脚",
    "😀",
    "\u{202e}txet",
    "e\u{301}",
    "  ",
    "\u{a0}",
    "--=_boundary--",
    "=",
    "\n.\n",
    "\n..dots\n.end",
    "\nFrom here on",
    "trailing  \n \n\t\n",
    "\n\n",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "--",
    "日本語のとても長い件名がここに続きます",
    "{{ not }} {% a template %}",
];

pub fn hostile(random: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..random.usize(0..6) {
        match random.u8(0..10) {
            0..=3 => text.push_str(PAYLOADS[random.usize(..PAYLOADS.len())]),
            4 => (0..random.usize(1..12)).for_each(|_| text.push(random.char('\u{0}'..='\u{2ff}'))),
            5 if random.u8(0..8) == 0 => text.push_str(&"x".repeat(10_000)),
            5 => text.push_str(&"long words ".repeat(random.usize(1..20))),
            6 => text.push(' '),
            _ => text.push_str("plain"),
        }
    }
    text
}

/// A letter, whom it goes to, and what must be found in the message.
pub struct Case {
    pub letter: Letter,
    pub recipient: Recipient,
    pub keys: Vec<DkimKey>,
    pub expected: Value,
}

impl Case {
    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        let composer = composer_signing(&self.letter, &self.keys).expect("the letter can be composed");
        composer
            .compose(&self.recipient)
            .expect("the message can be composed")
            .bytes
    }
}

/// The keys of the two sending domains, made once: one of each algorithm.
fn keys(domain: &str) -> &'static [DkimKey] {
    static KEYS: OnceLock<Vec<DkimKey>> = OnceLock::new();
    let all = KEYS.get_or_init(|| {
        let of =
            |domain: &str| [DkimAlgorithm::Rsa, DkimAlgorithm::Ed25519].map(|algorithm| signing_key(domain, algorithm));
        [of("example.org"), of("xn--bcher-kva.example")].concat()
    });
    if domain == "example.org" { &all[..2] } else { &all[2..] }
}

/// A new key of this domain; its selector is its algorithm.
pub fn signing_key(domain: &str, algorithm: DkimAlgorithm) -> DkimKey {
    let (private_key, public_key) = generate_dkim_key(algorithm).expect("a key can be made");
    DkimKey {
        id: DkimKeyId::new(Timestamp(0), fastrand::u128(..)),
        domain: domain.into(),
        selector: algorithm.as_str().into(),
        algorithm,
        private_key,
        public_key,
        created_at: Timestamp(0),
        enabled_at: None,
    }
}

/// The i-th letter of this seed, whichever were made before it.
pub fn numbered(seed: u64, i: usize) -> Case {
    // Far apart: the streams of neighbouring seeds begin alike.
    const APART: u64 = 0x9e37_79b9_7f4a_7c15;
    case(&mut Rng::with_seed(seed ^ (i as u64).wrapping_mul(APART)), i)
}

/// The i-th letter.
fn case(random: &mut Rng, i: usize) -> Case {
    let (name, from_name, mut subject) = (hostile(random), hostile(random), hostile(random));
    if one_line(&subject, 250).trim().is_empty() {
        // A message without a subject is not made.
        subject.push('-');
    }
    let (text, html) = (hostile(random), (!i.is_multiple_of(3)).then(|| hostile(random)));
    let mut letter = letter(content("{{ s }}", html.as_ref().map(|_| "<p>{{ h }}</p>"), Some("{{ t }}")));
    let from = ["news@example.org", "news@bücher.example"][usize::from(i % 7 == 6)];
    letter.from.email = address(from);
    letter.from.name = Some(from_name.as_str().into());
    if i.is_multiple_of(2) {
        letter.reply_to = Some(Mailbox {
            email: address("reply@example.org"),
            name: Some(hostile(random).into()),
        });
    }
    let value = hostile(random);
    if check_header("X-Hostile", &value).is_ok() {
        letter.headers.push(("X-Hostile".into(), value));
    }
    if i.is_multiple_of(5) {
        letter
            .headers
            .push(("List-ID".into(), "News <news.example.org>".into()));
    }
    letter.attachments = (0..random.usize(0..4).saturating_sub(1))
        .map(|n| attachment(random, n))
        .collect();
    let to = [
        "anna@example.org",
        "o'neil+a=b@sub.example.org",
        "a!#$%&*/?^_`{|}~@xn--mller-kva.example",
        "post@müller.example",
    ][i % 4];
    let recipient = recipient(to, Some(&name), &json!({"s": subject, "t": text, "h": html}));
    let keys = keys(letter.from.email.domain());
    let keys = match i % 3 {
        0 => keys.to_vec(),
        1 => keys[..1].to_vec(),
        _ => keys[1..].to_vec(),
    };
    let expected = json!({
        "headers": headers(&letter, &keys),
        "domain": letter.from.email.domain(),
        "from": [letter.from.email, name_as_shown(&from_name)],
        "to": [recipient.email, name_as_shown(&name)],
        "subject": one_line(&subject, 250),
        "text": text,
        "html": html.map(|h| format!("<p>{}</p>", escaped(&h))),
        "attachments": letter.attachments,
        "zone": keys.iter().map(DkimKey::zone_line).collect::<Vec<_>>(),
        "rsa": keys.iter().filter(|key| key.algorithm == DkimAlgorithm::Rsa).count(),
        "ed25519": keys.iter().filter(|key| key.algorithm == DkimAlgorithm::Ed25519).count(),
    });
    Case {
        letter,
        recipient,
        keys,
        expected,
    }
}

fn attachment(random: &mut Rng, n: usize) -> Attachment {
    let len = match random.u8(0..100) {
        0 => 100_000,
        _ => random.usize(1..3_000),
    };
    let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
    let name = hostile(random).trim().to_owned();
    Attachment {
        filename: match check_attachment(&name, "a/b", None) {
            Ok(()) => name,
            Err(_) => "Übersicht \"1\".pdf".into(),
        },
        content_type: ["application/pdf", "image/png", "text/csv; charset=utf-8"][random.usize(..3)].into(),
        content_id: random.bool().then(|| format!("image{n}")),
        content: STANDARD.encode(bytes),
    }
}

/// The names of all headers that a message of this letter has.
fn headers(letter: &Letter, keys: &[DkimKey]) -> Vec<&'static str> {
    let mut headers = vec![
        "Date",
        "From",
        "MIME-Version",
        "List-Unsubscribe-Post",
        "Precedence",
        "To",
        "Subject",
        "Message-ID",
        "List-Unsubscribe",
        "Content-Type",
    ];
    headers.extend(keys.iter().map(|_| "DKIM-Signature"));
    headers.extend(letter.reply_to.iter().map(|_| "Reply-To"));
    let given = |name: &'static str| letter.headers.iter().filter(move |(n, _)| n == name).map(move |_| name);
    headers.extend(given("X-Hostile").chain(given("List-ID")));
    let is_bare = letter.content.html.is_none() && letter.attachments.is_empty();
    headers.extend(is_bare.then_some("Content-Transfer-Encoding"));
    headers
}

fn is_gap(c: char) -> bool {
    c == ' ' || c.is_control() || c == '\u{2028}' || c == '\u{2029}'
}

fn name_as_shown(name: &str) -> String {
    let cut: String = name.chars().take(200).collect();
    cut.split(is_gap)
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn one_line(text: &str, max: usize) -> String {
    let line = text
        .split(is_gap)
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    match line.chars().count() > max {
        true => line.chars().take(max - 1).chain(['…']).collect(),
        false => line,
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}
