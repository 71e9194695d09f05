//! The queue's Redis is away, also when processes start: nothing accepted is lost, no process ends.

use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_testkit::{RedisServer, shared_redis};

use crate::faults::{Direct, sleep_job};
use crate::harness::{Daemon, Home, SOON, wait};

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn get(url: &str) -> (u16, Value) {
    let mut answer = agent().get(url).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap_or(Value::Null))
}

fn post(url: &str, body: &Value) -> (u16, Value) {
    let mut answer = agent().post(url).send_json(body).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap_or(Value::Null))
}

fn noop() -> Value {
    json!({ "kind": "probe.sleep", "args": { "ms": 1 } })
}

/// API and worker start without Redis, jobs are accepted, and done once when it comes; also those of
/// an API that was killed meanwhile.
#[test]
fn jobs_are_accepted_while_redis_is_away_and_done_once_when_it_is_back() {
    let redis = RedisServer::start();
    redis.kill();
    let home = Home::on(&redis).with("REDIS_SOCKET_CONNECT_TIMEOUT", "1");
    let mut worker = home.worker("probe", &[]);
    let (api, url) = home.serve(&["api"]);
    let elsewhere = Home::clone_of(&home);
    let (mut other, other_url) = elsewhere.serve(&["api"]);

    let mut ids = Vec::new();
    for _ in 0..3 {
        let (status, task) = post(&format!("{url}/api/tasks"), &noop());
        assert_eq!((status, &task["accepted"]), (202, &json!("spooled")), "{task:#}");
        ids.push(task["task_id"].as_str().unwrap().to_owned());
    }
    let (status, batch) = post(&format!("{url}/api/tasks"), &json!([noop(), noop()]));
    assert_eq!((status, &batch["tasks"][1]["accepted"]), (202, &json!("spooled")), "{batch:#}");
    ids.extend(batch["tasks"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap().to_owned()));
    for base in [&url, &other_url] {
        let (status, problem) = get(&format!("{base}/api/tasks/{}", ids[0]));
        assert_eq!((status, &problem["code"]), (503, &json!("queue_unavailable")), "{problem:#}");
    }
    let spooled = home.json(&["enqueue", "probe.noop"]);
    assert_eq!(spooled["accepted"], "spooled", "{spooled:#}");
    ids.push(spooled["task_id"].as_str().unwrap().to_owned());

    let metrics = agent().get(format!("{url}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(metrics.contains("windlass_spool_jobs 5\n"), "{metrics}");
    // What it wrote down outlives it.
    api.kill();
    let (mut api, url) = home.serve(&["api"]);
    let back = Instant::now();
    redis.restart();
    for id in &ids {
        wait(SOON, "a spooled job is done", || get(&format!("{url}/api/tasks/{id}")).1["status"] == "success");
    }
    println!("all done {:?} after Redis is back", back.elapsed());
    let direct = Direct::to(&home, "probe");
    assert_eq!(direct.counts().success_total, ids.len() as u64, "each once");
    let (status, task) = post(&format!("{url}/api/tasks"), &noop());
    assert_eq!((status, task.get("accepted")), (202, None), "{task:#}");
    assert!(worker.is_up() && api.is_up() && other.is_up());
    let spool = home.path().join("windlass-data/spool");
    let left = || -> usize {
        let folders = std::fs::read_dir(&spool).unwrap();
        folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
    };
    wait(SOON, "no file is left in the spool", || left() == 0);
}

/// A worker finishes while Redis is away; the result is there when it is back, and it ran once.
#[test]
fn results_wait_for_redis() {
    let redis = RedisServer::builder().append_only("always").start();
    let home = Home::on(&redis).with("WINDLASS_LEASE_MS", "10000");
    let direct = Direct::to(&home, "probe");
    let mut worker = home.worker("probe", &[]);
    let id = direct.enqueue(&[sleep_job(600)]).remove(0);
    direct.wait_running(&id);
    redis.kill();
    // It ends in between.
    std::thread::sleep(Duration::from_millis(1_200));
    redis.restart();
    let back = Instant::now();
    wait(SOON, "the result is delivered", || {
        let known = direct.runtime.block_on(windlass_broker::Inspect::get(direct.broker.as_ref(), &id));
        known.is_ok_and(|record| record.is_some_and(|record| record.state == windlass_jobs::State::Success))
    });
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    let record = direct.get(&id);
    assert_eq!((record.epoch, record.failures), (1, 0), "it ran once");
    assert!(worker.is_up());
}

/// The boundary of the bodies below.
const BOUNDARY: &str = "a-boundary-that-no-picture-holds";

fn multipart(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, bytes) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend(format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

/// Routes whose callers wait for a file answer without Redis, and say so; callers who want a task are
/// told that there is no queue.
#[test]
fn waiting_callers_get_their_file_without_redis() {
    let redis = RedisServer::start();
    redis.kill();
    let home = Home::on(&redis).with("REDIS_SOCKET_CONNECT_TIMEOUT", "1");
    let (mut api, url) = home.serve(&["api"]);
    let png = crate::sheets::png(40, 60, [200, 30, 30]);
    let send = |path: &str, parts: &[(&str, Option<&str>, &[u8])]| {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        agent().post(format!("{url}{path}")).header("content-type", kind).send(&multipart(parts)[..]).unwrap()
    };
    let mut answer = send("/api/pdf/card-sheets?wait=20", &[("fronts", Some("a.png"), &png)]);
    let mut pdf = Vec::new();
    answer.body_mut().as_reader().read_to_end(&mut pdf).unwrap();
    assert_eq!(answer.status(), 200, "{}", String::from_utf8_lossy(&pdf));
    assert_eq!(answer.headers()["x-degraded"], "true");
    assert!(pdf.starts_with(b"%PDF"));
    let old = send("/api/generate", &[("front_files", Some("a.png"), &png), ("back_files", Some("b.png"), &png)]);
    assert_eq!((old.status().as_u16(), old.headers()["x-degraded"].to_str().unwrap()), (200, "true"));
    let mut failed = send("/api/pdf/card-sheets?wait=20", &[("fronts", Some("a.png"), b"\x89PNG\r\n\x1a\nno picture")]);
    let problem: Value = failed.body_mut().read_json().unwrap();
    assert!(failed.status().as_u16() >= 400, "{problem:#}");
    assert_eq!(problem["degraded"], true, "{problem:#}");
    let mut task = send("/api/pdf/card-sheets", &[("fronts", Some("a.png"), &png)]);
    let problem: Value = task.body_mut().read_json().unwrap();
    assert_eq!((task.status().as_u16(), &problem["code"]), (503, &json!("queue_unavailable")), "{problem:#}");

    redis.restart();
    wait(SOON, "the queue is used again", || {
        send("/api/pdf/card-sheets", &[("fronts", Some("a.png"), &png)]).status() == 202
    });
    assert!(api.is_up());
}

/// A run that ends while Redis is away, and whose worker is killed then: the next worker tells its end, and
/// it is not run again.
#[test]
fn what_ended_without_redis_is_told_by_the_next_worker() {
    let redis = RedisServer::builder().append_only("always").start();
    let home = Home::on(&redis);
    let worker = home.worker("probe", &["--slots", "2"]);
    let id = home.enqueue("probe.sleep", r#"{"ms": 1500}"#, &[]);
    home.wait_for(&id, "running");
    redis.kill();
    let kept = || walk(&home.path().join("windlass-data/ends")).into_iter().find(|file| file.ends_with(".kept"));
    wait(SOON, "its end is on the disk", || kept().is_some_and(|file| std::fs::metadata(file).unwrap().len() > 0));
    worker.kill();
    let _next = home.worker("probe", &["--slots", "2"]);
    redis.restart();
    let task = home.wait_for(&id, "success");
    assert_eq!((&task["result"]["value"]["slept_ms"], &task["attempt"]), (&json!(1500), &json!(1)), "{task:#}");
    wait(SOON, "nothing is left on the disk", || kept().is_none());
    let direct = Direct::to(&home, "probe");
    let record = direct.get(&id.parse().unwrap());
    assert_eq!((record.epoch, record.deliveries), (1, 1), "it ran once");
}

/// Every file below a folder.
fn walk(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

/// F52: with 64 descriptors the API takes as many connections as leave some for the rest; the others
/// wait, jobs with children are done, and nothing ends.
#[test]
fn f52_without_descriptors_accepting_pauses_and_nothing_ends() {
    let home = Home::on(shared_redis());
    let mut command = std::process::Command::new("sh");
    let program = crate::harness::binary().to_str().unwrap();
    command.args(["-c", "ulimit -n 64; exec \"$0\" up --listen 127.0.0.1:0 --json", program]);
    let mut up: Daemon = home.spawn_with(command);
    let address = up.first_line()["api"].as_str().unwrap().to_owned();
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..100 {
        idle.extend(TcpStream::connect(&address));
    }
    assert!(idle.len() >= 60, "the kernel's queue takes them: {}", idle.len());
    let direct = Direct::to(&home, "probe");
    let id = direct.enqueue(&[sleep_job(1)]).remove(0);
    wait(SOON, "an inline job is done", || direct.get(&id).state == windlass_jobs::State::Success);
    let candles = json!({ "t": [0, 86_400_000], "o": [1, 2], "h": [3, 4], "l": [1, 1], "c": [2, 3] });
    let args = json!({ "symbol": "X", "interval": "1d", "candles": candles }).to_string();
    let chart = home.enqueue("chart.render", &args, &[]);
    home.wait_for(&chart, "success");
    let open = std::fs::read_dir(format!("/proc/{}/fd", up.pid())).unwrap().count();
    assert!(open < 64, "{open} descriptors are open");
    assert!(!up.log().contains("no connection could be accepted"), "{}", up.log());
    drop(idle);
    let freed = Instant::now();
    wait(SOON, "the API answers", || get(&format!("http://{address}/livez")).0 == 200);
    println!("answers {:?} after the connections went, {open} of 64 descriptors were open", freed.elapsed());
    assert!(up.is_up());
}
