//! API keys of the real binary: made, used, rotated, revoked, and there after a loss.

use serde_json::{Value, json};
use windlass_testkit::RedisServer;

use crate::faults::Direct;
use crate::harness::{Daemon, Home, SOON, wait};

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// What a GET with a key is answered.
fn status(url: &str, key: &str) -> u16 {
    let request = agent().get(url);
    let request = if key.is_empty() { request } else { request.header("authorization", format!("Bearer {key}")) };
    request.call().unwrap().status().as_u16()
}

fn closed(home: Home) -> Home {
    home.without("WINDLASS_LOOPBACK_ACCESS")
}

/// The key that a start printed.
fn first_key(daemon: &Daemon) -> String {
    let log = daemon.log();
    let key = log.split_whitespace().find(|word| word.starts_with("wl_"));
    key.unwrap_or_else(|| panic!("no key in {log}")).to_owned()
}

fn create(home: &Home, more: &[&str]) -> Value {
    home.json(&[&["keys", "create", "--name", "test"], more].concat())
}

/// Embedded on loopback, reading needs no key; the rest needs the one that is printed once.
#[test]
fn a_first_key_is_printed_once() {
    let home = closed(Home::embedded());
    let (api, url) = home.serve(&["api"]);
    let key = first_key(&api);
    assert_eq!(status(&format!("{url}/api/queues"), ""), 200);
    let job = json!({ "kind": "probe.noop", "args": {} });
    let post = |key: Option<&str>| {
        let request = agent().post(format!("{url}/api/tasks"));
        let request = match key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        };
        request.send_json(&job).unwrap().status().as_u16()
    };
    assert_eq!((post(None), post(Some("wl_wrong")), post(Some(&key))), (401, 401, 202));
    drop(api);
    let (again, url) = home.serve(&["api"]);
    assert!(!again.log().contains("wl_"), "a kept key is not shown again");
    assert_eq!(status(&format!("{url}/api/keys"), &key), 200);
}

/// Anything but loopback needs a key, also to read.
#[test]
fn beyond_loopback_a_key_is_needed() {
    let home = Home::embedded();
    let mut api = home.start(&["api", "--listen", "0.0.0.0:0", "--json"]);
    let address = api.first_line()["api"].as_str().unwrap().replace("0.0.0.0", "127.0.0.1");
    let url = format!("http://{address}/api/queues");
    assert_eq!((status(&url, ""), status(&url, "wl_wrong"), status(&url, &first_key(&api))), (401, 401, 200));
    assert_eq!(status(&format!("http://{address}/api/health"), ""), 200);
}

/// A key made, rotated and revoked on the command line counts in a running API, on both stores, and
/// what was done stands in the audit log.
#[test]
fn keys_of_the_command_line_count_in_a_running_api() {
    let redis = RedisServer::start();
    for home in [closed(Home::embedded()), closed(Home::on(&redis))] {
        let (api, url) = home.serve(&["api"]);
        let admin = first_key(&api);
        let queues = format!("{url}/api/queues");
        let made = create(&home, &["--scope", "jobs:read", "--expires", "1h", "--rate", "1000/s"]);
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        wait(SOON, "the new key counts", || status(&queues, key) == 200);
        assert_eq!(status(&format!("{url}/api/schedules"), key), 403);
        let rotated = home.json(&["keys", "rotate", id, "--overlap", "0s"]);
        let newer = rotated["key"].as_str().unwrap();
        wait(SOON, "the rotated key counts", || status(&queues, newer) == 200);
        assert_eq!(status(&queues, key), 401);
        home.json(&["keys", "revoke", id]);
        wait(SOON, "the revoked key is refused", || status(&queues, newer) == 401);
        let listed = home.json(&["keys", "list"]);
        let text = listed.to_string();
        assert!(!text.contains(&admin) && !text.contains(key) && text.contains("revoked"), "{text}");
        let said = |action: &str| {
            let audit = home.json(&["audit"]);
            audit["entries"].as_array().unwrap().iter().any(|entry| entry["action"] == action)
        };
        assert!(said("keys create") && said("keys rotate") && said("keys revoke"));
        wait(SOON, "the refusal is audited", || said("GET /api/schedules"));
        assert_eq!(home.run(&["keys", "create", "--name", "x", "--scope", "jobs"]).status.code(), Some(2));
    }
}

/// Keys, schedules and the audit log are there again after FLUSHALL, and the keys count meanwhile.
#[test]
fn f18_keys_and_audit_survive_a_flushall() {
    let redis = RedisServer::start();
    let home = closed(Home::on(&redis));
    let (api, url) = home.serve(&["api"]);
    let admin = first_key(&api);
    let made = create(&home, &["--scope", "jobs:read"]);
    let key = made["key"].as_str().unwrap();
    home.json(&["schedule", "add", "tidy", "--plan", "@every 1h", "--kind", "probe.noop"]);
    let queues = format!("{url}/api/queues");
    wait(SOON, "the key counts", || status(&queues, key) == 200);
    let copies = || {
        let dir = std::fs::read_dir(home.path().join("windlass-data")).unwrap();
        let texts = dir.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
        texts.collect::<String>()
    };
    wait(SOON, "all is copied", || {
        let text = copies();
        text.contains(made["id"].as_str().unwrap()) && text.contains("keys create") && text.contains("tidy")
    });
    assert!(!copies().contains(key), "a copy holds no key");
    Direct::to(&home, "probe").call(&["FLUSHALL"]);
    assert_eq!(status(&queues, key), 200);
    wait(SOON, "all is there again", || {
        home.json(&["keys", "list"])["keys"].as_array().unwrap().len() == 2
            && home.json(&["audit"])["entries"].as_array().unwrap().iter().any(|e| e["action"] == "keys create")
            && home.run(&["schedule", "list", "--json"]).stdout.contains("tidy")
    });
    assert_eq!((status(&queues, key), status(&queues, &admin)), (200, 200));
    // A process that starts while Redis is away knows the keys of the copy.
    drop(api);
    redis.freeze();
    let home = home.with("REDIS_SOCKET_TIMEOUT", "1");
    let (_api, url) = home.serve(&["api"]);
    // Known, and refused for want of a scope; 401 were it not.
    wait(SOON, "the copy counts", || status(&format!("{url}/api/audit"), key) == 403);
    redis.thaw();
}
