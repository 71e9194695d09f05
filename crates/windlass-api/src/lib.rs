//! The HTTP API: enqueues jobs, shows them, streams their progress and hands out results.
//!
//! It never runs a job, never reads the environment, and never answers an error that is not
//! problem JSON with a stable [`Code`]. [`ROUTES`] is the list of what it answers; a method
//! and path that is not in it does not exist.

#![forbid(unsafe_code)]

mod administer;
pub mod audit;
mod auth;
mod blobs;
mod body;
mod cache;
mod caching;
mod control;
mod cross;
mod dashboard;
mod door;
mod enqueue;
mod events;
mod flow;
mod gate;
mod health;
mod http_metrics;
mod images;
mod json;
pub mod keys;
mod local;
mod logging;
mod market;
mod once;
mod openapi;
mod paging;
mod probes;
mod problem;
mod queue_metrics;
mod redis_metrics;
mod request;
mod result;
mod ring;
mod routes;
mod schedules;
pub mod scope;
mod search;
mod serve;
mod session;
mod sheets;
mod task;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, head, post};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use windlass_broker::SharedBroker;
use windlass_market::Market;
use windlass_producer::{Producer, Spool};
use windlass_scheduler::{Book, Counters};
use windlass_store::records::Records;
use windlass_store::{Caching, Claims, Services};
use windlass_worker::{Health, Registry};

pub use auth::{Anonymous, Auth};
pub use cache::view as cache_stats_view;
pub use flow::read_flow;
pub use local::MakeLocal;
pub use probes::{Measured, serve_plain_probes, serve_probes};
pub use problem::Code;
pub use ring::{Ring, keep_copy};
pub use routes::{ROUTES, Route, Sees};
pub use schedules::RegistryKinds;
pub use scope::Scope;
pub use serve::{Error, serve};

use door::Door;
use local::Local;
pub use logging::LogFilter;
use problem::Problem;

/// Answers metrics in the Prometheus text format.
pub type MoreMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the API speaks for.
#[derive(Clone)]
pub struct Api {
    /// The queues.
    pub broker: SharedBroker,
    /// Inputs and outputs of jobs.
    pub services: Services,
    /// Cache, locks, sessions and rate limits of other services.
    pub caching: Caching,
    /// Prices and positions.
    pub market: Market,
    /// The kinds this program knows; those that workers of others have published may be
    /// enqueued too.
    pub registry: Registry,
    /// The worker that runs in this process, if one does: the probes speak for it too.
    pub worker: Option<Health>,
    /// Where schedules, API keys and the audit log are kept.
    pub records: Arc<dyn Records>,
    /// Which idempotency keys were used.
    pub claims: Arc<dyn Claims>,
    /// The API keys of these records.
    pub ring: Arc<Ring>,
    /// The counters of the scheduler of this process, if there is one.
    pub scheduler: Option<Arc<Counters>>,
    /// Takes jobs while the queue's store is away; none: they are refused with 503.
    pub spool: Option<Spool>,
    /// Makes files that are waited for while the queue's store is away; none: 503.
    pub local: Option<MakeLocal>,
    /// How the queue's Redis is reached, if it is one, for what is measured.
    pub redis: Option<windlass_redis::Link>,
    /// What this process logs; none: it cannot be changed.
    pub log: Option<Arc<dyn LogFilter>>,
    /// What the program itself measures, for `/metrics`.
    pub more_metrics: Option<MoreMetrics>,
    /// Who is let in, and how much is taken.
    pub options: ApiOptions,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Who is let in, and how much is taken.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Default: nobody without a key that is kept.
    pub auth: Auth,
    /// How often a key may ask that does not say itself. Default: as often as it likes.
    pub rate: Option<keys::Rate>,
    /// Sites whose pages may ask, as `https://app.example`; `*` for all. Default none: no page of another
    /// site is handed an answer.
    pub cors_origins: Vec<String>,
    /// Image files of a former system, served and cleaned with the others. Default none.
    pub old_images: Option<windlass_store::images::OldFolder>,
    /// What stands before every path where a proxy serves this under one, as in `/jobs`; default
    /// nothing. Requests are answered with it and without.
    pub base_path: String,
    /// The settings in force, by name, with secrets hidden, for the page that shows them.
    pub settings: Vec<(String, String)>,
    /// The largest JSON body, in bytes; default [`ApiOptions::JSON_BYTES`].
    pub json_bytes: usize,
    /// The largest batch of quotes, in bytes; default [`ApiOptions::QUOTE_BYTES`].
    pub quote_bytes: usize,
    /// The largest blob, in bytes; default [`ApiOptions::BLOB_BYTES`].
    pub blob_bytes: usize,
    /// The largest multipart body, in bytes; default [`ApiOptions::MULTIPART_BYTES`].
    pub multipart_bytes: usize,
    /// All bodies in memory together, in bytes; default [`ApiOptions::BODIES_BYTES`].
    pub bodies_bytes: usize,
    /// The longest path with its query, in bytes; default [`ApiOptions::URL_BYTES`].
    pub url_bytes: usize,
    /// How long a body may take; a large one that comes at 64 KiB/s or faster may take
    /// longer. Default [`ApiOptions::BODY_TIMEOUT`].
    pub body_timeout: Duration,
    /// How long a request's head may take, and a connection may idle; default
    /// [`ApiOptions::HEAD_TIMEOUT`].
    pub head_timeout: Duration,
    /// Most jobs in one batch; default [`ApiOptions::BATCH_JOBS`].
    pub batch_jobs: usize,
    /// Most event streams at once; default [`ApiOptions::EVENT_STREAMS`].
    pub event_streams: usize,
    /// Most connections at once; further ones wait. Default [`ApiOptions::CONNECTIONS`].
    pub connections: usize,
    /// How long open requests may go on after the shutdown began; default
    /// [`ApiOptions::DRAIN_TIMEOUT`].
    pub drain_timeout: Duration,
}

impl ApiOptions {
    /// Default of [`ApiOptions::json_bytes`].
    pub const JSON_BYTES: usize = 4 * 1024 * 1024;
    /// Default of [`ApiOptions::quote_bytes`].
    pub const QUOTE_BYTES: usize = 10 * 1024 * 1024;
    /// Default of [`ApiOptions::blob_bytes`].
    pub const BLOB_BYTES: usize = 25 * 1024 * 1024;
    /// Default of [`ApiOptions::multipart_bytes`].
    pub const MULTIPART_BYTES: usize = 64 * 1024 * 1024;
    /// Default of [`ApiOptions::bodies_bytes`].
    pub const BODIES_BYTES: usize = 256 * 1024 * 1024;
    /// Default of [`ApiOptions::url_bytes`].
    pub const URL_BYTES: usize = 4096;
    /// Default of [`ApiOptions::body_timeout`].
    pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default of [`ApiOptions::head_timeout`].
    pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default of [`ApiOptions::batch_jobs`].
    pub const BATCH_JOBS: usize = 10_000;
    /// Default of [`ApiOptions::event_streams`].
    pub const EVENT_STREAMS: usize = 200;
    /// Default of [`ApiOptions::connections`]: below the usual 1,024 open files of a process.
    pub const CONNECTIONS: usize = 900;
    /// Default of [`ApiOptions::drain_timeout`].
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

    /// Says which limit is out of range, if any.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check(&self) -> Result<(), Error> {
        let least = [
            ("json_bytes", self.json_bytes),
            ("quote_bytes", self.quote_bytes),
            ("blob_bytes", self.blob_bytes),
            ("multipart_bytes", self.multipart_bytes),
            ("url_bytes", self.url_bytes),
            ("batch_jobs", self.batch_jobs),
            ("event_streams", self.event_streams),
            ("connections", self.connections),
        ];
        if let Some((setting, _)) = least.into_iter().find(|(_, found)| *found == 0) {
            return Err(Error::Option { setting, found: "0".to_owned(), allowed: "1 or more".to_owned() });
        }
        let largest = self.json_bytes.max(self.quote_bytes).max(self.blob_bytes).max(self.multipart_bytes);
        if self.bodies_bytes < largest {
            let allowed = format!("at least the largest body, {largest},");
            return Err(Error::Option { setting: "bodies_bytes", found: self.bodies_bytes.to_string(), allowed });
        }
        Ok(())
    }
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            auth: Auth::default(),
            rate: None,
            cors_origins: Vec::new(),
            old_images: None,
            base_path: String::new(),
            settings: Vec::new(),
            json_bytes: Self::JSON_BYTES,
            quote_bytes: Self::QUOTE_BYTES,
            blob_bytes: Self::BLOB_BYTES,
            multipart_bytes: Self::MULTIPART_BYTES,
            bodies_bytes: Self::BODIES_BYTES,
            url_bytes: Self::URL_BYTES,
            body_timeout: Self::BODY_TIMEOUT,
            head_timeout: Self::HEAD_TIMEOUT,
            batch_jobs: Self::BATCH_JOBS,
            event_streams: Self::EVENT_STREAMS,
            connections: Self::CONNECTIONS,
            drain_timeout: Self::DRAIN_TIMEOUT,
        }
    }
}

/// What all handlers share.
struct Inner {
    broker: SharedBroker,
    producer: Producer,
    services: Services,
    door: Door,
    caching: Caching,
    market: Market,
    worker: Option<Health>,
    schedules: Book,
    scheduler: Option<Arc<Counters>>,
    claims: Arc<dyn Claims>,
    /// The OpenAPI document.
    document: Arc<serde_json::Value>,
    records: Arc<dyn Records>,
    keys: keys::Book,
    ring: Arc<Ring>,
    auditor: audit::Auditor,
    dashboard: dashboard::Dashboard,
    spool: Option<Spool>,
    local: Local,
    http: http_metrics::HttpMetrics,
    /// What `/metrics` tells beside queues and requests.
    measured: Measured,
    log: Option<Arc<dyn LogFilter>>,
    options: ApiOptions,
    /// Room for bodies, in KiB.
    room: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Ends event streams, which would otherwise outlive a shutdown.
    shutdown: CancellationToken,
}

type Shared = Arc<Inner>;

impl Inner {
    /// What handlers share, and the work of writing the audit log.
    fn new(api: Api, shutdown: CancellationToken) -> (Shared, impl Future<Output = ()> + Send + 'static) {
        let room_kib = (api.options.bodies_bytes.div_ceil(1024)).min(Semaphore::MAX_PERMITS);
        let kinds = Arc::new(RegistryKinds(api.registry.clone()));
        let mut producer = Producer::new(Arc::<dyn windlass_broker::Broker>::clone(&api.broker));
        if let Some(spool) = &api.spool {
            producer = producer.spooling(spool.clone());
        }
        let links = [
            ("queue", api.redis.as_ref()),
            ("cache", api.caching.link()),
            ("images", api.services.images.as_deref().and_then(|images| images.link())),
        ];
        let links = links.into_iter().filter_map(|(name, link)| Some((name, link?.clone()))).collect();
        let measured = Measured {
            market: Some(api.market.clone()),
            services: Some(api.services.clone()),
            spool: api.spool.clone(),
            links,
            more: api.more_metrics,
        };
        let (auditor, auditing) = audit::Auditor::new(Arc::clone(&api.records));
        let shared = Self {
            schedules: Book::new(Arc::clone(&api.records), api.broker.clone(), kinds),
            keys: keys::Book::new(Arc::clone(&api.records)),
            ring: api.ring,
            claims: api.claims,
            document: Arc::new(openapi::document()),
            auditor,
            scheduler: api.scheduler,
            dashboard: dashboard::Dashboard::default(),
            records: api.records,
            spool: api.spool,
            local: Local::new(api.local),
            producer,
            door: Door::new(api.registry, Arc::<dyn windlass_broker::Broker>::clone(&api.broker)),
            broker: api.broker,
            services: api.services,
            caching: api.caching,
            market: api.market,
            worker: api.worker,
            room: Arc::new(Semaphore::new(room_kib)),
            streams: Arc::new(Semaphore::new(api.options.event_streams.min(Semaphore::MAX_PERMITS))),
            http: http_metrics::HttpMetrics::default(),
            measured,
            log: api.log,
            options: api.options,
            shutdown,
        };
        (Arc::new(shared), auditing)
    }

    /// The same API over another queue and other stores.
    fn beside(&self, broker: SharedBroker, services: Services) -> Shared {
        let api = Api {
            broker,
            services,
            caching: self.caching.clone(),
            market: self.market.clone(),
            registry: self.door.registry().clone(),
            worker: None,
            records: Arc::clone(&self.records),
            claims: Arc::clone(&self.claims),
            ring: Arc::clone(&self.ring),
            scheduler: None,
            spool: None,
            local: None,
            redis: None,
            log: None,
            more_metrics: None,
            options: self.options.clone(),
        };
        // Callers were let in, and what they did is written down, at this one's door.
        Self::new(api, self.shutdown.clone()).0
    }

    /// Takes room for a body; `None` when too many are in memory.
    fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).try_acquire_many_owned(kib).ok()
    }
}

/// The API as a router, to be served by [`serve`] or asked directly in a test.
///
/// Time limits of a request's head, the number of connections and the care for keys are [`serve`]'s.
/// Needs a tokio runtime.
pub fn router(api: Api) -> Router {
    let (shared, auditing) = Inner::new(api, CancellationToken::new());
    tokio::spawn(auditing);
    build(shared)
}

fn build(shared: Shared) -> Router {
    Router::new()
        .route("/api/tasks", get(search::search).post(enqueue::enqueue))
        .route("/api/tasks/{id}", get(task::show).delete(control::cancel))
        .route("/api/tasks/{id}/retry", post(control::retry))
        .route("/api/tasks/{id}/events", get(events::events))
        .route("/api/tasks/{id}/result", get(result::result))
        .route("/api/blobs", post(blobs::post))
        .route("/api/blobs/{sha256}", head(blobs::head).get(blobs::get).put(blobs::put))
        .route("/api/cache/stats", get(cache::stats))
        .route("/api/cache/clear", post(cache::clear))
        .route("/api/pdf/card-sheets", post(sheets::post).layer(DefaultBodyLimit::disable()))
        .route("/api/generate", post(sheets::legacy::generate).layer(DefaultBodyLimit::disable()))
        .route("/api/offset", post(sheets::legacy::offset).layer(DefaultBodyLimit::disable()))
        .route("/api/config", get(sheets::legacy::config))
        .merge(caching::router())
        .merge(market::router())
        .merge(dashboard::router())
        .route("/api/queues", get(health::queues))
        .route("/api/queues/{queue}/pause", post(control::pause))
        .route("/api/queues/{queue}/resume", post(control::resume))
        .route("/api/queues/{queue}/limits", axum::routing::put(control::limits))
        .route("/api/queues/{queue}/dead", get(control::dead))
        .route("/api/schedules", get(schedules::list).post(schedules::create))
        .route("/api/schedules/{name}", get(schedules::show).put(schedules::change).delete(schedules::remove))
        .route("/api/schedules/{name}/pause", post(schedules::pause))
        .route("/api/schedules/{name}/resume", post(schedules::resume))
        .route("/api/schedules/{name}/run", post(schedules::run))
        .route("/api/schedules/{name}/next", get(schedules::next))
        .route("/api/schedules/{name}/history", get(schedules::history))
        .route("/api/openapi.json", get(openapi::get))
        .route("/api/keys", get(administer::keys).post(administer::create_key))
        .route("/api/keys/{id}", axum::routing::delete(administer::revoke_key))
        .route("/api/keys/{id}/rotate", post(administer::rotate_key))
        .route("/api/audit", get(administer::audit))
        .route("/api/log", get(logging::show).put(logging::change))
        .route("/api/workers", get(health::workers))
        .route("/api/kinds", get(health::kinds))
        .route("/api/health", get(health::health))
        .route("/api/charts", get(images::charts::list))
        .route("/api/charts/latest", get(images::charts::latest))
        .route("/api/charts/stats", get(images::charts::stats))
        .route("/api/charts/{id}", get(images::charts::image).delete(images::charts::delete))
        .route("/api/charts/{id}/thumb", get(images::charts::thumb))
        .route("/redis/images", axum::routing::delete(images::old::clear_all))
        .route("/redis/images/stats", get(images::old::stats))
        .route("/redis/images/cleanup", post(images::old::cleanup))
        .route("/redis/images/{symbol}", get(images::old::list).delete(images::old::clear_symbol))
        .route("/charts/storage/stats", get(images::old::storage_stats))
        .route("/charts/cleanup", post(images::old::cleanup_all))
        .route("/charts/{symbol}/{interval}", axum::routing::delete(images::old::clear_interval))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/docs/errors/{code}", get(error_page))
        .fallback(async || Problem::new(Code::NotFound, "there is nothing at this path"))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), gate::gate))
        .layer(cross::compression())
        .layer(tower::util::option_layer(cross::cors(&shared.options.cors_origins)))
        .with_state(shared)
}

/// `GET /docs/errors/{code}`: what a code means and what to do, as Markdown in plain text.
async fn error_page(Path(name): Path<String>) -> Response {
    match Code::ALL.iter().find(|code| code.as_str() == name) {
        Some(code) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], code.page()).into_response(),
        None => Problem::new(Code::NotFound, "there is no error of this name").into_response(),
    }
}
