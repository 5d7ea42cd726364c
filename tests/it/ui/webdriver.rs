//! A real Chromium, without a screen, driven by its own driver. Ends with the test that started it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};

/// Chromium and its driver, and the directory with its profile.
pub struct Browser {
    pub client: Client,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts what `CHROMEDRIVER` and `CHROMIUM` name, or what Debian installs.
    pub async fn start() -> Self {
        let program = |variable: &str, usual: &str| std::env::var(variable).unwrap_or_else(|_| usual.to_owned());
        let mut driver = Command::new(program("CHROMEDRIVER", "/usr/bin/chromedriver"))
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver is installed (Debian: chromium-driver)");
        let port = port_of(&mut driver);
        let profile = tempfile::tempdir().unwrap();
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let options = json!({ "binary": program("CHROMIUM", "/usr/bin/chromium"), "args": args });
        let mut capabilities = serde_json::Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        let client = ClientBuilder::rustls()
            .unwrap()
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromium is installed and starts");
        Self {
            client,
            driver,
            _profile: profile,
        }
    }

    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.client.wait().for_element(Locator::Css(css)).await.expect(css);
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Chooses one value of a list.
    pub async fn choose(&self, css: &str, value: &str) {
        let list = self.client.wait().for_element(Locator::Css(css)).await.expect(css);
        list.select_by_value(value).await.expect(value);
    }

    /// Presses what is found and waits until another page is there.
    pub async fn press(&self, css: &str) {
        let before = self.client.find(Locator::Css("html")).await.unwrap();
        self.client
            .find(Locator::Css(css))
            .await
            .expect(css)
            .click()
            .await
            .unwrap();
        for _ in 0..500 {
            if before.tag_name().await.is_err() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.client.wait().for_element(Locator::Css("main")).await.unwrap();
    }

    /// Waits until the page has an element, for as long as a browser and a database may take.
    pub async fn wait_for(&self, css: &str) {
        let patience = std::time::Duration::from_secs(120);
        self.client
            .wait()
            .at_most(patience)
            .for_element(Locator::Css(css))
            .await
            .expect(css);
    }

    pub async fn text(&self, css: &str) -> String {
        self.wait_for(css).await;
        self.client
            .find(Locator::Css(css))
            .await
            .expect(css)
            .text()
            .await
            .unwrap()
    }

    /// The texts of these elements at one moment, while the page may change; empty where there is none.
    pub async fn texts(&self, css: &[&str]) -> Vec<String> {
        let script = "return arguments[0].map((css) => document.querySelector(css)?.innerText ?? '')";
        let found = self.client.execute(script, vec![json!(css)]).await.unwrap();
        serde_json::from_value(found).unwrap()
    }

    /// The height of the page, as far as a picture of it can still be looked at.
    async fn height(&self) -> i64 {
        let script = "return document.documentElement.scrollHeight";
        self.client
            .execute(script, vec![])
            .await
            .unwrap()
            .as_i64()
            .unwrap()
            .clamp(600, 1_300)
    }

    /// Photographs the page, wide and narrow, by day and by night, into `target/screenshots`.
    pub async fn shoot(&self, name: &str) {
        for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)] {
            self.cdp(
                "Emulation.setEmulatedMedia",
                json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
            )
            .await;
            let size = json!({ "width": width, "height": 860, "deviceScaleFactor": 1, "mobile": width < 500 });
            self.cdp("Emulation.setDeviceMetricsOverride", size).await;
            let clip = json!({ "x": 0, "y": 0, "width": width, "height": self.height().await, "scale": 1 });
            let shot = self
                .cdp("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "clip": clip }))
                .await;
            let png = base64::engine::general_purpose::STANDARD
                .decode(shot["data"].as_str().unwrap())
                .unwrap();
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{name}-{width}-{scheme}.png")), png).unwrap();
        }
        self.cdp("Emulation.clearDeviceMetricsOverride", json!({})).await;
    }

    /// Whether the page is wider than the screen: something sticks out.
    pub async fn overflow(&self, width: u32) -> i64 {
        let size = json!({ "width": width, "height": 860, "deviceScaleFactor": 1, "mobile": true });
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
        let script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let over = self.client.execute(script, vec![]).await.unwrap();
        self.cdp("Emulation.clearDeviceMetricsOverride", json!({})).await;
        over.as_i64().unwrap()
    }

    async fn cdp(&self, cmd: &'static str, params: Value) -> Value {
        self.client.issue_cmd(Cdp { cmd, params }).await.expect(cmd)
    }

    pub async fn close(self) {
        self.client.clone().close().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The driver chooses a free port and says which.
fn port_of(driver: &mut Child) -> u16 {
    let lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
    lines
        .map_while(Result::ok)
        .filter(|line| line.contains("successfully"))
        .find_map(|line| line.split_once("on port ")?.1.trim_end_matches('.').parse().ok())
        .expect("chromedriver says its port")
}

/// A command of the browser's own protocol, which knows more than WebDriver.
#[derive(Debug)]
struct Cdp {
    cmd: &'static str,
    params: Value,
}

impl WebDriverCompatibleCommand for Cdp {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (reqwest::Method, Option<String>) {
        (reqwest::Method::POST, Some(json!({ "cmd": self.cmd, "params": self.params }).to_string()))
    }
}
