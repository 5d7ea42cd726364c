//! `hikyaku demo`: the whole program at work on one machine, with nothing to install and nothing that leaves it. Makes contacts,
//! presses "send to all" through the API as a user's application would, and holds what was recorded against what the relay took.

mod people;
mod truth;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Api, ServerArgs};
use super::exit::{Exit, Failed, Outcome};
use super::signals;
use super::terminal::{Colour, Progress, mark, note, number, plural, say, span};
use super::view::View;
use super::watch::{Watched, watch};
use crate::app::{App, Roles};
use crate::config::{Config, Secret};
use crate::domain::id::{ListId, TemplateId};
use crate::template::{STARTERS, Starter};
use crate::{telemetry, web};

/// Contacts stored in one transaction: enough that the commit does not count, few enough that the bar moves.
const BATCH: u64 = 2_000;
/// Most recipients: SQLite holds more, but nobody waits that long for a demonstration.
const RECIPIENTS_MAX: u64 = 10_000_000;
/// Where it listens, if that is free.
const LISTEN: &str = "127.0.0.1:8025";

/// Shows everything at work: 100,000 mails to a built-in relay.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku demo
  hikyaku demo --recipients 2000 --exit-when-done

Starts the service on an embedded database in a fresh directory, makes up the
contacts, sends a newsletter to all of them through the API, and shows how it
goes. Every mail travels over SMTP on loopback to the built-in capture relay;
nothing leaves the machine. Then it stays up to be looked at until Ctrl-C, and
takes its directory with it.

Exit codes:
  0    every count agrees: recipients, database, relay
  1    they do not
  130  interrupted before that was known")]
pub struct Demo {
    /// How many contacts get the newsletter
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=RECIPIENTS_MAX))]
    recipients: u64,

    /// End when everything is sent instead of staying up
    #[arg(long)]
    exit_when_done: bool,

    /// Address and port of the pages [default: 127.0.0.1:8025, or any free port if that is taken]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// Keep the data in this directory instead of one that is removed at the end
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// See [`Exit`].
pub async fn run(args: Demo) -> Outcome {
    let home = Home::make(args.data_dir.as_deref())?;
    let key = new_key()?;
    let listen = args.listen.map_or_else(|| LISTEN.to_owned(), |addr| addr.to_string());
    let config = config(home.path(), &listen, &key, "")?;
    telemetry::init(&config.log).map_err(|e| Failed::usage(e.to_string()))?;
    let stop = signals::listen(Some("Stopping. Once more to stop at once."))?;
    let mut app = start(config, args.listen.is_some()).await?;
    let shown = tokio::select! {
        shown = show(&app, &args, &home, key, &stop) => shown,
        () = stop.cancelled() => Ok(Exit::Interrupted),
    };
    let exit = match shown {
        Ok(exit) if !args.exit_when_done && !stop.is_cancelled() => {
            say("It stays up to be looked at. Ctrl-C ends it.");
            tokio::select! {
                () = stop.cancelled() => Ok(exit),
                error = app.stopped() => Err(error.into()),
            }
        }
        shown => shown,
    };
    app.shut_down().await?;
    home.leave(matches!(exit, Ok(Exit::Done | Exit::Interrupted)));
    exit
}

/// Starts everything: on the usual address, else on any free port, since a demo must not fail because something is running.
async fn start(mut config: Config, is_asked: bool) -> Result<App, Failed> {
    let roles = Roles {
        web: true,
        worker: true,
    };
    match App::start(&config, roles).await {
        // What else may be wrong is wrong the second time, too.
        Err(_) if !is_asked => {
            config.web.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            Ok(App::start(&config, roles).await?)
        }
        started => Ok(started?),
    }
}

/// The story itself: contacts, template, one request, the wait, the account.
async fn show(app: &App, args: &Demo, home: &Home, key: Secret, stop: &CancellationToken) -> Outcome {
    let address = app.web_addr().map(|addr| format!("http://{addr}/")).unwrap_or_default();
    tell_beginning(app, args, home, &address).await?;
    let store = app.store();
    let list = ListId::new(app.clock().now(), fastrand::u128(..));
    store
        .create_list(&list, "Friends of the house", app.clock().now())
        .await?;
    make_contacts(app, &list, args.recipients).await?;

    let starter = STARTERS
        .iter()
        .find(|s| s.name == "announcement")
        .unwrap_or(&STARTERS[0]);
    let template = TemplateId::new(app.clock().now(), fastrand::u128(..));
    let name = "Announcement";
    store
        .put_template(&template, name, &starter.content(), app.clock().now())
        .await?;

    let api = Api::new(&ServerArgs {
        server: Some(address),
        key: Some(key),
    })?;
    let started = Instant::now();
    let id = press_send_to_all(&api, &template, starter).await?;
    let answered = started.elapsed();
    say(format_args!(
        "  {:<9} 202 after {:.0} ms; {}",
        "Accepted",
        answered.as_secs_f64() * 1e3,
        api.link(&format!("broadcasts/{id}"))
    ));
    let expected = args.recipients as i64;
    let watched = watch(&api, &id, expected, stop)
        .await
        .map_err(|e| e.into_failed(api.base()))?;
    let Watched::Ended(view) = watched else {
        return Ok(Exit::Interrupted);
    };
    let took = started.elapsed().as_secs_f64();
    let checks = truth::checks(app, &view, expected).await?;
    tell_end(&view, took, &checks);
    Ok(if checks.iter().all(|check| check.agrees) {
        Exit::Done
    } else {
        Exit::Failed
    })
}

async fn tell_beginning(app: &App, args: &Demo, home: &Home, address: &str) -> Result<(), Failed> {
    let line = |name: &str, value: &str| say(format_args!("  {name:<9} {value}"));
    say(format_args!(
        "{}: {} from a database over SMTP to a built-in relay.\nNothing leaves this machine.\n",
        mark("Hikyaku demo", Colour::Bold),
        plural(args.recipients as i64, "mail")
    ));
    line("Pages", address);
    if let Some(link) = web::session::setup_link(app.state()).await? {
        line("Log in", &format!("{link}\n            (makes the first user; works once)"));
    }
    line(
        "Data",
        &format!("{}{}", home.path().display(), if home.is_ours { " (removed at the end)" } else { "" }),
    );
    say("");
    Ok(())
}

async fn make_contacts(app: &App, list: &ListId, n: u64) -> Result<(), Failed> {
    let (store, clock) = (app.store(), app.clock());
    let mut progress = Progress::start("Contacts", n);
    for start in (0..n).step_by(BATCH as usize) {
        let batch: Vec<_> = (start..n.min(start + BATCH)).map(people::contact).collect();
        store.put_contacts(&batch, Some(list), clock.now()).await?;
        progress.show(start + batch.len() as u64, n, "");
    }
    progress.finish(n, "on one list");
    Ok(())
}

/// What a button "send to all" does: one small request.
async fn press_send_to_all(api: &Api, template: &TemplateId, starter: &Starter) -> Result<String, Failed> {
    let request = json!({
        "from": { "email": "news@books.example", "name": "Harbour Books" },
        "template_id": template.as_str(),
        "all": true,
        "data": starter.sample_data(),
        "tags": ["demo"],
    });
    let body = serde_json::to_vec(&request).expect("a JSON object always serialises");
    let key = format!("demo-{:016x}", fastrand::u64(..));
    let (_, receipt) = api
        .post_broadcast::<serde_json::Value>(body.into(), "application/json", &key)
        .await
        .map_err(|e| e.into_failed(api.base()))?;
    match receipt["id"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(Failed::here("the server took the broadcast and gave no id")),
    }
}

fn tell_end(view: &View, took: f64, checks: &[truth::Check]) {
    let settled = view.counts.settled();
    say(format_args!(
        "\n{} in {}: {} messages a second, from the request to the last outcome on disk.\n",
        mark(&capitalised(&view.status_in_words()), Colour::Bold),
        span(took),
        number((settled as f64 / took.max(0.001)).round() as i64)
    ));
    for check in checks {
        let word = match check.agrees {
            true => mark("ok  ", Colour::Green),
            false => mark("FAIL", Colour::Red),
        };
        say(format_args!("  {word}  {:<13} {}", check.what, check.text));
    }
    say("");
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The configuration of the demo, and of others that are whole programs for a while. The environment is not asked, so that a relay or a database that is set for real work is never
/// touched; only what is logged may be chosen.
pub(super) fn config(dir: &Path, listen: &str, key: &Secret, relay_url: &str) -> Result<Config, Failed> {
    let env = |name: &str| match name {
        "HIKYAKU_LOG" => Some(std::env::var(name).unwrap_or_else(|_| "warn".to_owned())),
        "HIKYAKU_LOG_FORMAT" => std::env::var(name).ok(),
        _ => None,
    };
    let Some(dir) = dir.to_str() else {
        return Err(Failed::usage("--data-dir must be a path in UTF-8"));
    };
    let words = [
        ("data_dir", dir),
        ("web.listen", listen),
        ("web.public_url", ""),
        ("web.api_key", key.expose()),
        ("database.url", ""),
        ("relay.url", relay_url),
    ];
    Ok(Config::from_layers(&env, &words)?)
}

/// A key that only this process knows.
pub(super) fn new_key() -> Result<Secret, Failed> {
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failed::here("the system gives no random bytes"))?;
    Ok(Secret::new(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()))
}

/// The directory with the demo's data.
pub(super) struct Home {
    path: PathBuf,
    /// Made by us, so removed by us.
    is_ours: bool,
}

impl Home {
    /// The directory that was named, if nothing of ours is in it yet; else a new one.
    pub(super) fn make(asked: Option<&Path>) -> Result<Self, Failed> {
        if let Some(path) = asked {
            if path.join("hikyaku.db").exists() {
                return Err(Failed::usage(format!(
                    "--data-dir {} has a database already, and the demo would mail everybody in it; name another directory",
                    path.display()
                )));
            }
            return Ok(Self {
                path: path.to_owned(),
                is_ours: false,
            });
        }
        let path = std::env::temp_dir().join(format!("hikyaku-demo-{:08x}", fastrand::u32(..)));
        std::fs::create_dir(&path)
            .map_err(|e| Failed::here(format!("{}: {e}; set TMPDIR to a directory", path.display())))?;
        Ok(Self { path, is_ours: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what was made. What did not come out right stays, to be looked into.
    pub(super) fn leave(&self, came_out_right: bool) {
        match (self.is_ours, came_out_right) {
            (true, true) => {
                if let Err(e) = std::fs::remove_dir_all(&self.path) {
                    note(format_args!("{} could not be removed: {e}", self.path.display()));
                }
            }
            _ => note(format_args!("The data stays in {}", self.path.display())),
        }
    }
}
