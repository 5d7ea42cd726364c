//! The composition root: from a configuration to a running process with the parts it was asked for. Never does
//! any of the work itself.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, FollowingClock};
use crate::config::Config;
use crate::dns::Dns;
use crate::domain::relay::{RelaySpec, check_name};
use crate::domain::retry::RetryPolicy;
use crate::domain::token::{SECRET_BYTES, SecretKey};
use crate::pipeline::compose::Desk;
use crate::pipeline::deliver::Gauges;
use crate::pipeline::deliver::lanes::Lanes;
use crate::pipeline::timekeeper;
use crate::pipeline::worker::{self, Deps, RelaySource, Settings};
use crate::sink::{Sink, SinkHandle, SinkOptions};
use crate::smtp::RelayConfig;
use crate::store::workers::NewWorker;
use crate::store::{DatabaseUrl, Store, lock};
use crate::web::{self, Limits, WebState};

/// The setting that holds the installation's signing secret.
const SECRET_SETTING: &str = "signing_secret";
/// How relays and pages call the relay that sends nothing anywhere.
const CAPTURE_NAME: &str = "capture";
/// How the relay of the configuration is called when its URL has no `name=`.
const DEFAULT_NAME: &str = "default";

/// Connections to the capture relay. It is as near as can be, so that commits are what messages wait for: more
/// connections make larger groups.
const CAPTURE_CONNECTIONS: u16 = 32;

/// Which parts a process runs.
#[derive(Debug, Clone, Copy)]
pub struct Roles {
    pub web: bool,
    pub worker: bool,
}

/// A running process.
pub struct App {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    web_addr: Option<SocketAddr>,
    state: WebState,
    relay_name: String,
    capture: Option<Arc<SinkHandle>>,
    worker: Option<JoinHandle<anyhow::Result<()>>>,
    server: Option<JoinHandle<anyhow::Result<()>>>,
    stop: CancellationToken,
    /// Only one process may run workers on one SQLite file.
    _lock: Option<std::fs::File>,
}

impl App {
    /// Opens the database, brings its schema up to date, and starts what `roles` names.
    ///
    /// # Errors
    /// What could not be opened, bound or read, and what to do about it.
    pub async fn start(config: &Config, roles: Roles) -> anyhow::Result<Self> {
        prepare_data_dir(config)?;
        let url = DatabaseUrl::parse(config.database.url.expose()).map_err(anyhow::Error::msg)?;
        let lock = if roles.worker { lock::take(&url)? } else { None };
        let stores = crate::store::open_with(&url, config.database.connections)
            .await
            .context("opening the database")?;
        let store = stores.work;
        let stop = CancellationToken::new();
        let following = FollowingClock::default();
        let clock: Arc<dyn Clock> = Arc::new(following.clone());
        timekeeper::set(&*store, &following)
            .await
            .context("asking the database for the time")?;
        tokio::spawn(timekeeper::keep(Arc::downgrade(&store), following, stop.child_token()));
        let secret = shared_secret(&*store).await?;

        let listener = if roles.web {
            Some(bind(config.web.listen).await?)
        } else {
            None
        };
        let web_addr = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let public_url: Arc<str> = config.web.public_url(web_addr.unwrap_or(config.web.listen)).into();

        let capture = match (&config.relay.url, roles.worker) {
            (None, true) => Some(Arc::new(
                Sink::start(capture_options(&clock))
                    .await
                    .context("starting the capture relay")?,
            )),
            _ => None,
        };
        let relay_name = match (&config.relay.url, roles.worker) {
            (Some(url), true) => put_relay(url.expose(), &*store, &*clock).await?,
            (Some(url), false) => url.to_string(),
            (None, _) => CAPTURE_NAME.to_owned(),
        };
        let dns = Dns::of(config.dns.server);
        let lanes = Lanes::new(config.dns.mx_lanes.then(|| dns.clone()), Arc::clone(&clock));
        lanes.mute(capture.is_some());
        let worker = roles.worker.then(|| {
            let deps = Deps {
                store: Arc::clone(&store),
                clock: Arc::clone(&clock),
                relays: RelaySource {
                    capture: capture.as_deref().map(capture_relay),
                },
                gauges: Arc::new(Gauges::default()),
                lanes,
                desk: Desk::new(secret.clone(), Arc::clone(&public_url)),
                me: introduce(),
                settings: settings(config),
            };
            let stop = stop.child_token();
            tokio::spawn(async move { worker::run(deps, stop).await.context("the worker") })
        });
        let state = WebState {
            store: stores.requests,
            clock: Arc::clone(&clock),
            secret,
            public_url,
            bootstrap_key_hash: config
                .web
                .api_key
                .as_ref()
                .map(|key| web::auth::bootstrap_hash(key.expose()).into()),
            limits: Limits {
                json_bytes_max: config.web.json_bytes_max,
                stream_bytes_max: config.web.stream_bytes_max,
            },
            dns,
            capture: capture.clone(),
            configured_relay: (config.relay.url.is_some() && roles.worker).then(|| relay_name.as_str().into()),
        };
        let server = listener.map(|listener| {
            let (state, stop) = (state.clone(), stop.child_token());
            tokio::spawn(async move { web::serve(listener, state, stop).await.context("the web server") })
        });
        Ok(Self {
            store,
            clock,
            web_addr,
            state,
            relay_name,
            capture,
            worker,
            server,
            stop,
            _lock: lock,
        })
    }

    /// Where the web server listens.
    #[must_use]
    pub fn web_addr(&self) -> Option<SocketAddr> {
        self.web_addr
    }

    /// Where this installation is reached from outside.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.state.public_url
    }

    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// What the handlers share, for the one-time set-up link.
    #[must_use]
    pub fn state(&self) -> &WebState {
        &self.state
    }

    /// The relay's name; never its password.
    #[must_use]
    pub fn relay_name(&self) -> &str {
        &self.relay_name
    }

    /// The built-in capture relay, when no other is configured.
    #[must_use]
    pub fn capture(&self) -> Option<&Arc<SinkHandle>> {
        self.capture.as_ref()
    }

    /// Waits until a part ended by itself, which none should.
    pub async fn stopped(&mut self) -> anyhow::Error {
        let (worker, server) = (&mut self.worker, &mut self.server);
        let ended = async |part: &mut Option<JoinHandle<anyhow::Result<()>>>| match part {
            Some(part) => part.await,
            None => std::future::pending().await,
        };
        let result = tokio::select! {
            result = ended(worker) => { self.worker = None; result }
            result = ended(server) => { self.server = None; result }
        };
        match result {
            Ok(Ok(())) => anyhow::anyhow!("a part of the program ended by itself"),
            Ok(Err(error)) => error,
            Err(error) => anyhow::Error::new(error).context("a part of the program broke"),
        }
    }

    /// The orderly end: no new requests and claims, what is on the wire is finished and recorded, jobs are
    /// given back.
    ///
    /// # Errors
    /// What could not be brought to its end; the next start puts it right.
    pub async fn shut_down(self) -> anyhow::Result<()> {
        self.stop.cancel();
        for part in [self.server, self.worker].into_iter().flatten() {
            part.await.context("a part of the program broke")??;
        }
        Ok(())
    }
}

/// The data directory holds addresses and the signing secret: it is for its owner only.
fn prepare_data_dir(config: &Config) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let dir = &config.data_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("creating the data directory {}", dir.display()))
}

/// The secret that all processes on one database share; the first one makes it.
async fn shared_secret(store: &dyn Store) -> anyhow::Result<SecretKey> {
    let mut fresh = [0u8; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut fresh).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    let hex: String = fresh.iter().map(|b| format!("{b:02x}")).collect();
    let stored = store
        .setting_or_insert(SECRET_SETTING, &hex)
        .await
        .context("reading the signing secret")?;
    SecretKey::from_hex(&stored).context("the setting signing_secret is damaged: it must have 64 hex digits")
}

async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening on {listen}: choose another address with HIKYAKU_LISTEN"))
}

fn capture_options(clock: &Arc<dyn Clock>) -> SinkOptions {
    SinkOptions {
        clock: Arc::clone(clock),
        ..SinkOptions::default()
    }
}

/// Stores the configured relay among the others, under its own name or as `default`, unless it stands there already. Returns what
/// it is called; never its password.
async fn put_relay(url: &str, store: &dyn Store, clock: &dyn Clock) -> anyhow::Result<String> {
    let relay = RelayConfig::parse(url).map_err(|e| anyhow::anyhow!("HIKYAKU_RELAY_URL: {e}"))?;
    let is_named = relay.name != format!("{}:{}", relay.host, relay.port);
    let name = if is_named { relay.name } else { DEFAULT_NAME.to_owned() };
    check_name(&name).map_err(|e| anyhow::anyhow!("HIKYAKU_RELAY_URL: {e}"))?;
    let stored = store.relay(&name).await.context("reading the relay")?;
    if stored.as_ref().is_none_or(|r| r.spec.url != url) {
        let spec = stored.map_or_else(
            || RelaySpec::of(url),
            |r| RelaySpec {
                url: url.to_owned(),
                ..r.spec
            },
        );
        store
            .put_relay(&name, &spec, clock.now())
            .await
            .context("storing the relay")?;
    }
    Ok(name)
}

fn capture_relay(capture: &SinkHandle) -> RelayConfig {
    let mut relay = RelayConfig::clear(capture.addr().ip().to_string(), capture.addr().port());
    CAPTURE_NAME.clone_into(&mut relay.name);
    relay.connections = CAPTURE_CONNECTIONS;
    relay
}

fn introduce() -> NewWorker {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map_or_else(|| "unknown".to_owned(), |h| h.trim().to_owned());
    NewWorker {
        host,
        pid: i64::from(std::process::id()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        concurrent_jobs: config.worker.concurrent_jobs,
        lease: config.worker.lease,
        heartbeat: config.worker.heartbeat,
        poll: config.worker.poll,
        drain: config.worker.drain,
        retry: RetryPolicy {
            delays: config.retry.delays.clone(),
            jitter_percent: config.retry.jitter_percent,
            max_age: config.retry.max_age,
        },
        safety: config.safety,
        messages_kept: config.retention.messages,
    }
}
