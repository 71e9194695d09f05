//! `GET /api/tasks/{id}/result`.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};
use windlass_jobs::Reason;
use windlass_jobs::command::Settle;
use windlass_store::Digest;

use crate::support::Bench;

const PDF: &[u8] = b"%PDF-1.7 cards";

#[tokio::test]
async fn the_first_artifact_is_sent_and_cached() {
    let bench = Bench::new();
    let id = bench.succeeded(json!({ "pages": 1 }), &[("cards.pdf", "application/pdf", PDF)]).await;
    let url = format!("/api/tasks/{id}/result");
    let answer = bench.get(&url).await;
    assert_eq!((answer.status, answer.body.as_slice()), (StatusCode::OK, PDF));
    let etag = format!("\"{}\"", Digest::of(PDF).hex());
    assert_eq!(answer.header("content-type"), "application/pdf");
    assert_eq!(answer.header("content-disposition"), "inline; filename=\"cards.pdf\"");
    assert_eq!(answer.header("etag"), etag);
    assert_eq!(answer.header("cache-control"), "private, max-age=86400, immutable");
    let cached = bench.send("GET", &url, &[("if-none-match", &format!("\"x\", W/{etag}"))], Body::empty()).await;
    assert_eq!((cached.status, cached.body.len(), cached.header("etag")), (StatusCode::NOT_MODIFIED, 0, etag.as_str()));
    let other = bench.send("GET", &url, &[("if-none-match", "\"x\"")], Body::empty()).await;
    assert_eq!(other.status, StatusCode::OK);
    let as_json = bench.send("GET", &url, &[("accept", "application/json")], Body::empty()).await;
    assert_eq!((as_json.header("content-type"), as_json.json()), ("application/json", json!({ "pages": 1 })));
}

#[tokio::test]
async fn other_artifacts_are_picked_by_name_or_index() {
    let bench = Bench::new();
    let files: [(&str, &str, &[u8]); 3] =
        [("a.png", "image/png", b"A"), ("é 2.csv", "text/csv", b"B"), ("0", "text/html", b"<script>")];
    let id = bench.succeeded(Value::Null, &files).await;
    let check = async |query: &str, expected: &[u8], disposition: &str| {
        let answer = bench.get(&format!("/api/tasks/{id}/result?artifact={query}")).await;
        assert_eq!((answer.body.as_slice(), answer.header("content-disposition")), (expected, disposition), "{query}");
    };
    check("a.png", b"A", "inline; filename=\"a.png\"").await;
    check("1", b"B", "inline; filename=\"_ 2.csv\"; filename*=UTF-8''%C3%A9%202.csv").await;
    check("%C3%A9%202.csv", b"B", "inline; filename=\"_ 2.csv\"; filename*=UTF-8''%C3%A9%202.csv").await;
    // B29: a page is offered for saving, never shown. A name beats an index.
    check("0", b"<script>", "attachment; filename=\"0\"").await;
    for query in ["artifact=7", "artifact=-1", "artifact=../a.png", "artifact="] {
        let answer = bench.get(&format!("/api/tasks/{id}/result?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "artifact_not_found"), "{query}");
    }
    assert_eq!(bench.get(&format!("/api/tasks/{id}/result?file=0")).await.code(), "query_invalid");
}

#[tokio::test]
async fn without_artifacts_the_value_is_the_result() {
    let bench = Bench::new();
    let id = bench.succeeded(json!([1, 2]), &[]).await;
    let url = format!("/api/tasks/{id}/result");
    let answer = bench.get(&url).await;
    assert_eq!((answer.header("content-type"), answer.json()), ("application/json", json!([1, 2])));
    let cached = bench.send("GET", &url, &[("if-none-match", answer.header("etag"))], Body::empty()).await;
    assert_eq!(cached.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn no_result_says_why() {
    let bench = Bench::new();
    let check = async |id, code: &str, status: &str, reason: Value| {
        let answer = bench.get(&format!("/api/tasks/{id}/result")).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::CONFLICT, code));
        let task = answer.json()["task"].clone();
        assert_eq!((&task["status"], &task["reason"]), (&json!(status), &reason));
        task["error"]["code"].clone()
    };
    assert_eq!(check(bench.echo().await, "task_not_completed", "pending", Value::Null).await, Value::Null);
    bench.claim("default").await;
    let error = || json!({ "code": "no_luck", "message": "none" }).to_string();
    let failed = Settle::Failure { reason: Reason::Oom, failures: 1, error: error() };
    assert_eq!(check(bench.ended(failed).await, "task_failed", "failure", json!("oom")).await, "no_luck");
    let cancelled = Settle::Cancelled { error: error() };
    assert_eq!(check(bench.ended(cancelled).await, "task_cancelled", "cancelled", Value::Null).await, "no_luck");
}

#[tokio::test]
async fn an_artifact_past_its_time_is_gone() {
    let bench = Bench::new();
    let id = bench.succeeded(Value::Null, &[("cards.pdf", "application/pdf", PDF)]).await;
    std::fs::remove_dir_all(bench.dir.path().join("artifacts")).unwrap();
    let etag = format!("\"{}\"", Digest::of(PDF).hex());
    for headers in [vec![], vec![("if-none-match", etag.as_str())]] {
        let answer = bench.send("GET", &format!("/api/tasks/{id}/result"), &headers, Body::empty()).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::GONE, "result_expired"));
    }
}
