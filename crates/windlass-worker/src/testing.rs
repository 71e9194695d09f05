//! Runs jobs in unit tests: the worker's own way of decoding, checking, limiting and recording a
//! run, without a broker, a child process or a clock.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use windlass_jobs::command::{Claimed, Settle};
use windlass_jobs::{Lease, NewJob, Options, Progress, Queue, Reason, RunError, State, new_ulid};
use windlass_store::{FileArtifacts, FileResults, Services};

use crate::admission::Admission;
use crate::control::Control;
use crate::isolate::Isolation;
use crate::pool::Pool;
use crate::pump::{Job, Report};
use crate::registry::Registry;
use crate::result::StoredResult;
use crate::run::Runner;
use crate::watchdog::Watchdog;

/// A worker for unit tests: give it a registry, and jobs one by one. Isolated kinds run in this
/// process, in a directory of their own; results are cached as they would be.
///
/// ```
/// # use windlass_worker::{InlineKind, KindSpec, Registry, RunContext, TestWorker};
/// # use windlass_jobs::{Done, Outcome, State};
/// # struct Double;
/// # #[async_trait::async_trait]
/// # impl InlineKind for Double {
/// #     type Args = i64;
/// #     fn spec(&self) -> KindSpec { KindSpec::new("double", "") }
/// #     async fn run(&self, n: i64, _: &dyn RunContext) -> Outcome {
/// #         Outcome::Done(Done { value: (2 * n).into(), ..Done::default() })
/// #     }
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut registry = Registry::new();
/// registry.inline(Double);
/// let worker = TestWorker::new(registry);
/// let run = worker.run("double", &serde_json::json!(21)).await;
/// assert_eq!((run.state, run.value), (State::Success, 42.into()));
/// assert_eq!(worker.run("double", &serde_json::json!("x")).await.state, State::Failure);
/// # });
/// ```
pub struct TestWorker {
    runner: Arc<Runner>,
    reports: tokio::sync::Mutex<mpsc::UnboundedReceiver<Report>>,
    services: Services,
    _dir: TempDir,
}

/// What became of a job in a [`TestWorker`].
#[derive(Debug, Clone, PartialEq)]
pub struct TestRun {
    /// What the broker would record: success, failure, cancelled, retrying, scheduled (snoozed), or
    /// pending (given back, or of an unknown kind).
    pub state: State,
    /// Why it failed, with [`State::Failure`].
    pub reason: Option<Reason>,
    /// The error of a failed or retried run.
    pub error: Option<RunError>,
    /// What the handler answered.
    pub value: Value,
    /// The files it left, in its order: name, media type, bytes.
    pub files: Vec<TestFile>,
    /// There was nothing to do.
    pub skipped: bool,
    /// An equal job's result was given without running.
    pub cached: bool,
    /// How long it is put off, with [`State::Retrying`] and [`State::Scheduled`].
    pub delay: Option<Duration>,
    /// What it said on the way.
    pub progress: Vec<Progress>,
}

/// A file a job left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFile {
    /// What it is called when it is downloaded.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl TestWorker {
    /// A worker for these kinds, with their layers. Must be made on a tokio runtime.
    ///
    /// # Panics
    /// When the machine has no temporary directory or no thread to give.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let services = Services {
            artifacts: Arc::new(FileArtifacts::new(dir.path())),
            results: Arc::new(FileResults::new(dir.path())),
            images: None,
        };
        let (reports, reported) = mpsc::unbounded_channel();
        let runner = Runner {
            handler: registry.layers().around_work(),
            registry,
            services: services.clone(),
            pool: Pool::new(Isolation::new("/proc/self/exe".into(), &[]), Arc::default()),
            in_place: true,
            watchdog: Watchdog::start().expect("a thread can be started"),
            queues: vec![Queue::new("test").expect("a queue's name")],
            park_after: Duration::from_secs(900),
            admission: Admission::new(std::collections::BTreeMap::new(), None),
            reports,
            broker: None,
            counts: Arc::default(),
            tracer: opentelemetry::global::tracer(windlass_producer::trace::SCOPE),
        };
        Self { runner: Arc::new(runner), reports: tokio::sync::Mutex::new(reported), services, _dir: dir }
    }

    /// Stores what a job takes in; answers how its args name it, `sha256:…`.
    ///
    /// # Panics
    /// When the disk does not take it.
    pub async fn upload(&self, bytes: &[u8]) -> String {
        self.services
            .artifacts
            .put(bytes.to_vec().into())
            .await
            .expect("the temporary directory takes a file")
            .to_string()
    }

    /// Runs a job once, as its first run.
    ///
    /// # Panics
    /// As [`TestWorker::run_with`].
    pub async fn run(&self, kind: &str, args: &Value) -> TestRun {
        self.run_with(kind, args, 1, &Options::default()).await
    }

    /// Runs a job once, as the run of this number (from 1), with these options. Whether it would be
    /// retried is decided by its number and the options; a handler that panics is a failed run.
    ///
    /// # Panics
    /// When the args cannot be written as JSON, or the worker does not answer.
    pub async fn run_with(&self, kind: &str, args: &Value, attempt: u32, options: &Options) -> TestRun {
        let job = NewJob::new(kind, args).expect("the args are JSON");
        let claimed = Claimed {
            lease: Lease { ulid: new_ulid(), epoch: attempt },
            kind: kind.to_owned(),
            args: job.args.get().to_owned(),
            failures: attempt.saturating_sub(1),
            max_attempts: options.max_attempts,
            deliveries: 1,
            options: options.to_short(),
        };
        let mut reports = self.reports.lock().await;
        let job = Job { queue: 0, claimed, control: Arc::new(Control::default()) };
        let report = Arc::clone(&self.runner).run(job).await;
        let mut progress = Vec::new();
        while let Ok(said) = reports.try_recv() {
            if let Report::Progress { progress: said, .. } = said {
                progress.push(said);
            }
        }
        let Report::Finish { finish, .. } = report else { panic!("a run ends with its finish") };
        let mut run = TestRun { progress, ..of(finish.settle) };
        run.read_files(&self.services).await;
        run
    }
}

impl TestRun {
    fn ended(state: State) -> Self {
        Self {
            state,
            reason: None,
            error: None,
            value: Value::Null,
            files: Vec::new(),
            skipped: false,
            cached: false,
            delay: None,
            progress: Vec::new(),
        }
    }

    async fn read_files(&mut self, services: &Services) {
        // The value holds the whole stored result until here.
        let Ok(stored) = serde_json::from_value::<StoredResult>(std::mem::take(&mut self.value)) else { return };
        self.cached = stored.cached;
        for artifact in stored.artifacts {
            let digest = artifact.blob.parse().expect("a stored file has a digest");
            let bytes = services.artifacts.get(&digest).await.expect("the directory can be read").unwrap_or_default();
            let (name, media_type) = (artifact.name, artifact.media_type);
            self.files.push(TestFile { name, media_type, bytes: bytes.to_vec() });
        }
        self.value = stored.value;
    }
}

fn of(settle: Settle) -> TestRun {
    let error = |text: &str| serde_json::from_str::<RunError>(text).ok();
    match settle {
        Settle::Success { result, skipped } => {
            let value = result.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
            TestRun { value, skipped, ..TestRun::ended(State::Success) }
        }
        Settle::Failure { reason, error: text, .. } => {
            TestRun { reason: Some(reason), error: error(&text), ..TestRun::ended(State::Failure) }
        }
        Settle::Retry { delay, error: text, .. } => {
            TestRun { delay: Some(delay), error: error(&text), ..TestRun::ended(State::Retrying) }
        }
        Settle::Snooze { delay } => TestRun { delay: Some(delay), ..TestRun::ended(State::Scheduled) },
        Settle::Cancelled { error: text } => TestRun { error: error(&text), ..TestRun::ended(State::Cancelled) },
        Settle::Release => TestRun::ended(State::Pending),
        Settle::Unknown { delay, .. } => TestRun { delay: Some(delay), ..TestRun::ended(State::Pending) },
    }
}

impl std::fmt::Debug for TestWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestWorker").field("kinds", &self.runner.registry).finish_non_exhaustive()
    }
}
