//! Health, queues and workers.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use serde_json::{Value, json};
use windlass_broker::Leases as _;
use windlass_jobs::command::WorkerInfo;
use windlass_jobs::{Queue, Timestamp};

use crate::support::Bench;

fn worker() -> WorkerInfo {
    WorkerInfo {
        name: "w1".into(),
        host: "h".into(),
        pid: 7,
        queues: vec![Queue::new("default").unwrap()],
        kinds: vec!["test.echo".into()],
        slots: 4,
        running: 1,
        jobs: Vec::new(),
        canary_age_ms: Some(12),
        draining: false,
        started_at: Timestamp::now(),
        seen_at: Timestamp::now(),
        version: "0.1.0".into(),
    }
}

/// The shape of `compat.md` §3, with ours beside it.
#[tokio::test]
async fn health_has_the_old_shape() {
    let bench = Bench::new();
    bench.broker.announce(&worker()).await.unwrap();
    let check = async |status: &str, redis: Value, engine: &str, workers: Value| {
        let answer = bench.get("/api/health").await;
        assert_eq!(answer.status, StatusCode::OK);
        let mut body = answer.json();
        if let Some(took) = body["redis"].as_object_mut().unwrap().remove("responseTime") {
            assert!(took.is_u64(), "whole ms");
        }
        let version = env!("CARGO_PKG_VERSION");
        let expected =
            json!({ "status": status, "redis": redis, "engine": engine, "version": version, "workers": workers });
        assert_eq!(body, expected);
    };
    check("OK", json!({ "status": "connected" }), "redis", json!(1)).await;
    assert!(bench.get("/api/health").await.json()["redis"]["responseTime"].is_u64());
    bench.broker.away.store(true, Ordering::SeqCst);
    check("DEGRADED", json!({ "status": "disconnected" }), "redis", Value::Null).await;
    assert_eq!(bench.get("/livez").await.json(), json!({ "status": "OK" }));
    assert_eq!(bench.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    bench.broker.sqlite.store(true, Ordering::SeqCst);
    check("DEGRADED", json!({ "status": "not_configured" }), "sqlite", Value::Null).await;
    bench.broker.away.store(false, Ordering::SeqCst);
    check("OK", json!({ "status": "not_configured" }), "sqlite", json!(1)).await;
    assert_eq!(bench.get("/readyz").await.json(), json!({ "status": "OK" }));
}

#[tokio::test]
async fn queues_and_workers_are_listed() {
    let bench = Bench::new();
    assert_eq!(bench.get("/api/queues").await.json(), json!({ "queues": [], "next": null }));
    assert_eq!(bench.get("/api/workers").await.json(), json!({ "workers": [], "next": null }));
    bench.echo().await;
    bench.echo().await;
    bench.claim("default").await;
    bench.broker.announce(&worker()).await.unwrap();
    let queues = bench.get("/api/queues").await.json()["queues"].clone();
    assert_eq!(queues.as_array().unwrap().len(), 1);
    let counts = ["pending", "running", "dead", "enqueued_total"].map(|name| queues[0][name].as_u64().unwrap());
    assert_eq!((&queues[0]["name"], counts), (&json!("default"), [1, 1, 0, 2]));
    let workers = bench.get("/api/workers").await.json()["workers"].clone();
    assert_eq!(
        (&workers[0]["name"], &workers[0]["queues"], &workers[0]["slots"]),
        (&json!("w1"), &json!(["default"]), &json!(4))
    );
}
