//! Layers of one's own around every run: measuring, tracing, refusing, repeating.
//!
//! A layer is a tower layer over a [`Handler`]. It sees a run after the job was decoded and its
//! result was not found in the cache, and sees how it ended before that is recorded. It is held to
//! the job's time limit and dropped with the run when that is cancelled.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt as _, service_fn};
use windlass_jobs::{Done, JobId, Outcome, RunError};

use crate::policy::Ended;
use crate::result::StoredResult;
use crate::run::{Run, Runner, ended_of, fatal};

/// What runs a job, with all the layers around it.
pub type Handler = BoxCloneSyncService<RunRequest, RunReply, Infallible>;

type AnyLayer = Arc<dyn Fn(Handler) -> Handler + Send + Sync>;

/// The layers of a registry, outermost first.
#[derive(Clone, Default)]
pub(crate) struct Layers(Vec<AnyLayer>);

impl Layers {
    pub(crate) fn add<L>(&mut self, layer: L)
    where
        L: Layer<Handler> + Send + Sync + 'static,
        L::Service: Service<RunRequest, Response = RunReply> + Clone + Send + Sync + 'static,
        <L::Service as Service<RunRequest>>::Error: std::fmt::Display,
        <L::Service as Service<RunRequest>>::Future: Send + 'static,
    {
        self.0.push(Arc::new(move |inner| {
            let service = layer.layer(inner);
            BoxCloneSyncService::new(service_fn(move |request| {
                let service = service.clone();
                async move {
                    let failed = |error| Outcome::retry("middleware", format!("{error}")).into();
                    Ok(service.oneshot(request).await.unwrap_or_else(failed))
                }
            }))
        }));
    }

    /// The handler with every layer around it; `None` without any.
    pub(crate) fn around_work(&self) -> Option<Handler> {
        if self.0.is_empty() {
            return None;
        }
        let work = |request: RunRequest| async move { Ok(RunReply(request.runner.work(&request.run).await)) };
        let innermost = BoxCloneSyncService::new(service_fn(work));
        Some(self.0.iter().rev().fold(innermost, |inner, layer| layer(inner)))
    }
}

/// A run that is to be done. A clone is the same run: a layer that calls the inner service twice
/// runs it twice.
#[derive(Clone)]
pub struct RunRequest {
    pub(crate) run: Arc<Run>,
    pub(crate) runner: Arc<Runner>,
}

impl RunRequest {
    /// The job.
    #[must_use]
    pub fn id(&self) -> JobId {
        JobId::new(self.run.job.claimed.lease.ulid, self.runner.queues[self.run.job.queue].clone())
    }

    /// What it does: the kind's name, also when the job was enqueued under an alias.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.run.spec().name
    }

    /// With what, as JSON text.
    #[must_use]
    pub fn args(&self) -> &str {
        &self.run.job.claimed.args
    }

    /// Which run this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.run.job.claimed.failures + 1
    }

    /// What is left until the hard limit.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.run.deadline.saturating_duration_since(Instant::now())
    }
}

impl std::fmt::Debug for RunRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunRequest").field("id", &self.id()).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// How a run ended. A layer that answers by itself makes one from an [`Outcome`].
#[derive(Debug)]
pub struct RunReply(pub(crate) Result<(StoredResult, bool), Ended>);

impl RunReply {
    /// True when the work is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.is_ok()
    }

    /// What came out, when the work is done.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        self.0.as_ref().ok().map(|(stored, _)| &stored.value)
    }

    /// Why it failed, when it did: the handler's own error, a time limit, a crash of its child.
    #[must_use]
    pub fn error(&self) -> Option<&RunError> {
        match &self.0 {
            Err(Ended::Failed { error, .. } | Ended::Fatal { error, .. }) => Some(error),
            _ => None,
        }
    }
}

impl From<Outcome> for RunReply {
    fn from(outcome: Outcome) -> Self {
        Self(done_without_files(outcome))
    }
}

/// An outcome of a run that has no directory.
pub(crate) fn done_without_files(outcome: Outcome) -> Result<(StoredResult, bool), Ended> {
    match outcome {
        Outcome::Done(Done { artifacts, .. }) if !artifacts.is_empty() => {
            Err(fatal("no_directory", "a kind that runs inside the worker has no directory for artifacts".to_owned()))
        }
        Outcome::Done(Done { value, skipped, .. }) => Ok((StoredResult { value, ..StoredResult::default() }, skipped)),
        other => Err(ended_of(other)),
    }
}
