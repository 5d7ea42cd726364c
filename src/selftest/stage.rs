//! The stage: the database, the relay and the nodes of one test, in a directory of their own. Never leaves a process behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use url::Url;

use super::client::{Client, KEY};
use super::cluster::Cluster;
use super::faults::Fault;
use super::node::{Node, Recipe};
use super::proxy::Proxy;
use super::witness::Witness;
use super::{Database, Plan, Row};
use crate::store::{DatabaseUrl, scratch};

/// Everything a test stands on.
pub struct Stage {
    pub plan: Plan,
    pub random: fastrand::Rng,
    pub witness: Witness,
    pub client: Client,
    pub recipes: Vec<Recipe>,
    /// `None` while a node is down.
    pub nodes: Vec<Option<Node>>,
    /// The line to the database server; SQLite has none.
    pub proxy: Option<Proxy>,
    pub cluster: Option<Cluster>,
    /// Times that tasks measure beside the play.
    pub taken_over_ms: Arc<Mutex<Vec<u64>>>,
    /// The database as this process reaches it, past the proxy.
    pub url: DatabaseUrl,
    pub n_broadcasts: u64,
    pub dir: PathBuf,
    server: Option<(String, String)>,
}

impl Stage {
    /// Sets the stage: everything is up when it returns.
    ///
    /// # Errors
    /// What is missing.
    pub async fn set(plan: &Plan, faults: &[Fault], seed: u64) -> Result<Self, String> {
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = std::env::temp_dir().join(format!("hikyaku-selftest-{:012x}", fastrand::u64(..) >> 16));
        let made = std::fs::create_dir_all(&dir);
        made.map_err(|e| format!("{}: {e}", dir.display()))?;
        let n_nodes = match plan.database {
            Database::Sqlite => 1,
            _ => plan.nodes,
        };
        let (mut cluster, mut server, mut proxy) = (None, None, None);
        let mut place = dir.clone();
        let (url, node_url) = match &plan.database {
            Database::Sqlite => {
                if faults.contains(&Fault::Disk) {
                    place = super::faults::small_disk(&dir)?;
                }
                let url = format!("sqlite://{}/hikyaku.db", place.display());
                (url.clone(), url)
            }
            on_server => {
                let base = match on_server {
                    Database::Own(programs) => {
                        let own = Cluster::make(programs, &dir, faults.contains(&Fault::Failover)).await?;
                        let url = own.url();
                        cluster = Some(own);
                        url
                    }
                    Database::Server(url) => url.clone(),
                    Database::Sqlite => unreachable!("it is another arm"),
                };
                let name = format!("hikyaku_selftest_{:012x}", fastrand::u64(..) >> 16);
                scratch::create(&base, &name).await.map_err(|e| e.to_string())?;
                let (url, line) = through_a_proxy(&base, &name).await?;
                server = Some((base, name));
                let node_url = line.1;
                proxy = Some(line.0);
                (url, node_url)
            }
        };
        let witness = Witness::open(n_nodes, plan.latency, random.u64(..)).await;
        let witness = witness.map_err(|e| format!("the relay cannot listen: {e}"))?;
        let mut recipes = Vec::new();
        for number in 0..n_nodes {
            let mut recipe = recipe(plan, &dir, &place, number, &node_url, witness.addr());
            recipe.environment.extend(super::faults::preload(faults, &dir, number)?);
            recipes.push(recipe);
        }
        let mut stage = Stage {
            plan: plan.clone(),
            random,
            witness,
            client: Client::of(n_nodes),
            nodes: recipes.iter().map(|_| None).collect(),
            recipes,
            proxy,
            cluster,
            taken_over_ms: Arc::default(),
            url: DatabaseUrl::parse(&url)?,
            n_broadcasts: 0,
            dir,
            server,
        };
        stage.write_settings()?;
        for node in 0..n_nodes {
            stage.start(node).await?;
        }
        Ok(stage)
    }

    /// The nodes' settings that have no variable of their own.
    fn write_settings(&self) -> Result<(), String> {
        let lease = self.plan.lease_secs;
        // The relay is cut off on purpose, again and again: each time is an accident of its own.
        let text = format!(
            "[worker]\nlease_secs = {lease}\nheartbeat_secs = {}\n[retry]\ndelays_secs = [1, 2, 4, 8]\n\
             [safety]\ndoubts_max = 1000000\n",
            (lease / 5).max(1)
        );
        let path = self.dir.join("settings.toml");
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Starts a node, which must be down.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(&mut self, node: usize) -> Result<(), String> {
        let up = self.recipes[node].start(|pid| self.witness.expect(node, pid)).await?;
        self.client.set(node, Some(up.url.clone()));
        self.nodes[node] = Some(up);
        Ok(())
    }

    /// A node that is up, by lot.
    pub fn any_node(&mut self) -> usize {
        self.random.usize(0..self.nodes.len())
    }

    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.server.is_none()
    }

    /// Takes everything down. The logs stay when something was wrong.
    ///
    /// # Errors
    /// The play's own.
    pub async fn clear(mut self, played: Result<Row, String>) -> Result<Row, String> {
        self.nodes.clear();
        let taken_over = std::mem::take(&mut *self.taken_over_ms.lock().unwrap_or_else(PoisonError::into_inner));
        let is_good = played.as_ref().is_ok_and(Row::holds);
        if let (Some((base, name)), None) = (&self.server, &self.cluster)
            && is_good
        {
            // The server is a stranger's: what cannot be removed is told, and is no fault of the nodes.
            if let Err(e) = scratch::remove(base, name).await {
                tracing::warn!(%e, "The database {name} is left behind");
            }
        }
        drop(self.cluster.take());
        super::faults::remove_small_disk(&self.dir);
        if is_good {
            // A directory that is left behind harms nobody.
            drop(std::fs::remove_dir_all(&self.dir));
        }
        let dir = self.dir.display().to_string();
        let mut row = played.map_err(|e| format!("{e}\nThe nodes' logs are in {dir}"))?;
        if !is_good {
            row.remarks.push(format!("logs in {dir}"));
        }
        row.taken_over_ms = taken_over;
        Ok(row)
    }
}

/// The URL of a database on a server, the line to it, and the same URL along that line.
async fn through_a_proxy(base: &str, name: &str) -> Result<(String, (Proxy, String)), String> {
    let mut url = Url::parse(base).map_err(|e| format!("the database URL: {e}"))?;
    url.set_path(name);
    let host = url.host_str().unwrap_or("127.0.0.1").to_owned();
    let found = tokio::net::lookup_host((host.as_str(), url.port().unwrap_or(5432))).await;
    let target = found.map_err(|e| format!("{host}: {e}"))?.next();
    let proxy = Proxy::to(target.ok_or_else(|| format!("{host} has no address"))?).await;
    let proxy = proxy.map_err(|e| format!("the line to the database: {e}"))?;
    let mut along = url.clone();
    let set = (along.set_ip_host(proxy.addr().ip()), along.set_port(Some(proxy.addr().port())));
    if set != (Ok(()), Ok(())) {
        return Err("the database URL takes no other address".to_owned());
    }
    Ok((url.into(), (proxy, along.into())))
}

fn recipe(plan: &Plan, dir: &Path, place: &Path, number: usize, database: &str, relay: SocketAddr) -> Recipe {
    let set = |name: &str, value: String| (format!("HIKYAKU_{name}"), value);
    let rate = plan
        .rate_per_sec
        .map_or_else(String::new, |rate| format!("&rate={rate}"));
    Recipe {
        program: plan.program.clone(),
        dir: dir.to_owned(),
        number,
        environment: vec![
            set("DATA_DIR", place.join(format!("data-{number}")).display().to_string()),
            set("CONFIG", dir.join("settings.toml").display().to_string()),
            set("API_KEY", KEY.to_owned()),
            set("LOG", "warn".to_owned()),
            set("DATABASE_URL", database.to_owned()),
            set("RELAY_URL", format!("smtp://{relay}?connections={}{rate}", plan.connections)),
        ],
    }
}
