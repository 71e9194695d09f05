//! The bridge of the real binary: real Celery clients, kill -9, jobs for stock apalis workers.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use windlass_testkit::RedisServer;

use crate::faults::Direct;
use crate::harness::{Home, Ran, SOON, wait};

/// A Python that has Celery: Debian's, or the one of `WINDLASS_CELERY_PYTHON`.
fn celery() -> String {
    let chosen = std::env::var("WINDLASS_CELERY_PYTHON").ok();
    let found = chosen.into_iter().chain(["python3".to_owned(), "/usr/bin/python3".to_owned()]).find(|python| {
        let import = Command::new(python).args(["-c", "import celery, redis"]).output();
        import.is_ok_and(|ran| ran.status.success())
    });
    found.expect("no Celery: install the package python3-celery with python3-redis, or set WINDLASS_CELERY_PYTHON")
}

/// What an application does that has not been told of anything.
const APPLICATION: &str = r#"
import json, os, redis, sys, time
from celery import Celery, chain, group
from celery.exceptions import TaskRevokedError
url = os.environ["URL"]
lists = redis.from_url(url)
app = Celery("old", broker=url, backend=url)
sleep = app.signature("old.sleep").clone
fail = app.signature("old.fail").clone

slow = sleep(kwargs={"ms": 3000}).delay()
seen = []
slow.get(timeout=20, interval=0.05, on_message=lambda m: seen.append(m))
said = {"states": [m["status"] for m in seen], "progress": [m["result"]["progress"] for m in seen if m["status"] == "PROGRESS"]}
said["result"] = sleep(kwargs={"ms": 1}).delay().get(timeout=20)
said["positional"] = app.send_task("old.named", args=[2]).get(timeout=20)
def error(result):
    try:
        result.get(timeout=20)
    except BaseException as e:
        return [type(e).__name__, str(e)]
failed = fail(kwargs={"how": "fatal", "times": 9}).delay()
said["failed"] = error(failed)
said["state"] = failed.state
said["chained"] = error(chain(sleep(kwargs={"ms": 1}), sleep(kwargs={"ms": 2})).apply_async().parent)
said["group"] = [r["slept_ms"] for r in group(sleep(kwargs={"ms": n}) for n in (1, 2, 3)).apply_async().get(timeout=20)]
later = sleep(kwargs={"ms": 1}).apply_async(countdown=600)
# Until the bridge has it.
until = time.time() + 20
while lists.llen("celery"):
    assert time.time() < until
    time.sleep(0.02)
later.revoke()
said["revoked"] = error(later)[0]
print(json.dumps(said))
"#;

/// `.delay()`, `AsyncResult.get()`, progress, errors, groups and `revoke` of a real Celery client.
#[test]
fn a_celery_client_does_not_notice_that_windlass_runs_its_tasks() {
    let redis = RedisServer::start();
    let home = Home::on(&redis)
        .with("CELERY_BROKER_URL", &redis.url())
        .with("CELERY_RESULT_BACKEND", &redis.url())
        .with("WINDLASS_CELERY_QUEUES", "celery")
        .with("WINDLASS_CELERY_TASKS", "old.sleep=probe.sleep,old.fail=probe.fail,old.named=probe.sleep:ms");
    let (_up, base) = home.serve(&["up", "--queues", "probe"]);
    let application = home.file("application.py", APPLICATION);
    let mut client = Command::new(celery());
    client.arg(application).env("URL", format!("{}/0", redis.url()));
    let ran = Ran::from(client.output().unwrap());
    assert!(ran.status.success(), "{ran:?}");
    let said = ran.json();
    let states: Vec<&str> = said["states"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    assert_eq!((states.first(), states.last()), (Some(&"STARTED"), Some(&"SUCCESS")), "{said}");
    let progress: Vec<f64> = said["progress"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
    assert!(
        progress.len() >= 2 && progress.is_sorted() && progress.iter().all(|p| (0.0..=100.0).contains(p)),
        "{said}"
    );
    assert_eq!(said["result"], json!({ "slept_ms": 1 }));
    assert_eq!(said["positional"], json!({ "slept_ms": 2 }));
    assert_eq!((&said["failed"][0], &said["state"]), (&json!("RuntimeError"), &json!("FAILURE")));
    assert_eq!(said["chained"][0], "ValueError");
    assert!(said["chained"][1].as_str().unwrap().contains("chain is not taken over"), "{said}");
    assert_eq!(said["group"], json!([1, 2, 3]));
    assert_eq!(said["revoked"], "TaskRevokedError");
    // The chain, for whoever runs this.
    let refused = home.json(&["bridge", "--refused"]);
    assert_eq!(
        (&refused["refused"][0]["source"], refused["refused"].as_array().unwrap().len()),
        (&json!("celery celery"), 1)
    );
    let metrics = ureq::get(format!("{base}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(metrics.contains(r#"windlass_bridge_refused_total{source="celery celery"} 1"#), "{metrics}");
}

/// kill -9 of the process, wherever it is: nothing is lost, nothing runs twice; a job for a stock
/// apalis worker lies in its namespace once.
#[test]
fn a_bridge_killed_again_and_again_moves_each_job_once() {
    const JOBS: usize = 300;
    let redis = RedisServer::start();
    let home = Home::on(&redis)
        .with("WINDLASS_APALIS_SOURCES", "old=probe.noop,odd=gone.by")
        .with("WINDLASS_APALIS_TARGETS", "mail.old=stock")
        .with("WINDLASS_BRIDGE_LISTEN", "127.0.0.1:0");
    let direct = Direct::to(&home, "probe");
    // As the stock push leaves jobs that are due.
    let now = windlass_jobs::Timestamp::now().0 / 1000;
    for n in 0..JOBS {
        let id = windlass_jobs::new_ulid().to_string();
        direct.call(&["HSET", "old:data", &id, &n.to_string()]);
        direct.call(&["HSET", &format!("old:meta:{id}"), "attempts", "0", "max_attempts", "25", "status", "Pending"]);
        direct.call(&["ZADD", "old:scheduled", &now.to_string(), &id]);
    }
    let _worker = home.worker("probe,forward", &[]);
    for round in 0..4 {
        let mut bridge = home.start(&["bridge", "--json"]);
        bridge.first_line();
        std::thread::sleep(Duration::from_millis(3 + 11 * round));
        bridge.kill();
    }
    let mut bridge = home.start(&["bridge", "--json"]);
    let probes = bridge.first_line()["probes"].as_str().unwrap().to_owned();
    wait(SOON, "all have ended and are told", || direct.text(&["SCARD", "old:done"]) == JOBS.to_string());
    let counts = direct.counts();
    assert_eq!((counts.enqueued_total, counts.success_total), (300, 300), "each once");
    wait(SOON, "nothing is left in custody", || direct.text(&["ZCARD", "old:windlass:open"]) == "0");
    let metrics = || ureq::get(format!("http://{probes}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    let none = r#"windlass_bridge_custody_jobs{source="apalis old"} 0"#;
    wait(SOON, "the metrics say so", || metrics().contains(none));

    let id = home.enqueue("mail.old", r#"{"to": "a"}"#, &["--queue", "forward"]);
    let task = home.wait_for(&id, "success");
    let ulid = id.split('.').next().unwrap();
    assert_eq!(task["result"]["value"], json!({ "apalis_task_id": ulid }), "{task}");
    let data = direct.text(&["HGET", "stock:data", ulid]);
    assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), json!({ "to": "a" }));
    bridge.signal(rustix::process::Signal::TERM);
    assert!(bridge.ended(SOON).success());
}
