//! A client of the HTTP API, for the commands that ask a server: `send`, `status --server` and the demo. Knows the shapes of
//! the answers and what an error means for the person at the keyboard; never looks into a database.

use std::time::Duration;

use clap::Args;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use super::exit::{Exit, Failed};
use crate::config::Secret;

/// How long to wait for a connection: a server that takes longer is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the answer to a small request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of an answer that are read: a page of 100 broadcasts has far less.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The server on this machine.
const SERVER_DEFAULT: &str = "http://127.0.0.1:8025";

/// Which server, and who asks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// The address of the server [env: HIKYAKU_SERVER] [default: http://127.0.0.1:8025]
    #[arg(long, value_name = "URL", env = "HIKYAKU_SERVER", hide_env = true)]
    pub server: Option<String>,

    /// The API key; `hikyaku key create` makes one. Rather set the variable: others can read a command line
    #[arg(long, value_name = "KEY", env = "HIKYAKU_API_KEY", hide_env_values = true, value_parser = |word: &str| Ok::<_, String>(Secret::new(word)))]
    pub key: Option<Secret>,
}

/// A connection to one server.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: Url,
    key: Secret,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum ApiError {
    /// No connection: the request did not leave us.
    Unreachable(String),
    /// The connection broke before the answer: the request may or may not have arrived.
    Broken(String),
    /// An answer of 429 or 5yz: not now.
    Unavailable(String),
    /// An answer of 4yz: not like this.
    Refused(StatusCode, Box<Problem>),
    /// An answer that is not of this API.
    Strange(String),
}

/// A word that was given. An empty one counts as not given: that is what `${NAME:-}` makes of a variable that is not set.
#[must_use]
pub fn given(word: Option<&str>) -> Option<&str> {
    word.filter(|word| !word.is_empty())
}

/// An error as the server tells it (RFC 9457).
#[derive(Debug, Default, Deserialize)]
pub struct Problem {
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub detail: String,
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub errors: Vec<FieldError>,
}

/// One field that is at fault.
#[derive(Debug, Deserialize)]
pub struct FieldError {
    #[serde(default)]
    pub pointer: String,
    #[serde(default)]
    pub detail: String,
    #[serde(default)]
    pub line: Option<u64>,
}

impl Api {
    /// Prepares to talk to a server; nothing is sent yet.
    ///
    /// # Errors
    /// When there is no key, or the address is no web address.
    pub fn new(args: &ServerArgs) -> Result<Self, Failed> {
        let Some(key) = args.key.clone().filter(|key| !key.expose().is_empty()) else {
            return Err(Failed::usage(
                "no API key: make one with `hikyaku key create --name cli --scope send --scope read` and set HIKYAKU_API_KEY to it",
            ));
        };
        let server = given(args.server.as_deref()).unwrap_or(SERVER_DEFAULT);
        let base = Url::parse(server)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(mut base) = base else {
            return Err(Failed::usage(format!("--server {server} is not a web address, such as {SERVER_DEFAULT}")));
        };
        // Url::join replaces what follows the last slash.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("hikyaku/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        // The system's certificates are only looked for when they are needed: a bare machine may have none. And a proxy that
        // the environment names cannot reach our own loopback.
        let http = match base.scheme() {
            "https" => http,
            _ => http.tls_certs_only([]),
        };
        let http = if is_loopback(&base) { http.no_proxy() } else { http };
        let http = http
            .build()
            .map_err(|e| Failed::here(format!("the HTTP client cannot be started: {}", in_words(&e))))?;
        Ok(Self { http, base, key })
    }

    /// The address of the server, as given.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// A page or resource of this server, for people to open.
    #[must_use]
    pub fn link(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Reads what a GET gives.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, ApiError> {
        let (_, answer) = self.ask(self.http.get(self.url(path)?).timeout(ANSWER_TIMEOUT)).await?;
        read(&answer)
    }

    /// Posts a broadcast. The body streams, so there is no limit to the time it takes; only silence ends it, on the server's side.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn post_broadcast<T: for<'de> Deserialize<'de>>(
        &self,
        body: reqwest::Body,
        content_type: &str,
        idempotency_key: &str,
    ) -> Result<(StatusCode, T), ApiError> {
        let request = self
            .http
            .post(self.url("v1/broadcasts")?)
            .header("content-type", content_type)
            .header("idempotency-key", idempotency_key)
            .body(body);
        let (status, answer) = self.ask(request).await?;
        Ok((status, read(&answer)?))
    }

    fn url(&self, path: &str) -> Result<Url, ApiError> {
        self.base
            .join(path)
            .map_err(|e| ApiError::Strange(format!("{path} is no path below {}: {e}", self.base)))
    }

    /// Sends a request and sorts the answer.
    async fn ask(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), ApiError> {
        let answer = request.bearer_auth(self.key.expose()).send().await;
        let mut answer = answer.map_err(|e| match e.is_connect() {
            true => ApiError::Unreachable(in_words(&e)),
            false => ApiError::Broken(in_words(&e)),
        })?;
        let status = answer.status();
        let body = body_of(&mut answer).await?;
        if status.is_success() {
            return Ok((status, body));
        }
        // Not every answer comes from our server: a proxy in between has other words.
        let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
        match status.as_u16() {
            429 | 500..=599 => {
                let why = if problem.detail.is_empty() {
                    problem.title
                } else {
                    problem.detail
                };
                Err(ApiError::Unavailable(format!("{status}: {why}").trim_end_matches([':', ' ']).to_owned()))
            }
            400..=499 => Err(ApiError::Refused(status, Box::new(problem))),
            _ => Err(ApiError::Strange(format!("the answer is {status}, which this API does not give"))),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(answer: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(answer).map_err(|e| ApiError::Strange(format!("the answer is not what the API gives: {e}")))
}

async fn body_of(answer: &mut Response) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|e| ApiError::Broken(in_words(&e)))? {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(ApiError::Strange(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

impl ApiError {
    /// As the end of a command that talked to `base`.
    #[must_use]
    pub fn into_failed(self, base: &Url) -> Failed {
        match self {
            ApiError::Unreachable(why) => Failed::new(
                Exit::Unavailable,
                format!(
                    "{base} cannot be reached ({why}); start it with `hikyaku serve`, or name another with --server"
                ),
            ),
            ApiError::Broken(why) => {
                Failed::new(Exit::Unavailable, format!("{base} broke the connection off ({why}); try again"))
            }
            ApiError::Unavailable(why) => {
                Failed::new(Exit::Unavailable, format!("{base} is not available now ({why}); try again later"))
            }
            ApiError::Refused(status, problem) => Failed::new(Exit::Refused, problem.in_words(status)),
            ApiError::Strange(why) => {
                Failed::new(Exit::Unavailable, format!("{base} does not answer like Hikyaku ({why}); check --server"))
            }
        }
    }
}

impl Problem {
    /// Leaves the lines aside: they count in the request, which is not the user's file.
    pub fn forget_lines(&mut self) {
        for error in &mut self.errors {
            error.line = None;
        }
    }

    /// The problem as lines: a sentence, then each field with its pointer.
    #[must_use]
    pub fn in_words(&self, status: StatusCode) -> String {
        let told = [&self.detail, &self.title].into_iter().find(|text| !text.is_empty());
        let told = told.map_or_else(|| format!("the server answered {status}"), Clone::clone);
        let fix = match status {
            StatusCode::UNAUTHORIZED => "; make a key with `hikyaku key create` and give it in HIKYAKU_API_KEY",
            StatusCode::FORBIDDEN => "; make a key that has the scope with `hikyaku key create --scope …`",
            _ => "",
        };
        let mut out = format!("refused: {told}{fix}");
        for error in &self.errors {
            let line = error.line.map_or_else(String::new, |line| format!("line {line}: "));
            out.push_str(&format!("\n  {}  {line}{}", error.pointer, error.detail));
        }
        out
    }
}

/// The innermost cause of a client's error: "connection refused" says more than "error sending request".
pub(super) fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_with_pointer_and_fix() {
        let problem: Problem = serde_json::from_str(
            r##"{"title":"Unprocessable","detail":"1 problem","code":"validation_failed",
                "errors":[{"pointer":"#/recipients/3/email","code":"invalid_address","detail":"no @ in 'bob'"}]}"##,
        )
        .unwrap();
        let told = problem.in_words(StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(told, "refused: 1 problem\n  #/recipients/3/email  no @ in 'bob'");
    }

    #[test]
    fn a_server_below_a_path_keeps_it() {
        let args = ServerArgs {
            server: Some("https://example.org/mail".to_owned()),
            key: Some(Secret::new("a-key-for-a-test")),
        };
        let api = Api::new(&args).unwrap();
        assert_eq!(api.url("v1/broadcasts").unwrap().as_str(), "https://example.org/mail/v1/broadcasts");
    }
}
