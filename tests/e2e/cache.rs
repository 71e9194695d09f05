//! Results that spare runs, and blobs that jobs hold, with the real binary.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_testkit::{RedisServer, shared_redis};

use crate::harness::{Daemon, Home, SOON, wait};

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn get(url: &str) -> (u16, Value) {
    let mut answer = agent().get(url).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap_or(Value::Null))
}

/// Enqueues `count` equal jobs in one batch; their addresses.
fn equal_jobs(url: &str, count: usize, ms: u64, key: &str) -> Vec<String> {
    let job = json!({ "kind": "probe.cacheable", "args": { "ms": ms, "key": key } });
    let mut answer = agent().post(format!("{url}/api/tasks")).send_json(vec![job; count]).unwrap();
    let body: Value = answer.body_mut().read_json().unwrap();
    let address = |task: &Value| format!("{url}{}", task["status_url"].as_str().unwrap());
    body["tasks"].as_array().unwrap().iter().map(address).collect()
}

/// Waits until all have succeeded; what they then are.
fn all_done(jobs: &[String]) -> Vec<Value> {
    jobs.iter()
        .map(|job| {
            let mut task = Value::Null;
            wait(SOON, job, || {
                task = get(job).1;
                assert_ne!(task["status"], "failure", "{task:#}");
                task["status"] == "success"
            });
            task
        })
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// One of the equal jobs has run, the others have its result and spent nothing.
#[track_caller]
fn assert_ran_once(tasks: &[Value]) {
    let ran: Vec<&Value> = tasks.iter().filter(|task| task.get("cached") != Some(&json!(true))).collect();
    assert_eq!(ran.len(), 1, "{ran:#?}");
    for task in tasks {
        assert_eq!(task["result"]["value"], ran[0]["result"]["value"]);
        assert_eq!(task["attempt"], 1, "{task:#}");
    }
    let last = tasks.iter().map(|task| text(&task["completed_at"])).max().unwrap();
    let late = span_ms(text(&ran[0]["completed_at"]), last);
    assert!(late < 2_000.0, "the last of them came {late} ms after the one that ran");
}

/// Between two instants of the same day, in ms.
fn span_ms(from: &str, to: &str) -> f64 {
    let at = |text: &str| {
        let mut parts = text[11..23].split(':').map(|part| part.parse::<f64>().unwrap());
        ((parts.next().unwrap() * 60.0 + parts.next().unwrap()) * 60.0 + parts.next().unwrap()) * 1000.0
    };
    at(to) - at(from)
}

/// §5, single flight: of 100 equal jobs at once one runs, over three processes on Redis and in one on
/// files. The others hold no slot meanwhile and have the result soon after.
#[test]
fn of_a_hundred_equal_jobs_one_runs() {
    let on_redis = Home::on(shared_redis());
    let workers: Vec<Daemon> = (0..3).map(|_| on_redis.worker("probe", &["--slots", "2"])).collect();
    check_single_flight(&on_redis, "api");
    drop(workers);
    check_single_flight(&Home::embedded().with("WINDLASS_SLOTS", "4"), "up");
}

fn check_single_flight(home: &Home, command: &str) {
    let (_api, url) = home.serve(&[command]);
    let jobs = equal_jobs(&url, 100, 2_000, "flight");
    wait(SOON, "one of them runs", || jobs.iter().any(|job| get(job).1["status"] == "running"));
    let begun = Instant::now();
    let other = home.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&other, "success");
    let others_wait = jobs.iter().filter(|job| get(job).1["status"] == "success").count();
    if begun.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(others_wait, 0, "the noop did not wait for them");
    }
    assert_ran_once(&all_done(&jobs));
    let stats = home.json(&["cache", "stats"]);
    assert_eq!((&stats["misses"], &stats["hits"]), (&json!(1), &json!(99)), "{stats:#}");
    assert_eq!((&stats["entry_count"], &stats["hit_rate"]), (&json!(1), &json!(0.99)));

    assert_eq!(home.json(&["cache", "clear"]), json!({ "cleared": 1 }));
    let again = all_done(&equal_jobs(&url, 2, 10, "flight"));
    assert_ran_once(&again);
    assert_eq!(get(&format!("{url}/api/cache/stats")).1["misses"], 2);
}

/// F01 with single flight: a leader that is killed holds the others up no longer than its lease.
#[test]
fn a_killed_leader_frees_the_others() {
    let redis = RedisServer::start();
    let home = Home::on(&redis).with("WINDLASS_LEASE_MS", "1000");
    let (_api, url) = home.serve(&["api"]);
    let mut workers: Vec<Daemon> = (0..2).map(|_| home.worker("probe", &["--slots", "2"])).collect();
    let jobs = equal_jobs(&url, 20, 2_500, "killed");
    let mut leader = Value::Null;
    wait(SOON, "one of them works", || {
        leader = jobs.iter().map(|job| get(job).1).find(|task| task["message"] == "working").unwrap_or_default();
        !leader.is_null()
    });
    let pid = text(&leader["worker"]).split('-').nth(1).unwrap().to_owned();
    let of_leader = workers.iter().position(|worker| worker.pid().to_string() == pid).unwrap();
    workers.remove(of_leader).kill();
    let begun = Instant::now();
    let tasks = all_done(&jobs);
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let ran = tasks.iter().filter(|task| task.get("cached") != Some(&json!(true))).count();
    assert_eq!(ran, 1, "{tasks:#?}");
}

/// A blob goes up in one request, into a job's directory, and down again; one in use stays.
#[test]
fn a_blob_is_kept_for_the_job_that_names_it() {
    for home in [Home::embedded(), Home::on(shared_redis())] {
        let (_api, url) = home.serve(&["api"]);
        let picture = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/demo.png")).unwrap();
        let mut answer = agent().post(format!("{url}/api/blobs")).send(&picture[..]).unwrap();
        assert_eq!(answer.status(), 201);
        let blob: Value = answer.body_mut().read_json().unwrap();
        let hex = text(&blob["blob"]).strip_prefix("sha256:").unwrap().to_owned();
        let at = format!("{url}/api/blobs/{hex}");
        let down = agent().get(&at).call().unwrap().body_mut().read_to_vec().unwrap();
        assert!(down == picture);
        let wrong = agent().put(&at).send(&b"something else"[..]).unwrap();
        assert_eq!(wrong.status(), 422);

        let cards = json!({ "cards": [{ "front": blob["blob"] }] });
        let id = home.enqueue("pdf.card_sheet", &cards.to_string(), &[]);
        let stats = get(&format!("{url}/api/cache/stats")).1;
        assert_eq!((&stats["uploads"]["entries"], &stats["uploads"]["jobs"]), (&json!(1), &json!(1)), "{stats:#}");
        let _worker = home.worker("pdf", &[]);
        let task = home.wait_for(&id, "success");
        assert_eq!(task["result"]["artifacts"][0]["name"], "cards.pdf", "{task:#}");
    }
}

/// A quota that is reached refuses what is new, with a stable code, and nothing is stored.
#[test]
fn uploads_over_the_quota_are_refused() {
    let home = Home::embedded().with("WINDLASS_BLOBS_MAX_MB", "1");
    let (_api, url) = home.serve(&["api"]);
    let put = |byte: u8| {
        let mut answer = agent().post(format!("{url}/api/blobs")).send(&vec![byte; 700_000][..]).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json::<Value>().unwrap())
    };
    assert_eq!(put(1).0, 201);
    let (status, problem) = put(2);
    assert_eq!((status, &problem["code"]), (507, &json!("blob_quota_full")), "{problem:#}");
    assert_eq!(get(&format!("{url}/api/cache/stats")).1["uploads"]["entries"], 1);
    let left: Vec<_> = std::fs::read_dir(home.path().join("windlass-data/incoming")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
