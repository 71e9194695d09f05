//! Records of the real binary: in PostgreSQL, and as a file.

use serde_json::Value;
use windlass_testkit::{RedisServer, shared_postgres};

use crate::faults::Direct;
use crate::harness::{Home, SOON, wait};

fn count(home: &Home, words: &[&str], what: &str) -> usize {
    home.json(words)[what].as_array().map_or(0, Vec::len)
}

fn key(home: &Home) -> Value {
    home.json(&["keys", "create", "--name", "k", "--scope", "jobs:read"])
}

fn fill(home: &Home) -> Value {
    home.json(&["schedule", "add", "tidy", "--plan", "@every 1h", "--kind", "probe.noop"]);
    home.json(&["schedule", "run", "tidy"]);
    key(home)
}

/// F18: in PostgreSQL, keys, schedules and the audit log outlive everything Redis loses, also the folder
/// with copies.
#[test]
fn f18_records_in_postgres_survive_a_flushall() {
    let (redis, postgres) = (RedisServer::start(), shared_postgres());
    let home = Home::on(&redis).with("WINDLASS_RECORDS_DATABASE_URL", &postgres.database());
    let made = fill(&home);
    Direct::to(&home, "probe").call(&["FLUSHALL"]);
    let other = Home::clone_of(&home).without("WINDLASS_LOOPBACK_ACCESS");
    assert_eq!((count(&other, &["keys", "list"], "keys"), count(&other, &["audit"], "entries")), (1, 1));
    assert!(other.run(&["schedule", "list", "--json"]).stdout.contains("tidy"));
    let (_api, url) = other.serve(&["api"]);
    let bearer = format!("Bearer {}", made["key"].as_str().unwrap());
    wait(SOON, "the key counts", || {
        ureq::get(format!("{url}/api/queues")).header("authorization", &bearer).call().is_ok()
    });
    let files = std::fs::read_dir(other.path().join("windlass-data")).map_or(0, |dir| {
        dir.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("records")).count()
    });
    assert_eq!(files, 0, "no copy is kept of what cannot be lost");
}

/// Records go as a file from any store to any other.
#[test]
fn records_are_exported_and_imported() {
    let (redis, postgres) = (RedisServer::start(), shared_postgres());
    let embedded = Home::embedded();
    let on_redis = Home::on(&redis);
    let on_postgres = Home::embedded().with("WINDLASS_RECORDS_DATABASE_URL", &postgres.database());
    fill(&embedded);
    let stores = [embedded, on_redis, on_postgres, Home::embedded()];
    for pair in stores.windows(2) {
        let file = pair[0].path().join("records.json");
        let file = file.to_str().unwrap();
        pair[0].json(&["records", "export", file]);
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(file).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        pair[1].json(&["records", "import", file]);
        assert_eq!(pair[0].json(&["keys", "list"])["keys"], pair[1].json(&["keys", "list"])["keys"]);
        let lists = pair.iter().map(|home| home.run(&["schedule", "show", "tidy", "--json"]).stdout);
        assert!(lists.clone().all(|text| text.contains("probe.noop")), "{:?}", lists.collect::<Vec<_>>());
        let audit = pair[1].json(&["audit"]);
        assert_eq!(audit["entries"][0]["action"], "records import");
        assert_eq!(audit["entries"].as_array().unwrap().last().unwrap()["action"], "keys create");
    }
    // What is there stays, unless it is to be replaced.
    let (old, home) = (stores[3].path().join("old.json"), &stores[3]);
    let old = old.to_str().unwrap();
    home.json(&["records", "export", old]);
    let id = home.json(&["keys", "list"])["keys"][0]["id"].as_str().unwrap().to_owned();
    home.json(&["keys", "revoke", &id]);
    let status = || home.json(&["keys", "list"])["keys"][0]["status"].clone();
    home.json(&["records", "import", old]);
    assert_eq!(status(), "revoked");
    home.json(&["records", "import", old, "--replace"]);
    assert_eq!(status(), "live");
    let wrong = home.file("wrong.json", "{\"windlass_records\": 2}");
    assert_ne!(home.run(&["records", "import", wrong.to_str().unwrap()]).status.code(), Some(0));
}
