//! What users of the library build on: jobs run in unit tests, and layers around runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower::layer::layer_fn;
use windlass_jobs::{ArtifactFile, Done, Options, Outcome, Reason, State, Violation};
use windlass_worker::{
    Handler, InlineKind, Inputs, IsolatedKind, KindSpec, Registry, RunContext, RunReply, RunRequest, TestWorker,
};

/// Does what its args say.
struct Act;

#[async_trait]
impl InlineKind for Act {
    type Args = String;
    fn spec(&self) -> KindSpec {
        KindSpec { timeout: Duration::from_millis(200), ..KindSpec::new("test.act", "") }
    }
    fn check(&self, args: &String) -> Vec<Violation> {
        if args.is_empty() { vec![Violation::new("", "empty", "say something")] } else { vec![] }
    }
    async fn run(&self, args: String, ctx: &dyn RunContext) -> Outcome {
        ctx.progress(50.0, "half");
        match args.as_str() {
            "done" => Outcome::Done(Done { value: json!({ "run": ctx.attempt() }), ..Done::default() }),
            "retry" => Outcome::retry("later", "not yet"),
            "fatal" => Outcome::fatal("never", "no way"),
            "snooze" => Outcome::Snooze { delay: Duration::from_secs(7) },
            "cancel" => Outcome::Cancel { reason: "nobody asked".into() },
            "hang" => std::future::pending().await,
            _ => panic!("what is {args}?"),
        }
    }
}

/// Turns a blob around, in a child; counts its runs.
struct Turn(Arc<AtomicU32>);

impl IsolatedKind for Turn {
    type Args = String;
    fn spec(&self) -> KindSpec {
        KindSpec { cache_ttl: Some(KindSpec::CACHE_TTL), ..KindSpec::new("test.turn", "") }
    }
    fn check(&self, _: &String) -> Vec<Violation> {
        Vec::new()
    }
    fn inputs(&self, blob: &String) -> Inputs {
        Inputs { blobs: vec![blob.trim_start_matches("sha256:").to_owned()], ..Inputs::default() }
    }
    fn run(&self, blob: String, dir: &Path, _: &dyn RunContext) -> Outcome {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut bytes = std::fs::read(dir.join("in").join(blob.trim_start_matches("sha256:"))).unwrap();
        bytes.reverse();
        std::fs::write(dir.join("out/turned"), &bytes).unwrap();
        let file = ArtifactFile { name: "turned".into(), media_type: "text/plain".into(), path: "out/turned".into() };
        Outcome::Done(Done { value: bytes.len().into(), artifacts: vec![file], skipped: false })
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.inline(Act).isolated(Turn(Arc::default()));
    registry
}

#[tokio::test]
async fn every_outcome_of_a_handler_is_what_the_broker_would_record() {
    let worker = TestWorker::new(registry());
    let check = async |what: &str, state: State, reason: Option<Reason>, code: &str| {
        let run = worker.run("test.act", &json!(what)).await;
        assert_eq!((run.state, run.reason), (state, reason), "{what}: {run:?}");
        assert_eq!(run.error.map(|e| e.code).unwrap_or_default(), code, "{what}");
        (run.delay, run.progress.len())
    };
    let done = worker.run("test.act", &json!("done")).await;
    assert_eq!((done.state, done.value), (State::Success, json!({ "run": 1 })));
    assert_eq!(done.progress[0].message, "half");
    check("fatal", State::Failure, Some(Reason::Error), "never").await;
    check("", State::Failure, Some(Reason::Error), "empty").await;
    check("cancel", State::Cancelled, None, "cancelled").await;
    check("hang", State::Retrying, None, "timeout").await;
    check("a panic", State::Retrying, None, "panicked").await;
    assert_eq!(check("snooze", State::Scheduled, None, "").await.0, Some(Duration::from_secs(7)));
    assert!(check("retry", State::Retrying, None, "later").await.0.is_some());
    let once = Options { max_attempts: Some(2), ..Options::default() };
    let last = worker.run_with("test.act", &json!("retry"), 2, &once).await;
    assert_eq!((last.state, last.reason), (State::Failure, Some(Reason::Error)), "the last of its runs");
    assert_eq!(worker.run("nobody", &json!({})).await.state, State::Pending);
}

#[tokio::test]
async fn an_isolated_kind_runs_in_a_test_with_its_files_and_its_cache() {
    let runs = Arc::new(AtomicU32::new(0));
    let mut registry = Registry::new();
    registry.isolated(Turn(Arc::clone(&runs)));
    let worker = TestWorker::new(registry);
    let blob = worker.upload(b"abc").await;
    for cached in [false, true] {
        let run = worker.run("test.turn", &json!(blob)).await;
        assert_eq!((run.state, &run.value, run.cached), (State::Success, &json!(3), cached), "{run:?}");
        assert_eq!((run.files[0].name.as_str(), run.files[0].bytes.as_slice()), ("turned", &b"cba"[..]));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let missing = worker.run("test.turn", &json!(format!("sha256:{}", "0".repeat(64)))).await;
    assert_eq!(missing.error.map(|e| e.code), Some("blob_missing".into()));
}

/// Layers see every run in their order, and how it ended; they may answer by themselves.
#[tokio::test]
async fn layers_are_around_every_run() {
    let log: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let mut registry = registry();
    for name in ["outer", "inner"] {
        let log = Arc::clone(&log);
        registry.layer(layer_fn(move |inner: Handler| {
            let log = Arc::clone(&log);
            tower::service_fn(move |request: RunRequest| {
                let (inner, log) = (inner.clone(), Arc::clone(&log));
                async move {
                    log.lock().unwrap().push(format!("{name} {} {}", request.kind(), request.args()));
                    let refused = name == "inner" && request.args() == r#""cancel""#;
                    let reply = match refused {
                        true => Outcome::fatal("refused", "by a layer").into(),
                        false => inner.oneshot(request).await.unwrap(),
                    };
                    let how = reply.error().map_or_else(|| reply.value().unwrap().to_string(), |e| e.code.clone());
                    log.lock().unwrap().push(format!("{name} {how}"));
                    Ok::<RunReply, String>(reply)
                }
            })
        }));
    }
    let worker = TestWorker::new(registry);
    assert_eq!(worker.run("test.act", &json!("done")).await.state, State::Success);
    let expected = [r#"outer test.act "done""#, r#"inner test.act "done""#, r#"inner {"run":1}"#, r#"outer {"run":1}"#];
    assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected);
    let refused = worker.run("test.act", &json!("cancel")).await;
    assert_eq!(refused.error.map(|e| e.code), Some("refused".into()));
    let blob = worker.upload(b"x").await;
    assert_eq!(worker.run("test.turn", &json!(blob)).await.state, State::Success);
    assert!(log.lock().unwrap().iter().any(|line| line.starts_with("outer test.turn")), "isolated kinds too");
    // A layer is held to the job's time limit with the run.
    assert_eq!(worker.run("test.act", &json!("hang")).await.error.map(|e| e.code), Some("timeout".into()));
}

/// A layer's own error is a failed run, and layers of tower's own fit.
#[tokio::test]
async fn an_error_of_a_layer_is_a_failed_run() {
    let mut registry = registry();
    registry.layer(tower::limit::ConcurrencyLimitLayer::new(1));
    registry.layer(layer_fn(|inner: Handler| {
        tower::service_fn(move |request: RunRequest| {
            let inner = inner.clone();
            async move {
                match request.attempt() {
                    1 => Ok(inner.oneshot(request).await.unwrap()),
                    _ => Err("no second run"),
                }
            }
        })
    }));
    let worker = TestWorker::new(registry);
    assert_eq!(worker.run("test.act", &json!("done")).await.state, State::Success);
    let second = worker.run_with("test.act", &json!("done"), 2, &Options::default()).await;
    assert_eq!(second.error.map(|e| (e.code, e.message)), Some(("middleware".into(), "no second run".into())));
    let _: Value = second.value;
}
