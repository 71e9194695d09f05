//! A bench: the API over the model broker with a few kinds, and hands that do a worker's part.

use std::cell::RefCell;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tower::ServiceExt as _;
use windlass_api::keys::{Book, NewKey};
use windlass_api::{Api, ApiOptions, Auth, Ring, router};
use windlass_broker::{Broker, Control, Enqueue, Error, Inspect, Leases, Outbox, Result, Wake};
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::command::{
    Ack, Cancel, Claim, Claimed, Counts, Enqueued, Exchange, Exchanged, Filter, Finish, Found, Page, Settle, WorkerInfo,
};
use windlass_jobs::flow::{Mail, Message, Received};
use windlass_jobs::{
    JobId, JobRecord, Lease, Limits, NewJob, Outcome, Progress, Queue, State, Timestamp, Ulid, Violation,
};
use windlass_market::prices::PriceOptions;
use windlass_market::{Market, Where};
use windlass_store::{Caching, CachingOptions, FileArtifacts, FileClaims, FileResults, Services};
use windlass_testkit::ModelBroker;
use windlass_worker::{InlineKind, Inputs, IsolatedKind, KindSpec, Registry, RunContext, StoredArtifact, StoredResult};

use crate::document;

/// The model broker, called Redis, that can be unplugged or filled up.
#[derive(Default)]
pub(crate) struct Plugged {
    model: ModelBroker,
    pub(crate) away: AtomicBool,
    pub(crate) full: AtomicBool,
    pub(crate) sqlite: AtomicBool,
}

impl Plugged {
    fn reach(&self, operation: &'static str) -> Result<()> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Error::Unavailable { operation, source: "redis://:s3cret@queue:6379 refused".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl Enqueue for Plugged {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        self.reach("enqueue")?;
        if self.full.load(Ordering::SeqCst) {
            return Err(Error::Full { operation: "enqueue", source: "OOM".into() });
        }
        self.model.enqueue(queue, jobs).await
    }
}

#[async_trait]
impl Leases for Plugged {
    async fn exchange(&self, queue: &Queue, exchange: &Exchange) -> Result<Exchanged> {
        self.reach("exchange")?;
        self.model.exchange(queue, exchange).await
    }
    async fn renew(&self, queue: &Queue, leases: &[Lease], lease: Duration) -> Result<Vec<Ack>> {
        self.model.renew(queue, leases, lease).await
    }
    async fn progress(&self, queue: &Queue, lease: Lease, progress: &Progress) -> Result<Ack> {
        self.model.progress(queue, lease, progress).await
    }
    async fn tidy(&self, queue: &Queue, success: Duration, failure: Duration) -> Result<usize> {
        self.model.tidy(queue, success, failure).await
    }
    async fn unpark(&self, queue: &Queue, kinds: &[String]) -> Result<usize> {
        self.model.unpark(queue, kinds).await
    }
    async fn canary(&self, worker: &str, token: &str) -> Result<()> {
        self.model.canary(worker, token).await
    }
    async fn announce(&self, worker: &WorkerInfo) -> Result<()> {
        self.model.announce(worker).await
    }
    async fn publish(&self, kinds: &[KindInfo]) -> Result<()> {
        self.model.publish(kinds).await
    }
    async fn retire(&self, worker: &str) -> Result<()> {
        self.model.retire(worker).await
    }
    async fn wakes(&self, worker: &str) -> mpsc::UnboundedReceiver<Wake> {
        self.model.wakes(worker).await
    }
}

#[async_trait]
impl Inspect for Plugged {
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        self.reach("get")?;
        self.model.get(id).await
    }
    async fn list(&self, queue: &Queue, state: State, cursor: u64, limit: usize) -> Result<Page> {
        self.reach("list")?;
        self.model.list(queue, state, cursor, limit).await
    }
    async fn search(&self, queue: &Queue, filter: &Filter, cursor: u64, limit: usize) -> Result<Found> {
        self.reach("search")?;
        self.model.search(queue, filter, cursor, limit).await
    }
    async fn counts(&self, queue: &Queue) -> Result<Counts> {
        self.reach("counts")?;
        self.model.counts(queue).await
    }
    async fn limits(&self, queue: &Queue) -> Result<Limits> {
        self.reach("limits")?;
        self.model.limits(queue).await
    }
    async fn queues(&self) -> Result<Vec<Queue>> {
        self.reach("queues")?;
        self.model.queues().await
    }
    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        self.reach("workers")?;
        self.model.workers().await
    }
    async fn kinds(&self) -> Result<Vec<KindInfo>> {
        self.reach("kinds")?;
        self.model.kinds().await
    }
    async fn watch(&self, id: &JobId) -> mpsc::UnboundedReceiver<()> {
        self.model.watch(id).await
    }
    async fn ping(&self) -> Result<()> {
        self.reach("ping")
    }
}

#[async_trait]
impl Control for Plugged {
    async fn cancel(&self, id: &JobId) -> Result<Cancel> {
        self.reach("cancel")?;
        self.model.cancel(id).await
    }
    async fn pause(&self, queue: &Queue, paused: bool) -> Result<()> {
        self.reach("pause")?;
        self.model.pause(queue, paused).await
    }
    async fn set_max_waiting(&self, queue: &Queue, max: Option<u64>) -> Result<()> {
        self.reach("set max waiting")?;
        self.model.set_max_waiting(queue, max).await
    }
    async fn set_limits(&self, queue: &Queue, limits: &Limits) -> Result<()> {
        self.reach("set limits")?;
        self.model.set_limits(queue, limits).await
    }
    async fn replay(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        self.reach("replay")?;
        self.model.replay(queue, ulids).await
    }
    async fn delete(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        self.reach("delete")?;
        self.model.delete(queue, ulids).await
    }
}

#[async_trait]
impl Outbox for Plugged {
    async fn outbox(&self, queue: &Queue) -> Result<Mail> {
        self.model.outbox(queue).await
    }
    async fn receive(&self, queue: &Queue, messages: &[Message]) -> Result<Received> {
        self.model.receive(queue, messages).await
    }
    async fn sent(&self, queue: &Queue, done: &[Message], again: &[Message], later: Timestamp) -> Result<()> {
        self.model.sent(queue, done, again, later).await
    }
}

impl Broker for Plugged {
    fn engine(&self) -> &'static str {
        if self.sqlite.load(Ordering::SeqCst) { "sqlite" } else { "redis" }
    }

    fn generation(&self) -> u64 {
        0
    }
}

/// A log filter that is only remembered.
struct KeptFilter(Mutex<String>);

impl windlass_api::LogFilter for KeptFilter {
    fn get(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn set(&self, filter: &str) -> std::result::Result<(), String> {
        filter.clone_into(&mut self.0.lock().unwrap());
        Ok(())
    }
}

/// `{"text"}`, 1 to 10 bytes.
struct Echo;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EchoArgs {
    text: String,
}

#[async_trait]
impl InlineKind for Echo {
    type Args = EchoArgs;
    fn spec(&self) -> KindSpec {
        KindSpec::new("test.echo", "Says it again")
    }
    fn check(&self, args: &EchoArgs) -> Vec<Violation> {
        match args.text.as_str() {
            "panic" => panic!("a check that panics"),
            text if (1..=10).contains(&text.len()) => vec![],
            text => vec![Violation::new("/text", "out_of_range", format!("{} bytes; 1 to 10", text.len()))],
        }
    }
    async fn run(&self, _: EchoArgs, _: &dyn RunContext) -> Outcome {
        Outcome::fatal("unused", "jobs are finished by hand here")
    }
}

/// `{"blob", "width"}`; the width as the picture's header says it.
struct Picture;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PictureArgs {
    blob: String,
    width: u64,
}

impl IsolatedKind for Picture {
    type Args = PictureArgs;
    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: "pictures",
            aliases: &["old_picture"],
            max_attempts: 5,
            ..KindSpec::new("test.picture", "Looks at a picture")
        }
    }
    fn check(&self, args: &PictureArgs) -> Vec<Violation> {
        let too_large = || Violation::new("/width", "image_too_large", format!("{} pixels; 1 to 10000", args.width));
        if (1..=10_000).contains(&args.width) { vec![] } else { vec![too_large()] }
    }
    fn inputs(&self, args: &PictureArgs) -> Inputs {
        Inputs { blobs: vec![args.blob.clone()], peak_memory_bytes: 0 }
    }
    fn run(&self, _: PictureArgs, _: &Path, _: &dyn RunContext) -> Outcome {
        Outcome::fatal("unused", "jobs are finished by hand here")
    }
}

fn records() -> Arc<dyn windlass_store::records::Records> {
    let clock = Arc::new(windlass_jobs::SystemClock);
    Arc::new(windlass_store::records::SqliteRecords::in_memory(clock))
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.inline(Echo).isolated(Picture);
    registry
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of a problem, after a look at all that every problem must have.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", String::from_utf8_lossy(&self.body));
        let body = self.json();
        let code = body["code"].as_str().unwrap().to_owned();
        // The words of replaced systems are in capitals; the page is that of ours.
        assert!(
            code.bytes().any(|b| b.is_ascii_uppercase()) || body["type"] == format!("/docs/errors/{code}"),
            "{body}"
        );
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["error"], body["detail"]);
        assert_eq!(body["request_id"], self.header("x-request-id"));
        assert!(!body["title"].as_str().unwrap().is_empty());
        assert!(!String::from_utf8_lossy(&self.body).contains("s3cret"), "{body}");
        code
    }

    /// The paths and codes of a problem's violations.
    pub(crate) fn violations(&self) -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        self.json()["violations"].as_array().unwrap().iter().map(|v| (text(&v["path"]), text(&v["code"]))).collect()
    }
}

/// The API and all it stands on.
pub(crate) struct Bench {
    pub(crate) api: Api,
    pub(crate) app: Router,
    pub(crate) broker: Arc<Plugged>,
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(ApiOptions::default())
    }

    /// Whoever asks may do everything.
    pub(crate) fn with(options: ApiOptions) -> Self {
        Self::for_keys(ApiOptions { auth: Auth::open(), ..options })
    }

    pub(crate) fn for_keys(options: ApiOptions) -> Self {
        keep_log();
        let dir = tempfile::tempdir().unwrap();
        let broker = Arc::new(Plugged::default());
        let services = Services {
            artifacts: Arc::new(FileArtifacts::new(dir.path())),
            results: Arc::new(FileResults::new(dir.path())),
            images: None,
        };
        let records = records();
        let api = Api {
            ring: Arc::new(Ring::new(Arc::clone(&records), None)),
            claims: Arc::new(FileClaims::new(dir.path())),
            broker: broker.clone(),
            services,
            registry: registry(),
            worker: None,
            records,
            scheduler: None,
            spool: None,
            local: None,
            redis: None,
            log: Some(Arc::new(KeptFilter(Mutex::new("info".to_owned())))),
            more_metrics: None,
            caching: Caching::new(None, &CachingOptions::default()),
            market: Market::new(Where::Sqlite(dir.path().join("market.db")), "test", None, PriceOptions::default()),
            options,
        };
        Self { app: router(api.clone()), api, broker, dir }
    }

    /// The same with a market whose prices are kept by these options.
    pub(crate) fn pricing(self, options: PriceOptions) -> Self {
        let at = Where::Sqlite(self.dir.path().join("market.db"));
        let api = Api { market: Market::new(at, "test", None, options), ..self.api };
        Self { app: router(api.clone()), api, ..self }
    }

    /// Makes a key that grants these, for a tenant or for all; it counts at once.
    pub(crate) async fn key(&self, scopes: &[&str], tenant: Option<&str>) -> String {
        let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        let new = NewKey { name: "test".into(), scopes, tenant: tenant.map(str::to_owned), ..NewKey::default() };
        let (text, _) = Book::new(Arc::clone(&self.api.records)).create(new).await.unwrap();
        self.api.ring.refresh().await.unwrap();
        text
    }

    /// Sends a request with a key, and JSON if there is some.
    pub(crate) async fn with_key(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("x-request-id", "r"), ("content-type", "application/json")];
        match body {
            Some(body) => self.send(method, path, &headers, body.to_string()).await,
            None => self.send(method, path, &headers[..2], Body::empty()).await,
        }
    }

    pub(crate) async fn raw(&self, request: Request<Body>) -> Response {
        self.app.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request as `Host: localhost` unless the headers say otherwise.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:8001");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.raw(request.body(body.into()).unwrap()).await;
        if response.headers().get("content-encoding").is_some() {
            return read(response).await;
        }
        let answer = read(response).await;
        document::check(method, path, &answer);
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, body: impl ToString) -> Answer {
        self.send("POST", "/api/tasks", &[("content-type", "application/json")], body.to_string()).await
    }

    /// Enqueues an echo and answers its id.
    pub(crate) async fn echo(&self) -> JobId {
        let answer = self.post(json!({ "kind": "test.echo", "args": { "text": "hi" } })).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        answer.json()["task_id"].as_str().unwrap().parse().unwrap()
    }

    /// Claims the next job of a queue, as a worker would.
    pub(crate) async fn claim(&self, queue: &str) -> Claimed {
        self.try_claim(queue).await.expect("a job waits")
    }

    /// The same, if one may start.
    pub(crate) async fn try_claim(&self, queue: &str) -> Option<Claimed> {
        let claim = Claim {
            worker: "w1".into(),
            max: 1,
            lease: Duration::from_secs(30),
            grace: false,
            sent_at: None,
            quotas: None,
        };
        let exchange = Exchange { finishes: vec![], claim: Some(claim) };
        let reply = self.broker.exchange(&Queue::new(queue).unwrap(), &exchange).await.unwrap();
        reply.claimed.into_iter().next()
    }

    pub(crate) async fn progress(&self, id: &JobId, lease: Lease, percent: f32, message: &str) {
        self.broker.progress(&id.queue, lease, &Progress::new(percent, message)).await.unwrap();
    }

    pub(crate) async fn settle(&self, queue: &str, lease: Lease, settle: Settle) {
        let exchange = Exchange { finishes: vec![Finish { lease, settle }], claim: None };
        let reply = self.broker.exchange(&Queue::new(queue).unwrap(), &exchange).await.unwrap();
        assert_eq!(reply.acks, [Ack::Taken]);
    }

    /// Enqueues an echo, claims it and finishes it.
    pub(crate) async fn ended(&self, settle: Settle) -> JobId {
        let id = self.echo().await;
        let claimed = self.claim("default").await;
        self.settle("default", claimed.lease, settle).await;
        id
    }

    /// A finished job with these artifacts: name, media type, bytes.
    pub(crate) async fn succeeded(&self, value: Value, files: &[(&str, &str, &[u8])]) -> JobId {
        let mut stored = StoredResult { value, ..StoredResult::default() };
        for (name, media_type, bytes) in files {
            let digest = self.api.services.artifacts.put(bytes.to_vec().into()).await.unwrap();
            stored.artifacts.push(StoredArtifact {
                name: (*name).to_owned(),
                media_type: (*media_type).to_owned(),
                blob: digest.to_string(),
                bytes: bytes.len() as u64,
            });
        }
        self.ended(success(&stored)).await
    }

    /// Jobs ever enqueued.
    pub(crate) async fn enqueued(&self) -> u64 {
        let mut total = 0;
        for queue in self.broker.queues().await.unwrap() {
            total += self.broker.counts(&queue).await.unwrap().enqueued_total;
        }
        total
    }
}

pub(crate) fn success(stored: &StoredResult) -> Settle {
    Settle::Success { result: Some(serde_json::to_string(stored).unwrap()), skipped: false }
}

/// Reads an answer to its end; checks what every answer must have.
pub(crate) async fn read(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
    let answer = Answer { status: parts.status, headers: parts.headers, body };
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    // A page of the dashboard takes its own files, and may show a result in a frame.
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors '"), "{policy}");
    assert!(!answer.header("x-request-id").is_empty());
    assert!(!answer.header("cache-control").is_empty());
    assert!(!answer.headers.contains_key("server"));
    answer
}

thread_local! {
    /// What was logged on this thread: a test has one of its own, and its runtime stays on it.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Appends to the thread's log.
struct ThreadLog;

impl Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps every line of the log, for the whole process: a subscriber of one thread only would
/// miss events that another thread met first without one.
fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
        tracing::subscriber::set_global_default(log.with_writer(|| ThreadLog).finish()).unwrap();
    });
}

pub(crate) fn log_of_this_test() -> String {
    LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap())
}
