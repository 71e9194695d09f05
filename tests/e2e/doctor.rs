//! `windlass doctor`: what it tries, what it names, and the checklist for production.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::Value;
use windlass_jobs::NewJob;
use windlass_testkit::{Certificates, RedisServer, shared_postgres, shared_redis};

use crate::faults::Direct;
use crate::harness::{Home, Ran};

fn row<'a>(found: &'a Value, name: &str) -> &'a Value {
    let rows = found["findings"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no row {name}: {found:#}"))
}

fn look(home: &Home, more: &[&str]) -> (Ran, Value) {
    let ran = home.run(&[&["doctor", "--json"], more].concat());
    let found = ran.json();
    (ran, found)
}

#[track_caller]
fn holds(found: &Value, name: &str, health: &str, parts: &[&str]) {
    let row = row(found, name);
    let text = row["found"].as_str().unwrap();
    assert!(row["health"] == health && parts.iter().all(|part| text.contains(part)), "{name}: {row:#}");
}

/// Every store is written, read and cleaned; a job runs; a job that nobody can run is named.
#[test]
fn doctor_tries_every_store_and_runs_a_job() {
    for home in [Home::embedded(), Home::on(shared_redis())] {
        let (ran, found) = look(&home, &[]);
        assert!(ran.status.success(), "{found:#}");
        for name in ["images", "records", "cache"] {
            holds(&found, name, "ok", &["written, read and deleted"]);
        }
        holds(&found, "artifacts", "ok", &["written and read"]);
        // Well or not, as the disk of this machine is.
        let room = row(&found, "data_dir_room");
        assert!(room["found"].as_str().unwrap().contains("MiB free"), "{room:#}");
        holds(&found, "workers", "warn", &["windlass worker"]);
        assert_eq!(home.json(&["queues"])["queues"][0]["counts"]["pending"], 0, "nothing is left behind");
    }
    let home = Home::on(shared_redis());
    let worker = home.worker("probe", &[]);
    let direct = Direct::to(&home, "elsewhere");
    direct.enqueue(&[NewJob::new("nobody.knows", &serde_json::json!({})).unwrap()]);
    let (_, found) = look(&home, &[]);
    holds(&found, "job", "ok", &["put, run, read and deleted"]);
    holds(&found, "workers", "ok", &["1 with"]);
    holds(&found, "kinds", "warn", &["1 of nobody.knows on elsewhere"]);
    holds(&found, "clock", "ok", &["differ by"]);
    holds(&found, "redis", "ok", &["answers in"]);
    drop(worker);
}

/// What the table of `docs/operations.md` says about Redis, beyond what a connection shows.
#[test]
fn doctor_explains_a_full_a_deaf_and_a_strict_redis() {
    let server = RedisServer::start();
    let direct = Direct::to(&Home::on(&server), "probe");
    let fails = |url: &str, name: &str, parts: &[&str]| {
        let home = Home::at(url).with("REDIS_SOCKET_CONNECT_TIMEOUT", "1").with("REDIS_SOCKET_TIMEOUT", "1");
        let (ran, found) = look(&home, &[]);
        assert_eq!(ran.status.code(), Some(1), "{found:#}");
        holds(&found, name, "fail", parts);
    };
    direct.call(&["ACL", "SETUSER", "narrow", "on", ">pw", "~*", "&*", "+ping", "+info", "+hello"]);
    fails(&server.url().replace("//", "//narrow:pw@"), "store", &["may not do that", "deploy/redis"]);
    direct.call(&["CONFIG", "SET", "maxmemory", "1"]);
    fails(&server.url(), "job", &["full", "raise maxmemory"]);
    direct.call(&["CONFIG", "SET", "maxmemory", "0"]);
    direct.call(&["REPLICAOF", "127.0.0.1", "1"]);
    fails(&server.url(), "job", &["replica", "REDIS_SENTINELS"]);
    fails("redis://nowhere.invalid", "redis", &["has no address", "REDIS_HOST"]);
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    fails(&format!("redis://{}", deaf.local_addr().unwrap()), "redis", &["in time", "firewall"]);
}

/// PostgreSQL, there and away.
#[test]
fn doctor_asks_postgresql() {
    let server = shared_postgres();
    let url = server.database();
    let with = |url: &str| {
        let home = Home::embedded().with("WINDLASS_MARKET_DATABASE_URL", url);
        home.with("WINDLASS_RECORDS_DATABASE_URL", url)
    };
    let (ran, found) = look(&with(&url), &[]);
    assert!(ran.status.success(), "{found:#}");
    holds(&found, "market_database", "ok", &["answers in"]);
    holds(&found, "records", "ok", &["written, read and deleted"]);
    let (ran, found) = look(&with("postgres://u:geheim@127.0.0.1:1/db"), &[]);
    assert_eq!(ran.status.code(), Some(1));
    holds(&found, "market_database", "fail", &["127.0.0.1:1", "refused", "WINDLASS_MARKET_DATABASE_URL"]);
    assert_eq!(row(&found, "records")["health"], "fail");
    assert!(!ran.stdout.contains("geheim"), "{found:#}");
}

/// The checklist: everything is missed on a bare Redis, and nothing where all is done.
#[test]
fn the_production_checklist_names_what_is_missing() {
    let bare = RedisServer::start();
    let home = Home::on(&bare);
    let (ran, found) = look(&home, &["--production", "--api", "http://127.0.0.1:1"]);
    assert_eq!(ran.status.code(), Some(1));
    holds(&found, "persistence", "fail", &["appendonly yes"]);
    holds(&found, "password", "fail", &["REDIS_PASSWORD"]);
    holds(&found, "acl_user", "fail", &["deploy/redis/worker.acl"]);
    holds(&found, "environment", "fail", &["ENVIRONMENT=production"]);
    holds(&found, "keys", "fail", &["WINDLASS_LOOPBACK_ACCESS=none"]);
    holds(&found, "metrics", "fail", &["127.0.0.1:1", "--api"]);
    holds(&found, "workers", "fail", &["none is up"]);
    holds(&found, "alerts", "warn", &["--prometheus"]);
    let (_, plain) =
        look(&Home::at("redis://192.0.2.1").with("REDIS_SOCKET_CONNECT_TIMEOUT", "0.2"), &["--production"]);
    holds(&plain, "tls", "fail", &["rediss://"]);

    let certificates = Certificates::new();
    let folder = tempfile::tempdir().unwrap();
    let acl = format!("{}/../../deploy/redis/worker.acl", env!("CARGO_MANIFEST_DIR"));
    let file = folder.path().join("users.acl");
    std::fs::write(&file, format!("user default off\n{}", std::fs::read_to_string(acl).unwrap())).unwrap();
    let server = RedisServer::builder().tls(&certificates).acl_file(&file).append_only("everysec").start();
    let home = Home::embedded()
        .with("REDIS_URL", &server.url().replace("//", "//windlass-worker:change-me@"))
        .with("REDIS_SSL_CA_CERTS", certificates.ca().to_str().unwrap())
        .with("ENVIRONMENT", "production")
        .with("WINDLASS_LOOPBACK_ACCESS", "none")
        .with("WINDLASS_WORKER_LISTEN", "127.0.0.1:0");
    let (_up, url) = home.serve(&["up"]);
    let prometheus = prometheus();
    let (ran, found) = look(&home, &["--production", "--api", &url, "--prometheus", &prometheus]);
    assert!(ran.status.success(), "{found:#}");
    for name in ["tls", "password", "acl_user", "persistence", "environment", "keys", "metrics", "alerts", "workers"] {
        holds(&found, name, "ok", &[]);
    }
    holds(&found, "job", "ok", &["put, run"]);
}

/// Answers every question as a Prometheus does that has the rules; its address.
fn prometheus() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            let n = stream.read(&mut head).unwrap();
            let asked = String::from_utf8_lossy(&head[..n]).into_owned();
            let body = r#"{"status":"success","data":{"groups":[{"name":"windlass","rules":[{"name":"WindlassQueueDown"}]}]}}"#;
            let status = if asked.starts_with("GET /api/v1/rules ") { "200 OK" } else { "404 Not Found" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}
