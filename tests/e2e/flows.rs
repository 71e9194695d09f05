//! Chains and groups with the real binary: from the command line and over HTTP, and under kill -9.
//! `tests/soak tree` is the long form.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_broker::Inspect as _;
use windlass_jobs::{JobId, JobRecord, NewJob, Queue, State};
use windlass_producer::{Flow, Producer};
use windlass_testkit::RedisServer;

use crate::faults::{Direct, on};
use crate::harness::{Home, SOON, wait};
use crate::http;

fn sleep(ms: u64) -> Value {
    json!({ "kind": "probe.sleep", "args": { "ms": ms }, "queue": "members" })
}

/// A group with a callback, from a file: the callback is handed what the members left; a failed
/// member cancels it.
#[test]
fn a_flow_goes_its_way_from_the_command_line() {
    let home = Home::embedded();
    let flow = json!({ "group": [sleep(1), { "chain": [sleep(2), sleep(3)] }],
        "then": { "kind": "probe.parents", "args": {}, "labels": { "name": "callback" } } });
    let file = home.file("flow.json", flow.to_string());
    let ran = home.run(&["enqueue", "--flow", file.to_str().unwrap(), "--json"]);
    assert!(ran.status.success(), "{ran:?}");
    let ids: Vec<String> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["task_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 4, "{ran:?}");
    let waits = home.task(&ids[3]);
    assert_eq!((&waits["status"], &waits["waits_for"]), (&json!("scheduled"), &json!(2)));
    assert_eq!(waits["parents"], json!([ids[0], ids[2]]));
    let _worker = home.worker("members,probe", &[]);
    let done = home.wait_for(&ids[3], "success");
    let value = |id: &str, ms: u64| json!({ "id": id, "state": "success", "value": { "slept_ms": ms } });
    assert_eq!(done["result"]["value"]["parents"], json!([value(&ids[0], 1), value(&ids[2], 3)]));
    assert_eq!(home.task(&ids[1])["children"], json!([ids[2]]));

    // A kind in a child process is handed the same.
    let isolated = home.enqueue("probe.isolated_noop", "{}", &["--after", &ids[0], "--after", &ids[2]]);
    let done = home.wait_for(&isolated, "success");
    assert_eq!(done["result"]["value"]["parents"], json!([value(&ids[0], 1), value(&ids[2], 3)]));

    let failed = home.enqueue("probe.fail", r#"{"how": "fatal"}"#, &["--delay", "200ms"]);
    let cancelled = home.enqueue("probe.noop", "{}", &["--after", &failed]);
    let runs = home.enqueue("probe.noop", "{}", &["--after", &failed, "--after", &ids[3], "--on-failure", "run"]);
    assert_eq!(home.wait_for(&cancelled, "cancelled")["error"]["code"], "dependency");
    home.wait_for(&runs, "success");
    let unknown = home.run(&["enqueue", "probe.noop", "--after", "01K9ZQ4T8Z6V0YQ0M5R7T2W3XK.probe"]);
    assert!(!unknown.status.success() && unknown.stderr.contains("is not known"), "{unknown:?}");
}

/// The same over HTTP, with the cancel of a whole tree.
#[test]
fn a_flow_goes_its_way_over_http() {
    let home = Home::embedded();
    let (_up, base) = home.serve(&["up", "--queues", "members,probe"]);
    let post = |body: &Value| {
        let reply = http::post(&format!("{base}/api/tasks"), body);
        let ids = |tasks: &Value| -> Vec<String> {
            tasks.as_array().into_iter().flatten().map(|t| t["task_id"].as_str().unwrap().to_owned()).collect()
        };
        (reply.0, ids(&reply.1["tasks"]), reply.1)
    };
    let flow = json!({ "chain": [sleep(1), { "group": [sleep(1), sleep(1)] },
        { "kind": "probe.parents", "args": {} }] });
    let (status, ids, body) = post(&flow);
    assert_eq!((status, ids.len()), (202, 4), "{body}");
    assert_eq!(body["tasks"][3]["status"], "scheduled");
    let done = home.wait_for(&ids[3], "success");
    assert_eq!(done["parents"], json!([ids[1], ids[2]]));

    let long = json!({ "chain": [{ "kind": "probe.sleep", "args": { "ms": 60_000 } }, sleep(1), sleep(1)] });
    let (_, ids, _) = post(&long);
    home.wait_for(&ids[0], "running");
    // Who waits for a job is carried over to it after the answer.
    wait(SOON, "each knows who waits for it", || {
        (0..2).all(|step| home.task(&ids[step])["children"] == json!([ids[step + 1]]))
    });
    let (status, body) = http::delete(&format!("{base}/api/tasks/{}?tree=true", ids[0]));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["tasks"].as_array().unwrap().len(), 3, "{body}");
    ids.iter().for_each(|id| {
        home.wait_for(id, "cancelled");
    });

    for (body, wanted) in [
        (json!({ "chain": [] }), "job_invalid"),
        (json!({ "chain": [sleep(1)], "kind": "probe.noop" }), "job_invalid"),
        (json!({ "group": [sleep(1), { "kind": "nothing.known", "args": {} }] }), "unknown_kind"),
        (
            json!({ "kind": "probe.noop", "args": {}, "depends_on": ["01K9ZQ4T8Z6V0YQ0M5R7T2W3XK.probe"] }),
            "job_invalid",
        ),
        (json!({ "kind": "probe.noop", "args": {}, "on_failure": "run" }), "job_invalid"),
    ] {
        let (status, _, reply) = post(&body);
        assert!((400..500).contains(&status) && reply["code"] == wanted, "{body}: {reply}");
    }
}

/// How many workers run, and how long each lives.
const WORKERS: usize = 2;

/// No more than so many: a thousand kills later each job is looked at, and a queue keeps the newest 100,000.
const FLOWS_PER_KILL: usize = 19;

/// What is enqueued while workers are killed: groups with a callback on another queue that begins
/// a chain.
fn tree(members: &Queue, callbacks: &Queue) -> Flow {
    let job = |queue: &Queue| Flow::job(queue, NewJob::new("probe.noop", &()).unwrap());
    Flow::group((0..4).map(|_| job(members))).then(job(callbacks)).then(job(members)).then(job(callbacks))
}

/// F01 for flows: under kill -9 at any moment every job of every flow runs to its end, after those
/// before it, and each once.
#[test]
fn callbacks_come_once_under_kill_9() {
    let kills: usize = std::env::var("WINDLASS_SOAK_KILLS").map_or(12, |n| n.parse().unwrap());
    let redis = RedisServer::start();
    let home = on(&redis);
    let (members, callbacks) = (Queue::new("members").unwrap(), Queue::new("callbacks").unwrap());
    let direct = Direct::to(&home, "members");
    let producer = Producer::new(direct.broker.clone());
    let (said, killed) = mpsc::channel();
    let killer = {
        let home = Home::clone_of(&home);
        std::thread::spawn(move || {
            let mut workers: Vec<_> = (0..WORKERS).map(|_| home.worker("members,callbacks", &[])).collect();
            for kill in 0..kills {
                std::thread::sleep(Duration::from_millis(u64::try_from(kill * 7919 % 311).unwrap()));
                workers.remove(kill % WORKERS).kill();
                workers.push(home.worker("members,callbacks", &[]));
                said.send(()).unwrap();
            }
            workers
        })
    };
    let (mut flows, begun) = (Vec::new(), Instant::now());
    for _ in 0..kills {
        let mut is_over = false;
        for _ in 0..FLOWS_PER_KILL {
            let accepted = direct.runtime.block_on(producer.enqueue_flow(&tree(&members, &callbacks))).unwrap();
            flows.push(accepted.into_iter().map(|accepted| accepted.id).collect::<Vec<JobId>>());
            // A backlog hides what goes on: the queue is kept short.
            let pace = if direct.counts().pending > 200 { 50 } else { 5 };
            is_over = killed.recv_timeout(Duration::from_millis(pace)).is_ok();
            if is_over {
                break;
            }
        }
        if !is_over {
            killed.recv().expect("the next worker is killed");
        }
    }
    let workers = killer.join().unwrap();
    let other = Direct::to(&home, "callbacks");
    wait(SOON * 2, "all flows have ended", || direct.counts().unfinished() == 0 && other.counts().unfinished() == 0);
    let poisoned: usize = flows.iter().map(|flow| check(&direct, flow)).sum();
    let (a, b) = (direct.counts(), other.counts());
    let jobs = u64::try_from(flows.len() * 7).unwrap();
    assert_eq!(
        a.success_total + b.success_total + a.failure_total + b.failure_total + a.cancelled_total + b.cancelled_total,
        jobs
    );
    eprintln!(
        "{} flows, {kills} kills in {:.0?}: {poisoned} of {jobs} jobs poisoned, {} leases lost",
        flows.len(),
        begun.elapsed(),
        a.expired_leases_total + b.expired_leases_total
    );
    assert!(poisoned * 20 < flows.len(), "{poisoned}");
    wait(SOON, "nothing is left to be said", || !direct.census().iter().any(|key| key.ends_with(":out")));
    drop(workers);
}

/// Each job came after those it depends on; answers how many were taken for killers of workers.
fn check(direct: &Direct, flow: &[JobId]) -> usize {
    let records: Vec<JobRecord> =
        flow.iter().map(|id| direct.runtime.block_on(direct.broker.get(id)).unwrap().unwrap()).collect();
    let poisoned = records.iter().filter(|record| record.state == State::Failure).count();
    for record in &records {
        assert!(record.state == State::Success || poisoned > 0, "{record:?}");
        assert_eq!(record.waits_for, 0);
        for parent in record.options.depends_on.iter().flat_map(|after| &after.parents) {
            let parent = records.iter().find(|record| record.id == *parent).unwrap();
            assert!(parent.children.contains(&record.id) || record.state == State::Cancelled, "{parent:?}");
            assert!(record.started_at.is_none_or(|at| Some(at) >= parent.finished_at), "{record:?} before {parent:?}");
        }
    }
    poisoned
}
