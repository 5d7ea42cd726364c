//! A relay's URL taken apart into what a form asks for, and put together again. Texts in, texts out: what people type is judged
//! here, field by field. A stored password never comes out, and stays with the user and the host that it was stored for.

use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::config::{AuthMethod, Notify, RelayConfig, TlsMode};

/// What stands in a URL's user and password as it is (RFC 3986 2.3).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Longest host name, in bytes (RFC 1035 3.1, without the final dot).
const HOST_BYTES_MAX: usize = 253;

/// The parts of a relay's URL, each as it is typed. An empty one is its default.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RelayParts {
    pub host: String,
    pub port: String,
    /// `none`, `starttls` or `implicit`.
    pub tls: String,
    pub user: String,
    /// Only on the way in; empty keeps the stored one.
    pub password: String,
    pub auth: String,
    pub connections: String,
    pub messages: String,
    pub age_secs: String,
    pub pipelining: String,
    pub chunking: String,
    pub dsn: String,
    pub helo: String,
    pub connect_secs: String,
    pub banner_secs: String,
    pub verify: String,
    /// Messages a second that an older URL says; it is not written again, a relay's limits say it.
    pub rate: Option<u32>,
}

impl fmt::Debug for RelayParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayParts({}:{})", self.host, self.port)
    }
}

/// What is wrong: the name of a part, and a clause that says how to mend it.
pub type PartProblem = (&'static str, String);

impl RelayParts {
    /// What a URL says, with the defaults for what it leaves out. The password stays behind.
    ///
    /// # Errors
    /// The URL cannot be read; the sentence says why.
    pub fn of(url: &str) -> Result<Self, String> {
        Ok(Self::from_config(&RelayConfig::parse(url)?))
    }

    /// The defaults, for a form that is filled in.
    #[must_use]
    pub fn fresh() -> Self {
        Self {
            tls: "starttls".to_owned(),
            port: String::new(),
            host: String::new(),
            ..Self::from_config(&RelayConfig::clear("", 0))
        }
    }

    fn from_config(config: &RelayConfig) -> Self {
        Self {
            host: config.host.clone(),
            port: config.port.to_string(),
            tls: tls_word(config.tls).to_owned(),
            user: config.credentials.as_ref().map(|c| c.user.clone()).unwrap_or_default(),
            password: String::new(),
            auth: auth_word(config.auth).to_owned(),
            connections: config.connections.to_string(),
            messages: config.messages_per_connection_max.to_string(),
            age_secs: config.age_max.as_secs().to_string(),
            pipelining: switch_word(config.pipelining).to_owned(),
            chunking: match config.chunking {
                0 => "off".to_owned(),
                n => n.to_string(),
            },
            dsn: notify_words(config.notify),
            helo: config.helo_name.clone().unwrap_or_default(),
            connect_secs: config.timeouts.connect.as_secs().to_string(),
            banner_secs: config.timeouts.banner.as_secs().to_string(),
            verify: switch_word(config.verify_certificate).to_owned(),
            rate: config.rate_per_sec,
        }
    }

    /// The parts that stand in a URL's query, under their names.
    fn options(&self) -> [(&'static str, &str); 12] {
        [
            ("tls", &self.tls),
            ("connections", &self.connections),
            ("messages", &self.messages),
            ("age_secs", &self.age_secs),
            ("pipelining", &self.pipelining),
            ("chunking", &self.chunking),
            ("auth", &self.auth),
            ("dsn", &self.dsn),
            ("helo", &self.helo),
            ("connect_secs", &self.connect_secs),
            ("banner_secs", &self.banner_secs),
            ("verify", &self.verify),
        ]
    }

    /// The URL that says this. Without a password typed it has the stored one, if user and host are those it belongs to.
    ///
    /// # Errors
    /// Everything that is wrong, part by part; never with a password in it.
    pub fn to_url(&self, stored: Option<&str>) -> Result<String, Vec<PartProblem>> {
        let mut wrong = Vec::new();
        let host = host(&self.host)
            .map_err(|why| wrong.push(("host", why)))
            .unwrap_or_default();
        let mut config = RelayConfig::clear(host.clone(), 0);
        config.tls = if config.is_loopback() {
            TlsMode::None
        } else {
            TlsMode::StartTls
        };
        for (key, value) in self.options() {
            if let Err(why) = given(value).map_or(Ok(()), |value| config.set_option(key, value)) {
                wrong.push((key, without_url(key, &why)));
            }
        }
        let port = port(&self.port, config.tls)
            .map_err(|why| wrong.push(("port", why)))
            .unwrap_or(0);
        let login = self
            .login(&host, stored)
            .map_err(|found| wrong.push(found))
            .unwrap_or_default();
        wrong.extend(self.contradictions(&config, !host.is_empty()));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let at = if host.contains(':') { format!("[{host}]") } else { host };
        let url = format!("smtp://{login}{at}:{port}?{}", self.query(config.tls));
        match RelayConfig::parse(&url) {
            Ok(_) => Ok(url),
            Err(why) => Err(vec![("host", why)]),
        }
    }

    /// What differs from the defaults.
    fn query(&self, tls: TlsMode) -> String {
        let usual = Self::from_config(&RelayConfig::clear("", 0));
        let differs = |(key, value): &(&str, &str)| {
            let is_usual = usual.options().iter().any(|(k, v)| k == key && v == value);
            *key != "tls" && !value.is_empty() && !is_usual
        };
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("tls", tls_word(tls))
            .extend_pairs(self.options().into_iter().filter(differs))
            .finish()
    }

    /// `user:password@`, or nothing.
    fn login(&self, host: &str, stored: Option<&str>) -> Result<String, PartProblem> {
        let is_text = |part: &str| !part.contains(['\0', '\r', '\n']);
        if !is_text(&self.user) {
            return Err(("user", "a user name is one line of text".to_owned()));
        }
        if !is_text(&self.password) {
            return Err(("password", "a password is one line of text".to_owned()));
        }
        if self.user.is_empty() {
            return match self.password.is_empty() {
                true => Ok(String::new()),
                false => Err(("user", "there is a password without a user; name the user".to_owned())),
            };
        }
        let stored = stored.and_then(|url| RelayConfig::parse(url).ok());
        let kept = stored.as_ref().and_then(|s| Some((&s.host, s.credentials.as_ref()?)));
        let password = match (self.password.as_str(), kept) {
            ("", Some((at, login))) if *at == host && login.user == self.user => login.password.as_str(),
            ("", Some(_)) => {
                let why =
                    "user or host have changed; write the password again, the stored one belongs to those of before";
                return Err(("password", why.to_owned()));
            }
            ("", None) => {
                return Err(("password", "the password is missing; a user cannot log in without one".to_owned()));
            }
            (typed, _) => typed,
        };
        let encoded = |part| utf8_percent_encode(part, PLAIN);
        Ok(format!("{}:{}@", encoded(&self.user), encoded(password)))
    }

    /// What is right by itself and wrong together.
    fn contradictions(&self, config: &RelayConfig, has_host: bool) -> Vec<PartProblem> {
        let mut wrong = Vec::new();
        let is_far = has_host && !config.is_loopback();
        if self.user.is_empty() && config.auth != AuthMethod::Password {
            wrong.push(("user", "there is a way to log in without a user; name the user".to_owned()));
        }
        if is_far && !self.user.is_empty() && config.tls == TlsMode::None {
            let why = "the password would go over the network in clear; use STARTTLS or TLS";
            wrong.push(("tls", why.to_owned()));
        }
        if is_far && !config.verify_certificate {
            let why = "the certificate of a relay on another machine is always checked; only one on this machine may go unchecked";
            wrong.push(("verify", why.to_owned()));
        }
        wrong
    }
}

fn given(value: &str) -> Option<&str> {
    Some(value).filter(|value| !value.is_empty())
}

/// A complaint about an option of a URL, for somebody who sees a field.
fn without_url(key: &str, why: &str) -> String {
    let about = why.strip_prefix(&format!("the relay URL's {key} is ")).unwrap_or(why);
    about.replacen("; ", " does not fit: ", 1)
}

fn host(text: &str) -> Result<String, String> {
    let host = text.trim().to_ascii_lowercase();
    if host.is_empty() {
        return Err("the host is missing; write the name of the SMTP server, such as mail.example.org".to_owned());
    }
    if host.contains("://") || host.contains('@') {
        return Err("write the host's name alone, such as mail.example.org; the rest has fields of its own".to_owned());
    }
    let address = host.trim_start_matches('[').trim_end_matches(']');
    if address.parse::<Ipv6Addr>().is_ok() {
        return Ok(address.to_owned());
    }
    if host.contains(':') {
        return Err("write the host's name alone; the port has a field of its own".to_owned());
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if host.len() > HOST_BYTES_MAX || !host.bytes().all(allowed) {
        return Err(format!(
            "'{}' is no host name; use letters, digits, dots and dashes, and xn-- for names in other scripts",
            host.escape_debug()
        ));
    }
    Ok(host)
}

fn port(text: &str, tls: TlsMode) -> Result<u16, String> {
    let usual = match tls {
        TlsMode::None => 25,
        TlsMode::StartTls => 587,
        TlsMode::Implicit => 465,
    };
    match text {
        "" => Ok(usual),
        text => match text.parse() {
            Ok(port @ 1..) => Ok(port),
            _ => Err(format!(
                "'{}' is no port; use a whole number from 1 to 65535, here usually {usual}",
                text.escape_debug()
            )),
        },
    }
}

fn tls_word(tls: TlsMode) -> &'static str {
    match tls {
        TlsMode::None => "none",
        TlsMode::StartTls => "starttls",
        TlsMode::Implicit => "implicit",
    }
}

fn auth_word(auth: AuthMethod) -> &'static str {
    match auth {
        AuthMethod::Password => "password",
        AuthMethod::Plain => "plain",
        AuthMethod::Login => "login",
        AuthMethod::XOAuth2 => "xoauth2",
    }
}

fn switch_word(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn notify_words(notify: Option<Notify>) -> String {
    let Some(notify) = notify else {
        return "off".to_owned();
    };
    let wanted = [
        ("failure", notify.failure),
        ("delay", notify.delay),
        ("success", notify.success),
    ];
    let words: Vec<&str> = wanted
        .iter()
        .filter(|(_, is_wanted)| *is_wanted)
        .map(|(word, _)| *word)
        .collect();
    match words.is_empty() {
        true => "never".to_owned(),
        false => words.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = "smtp://anna%40x:p%3Ass%25@mail.example.org:587?tls=starttls";

    #[test]
    fn a_url_comes_back_from_its_parts() {
        for (url, same) in [
            (STORED, STORED),
            ("smtp://127.0.0.1:2525", "smtp://127.0.0.1:2525?tls=none"),
            ("smtps://Mail.Example.org", "smtp://mail.example.org:465?tls=implicit"),
            ("smtp://[::1]:26", "smtp://[::1]:26?tls=none"),
            (
                "smtp://u:p@h.example?connections=4&messages=9&chunking=8&pipelining=off&auth=xoauth2&dsn=failure,delay&helo=a.b&age_secs=60",
                "smtp://u:p@h.example:587?tls=starttls&connections=4&messages=9&age_secs=60&pipelining=off&chunking=8&auth=xoauth2&dsn=failure%2Cdelay&helo=a.b",
            ),
            ("smtp://h.example?rate=5&connections=8&name=x", "smtp://h.example:587?tls=starttls"),
        ] {
            let parts = RelayParts::of(url).unwrap();
            assert_eq!(parts.to_url(Some(url)).as_deref(), Ok(same), "{url}");
            assert_eq!(parts.password, "", "{url}");
            let again = RelayConfig::parse(same).unwrap();
            assert_eq!(RelayParts::from_config(&again), RelayParts { rate: None, ..parts }, "{url}");
        }
        assert_eq!(RelayParts::of("smtp://h.example?rate=5").unwrap().rate, Some(5));
        let fresh = RelayParts {
            host: "relay.example".into(),
            ..RelayParts::fresh()
        };
        assert_eq!(fresh.to_url(None).as_deref(), Ok("smtp://relay.example:587?tls=starttls"));
    }

    #[test]
    fn what_is_typed_is_encoded_and_read_back() {
        let parts = RelayParts {
            host: "mail.example.org".into(),
            user: "anna@x/ü".into(),
            password: "***:%41@/?#".into(),
            ..RelayParts::fresh()
        };
        let url = parts.to_url(None).unwrap();
        let login = RelayConfig::parse(&url).unwrap().credentials.unwrap();
        assert_eq!((login.user, login.password), (parts.user.clone(), parts.password.clone()));
        assert!(!format!("{parts:?}").contains("***:"), "{parts:?}");
    }

    #[test]
    fn a_stored_password_stays_with_its_user_and_host() {
        let stored = RelayParts::of(STORED).unwrap();
        let moved = RelayParts {
            port: "2525".into(),
            tls: "implicit".into(),
            ..stored.clone()
        };
        let url = moved.to_url(Some(STORED)).unwrap();
        assert_eq!(RelayConfig::parse(&url).unwrap().credentials.unwrap().password, "p:ss%");
        for elsewhere in [
            RelayParts {
                host: "evil.example".into(),
                ..stored.clone()
            },
            RelayParts {
                user: "bob".into(),
                ..stored.clone()
            },
        ] {
            let wrong = elsewhere.to_url(Some(STORED)).unwrap_err();
            assert_eq!(wrong.len(), 1);
            assert!(wrong[0].0 == "password" && wrong[0].1.contains("again"), "{wrong:?}");
        }
        let nobody = RelayParts {
            user: String::new(),
            ..stored
        };
        assert_eq!(nobody.to_url(Some(STORED)).as_deref(), Ok("smtp://mail.example.org:587?tls=starttls"));
    }

    #[test]
    fn each_wrong_part_is_named_with_its_mending() {
        type Change = fn(&mut RelayParts);
        let cases: [(&str, &str, Change); 20] = [
            ("host", "missing", |p| p.host.clear()),
            ("host", "alone", |p| p.host = "smtp://h".into()),
            ("host", "alone", |p| p.host = "u@h".into()),
            ("host", "port has a field", |p| p.host = "h:25".into()),
            ("host", "xn--", |p| p.host = "b\u{fc}cher.example".into()),
            ("port", "65535", |p| p.port = "0".into()),
            ("port", "usually 587", |p| p.port = "smtp".into()),
            ("tls", "starttls", |p| p.tls = "maybe".into()),
            ("connections", "'0' does not fit: use a whole number from 1 to 1000", |p| p.connections = "0".into()),
            ("messages", "whole number", |p| p.messages = "many".into()),
            ("age_secs", "86400", |p| p.age_secs = "90000".into()),
            ("chunking", "1 to 64", |p| p.chunking = "65".into()),
            ("dsn", "never, or some of", |p| p.dsn = "always".into()),
            ("helo", "host name", |p| p.helo = "a b".into()),
            ("banner_secs", "600", |p| p.banner_secs = "601".into()),
            ("auth", "xoauth2", |p| p.auth = "guess".into()),
            ("user", "without a user", |p| p.auth = "plain".into()),
            ("user", "without a user", |p| p.password = "hunter2".into()),
            ("password", "missing", |p| p.user = "anna".into()),
            ("verify", "always checked", |p| p.verify = "no".into()),
        ];
        for (part, words, change) in cases {
            let mut parts = RelayParts {
                host: "mail.example.org".into(),
                ..RelayParts::fresh()
            };
            change(&mut parts);
            let wrong = parts.to_url(None).unwrap_err();
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(wrong[0].0 == part && wrong[0].1.contains(words), "{part}: {wrong:?}");
            assert!(!wrong[0].1.contains("hunter2"));
        }
        let clear = RelayParts {
            host: "mail.example.org".into(),
            tls: "none".into(),
            user: "anna".into(),
            password: "hunter2".into(),
            port: "x".into(),
            ..RelayParts::fresh()
        };
        let named: Vec<&str> = clear.to_url(None).unwrap_err().iter().map(|(part, _)| *part).collect();
        assert_eq!(named, ["port", "tls"], "all at once");
    }
}
