//! `GET /api/tasks/{id}`.

use axum::http::StatusCode;
use serde_json::{Value, json};
use windlass_jobs::command::Settle;
use windlass_jobs::{Reason, new_ulid};
use windlass_worker::StoredResult;

use crate::support::{Bench, success};

/// The members whose values the test cannot know, taken out and checked for being instants.
fn without_instants(mut task: Value, names: &[&str]) -> Value {
    for name in names {
        let at = task[name].take();
        assert!(at.as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')), "{name}: {at}");
        task.as_object_mut().unwrap().remove(*name);
    }
    task
}

/// The shape of `compat.md` §4, from birth to success.
#[tokio::test]
async fn a_task_shows_its_whole_life() {
    let bench = Bench::new();
    let id = bench.echo().await;
    let url = format!("/api/tasks/{id}");
    let pending = json!({
        "task_id": id, "kind": "test.echo", "queue": "default", "status": "pending", "progress": 0.0, "message": null,
        "attempt": 0, "max_attempts": 3, "priority": "normal", "run_at": null, "started_at": null,
        "completed_at": null, "worker": null, "labels": {}, "attempts": [],
    });
    assert_eq!(without_instants(bench.get(&url).await.json(), &["created_at"]), pending);

    let claimed = bench.claim("default").await;
    bench.progress(&id, claimed.lease, 50.0, "half").await;
    let answer = bench.get(&url).await;
    assert!(String::from_utf8_lossy(&answer.body).contains("\"progress\":50.0,"), "a decimal, as it was");
    let running = without_instants(answer.json(), &["created_at", "started_at"]);
    assert_eq!(
        (&running["status"], &running["message"], &running["worker"]),
        (&json!("running"), &json!("half"), &json!("w1"))
    );
    assert_eq!((&running["attempt"], &running["completed_at"]), (&json!(1), &Value::Null));

    let stored = StoredResult { value: json!({ "said": "hi" }), cached: true, ..StoredResult::default() };
    bench.settle("default", claimed.lease, success(&stored)).await;
    let done = without_instants(bench.get(&url).await.json(), &["created_at", "started_at", "completed_at"]);
    assert_eq!((&done["status"], &done["progress"], &done["cached"]), (&json!("success"), &json!(100.0), &json!(true)));
    assert_eq!(done["result"], json!({ "value": { "said": "hi" }, "artifacts": [] }));
    assert!(done.get("error").is_none() && done.get("args").is_none());
    assert_eq!(bench.get(&format!("{url}?include=args")).await.json()["args"], json!({ "text": "hi" }));
}

#[tokio::test]
async fn artifacts_are_listed_with_their_addresses() {
    let bench = Bench::new();
    let id =
        bench.succeeded(Value::Null, &[("a.pdf", "application/pdf", b"%PDF"), ("b.txt", "text/plain", b"b")]).await;
    let result = bench.get(&format!("/api/tasks/{id}")).await.json()["result"].clone();
    assert_eq!(result["artifacts"][0]["name"], "a.pdf");
    assert_eq!(result["artifacts"][0]["media_type"], "application/pdf");
    assert_eq!(result["artifacts"][0]["bytes"], 4);
    let second = bench.get(result["artifacts"][1]["url"].as_str().unwrap()).await;
    assert_eq!((second.header("content-type"), second.body.as_slice()), ("text/plain", b"b".as_slice()));
}

#[tokio::test]
async fn failures_say_why() {
    let bench = Bench::new();
    let error = json!({ "code": "no_luck", "message": "<script>alert(1)</script>" });
    let failed = Settle::Failure { reason: Reason::Timeout, failures: 3, error: error.to_string() };
    let task = bench.get(&format!("/api/tasks/{}", bench.ended(failed).await)).await.json();
    assert_eq!((&task["status"], &task["reason"], &task["error"]), (&json!("failure"), &json!("timeout"), &error));
    assert!(task.get("result").is_none());
    let skipped = Settle::Success { result: None, skipped: true };
    let task = bench.get(&format!("/api/tasks/{}", bench.ended(skipped).await)).await.json();
    assert_eq!((&task["skipped"], &task["result"]["value"]), (&json!(true), &Value::Null));
}

#[tokio::test]
async fn the_kind_says_how_many_runs_a_job_has() {
    let bench = Bench::new();
    let digest = bench.api.services.artifacts.put(b"p".as_slice().into()).await.unwrap();
    let args = json!({ "blob": digest.to_string(), "width": 1 });
    let url = bench.post(json!({ "kind": "test.picture", "args": args })).await.json()["status_url"].clone();
    assert_eq!(bench.get(url.as_str().unwrap()).await.json()["max_attempts"], 5);
    let url = bench.post(json!({ "kind": "test.picture", "args": args, "max_attempts": 2 })).await.json()["status_url"]
        .clone();
    assert_eq!(bench.get(url.as_str().unwrap()).await.json()["max_attempts"], 2);
}

/// B09, B10: what cannot be an id is answered as what is not there.
#[tokio::test]
async fn unknown_and_malformed_ids_are_told_apart_by_nothing() {
    let bench = Bench::new();
    let unknown = bench.get(&format!("/api/tasks/{}.default", new_ulid())).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (StatusCode::NOT_FOUND, "task_not_found"));
    let without_id = |mut body: Value| {
        body["request_id"].take();
        body
    };
    for id in [
        "x",
        "%2e%2e",
        "%00",
        "%ff",
        "a%2Fb",
        "01K9ZQ4T8Z6V0YQ0M5R7T2W3XK",
        "01K9ZQ4T8Z6V0YQ0M5R7T2W3XK.*",
        "%F0%9F%98%80",
    ] {
        for path in [format!("/api/tasks/{id}"), format!("/api/tasks/{id}/result"), format!("/api/tasks/{id}/events")] {
            let answer = bench.get(&path).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(without_id(answer.json()), without_id(unknown.json()), "{path}");
        }
    }
    let id = bench.echo().await;
    let answer = bench.get(&format!("/api/tasks/{id}?fields=all")).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "query_invalid"));
}
