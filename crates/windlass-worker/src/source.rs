//! The worker's side of the pump, in apalis' words: a `Backend` that hands on what the pump
//! claimed, and a layer that reports how each job ended.
//!
//! The backend never answers an error: an outage is the pump's to bridge, and to apalis an
//! error is the end of the worker.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll, ready};

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::error::BoxDynError;
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tower::{Layer, Service};

use crate::pump::{Job, Report};

/// The pump's mouth.
pub(crate) struct Source {
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    batch: VecDeque<Job>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Source {
    pub(crate) fn new(jobs: mpsc::UnboundedReceiver<Vec<Job>>, reports: mpsc::UnboundedSender<Report>) -> Self {
        Self { jobs, batch: VecDeque::new(), reports }
    }
}

impl Backend for Source {
    type Task = Task<Job>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Ends when the pump drains and everything it had claimed was handed on.
    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Task<Job>, Infallible>>> {
        loop {
            if let Some(job) = self.batch.pop_front() {
                // The epoch is part of the id: a job that is delivered again is another task.
                let id = TaskId::from_string(job.claimed.lease.to_string());
                return Poll::Ready(Some(Ok(TaskBuilder::new(job).task_id(id).build())));
            }
            match ready!(self.jobs.poll_recv(cx)) {
                Some(batch) => self.batch = batch.into(),
                None => return Poll::Ready(None),
            }
        }
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Source {
    type Args = Job;
    type Id = String;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = ReportLayer;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> ReportLayer {
        ReportLayer { reports: self.reports.clone() }
    }
}

/// Sends the pump what a handler's service answers.
#[derive(Clone)]
pub(crate) struct ReportLayer {
    reports: mpsc::UnboundedSender<Report>,
}

impl<S> Layer<S> for ReportLayer {
    type Service = ReportService<S>;

    fn layer(&self, inner: S) -> ReportService<S> {
        ReportService { inner, reports: self.reports.clone() }
    }
}

/// See [`ReportLayer`].
#[derive(Clone)]
pub(crate) struct ReportService<S> {
    inner: S,
    reports: mpsc::UnboundedSender<Report>,
}

impl<S> Service<Task<Job>> for ReportService<S>
where
    S: Service<Task<Job>, Response = Report>,
    S::Error: Into<BoxDynError>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<(), S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, task: Task<Job>) -> Self::Future {
        let reports = self.reports.clone();
        let run = self.inner.call(task);
        async move {
            let report = run.await?;
            // The pump is gone only after it released every job: nothing is lost.
            let _ = reports.send(report);
            Ok(())
        }
        .boxed()
    }
}
