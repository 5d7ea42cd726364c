//! `hikyaku send`: a file of recipients in, a progress bar out. A client of the API like any other: it works from any machine
//! that reaches the server, and the server goes on when it is interrupted. Never sends mail itself.

mod forms;
mod head;
mod source;

use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use reqwest::StatusCode;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use self::forms::How;
use self::head::HeadArgs;
use self::source::{Audience, Feed};
use super::client::{Api, ApiError, ServerArgs};
use super::exit::{Exit, Failed, Outcome};
use super::signals;
use super::terminal::{Progress, note, number, plural, say};
use super::view::View;
use super::watch::{Watched, watch};
use crate::domain::message::MessageStatus;
use crate::pipeline::accept::Charset;

/// How often a request is made whose answer never came. The Idempotency-Key sees to it that it is taken once.
const TRIES: u32 = 3;
/// The pause before trying again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Problems of single recipients that are shown; the first ones tell the pattern.
const REJECTIONS_SHOWN: usize = 20;
/// Messages of a status that are shown with their reasons.
const NOT_SENT_SHOWN: usize = 3;

/// Sends a newsletter to a file of recipients, to lists, or to all.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("audience").required(true).args(["to", "list", "all"]),
    after_long_help = "\
Examples:
  hikyaku send --from 'News <news@example.org>' --subject 'Our news' \\
      --html body.html --to recipients.csv
  make-recipients | hikyaku send --from news@example.org --template tpl_… \\
      --to - --send-at 2026-10-01T08:00:00Z

Recipients:
  CSV     email,name and other columns, which the template finds by name;
          commas, semicolons or tabs
  NDJSON  one {\"email\": …, \"name\": …, \"data\": {…}} a line
  JSON    one array of such objects, or of plain addresses
  The form is seen by itself, gzip too. Files of any size stream through, and
  nobody gets a second copy for standing there twice.

Twice is once:
  Each run has an Idempotency-Key of its own, so a request that is repeated
  after a broken connection starts one broadcast. To be safe across runs, as
  in a job that may be started again, name the occasion:
  --idempotency-key news-2026-10.

Exit codes:
  0    all sent; or accepted, with --no-wait or --send-at
  3    refused, nothing is sent
  4    ended, but not everything was sent, or with --dry-run: would be
  5    the server is away
  130  no longer watched; the server goes on"
)]
pub struct Send {
    #[command(flatten)]
    head: HeadArgs,

    /// The recipients: a file, or - for standard input
    #[arg(long, value_name = "FILE", help_heading = "Audience")]
    to: Option<String>,

    /// A list of contacts; may be given several times
    #[arg(long, value_name = "lst_…", help_heading = "Audience")]
    list: Vec<String>,

    /// All subscribed contacts
    #[arg(long, help_heading = "Audience")]
    all: bool,

    /// The characters of a CSV file, such as windows-1252 [default: UTF-8, or UTF-16 with a byte order mark]
    #[arg(long, value_name = "NAME", help_heading = "Audience", requires = "to")]
    charset: Option<String>,

    /// Go on without the recipients that are wrong, instead of refusing them all
    #[arg(long, help_heading = "Options")]
    permissive: bool,

    /// Check everything, send nothing
    #[arg(long, help_heading = "Options")]
    dry_run: bool,

    /// Return when the broadcast is accepted instead of watching it to its end
    #[arg(long, help_heading = "Options")]
    no_wait: bool,

    /// Names the occasion: the same key never starts two broadcasts [default: a new one for each run]
    #[arg(long, help_heading = "Options", value_name = "KEY")]
    idempotency_key: Option<String>,

    #[command(flatten)]
    server: ServerArgs,
}

/// What the server says when it took the broadcast, or checked it.
#[derive(Debug, Deserialize)]
struct Receipt {
    id: Option<String>,
    status: Option<String>,
    #[serde(default)]
    counts: Taken,
    /// The first of those that were left out.
    #[serde(default)]
    rejected: Vec<Rejection>,
    /// For a dry run: what rendering for everybody came to.
    rendering: Option<Rendering>,
}

/// What came in; absent for stored audiences, which are counted later.
#[derive(Debug, Default, Deserialize)]
struct Taken {
    #[serde(default)]
    received: Option<i64>,
    #[serde(default)]
    rejected: Option<i64>,
}

/// What rendering for everybody came to.
#[derive(Debug, Deserialize)]
struct Rendering {
    rendered: i64,
    failed: i64,
    is_complete: bool,
    problems: Vec<WouldFail>,
}

/// Why messages would fail.
#[derive(Debug, Deserialize)]
struct WouldFail {
    detail: String,
    count: i64,
    first: Vec<String>,
}

/// One recipient that was left out.
#[derive(Debug, Deserialize)]
struct Rejection {
    /// From 0, in the order of the file.
    index: i64,
    #[serde(default)]
    detail: String,
}

/// The first messages of a status.
#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    email: String,
    last_reply: Option<Reply>,
}

/// What the relay said, or what happened instead.
#[derive(Debug, Deserialize)]
struct Reply {
    code: Option<u16>,
    enhanced: Option<String>,
    #[serde(default)]
    text: String,
}

impl Reply {
    fn in_words(self) -> String {
        let code = self.code.map(|code| code.to_string());
        let parts: Vec<String> = [code, self.enhanced, Some(self.text)].into_iter().flatten().collect();
        parts.join(" ")
    }
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: Send) -> Outcome {
    let api = Api::new(&args.server)?;
    let mut head = args.head.read(&args.list, args.all)?;
    if args.permissive {
        head.insert("validation".to_owned(), "permissive".into());
    }
    if args.dry_run {
        head.insert("dry_run".to_owned(), true.into());
    }
    let charset = args.charset.as_deref().map(Charset::parse).transpose();
    let how = How {
        permissive: args.permissive,
        charset: charset.map_err(|why| Failed::usage(format!("--charset: {why}")))?,
        is_table: Arc::default(),
    };
    let audience = Audience::open(args.to.as_deref(), how)?;
    let key = args.idempotency_key.clone().unwrap_or_else(new_key);
    // Until the server has answered, Ctrl-C ends us at once, and what was sent of the request is thrown away.
    let receipt = post(&api, &head, audience, &key).await?;
    tell(&receipt);
    let would_fail = receipt.rendering.as_ref().is_some_and(|r| r.failed > 0);
    let Some(id) = receipt.id.filter(|_| !args.dry_run) else {
        return Ok(if would_fail { Exit::NotAllSent } else { Exit::Done });
    };
    say(format_args!("Accepted as {id}: {}", api.link(&format!("broadcasts/{id}"))));
    if args.no_wait || receipt.status.as_deref() == Some("scheduled") {
        return Ok(Exit::Done);
    }
    let stop = signals::listen(None)?;
    let accepted = receipt.counts.received.unwrap_or(0) - receipt.counts.rejected.unwrap_or(0);
    follow(&api, &id, accepted, &stop).await
}

/// Watches a broadcast to its end and tells how it ended.
async fn follow(api: &Api, id: &str, expected: i64, stop: &CancellationToken) -> Outcome {
    match watch(api, id, expected, stop).await {
        Ok(Watched::Ended(view)) => Ok(tell_end(api, &view).await),
        Ok(Watched::Stopped) => {
            note(format_args!("The server goes on without us; `hikyaku status {id} --watch` looks again."));
            Ok(Exit::Interrupted)
        }
        Err(ApiError::Refused(StatusCode::FORBIDDEN, _)) => {
            note("The key may send but not read, so this is all there is to see; --scope read makes one that may.");
            Ok(Exit::Done)
        }
        Err(e) => {
            let mut failed = e.into_failed(api.base());
            failed
                .message
                .push_str(&format!("\n{id} was accepted; `hikyaku status {id}` tells what became of it"));
            Err(failed)
        }
    }
}

async fn tell_end(api: &Api, view: &View) -> Exit {
    say(format_args!("{}: {}", view.status_in_words(), view.counts_in_words()));
    if view.duplicates > 0 {
        say(format_args!("{} stood more than once and got one mail each", plural(view.duplicates, "recipient")));
    }
    say(view.conservation());
    let exit = view.exit();
    if exit == Exit::NotAllSent {
        say(format_args!("Which and why: {}", api.link(&format!("broadcasts/{}", view.id))));
        tell_some(api, view).await;
    }
    exit
}

/// Shows the first messages that were not sent, with the reason: one of them often explains all.
async fn tell_some(api: &Api, view: &View) {
    for status in [MessageStatus::Failed, MessageStatus::Uncertain, MessageStatus::Expired] {
        if view.counts.get(status) == 0 {
            continue;
        }
        let path = format!("v1/broadcasts/{}/messages?status={status}&limit={NOT_SENT_SHOWN}", view.id);
        // The counts have been told; this is more than was asked for.
        let Ok(page) = api.get::<Page>(&path).await else {
            return;
        };
        for message in page.data {
            let reply = message.last_reply.map(|reply| reply.in_words()).unwrap_or_default();
            say(format_args!("  {status}  {}  {reply}", message.email));
        }
    }
}

/// Posts the request; again, with the same key, when it is not known whether it arrived.
async fn post(
    api: &Api,
    head: &serde_json::Map<String, serde_json::Value>,
    mut audience: Audience,
    key: &str,
) -> Result<Receipt, Failed> {
    let mut tries_left = TRIES;
    loop {
        tries_left -= 1;
        let Feed {
            body,
            content_type,
            reader,
        } = audience.feed(head)?;
        let mut progress = audience.len().map(|total| Progress::start("Upload", total));
        let mut answer = Box::pin(api.post_broadcast::<Receipt>(body, content_type, key));
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer,
                () = tokio::time::sleep(Duration::from_millis(200)) => if let Some(progress) = &mut progress {
                    let (read, total) = (audience.read_so_far(), audience.len().unwrap_or(0));
                    progress.show_text(read, total, format!("{} KB read", number((read / 1_000) as i64)));
                },
            }
        };
        if let Some(progress) = progress {
            progress.clear();
        }
        // A file that cannot be read explains a request that broke off; the server's words would not.
        reader.finish(answer.is_ok()).await?;
        let again = match &answer {
            Err(ApiError::Broken(_) | ApiError::Unavailable(_)) => true,
            Err(ApiError::Refused(_, problem)) => problem.code == "idempotency_key_in_flight",
            _ => false,
        };
        match answer {
            Ok((_, receipt)) => return Ok(receipt),
            Err(_) if again && tries_left > 0 && audience.can_be_read_again() => {
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            Err(mut e) => {
                if let ApiError::Refused(_, problem) = &mut e
                    && !audience.is_table()
                {
                    problem.forget_lines();
                }
                let mut failed = e.into_failed(api.base());
                if again {
                    failed.message.push_str(&format!(
                        "\nwhether the request arrived is not known; the same command with --idempotency-key {key} cannot start it twice"
                    ));
                }
                return Err(failed);
            }
        }
    }
}

/// Says who was left out, and for a dry run what would be sent.
fn tell(receipt: &Receipt) {
    let rejected = receipt.counts.rejected.unwrap_or(0);
    if receipt.id.is_none() {
        let meant = receipt
            .counts
            .received
            .map_or_else(String::new, |n| format!(": {}", plural(n - rejected, "recipient")));
        match receipt.rendering.as_ref().filter(|r| r.failed > 0) {
            None => {
                say(format_args!("Everything is right{meant}. Nothing was sent, as this was a dry run."));
            }
            Some(found) => tell_failures(found),
        }
        if let Some(found) = receipt.rendering.as_ref().filter(|r| !r.is_complete) {
            say(format_args!("There was time to make the messages of {} only.", plural(found.rendered, "recipient")));
        }
    }
    if rejected > 0 {
        say(format_args!("{} left out:", plural(rejected, "recipient")));
    }
    for rejection in receipt.rejected.iter().take(REJECTIONS_SHOWN) {
        say(format_args!("  #/recipients/{}  {}", rejection.index, rejection.detail));
    }
}

fn tell_failures(found: &Rendering) {
    let of = plural(found.rendered, "message");
    say(format_args!(
        "{} of {of} would fail. Nothing was sent, as this was a dry run.",
        number(found.failed)
    ));
    for problem in &found.problems {
        let more = if problem.count > problem.first.len() as i64 {
            ", …"
        } else {
            ""
        };
        say(format_args!("  {}: {} ({}{more})", number(problem.count), problem.detail, problem.first.join(", ")));
    }
}

/// 128 random bits: no two runs anywhere have the same.
fn new_key() -> String {
    format!("cli-{:032x}", fastrand::u128(..))
}
