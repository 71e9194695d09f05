//! `POST /api/blobs`, `PUT` and `HEAD /api/blobs/{sha256}`.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::json;
use windlass_api::ApiOptions;
use windlass_store::Digest;

use crate::support::Bench;

#[tokio::test]
async fn blobs_are_stored_under_their_digest() {
    let bench = Bench::new();
    let digest = Digest::of(b"cards");
    let path = format!("/api/blobs/{}", digest.hex());
    assert_eq!(bench.send("HEAD", &path, &[], Body::empty()).await.status, StatusCode::NOT_FOUND);
    let expected = json!({ "blob": digest.to_string(), "bytes": 5 });
    for (method, path) in [("POST", "/api/blobs"), ("PUT", path.as_str()), ("PUT", &format!("/api/blobs/{digest}"))] {
        let answer = bench.send(method, path, &[], "cards").await;
        assert_eq!((answer.status, answer.json()), (StatusCode::CREATED, expected.clone()), "{method} {path}");
    }
    assert_eq!(bench.send("HEAD", &path, &[], Body::empty()).await.status, StatusCode::OK);
    let down = bench.get(&path).await;
    assert_eq!((down.status, down.body.as_slice()), (StatusCode::OK, &b"cards"[..]));
    // B29: whatever it is, no browser takes it for a page.
    assert_eq!(
        (down.header("content-type"), down.header("content-disposition")),
        ("application/octet-stream", "attachment")
    );
    assert_eq!(down.header("etag"), format!("\"{}\"", digest.hex()));
    assert_eq!(bench.get(&format!("/api/blobs/{}", Digest::of(b"x").hex())).await.code(), "blob_not_found");
}

#[tokio::test]
async fn a_body_that_is_not_what_its_name_says_is_refused() {
    let bench = Bench::new();
    let path = format!("/api/blobs/{}", Digest::of(b"cards").hex());
    let answer = bench.send("PUT", &path, &[], "cardz").await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "digest_mismatch"));
    assert_eq!(bench.send("HEAD", &path, &[], Body::empty()).await.status, StatusCode::NOT_FOUND);
}

/// B28: a blob's name is a hash; nothing else reaches the file system.
#[tokio::test]
async fn names_that_are_no_digest_are_not_there() {
    let bench = Bench::new();
    let upper = Digest::of(b"x").hex().to_uppercase();
    for name in ["..%2f..%2fetc%2fpasswd", "%2Fetc%2Fpasswd", "CON", "%00", "%ff", &"a".repeat(255), &upper] {
        let path = format!("/api/blobs/{name}");
        let answer = bench.send("PUT", &path, &[], "x").await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "blob_not_found"), "{name}");
        assert_eq!(bench.send("HEAD", &path, &[], Body::empty()).await.status, StatusCode::NOT_FOUND, "{name}");
    }
}

/// B05: with and without an announced length.
#[tokio::test]
async fn a_blob_over_the_limit_is_refused() {
    let bench = Bench::with(ApiOptions { blob_bytes: 1000, ..ApiOptions::default() });
    let endless = || Body::from_stream(futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 100])));
    for body in [Body::from(vec![0; 1001]), endless()] {
        let answer = bench.send("POST", "/api/blobs", &[], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
        assert_eq!(answer.header("connection"), "close");
    }
    let announced = bench.send("POST", "/api/blobs", &[("content-length", "999999999999")], Body::empty()).await;
    assert_eq!(announced.code(), "body_too_large");
    assert_eq!(bench.send("POST", "/api/blobs", &[], vec![0; 1000]).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn bodies_in_memory_are_bounded_together() {
    let options = ApiOptions { json_bytes: 1000, blob_bytes: 100_000, bodies_bytes: 150_000, ..ApiOptions::default() };
    let bench = Bench::with(options);
    let stalled = bench.send(
        "POST",
        "/api/blobs",
        &[],
        Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>()),
    );
    let second = async {
        tokio::task::yield_now().await;
        bench.send("POST", "/api/blobs", &[("content-length", "100000")], Body::empty()).await
    };
    let answer = tokio::select! {
        biased;
        _ = stalled => panic!("a body that never comes"),
        answer = second => answer,
    };
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "busy"));
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn a_store_that_fails_is_told_without_its_inside() {
    let bench = Bench::new();
    std::fs::write(bench.dir.path().join("incoming"), "a file where the folder would be").unwrap();
    let answer = bench.send("POST", "/api/blobs", &[], "x").await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"));
    assert!(!String::from_utf8_lossy(&answer.body).contains("incoming/"), "{}", answer.json());
}

/// F44: a disk without room is 507, and what was there is whole.
#[tokio::test]
async fn uploads_over_the_quota_are_507() {
    let mut bench = Bench::new();
    let limits = windlass_store::Limits { upload_bytes: 10, ..windlass_store::Limits::default() };
    bench.api.services = windlass_store::file_services(bench.dir.path(), limits);
    bench.app = windlass_api::router(bench.api.clone());
    assert_eq!(bench.send("POST", "/api/blobs", &[], "ten bytes.").await.status, StatusCode::CREATED);
    let answer = bench.send("POST", "/api/blobs", &[], "x").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (507, "blob_quota_full"));
    assert_eq!(answer.header("retry-after"), "60");
    assert_eq!(bench.get(&format!("/api/blobs/{}", Digest::of(b"x").hex())).await.status, StatusCode::NOT_FOUND);
}

/// A job's blobs are held from the door on, whatever their age; those of a refused one are not lost.
#[tokio::test]
async fn a_jobs_blobs_are_held_until_it_has_ended() {
    let bench = Bench::new();
    let digest = Digest::of(b"card");
    bench.send("POST", "/api/blobs", &[], "card").await;
    let job = json!({ "kind": "test.picture", "args": { "blob": digest.hex(), "width": 5 } });
    let accepted = bench.post(json!([job, job])).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.json());
    let artifacts = &bench.api.services.artifacts;
    assert_eq!(artifacts.stats().await.unwrap().pinned_jobs, 2);
    let long_ago = std::time::SystemTime::now() - windlass_store::PIN_CHECK * 2;
    for pin in std::fs::read_dir(bench.dir.path().join("pins")).unwrap() {
        std::fs::File::options().append(true).open(pin.unwrap().path()).unwrap().set_modified(long_ago).unwrap();
    }
    let claimed = bench.claim("pictures").await;
    let done = windlass_jobs::command::Settle::Success { result: None, skipped: false };
    bench.settle("pictures", claimed.lease, done).await;
    let released = windlass_worker::release_ended(&bench.api.broker, &bench.api.services).await.unwrap();
    assert_eq!((released, artifacts.stats().await.unwrap().pinned_jobs), (1, 1), "the other one still waits");
}
