//! What every error looks like, and the errors of no route in particular.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::json;
use windlass_api::keys::hash_key;
use windlass_api::{ApiOptions, Auth, Code, ROUTES};

use crate::support::{Bench, log_of_this_test};

/// Every code has its page: under its name, served, and in the index.
#[tokio::test]
async fn every_code_has_a_page() {
    let bench = Bench::new();
    let index = include_str!("../../../../docs/errors/README.md");
    for code in Code::ALL {
        let answer = bench.get(&format!("/docs/errors/{}", code.as_str())).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "text/plain; charset=utf-8"));
        let page = String::from_utf8(answer.body).unwrap();
        let head = format!("# {}\n\nStatus {}", code.as_str(), code.status().as_u16());
        assert!(page.starts_with(&head), "{page}");
        assert!(page.contains("## What it means") && page.contains("## What to do"));
        let row = format!("| [`{0}`]({0}.md) | {1} | {2} |", code.as_str(), code.status().as_u16(), code.title());
        assert!(index.contains(&row), "{row}");
    }
    let pages = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors")).unwrap().count();
    assert_eq!(pages, Code::ALL.len() + 1, "no page is left over");
    assert_eq!(bench.get("/docs/errors/nope").await.code(), "not_found");
}

/// B09
#[tokio::test]
async fn strange_paths_are_not_found() {
    let bench = Bench::new();
    for path in [
        "/api",
        "/api/tasks/",
        "//api/tasks",
        "/api//tasks",
        "/api/%2e%2e/livez",
        "/api/../livez",
        "/api/tasks%00",
        "/API/tasks",
    ] {
        let answer = bench.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "not_found"), "{path}");
    }
    let answer = bench.get(&format!("/api/tasks/{}", "a".repeat(8192))).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::URI_TOO_LONG, "url_too_long"));
}

/// B09, B38: the table decides; HEAD is not answered where GET is.
#[tokio::test]
async fn other_methods_are_refused_with_those_allowed() {
    let bench = Bench::new();
    for route in ROUTES {
        let path =
            route.path.replace("{id}", "x").replace("{sha256}", "x").replace("{code}", "x").replace("{name}", "x");
        let known: Vec<&str> = ROUTES.iter().filter(|r| r.path == route.path).map(|r| r.method).collect();
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PURGE"] {
            let answer = bench.send(method, &path, &[], Body::empty()).await;
            let refused = answer.status == StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(refused, !known.contains(&method), "{method} {path}");
            if refused {
                assert_eq!(answer.header("allow"), known.join(", "));
                assert!(method == "HEAD" || answer.code() == "method_not_allowed");
            }
        }
    }
}

/// B08, B09, B30: JSON in disguise and compressed bodies are not taken.
#[tokio::test]
async fn other_media_types_and_encodings_are_refused() {
    let bench = Bench::new();
    let job = json!({ "kind": "test.echo", "args": { "text": "hi" } }).to_string();
    for media_type in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data; boundary=x", ""]
    {
        let answer = bench.send("POST", "/api/tasks", &[("content-type", media_type)], job.clone()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type_unsupported")
        );
    }
    let gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let answer = bench.send("POST", "/api/tasks", &gzip, job.clone()).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding_unsupported"));
    assert_eq!(bench.enqueued().await, 0);
    let fine = [("content-type", "Application/JSON; charset=utf-8"), ("content-encoding", "identity")];
    assert_eq!(bench.send("POST", "/api/tasks", &fine, job).await.status, StatusCode::ACCEPTED);
}

/// B05
#[tokio::test]
async fn a_json_body_over_the_limit_is_refused() {
    let bench = Bench::new();
    let body = format!("[{}]", " ".repeat(4 * 1024 * 1024));
    let answer = bench.post(body).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    let large = json!({ "kind": "test.echo", "args": { "text": "x".repeat(1024 * 1024) } });
    let answer = bench.post(large).await;
    assert_eq!(answer.violations()[0], ("/args".to_owned(), "args_too_large".to_owned()), "args have their own");
}

/// B06: one byte a second is not enough; a body that comes fast enough may be large.
#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_is_given_up() {
    let bench = Bench::new();
    let trickle = |bytes: usize| {
        Body::from_stream(futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(vec![0; bytes]), ()))
        }))
    };
    let started = tokio::time::Instant::now();
    let answer = bench.send("POST", "/api/blobs", &[], trickle(1)).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::REQUEST_TIMEOUT, "body_timeout"));
    assert_eq!(started.elapsed().as_secs(), 30);
    let answer = bench.send("POST", "/api/blobs", &[], trickle(100_000)).await;
    assert_eq!(answer.code(), "body_too_large", "after 262 s");
    let broken = futures_util::stream::iter([Err::<Vec<u8>, _>(std::io::Error::other("reset"))]);
    assert_eq!(bench.send("POST", "/api/blobs", &[], Body::from_stream(broken)).await.code(), "body_unreadable");
}

#[tokio::test]
async fn a_queue_that_is_away_or_full_is_told_without_its_inside() {
    let bench = Bench::new();
    let id = bench.echo().await;
    let job = json!({ "kind": "test.echo", "args": { "text": "hi" } });
    bench.broker.full.store(true, Ordering::SeqCst);
    let answer = bench.post(&job).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "store_full"));
    bench.broker.away.store(true, Ordering::SeqCst);
    let answer = bench.post(&job).await;
    assert_eq!(answer.code(), "queue_unavailable");
    assert_eq!(
        answer.json()["task_ids"].as_array().unwrap().len(),
        1,
        "so that the caller can look whether it was taken"
    );
    let task = format!("/api/tasks/{id}");
    for path in
        [task.as_str(), &format!("{task}/result"), &format!("{task}/events"), "/api/queues", "/api/workers", "/readyz"]
    {
        let answer = bench.get(path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "queue_unavailable"),
            "{path}"
        );
        assert_eq!(answer.header("retry-after"), "1");
    }
}

/// B29: an id reaches header and body only if it cannot be more than an id.
#[tokio::test]
async fn a_request_id_is_taken_over_only_when_it_is_harmless() {
    let bench = Bench::new();
    let check = async |given: &str, taken: bool| {
        let answer = bench.send("GET", "/nope", &[("x-request-id", given)], Body::empty()).await;
        assert_eq!(answer.code(), "not_found");
        assert_eq!(answer.header("x-request-id") == given, taken, "{given}");
        assert!(taken || answer.header("x-request-id").len() == 26);
    };
    check("abc_DEF-123", true).await;
    check(&"a".repeat(64), true).await;
    for bad in ["", "a b", "<script>", "a;b", "a\tb", &"a".repeat(65)] {
        check(bad, false).await;
    }
}

#[tokio::test]
async fn a_handler_that_panics_is_one_failed_request() {
    let bench = Bench::new();
    let answer = bench.post(json!({ "kind": "test.echo", "args": { "text": "panic" } })).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "internal"));
    let large = format!(r#"{{"kind":"test.echo","args":{{"text":"panic"}}{}}}"#, " ".repeat(100_000));
    assert_eq!(bench.post(large).await.code(), "internal", "off the async threads, too");
    assert_eq!(bench.get("/livez").await.status, StatusCode::OK);
}

/// B29, B36: the log names route and request, never what a caller or the store keeps secret.
#[tokio::test]
async fn the_log_holds_no_secrets_and_no_bodies() {
    let auth = Auth { fixed: vec![hash_key("canary-key")], ..Auth::open() };
    let bench = Bench::for_keys(ApiOptions { auth, ..ApiOptions::default() });
    let headers =
        [("content-type", "application/json"), ("authorization", "Bearer canary-key"), ("x-request-id", "r-1")];
    let job = json!({ "kind": "test.echo", "args": { "text": "canary-arg" } }).to_string();
    bench.send("POST", "/api/tasks?canary-query", &headers, job).await;
    bench.send("GET", "/api/tasks/canary-path", &[], Body::empty()).await;
    let text = log_of_this_test();
    assert!(text.contains(r#"request{method="POST" route="/api/tasks" request_id=r-1}"#), "{text}");
    assert!(text.contains("status=202") && !text.contains("canary"), "{text}");
}
