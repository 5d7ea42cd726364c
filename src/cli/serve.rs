//! `hikyaku serve`, `web` and `worker`: one process with both parts, or one of them. Starts the application, says where it is to
//! be found, and ends it in good order when it is asked to.

use clap::Args;

use super::exit::{Exit, Failed, Outcome};
use super::settings::{DatabaseArgs, ListenArgs, Overrides, RelayArgs};
use super::signals;
use super::terminal::{Colour, mark, say};
use crate::app::{App, Roles};
use crate::config::Config;
use crate::domain::relay::Relay;
use crate::pipeline::outlet::Outlet;
use crate::smtp::masked::masked;
use crate::store::{Store, StoreError};
use crate::{telemetry, web};

/// Relays named at the start; a list has its own command.
const RELAYS_SHOWN_MAX: usize = 8;

/// Runs the API, the pages and a worker in one process.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku serve
  HIKYAKU_RELAY_URL='smtp://user:password@mail.example.org:587?rate=50' \\
      hikyaku serve --listen 0.0.0.0:8025

Nothing needs to be configured: it listens on loopback, keeps its data in one
directory, prints a link to make the first user, and sends nothing to the
outside until the first relay is named or stored. Until then a built-in capture
relay keeps what would have gone out, to be looked at in the pages.

SIGTERM and Ctrl-C finish what is on the wire, record it, and exit with 0. A
second signal ends the process at once.")]
pub struct Serve {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    relay: RelayArgs,
}

/// Runs the API and the pages only; workers run elsewhere.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  HIKYAKU_DATABASE_URL=postgres://hikyaku:password@db/hikyaku hikyaku web
  hikyaku web --listen 0.0.0.0:8025 --public-url https://mail.example.org

Requests are made durable and wait in the database until a worker is there.")]
pub struct Web {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    relay: RelayArgs,
}

/// Runs a worker only: it claims jobs and sends, and listens nowhere.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  HIKYAKU_DATABASE_URL=postgres://hikyaku:password@db/hikyaku \\
      HIKYAKU_RELAY_URL=smtp://relay:25 hikyaku worker
  hikyaku worker --public-url https://mail.example.org

Start as many as you like on one PostgreSQL database; they share the work and
the relay's rate. Give all the same --public-url: the worker that sends a mail
writes its unsubscribe link.")]
pub struct Worker {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    relay: RelayArgs,
}

/// Runs both parts.
///
/// # Errors
/// See [`Exit`].
pub async fn serve(args: Serve) -> Outcome {
    let overrides = Overrides::default()
        .database(&args.database)
        .relay(&args.relay)
        .listen(&args.listen);
    live(
        &overrides.load()?,
        Roles {
            web: true,
            worker: true,
        },
    )
    .await
}

/// Runs the API and the pages.
///
/// # Errors
/// See [`Exit`].
pub async fn web(args: Web) -> Outcome {
    let overrides = Overrides::default()
        .database(&args.database)
        .relay(&args.relay)
        .listen(&args.listen);
    live(
        &overrides.load()?,
        Roles {
            web: true,
            worker: false,
        },
    )
    .await
}

/// Runs a worker.
///
/// # Errors
/// See [`Exit`].
pub async fn worker(args: Worker) -> Outcome {
    let overrides = Overrides::default().database(&args.database).relay(&args.relay);
    live(
        &overrides.load()?,
        Roles {
            web: false,
            worker: true,
        },
    )
    .await
}

/// From the start to the orderly end.
async fn live(config: &Config, roles: Roles) -> Outcome {
    telemetry::init(&config.log).map_err(|e| Failed::usage(e.to_string()))?;
    let stop = signals::listen(Some("Stopping: what is on the wire is finished first. Once more to stop at once."))?;
    let started = tokio::select! {
        app = App::start(config, roles) => app,
        () = stop.cancelled() => return Ok(Exit::Done),
    };
    let mut app = started?;
    tell_where(config, &app).await?;
    let broken = tokio::select! {
        () = stop.cancelled() => None,
        error = app.stopped() => Some(error),
    };
    let ended = app.shut_down().await;
    match broken {
        Some(error) => Err(error.into()),
        None => {
            ended?;
            Ok(Exit::Done)
        }
    }
}

/// The relays as they are stored, which the configured one is too, a line each; or what is there without any.
async fn where_mail_goes(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let outlet = Outlet::read(store).await?;
    let all = match &outlet {
        Outlet::Captured => {
            return Ok(vec!["built-in capture relay: nothing leaves this machine until a relay is added".to_owned()]);
        }
        Outlet::Waits => {
            return Ok(vec!["none: the last one was removed, and mail waits until one is added".to_owned()]);
        }
        Outlet::Relays(all) => all,
    };
    let mut lines: Vec<String> = all.iter().take(RELAYS_SHOWN_MAX).map(in_a_line).collect();
    if all.len() > RELAYS_SHOWN_MAX {
        lines.push(format!("and {} more; `hikyaku relay list` shows them", all.len() - RELAYS_SHOWN_MAX));
    }
    if outlet.open().is_empty() {
        lines.push("nothing goes out before a relay is resumed".to_owned());
    }
    Ok(lines)
}

fn in_a_line(relay: &Relay) -> String {
    let url = masked(&relay.spec.url);
    match &relay.paused {
        None => format!("{}: {url}", relay.name),
        Some(why) => format!("{}: {url}, paused: {why}", relay.name),
    }
}

/// Says where it listens, where the data is, where mail goes, and how the first user is made.
async fn tell_where(config: &Config, app: &App) -> Result<(), Failed> {
    let line = |name: &str, value: &str| say(format_args!("  {name:<10} {value}"));
    say(format_args!("{} {}", mark("Hikyaku", Colour::Bold), env!("CARGO_PKG_VERSION")));
    if let Some(addr) = app.web_addr() {
        line("listening", &format!("http://{addr}"));
        if config.web.public_url.is_some() {
            line("public", app.public_url());
        }
    }
    line("database", &config.database.url.to_string());
    for relay in where_mail_goes(&*app.store()).await.map_err(anyhow::Error::from)? {
        line("relay", &relay);
    }
    if app.web_addr().is_some()
        && let Some(link) = web::session::setup_link(app.state()).await?
    {
        line("first user", &format!("{link} (works once)"));
    }
    say("Ready; Ctrl-C ends it.");
    Ok(())
}
