//! One run of one job: looks the kind up, asks the result cache, runs the handler under its
//! time limit, keeps what came out, and says how it ended.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::path::{Component, Path};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use apalis_core::task::Task;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;
use tower::Service;
use windlass_jobs::command::{Claimed, Finish, decode_options, effective_max_attempts};
use windlass_jobs::{ArtifactFile, Done, Lease, Options, Outcome, Progress, Queue, Reason, RunError};
use windlass_store::{Digest, Services};

use crate::cache;
use crate::control::{Control, Stop};
use crate::isolate::{Isolation, JobFacts};
use crate::kind::{KindSpec, RunContext};
use crate::policy::{Attempts, Ended, settle};
use crate::pump::{Job, Report};
use crate::registry::{AnyKind, Executor, Registry, refused};
use crate::result::{StoredArtifact, StoredResult};

/// How long a job of a kind this worker does not know is left to others.
const UNKNOWN_KIND_WAIT: Duration = Duration::from_secs(5);

/// What every run needs.
pub(crate) struct Runner {
    pub(crate) registry: Registry,
    pub(crate) services: Services,
    pub(crate) isolation: Isolation,
    pub(crate) queues: Vec<Queue>,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
}

/// The service apalis drives.
#[derive(Clone)]
pub(crate) struct RunService(pub(crate) Arc<Runner>);

impl Service<Task<Job>> for RunService {
    type Response = Report;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Report, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Job>) -> Self::Future {
        let runner = Arc::clone(&self.0);
        async move {
            let (job, _) = task.take();
            Ok(runner.run(job).await)
        }
        .boxed()
    }
}

/// One job with everything about it decoded.
struct Run<'a> {
    job: &'a Job,
    kind: &'a dyn AnyKind,
    options: &'a Options,
    deadline: Instant,
}

impl Run<'_> {
    fn spec(&self) -> &KindSpec {
        self.kind.spec()
    }
}

impl Runner {
    /// Never panics and never fails to answer: a slot is freed by the report alone.
    async fn run(&self, job: Job) -> Report {
        let claimed = &job.claimed;
        let (ended, attempts) = match AssertUnwindSafe(self.run_known(&job)).catch_unwind().await {
            Ok(ended) => ended,
            Err(panic) => {
                let error = RunError::new("panicked", panic_text(panic.as_ref()));
                (Ended::Failed { reason: Reason::Error, error, after: None }, self.attempts(claimed, None))
            }
        };
        self.log(&job, &ended);
        let settle = settle(ended, &attempts, crate::random());
        Report::Finish { queue: job.queue, finish: Finish { lease: claimed.lease, settle } }
    }

    async fn run_known(&self, job: &Job) -> (Ended, Attempts) {
        let claimed = &job.claimed;
        let options = match decode_options(claimed) {
            Ok(options) => options,
            Err(message) => return (undecodable(message), self.attempts(claimed, None)),
        };
        let attempts = self.attempts(claimed, Some(&options));
        if claimed.kind.is_empty() {
            return (undecodable("the job's record has no kind"), attempts);
        }
        let Some(kind) = self.registry.get(&claimed.kind) else {
            tracing::warn!(kind = %claimed.kind, queue = %self.queues[job.queue], "unknown kind: left to other workers for 5 s");
            return (Ended::Snooze(UNKNOWN_KIND_WAIT), attempts);
        };
        let limit = options.timeout.unwrap_or(kind.spec().timeout);
        let run = Run { job, kind: kind.as_ref(), options: &options, deadline: Instant::now() + limit };
        let ended = match kind.executor() {
            Executor::Inline => self.inline(&run).await,
            Executor::Isolated => self.isolated(&run).await,
        };
        (ended, attempts)
    }

    fn attempts(&self, claimed: &Claimed, options: Option<&Options>) -> Attempts {
        let kind = self.registry.spec(&claimed.kind).map_or(KindSpec::MAX_ATTEMPTS, |spec| spec.max_attempts);
        Attempts {
            failures: claimed.failures,
            max: effective_max_attempts(claimed.max_attempts, kind),
            backoff: options.and_then(|o| o.backoff.clone()).unwrap_or_default(),
        }
    }

    async fn inline(&self, run: &Run<'_>) -> Ended {
        let context = InlineContext {
            lease: run.job.claimed.lease,
            queue: run.job.queue,
            attempt: run.job.claimed.failures + 1,
            deadline: run.deadline,
            control: Arc::clone(&run.job.control),
            reports: self.reports.clone(),
        };
        let handler = run.kind.run_inline(&run.job.claimed.args, &context);
        tokio::select! {
            biased;
            outcome = handler => match outcome {
                Outcome::Done(done) if !done.artifacts.is_empty() => {
                    ended_of(Outcome::fatal("no_directory", "a kind that runs inside the worker has no directory for artifacts"))
                }
                Outcome::Done(Done { value: Value::Null, skipped, .. }) => Ended::Done { result: None, skipped },
                Outcome::Done(done) => done_with(&StoredResult { value: done.value, ..StoredResult::default() }, done.skipped),
                other => ended_of(other),
            },
            stop = run.job.control.stopped() => stopped(stop),
            () = tokio::time::sleep_until(run.deadline.into()) => timed_out(run),
        }
    }

    async fn isolated(&self, run: &Run<'_>) -> Ended {
        let args: Value = match serde_json::from_str(&run.job.claimed.args) {
            Ok(args) => args,
            Err(e) => return undecodable(format!("args: {e}")),
        };
        let violations = run.kind.check(&args);
        if !violations.is_empty() {
            return ended_of(refused(&violations));
        }
        let key = run.spec().cache_ttl.map(|ttl| (cache::key(run.spec(), &args), ttl));
        if let Some((key, _)) = &key
            && let Some(hit) = cache::look_up(&self.services, key).await
        {
            return done_with(&hit, false);
        }
        let work = self.isolated_miss(run, &args);
        let (mut stored, skipped) = match work.await {
            Ok(done) => done,
            Err(ended) => return ended,
        };
        if let Err(error) = run.kind.publish(&mut stored, &self.services).await {
            return Ended::Failed { reason: Reason::Error, error, after: None };
        }
        if let Some((key, ttl)) = key {
            cache::keep(&self.services, &key, &stored, ttl).await;
        }
        done_with(&stored, skipped)
    }

    /// Lays the inputs, runs the child, keeps the artifacts. The directory goes in every case.
    async fn isolated_miss(&self, run: &Run<'_>, args: &Value) -> Result<(StoredResult, bool), Ended> {
        let inputs = run.kind.inputs(args);
        let dir = self.isolation.private_dir().map_err(|e| storage("private directory", &e))?;
        for blob in &inputs.blobs {
            self.lay(blob, dir.path()).await?;
        }
        let facts = JobFacts {
            kind: run.spec().name,
            args,
            dir: dir.path(),
            attempt: run.job.claimed.failures + 1,
            deadline: run.deadline,
            peak_memory_bytes: inputs.peak_memory_bytes,
        };
        let (queue, lease) = (run.job.queue, run.job.claimed.lease);
        let say = |progress: Progress| {
            let _ = self.reports.send(Report::Progress { queue, lease, progress });
        };
        let outcome = tokio::select! {
            biased;
            outcome = self.isolation.run(&facts, say) => outcome?,
            stop = run.job.control.stopped() => return Err(stopped(stop)),
            () = tokio::time::sleep_until(run.deadline.into()) => return Err(timed_out(run)),
        };
        let Outcome::Done(done) = outcome else { return Err(ended_of(outcome)) };
        let mut stored = StoredResult { value: done.value, artifacts: Vec::new(), cached: false };
        for artifact in &done.artifacts {
            stored.artifacts.push(self.keep(artifact, dir.path()).await?);
        }
        Ok((stored, done.skipped))
    }

    async fn lay(&self, blob: &str, dir: &Path) -> Result<(), Ended> {
        let digest: Digest = blob.parse().map_err(|e| fatal("blob_missing", format!("{e}")))?;
        let bytes = self.services.artifacts.get(&digest).await.map_err(|e| storage("input", &e))?;
        let Some(bytes) = bytes else {
            return Err(fatal("blob_missing", format!("blob {digest} is not stored: upload it again")));
        };
        let path = dir.join("in").join(digest.hex());
        tokio::fs::write(&path, &bytes).await.map_err(|e| storage("input", &e))
    }

    /// Stores a file the child wrote; only a plain file below the directory is taken.
    async fn keep(&self, artifact: &ArtifactFile, dir: &Path) -> Result<StoredArtifact, Ended> {
        let below = artifact.path.components().all(|c| matches!(c, Component::Normal(_)));
        let path = dir.join(&artifact.path);
        let plain = below && tokio::fs::symlink_metadata(&path).await.is_ok_and(|facts| facts.is_file());
        if !plain {
            return Err(fatal("artifact_missing", format!("{} is not a file of the run", artifact.path.display())));
        }
        let (digest, bytes) = self.services.artifacts.put_file(&path).await.map_err(|e| match e {
            windlass_store::Error::TooLarge { .. } => {
                Ended::Fatal { reason: Reason::ResultTooLarge, error: RunError::new("result_too_large", e.to_string()) }
            }
            other => storage("artifact", &other),
        })?;
        let (name, media_type) = (artifact.name.clone(), artifact.media_type.clone());
        Ok(StoredArtifact { name, media_type, blob: digest.to_string(), bytes })
    }

    fn log(&self, job: &Job, ended: &Ended) {
        let claimed = &job.claimed;
        let queue = &self.queues[job.queue];
        match ended {
            Ended::Failed { reason, error, .. } | Ended::Fatal { reason, error } => {
                tracing::warn!(job = %claimed.lease.ulid, %queue, kind = %claimed.kind, %reason, %error, "run failed");
            }
            _ => tracing::debug!(job = %claimed.lease.ulid, %queue, kind = %claimed.kind, "run ended"),
        }
    }
}

fn ended_of(outcome: Outcome) -> Ended {
    match outcome {
        Outcome::Done(done) => Ended::Done { result: Some(done.value.to_string()), skipped: done.skipped },
        Outcome::Retry { after, error } => Ended::Failed { reason: Reason::Error, error, after },
        Outcome::Snooze { delay } => Ended::Snooze(delay),
        Outcome::Cancel { reason } => Ended::Cancelled(reason),
        Outcome::Fatal(error) => Ended::Fatal { reason: Reason::Error, error },
    }
}

fn done_with(result: &StoredResult, skipped: bool) -> Ended {
    match serde_json::to_string(result) {
        Ok(json) => Ended::Done { result: Some(json), skipped },
        Err(e) => fatal("result_invalid", e.to_string()),
    }
}

fn fatal(code: &str, message: String) -> Ended {
    Ended::Fatal { reason: Reason::Error, error: RunError::new(code, message) }
}

fn undecodable(message: impl Into<String>) -> Ended {
    Ended::Fatal { reason: Reason::Decode, error: RunError::new("decode", message) }
}

fn storage(what: &str, error: &dyn std::error::Error) -> Ended {
    let chain: Vec<String> = std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect();
    let error = RunError::new("storage", format!("{what}: {}", chain.join(": ")));
    Ended::Failed { reason: Reason::Error, error, after: None }
}

fn stopped(stop: Stop) -> Ended {
    match stop {
        // The fence refuses whatever a run without a lease would say.
        Stop::Shutdown | Stop::LeaseLost => Ended::GivenBack,
    }
}

fn timed_out(run: &Run<'_>) -> Ended {
    let limit = run.options.timeout.unwrap_or(run.spec().timeout);
    let error = RunError::new("timeout", format!("the run was ended after its limit of {} ms", limit.as_millis()));
    Ended::Failed { reason: Reason::Timeout, error, after: None }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "the handler panicked".to_owned())
}

/// What an inline run may say and ask.
struct InlineContext {
    lease: Lease,
    queue: usize,
    attempt: u32,
    deadline: Instant,
    control: Arc<Control>,
    reports: mpsc::UnboundedSender<Report>,
}

impl RunContext for InlineContext {
    fn progress(&self, percent: f32, message: &str) {
        let progress = Progress::new(percent, message);
        let _ = self.reports.send(Report::Progress { queue: self.queue, lease: self.lease, progress });
    }
    fn cancelled(&self) -> bool {
        self.control.why().is_some()
    }
    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
    fn attempt(&self) -> u32 {
        self.attempt
    }
}
