//! The configuration: defaults, then a file, then the environment, then the command line, read once at start and judged as a whole.
//! Holds meanings, not wishes: every value here has been checked and has its unit in its type. Never connects to anything, and
//! never prints a secret.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod judge;
mod layers;
mod secret;
#[cfg(test)]
mod tests;

use crate::domain::safety::Limits;
use judge::Judge;
use layers::Layers;
pub use layers::{ENVIRONMENT, SAMPLE};
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
    pub dns: Dns,
    pub worker: Worker,
    pub retry: Retry,
    /// When a broadcast that goes wrong pauses by itself.
    pub safety: Limits,
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

/// Who is asked about names, and what for.
#[derive(Debug, Clone)]
pub struct Dns {
    /// `None` means the resolver of this machine.
    pub server: Option<SocketAddr>,
    /// Whether lanes are found by mail exchangers too.
    pub mx_lanes: bool,
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
