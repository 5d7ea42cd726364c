//! The judgement over the configuration: which values are possible, what they mean, and what to write instead of those that are not.
//! Never reads anything: it is given every value.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layers::{RawConfig, RawDatabase, RawDns, RawLog, RawRetry, RawSafety, RawWeb, RawWorker};
use super::secret::{Secret, SecretUrl};
use super::{API_KEY_LEN_MIN, Config, Database, Dns, Log, LogFormat, Problem, Relay, Retention, Retry, Web, Worker};
use crate::domain::safety::Limits;

/// Where name servers listen (RFC 1035 4.2).
const DNS_PORT: u16 = 53;

/// Turns what was typed into what is meant and collects every problem on the way. A value at fault is replaced by a harmless one
/// so that the others are still looked at; with a problem on the list, nobody gets to see the result.
pub(super) struct Judge {
    pub problems: Vec<Problem>,
    pub origins: BTreeMap<String, String>,
}

impl Judge {
    /// The configuration as meant, fit for use only when there are no problems.
    pub fn config(&mut self, raw: RawConfig, home: Option<PathBuf>) -> Config {
        let data_dir = self.data_dir(&raw.data_dir, home);
        Config {
            web: self.web(raw.web),
            database: self.database(raw.database, &data_dir),
            relay: Relay {
                url: Some(raw.relay.url).filter(|url| !url.is_empty()).map(SecretUrl::new),
            },
            dns: self.dns(&raw.dns),
            worker: self.worker(&raw.worker),
            retry: self.retry(&raw.retry),
            safety: self.safety(&raw.safety),
            retention: Retention {
                messages: self.days("retention.messages_days", raw.retention.messages_days),
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

    fn web(&mut self, raw: RawWeb) -> Web {
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

    fn database(&mut self, raw: RawDatabase, data_dir: &Path) -> Database {
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

    fn dns(&mut self, raw: &RawDns) -> Dns {
        let server = match raw.server.as_str() {
            "" => None,
            typed => {
                let port_added = typed.parse().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT));
                let server = port_added.or_else(|_| typed.parse::<SocketAddr>());
                if server.is_err() {
                    let fix = format!("'{typed}' is not an address, such as 192.0.2.53 or [2001:db8::53]:5353");
                    self.refuse("dns.server", fix);
                }
                server.ok()
            }
        };
        let mx_lanes = match raw.mx_lanes.as_str() {
            "on" => true,
            "off" => false,
            other => {
                self.refuse("dns.mx_lanes", format!("must be \"on\" or \"off\", not '{other}'"));
                false
            }
        };
        Dns { server, mx_lanes }
    }

    fn worker(&mut self, raw: &RawWorker) -> Worker {
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

    fn retry(&mut self, raw: &RawRetry) -> Retry {
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

    fn safety(&mut self, raw: &RawSafety) -> Limits {
        Limits {
            failed_percent_max: self.within("safety.failed_percent_max", raw.failed_percent_max, 1..=100) as u8,
            outcomes_min: self.within("safety.outcomes_min", raw.outcomes_min, 1..=1_000_000) as i64,
            refused_percent_max: self.within("safety.refused_percent_max", raw.refused_percent_max, 1..=100) as u8,
            refused_min: self.within("safety.refused_min", raw.refused_min, 1..=1_000_000) as i64,
            doubts_max: self.within("safety.doubts_max", raw.doubts_max, 1..=1_000_000) as i64,
            canary_wait_ms: 1_000 * self.within("safety.canary_wait_secs", raw.canary_wait_secs, 0..=86_400) as i64,
        }
    }

    fn log(&mut self, raw: RawLog) -> Log {
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
