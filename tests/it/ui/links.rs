//! Links of newsletters, read by a real browser and by the maker of the text part: both must see the same address, whatever
//! the address and its character references look like.

use fastrand::Rng;
use hikyaku::domain::address::EmailAddress;
use hikyaku::domain::content::{Content, SharedData};
use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::recipient::Recipient;
use hikyaku::domain::time::Timestamp;
use hikyaku::template::{Context, Newsletter, Shared};

use super::webdriver::Browser;

/// How many links are judged.
const LINKS: usize = 1_000;
const SEED: u64 = 20_260_921;

/// Names of references, with and without an old form that needs no semicolon, and words that begin like one.
const WORDS: &[&str] = &[
    "amp",
    "lt",
    "gt",
    "quot",
    "apos",
    "copy",
    "copysr",
    "reg",
    "region",
    "not",
    "notin",
    "notit",
    "para",
    "params",
    "sect",
    "section",
    "deg",
    "degree",
    "times",
    "timestamp",
    "divide",
    "micro",
    "middot",
    "cent",
    "center",
    "pound",
    "yen",
    "curren",
    "currency",
    "uml",
    "ordf",
    "order",
    "lang",
    "sub",
    "subject",
    "sup",
    "prod",
    "product",
    "part",
    "partner",
    "int",
    "image",
    "lambda",
    "eacute",
    "szlig",
    "euro",
    "hellip",
    "ndash",
    "AMP",
    "Amp",
    "COPY",
    "shy",
    "zwj",
    "NotEqualTilde",
    "fjlig",
    "nosuch",
    "b",
    "page",
    "utm_source",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_and_the_text_part_read_the_same_links() {
    let mut random = Rng::with_seed(SEED);
    let sources: Vec<String> = (0..LINKS).map(|_| source(&mut random)).collect();
    let html: String = sources
        .iter()
        .enumerate()
        .map(|(i, source)| {
            let quote = if i % 2 == 0 { '"' } else { '\'' };
            format!("<p><a href={quote}https://example.org/?{source}{quote}>L{i}</a></p>\n<p>T{i} {source}</p>\n")
        })
        .collect();
    let seen = browser(&html).await;
    let text = text_part(&html);
    let squeezed = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let mut lines = text.lines().filter(|line| !line.is_empty());
    for (i, (href, said)) in seen.into_iter().enumerate() {
        let link = lines.next().unwrap_or_default();
        assert_eq!(squeezed(link), squeezed(&format!("L{i} ({href})")), "{}", sources[i]);
        let plain = lines.next().unwrap_or_default();
        assert_eq!(squeezed(plain), squeezed(&said), "{}", sources[i]);
    }
}

/// A query as people and programs write it, escaped or not.
fn source(random: &mut Rng) -> String {
    (0..random.usize(1..6))
        .map(|_| {
            let word = WORDS[random.usize(..WORDS.len())];
            match random.u8(..10) {
                0 => format!("&#{};", random.u32(32..0x3000)),
                1 => format!("&#x{:X}", random.u32(33..0x2fff)),
                2 => format!("&amp;{word}=1"),
                3 => format!("&{word};"),
                4 => format!("&{word}{}", random.u8(..10)),
                5 => format!("&{word}"),
                6 => format!("&{word}.x"),
                7 => format!("{word}=%26&"),
                _ => format!("&{word}={}", random.u8(..)),
            }
        })
        .collect()
}

/// The address and the text of each pair, as a browser reads them.
async fn browser(html: &str) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let page = folder.path().join("links.html");
    std::fs::write(&page, format!("<!doctype html><meta charset=utf-8><body>{html}")).expect("a file can be written");
    let browser = Browser::start().await;
    browser.open(&format!("file://{}", page.display())).await;
    let script = "return [...document.querySelectorAll('a')].map(a => \
                  [a.getAttribute('href'), a.parentNode.nextElementSibling.textContent])";
    let seen = browser.client.execute(script, vec![]).await.expect("the script runs");
    browser.close().await;
    let seen: Vec<(String, String)> = serde_json::from_value(seen).expect("pairs of texts");
    assert_eq!(seen.len(), LINKS);
    seen
}

fn text_part(html: &str) -> String {
    let newsletter = Newsletter::compile(&Content {
        subject: "s".into(),
        html: Some(html.to_owned()),
        text: None,
    })
    .expect("there is no template in it");
    let recipient = Recipient {
        email: EmailAddress::parse("anna@example.org").expect("an address"),
        name: None,
        data: None,
    };
    let shared = Shared::new(&BroadcastId::new(Timestamp(0), 0), &SharedData::default());
    let context = Context::new(&shared, &recipient, "https://example.org/u").expect("no data");
    newsletter.render(&context).expect("it renders").text
}
