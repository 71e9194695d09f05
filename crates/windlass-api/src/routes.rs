//! Every route once: method, path, and who may use it.

/// What a caller needs for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nothing: health checks and the pages of errors.
    Public,
    /// A key; nothing is changed.
    Read,
    /// A key; something is changed.
    Write,
    /// A key that may see and do everything.
    Admin,
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
}

const fn route(method: &'static str, path: &'static str, scope: Scope) -> Route {
    Route { method, path, scope }
}

/// All routes. A path and method that is not here is not answered, whatever the router says.
pub const ROUTES: &[Route] = &[
    route("GET", "/api/tasks", Scope::Read),
    route("POST", "/api/tasks", Scope::Write),
    route("GET", "/api/tasks/{id}", Scope::Read),
    route("DELETE", "/api/tasks/{id}", Scope::Write),
    route("POST", "/api/tasks/{id}/retry", Scope::Write),
    route("GET", "/api/tasks/{id}/events", Scope::Read),
    route("GET", "/api/tasks/{id}/result", Scope::Read),
    route("POST", "/api/blobs", Scope::Write),
    route("PUT", "/api/blobs/{sha256}", Scope::Write),
    route("HEAD", "/api/blobs/{sha256}", Scope::Read),
    route("GET", "/api/blobs/{sha256}", Scope::Read),
    route("GET", "/api/cache/stats", Scope::Admin),
    route("POST", "/api/cache/clear", Scope::Admin),
    route("POST", "/api/pdf/card-sheets", Scope::Write),
    route("POST", "/api/generate", Scope::Write),
    route("POST", "/api/offset", Scope::Write),
    route("GET", "/api/config", Scope::Read),
    route("POST", "/api/cache", Scope::Write),
    route("DELETE", "/api/cache", Scope::Write),
    route("DELETE", "/api/cache/{namespace}", Scope::Write),
    route("HEAD", "/api/cache/{namespace}/{key}", Scope::Read),
    route("GET", "/api/cache/{namespace}/{key}", Scope::Read),
    route("PUT", "/api/cache/{namespace}/{key}", Scope::Write),
    route("DELETE", "/api/cache/{namespace}/{key}", Scope::Write),
    route("POST", "/api/cache/{namespace}/{key}/increment", Scope::Write),
    route("POST", "/api/locks/{name}", Scope::Write),
    route("PUT", "/api/locks/{name}", Scope::Write),
    route("DELETE", "/api/locks/{name}", Scope::Write),
    route("POST", "/api/sessions", Scope::Write),
    route("GET", "/api/sessions/{id}", Scope::Read),
    route("PUT", "/api/sessions/{id}", Scope::Write),
    route("DELETE", "/api/sessions/{id}", Scope::Write),
    route("POST", "/api/sessions/{id}/touch", Scope::Write),
    route("POST", "/api/ratelimits/{key}", Scope::Write),
    route("GET", "/api/health/redis", Scope::Public),
    route("GET", "/api/health/cache", Scope::Public),
    route("GET", "/api/debug/redis", Scope::Admin),
    route("GET", "/api/queues", Scope::Read),
    route("POST", "/api/queues/{queue}/pause", Scope::Write),
    route("POST", "/api/queues/{queue}/resume", Scope::Write),
    route("PUT", "/api/queues/{queue}/limits", Scope::Write),
    route("GET", "/api/queues/{queue}/dead", Scope::Read),
    route("GET", "/api/schedules", Scope::Read),
    route("POST", "/api/schedules", Scope::Write),
    route("GET", "/api/schedules/{name}", Scope::Read),
    route("PUT", "/api/schedules/{name}", Scope::Write),
    route("DELETE", "/api/schedules/{name}", Scope::Write),
    route("POST", "/api/schedules/{name}/pause", Scope::Write),
    route("POST", "/api/schedules/{name}/resume", Scope::Write),
    route("POST", "/api/schedules/{name}/run", Scope::Write),
    route("GET", "/api/schedules/{name}/next", Scope::Read),
    route("GET", "/api/schedules/{name}/history", Scope::Read),
    route("GET", "/api/workers", Scope::Read),
    route("GET", "/api/kinds", Scope::Read),
    route("GET", "/api/health", Scope::Public),
    route("GET", "/api/charts", Scope::Read),
    route("GET", "/api/charts/latest", Scope::Read),
    route("HEAD", "/api/charts/latest", Scope::Read),
    route("GET", "/api/charts/stats", Scope::Read),
    route("GET", "/api/charts/{id}", Scope::Read),
    route("HEAD", "/api/charts/{id}", Scope::Read),
    route("DELETE", "/api/charts/{id}", Scope::Write),
    route("GET", "/api/charts/{id}/thumb", Scope::Read),
    route("HEAD", "/api/charts/{id}/thumb", Scope::Read),
    route("DELETE", "/redis/images", Scope::Write),
    route("GET", "/redis/images/stats", Scope::Read),
    route("POST", "/redis/images/cleanup", Scope::Write),
    route("GET", "/redis/images/{symbol}", Scope::Read),
    route("DELETE", "/redis/images/{symbol}", Scope::Write),
    route("GET", "/charts/storage/stats", Scope::Read),
    route("POST", "/charts/cleanup", Scope::Write),
    route("DELETE", "/charts/{symbol}/{interval}", Scope::Write),
    route("GET", "/livez", Scope::Public),
    route("GET", "/readyz", Scope::Public),
    route("GET", "/metrics", Scope::Public),
    route("GET", "/docs/errors/{code}", Scope::Public),
];

/// The entry of a method on a path.
pub(crate) fn find(method: &str, path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.path == path && route.method == method)
}

/// The methods of a path, as an `Allow` header names them.
pub(crate) fn allowed(path: &str) -> String {
    ROUTES.iter().filter(|route| route.path == path).map(|route| route.method).collect::<Vec<_>>().join(", ")
}
