//! `GET /api/tasks/{id}/events`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use futures_util::StreamExt as _;
use serde_json::Value;
use windlass_api::ApiOptions;
use windlass_jobs::command::Settle;
use windlass_jobs::{JobId, Reason};
use windlass_worker::StoredResult;

use crate::support::{Bench, read, success};

/// A stream of events as a client reads it.
struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    async fn open(bench: &Bench, id: &JobId) -> Self {
        let request = Request::get(format!("/api/tasks/{id}/events")).header("host", "localhost");
        let response = bench.raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event's name and data; `None` once the stream is closed.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let found = field("event: ").zip(field("data: "));
                self.text = rest.to_owned();
                if let Some((name, data)) = found {
                    return Some((name, serde_json::from_str(&data).unwrap()));
                }
                continue; // a comment
            }
            let chunk = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn expect(&mut self, name: &str, status: &str) -> Value {
        let (found, task) = self.next().await.expect("the stream is open");
        assert_eq!((found.as_str(), task["status"].as_str().unwrap()), (name, status), "{task}");
        task
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_followed_to_its_end() {
    let bench = Bench::new();
    let id = bench.echo().await;
    let mut events = Events::open(&bench, &id).await;
    events.expect("state", "pending").await;
    let first = bench.claim("default").await;
    assert_eq!(events.expect("state", "running").await["attempt"], 1);
    bench.progress(&id, first.lease, 12.5, "page 1").await;
    assert_eq!(events.expect("progress", "running").await["progress"], 12.5);
    let error = r#"{"code":"no_luck","message":"try again"}"#.to_owned();
    bench
        .settle("default", first.lease, Settle::Retry { delay: Duration::ZERO, failures: 1, error: error.clone() })
        .await;
    assert_eq!(events.expect("state", "retrying").await["error"]["code"], "no_luck");
    let second = bench.claim("default").await;
    events.expect("state", "running").await;
    bench.settle("default", second.lease, success(&StoredResult::default())).await;
    assert_eq!(events.expect("end", "success").await["progress"], 100.0);
    assert!(events.next().await.is_none(), "closed after the end");

    let failed = bench.ended(Settle::Failure { reason: Reason::Error, failures: 1, error }).await;
    let mut events = Events::open(&bench, &failed).await;
    events.expect("end", "failure").await;
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_is_kept_alive_and_outlasts_an_outage() {
    let bench = Bench::new();
    let id = bench.echo().await;
    let mut events = Events::open(&bench, &id).await;
    events.expect("state", "pending").await;
    bench.broker.away.store(true, Ordering::SeqCst);
    let started = tokio::time::Instant::now();
    let comment = events.body.next().await.unwrap().unwrap();
    assert!(comment.starts_with(b":"), "{comment:?}");
    assert!((14..=16).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    bench.broker.away.store(false, Ordering::SeqCst);
    bench.claim("default").await;
    events.expect("state", "running").await;
}

/// B35
#[tokio::test]
async fn streams_are_bounded_and_a_vanished_client_frees_its_place() {
    let bench = Bench::with(ApiOptions { event_streams: 2, ..ApiOptions::default() });
    let id = bench.echo().await;
    let path = format!("/api/tasks/{id}/events");
    let first = Events::open(&bench, &id).await;
    let _second = Events::open(&bench, &id).await;
    let answer = bench.get(&path).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "too_many_streams"));
    assert_eq!(answer.header("retry-after"), "5");
    drop(first);
    Events::open(&bench, &id).await;
}

#[tokio::test]
async fn a_browser_that_comes_back_after_the_end_is_told_to_stop() {
    let bench = Bench::new();
    let id = bench.ended(success(&StoredResult::default())).await;
    let path = format!("/api/tasks/{id}/events");
    let answer = bench.get(&path).await;
    assert!(String::from_utf8_lossy(&answer.body).contains("id: end\n"));
    let request = Request::get(&path).header("host", "localhost").header("last-event-id", "end");
    let answer = read(bench.raw(request.body(Body::empty()).unwrap()).await).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
}
