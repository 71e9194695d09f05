//! Whether the system works, and what it is busy with.

use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde_json::{Value, json};
use windlass_broker::Error;
use windlass_jobs::Queue;
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::command::Counts;

use crate::Shared;
use crate::auth::Caller;
use crate::paging::{Listing, MAX_PAGE, PageQuery, asked, page};
use crate::probes;
use crate::problem::{Code, Problem};

/// How long a check waits for the queue.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many queues are counted at once.
const COUNTED: usize = 16;

/// `GET /api/health`: always 200 while this process answers.
///
/// *Shape*: `{"status": "OK" | "DEGRADED", "redis": {"status": "connected", "responseTime": 5}
/// | {"status": "disconnected"} | {"status": "not_configured"}, "engine", "version",
/// "workers": 3 | null}`; `responseTime` in ms.
pub(crate) async fn health(State(shared): State<Shared>) -> Response {
    let started = Instant::now();
    let answers = ping(&shared).await;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let workers = match tokio::time::timeout(PATIENCE, shared.broker.workers()).await {
        Ok(Ok(workers)) if answers => json!(workers.len()),
        _ => Value::Null,
    };
    let redis = match (shared.broker.engine(), answers) {
        ("redis", true) => json!({ "status": "connected", "responseTime": elapsed_ms }),
        ("redis", false) => json!({ "status": "disconnected" }),
        _ => json!({ "status": "not_configured" }),
    };
    let health = json!({
        "status": if answers { "OK" } else { "DEGRADED" },
        "redis": redis,
        "engine": shared.broker.engine(),
        "version": env!("CARGO_PKG_VERSION"),
        "workers": workers,
    });
    axum::Json(health).into_response()
}

/// `GET /livez`: this process answers, and its worker, if it has one, is not dead.
pub(crate) async fn livez(State(shared): State<Shared>) -> Result<Response, Problem> {
    match &shared.worker {
        Some(worker) => probes::livez(worker),
        None => Ok(axum::Json(json!({ "status": "OK" })).into_response()),
    }
}

/// `GET /metrics`: what is measured, in the Prometheus text format.
pub(crate) async fn metrics(State(shared): State<Shared>) -> Response {
    let mut more = crate::queue_metrics::render(&*shared.dashboard.latest(&shared).await);
    more.push_str(&shared.http.render());
    more.push_str(&shared.measured.render().await);
    probes::metrics(shared.worker.as_ref(), shared.scheduler.as_deref(), &more)
}

/// `GET /readyz`: this process reaches its queue, and its worker, if it has one, takes jobs.
pub(crate) async fn readyz(State(shared): State<Shared>) -> Result<Response, Problem> {
    if ping(&shared).await {
        if let Some(worker) = &shared.worker {
            return probes::readyz(worker);
        }
        return Ok(axum::Json(json!({ "status": "OK" })).into_response());
    }
    Err(Problem::new(Code::QueueUnavailable, "the queue does not answer at the moment").retry_after(1))
}

async fn ping(shared: &Shared) -> bool {
    matches!(tokio::time::timeout(PATIENCE, shared.broker.ping()).await, Ok(Ok(())))
}

#[derive(Serialize)]
struct QueueView {
    name: Queue,
    #[serde(flatten)]
    counts: Counts,
}

type PageOf = Result<Query<PageQuery>, QueryRejection>;

/// One page of a list that is small enough to be had at once: `{name: […], "next"}`.
fn paged<T: Serialize>(
    shared: &Shared,
    caller: &Caller,
    path: &str,
    query: PageOf,
    all: Vec<T>,
    name: impl Fn(&T) -> &str,
) -> Result<Response, Problem> {
    let listing = Listing { path, filter: "", caller };
    let signer = shared.ring.signer();
    let (after, limit) = asked(query)?.read(signer, &listing, MAX_PAGE)?;
    let (items, end) = page(all, name, after.as_deref(), limit);
    let next = end.map(|end| listing.seal(signer, &end));
    let what = path.trim_start_matches("/api/");
    Ok(axum::Json(json!({ what: items, "next": next })).into_response())
}

/// `GET /api/queues`: `{"queues": [{"name", "pending", "scheduled", …}], "next"}`, by name.
pub(crate) async fn queues(State(shared): State<Shared>, caller: Caller, query: PageOf) -> Result<Response, Problem> {
    let listing = Listing { path: "/api/queues", filter: "", caller: &caller };
    let signer = shared.ring.signer();
    let (after, limit) = asked(query)?.read(signer, &listing, MAX_PAGE)?;
    let (names, end) = page(shared.broker.queues().await?, Queue::as_str, after.as_deref(), limit);
    let broker = &shared.broker;
    let counted = names.into_iter().map(|name| async move {
        let counts = broker.counts(&name).await?;
        Ok::<_, Error>(QueueView { name, counts })
    });
    let queues: Vec<QueueView> = stream::iter(counted).buffered(COUNTED).try_collect().await?;
    let next = end.map(|end| listing.seal(signer, &end));
    Ok(axum::Json(json!({ "queues": queues, "next": next })).into_response())
}

/// `GET /api/workers`: `{"workers": [{"name", "host", "pid", "queues", "kinds", "slots",
/// "running", "jobs": [{"id", "kind", "running_ms"}], "canary_age_ms", "draining",
/// "started_at", "seen_at", "version"}], "next"}`, by name. What varies is as of `seen_at`, at most
/// some seconds ago; a worker not heard of for 15 s is not listed.
pub(crate) async fn workers(State(shared): State<Shared>, caller: Caller, query: PageOf) -> Result<Response, Problem> {
    let workers = shared.broker.workers().await?;
    paged(&shared, &caller, "/api/workers", query, workers, |worker| &worker.name)
}

/// `GET /api/kinds`: `{"kinds": [{"name", "version", "aliases", "queue", "schema", "max_attempts",
/// "timeout_ms", "isolated", "about", "seen_at", "workers": 2}], "next"}`, by name: what workers have
/// published, also those that are gone; `workers` counts those that are there.
pub(crate) async fn kinds(State(shared): State<Shared>, caller: Caller, query: PageOf) -> Result<Response, Problem> {
    let (kinds, workers) = tokio::try_join!(shared.broker.kinds(), shared.broker.workers())?;
    let view = |kind: KindInfo| {
        let knows = workers.iter().filter(|worker| worker.kinds.contains(&kind.name)).count();
        KindView { kind, workers: knows }
    };
    let kinds: Vec<KindView> = kinds.into_iter().map(view).collect();
    paged(&shared, &caller, "/api/kinds", query, kinds, |view| &view.kind.name)
}

#[derive(Serialize)]
struct KindView {
    #[serde(flatten)]
    kind: KindInfo,
    workers: usize,
}
