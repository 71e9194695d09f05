//! Every route once: method, path, and who may use it.

use crate::Scope;

/// What a key that is bound to a tenant meets on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// Nothing that is anybody's: health checks, the pages of errors.
    Shared,
    /// What is its tenant's; everything else is not there for it.
    Own,
    /// What is everybody's: such a key is refused.
    All,
}

/// One method on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path, with `{name}` for what varies.
    pub path: &'static str,
    /// Who may use it.
    pub scope: Scope,
    /// What a tenant sees there.
    pub sees: Sees,
}

pub(crate) const fn route(method: &'static str, path: &'static str, scope: Scope, sees: Sees) -> Route {
    Route { method, path, scope, sees }
}

/// All routes. A path and method that is not here is not answered, whatever the router says.
pub const ROUTES: &[Route] = &[
    route("GET", "/api/tasks", Scope::JobsRead, Sees::Own),
    route("POST", "/api/tasks", Scope::JobsWrite, Sees::Own),
    route("GET", "/api/tasks/{id}", Scope::JobsRead, Sees::Own),
    route("DELETE", "/api/tasks/{id}", Scope::JobsWrite, Sees::Own),
    route("POST", "/api/tasks/{id}/retry", Scope::JobsWrite, Sees::Own),
    route("GET", "/api/tasks/{id}/events", Scope::JobsRead, Sees::Own),
    route("GET", "/api/tasks/{id}/result", Scope::JobsRead, Sees::Own),
    route("POST", "/api/blobs", Scope::JobsWrite, Sees::Own),
    route("PUT", "/api/blobs/{sha256}", Scope::JobsWrite, Sees::Own),
    route("HEAD", "/api/blobs/{sha256}", Scope::JobsRead, Sees::Own),
    route("GET", "/api/blobs/{sha256}", Scope::JobsRead, Sees::Own),
    route("GET", "/api/cache/stats", Scope::AdminCache, Sees::All),
    route("POST", "/api/cache/clear", Scope::AdminCache, Sees::All),
    route("POST", "/api/pdf/card-sheets", Scope::JobsWrite, Sees::Own),
    route("POST", "/api/generate", Scope::JobsWrite, Sees::Own),
    route("POST", "/api/offset", Scope::JobsWrite, Sees::Own),
    route("GET", "/api/config", Scope::JobsRead, Sees::Own),
    route("POST", "/api/cache", Scope::CacheWrite, Sees::Own),
    route("DELETE", "/api/cache", Scope::CacheWrite, Sees::Own),
    route("DELETE", "/api/cache/{namespace}", Scope::CacheWrite, Sees::Own),
    route("HEAD", "/api/cache/{namespace}/{key}", Scope::CacheRead, Sees::Own),
    route("GET", "/api/cache/{namespace}/{key}", Scope::CacheRead, Sees::Own),
    route("PUT", "/api/cache/{namespace}/{key}", Scope::CacheWrite, Sees::Own),
    route("DELETE", "/api/cache/{namespace}/{key}", Scope::CacheWrite, Sees::Own),
    route("POST", "/api/cache/{namespace}/{key}/increment", Scope::CacheWrite, Sees::Own),
    route("POST", "/api/locks/{name}", Scope::LocksWrite, Sees::Own),
    route("PUT", "/api/locks/{name}", Scope::LocksWrite, Sees::Own),
    route("DELETE", "/api/locks/{name}", Scope::LocksWrite, Sees::Own),
    route("POST", "/api/sessions", Scope::SessionsWrite, Sees::Own),
    route("GET", "/api/sessions/{id}", Scope::SessionsRead, Sees::Own),
    route("PUT", "/api/sessions/{id}", Scope::SessionsWrite, Sees::Own),
    route("DELETE", "/api/sessions/{id}", Scope::SessionsWrite, Sees::Own),
    route("POST", "/api/sessions/{id}/touch", Scope::SessionsWrite, Sees::Own),
    route("POST", "/api/ratelimits/{key}", Scope::RateLimitsWrite, Sees::Own),
    route("GET", "/api/health/redis", Scope::Public, Sees::Shared),
    route("GET", "/api/health/cache", Scope::Public, Sees::Shared),
    route("GET", "/api/debug/redis", Scope::AdminCache, Sees::All),
    route("GET", "/api/queues", Scope::JobsRead, Sees::All),
    route("POST", "/api/queues/{queue}/pause", Scope::AdminQueues, Sees::All),
    route("POST", "/api/queues/{queue}/resume", Scope::AdminQueues, Sees::All),
    route("PUT", "/api/queues/{queue}/limits", Scope::AdminQueues, Sees::All),
    route("GET", "/api/queues/{queue}/dead", Scope::JobsRead, Sees::Own),
    route("GET", "/api/schedules", Scope::SchedulesRead, Sees::All),
    route("POST", "/api/schedules", Scope::SchedulesWrite, Sees::All),
    route("GET", "/api/schedules/{name}", Scope::SchedulesRead, Sees::All),
    route("PUT", "/api/schedules/{name}", Scope::SchedulesWrite, Sees::All),
    route("DELETE", "/api/schedules/{name}", Scope::SchedulesWrite, Sees::All),
    route("POST", "/api/schedules/{name}/pause", Scope::SchedulesWrite, Sees::All),
    route("POST", "/api/schedules/{name}/resume", Scope::SchedulesWrite, Sees::All),
    route("POST", "/api/schedules/{name}/run", Scope::SchedulesWrite, Sees::All),
    route("GET", "/api/schedules/{name}/next", Scope::SchedulesRead, Sees::All),
    route("GET", "/api/schedules/{name}/history", Scope::SchedulesRead, Sees::All),
    route("GET", "/api/keys", Scope::AdminKeys, Sees::All),
    route("POST", "/api/keys", Scope::AdminKeys, Sees::All),
    route("DELETE", "/api/keys/{id}", Scope::AdminKeys, Sees::All),
    route("POST", "/api/keys/{id}/rotate", Scope::AdminKeys, Sees::All),
    route("GET", "/api/audit", Scope::AdminAudit, Sees::All),
    route("GET", "/api/log", Scope::AdminLog, Sees::All),
    route("PUT", "/api/log", Scope::AdminLog, Sees::All),
    route("GET", "/api/workers", Scope::JobsRead, Sees::All),
    route("GET", "/api/kinds", Scope::JobsRead, Sees::Own),
    route("GET", "/api/openapi.json", Scope::Public, Sees::Shared),
    route("GET", "/api/health", Scope::Public, Sees::Shared),
    route("GET", "/api/charts", Scope::ImagesRead, Sees::All),
    route("GET", "/api/charts/latest", Scope::ImagesRead, Sees::All),
    route("HEAD", "/api/charts/latest", Scope::ImagesRead, Sees::All),
    route("GET", "/api/charts/stats", Scope::ImagesRead, Sees::All),
    route("GET", "/api/charts/{id}", Scope::ImagesRead, Sees::All),
    route("HEAD", "/api/charts/{id}", Scope::ImagesRead, Sees::All),
    route("DELETE", "/api/charts/{id}", Scope::ImagesWrite, Sees::All),
    route("GET", "/api/charts/{id}/thumb", Scope::ImagesRead, Sees::All),
    route("HEAD", "/api/charts/{id}/thumb", Scope::ImagesRead, Sees::All),
    route("DELETE", "/redis/images", Scope::ImagesWrite, Sees::All),
    route("GET", "/redis/images/stats", Scope::ImagesRead, Sees::All),
    route("POST", "/redis/images/cleanup", Scope::ImagesWrite, Sees::All),
    route("GET", "/redis/images/{symbol}", Scope::ImagesRead, Sees::All),
    route("DELETE", "/redis/images/{symbol}", Scope::ImagesWrite, Sees::All),
    route("GET", "/charts/storage/stats", Scope::ImagesRead, Sees::All),
    route("POST", "/charts/cleanup", Scope::ImagesWrite, Sees::All),
    route("DELETE", "/charts/{symbol}/{interval}", Scope::ImagesWrite, Sees::All),
    route("POST", "/api/quotes", Scope::MarketWrite, Sees::All),
    route("GET", "/api/quotes/socket", Scope::MarketWrite, Sees::All),
    route("GET", "/api/prices", Scope::MarketRead, Sees::All),
    route("GET", "/api/prices/{symbol}", Scope::MarketRead, Sees::All),
    route("GET", "/api/ticks/{symbol}", Scope::MarketRead, Sees::All),
    route("GET", "/api/candles/{symbol}", Scope::MarketRead, Sees::All),
    route("GET", "/api/instruments", Scope::MarketRead, Sees::All),
    route("GET", "/api/instruments/{symbol}", Scope::MarketRead, Sees::All),
    route("PUT", "/api/instruments/{symbol}", Scope::AdminMarket, Sees::All),
    route("GET", "/api/accounts/{id}", Scope::AdminMarket, Sees::All),
    route("PUT", "/api/accounts/{id}", Scope::AdminMarket, Sees::All),
    route("GET", "/api/positions", Scope::TradingRead, Sees::All),
    route("POST", "/api/positions", Scope::TradingWrite, Sees::All),
    route("GET", "/api/positions/next", Scope::TradingRead, Sees::All),
    route("GET", "/api/positions/{id}", Scope::TradingRead, Sees::All),
    route("PATCH", "/api/positions/{id}", Scope::TradingWrite, Sees::All),
    route("POST", "/api/positions/{id}/close", Scope::TradingWrite, Sees::All),
    route("GET", "/api/positions/{id}/history", Scope::TradingRead, Sees::All),
    route("GET", "/api/positions/{id}/explain", Scope::TradingRead, Sees::All),
    route("GET", "/api/market/latency", Scope::MarketRead, Sees::All),
    route("GET", "/api/market/stats", Scope::MarketRead, Sees::All),
    route("GET", "/api/market/audit", Scope::AdminMarket, Sees::All),
    route("GET", "/livez", Scope::Public, Sees::Shared),
    route("GET", "/readyz", Scope::Public, Sees::Shared),
    route("GET", "/metrics", Scope::Public, Sees::Shared),
    route("GET", "/docs/errors/{code}", Scope::Public, Sees::Shared),
];

/// Those of the API and those of the pages.
fn all() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().chain(crate::dashboard::ROUTES)
}

/// The entry of a method on a path.
pub(crate) fn find(method: &str, path: &str) -> Option<&'static Route> {
    all().find(|route| route.path == path && route.method == method)
}

/// The methods of a path, as an `Allow` header names them.
pub(crate) fn allowed(path: &str) -> String {
    all().filter(|route| route.path == path).map(|route| route.method).collect::<Vec<_>>().join(", ")
}
