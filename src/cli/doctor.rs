//! `hikyaku doctor`: is everything there that this process would need, and if not, what to do. Looks at the configuration, the
//! data directory, the database, the clocks, the DKIM records and the relays, as `serve` would use them; changes nothing and sends nothing.

mod relays;

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use url::Url;

use self::relays::Ways;
use super::exit::{Exit, Outcome};
use super::settings::{DatabaseArgs, Overrides, RelayArgs, database_url};
use super::terminal::{Colour, mark, say};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::dns::Dns;
use crate::domain::dkim::DkimKey;
use crate::pipeline::dkim::{self, Unpublished};
use crate::pipeline::lease::margin;
use crate::pipeline::outlet::Outlet;
use crate::store::schema::{self, Inspection};
use crate::store::{self, DatabaseUrl, Store, StoreError};

/// How long a server may take to say that it is ready.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Free space below which the next large broadcast may not fit: about a million recipients with their outcomes.
const FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// A clock that is off by more is worth a word; leases are told apart by seconds.
const CLOCK_OFF_WARN_MS: i64 = 1_000;
/// Keys whose records are looked up: more would take minutes where the DNS is silent.
const KEYS_LOOKED_UP_MAX: usize = 10;
/// A durable write that takes longer makes the database the brake of everything.
const SLOW_WRITE: Duration = Duration::from_millis(50);

/// Checks configuration, database and relay, and says what to do.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hikyaku doctor
  hikyaku doctor --relay-url 'smtp://user:password@mail.example.org:587'
  hikyaku doctor --ready --health http://127.0.0.1:8025

Each line is ok, warn or fail, with the fix. The relays that are configured or
stored are connected to, encrypted and logged into, and sent nothing. The records of DKIM keys are looked
up in the DNS.

Exit codes:
  0    nothing failed; warnings count as good
  1    something failed")]
pub struct Doctor {
    /// Only what this process cannot work without: configuration and database. For health checks, which restart what fails, and a
    /// relay is not mended by a restart
    #[arg(long)]
    ready: bool,

    /// Also ask this server whether it is ready
    #[arg(long, value_name = "URL")]
    health: Option<Url>,

    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    relay: RelayArgs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Ok,
    Warn,
    Fail,
}

/// What one look found.
struct Finding {
    word: Word,
    what: &'static str,
    text: String,
}

impl Finding {
    fn ok(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            word: Word::Ok,
            what,
            text: text.into(),
        }
    }

    fn warn(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            word: Word::Warn,
            what,
            text: text.into(),
        }
    }

    fn fail(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            word: Word::Fail,
            what,
            text: text.into(),
        }
    }

    fn tell(&self) {
        let word = match self.word {
            Word::Ok => mark("ok  ", Colour::Green),
            Word::Warn => mark("warn", Colour::Yellow),
            Word::Fail => mark("fail", Colour::Red),
        };
        say(format_args!("{word}  {:<14} {}", self.what, self.text));
    }
}

/// Runs the command.
///
/// # Errors
/// None: what is wrong is in the findings.
pub async fn run(args: Doctor) -> Outcome {
    let overrides = Overrides::default().database(&args.database).relay(&args.relay);
    let mut all_well = true;
    let mut tell = |finding: Finding| {
        all_well &= finding.word != Word::Fail;
        finding.tell();
    };
    match Config::load(&overrides.as_words()) {
        Ok(config) => {
            tell(Finding::ok("configuration", format!("data directory {}", config.data_dir.display())));
            look(&config, args.ready, &mut tell).await;
        }
        Err(e) => e
            .problems
            .iter()
            .for_each(|problem| tell(Finding::fail("configuration", problem.to_string()))),
    }
    if let Some(url) = &args.health {
        tell(health(url).await);
    }
    Ok(if all_well { Exit::Done } else { Exit::Failed })
}

async fn look(config: &Config, only_ready: bool, tell: &mut impl FnMut(Finding)) {
    if !only_ready {
        tell(data_dir(&config.data_dir));
    }
    let mut ways = Ways::Unknown;
    match database_url(config) {
        Err(e) => tell(Finding::fail("database", e.to_string())),
        Ok(url) => match schema::inspect(&url).await {
            Err(e) => tell(Finding::fail(
                "database",
                format!("{}: {e}; start it, or correct HIKYAKU_DATABASE_URL", config.database.url),
            )),
            Ok(found) => {
                tell(schema_finding(config, &url, found.as_ref(), only_ready));
                if !only_ready {
                    ways = look_into(config, &url, found.as_ref(), tell).await;
                }
                if let Some(finding) = found.and_then(|found| clock(config, &found)) {
                    tell(finding);
                }
            }
        },
    }
    if !only_ready {
        relays::findings(config, &ways).await.into_iter().for_each(&mut *tell);
        tell(public_url(config, &ways));
    }
}

/// Looks at what is stored, and says where mail goes.
async fn look_into(
    config: &Config,
    url: &DatabaseUrl,
    found: Option<&Inspection>,
    tell: &mut impl FnMut(Finding),
) -> Ways {
    match found {
        // What is not there yet will begin without any relay.
        None => return Ways::Known(Outlet::Captured),
        Some(found) if !found.is_current() => return Ways::Unknown,
        Some(_) => {}
    }
    let read = async {
        let store = store::open(url).await?;
        let outlet = Outlet::read(&*store).await?;
        Ok::<_, StoreError>((store, outlet))
    };
    match read.await {
        Ok((store, outlet)) => {
            let ways = Ways::Known(outlet);
            signatures(config, &*store, &ways).await.into_iter().for_each(tell);
            ways
        }
        Err(e) => {
            tell(Finding::fail("database", format!("what is stored cannot be read: {e}")));
            Ways::Unknown
        }
    }
}

fn data_dir(dir: &Path) -> Finding {
    const WHAT: &str = "data directory";
    if !dir.exists() {
        return Finding::ok(WHAT, format!("{} will be made at the first start", dir.display()));
    }
    let written = match durable_write(dir) {
        Ok(took) => took,
        Err(e) => {
            return Finding::fail(
                WHAT,
                format!("{} cannot be written ({e}); correct its owner or rights", dir.display()),
            );
        }
    };
    let free = rustix::fs::statvfs(dir).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let gib = free as f64 / (1024.0 * 1024.0 * 1024.0);
    match (free < FREE_BYTES_MIN, written > SLOW_WRITE) {
        (true, _) => Finding::warn(WHAT, format!("only {gib:.1} GiB are free; a million recipients need about 1 GiB")),
        (_, true) => Finding::warn(
            WHAT,
            format!(
                "a durable write takes {} ms here, which slows SQLite down; choose a faster disk",
                written.as_millis()
            ),
        ),
        _ => Finding::ok(
            WHAT,
            format!("writable, {gib:.1} GiB free, a durable write takes {:.1} ms", written.as_secs_f64() * 1e3),
        ),
    }
}

/// Writes a small file through to the disk, as each commit does, and removes it.
fn durable_write(dir: &Path) -> std::io::Result<Duration> {
    let path = dir.join(format!(".doctor-{:016x}", fastrand::u64(..)));
    let started = Instant::now();
    let written = std::fs::File::create_new(&path).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    let took = started.elapsed();
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    written.map(|()| took)
}

fn schema_finding(config: &Config, url: &DatabaseUrl, found: Option<&Inspection>, only_ready: bool) -> Finding {
    const WHAT: &str = "database";
    let shown = &config.database.url;
    let Some(found) = found else {
        let text = format!("{shown} will be made at the first start");
        return if only_ready {
            Finding::fail(WHAT, format!("{text}, which has not been yet"))
        } else {
            Finding::ok(WHAT, text)
        };
    };
    if found.is_too_new() {
        return Finding::fail(WHAT, format!("{shown} needs a newer program; update this one"));
    }
    if !found.unknown.is_empty() {
        return Finding::warn(
            WHAT,
            format!("{shown} was brought up to date by a newer program, which this one can live with; update it soon"),
        );
    }
    if found.missing.is_empty() {
        let alone = match url {
            DatabaseUrl::Sqlite(_) => "; one machine, one worker process",
            DatabaseUrl::Postgres(_) => "",
        };
        return Finding::ok(WHAT, format!("{shown}: {}, schema up to date{alone}", found.engine));
    }
    let text = format!(
        "{shown}: {}, {} migrations to be applied; the next start does it, or `hikyaku migrate` now",
        found.engine,
        found.missing.len()
    );
    if only_ready {
        Finding::fail(WHAT, text)
    } else {
        Finding::warn(WHAT, text)
    }
}

/// Leases are compared across machines by their own clocks, so a clock that is far off takes other workers' jobs.
fn clock(config: &Config, found: &Inspection) -> Option<Finding> {
    let off_ms = SystemClock.now() - found.server_now?;
    let (lease, margin) = (config.worker.lease, margin(config.worker.lease));
    let margin_ms = i64::try_from(margin.as_millis()).unwrap_or(i64::MAX);
    let text = format!("this machine's clock and the database's differ by {off_ms} ms");
    Some(match off_ms.abs() {
        off if off > margin_ms => {
            Finding::fail("clock", format!("{text}, too much for leases of {} s; set both by NTP", lease.as_secs()))
        }
        off if off > CLOCK_OFF_WARN_MS => Finding::warn("clock", format!("{text}; set both by NTP")),
        _ => Finding::ok("clock", text),
    })
}

/// Whether mail is signed, and whether receivers can check it.
async fn signatures(config: &Config, store: &dyn Store, ways: &Ways) -> Vec<Finding> {
    const WHAT: &str = "signatures";
    let keys = match store.dkim_keys().await {
        Ok(keys) => keys,
        Err(e) => return vec![Finding::fail(WHAT, format!("the keys cannot be read: {e}"))],
    };
    if keys.iter().all(|key| key.enabled_at.is_none()) && ways.is_captured(config) {
        return vec![Finding::ok(
            WHAT,
            "none, which is fine as long as nothing leaves this machine",
        )];
    }
    if keys.is_empty() {
        let text =
            "mail is not signed, and large providers refuse bulk mail without; `hikyaku dkim create --domain DOMAIN`";
        return vec![Finding::warn(WHAT, text)];
    }
    let dns = Dns::of(config.dns.server);
    let mut findings = Vec::new();
    for key in keys.iter().take(KEYS_LOOKED_UP_MAX) {
        findings.push(signature(key, dkim::check(&dns, key).await));
    }
    if keys.len() > KEYS_LOOKED_UP_MAX {
        let text =
            format!("only the first {KEYS_LOOKED_UP_MAX} of {} keys; `hikyaku dkim check` looks at all", keys.len());
        findings.push(Finding::ok(WHAT, text));
    }
    findings
}

fn signature(key: &DkimKey, found: Result<(), Unpublished>) -> Finding {
    const WHAT: &str = "signatures";
    let name = key.record_name();
    match (found, key.enabled_at.is_some()) {
        (Ok(()), true) => Finding::ok(WHAT, format!("{name} signs new broadcasts, and its record is published")),
        (Ok(()), false) => Finding::ok(
            WHAT,
            format!("the record of {name} is published, and the key signs nothing; `hikyaku dkim enable {}`", key.id),
        ),
        (Err(why @ Unpublished::Unknown(_)), _) => Finding::warn(WHAT, format!("{name}: {why}")),
        (Err(why), true) => Finding::fail(
            WHAT,
            format!("{name} signs new broadcasts, but {why}. `hikyaku dkim disable {}` signs no more", key.id),
        ),
        (Err(why), false) => Finding::warn(WHAT, format!("{name} signs nothing yet: {why}")),
    }
}

/// Unsubscribe links must work for recipients, not only here.
fn public_url(config: &Config, ways: &Ways) -> Finding {
    const WHAT: &str = "public address";
    let is_captured = ways.is_captured(config);
    match &config.web.public_url {
        None if is_captured => Finding::ok(WHAT, "not set, which is fine as long as nothing leaves this machine"),
        None => Finding::warn(
            WHAT,
            "not set: recipients cannot open unsubscribe links to this machine's own address; set HIKYAKU_PUBLIC_URL",
        ),
        Some(url) if url.starts_with("http://") && !is_captured => Finding::warn(
            WHAT,
            format!("{url} is without TLS; mail programs insist on https for one-click unsubscribing (RFC 8058)"),
        ),
        Some(url) => Finding::ok(WHAT, url.clone()),
    }
}

async fn health(url: &Url) -> Finding {
    const WHAT: &str = "server";
    let asked = async {
        let address = url.join("readyz").map_err(|e| e.to_string())?;
        let client = reqwest::Client::builder().timeout(HEALTH_TIMEOUT).no_proxy();
        let client = if url.scheme() == "https" {
            client
        } else {
            client.tls_certs_only([])
        };
        let client = client.build().map_err(|e| e.to_string())?;
        let answer = client
            .get(address)
            .send()
            .await
            .map_err(|e| super::client::in_words(&e))?;
        Ok::<_, String>(answer.status())
    };
    match asked.await {
        Ok(status) if status.is_success() => Finding::ok(WHAT, format!("{url} is ready")),
        Ok(status) => Finding::fail(WHAT, format!("{url} answers {status}: it cannot work now; its log says why")),
        Err(why) => Finding::fail(WHAT, format!("{url} cannot be reached ({why}); start it with `hikyaku serve`")),
    }
}
