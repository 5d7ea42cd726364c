//! Questions to the DNS: texts and mail exchangers, by the resolver of this machine or the one that is configured. The only place
//! that asks. Never takes long: whoever waits for an answer has something else to do.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

/// How long one question may take, with a second try and all servers. A resolver nearby answers in a tenth of a second; one that
/// has to ask around needs a second or two.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// After this a server is asked again, or the next one.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The DNS says that there is no such record.
    #[error("the DNS has no such record")]
    Absent,
    /// Nobody said anything of use, so that the record may be there.
    #[error("the DNS gives no answer ({0})")]
    Silent(String),
}

/// Whom to ask. Clones ask the same and share what was answered.
#[derive(Clone)]
pub struct Dns(Result<TokioResolver, String>);

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dns(…)")
    }
}

impl Dns {
    /// The resolver that is configured, else that of this machine. Needs a runtime to live in. Where there is none to ask, every
    /// question says so.
    #[must_use]
    pub fn of(server: Option<SocketAddr>) -> Self {
        let mut builder = match server {
            Some(server) => TokioResolver::builder_with_config(only(server), TokioRuntimeProvider::default()),
            None => match TokioResolver::builder_tokio() {
                Ok(builder) => builder,
                Err(e) => return Self(Err(format!("this machine has no resolver to ask: {e}"))),
            },
        };
        let options = builder.options_mut();
        (options.timeout, options.attempts) = (TRY_AGAIN_AFTER, 1);
        // Who waits for a record to be published asks again and again; who asks about many names remembers the answers.
        options.cache_size = 0;
        Self(builder.build().map_err(|e| format!("the resolver cannot be used: {e}")))
    }

    /// The texts under a name, each joined from its strings (RFC 6376 3.6.2.2).
    ///
    /// # Errors
    /// See [`DnsError`].
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let found = answer(self.resolver()?.txt_lookup(whole(name))).await?;
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(txt) => {
                let bytes: Vec<u8> = txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => None,
        });
        none_is_absent(texts.collect())
    }

    /// The mail exchangers of a domain, the preferred first, as lower-case names without a dot at the end. Empty when the domain says
    /// that it takes no mail (RFC 7505).
    ///
    /// # Errors
    /// See [`DnsError`].
    pub async fn exchangers(&self, domain: &str) -> Result<Vec<String>, DnsError> {
        let found = answer(self.resolver()?.mx_lookup(whole(domain))).await?;
        let exchangers = found.answers().iter().filter_map(|record| match &record.data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii().to_ascii_lowercase())),
            _ => None,
        });
        let mut exchangers = none_is_absent(exchangers.collect())?;
        exchangers.sort_unstable();
        let names = exchangers
            .into_iter()
            .map(|(_, name)| name.trim_end_matches('.').to_owned());
        Ok(names.filter(|name| !name.is_empty()).collect())
    }

    fn resolver(&self) -> Result<&TokioResolver, DnsError> {
        self.0.as_ref().map_err(|why| DnsError::Silent(why.clone()))
    }
}

/// This server and no other.
fn only(server: SocketAddr) -> ResolverConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    config.connections = connections;
    ResolverConfig::from_name_servers(vec![config])
}

/// With a dot at the end: the name is whole, and no search domain is to be tried behind it.
fn whole(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn none_is_absent<T>(found: Vec<T>) -> Result<Vec<T>, DnsError> {
    match found.is_empty() {
        true => Err(DnsError::Absent),
        false => Ok(found),
    }
}

async fn answer<T>(asked: impl Future<Output = Result<T, NetError>>) -> Result<T, DnsError> {
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) if e.is_no_records_found() => Err(DnsError::Absent),
        Ok(Err(e)) => Err(DnsError::Silent(e.to_string())),
        Err(_) => Err(DnsError::Silent(format!("nothing within {} s", ANSWER_WITHIN.as_secs()))),
    }
}
