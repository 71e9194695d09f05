//! A real browser: headless Chromium through ChromeDriver, by the few commands of the WebDriver
//! protocol (W3C, level 2) that tests need.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::spawn;

/// How long the browser may take to start, and a condition to hold.
const PATIENCE: Duration = Duration::from_secs(30);
/// The name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser window with a profile of its own; it ends with the value.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    _profile: TempDir,
}

impl Browser {
    /// Starts ChromeDriver and a window of 1280 × 900.
    ///
    /// # Panics
    /// When `chromedriver` or `chromium` is not there or does not start.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a port").port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = spawn(command).expect("chromedriver (Debian: apt install chromium chromium-driver)");
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        let agent: ureq::Agent = config.build().into();
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let mut browser = Self { driver, session: String::new(), agent, _profile: profile };
        let root = format!("http://127.0.0.1:{port}/session");
        let wanted = capabilities(browser._profile.path());
        let begun = Instant::now();
        // Until ChromeDriver listens.
        let answer = loop {
            match browser.agent.post(&root).send_json(&wanted) {
                Ok(mut answer) => break answer.body_mut().read_json::<Value>().expect("an answer of ChromeDriver"),
                Err(error) => assert!(begun.elapsed() < PATIENCE, "ChromeDriver does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("Chromium does not start: {answer}"));
        browser.session = format!("{root}/{id}");
        browser
    }

    /// Opens an address and waits until the page is loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// The address of the page that is open.
    #[must_use]
    #[track_caller]
    pub fn url(&self) -> String {
        self.get("url").as_str().unwrap_or_default().to_owned()
    }

    /// What a function's body returns in the page.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of the page as a reader sees it.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page's text has this in it.
    #[track_caller]
    pub fn wait_for_text(&self, wanted: &str) {
        self.wait(&format!("the page says {wanted:?}"), || self.text().contains(wanted));
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(
                begun.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}; the page at {}:\n{}",
                self.url(),
                self.text()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Clicks the first element of a CSS selector, or of an XPath that begins with `//`, once it is
    /// there.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let mut clicked = false;
        // A live page may replace the element between the two commands.
        self.wait(&format!("{selector} can be clicked"), || {
            if let Some(element) = self.find(selector) {
                clicked = self.try_post(&format!("element/{element}/click"), &json!({})).is_ok();
            }
            clicked
        });
    }

    /// Types into the first element of a selector.
    #[track_caller]
    pub fn type_into(&self, selector: &str, text: &str) {
        let mut typed = false;
        self.wait(&format!("{selector} can be typed into"), || {
            if let Some(element) = self.find(selector) {
                typed = self.try_post(&format!("element/{element}/value"), &json!({ "text": text })).is_ok();
            }
            typed
        });
    }

    /// What the browser's console said of errors since it was last asked.
    #[track_caller]
    pub fn errors(&self) -> Vec<String> {
        let log = self.post("se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().cloned().unwrap_or_default();
        let bad = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The window's size, in CSS pixels.
    #[track_caller]
    pub fn resize(&self, width: u32, height: u32) {
        self.post("window/rect", &json!({ "width": width, "height": height }));
    }

    /// Light or dark, as the system would say it.
    #[track_caller]
    pub fn prefer_dark(&self, dark: bool) {
        let features = json!([{ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } }]);
        let params = json!({ "features": features });
        self.post("goog/cdp/execute", &json!({ "cmd": "Emulation.setEmulatedMedia", "params": params }));
    }

    /// A picture of the window, as PNG.
    ///
    /// # Panics
    /// When the browser gives none.
    #[must_use]
    #[track_caller]
    pub fn screenshot(&self) -> Vec<u8> {
        use base64::Engine as _;
        let text = self.get("screenshot");
        base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap_or_default()).expect("base64")
    }

    #[track_caller]
    fn find(&self, selector: &str) -> Option<String> {
        let using = if selector.starts_with("//") { "xpath" } else { "css selector" };
        let found = self.try_post("element", &json!({ "using": using, "value": selector })).ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let answer = self.agent.get(format!("{}/{path}", self.session)).call();
        let mut answer = answer.unwrap_or_else(|e| panic!("ChromeDriver: {path}: {e}"));
        answer.body_mut().read_json::<Value>().expect("JSON")["value"].take()
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).unwrap_or_else(|e| panic!("ChromeDriver: {path}: {e}"))
    }

    fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let answer = self.agent.post(format!("{}/{path}", self.session)).send_json(body);
        let mut answer = answer.map_err(|e| e.to_string())?;
        let mut text = String::new();
        answer.body_mut().as_reader().read_to_string(&mut text).map_err(|e| e.to_string())?;
        let mut value: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        if answer.status() == 200 { Ok(value["value"].take()) } else { Err(value["value"]["message"].to_string()) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium and all its processes; ChromeDriver alone would leave them.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A headless Chromium that looks up nothing of its own.
fn capabilities(profile: &std::path::Path) -> Value {
    let args = json!([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,900",
        format!("--user-data-dir={}", profile.display()),
    ]);
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": { "args": args },
        "goog:loggingPrefs": { "browser": "SEVERE" },
    } } })
}
