//! A worker's probes: `/livez`, `/readyz` and `/metrics`, on the API's socket where a worker runs
//! beside it, and on a small one of its own where none does.
//!
//! They say nothing secret and change nothing, so they need no key.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use windlass_market::Market;
use windlass_producer::Spool;
use windlass_redis::Link;
use windlass_scheduler::Counters;
use windlass_store::Services;
use windlass_worker::{Condition, Health};

use crate::problem::{Code, Problem};
use crate::serve::{Error, Limits, accept_all};

/// What a process measures beside its worker or scheduler.
#[derive(Clone, Default)]
pub struct Measured {
    /// Positions, if this process watches them.
    pub market: Option<Market>,
    /// Results, artifacts and images.
    pub services: Option<Services>,
    /// Jobs on this machine's disk, if it takes any.
    pub spool: Option<Spool>,
    /// Its Redis servers, by what they are for.
    pub links: Vec<(&'static str, Link)>,
    /// What the program itself measures.
    pub more: Option<crate::MoreMetrics>,
}

impl std::fmt::Debug for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measured").finish_non_exhaustive()
    }
}

impl Measured {
    /// Every figure, in the Prometheus text format.
    pub(crate) async fn render(&self) -> String {
        let mut text = self.market.as_ref().map(crate::market::metrics::render).unwrap_or_default();
        if let Some(services) = &self.services {
            if let Some(images) = services.images.as_deref() {
                text.push_str(&crate::images::metrics(images).await);
            }
            text.push_str(&crate::cache::metrics(&*services.artifacts).await);
        }
        if let Some(spool) = &self.spool {
            text.push_str(&format!(
                "# HELP windlass_spool_jobs Accepted jobs that wait on this machine's disk for the queue's store.\n\
                 # TYPE windlass_spool_jobs gauge\nwindlass_spool_jobs {}\n",
                spool.len()
            ));
        }
        text.push_str(&crate::redis_metrics::render(&self.links).await);
        if let Some(more) = &self.more {
            text.push_str(&more());
        }
        text
    }
}

/// Serves a worker's probes until `shutdown` completes.
///
/// # Errors
/// [`Error::Listener`], before the first connection is accepted; never afterwards.
pub async fn serve_probes(
    listener: TcpListener,
    worker: Health,
    measured: Measured,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let at = listener.local_addr().map_err(Error::Listener)?;
    tracing::info!(%at, "probes: /livez, /readyz, /metrics");
    let live = worker.clone();
    let ready = worker.clone();
    let rendered = |answer: Result<Response, Problem>| answer.unwrap_or_else(|problem| problem.render(""));
    let router = Router::new()
        .route("/livez", get(async move || rendered(livez(&live))))
        .route("/readyz", get(async move || rendered(readyz(&ready))))
        .route("/metrics", get(async move || metrics(Some(&worker), None, &measured.render().await)))
        .fallback(async || Problem::new(Code::NotFound, "there is nothing at this path").render(""));
    accept_all(listener, router, &Limits::PROBES, shutdown).await;
    Ok(())
}

/// Serves the probes of a process that has no worker until `shutdown` completes: `/livez` while it
/// runs, and what it measures as `/metrics`.
///
/// # Errors
/// [`Error::Listener`], before the first connection is accepted; never afterwards.
pub async fn serve_plain_probes(
    listener: TcpListener,
    measured: impl Fn() -> String + Clone + Send + Sync + 'static,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let at = listener.local_addr().map_err(Error::Listener)?;
    tracing::info!(%at, "probes: /livez, /metrics");
    let router = Router::new()
        .route("/livez", get(async || axum::Json(json!({ "status": "OK" }))))
        .route("/metrics", get(async move || metrics(None, None, &measured())))
        .fallback(async || Problem::new(Code::NotFound, "there is nothing at this path").render(""));
    accept_all(listener, router, &Limits::PROBES, shutdown).await;
    Ok(())
}

/// 200 unless the worker should be started again.
pub(crate) fn livez(worker: &Health) -> Result<Response, Problem> {
    if worker.is_live() {
        return Ok(axum::Json(json!({ "status": "OK" })).into_response());
    }
    Err(about(worker, Code::WorkerDead, "the worker has not proved for too long that it can fetch jobs"))
}

/// 200 while the worker takes jobs.
pub(crate) fn readyz(worker: &Health) -> Result<Response, Problem> {
    let detail = match worker.condition() {
        Condition::Ready => return Ok(axum::Json(json!({ "status": "OK" })).into_response()),
        Condition::Starting => "the worker has not fetched yet",
        Condition::Draining => "the worker was told to stop",
        Condition::CutOff => "the worker cannot fetch jobs at the moment",
        Condition::Dead => "the worker has not proved for too long that it can fetch jobs",
    };
    Err(about(worker, Code::WorkerNotReady, detail).retry_after(1))
}

/// What is measured, in the Prometheus text format, and `more` behind it.
pub(crate) fn metrics(worker: Option<&Health>, scheduler: Option<&Counters>, more: &str) -> Response {
    let mut text = worker.map(Health::metrics).unwrap_or_default();
    text.push_str(&scheduler.map(Counters::metrics).unwrap_or_default());
    text.push_str(more);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn about(worker: &Health, code: Code, detail: &str) -> Problem {
    let age_ms = u64::try_from(worker.canary_age().as_millis()).unwrap_or(u64::MAX);
    Problem::new(code, detail)
        .with("worker", worker.worker())
        .with("condition", worker.condition().as_str())
        .with("canary_age_ms", age_ms)
}
