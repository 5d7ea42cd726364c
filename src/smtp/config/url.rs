//! The URL that says all about a relay, read into its configuration. Never lets a password into an error.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::{AuthMethod, CHUNKING_MAX, CONNECTIONS_MAX, Credentials, Notify, RelayConfig, TlsMode, is_loopback};

impl RelayConfig {
    /// Reads `smtp://[user:password@]host[:port]?tls=none|starttls|implicit&connections=N&rate=N`
    /// (`smtps://` is `tls=implicit`). More options: `pipelining=on|off`, `chunking=off|N`, `messages=N` and `age_secs=N` for one
    /// connection, `auth=password|plain|login|xoauth2`, `dsn=off|never|failure,delay,success`, `connect_secs=N`, `banner_secs=N`,
    /// `helo=NAME`, `name=NAME`, `verify=no` (loopback only). Without `tls=` a relay on loopback is spoken to in clear and any
    /// other with STARTTLS. The port's default follows: 25 in clear, 587 STARTTLS, 465 implicit.
    ///
    /// # Errors
    /// A sentence that names the part and the fix. It never holds the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text.trim())
            .map_err(|why| format!("the relay URL is not a URL ({why}); write it as smtp://host:port"))?;
        let host = host(&url)?;
        let is_loopback = is_loopback(&host);
        let mut relay = Self::clear(host, 0);
        relay.tls = match (url.scheme(), is_loopback) {
            ("smtps", _) => TlsMode::Implicit,
            ("smtp", true) => TlsMode::None,
            ("smtp", false) => TlsMode::StartTls,
            (other, _) => return Err(format!("the relay URL starts with {other}://; use smtp:// or smtps://")),
        };
        relay.credentials = credentials(&url)?;
        let mut name = None;
        for (key, value) in url.query_pairs() {
            match &*key {
                "name" => name = Some(value.into_owned()),
                _ => relay.set_option(&key, &value)?,
            }
        }
        relay.port = url.port().unwrap_or(match relay.tls {
            TlsMode::None => 25,
            TlsMode::StartTls => 587,
            TlsMode::Implicit => 465,
        });
        relay.name = name.unwrap_or_else(|| format!("{}:{}", relay.host, relay.port));
        relay.check()?;
        Ok(relay)
    }

    /// Sets one option of a URL's query.
    pub(in crate::smtp) fn set_option(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "tls" => self.tls = tls_mode(value)?,
            "connections" => self.connections = whole_number(key, value, u32::from(CONNECTIONS_MAX))? as u16,
            "rate" => self.rate_per_sec = Some(whole_number(key, value, u32::MAX)?),
            "messages" => self.messages_per_connection_max = whole_number(key, value, u32::MAX)?,
            "helo" => self.helo_name = Some(helo_name(value)?),
            "pipelining" => self.pipelining = switch(key, value)?,
            "chunking" => self.chunking = chunking(value)?,
            "age_secs" => self.age_max = seconds(key, value, 86_400)?,
            "auth" => self.auth = auth_method(value)?,
            "dsn" => self.notify = notify(value)?,
            "connect_secs" => self.timeouts.connect = seconds(key, value, 600)?,
            "banner_secs" => self.timeouts.banner = seconds(key, value, 600)?,
            "verify" => self.verify_certificate = switch(key, value)?,
            _ => {
                return Err(format!(
                    "the relay URL has an unknown option '{}'; known are tls, connections, rate, messages, \
                     age_secs, pipelining, chunking, auth, dsn, connect_secs, banner_secs, helo, name, verify",
                    key.escape_debug()
                ));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.auth != AuthMethod::Password && self.credentials.is_none() {
            return Err(
                "the relay URL says auth= without a user and a password; write them as smtp://user:password@host"
                    .into(),
            );
        }
        if self.is_loopback() {
            return Ok(());
        }
        if self.credentials.is_some() && self.tls == TlsMode::None {
            return Err(format!(
                "the relay URL would send a password in clear to {}; use tls=starttls or tls=implicit",
                self.host
            ));
        }
        if !self.verify_certificate {
            return Err(format!(
                "the relay URL says verify=no for {}, which is allowed for loopback only; remove it",
                self.host
            ));
        }
        Ok(())
    }
}

fn host(url: &Url) -> Result<String, String> {
    let host = url.host_str().filter(|h| !h.is_empty());
    let host = host.ok_or("the relay URL names no host; write it as smtp://host:port")?;
    if !matches!(url.path(), "" | "/") {
        return Err(format!("the relay URL has a path '{}'; remove it", url.path()));
    }
    // An IPv6 address stands in brackets in a URL and without them everywhere else.
    Ok(host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase())
}

fn credentials(url: &Url) -> Result<Option<Credentials>, String> {
    let (user, password) = (url.username(), url.password());
    if user.is_empty() && password.is_none() {
        return Ok(None);
    }
    let plain = |part: &str, what| match percent_decode_str(part).decode_utf8() {
        Ok(text) if !text.is_empty() && !text.contains(['\0', '\r', '\n']) => Ok(text.into_owned()),
        _ => Err(format!("the relay URL's {what} is empty or not text; write special characters as %XX")),
    };
    let password = plain(password.unwrap_or(""), "password")?;
    Ok(Some(Credentials {
        user: plain(user, "user name")?,
        password,
    }))
}

fn tls_mode(value: &str) -> Result<TlsMode, String> {
    match value {
        "none" => Ok(TlsMode::None),
        "starttls" => Ok(TlsMode::StartTls),
        "implicit" => Ok(TlsMode::Implicit),
        _ => Err(format!("the relay URL's tls is '{}'; use none, starttls or implicit", value.escape_debug())),
    }
}

fn whole_number(key: &str, value: &str, most: u32) -> Result<u32, String> {
    match value.parse() {
        Ok(n) if (1..=most).contains(&n) => Ok(n),
        _ => Err(format!("the relay URL's {key} is '{}'; use a whole number from 1 to {most}", value.escape_debug())),
    }
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" | "yes" | "true" => Ok(true),
        "off" | "no" | "false" => Ok(false),
        _ => Err(format!("the relay URL's {key} is '{}'; use on or off", value.escape_debug())),
    }
}

fn seconds(key: &str, value: &str, most: u32) -> Result<Duration, String> {
    whole_number(key, value, most).map(|n| Duration::from_secs(n.into()))
}

fn auth_method(value: &str) -> Result<AuthMethod, String> {
    match value.to_ascii_lowercase().as_str() {
        "password" => Ok(AuthMethod::Password),
        "plain" => Ok(AuthMethod::Plain),
        "login" => Ok(AuthMethod::Login),
        "xoauth2" => Ok(AuthMethod::XOAuth2),
        _ => Err(format!("the relay URL's auth is '{}'; use password, plain, login or xoauth2", value.escape_debug())),
    }
}

/// `off`, `never`, or the reports wanted.
fn notify(value: &str) -> Result<Option<Notify>, String> {
    let mut notify = Notify::default();
    match value.to_ascii_lowercase().as_str() {
        "off" | "no" => return Ok(None),
        "never" => {}
        words => {
            for word in words.split(',') {
                match word {
                    "success" => notify.success = true,
                    "failure" => notify.failure = true,
                    "delay" => notify.delay = true,
                    _ => {
                        return Err(format!(
                            "the relay URL's dsn is '{}'; use off, never, or some of failure,delay,success",
                            value.escape_debug()
                        ));
                    }
                }
            }
        }
    }
    Ok(Some(notify))
}

/// Messages in flight, or `off`.
fn chunking(value: &str) -> Result<u32, String> {
    match value {
        "off" | "no" | "false" => Ok(0),
        _ => whole_number("chunking", value, CHUNKING_MAX)
            .map_err(|_| format!("the relay URL's chunking is '{}'; use off, or the messages in flight on one connection, 1 to {CHUNKING_MAX}", value.escape_debug())),
    }
}

/// A name that goes into a command line: letters, digits, and what names and literals are made of.
fn helo_name(value: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b);
    if value.is_empty() || value.len() > 255 || !value.bytes().all(allowed) {
        return Err(format!("the relay URL's helo is '{}'; use this machine's host name", value.escape_debug()));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_all_about_a_relay() {
        let url = "smtp://anna%40x:p%3Ass@mail.example.org:2525?tls=implicit&connections=4&rate=50&helo=a.example";
        let relay = RelayConfig::parse(url).unwrap();
        assert_eq!((relay.host.as_str(), relay.port, relay.tls), ("mail.example.org", 2525, TlsMode::Implicit));
        assert_eq!((relay.connections, relay.rate_per_sec), (4, Some(50)));
        assert_eq!(relay.helo_name.as_deref(), Some("a.example"));
        assert_eq!(relay.name, "mail.example.org:2525");
        let credentials = relay.credentials.clone().unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("anna@x", "p:ss"));
        assert!(!format!("{relay:?}").contains("p:ss"), "the password shows in debug output");
    }

    #[test]
    fn a_url_says_how_to_speak() {
        let url = "smtps://u:token@h.example?chunking=8&age_secs=60&auth=xoauth2&dsn=failure,delay&banner_secs=120";
        let relay = RelayConfig::parse(url).unwrap();
        assert_eq!((relay.chunking, relay.auth, relay.age_max.as_secs()), (8, AuthMethod::XOAuth2, 60));
        let notify = relay.notify.unwrap();
        assert_eq!((notify.failure, notify.delay, notify.success), (true, true, false));
        assert_eq!(relay.timeouts.banner.as_secs(), 120);
        let off = RelayConfig::parse("smtp://h.example?chunking=off&dsn=off&pipelining=off").unwrap();
        assert_eq!((off.chunking, off.notify, off.pipelining), (0, None, false));
        assert_eq!(RelayConfig::parse("smtp://h.example?dsn=never").unwrap().notify, Some(Notify::default()));
    }

    #[test]
    fn defaults_follow_from_where_the_relay_is() {
        for (url, tls, port) in [
            ("smtp://127.0.0.1:1025", TlsMode::None, 1025),
            ("smtp://localhost", TlsMode::None, 25),
            ("smtp://[::1]:26", TlsMode::None, 26),
            ("smtp://mail.example.org", TlsMode::StartTls, 587),
            ("smtps://mail.example.org", TlsMode::Implicit, 465),
            ("smtp://mail.example.org?tls=none", TlsMode::None, 25),
            ("smtp://127.0.0.1?tls=starttls&verify=no", TlsMode::StartTls, 587),
        ] {
            let relay = RelayConfig::parse(url).unwrap();
            assert_eq!((relay.tls, relay.port), (tls, port), "{url}");
        }
        assert_eq!(RelayConfig::parse("smtp://[::1]:26").unwrap().host, "::1");
    }

    #[test]
    fn a_bad_url_names_the_part_and_the_fix() {
        for (url, part) in [
            ("", "smtp://host:port"),
            ("mail.example.org:25", "smtp://"),
            ("http://mail.example.org", "smtp://"),
            ("smtp://", "host"),
            ("smtp://h.example/inbox", "path"),
            ("smtp://h.example?tls=maybe", "starttls"),
            ("smtp://h.example?connections=0", "connections"),
            ("smtp://h.example?connections=5000", "1000"),
            ("smtp://h.example?rate=fast", "rate"),
            ("smtp://h.example?helo=a%0d%0aMAIL", "helo"),
            ("smtp://h.example?speed=9", "unknown option 'speed'"),
            ("smtp://h.example?pipelining=perhaps", "on or off"),
            ("smtp://h.example?auth=guess", "xoauth2"),
            ("smtp://h.example?auth=plain", "user and a password"),
            ("smtp://h.example?dsn=always", "never, or some of"),
            ("smtp://h.example?age_secs=0", "age_secs"),
            ("smtp://h.example?banner_secs=long", "banner_secs"),
            ("smtp://h.example?chunking=on", "messages in flight"),
            ("smtp://h.example?chunking=65", "1 to 64"),
            ("smtp://h.example?verify=no", "loopback"),
            ("smtp://u:secret@h.example?tls=none", "clear"),
            ("smtp://u@h.example", "password"),
            ("smtp://u:a%00b@h.example", "password"),
        ] {
            let error = RelayConfig::parse(url).expect_err(url);
            assert!(error.contains(part), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
