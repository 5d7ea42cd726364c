//! `hikyaku status`: what became of broadcasts, from the database on this machine or from a server's API. Only looks.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::client::{Api, ServerArgs, given};
use super::exit::{Exit, Failed, Outcome};
use super::settings::{DatabaseArgs, Overrides, database_url};
use super::terminal::{number, say, span, table};
use super::view::{View, rate_in_words};
use crate::clock::{Clock, SystemClock};
use crate::config::Secret;
use crate::domain::id::BroadcastId;
use crate::pipeline::outlook::{Outlook, outlook};
use crate::store::{self, DatabaseUrl, Store};

/// Between two looks of `--watch`.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most broadcasts in the list; the API gives no more on a page.
const LIST_MAX: u32 = 100;

/// Shows the newest broadcasts, or one with all its counts.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku status
  hikyaku status brd_01k6… --watch

Reads the database of this machine's configuration, so it needs no key and no
running server. With --server and HIKYAKU_API_KEY it asks that server instead.

Exit codes, when a broadcast is named:
  0    all sent, or not ended yet
  4    ended, but not everything was sent")]
pub struct Status {
    /// The broadcast; without it the newest ones are listed
    #[arg(value_name = "brd_…")]
    id: Option<BroadcastId>,

    /// Look again each second until it has ended
    #[arg(long, requires = "id")]
    watch: bool,

    /// Print JSON for programs
    #[arg(long)]
    json: bool,

    /// How many broadcasts are listed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=LIST_MAX as i64))]
    limit: u32,

    /// Ask this server instead of the database [env: HIKYAKU_SERVER]
    #[arg(long, value_name = "URL", env = "HIKYAKU_SERVER", hide_env = true, help_heading = "Server")]
    server: Option<String>,

    /// The API key for the server [env: HIKYAKU_API_KEY]
    #[arg(long, value_name = "KEY", env = "HIKYAKU_API_KEY", hide_env = true, hide_env_values = true, help_heading = "Server",
        value_parser = |word: &str| Ok::<_, String>(Secret::new(word)))]
    key: Option<Secret>,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Where the answer comes from.
enum Source {
    Api(Api),
    Store(std::sync::Arc<dyn Store>),
}

#[derive(Deserialize)]
struct Page {
    data: Vec<View>,
}

/// What `--json` prints for the list.
#[derive(Serialize)]
struct List<'a> {
    data: &'a [View],
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: Status) -> Outcome {
    let source = Source::open(&args).await?;
    let Some(id) = &args.id else {
        let views = source.newest(args.limit).await?;
        match args.json {
            true => print_json(&List { data: &views }),
            false => print_list(&views),
        };
        return Ok(Exit::Done);
    };
    loop {
        let view = source.one(id).await?;
        let is_read = if args.json { print_json(&view) } else { print_one(&view) };
        if !args.watch || view.is_final() || !is_read {
            return Ok(if view.is_final() { view.exit() } else { Exit::Done });
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if !args.json {
            say("");
        }
    }
}

impl Source {
    async fn open(args: &Status) -> Result<Self, Failed> {
        if let Some(server) = given(args.server.as_deref()) {
            let server = ServerArgs {
                server: Some(server.to_owned()),
                key: args.key.clone(),
            };
            return Ok(Source::Api(Api::new(&server)?));
        }
        let config = Overrides::default().database(&args.database).load()?;
        let url = database_url(&config)?;
        if let DatabaseUrl::Sqlite(path) = &url
            && !path.exists()
        {
            return Err(Failed::here(format!(
                "there is no database at {}; `hikyaku serve` makes it, --database-url or --data-dir name another, --server asks a server",
                path.display()
            )));
        }
        Ok(Source::Store(store::open(&url).await?))
    }

    async fn newest(&self, limit: u32) -> Result<Vec<View>, Failed> {
        match self {
            Source::Api(api) => {
                let page: Page = api
                    .get(&format!("v1/broadcasts?limit={limit}"))
                    .await
                    .map_err(|e| e.into_failed(api.base()))?;
                Ok(page.data)
            }
            Source::Store(store) => {
                let page = store.broadcasts(None, i64::from(limit)).await?;
                Ok(page
                    .rows
                    .into_iter()
                    .map(|b| View::stored(b, None, Outlook::default()))
                    .collect())
            }
        }
    }

    async fn one(&self, id: &BroadcastId) -> Result<View, Failed> {
        match self {
            Source::Api(api) => api
                .get(&format!("v1/broadcasts/{id}"))
                .await
                .map_err(|e| e.into_failed(api.base())),
            Source::Store(store) => match store.broadcast(id).await? {
                Some(broadcast) => {
                    let now = SystemClock.now();
                    let rate = store.rate(id, now).await?;
                    let outlook = outlook(&**store, &broadcast, rate, now).await?;
                    Ok(View::stored(broadcast, Some(rate), outlook))
                }
                None => {
                    Err(Failed::here(format!("there is no broadcast {id}; `hikyaku status` lists the newest ones")))
                }
            },
        }
    }
}

fn print_json(value: &impl Serialize) -> bool {
    say(serde_json::to_string_pretty(value).expect("views are texts and numbers"))
}

fn print_list(views: &[View]) -> bool {
    if views.is_empty() {
        return say("There are no broadcasts yet; `hikyaku send --help` shows how to start one.");
    }
    let row = |view: &View| {
        let c = &view.counts;
        let waiting = c.queued + c.deferred;
        let other = c.total() - waiting - c.sent - c.failed;
        vec![
            view.id.clone(),
            view.status.replace('_', " "),
            number(view.expected()),
            number(c.sent),
            number(waiting),
            number(c.failed),
            number(other),
            view.created_at.as_deref().map_or_else(String::new, minute),
            view.subject.as_deref().map(crate::template::title).unwrap_or_default(),
        ]
    };
    let head = [
        "ID",
        "STATUS",
        "ACCEPTED",
        "SENT",
        "WAITING",
        "FAILED",
        "OTHER",
        "CREATED (UTC)",
        "SUBJECT",
    ];
    say(table(&head, &[2, 3, 4, 5, 6], &views.iter().map(row).collect::<Vec<_>>()))
}

/// A time to the minute: `2026-10-01 08:00`.
fn minute(rfc3339: &str) -> String {
    rfc3339
        .get(..16)
        .map_or_else(|| rfc3339.to_owned(), |start| start.replace('T', " "))
}

fn print_one(view: &View) -> bool {
    let line = |name: &str, value: &str| say(format_args!("{name:<12} {value}"));
    line("broadcast", &view.id);
    if let Some(subject) = &view.subject {
        line("subject", &crate::template::title(subject));
    }
    line("status", &view.status_in_words());
    if let Some(at) = view.send_at.as_ref().filter(|_| view.status == "scheduled") {
        line("starts at", at);
    }
    line(
        "received",
        &format!(
            "{} recipients, {} rejected, {} duplicates",
            number(view.received),
            number(view.rejected),
            number(view.duplicates)
        ),
    );
    line("counts", &view.counts_in_words());
    let is_read = line("sum", &view.conservation());
    if let Some(rate) = view.rate_per_sec.filter(|_| !view.is_final()) {
        let pace = rate_in_words(rate).unwrap_or_else(|| "nothing was sent in the last seconds".to_owned());
        let left = view
            .eta_seconds
            .map_or_else(String::new, |secs| format!(", {} left", span(secs as f64)));
        line("pace", &format!("{pace}{left}"));
    }
    if let Some(brake) = &view.slowed_by {
        let until = brake.until.map_or_else(String::new, |at| format!(", until {at}"));
        line(
            if brake.kind.is_full_stop() {
                "stands still"
            } else {
                "slowed by"
            },
            &format!("{}{until}", brake.in_words()),
        );
    }
    if view.possible_duplicates > 0 {
        line(
            "doubtful",
            &format!("{} may have arrived twice, each of them flagged", number(view.possible_duplicates)),
        );
    }
    if let Some(secs) = view.took_secs() {
        line("took", &span(secs));
    }
    is_read
}
