//! The options that set keys of the configuration, shared by the commands that run here rather than ask a server. Only maps
//! options to keys: the configuration judges them.

use clap::Args;

use super::exit::Failed;
use crate::config::Config;
use crate::store::DatabaseUrl;

/// Which database: for every command that works on it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub struct DatabaseArgs {
    /// Where the program keeps its own files [env: HIKYAKU_DATA_DIR] [default: ~/.local/share/hikyaku]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,

    /// sqlite:///path/to/file.db or postgres://user:password@host/name [env: HIKYAKU_DATABASE_URL] [default: hikyaku.db in the
    /// data directory]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

/// Where mail goes: for commands that send or check.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub struct RelayArgs {
    /// smtp://user:password@host:port?tls=none|starttls|implicit&connections=N&rate=N [env: HIKYAKU_RELAY_URL] [default: the
    /// stored relays; as long as there never was one, the built-in capture relay, from which nothing leaves the machine]
    ///
    /// Other users of the machine can read a password on a command line; the environment or config.toml keep it.
    #[arg(long, value_name = "URL")]
    pub relay_url: Option<String>,

    /// The start of unsubscribe links [env: HIKYAKU_PUBLIC_URL] [default: http:// and the address listened on]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
}

/// What the API and the pages listen on.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub struct ListenArgs {
    /// Address and port of the API and the pages; port 0 takes any free one [env: HIKYAKU_LISTEN] [default: 127.0.0.1:8025]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
}

/// Keys and words for the uppermost layer of the configuration.
#[derive(Debug, Default)]
pub struct Overrides(Vec<(&'static str, String)>);

impl Overrides {
    /// Sets a key, if there is a word for it.
    #[must_use]
    pub fn with(mut self, key: &'static str, word: Option<&String>) -> Self {
        self.0.extend(word.map(|word| (key, word.clone())));
        self
    }

    #[must_use]
    pub fn database(self, args: &DatabaseArgs) -> Self {
        self.with("data_dir", args.data_dir.as_ref())
            .with("database.url", args.database_url.as_ref())
    }

    #[must_use]
    pub fn relay(self, args: &RelayArgs) -> Self {
        self.with("relay.url", args.relay_url.as_ref())
            .with("web.public_url", args.public_url.as_ref())
    }

    #[must_use]
    pub fn listen(self, args: &ListenArgs) -> Self {
        self.with("web.listen", args.listen.as_ref())
    }

    /// The configuration of this process, with these words on top.
    ///
    /// # Errors
    /// All problems of all layers.
    pub fn load(&self) -> Result<Config, Failed> {
        Ok(Config::load(&self.as_words())?)
    }

    #[must_use]
    pub fn as_words(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(key, word)| (*key, word.as_str())).collect()
    }
}

/// The database of the configuration, parsed.
///
/// # Errors
/// When its URL has another form.
pub fn database_url(config: &Config) -> Result<DatabaseUrl, Failed> {
    DatabaseUrl::parse(config.database.url.expose()).map_err(Failed::usage)
}
