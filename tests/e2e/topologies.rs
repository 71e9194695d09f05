//! The binary over TLS, by sentinels, on a cluster, and as users with few rights (F27–F31).

use std::time::{Duration, Instant};

use serde_json::json;
use windlass_jobs::{NewJob, State};
use windlass_testkit::{
    Certificates, RedisCluster, RedisSentinels, RedisServer, shared_cluster, shared_redis, shared_sentinels,
    shared_tls_redis,
};

use crate::faults::{Direct, sleep_job};
use crate::harness::{Home, SOON, wait};

fn at(url: &str) -> Home {
    let prefix = format!("t{}", windlass_jobs::new_ulid().to_string().to_ascii_lowercase());
    Home::embedded().with("REDIS_URL", url).with("WINDLASS_QUEUE_PREFIX", &prefix).with("WINDLASS_LEASE_MS", "2000")
}

fn over_tls() -> Home {
    let (server, certificates) = shared_tls_redis();
    at(&server.url()).with("REDIS_SSL_CA_CERTS", certificates.ca().to_str().unwrap())
}

fn chart() -> String {
    let candles = json!({ "t": [0, 86_400_000], "o": [1, 2], "h": [3, 4], "l": [1, 1], "c": [2, 3] });
    json!({ "symbol": "X", "interval": "1d", "candles": candles }).to_string()
}

/// A job with files, done by a worker, and what `doctor` says.
#[test]
fn every_topology_does_a_job_with_files() {
    let homes = [over_tls(), at(&shared_sentinels().url()), at(&shared_cluster().url())];
    for home in homes {
        let (_up, url) = home.serve(&["up"]);
        let id = home.enqueue("chart.render", &chart(), &[]);
        let task = home.wait_for(&id, "success");
        assert_eq!(task["result"]["artifacts"][0]["media_type"], "image/png", "{url}: {task:#}");
        let out = home.path().join("out");
        let ran = home.run(&[
            "enqueue",
            "chart.render",
            "--args",
            home.file("c.json", chart()).to_str().unwrap(),
            "--wait",
            "--out",
            out.to_str().unwrap(),
        ]);
        assert!(ran.status.success(), "{ran:?}");
        assert!(std::fs::read_dir(&out).unwrap().count() > 0);
        let doctor = home.run(&["doctor"]);
        assert!(doctor.stdout.contains("version 7") && doctor.stdout.contains("noeviction"), "{doctor:?}");
    }
}

/// F27 under load: jobs are put and done while the primary is replaced, then killed.
#[test]
fn f27_a_worker_goes_on_after_a_fail_over() {
    let set = RedisSentinels::start(2);
    let home = at(&set.url());
    let direct = Direct::to(&home, "probe");
    let mut worker = home.worker("probe", &["--slots", "4"]);
    let put = |n: usize| -> (usize, Duration) {
        let (mut longest, mut accepted, mut last) = (Duration::ZERO, 0, Instant::now());
        while accepted < n {
            let job = sleep_job(5);
            if direct
                .runtime
                .block_on(windlass_broker::Enqueue::enqueue(direct.broker.as_ref(), &direct.queue, &[job]))
                .is_ok()
            {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                accepted += 1;
            }
            assert!(last.elapsed() < Duration::from_secs(15), "not resumed within 15 s");
            std::thread::sleep(Duration::from_millis(10));
        }
        (accepted, longest)
    };
    put(20);
    set.fail_over();
    let (_, gap) = put(20);
    println!("a commanded fail-over: longest gap {gap:?}");
    set.primary().kill();
    let (_, gap) = put(20);
    println!("a killed primary: longest gap {gap:?}");
    direct.wait_drained(SOON);
    let begun = Instant::now();
    wait(SOON, "the worker took jobs of the new primary", || direct.counts().success_total >= 20);
    println!("drained {:?} later, {} of 60 are known", begun.elapsed(), direct.counts().success_total);
    assert!(worker.is_up());
}

/// F29: a queue's slot moves to another node and a node dies, with work going on.
#[test]
fn f29_a_worker_goes_on_while_a_slot_moves_and_a_node_dies() {
    let cluster = RedisCluster::start(3, 1);
    let home = at(&cluster.url());
    let direct = Direct::to(&home, "probe");
    let mut worker = home.worker("probe", &["--slots", "4"]);
    let jobs: Vec<NewJob> = (0..40).map(|_| sleep_job(50)).collect();
    let ids = direct.enqueue(&jobs);
    let key = format!("{}:{{probe}}:meta", direct.prefix);
    cluster.move_slot_of(&key);
    direct.wait_drained(SOON);
    assert!(ids.iter().all(|id| direct.get(id).state == State::Success));
    assert!(!worker.log().contains("CROSSSLOT"), "{}", worker.log());

    cluster.holder(&key).kill();
    let begun = Instant::now();
    let more = sleep_job(5);
    wait(SOON, "the queue answers again", || {
        direct
            .runtime
            .block_on(windlass_broker::Enqueue::enqueue(
                direct.broker.as_ref(),
                &direct.queue,
                std::slice::from_ref(&more),
            ))
            .is_ok()
    });
    println!("enqueued {:?} after a node was killed", begun.elapsed());
    wait(SOON, "the worker took it", || direct.get(&direct.id(&more)).state == State::Success);
    assert!(worker.is_up());
}

/// F30: a password is changed under a worker; it says so without it, and goes on when it fits again.
#[test]
fn f30_a_worker_outlives_a_changed_password() {
    let server = RedisServer::start();
    let home = at(&server.url());
    let direct = Direct::to(&home, "probe");
    direct.call(&["ACL", "SETUSER", "app", "on", ">geheimnis", "~*", "&*", "+@all"]);
    let home = home.with("REDIS_URL", &server.url().replace("redis://", "redis://app:geheimnis@"));
    let mut worker = home.worker("probe", &[]);
    direct.call(&["ACL", "DELUSER", "app"]);
    wait(SOON, "the log names the reason", || worker.log().contains("wrong user or password"));
    direct.call(&["ACL", "SETUSER", "app", "on", ">geheimnis", "~*", "&*", "+@all"]);
    let id = direct.enqueue(&[sleep_job(1)]).remove(0);
    wait(SOON, "the job is done", || direct.get(&id).state == State::Success);
    assert!(worker.is_up() && !worker.log().contains("geheimnis"), "{}", worker.log());
}

/// F31: an expired certificate is named; the renewed one is taken without a restart.
#[test]
fn f31_a_worker_takes_a_renewed_certificate() {
    let certificates = Certificates::new();
    let server = RedisServer::builder().tls(&certificates).start();
    let home = at(&server.url()).with("REDIS_SSL_CA_CERTS", certificates.ca().to_str().unwrap());
    let mut worker = home.worker("probe", &[]);
    certificates.renew_server("localhost", windlass_testkit::Validity::Past);
    server.restart();
    wait(SOON, "the log names the reason", || worker.log().contains("certificate has expired"));
    certificates.renew_server("localhost", windlass_testkit::Validity::Now);
    server.restart();
    let id = home.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&id, "success");
    assert!(worker.is_up());
}

/// `doctor` says what keeps Redis from answering, and what to do about it.
#[test]
fn doctor_explains_what_is_wrong_with_redis() {
    let (tls, certificates) = shared_tls_redis();
    let closed = RedisServer::start();
    let closed_url = closed.url();
    drop(closed);
    let locked = RedisServer::builder().arg("requirepass", "geheim").start();
    let plain = shared_redis().port();
    let strangers = Certificates::new();
    let ca = |certificates: &Certificates| certificates.ca().to_str().unwrap().to_owned();
    let check = |url: &str, ca: Option<String>, parts: &[&str]| {
        let mut home = at(url).with("REDIS_SOCKET_CONNECT_TIMEOUT", "3");
        if let Some(ca) = ca {
            home = home.with("REDIS_SSL_CA_CERTS", &ca);
        }
        let ran = home.run(&["doctor"]);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(parts.iter().all(|part| ran.stdout.contains(part)), "{url}: {}", ran.stdout);
        assert!(!ran.stdout.contains("geheim"), "{}", ran.stdout);
    };
    check(&closed_url, None, &["connection refused", "REDIS_PORT"]);
    check(&locked.url(), None, &["wants a password", "REDIS_PASSWORD"]);
    check(&locked.url().replace("//", "//:falsch@"), None, &["wrong user or password", "ACL LIST"]);
    check(&format!("rediss://localhost:{plain}"), Some(ca(certificates)), &["fail  redis", "speak TLS", "redis://"]);
    check(&format!("redis://localhost:{}", tls.port()), None, &["does not speak plain Redis", "rediss://"]);
    check(&tls.url(), Some(ca(&strangers)), &["unknown authority", "REDIS_SSL_CA_CERTS"]);
    let by_address = format!("rediss://127.0.0.1:{}", tls.port());
    check(&by_address, Some(ca(certificates)), &["another name", "signed for this one"]);
    check("redis+sentinel://127.0.0.1:1/mymaster", None, &["no sentinel names a primary", "REDIS_SENTINEL_SERVICE"]);
}

/// The whole binary under the users of `deploy/redis`: they may do what it does, and no more.
#[test]
fn the_users_of_deploy_suffice() {
    let folder = tempfile::tempdir().unwrap();
    let line = |name: &str| {
        let path = format!("{}/../../deploy/redis/{name}.acl", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let users = format!("user default off\n{}{}{}", line("worker"), line("producer"), line("dashboard"));
    let file = folder.path().join("users.acl");
    std::fs::write(&file, users).unwrap();
    let server = RedisServer::builder().acl_file(&file).start();
    let home = |name: &str| {
        let url = server.url().replace("//", &format!("//windlass-{name}:change-me@"));
        Home::embedded().with("REDIS_URL", &url).with("ENVIRONMENT", "staging")
    };
    let (up, _) = home("worker").serve(&["up"]);
    let producer = home("producer");
    let id = producer.enqueue("chart.render", &chart(), &[]);
    producer.wait_for(&id, "success");
    let looker = home("dashboard");
    let task = looker.task(&id);
    assert_eq!(task["status"], "success");
    for words in [&["queues"][..], &["workers"], &["tasks", "chart", "--state", "success"], &["kinds", "--published"]] {
        let ran = looker.run(words);
        assert!(ran.status.success(), "{words:?}: {ran:?}");
    }
    let later = producer.enqueue("probe.noop", "{}", &["--delay", "1h"]);
    for words in [&["pause", "chart"][..], &["cancel", &later], &["enqueue", "probe.noop"]] {
        let ran = looker.run(words);
        assert!(!ran.status.success() && ran.stderr.contains("this user may not do that"), "{words:?}: {ran:?}");
    }
    let _ = home("worker").run(&["queues"]);
    assert!(!up.log().contains("may not do that"), "{}", up.log());
}

/// A Redis of one environment is not another's.
#[test]
fn a_marked_redis_refuses_another_environment() {
    let home = at(&shared_redis().url());
    let staging = Home::clone_of(&home).with("ENVIRONMENT", "staging");
    let mut first = staging.worker("probe", &[]);
    let production = Home::clone_of(&home).with("ENVIRONMENT", "production");
    let ran = production.run(&["worker", "--queues", "probe"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    for part in ["environment", "staging", "production", "WINDLASS_ANY_ENVIRONMENT"] {
        assert!(ran.stderr.contains(part), "{ran:?}");
    }
    let mut allowed = production.with("WINDLASS_ANY_ENVIRONMENT", "true").worker("probe", &[]);
    assert!(first.is_up() && allowed.is_up());
}

/// F21 as managed servers come: keys with a time to live are evicted and `CONFIG` is denied. The start
/// goes on, with a line that names what to change and the switch.
#[test]
fn f21_managed_defaults_are_a_warning() {
    let server = RedisServer::builder().max_memory("100mb", "volatile-lru").start();
    let admin = Direct::to(&at(&server.url()), "probe");
    admin.call(&["ACL", "SETUSER", "managed", "on", ">pw", "~*", "&*", "+@all", "-config"]);
    let home = at(&server.url().replace("//", "//managed:pw@"));
    let worker = home.worker("probe", &[]);
    for part in ["volatile-lru", "noeviction", "provider's console", "WINDLASS_ALLOW_EVICTION"] {
        assert!(worker.log().contains(part), "{part}: {}", worker.log());
    }
    let id = home.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&id, "success");
    let known = home.with("WINDLASS_ALLOW_EVICTION", "true").worker("probe", &[]);
    let warned = |line: &str| line.contains("WARN") && line.contains("volatile-lru");
    assert!(!known.log().lines().any(warned), "{}", known.log());
}
