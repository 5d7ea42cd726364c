//! A death at each named point of a message's way, on one connection, so that what may be in doubt is known to the message.
//! Needs a program with the points in it: `cargo test --features failpoints`, as `scripts/test` does.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use hikyaku::sink::{Sink, SinkHandle, SinkOptions};
use serde_json::{Value, json};

use super::unexplained;
use crate::support::client::{Client, address};
use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite};
use crate::support::program::{KEY, Place, Running};

/// Two chunks, so that there is a middle of the fan-out and an end before the last.
const RECIPIENTS: usize = 1_050;
const SIGKILL: i32 = 9;

/// Copies beyond one that a death leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copies {
    /// Nothing was at stake.
    None,
    /// The relay had taken a message of which nobody could know that.
    One,
    /// It depends on what else was on the way.
    OneAtMost,
}

struct Story {
    place: Place,
    database: TestDatabase,
    sink: SinkHandle,
}

impl Story {
    async fn on(database: TestDatabase) -> Self {
        let options = SinkOptions {
            count_recipients: true,
            keep_mailbox: false,
            ..SinkOptions::default()
        };
        Story {
            place: Place::new(),
            database,
            sink: Sink::start(options).await.unwrap(),
        }
    }

    fn start(&self, points: &str) -> Running {
        let config = self
            .place
            .file("config.toml", "[worker]\nlease_secs = 5\nheartbeat_secs = 1\n");
        let mut command = self.place.command(&["serve", "--listen", "127.0.0.1:0"]);
        command
            .env("HIKYAKU_CONFIG", config)
            .env("HIKYAKU_API_KEY", KEY)
            .env("HIKYAKU_LOG", "error")
            .env("HIKYAKU_DATABASE_URL", &self.database.url)
            .env("HIKYAKU_RELAY_URL", format!("smtp://{}?connections=1", self.sink.addr()))
            .env("FAILPOINTS", points);
        Running::start(command, "listening ")
    }

    /// Dies at the point after it was passed so many times, starts again, and nobody is lost.
    async fn dies_at(&self, point: &str, passes: u32, copies: Copies) {
        let mut doomed = self.start(&format!("{point}={passes}*off->return"));
        let asked = ask(&doomed.url).await;
        let ended = doomed.ended(Duration::from_secs(120)).await;
        assert_eq!(ended.signal(), Some(SIGKILL), "{point} was not reached");

        let serving = self.start("");
        let id = ask(&serving.url).await.expect("the second start answers");
        assert!(asked.is_none_or(|earlier| earlier == id), "{point}: one key made two broadcasts");
        let client = Client::of(&serving.url);
        client.until_completed(&id).await;
        let messages = client.messages(&id).await;
        let what = format!("{point} after {passes}");
        self.judge(&what, &messages, copies);
        assert_eq!(serving.signal("TERM").0, Some(0));
    }

    fn judge(&self, what: &str, messages: &[Value], copies: Copies) {
        let taken = self.sink.sink().copies();
        assert_eq!(messages.len(), RECIPIENTS, "{what}");
        let lost = (0..RECIPIENTS).filter(|&i| !taken.contains_key(&address(i))).count();
        assert_eq!(lost, 0, "{what}: lost");
        let is_flagged = |m: &&Value| m["possible_duplicate"] == true;
        let flagged = messages.iter().filter(is_flagged);
        let flagged: std::collections::HashSet<&str> = flagged.map(|m| m["email"].as_str().unwrap()).collect();
        assert_eq!(unexplained(messages, &taken, &flagged), Vec::<String>::new(), "{what}");
        assert!(flagged.len() <= 1, "{what}: {flagged:?} are in doubt on one connection");
        let extra: u32 = taken.values().map(|n| n - 1).sum();
        let is_right = match copies {
            Copies::None => extra == 0,
            Copies::One => extra == 1,
            Copies::OneAtMost => extra <= 1,
        };
        assert!(is_right, "{what}: {extra} copies beyond one, where {copies:?} was to be");
    }
}

/// Asks for the broadcast, always with the same key. `None` when nobody answered.
async fn ask(url: &str) -> Option<String> {
    let letter = json!({ "from": "news@example.org", "subject": "News", "text": "For {{ email }}" });
    let mut body = format!("{letter}\n");
    for i in 0..RECIPIENTS {
        body.push_str(&format!("{}\n", json!({ "email": address(i) })));
    }
    let sent = reqwest::Client::new()
        .post(format!("{}/v1/broadcasts", url.trim_end_matches('/')))
        .bearer_auth(KEY)
        .header("Content-Type", "application/x-ndjson")
        .header("Idempotency-Key", "the-only-one")
        .body(body)
        .send()
        .await;
    let answer: Value = sent.ok()?.json().await.ok()?;
    Some(answer["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
}

/// The first time at the point, and a later one in the midst of things; on both databases, side by side.
async fn deaths(point: &str, first: Copies, later: Option<u32>) {
    let at_first = async |database| Story::on(database).await.dies_at(point, 0, first).await;
    let at_last = async |database| {
        if let Some(passes) = later {
            let story = Story::on(database).await;
            story.dies_at(point, passes, Copies::OneAtMost).await;
        }
    };
    tokio::join!(
        at_first(fresh_sqlite()),
        at_last(fresh_sqlite()),
        at_first(fresh_postgres().await),
        at_last(fresh_postgres().await),
    );
}

macro_rules! stories {
    ($($name:ident: $point:literal, $first:expr, $later:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            deaths($point, $first, $later).await;
        }
    )*};
}

stories! {
    a_death_when_a_request_was_read: "request-read", Copies::None, None;
    a_death_before_the_commit_of_a_request: "accept-written", Copies::None, None;
    a_death_between_the_commit_of_a_request_and_its_answer: "accept-committed", Copies::None, None;
    a_death_in_a_fan_out_before_a_commit: "chunk-written", Copies::None, Some(1);
    a_death_in_a_fan_out_behind_a_commit: "chunk-committed", Copies::None, Some(1);
    a_death_after_a_claim: "claimed", Copies::None, Some(1);
    a_death_after_a_message_was_composed: "composed", Copies::None, Some(700);
    a_death_after_mail_from: "mail-written", Copies::None, Some(700);
    a_death_after_data: "data-accepted", Copies::None, Some(700);
    a_death_in_the_middle_of_the_content: "mid-body", Copies::None, Some(700);
    a_death_after_the_dot: "end-of-data-written", Copies::One, Some(700);
    a_death_after_the_reply: "verdict-read", Copies::One, Some(700);
    a_death_in_the_middle_of_a_group_commit: "group-half-written", Copies::None, Some(700);
    a_death_before_a_group_commit: "group-written", Copies::None, Some(700);
    a_death_behind_a_group_commit: "group-committed", Copies::None, Some(700);
    a_death_in_the_middle_of_a_finish: "finish-written", Copies::OneAtMost, Some(1);
    a_death_behind_a_finish: "finish-committed", Copies::OneAtMost, None;
}
