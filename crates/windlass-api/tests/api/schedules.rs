//! Schedules as HTTP callers see them.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Bench};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn send(bench: &Bench, method: &str, path: &str, body: Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    bench.send(method, path, &JSON, body).await
}

fn daily() -> Value {
    json!({ "name": "nightly", "plan": "30 2 * * *", "zone": "Europe/Berlin", "kind": "test.echo", "args": {"text": "hi"} })
}

#[tokio::test]
async fn a_schedule_is_created_shown_changed_and_deleted() {
    let bench = Bench::new();
    let made = send(&bench, "POST", "/api/schedules", daily()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&made.body));
    assert_eq!(made.header("location"), "/api/schedules/nightly");
    let again = send(&bench, "POST", "/api/schedules", daily()).await;
    assert_eq!((again.status, again.code().as_str()), (StatusCode::CONFLICT, "schedule_exists"));

    let shown = bench.get("/api/schedules/nightly").await.json();
    assert_eq!((&shown["plan"], &shown["status"]), (&json!("30 2 * * *"), &json!("active")));
    assert_eq!((&shown["missed"], &shown["overlap"]), (&json!("latest"), &json!("skip")));
    assert_eq!((&shown["origin"], &shown["queue"]), (&json!("user"), &json!("default")));
    let list = bench.get("/api/schedules").await.json();
    assert_eq!(list["schedules"].as_array().unwrap().len(), 1);

    let next = bench.get("/api/schedules/nightly/next").await.json();
    assert_eq!(next["next"].as_array().unwrap().len(), 10);
    assert_eq!(next["next"][0]["planned_at"], shown["next_at"]);
    assert_eq!(bench.get("/api/schedules/nightly/next?count=3").await.json()["next"].as_array().unwrap().len(), 3);
    assert_eq!(bench.get("/api/schedules/nightly/next?count=101").await.code(), "query_invalid");

    let mut change = daily();
    change["plan"] = json!("@every 5s");
    change["zone"] = Value::Null;
    let changed = send(&bench, "PUT", "/api/schedules/nightly", change.clone()).await;
    assert_eq!((changed.status, &changed.json()["zone"]), (StatusCode::OK, &json!("UTC")));
    change["name"] = json!("other");
    let wrong = send(&bench, "PUT", "/api/schedules/nightly", change).await;
    assert_eq!(wrong.code(), "schedule_invalid");

    let gone = send(&bench, "DELETE", "/api/schedules/nightly", Value::Null).await;
    assert_eq!(gone.status, StatusCode::OK);
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/run"), ("POST", "/pause"), ("GET", "/history")] {
        let answer = send(&bench, method, &format!("/api/schedules/nightly{path}"), Value::Null).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "schedule_not_found"), "{path}");
    }
}

#[tokio::test]
async fn a_schedule_is_paused_resumed_and_run() {
    let bench = Bench::new();
    send(&bench, "POST", "/api/schedules", daily()).await;
    let paused = send(&bench, "POST", "/api/schedules/nightly/pause", Value::Null).await.json();
    assert_eq!((&paused["status"], &paused["next_at"]), (&json!("paused"), &Value::Null));
    let resumed = send(&bench, "POST", "/api/schedules/nightly/resume", Value::Null).await.json();
    assert_eq!(resumed["status"], "active");
    let run = send(&bench, "POST", "/api/schedules/nightly/run", Value::Null).await;
    assert_eq!(run.status, StatusCode::ACCEPTED);
    let task = bench.get(run.json()["status_url"].as_str().unwrap()).await.json();
    assert_eq!((&task["kind"], &task["labels"]["schedule"]), (&json!("test.echo"), &json!("nightly")));
    let history = bench.get("/api/schedules/nightly/history").await.json();
    assert_eq!(history["history"][0]["decision"], "manual");
    assert_eq!(history["history"][0]["task_id"], run.json()["task_id"]);
}

#[tokio::test]
async fn the_next_firings_of_a_plan_can_be_asked_for_without_keeping_it() {
    let bench = Bench::new();
    let preview = send(&bench, "POST", "/api/schedules?dry_run=true", daily()).await;
    assert_eq!((preview.status, preview.json()["next"].as_array().unwrap().len()), (StatusCode::OK, 10));
    assert!(bench.get("/api/schedules").await.json()["schedules"].as_array().unwrap().is_empty());
}

/// B14: 422 with the reason, and nothing is kept.
#[tokio::test]
async fn b14_wrong_schedules_are_refused() {
    let bench = Bench::new();
    let check = async |change: &dyn Fn(&mut Value), path: &str, code: &str| {
        let mut body = daily();
        change(&mut body);
        let answer = send(&bench, "POST", "/api/schedules", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "schedule_invalid"));
        let violations = answer.json()["violations"].clone();
        assert_eq!((&violations[0]["path"], &violations[0]["code"]), (&json!(path), &json!(code)), "{violations}");
    };
    check(&|b| b["plan"] = json!("0 0 31 2 *"), "/plan", "never_fires").await;
    check(&|b| b["plan"] = json!("* ".repeat(5_000)), "/plan", "plan_too_long").await;
    check(&|b| b["plan"] = json!("@every 10ms"), "/plan", "interval_out_of_range").await;
    check(&|b| b["zone"] = json!("Mars/Phobos"), "/zone", "zone_unknown").await;
    check(&|b| b["kind"] = json!("no.such"), "/kind", "unknown_kind").await;
    check(&|b| b["args"] = json!({"text": 5}), "/args", "args_invalid").await;
    check(&|b| b["args"] = json!({"text": ""}), "/args/text", "out_of_range").await;
    check(&|b| b["name"] = json!("../x"), "/name", "name_invalid").await;
    check(&|b| b["plam"] = json!("x"), "", "schedule_invalid").await;
    check(&|b| b["overlap"] = json!("sometimes"), "", "schedule_invalid").await;
    check(&|b| *b = json!([1]), "", "wrong_type").await;
    let answer = bench.send("POST", "/api/schedules", &JSON, "{").await;
    assert_eq!(answer.code(), "json_invalid");
    assert!(bench.get("/api/schedules").await.json()["schedules"].as_array().unwrap().is_empty());
}
