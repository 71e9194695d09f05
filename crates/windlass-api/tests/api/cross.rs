//! What browsers of other sites may ask, and packed answers.

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::json;
use windlass_api::{ApiOptions, Auth};

use crate::support::Bench;

async fn preflight(bench: &Bench, origin: &str) -> (StatusCode, HeaderMap) {
    let request = Request::builder()
        .method("OPTIONS")
        .uri("/api/tasks")
        .header("host", "localhost")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    let response = bench.raw(request.body(Body::empty()).unwrap()).await;
    (response.status(), response.headers().clone())
}

/// Pages of the sites that are set are handed answers, those of others are not; without a setting nothing
/// changes.
#[tokio::test]
async fn only_pages_of_friends_are_handed_answers() {
    let friends = vec!["https://app.example".to_owned()];
    let bench = Bench::with(ApiOptions { cors_origins: friends, ..ApiOptions::default() });
    let (status, headers) = preflight(&bench, "https://app.example").await;
    assert_eq!(
        (status, &headers["access-control-allow-origin"]),
        (StatusCode::OK, &"https://app.example".parse().unwrap())
    );
    assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    assert!(!headers.contains_key("access-control-allow-credentials"));
    assert!(!preflight(&bench, "https://evil.example").await.1.contains_key("access-control-allow-origin"));
    let job = json!({ "kind": "test.echo", "args": { "text": "hi" } }).to_string();
    let post = async |bench: &Bench, origin: &str| {
        let headers = [("content-type", "application/json"), ("origin", origin)];
        bench.send("POST", "/api/tasks", &headers, job.clone()).await
    };
    let taken = post(&bench, "https://app.example").await;
    assert_eq!(
        (taken.status, taken.header("access-control-allow-origin")),
        (StatusCode::ACCEPTED, "https://app.example")
    );
    assert_eq!(post(&bench, "https://evil.example").await.code(), "origin_refused");

    let bench = Bench::for_keys(ApiOptions {
        cors_origins: vec!["*".to_owned()],
        auth: Auth::default(),
        ..ApiOptions::default()
    });
    assert_eq!(preflight(&bench, "https://any.example").await.1["access-control-allow-origin"], "*");
    assert_eq!(post(&bench, "https://any.example").await.code(), "unauthorized", "a key is needed all the same");
    let (status, headers) = preflight(&Bench::new(), "https://app.example").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!headers.contains_key("access-control-allow-origin"));
}

/// Large answers are packed as the client takes them; small ones and those with a tag are not.
#[tokio::test]
async fn large_answers_are_packed() {
    let bench = Bench::new();
    let get = async |path: &str, accepted: &str| {
        bench.send("GET", path, &[("accept-encoding", accepted)], Body::empty()).await
    };
    let plain = get("/api/openapi.json", "identity").await;
    for (accepted, used, magic) in [
        ("gzip", "gzip", &[0x1f, 0x8b][..]),
        ("zstd", "zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
        ("gzip;q=0.5, zstd", "zstd", &[0x28]),
    ] {
        let packed = get("/api/openapi.json", accepted).await;
        assert_eq!((packed.header("content-encoding"), packed.header("vary")), (used, "accept-encoding"), "{accepted}");
        assert!(packed.body.starts_with(magic) && packed.body.len() * 4 < plain.body.len());
    }
    assert_eq!(plain.header("content-encoding"), "");
    assert_eq!(get("/livez", "gzip").await.header("content-encoding"), "");
    let id = bench.succeeded(json!("x".repeat(5000)), &[]).await;
    assert_eq!(get(&format!("/api/tasks/{id}/result"), "gzip").await.header("content-encoding"), "");
}
