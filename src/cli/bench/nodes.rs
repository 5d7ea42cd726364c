//! Nodes of the whole program on one database, for benchmarks: the first has the API, each has a worker. Never short cuts: what
//! `hikyaku serve` and `hikyaku worker` run is what runs here.

use serde_json::json;

use super::super::client::{Api, ServerArgs};
use super::super::demo::{Home, config, new_key};
use super::super::exit::Failed;
use crate::app::{App, Roles};
use crate::config::SecretUrl;
use crate::store::Store;

/// Running nodes.
pub(super) struct Nodes {
    apps: Vec<App>,
    api: Api,
    home: Home,
}

impl Nodes {
    /// Starts `n` nodes with this relay; on an SQLite file of their own when no database is named.
    pub async fn start(n: u32, relay_url: &str, database: Option<&SecretUrl>) -> Result<Self, Failed> {
        let home = Home::make(None)?;
        let key = new_key()?;
        let mut config = config(home.path(), "127.0.0.1:0", &key, relay_url)?;
        if let Some(url) = database {
            config.database.url = url.clone();
        }
        let mut apps = Vec::new();
        for i in 0..n {
            let roles = Roles {
                web: i == 0,
                worker: true,
            };
            apps.push(App::start(&config, roles).await?);
        }
        let addr = apps.first().and_then(App::web_addr);
        let api = Api::new(&ServerArgs {
            server: addr.map(|addr| format!("http://{addr}/")),
            key: Some(key),
        })?;
        Ok(Self { apps, api, home })
    }

    /// The database that they share.
    pub fn store(&self) -> std::sync::Arc<dyn Store> {
        self.apps[0].store()
    }

    /// The time as the nodes know it.
    pub fn now(&self) -> crate::domain::time::Timestamp {
        self.apps[0].clock().now()
    }

    /// Sends one broadcast to `n` recipients, and returns its id.
    pub async fn send(&self, n: u64, seed: u64) -> Result<String, Failed> {
        let letter = json!({
            "from": { "email": "news@sender.example", "name": "News" },
            "subject": "Number {{ name }}",
            "text": "Dear {{ name }},\n\nthere is news.\n",
        });
        let mut body = format!("{letter}\n");
        for i in 0..n {
            let domain = (i ^ seed) % 997;
            body.push_str(&format!("{{\"email\":\"reader{i}@d{domain}.example\",\"name\":\"Reader {i}\"}}\n"));
        }
        let key = format!("bench-{:016x}", fastrand::u64(..));
        let (_, receipt) = self
            .api
            .post_broadcast::<serde_json::Value>(body.into(), "application/x-ndjson", &key)
            .await
            .map_err(|e| e.into_failed(self.api.base()))?;
        Ok(receipt["id"].as_str().unwrap_or_default().to_owned())
    }

    /// The orderly end, of all at once.
    pub async fn stop(self) -> Result<(), Failed> {
        let ends = self.apps.into_iter().map(App::shut_down);
        for end in futures_util::future::join_all(ends).await {
            end?;
        }
        self.home.leave(true);
        Ok(())
    }
}
