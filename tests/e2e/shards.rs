//! A queue that is spread over shards, with the real binary on a cluster: one queue to whoever puts
//! jobs in and looks.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use windlass_testkit::shared_cluster;

use crate::harness::{Home, SOON, wait};
use crate::http;

fn sharded() -> Home {
    let prefix = format!("t{}", windlass_jobs::new_ulid().to_string().to_ascii_lowercase());
    Home::embedded()
        .with("REDIS_URL", &shared_cluster().url())
        .with("WINDLASS_QUEUE_PREFIX", &prefix)
        .with("WINDLASS_QUEUE_SHARDS", "bulk=5")
}

/// The one queue of its name, as `windlass queues` shows it.
fn counts(home: &Home) -> Value {
    let queues = home.json(&["queues"]);
    let found: Vec<&Value> = queues["queues"].as_array().unwrap().iter().collect();
    let named = |queue: &&&Value| queue["queue"].as_str().is_some_and(|name| name.starts_with("bulk"));
    let bulk: Vec<_> = found.iter().filter(named).collect();
    assert_eq!(bulk.len(), 1, "{queues:#}");
    assert_eq!(bulk[0]["queue"], "bulk");
    bulk[0]["counts"].clone()
}

#[test]
fn a_sharded_queue_is_one_from_the_command_line_and_over_http() {
    let home = sharded();
    let (_up, base) = home.serve(&["up", "--queues", "bulk,windlass", "--slots", "4"]);
    home.run(&["pause", "bulk"]);
    let job = |more: Value| {
        let mut job = json!({ "kind": "probe.sleep", "args": { "ms": 1 }, "queue": "bulk" });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    };
    let batch: Vec<Value> = (0..40).map(|_| job(json!({}))).collect();
    let (status, tasks) = http::post(&format!("{base}/api/tasks"), &Value::from(batch));
    assert_eq!(status, 202, "{tasks:#}");
    let ids: Vec<String> =
        tasks["tasks"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap().to_owned()).collect();
    let shards: BTreeSet<&str> = ids.iter().map(|id| id.split_once('.').unwrap().1).collect();
    assert_eq!(shards.len(), 5, "{ids:?}");
    assert!(shards.iter().all(|shard| shard.starts_with("bulk.")));
    let of_cli = home.enqueue("probe.sleep", r#"{"ms": 1}"#, &["--queue", "bulk", "--unique", "k"]);
    let (_, twin) = http::post(&format!("{base}/api/tasks"), &job(json!({ "unique": { "key": "k" } })));
    assert_eq!((twin["task_id"].as_str(), &twin["unique"]), (Some(of_cli.as_str()), &json!("kept")));
    let two_keys = job(json!({ "unique": { "key": "a" }, "ordering_key": "b" }));
    let (status, refused) = http::post(&format!("{base}/api/tasks"), &two_keys);
    assert_eq!((status, &refused["violations"][0]["path"]), (422, &json!("/queue")), "{refused:#}");

    // Both ends of a flow find each other on their shards.
    let flow = json!({ "group": [job(json!({})), job(json!({}))], "then": job(json!({})) });
    let (status, flow) = http::post(&format!("{base}/api/tasks"), &flow);
    assert_eq!(status, 202, "{flow:#}");
    let last = flow["tasks"][2]["task_id"].as_str().unwrap().to_owned();

    let paused = counts(&home);
    assert_eq!((&paused["pending"], &paused["paused"]), (&json!(43), &json!(true)), "{paused:#}");
    let listed = home.json(&["tasks", "bulk", "--state", "pending", "--limit", "100"]);
    assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(43), "{listed:#}");
    home.run(&["resume", "bulk"]);
    for id in ids.iter().chain([&of_cli, &last]) {
        home.wait_for(id, "success");
    }
    wait(SOON, "all are counted", || counts(&home)["success_total"] == json!(44));
    let workers = home.json(&["workers"]);
    assert!(workers.to_string().contains("\"bulk\""), "{workers:#}");

    // Failed jobs of all shards are found and start anew by a filter.
    let failing: Vec<Value> =
        (0..6).map(|_| json!({ "kind": "probe.fail", "args": { "how": "fatal" }, "queue": "bulk" })).collect();
    http::post(&format!("{base}/api/tasks"), &Value::from(failing));
    wait(SOON, "they have failed", || counts(&home)["dead"] == json!(6));
    let dead = home.json(&["dead", "list", "bulk"]);
    assert_eq!(dead["dead"].as_array().map(Vec::len), Some(6), "{dead:#}");
    home.run(&["dead", "delete", "--queue", "bulk", "--all"]);
    wait(SOON, "none is left", || counts(&home)["dead"] == json!(0));
}
