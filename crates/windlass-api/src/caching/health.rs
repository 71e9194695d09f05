//! `/api/health/redis`, `/api/health/cache` and `/api/debug/redis`: the bodies of the replaced
//! services (`compat.md` §2, §3), with ours beside them.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use windlass_jobs::Timestamp;

use crate::Shared;

/// `INFO` of the cache's Redis, by name.
type Info = BTreeMap<String, String>;

/// `YYYY-MM-DDTHH:MM:SS` in UTC, without a zone, as the replaced service wrote it.
fn timestamp() -> String {
    Timestamp::now().to_string().chars().take(19).collect()
}

fn number(info: &Info, name: &str) -> u64 {
    info.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn text(info: &Info, name: &str) -> String {
    info.get(name).cloned().unwrap_or_default()
}

/// One connection serves all callers at once, so that is what there is of a pool.
fn pool(connected: bool) -> Value {
    let n = u8::from(connected);
    json!({ "max_connections": 1, "created_connections": n, "available_connections": n })
}

/// `GET /api/health/redis`: 200 `healthy`, 503 `unhealthy`; without a Redis 200 `not_configured`.
pub(crate) async fn redis(State(shared): State<Shared>) -> Response {
    let (status, mut body) = match shared.caching.info().await {
        None => (StatusCode::OK, json!({ "status": "not_configured", "connected": false })),
        Some(Err(error)) => {
            let body = json!({ "status": "unhealthy", "connected": false, "error": error });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
        Some(Ok(info)) => (StatusCode::OK, healthy(&info)),
    };
    body["timestamp"] = timestamp().into();
    (status, axum::Json(body)).into_response()
}

fn healthy(info: &Info) -> Value {
    json!({
        "status": "healthy",
        "connected": true,
        "info": {
            "server": {
                "version": text(info, "redis_version"),
                "mode": text(info, "redis_mode"),
                "uptime": number(info, "uptime_in_seconds"),
            },
            "clients": {
                "connected": number(info, "connected_clients"),
                "blocked": number(info, "blocked_clients"),
            },
            "pool": pool(true),
        },
    })
}

/// `GET /api/health/cache`: always 200; `status` is `degraded` while this process answers
/// without its Redis, and the figures are then this process' own.
pub(crate) async fn cache(State(shared): State<Shared>) -> Response {
    let counts = shared.caching.cache.counts().await;
    let info = shared.caching.info().await;
    let memory = match &info {
        Some(Ok(info)) => {
            let human = text(info, "used_memory_human");
            memory(number(info, "used_memory"), human, number(info, "maxmemory"))
        }
        _ => {
            let bytes = counts.value.memory_bytes as u64;
            memory(bytes, human(bytes), shared.caching.memory_bytes() as u64)
        }
    };
    let degraded = counts.degraded || matches!(info, Some(Err(_)));
    let total: u64 = counts.value.by_namespace.values().sum();
    let body = json!({
        "memory": memory,
        "keys": { "total": total, "by_namespace": counts.value.by_namespace },
        "timestamp": timestamp(),
        "status": if degraded { "degraded" } else { "healthy" },
        "hits": counts.value.hits,
        "misses": counts.value.misses,
        "breaker": counts.value.breaker,
    });
    axum::Json(body).into_response()
}

fn memory(used: u64, human: String, max: u64) -> Value {
    let mib = |bytes: u64| format!("{}MB", bytes / (1024 * 1024));
    json!({ "used_memory": mib(used), "used_memory_human": human, "maxmemory": mib(max) })
}

/// As Redis writes it: `5.20M`.
#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn human(bytes: u64) -> String {
    let n = bytes as f64;
    match bytes {
        0..1_024 => format!("{bytes}B"),
        1_024..1_048_576 => format!("{:.2}K", n / 1_024.0),
        _ => format!("{:.2}M", n / 1_048_576.0),
    }
}

/// `GET /api/debug/redis`: 200 with counters of the server; `"connected": false` and zeros when it is
/// away or not set.
pub(crate) async fn debug(State(shared): State<Shared>) -> Response {
    let (info, error) = match shared.caching.info().await {
        Some(Ok(info)) => (Some(info), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let connected = info.is_some();
    let info = info.unwrap_or_default();
    let mut body = json!({ "connected": connected, "error": error });
    let names = [
        "connected_clients",
        "used_memory",
        "keyspace_hits",
        "keyspace_misses",
        "instantaneous_ops_per_sec",
        "evicted_keys",
        "expired_keys",
        "rejected_connections",
        "total_commands_processed",
        "uptime_in_seconds",
    ];
    for name in names {
        body[name] = number(&info, name).into();
    }
    let text_or_null = |name: &str| info.get(name).map_or(Value::Null, |text| text.as_str().into());
    body["maxmemory_policy"] = text_or_null("maxmemory_policy");
    body["redis_version"] = text_or_null("redis_version");
    axum::Json(body).into_response()
}
