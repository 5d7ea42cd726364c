//! Thousands of messages made of hostile names, subjects and data, read by a mail parser that nobody
//! here wrote: Python's `email`, in strict mode.

use std::fmt::Write as _;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use hikyaku::domain::content::Mailbox;
use hikyaku::mime::check_header;
use serde_json::json;

use super::{address, composer, content, letter, recipient};

const N_MESSAGES: usize = 2_000;

/// What may break a header, a quoted string, an encoded word, a body or the SMTP session.
const PAYLOADS: [&str; 34] = [
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
];

fn hostile(random: &mut Rng) -> String {
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

#[test]
fn a_strict_parser_finds_nothing_but_what_was_put_in() {
    let mut random = Rng::with_seed(20_260_921);
    let mut cases = String::new();
    for i in 0..N_MESSAGES {
        writeln!(cases, "{}", case(&mut random, i)).expect("strings can be written to");
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("messages.jsonl");
    std::fs::write(&file, cases).expect("the temporary folder can be written to");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/compose/check_mime.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(&file)
        .output()
        .expect("this test needs python3: install it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), format!("{N_MESSAGES} messages, 0 wrong"));
}

/// One message and what a reader must find in it, as a line of JSON.
fn case(random: &mut Rng, i: usize) -> serde_json::Value {
    let (name, from_name, subject) = (hostile(random), hostile(random), hostile(random));
    let (text, html) = (hostile(random), (!i.is_multiple_of(3)).then(|| hostile(random)));
    let mut letter = letter(content("{{ s }}", html.as_ref().map(|_| "<p>{{ h }}</p>"), Some("{{ t }}")));
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
    let email = [
        "anna@example.org",
        "o'neil+a=b@sub.example.org",
        "a!#$%&*/?^_`{|}~@xn--mller-kva.example",
    ][i % 3];
    let data = json!({"s": subject, "t": text, "h": html});
    let composed = composer(&letter)
        .unwrap()
        .compose(&recipient(email, Some(&name), &data))
        .unwrap();
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
    headers.extend(letter.reply_to.iter().map(|_| "Reply-To"));
    headers.extend(letter.headers.iter().map(|_| "X-Hostile"));
    headers.extend(html.is_none().then_some("Content-Transfer-Encoding"));
    json!({
        "bytes": STANDARD.encode(&composed.bytes),
        "headers": headers,
        "from": ["news@example.org", name_as_shown(&from_name)],
        "to": [email, name_as_shown(&name)],
        "subject": one_line(&subject, 250),
        "text": text,
        "html": html.map(|h| format!("<p>{}</p>", escaped(&h))),
    })
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
