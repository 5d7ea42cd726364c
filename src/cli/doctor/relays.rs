//! The doctor's look at where mail goes: the relay that the configuration names and those that are stored, as a worker would take them.
//! Connects, encrypts and logs in; sends nothing.

use std::time::Duration;

use tokio::task::JoinSet;

use super::Finding;
use crate::config::Config;
use crate::domain::relay::Relay;
use crate::pipeline::outlet::Outlet;
use crate::smtp::{Connection, RelayConfig, TlsContext, TlsMode};

const WHAT: &str = "relay";
/// How long the relay has for connecting, TLS and logging in. Its own limits are minutes, which nobody waits for here.
const RELAY_TIMEOUT: Duration = Duration::from_secs(15);
/// How a relay of the configuration that has no name is stored.
const DEFAULT_NAME: &str = "default";

/// Whether mail leaves this machine, as far as it is known.
#[derive(Debug)]
pub enum Ways {
    /// What is stored, beside what the configuration names.
    Known(Outlet),
    /// The database could not be asked.
    Unknown,
}

impl Ways {
    /// Whether it is certain that all mail stays here.
    pub fn is_captured(&self, config: &Config) -> bool {
        config.relay.url.is_none() && matches!(self, Self::Known(outlet) if outlet.is_captured())
    }
}

/// Looks at every relay that mail may take.
pub async fn findings(config: &Config, ways: &Ways) -> Vec<Finding> {
    let mut findings = Vec::new();
    let configured = match &config.relay.url {
        Some(url) => match RelayConfig::parse(url.expose()) {
            Ok(relay) => {
                findings.push(greet(&relay, "correct HIKYAKU_RELAY_URL or the relay").await);
                Some(name_of(&relay))
            }
            Err(why) => return vec![Finding::fail(WHAT, format!("HIKYAKU_RELAY_URL: {why}"))],
        },
        None => None,
    };
    match ways {
        // The first start of a worker stores the configured one.
        _ if configured.is_some() && !matches!(ways, Ways::Known(Outlet::Relays(_))) => {}
        Ways::Unknown => findings.push(Finding::warn(
            WHAT,
            "not looked at: the stored relays are read once the database answers and its schema is up to date",
        )),
        Ways::Known(Outlet::Captured) => findings.push(Finding::warn(
            WHAT,
            "built-in capture relay: nothing leaves this machine until HIKYAKU_RELAY_URL names a relay, or `hikyaku relay put` stores one",
        )),
        Ways::Known(Outlet::Waits) => findings.push(Finding::warn(
            WHAT,
            "none: the last one was removed, and mail waits until `hikyaku relay put` stores another",
        )),
        Ways::Known(Outlet::Relays(all)) => {
            let others: Vec<&Relay> = all.iter().filter(|r| Some(&r.name) != configured.as_ref()).collect();
            findings.extend(stored(&others).await);
            if all.iter().all(|r| r.paused.is_some()) {
                findings.push(Finding::warn(WHAT, "all are paused: nothing goes out before one is resumed"));
            }
        }
    }
    findings
}

/// Under which name a worker stores the relay of the configuration.
fn name_of(relay: &RelayConfig) -> String {
    match relay.name == format!("{}:{}", relay.host, relay.port) {
        true => DEFAULT_NAME.to_owned(),
        false => relay.name.clone(),
    }
}

/// All stored relays, at the same time, in their order.
async fn stored(relays: &[&Relay]) -> Vec<Finding> {
    let mut looks = JoinSet::new();
    for (at, relay) in relays.iter().enumerate() {
        let relay = (*relay).clone();
        looks.spawn(async move { (at, stored_one(&relay).await) });
    }
    let mut found: Vec<(usize, Finding)> = looks.join_all().await;
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, finding)| finding).collect()
}

async fn stored_one(relay: &Relay) -> Finding {
    if let Some(why) = &relay.paused {
        let text =
            format!("{} is paused ({why}): nothing goes through it until `hikyaku relay resume {0}`", relay.name);
        return Finding::warn(WHAT, text);
    }
    match RelayConfig::parse(&relay.spec.url) {
        Ok(config) => {
            let named = RelayConfig {
                name: relay.name.clone(),
                ..config
            };
            greet(&named, &format!("`hikyaku relay test {}` shows the whole dialogue", relay.name)).await
        }
        Err(why) => Finding::fail(WHAT, format!("{}: {why}; `hikyaku relay put {0} --url …` corrects it", relay.name)),
    }
}

/// Connects as a worker would.
async fn greet(relay: &RelayConfig, advice: &str) -> Finding {
    let tls = match TlsContext::new(relay) {
        Ok(tls) => tls,
        Err(why) => return Finding::fail(WHAT, why),
    };
    match tokio::time::timeout(RELAY_TIMEOUT, Connection::open(relay, &tls)).await {
        Err(_) => Finding::fail(
            WHAT,
            format!("{} did not answer within {} s; is the port open from here?", relay.name, RELAY_TIMEOUT.as_secs()),
        ),
        Ok(Err(failure)) => Finding::fail(WHAT, format!("{}: {failure}; {advice}", relay.name)),
        Ok(Ok(connection)) => {
            connection.quit().await;
            greeted(relay)
        }
    }
}

/// A relay that answered: what was proved, and what is still to be wished for.
fn greeted(relay: &RelayConfig) -> Finding {
    let tls = match relay.tls {
        TlsMode::None => "in clear",
        TlsMode::StartTls => "with STARTTLS",
        TlsMode::Implicit => "with TLS",
    };
    let auth = relay.credentials.as_ref().map_or("without a login", |_| "logged in");
    let text = format!("{} answers {tls}, {auth}", relay.name);
    match relay.tls {
        TlsMode::None if !relay.is_loopback() => {
            Finding::warn(WHAT, format!("{text}: everybody on the way can read the mail; use ?tls=starttls"))
        }
        _ => Finding::ok(WHAT, text),
    }
}
