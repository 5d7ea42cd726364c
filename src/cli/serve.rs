//! `hikyaku serve`, `web` and `worker`: one process with both parts, or one of them. Starts the application, says where it is to
//! be found, and ends it in good order when it is asked to.

use clap::Args;

use super::exit::{Exit, Failed, Outcome};
use super::settings::{DatabaseArgs, ListenArgs, Overrides, RelayArgs};
use super::signals;
use super::terminal::{Colour, mark, say};
use crate::app::{App, Roles};
use crate::config::Config;
use crate::{telemetry, web};

/// Runs the API, the pages and a worker in one process.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku serve
  HIKYAKU_RELAY_URL='smtp://user:password@mail.example.org:587?rate=50' \\
      hikyaku serve --listen 0.0.0.0:8025

Nothing needs to be configured: it listens on loopback, keeps its data in one
directory, prints a link to make the first user, and sends nothing to the
outside until a relay is named. Until then a built-in capture relay keeps what
would have gone out, to be looked at in the pages.

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
    match &config.relay.url {
        Some(url) => line("relay", &url.to_string()),
        None => line("relay", "built-in capture relay: nothing leaves this machine"),
    };
    if app.web_addr().is_some()
        && let Some(link) = web::session::setup_link(app.state()).await?
    {
        line("first user", &format!("{link} (works once)"));
    }
    say("Ready; Ctrl-C ends it.");
    Ok(())
}
