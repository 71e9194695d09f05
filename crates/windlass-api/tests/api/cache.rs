//! `GET /api/cache/stats` and `POST /api/cache/clear`.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::Bench;

/// The shape of `compat.md` §4, with ours beside it: empty, and with something in it.
#[tokio::test]
async fn cache_statistics_have_the_old_shape() {
    let bench = Bench::new();
    let stats = async || bench.get("/api/cache/stats").await.json();
    let none = json!({ "entries": 0, "size_mb": 0.0 });
    let expected = json!({
        "cache_size_mb": 0.0, "max_size_mb": 1024.0, "entry_count": 0, "hit_rate": 0.0,
        "hits": 0, "misses": 0, "evictions": 0, "oldest": null, "results": none, "artifacts": none,
        "uploads": { "entries": 0, "size_mb": 0.0, "max_size_mb": 2048.0, "jobs": 0 },
    });
    assert_eq!(stats().await, expected);

    let services = &bench.api.services;
    services.artifacts.put(vec![0; 3 * 1024 * 1024].into()).await.unwrap();
    services.results.lead("00", "a", Duration::from_secs(1)).await.unwrap();
    services.results.put("00", "1", Duration::from_secs(60)).await.unwrap();
    for _ in 0..2 {
        services.results.get("00").await.unwrap();
    }
    let mut body = stats().await;
    assert!(body["oldest"].take().as_str().unwrap().ends_with('Z'));
    let artifacts = json!({ "entries": 1, "size_mb": 3.0 });
    let expected = json!({
        "cache_size_mb": 3.0, "max_size_mb": 1024.0, "entry_count": 2, "hit_rate": 0.6667,
        "hits": 2, "misses": 1, "evictions": 0, "oldest": null,
        "results": { "entries": 1, "size_mb": 0.0 }, "artifacts": artifacts,
        "uploads": { "entries": 0, "size_mb": 0.0, "max_size_mb": 2048.0, "jobs": 0 },
    });
    assert_eq!(body, expected);

    let cleared = bench.send("POST", "/api/cache/clear", &[], Body::empty()).await;
    let expected = json!({ "success": true, "message": "Cache cleared successfully", "cleared": 1 });
    assert_eq!((cleared.status, cleared.json()), (StatusCode::OK, expected));
    assert_eq!((&stats().await["results"]["entries"], &stats().await["artifacts"]), (&json!(0), &artifacts));
    assert_eq!(stats().await.get("oldest").map(Value::is_string), Some(true));
}
