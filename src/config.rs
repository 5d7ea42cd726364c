//! The configuration: defaults, then a file, then the environment, then the command line, read once at start and judged as a whole.
//! Holds meanings, not wishes: every value here has been checked and has its unit in its type. Never connects to anything, and
//! never prints a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod layers;
mod secret;
#[cfg(test)]
mod tests;

pub use layers::{ENVIRONMENT, SAMPLE};
use layers::{Layers, RawConfig};
pub use secret::{Secret, SecretUrl};

/// The environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "HIKYAKU_CONFIG";

/// The shortest API key that is taken from the configuration: 16 characters of a random key are beyond guessing over a network.
pub const API_KEY_LEN_MIN: usize = 16;

/// How the program was told to behave. Keys, units and reasons are documented in `config.default.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the program keeps its own files. It may not exist yet.
    pub data_dir: PathBuf,
    pub web: Web,
    pub database: Database,
    pub relay: Relay,
    pub worker: Worker,
    pub retry: Retry,
    pub retention: Retention,
    pub log: Log,
}

/// What the API and the pages listen on and accept.
#[derive(Debug, Clone)]
pub struct Web {
    /// Port 0 takes any free one.
    pub listen: SocketAddr,
    /// As configured, without a slash at the end; `None` means the address listened on (see [`Web::public_url`]).
    pub public_url: Option<String>,
    /// The bootstrap key with all scopes.
    pub api_key: Option<Secret>,
    /// Most bytes of a JSON body.
    pub json_bytes_max: usize,
    /// Most bytes of an NDJSON or CSV body, after unpacking.
    pub stream_bytes_max: u64,
}

impl Web {
    /// The start of every link that leaves the house, without a slash at the end. `bound` is the address really listened on,
    /// which differs from `listen` when that asked for any free port.
    #[must_use]
    pub fn public_url(&self, bound: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => url.clone(),
            // Nobody can open 0.0.0.0 or [::]; the same machine can open localhost.
            None if bound.ip().is_unspecified() => format!("http://localhost:{}", bound.port()),
            None => format!("http://{bound}"),
        }
    }
}

/// Which database holds the durable state.
#[derive(Debug, Clone)]
pub struct Database {
    /// `sqlite://…` or `postgres://…`.
    pub url: SecretUrl,
    /// Most connections of this process.
    pub connections: u32,
}

/// Where the mail goes.
#[derive(Debug, Clone)]
pub struct Relay {
    /// `None` means the built-in capture relay.
    pub url: Option<SecretUrl>,
}

/// How a worker shares the work with others.
#[derive(Debug, Clone)]
pub struct Worker {
    pub concurrent_jobs: usize,
    pub lease: Duration,
    pub heartbeat: Duration,
    pub poll: Duration,
    /// How long a stopping worker may take to finish what is on the wire.
    pub drain: Duration,
}

/// When a deferred message is tried again, and for how long.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Before the 2nd, 3rd … attempt; never empty. The last one repeats.
    pub delays: Vec<Duration>,
    /// 0 to 100.
    pub jitter_percent: u8,
    pub max_age: Duration,
}

/// How long what is finished is kept. `None` means for ever.
#[derive(Debug, Clone)]
pub struct Retention {
    pub messages: Option<Duration>,
    pub events: Option<Duration>,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Log {
    /// In the language of tracing's filters, such as `info,hikyaku::smtp=debug`. Not judged here.
    pub filter: String,
    pub format: LogFormat,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

impl Config {
    /// Reads the configuration of this process: the sample, the file, the environment, then `args` (key and word, such as
    /// `("web.listen", "0.0.0.0:80")`, as given on the command line).
    ///
    /// # Errors
    /// All problems of all layers at once, each with its key, where it was set and what to write instead.
    pub fn load(args: &[(&str, &str)]) -> Result<Self, ConfigError> {
        Self::from_layers(&|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()), args)
    }

    /// As [`Config::load`], with the environment given: `env` answers the value of a variable, if it is set.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_layers(env: &dyn Fn(&str) -> Option<String>, args: &[(&str, &str)]) -> Result<Self, ConfigError> {
        // An empty variable is what `${NAME:-}` in a compose file makes of one that is not set.
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let home = default_data_dir(&env);
        let mut layers = Layers::from_sample();
        match find_file(&env, args, home.as_deref()) {
            Ok(Some((path, text))) => layers.add_file(&path, &text),
            Ok(None) => {}
            Err(problem) => layers.problems.push(problem),
        }
        for (variable, key) in ENVIRONMENT {
            if let Some(word) = env(variable) {
                layers.add_word(key, &word, variable);
            }
        }
        for (key, word) in args {
            layers.add_word(key, word, "the command line");
        }
        let mut judge = Judge {
            problems: std::mem::take(&mut layers.problems),
            origins: std::mem::take(&mut layers.origins),
        };
        let config = judge.config(layers.into_raw(), home);
        match judge.problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigError {
                problems: judge.problems,
            }),
        }
    }
}

/// Everything that is wrong with a configuration. Prints one line for each.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration cannot be used:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// One thing that is wrong: which key, set where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A key such as `web.listen`, or what else is at fault.
    pub key: String,
    /// The file, the variable or the command line.
    pub origin: String,
    pub fix: String,
}

impl Problem {
    fn new(key: impl Into<String>, origin: &str, fix: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            origin: origin.to_owned(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {}): {}", self.key, self.origin, self.fix)
    }
}

/// `$XDG_DATA_HOME/hikyaku`, else `~/.local/share/hikyaku`: one place whatever the working directory is, which survives a reboot
/// and needs no rights. The base directory specification says that a relative path in the variable does not count.
fn default_data_dir(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/share")))
        .map(|base| base.join("hikyaku"))
}

/// The configuration file and its text. A file that was asked for by name must be there; the one in the data directory may be.
fn find_file(
    env: &dyn Fn(&str) -> Option<String>,
    args: &[(&str, &str)],
    home: Option<&Path>,
) -> Result<Option<(PathBuf, String)>, Problem> {
    let named = env(FILE_VARIABLE).map(PathBuf::from);
    let must_exist = named.is_some();
    let told = args
        .iter()
        .rev()
        .find(|(key, _)| *key == "data_dir")
        .map(|(_, dir)| PathBuf::from(dir));
    let data_dir = || {
        told.or_else(|| env("HIKYAKU_DATA_DIR").map(PathBuf::from))
            .or_else(|| home.map(Path::to_owned))
    };
    let Some(path) = named.or_else(|| Some(data_dir()?.join("config.toml"))) else {
        return Ok(None);
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(e) => {
            let origin = if must_exist {
                FILE_VARIABLE
            } else {
                "the data directory"
            };
            Err(Problem::new(
                path.display().to_string(),
                origin,
                format!("cannot be read ({e}); correct the path or its rights"),
            ))
        }
    }
}

/// Turns what was typed into what is meant and collects every problem on the way. A value at fault is replaced by a harmless one
/// so that the others are still looked at; with a problem on the list, nobody gets to see the result.
struct Judge {
    problems: Vec<Problem>,
    origins: BTreeMap<String, String>,
}

impl Judge {
    fn config(&mut self, raw: RawConfig, home: Option<PathBuf>) -> Config {
        let data_dir = self.data_dir(&raw.data_dir, home);
        Config {
            web: self.web(raw.web),
            database: self.database(raw.database, &data_dir),
            relay: Relay {
                url: Some(raw.relay.url).filter(|url| !url.is_empty()).map(SecretUrl::new),
            },
            worker: self.worker(&raw.worker),
            retry: self.retry(&raw.retry),
            retention: Retention {
                messages: self.days("retention.messages_days", raw.retention.messages_days),
                events: self.days("retention.events_days", raw.retention.events_days),
            },
            log: self.log(raw.log),
            data_dir,
        }
    }

    fn data_dir(&mut self, typed: &str, home: Option<PathBuf>) -> PathBuf {
        match (typed, home) {
            ("", Some(home)) => home,
            ("", None) => {
                let fix =
                    "neither HOME nor XDG_DATA_HOME says where data may be kept; set HIKYAKU_DATA_DIR to a directory";
                self.refuse("data_dir", fix);
                PathBuf::new()
            }
            // Absolute from here on, so that what is printed can be found, whatever directory it is read in.
            (typed, _) => std::path::absolute(typed).unwrap_or_else(|_| PathBuf::from(typed)),
        }
    }

    fn web(&mut self, raw: layers::RawWeb) -> Web {
        let listen = raw.listen.parse().unwrap_or_else(|_| {
            let fix = format!("'{}' is not an address and a port, such as 127.0.0.1:8025 or [::1]:8025", raw.listen);
            self.refuse("web.listen", fix);
            SocketAddr::from(([127, 0, 0, 1], 0))
        });
        let api_key = Some(raw.api_key).filter(|key| !key.is_empty());
        if api_key
            .as_ref()
            .is_some_and(|key| key.chars().count() < API_KEY_LEN_MIN || !key.bytes().all(is_key_byte))
        {
            let fix = format!(
                "must have {API_KEY_LEN_MIN} or more characters, all of them visible ASCII; `openssl rand -hex 32` makes one"
            );
            self.refuse("web.api_key", fix);
        }
        Web {
            listen,
            public_url: self.public_url(&raw.public_url),
            api_key: api_key.map(Secret::new),
            json_bytes_max: mib(self.within("web.json_mib_max", raw.json_mib_max, 1..=1024)) as usize,
            stream_bytes_max: mib(self.within("web.stream_mib_max", raw.stream_mib_max, 1..=1024 * 1024)),
        }
    }

    fn public_url(&mut self, typed: &str) -> Option<String> {
        let fits = |url: &url::Url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
        };
        match typed {
            "" => None,
            _ if url::Url::parse(typed).is_ok_and(|url| fits(&url)) => Some(typed.trim_end_matches('/').to_owned()),
            _ => {
                let fix = format!("'{typed}' is not the start of a web address, such as https://mail.example.org");
                self.refuse("web.public_url", fix);
                None
            }
        }
    }

    fn database(&mut self, raw: layers::RawDatabase, data_dir: &Path) -> Database {
        let url = match raw.url.split_once(':') {
            None if raw.url.is_empty() => self.sqlite_url(&data_dir.join("hikyaku.db")),
            // An in-memory database is another one for each connection and for each process: nothing would be durable.
            Some(("sqlite", rest)) if rest.contains(":memory:") || rest.contains("mode=memory") => {
                self.refuse(
                    "database.url",
                    "must name a file: mail that only memory knows of is lost with the process",
                );
                raw.url
            }
            Some(("sqlite" | "postgres" | "postgresql", rest)) if !rest.trim_start_matches('/').is_empty() => raw.url,
            // The value is not repeated: it may hold a password.
            _ => {
                self.refuse(
                    "database.url",
                    "must be sqlite:///path/to/file.db or postgres://user:password@host:5432/name",
                );
                raw.url
            }
        };
        Database {
            url: SecretUrl::new(url),
            connections: self.within("database.connections", raw.connections, 1..=1_000) as u32,
        }
    }

    /// The URL of a database file. Its three special characters are escaped, as a path may hold them.
    fn sqlite_url(&mut self, file: &Path) -> String {
        let Some(path) = file.to_str() else {
            self.refuse("data_dir", "must be a path in UTF-8; or set HIKYAKU_DATABASE_URL");
            return String::new();
        };
        format!("sqlite://{}", path.replace('%', "%25").replace('?', "%3F").replace('#', "%23"))
    }

    fn worker(&mut self, raw: &layers::RawWorker) -> Worker {
        let lease = self.within("worker.lease_secs", raw.lease_secs, 3..=3_600);
        if raw.heartbeat_secs.saturating_mul(3) > lease {
            let fix = format!(
                "must be at most a third of worker.lease_secs ({lease}), so that one lost sign of life costs nothing"
            );
            self.refuse("worker.heartbeat_secs", fix);
        }
        Worker {
            concurrent_jobs: self.within("worker.concurrent_jobs", raw.concurrent_jobs, 1..=64) as usize,
            lease: Duration::from_secs(lease),
            heartbeat: Duration::from_secs(self.within("worker.heartbeat_secs", raw.heartbeat_secs, 1..=1_200)),
            poll: Duration::from_secs(self.within("worker.poll_secs", raw.poll_secs, 1..=3_600)),
            drain: Duration::from_secs(self.within("worker.drain_secs", raw.drain_secs, 0..=3_600)),
        }
    }

    fn retry(&mut self, raw: &layers::RawRetry) -> Retry {
        if raw.delays_secs.is_empty() || raw.delays_secs.iter().any(|secs| !(1..=7 * 86_400).contains(secs)) {
            self.refuse(
                "retry.delays_secs",
                "must hold at least one delay, each between 1 and 604800 seconds (a week)",
            );
        }
        Retry {
            delays: raw.delays_secs.iter().copied().map(Duration::from_secs).collect(),
            jitter_percent: self.within("retry.jitter_percent", raw.jitter_percent, 0..=100) as u8,
            max_age: Duration::from_secs(3_600 * self.within("retry.max_age_hours", raw.max_age_hours, 1..=720)),
        }
    }

    fn log(&mut self, raw: layers::RawLog) -> Log {
        let format = match raw.format.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                self.refuse("log.format", format!("must be \"text\" or \"json\", not '{other}'"));
                LogFormat::Text
            }
        };
        Log {
            filter: raw.filter,
            format,
        }
    }

    fn days(&mut self, key: &str, days: u64) -> Option<Duration> {
        let days = self.within(key, days, 0..=36_500);
        (days > 0).then(|| Duration::from_secs(days * 86_400))
    }

    /// The value, which must lie within the range; else its nearest end.
    fn within(&mut self, key: &str, value: u64, range: RangeInclusive<u64>) -> u64 {
        if !range.contains(&value) {
            self.refuse(key, format!("must be between {} and {}, not {value}", range.start(), range.end()));
        }
        value.clamp(*range.start(), *range.end())
    }

    fn refuse(&mut self, key: &str, fix: impl Into<String>) {
        let origin = self.origins.get(key).map_or("the defaults", String::as_str);
        self.problems.push(Problem::new(key, origin, fix));
    }
}

fn mib(n: u64) -> u64 {
    n * 1024 * 1024
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_graphic()
}
