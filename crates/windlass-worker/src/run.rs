//! One run of one job: looks the kind up, asks the result cache, runs the handler under its
//! time limit, keeps what came out, and says how it ended.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use apalis_core::task::Task;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _};
use serde_json::Value;
use tokio::sync::mpsc;
use tower::{Service, ServiceExt as _};
use tracing::Instrument as _;
use windlass_broker::SharedBroker;
use windlass_jobs::command::{Claimed, Finish, decode_options, effective_max_attempts};
use windlass_jobs::{
    ArtifactFile, Done, JobId, Lease, Options, Outcome, Progress, Queue, Reason, RunError, TraceContext,
};
use windlass_store::{Digest, Services};

use crate::admission::{Admission, Need, Permit, Refusal};
use crate::cache::{self, Lead, Sought};
use crate::control::Stop;
use crate::counts::{Asked, Counts};
use crate::isolate::JobFacts;
use crate::kind::{KindSpec, Parent, RunContext};
use crate::middleware::{Handler, RunRequest, done_without_files};
use crate::parents;
use crate::policy::{Attempts, Ended, settle};
use crate::pool::Pool;
use crate::pump::{Job, Report};
use crate::registry::{AnyKind, Executor, Registry, refused};
use crate::result::{StoredArtifact, StoredResult};
use crate::trace;
use crate::watchdog::Watchdog;

/// What every run needs.
pub(crate) struct Runner {
    pub(crate) registry: Registry,
    pub(crate) services: Services,
    /// The layers of one's own around every run, if there are any.
    pub(crate) handler: Option<Handler>,
    pub(crate) pool: Arc<Pool>,
    /// Isolated kinds run in this process: for unit tests.
    pub(crate) in_place: bool,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) park_after: Duration,
    pub(crate) admission: Arc<Admission>,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    /// Where jobs that others depended on are read; none in unit tests.
    pub(crate) broker: Option<SharedBroker>,
    pub(crate) counts: Arc<Counts>,
    /// Records runs.
    pub(crate) tracer: BoxedTracer,
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
pub(crate) struct Run {
    pub(crate) job: Job,
    kind: Arc<dyn AnyKind>,
    options: Options,
    soft: Instant,
    pub(crate) deadline: Instant,
    /// How far it said it is: the bits of an `f32`.
    percent: AtomicU32,
    /// Its soft limit has passed, and that was said.
    warned: AtomicBool,
    reports: mpsc::UnboundedSender<Report>,
    /// What an isolated run gets: filled in, resolved and checked.
    args: OnceLock<Value>,
    /// Its queue's broker and its id, if it depends on others.
    family: Option<(SharedBroker, JobId)>,
}

impl Run {
    pub(crate) fn spec(&self) -> &KindSpec {
        self.kind.spec()
    }

    /// What the jobs that its job depends on have left, for a handler that cannot ask.
    async fn parents(&self) -> Result<Vec<Parent>, Ended> {
        let Some((broker, id)) = self.family.clone() else { return Ok(Vec::new()) };
        let failed = |error| Ended::Failed { reason: Reason::Error, error, after: None };
        parents::of(broker, id).await.map_err(failed)
    }

    fn say(&self, progress: Progress) {
        self.percent.store(progress.percent.to_bits(), Ordering::Relaxed);
        trace::progressed(&progress);
        let _ = self.reports.send(Report::Progress { queue: self.job.queue, lease: self.job.claimed.lease, progress });
    }
}

impl Runner {
    /// Never panics and never fails to answer: a slot is freed by the report alone.
    pub(crate) async fn run(self: Arc<Self>, job: Job) -> Report {
        let (queue, lease) = (&self.queues[job.queue], job.claimed.lease);
        let context = trace::begin(&self.tracer, &job.claimed, || JobId::new(lease.ulid, queue.clone()));
        if context.span().is_recording() {
            self.tell_wait(&job.claimed, queue);
        }
        // On every line that is logged while it runs.
        let span = tracing::info_span!(
            "run",
            job = %format_args!("{}.{queue}", lease.ulid),
            kind = %job.claimed.kind,
            run = lease.epoch,
            trace_id = trace::id_of(&context),
        );
        let (kind, begun) = (self.registry.spec(&job.claimed.kind).map(|spec| spec.name), Instant::now());
        let report = self.clone().run_in_span(job).with_context(context.clone()).instrument(span).await;
        trace::end(&context, &report);
        if let (Some(kind), Report::Finish { .. }) = (kind, &report) {
            self.counts.ran(kind, begun.elapsed());
        }
        report
    }

    /// Records beside the run how long its job waited for it.
    fn tell_wait(&self, claimed: &Claimed, queue: &Queue) {
        let Some((broker, trace)) = self.broker.clone().zip(TraceContext::of_short(&claimed.options)) else { return };
        let id = JobId::new(claimed.lease.ulid, queue.clone());
        tokio::spawn(trace::waited(broker, id, claimed.lease.epoch, trace));
    }

    async fn run_in_span(self: Arc<Self>, job: Job) -> Report {
        let (queue, lease) = (job.queue, job.claimed.lease);
        let kind = job.claimed.kind.clone();
        let mut attempts = self.attempts(&job.claimed, None);
        let ended = match AssertUnwindSafe(self.run_known(job, &mut attempts)).catch_unwind().await {
            Ok(ended) => ended,
            Err(panic) => {
                let error = RunError::new("panicked", panic_text(panic.as_ref()));
                Ended::Failed { reason: Reason::Error, error, after: None }
            }
        };
        if let Ended::Held(need) = ended {
            return Report::Held { queue, lease, need };
        }
        self.log(queue, lease, &kind, &ended);
        let settle = settle(ended, &attempts, crate::random());
        Report::Finish { queue, finish: Finish { lease, settle } }
    }

    async fn run_known(self: &Arc<Self>, job: Job, attempts: &mut Attempts) -> Ended {
        let claimed = &job.claimed;
        let options = match decode_options(claimed) {
            Ok(options) => options,
            Err(message) => return undecodable(message),
        };
        *attempts = self.attempts(claimed, Some(&options));
        if claimed.kind.is_empty() {
            return undecodable("the job's record has no kind");
        }
        let Some(kind) = self.registry.get(&claimed.kind) else {
            tracing::warn!(kind = %claimed.kind, queue = %self.queues[job.queue], "unknown kind: left to other workers for 5 s");
            return Ended::UnknownKind { park_after: self.park_after };
        };
        let limit = options.timeout.unwrap_or(kind.spec().timeout);
        let now = Instant::now();
        let id = JobId::new(claimed.lease.ulid, self.queues[job.queue].clone());
        let family = self.broker.clone().filter(|_| options.depends_on.is_some()).map(|broker| (broker, id));
        let run = Arc::new(Run {
            soft: now + soft_limit(limit, kind.spec().soft_timeout),
            deadline: now + limit,
            kind: Arc::clone(kind),
            options,
            percent: AtomicU32::new(0),
            warned: AtomicBool::new(false),
            reports: self.reports.clone(),
            args: OnceLock::new(),
            family,
            job,
        });
        match run.kind.executor() {
            Executor::Inline => self.inline(&run).await,
            Executor::Isolated => self.isolated(&run).await,
        }
    }

    /// The run's work, with the layers of one's own around it.
    async fn layered(self: &Arc<Self>, run: &Arc<Run>) -> Result<(StoredResult, bool), Ended> {
        let Some(handler) = &self.handler else { return self.work(run).await };
        let request = RunRequest { run: Arc::clone(run), runner: Arc::clone(self) };
        match self.within_limits(run, handler.clone().oneshot(request)).await? {
            Ok(reply) => reply.0,
            Err(never) => match never {},
        }
    }

    /// The run's work itself.
    pub(crate) async fn work(&self, run: &Arc<Run>) -> Result<(StoredResult, bool), Ended> {
        match run.kind.executor() {
            Executor::Inline => {
                let context = RunningContext { run: Arc::clone(run), parents: None, stage: Mutex::default() };
                let handler = run.kind.run_inline(&run.job.claimed.args, &context);
                let handler = self.watchdog.watch(run.spec().name, run.job.claimed.lease, handler);
                done_without_files(self.within_limits(run, handler).await?)
            }
            Executor::Isolated => {
                let args = run.args.get().unwrap_or(&Value::Null);
                if self.in_place {
                    Box::pin(self.in_place(run, args.clone())).await
                } else {
                    Box::pin(self.in_child(run, args)).await
                }
            }
        }
    }

    /// Takes what the job needs beside its slot, where that is bounded.
    fn admit(&self, run: &Arc<Run>) -> Result<Option<Permit>, Ended> {
        if self.admission.is_free() {
            return Ok(None);
        }
        let spec = run.spec();
        let args: Value = serde_json::from_str(&run.job.claimed.args).unwrap_or_default();
        let memory_bytes = run.kind.inputs(&args).peak_memory_bytes.max(spec.peak_memory_bytes);
        let need = Need { kind: spec.name.to_owned(), memory_bytes };
        match self.admission.admit(&need, Instant::now()) {
            Ok(permit) => Ok(Some(permit)),
            Err(Refusal::Later) => Err(Ended::Held(need)),
            Err(Refusal::Never(budget)) => {
                tracing::warn!(
                    kind = spec.name,
                    memory_bytes,
                    budget,
                    "no worker of this size can run it: left to others for 5 s"
                );
                Err(Ended::UnknownKind { park_after: self.park_after })
            }
        }
    }

    fn attempts(&self, claimed: &Claimed, options: Option<&Options>) -> Attempts {
        let kind = self.registry.spec(&claimed.kind).map_or(KindSpec::MAX_ATTEMPTS, |spec| spec.max_attempts);
        Attempts {
            failures: claimed.failures,
            max: effective_max_attempts(claimed.max_attempts, kind),
            backoff: options.and_then(|o| o.backoff.clone()).unwrap_or_default(),
        }
    }

    async fn inline(self: &Arc<Self>, run: &Arc<Run>) -> Ended {
        // Args that are no JSON are refused by the kind itself.
        let args = run.spec().cache_ttl.and_then(|_| serde_json::from_str::<Value>(&run.job.claimed.args).ok());
        let lead = match &args {
            Some(args) => match self.seek(run, args).await {
                Sought::Hit(hit) => {
                    trace::cached();
                    return done_with(&hit, false);
                }
                Sought::PutOff(delay) => return Ended::Snooze(delay),
                Sought::Run(lead) => lead,
            },
            None => Lead::none(),
        };
        let _permit = match self.admit(run) {
            Ok(permit) => permit,
            Err(ended) => return ended,
        };
        let (stored, skipped) = match lead.hold(self.layered(run)).await {
            Ok(done) => done,
            Err(ended) => return ended,
        };
        lead.keep(&stored).await;
        match stored.value {
            Value::Null => Ended::Done { result: None, skipped },
            _ => done_with(&stored, skipped),
        }
    }

    /// Waits for a run's work, warns when its soft limit passes, and gives it up at the hard one
    /// or when it should stop: what is dropped then ends with it.
    async fn within_limits<T>(&self, run: &Arc<Run>, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = std::pin::pin!(work);
        loop {
            let warned = run.warned.load(Ordering::Relaxed);
            tokio::select! {
                biased;
                out = &mut work => return Ok(out),
                stop = run.job.control.stopped() => return Err(stopped(stop)),
                () = tokio::time::sleep_until(run.deadline.into()) => return Err(timed_out(run)),
                () = tokio::time::sleep_until(run.soft.into()), if !warned => {
                    if !run.warned.swap(true, Ordering::Relaxed) {
                        self.warn_slow(run);
                    }
                }
            }
        }
    }

    fn warn_slow(&self, run: &Arc<Run>) {
        let claimed = &run.job.claimed;
        let left_ms = run.deadline.saturating_duration_since(Instant::now()).as_millis();
        let queue = &self.queues[run.job.queue];
        tracing::warn!(job = %claimed.lease.ulid, %queue, kind = %claimed.kind, left_ms, "run over its soft limit");
        let percent = f32::from_bits(run.percent.load(Ordering::Relaxed));
        run.say(Progress::new(percent, "over the soft time limit"));
    }

    /// Asks the result cache, and counts what it says.
    async fn seek(&self, run: &Run, args: &Value) -> Sought {
        let sought = cache::seek(&self.services, run.spec(), args, run.job.claimed.lease.ulid).await;
        if run.spec().cache_ttl.is_some() {
            self.counts.asked(match &sought {
                Sought::Hit(_) => Asked::Hit,
                Sought::PutOff(_) => Asked::PutOff,
                Sought::Run(_) => Asked::Miss,
            });
        }
        sought
    }

    async fn isolated(self: &Arc<Self>, run: &Arc<Run>) -> Ended {
        let mut args: Value = match serde_json::from_str(&run.job.claimed.args) {
            Ok(args) => args,
            Err(e) => return undecodable(format!("args: {e}")),
        };
        run.kind.fill(&mut args);
        if let Err(outcome) = run.kind.resolve(&mut args).await {
            return ended_of(outcome);
        }
        let violations = run.kind.check(&args);
        if !violations.is_empty() {
            return ended_of(refused(&violations));
        }
        let about = run.kind.cache_args(&args);
        let takes_cached = run.kind.takes_cached(&args);
        let _ = run.args.set(args);
        let lead = if takes_cached {
            match self.seek(run, &about).await {
                Sought::Hit(mut hit) => {
                    if run.kind.revive(&mut hit, &self.services).await {
                        trace::cached();
                        return done_with(&hit, false);
                    }
                    cache::Lead::alone(&self.services, run.spec(), &about, run.job.claimed.lease.ulid)
                }
                Sought::PutOff(delay) => return Ended::Snooze(delay),
                Sought::Run(lead) => lead,
            }
        } else {
            cache::Lead::alone(&self.services, run.spec(), &about, run.job.claimed.lease.ulid)
        };
        let _permit = match self.admit(run) {
            Ok(permit) => permit,
            Err(ended) => return ended,
        };
        let (mut stored, skipped) = match lead.hold(self.layered(run)).await {
            Ok(done) => done,
            Err(ended) => return ended,
        };
        if let Err(error) = trace::step("publish", run.kind.publish(&mut stored, &self.services)).await {
            return Ended::Failed { reason: Reason::Error, error, after: None };
        }
        lead.keep(&stored).await;
        done_with(&stored, skipped)
    }

    /// Lays the inputs, runs the child, keeps the artifacts. The directory goes in every case.
    async fn in_child(&self, run: &Arc<Run>, args: &Value) -> Result<(StoredResult, bool), Ended> {
        let inputs = run.kind.inputs(args);
        let parents = run.parents().await?;
        let mut seat = self.pool.seat().await?;
        let dir = seat.dir();
        if let Err(ended) = trace::step("inputs", self.lay_all(&inputs.blobs, &dir)).await {
            seat.leave().await;
            return Err(ended);
        }
        let facts = JobFacts {
            kind: run.spec().name,
            args,
            attempt: run.job.claimed.failures + 1,
            soft: run.soft,
            deadline: run.deadline,
            peak_memory_bytes: inputs.peak_memory_bytes,
            parents,
        };
        let say = |progress: Progress| run.say(progress);
        let outcome = trace::step("child", self.within_limits(run, seat.run(&facts, say))).await??;
        let kept = match outcome {
            Outcome::Done(done) => trace::step("keep", self.keep_all(done, &seat.dir())).await,
            other => Err(ended_of(other)),
        };
        seat.leave().await;
        kept
    }

    /// What a child does, in this process: for unit tests, where a handler is trusted.
    async fn in_place(&self, run: &Arc<Run>, args: Value) -> Result<(StoredResult, bool), Ended> {
        let dir = tempfile::tempdir().map_err(|e| storage("private directory", &e))?;
        for part in ["in", "out"] {
            std::fs::create_dir(dir.path().join(part)).map_err(|e| storage("private directory", &e))?;
        }
        self.lay_all(&run.kind.inputs(&args).blobs, dir.path()).await?;
        let (kind, at, context) = (
            Arc::clone(&run.kind),
            dir.path().to_owned(),
            RunningContext { run: Arc::clone(run), parents: Some(run.parents().await?), stage: Mutex::default() },
        );
        let work = tokio::task::spawn_blocking(move || kind.run_isolated(&args, &at, &context));
        match self.within_limits(run, work).await? {
            Ok(Outcome::Done(done)) => self.keep_all(done, dir.path()).await,
            Ok(other) => Err(ended_of(other)),
            Err(panic) => {
                let text = panic.try_into_panic().map_or_else(|e| e.to_string(), |panic| panic_text(panic.as_ref()));
                Err(ended_of(Outcome::retry("panicked", text)))
            }
        }
    }

    async fn keep_all(&self, done: Done, dir: &Path) -> Result<(StoredResult, bool), Ended> {
        let mut stored = StoredResult { value: done.value, artifacts: Vec::new(), cached: false };
        for artifact in &done.artifacts {
            stored.artifacts.push(self.keep(artifact, dir).await?);
        }
        Ok((stored, done.skipped))
    }

    async fn lay_all(&self, blobs: &[String], dir: &Path) -> Result<(), Ended> {
        let most = self.pool.input_bytes();
        let mut sum = 0;
        for blob in blobs {
            sum += self.lay(blob, dir).await?;
            if sum > most {
                let message = format!("the inputs are more than {} MiB in all", most / (1024 * 1024));
                return Err(fatal("inputs_too_large", message));
            }
        }
        Ok(())
    }

    /// How many bytes it has.
    async fn lay(&self, blob: &str, dir: &Path) -> Result<u64, Ended> {
        let digest: Digest = blob.parse().map_err(|e| fatal("blob_missing", format!("{e}")))?;
        let bytes = self.services.artifacts.get(&digest).await.map_err(|e| storage("input", &e))?;
        let Some(bytes) = bytes else {
            return Err(fatal("blob_missing", format!("blob {digest} is not stored: upload it again")));
        };
        let path = dir.join("in").join(digest.hex());
        tokio::fs::write(&path, &bytes).await.map_err(|e| storage("input", &e))?;
        Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
    }

    /// Stores a file the child wrote; only a plain file below the directory is taken.
    async fn keep(&self, artifact: &ArtifactFile, dir: &Path) -> Result<StoredArtifact, Ended> {
        let path = dir.join(&artifact.path);
        if !is_plain_below(dir, &artifact.path).await {
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

    fn log(&self, queue: usize, lease: Lease, kind: &str, ended: &Ended) {
        let queue = &self.queues[queue];
        match ended {
            Ended::Failed { reason, error, .. } | Ended::Fatal { reason, error } => {
                tracing::warn!(job = %lease.ulid, %queue, %kind, %reason, %error, "run failed");
            }
            _ => tracing::debug!(job = %lease.ulid, %queue, %kind, "run ended"),
        }
    }
}

/// Whether a path names a file in a directory without a way out of it: no `..`, no link on the way.
async fn is_plain_below(dir: &Path, path: &Path) -> bool {
    let mut at = dir.to_owned();
    let mut facts = None;
    for part in path.components() {
        let Component::Normal(name) = part else { return false };
        at.push(name);
        facts = match tokio::fs::symlink_metadata(&at).await {
            Ok(facts) if facts.is_file() || facts.is_dir() => Some(facts),
            _ => return false,
        };
    }
    facts.is_some_and(|facts| facts.is_file())
}

/// The kind's own soft limit, else 80 % of the hard one; never after it.
fn soft_limit(hard: Duration, of_kind: Option<Duration>) -> Duration {
    of_kind.map_or(hard / 5 * 4, |soft| soft.min(hard))
}

pub(crate) fn ended_of(outcome: Outcome) -> Ended {
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

pub(crate) fn fatal(code: &str, message: String) -> Ended {
    Ended::Fatal { reason: Reason::Error, error: RunError::new(code, message) }
}

fn undecodable(message: impl Into<String>) -> Ended {
    Ended::Fatal { reason: Reason::Decode, error: RunError::new("decode", message) }
}

fn storage(what: &str, error: &dyn std::error::Error) -> Ended {
    let error = RunError::new("storage", format!("{what}: {}", windlass_jobs::chain(error)));
    Ended::Failed { reason: Reason::Error, error, after: None }
}

fn stopped(stop: Stop) -> Ended {
    match stop {
        // The fence refuses whatever a run without a lease would say.
        Stop::Shutdown | Stop::LeaseLost => Ended::GivenBack,
        Stop::Cancelled => Ended::Cancelled("cancelled on request".to_owned()),
    }
}

fn timed_out(run: &Arc<Run>) -> Ended {
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

/// What a run in this process may say and ask.
struct RunningContext {
    run: Arc<Run>,
    /// Read before the run, for a handler that cannot wait.
    parents: Option<Vec<Parent>>,
    /// The span of the stage it is in.
    stage: Mutex<Option<BoxedSpan>>,
}

impl RunContext for RunningContext {
    fn progress(&self, percent: f32, message: &str) {
        self.run.say(Progress::new(percent, message));
    }
    fn stage(&self, name: &'static str) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        // The one before ends first.
        *stage = None;
        *stage = trace::stage(name);
    }
    fn cancelled(&self) -> bool {
        self.run.job.control.why().is_some()
    }
    fn remaining(&self) -> Duration {
        self.run.deadline.saturating_duration_since(Instant::now())
    }
    fn over_soft_limit(&self) -> bool {
        Instant::now() >= self.run.soft
    }
    fn attempt(&self) -> u32 {
        self.run.job.claimed.failures + 1
    }
    fn lease(&self) -> Option<Lease> {
        Some(self.run.job.claimed.lease)
    }
    fn parents(&self) -> BoxFuture<'_, Result<Vec<Parent>, RunError>> {
        if let Some(parents) = &self.parents {
            return Box::pin(std::future::ready(Ok(parents.clone())));
        }
        match self.run.family.clone() {
            Some((broker, id)) => Box::pin(parents::of(broker, id)),
            None => Box::pin(std::future::ready(Ok(Vec::new()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_comes_before_the_hard_one() {
        let s = Duration::from_secs;
        assert_eq!(soft_limit(s(300), None), s(240));
        assert_eq!(soft_limit(s(300), Some(s(10))), s(10));
        assert_eq!(soft_limit(s(300), Some(s(400))), s(300));
    }

    #[tokio::test]
    async fn only_plain_files_below_the_directory_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("job/out")).unwrap();
        std::fs::write(at("job/out/a"), "a").unwrap();
        std::fs::write(at("secret"), "s").unwrap();
        std::os::unix::fs::symlink(at("secret"), at("job/out/link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), at("job/out/up")).unwrap();
        for (path, expected) in [
            ("out/a", true),
            ("out", false),
            ("", false),
            ("out/b", false),
            ("../secret", false),
            ("out/link", false),
            ("out/up/secret", false),
            ("/etc/passwd", false),
        ] {
            assert_eq!(is_plain_below(&at("job"), Path::new(path)).await, expected, "{path}");
        }
    }
}
