//! `/api/locks/{name}`: who may do something alone.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;
use windlass_store::{Grant, LockError, Locks, WhenAway};
use windlass_worker::schemars::JsonSchema;

use super::{Millis, path, query, read};
use crate::Shared;
use crate::auth::Caller;
use crate::problem::{Code, Problem};

/// The longest a request waits for a lock.
const MAX_WAIT_MS: u64 = 30_000;

type Name = Result<Path<String>, PathRejection>;

impl From<LockError> for Problem {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Name(bad) => bad.into(),
            LockError::Away => Self::new(Code::StoreUnavailable, error.to_string()).retry_after(5),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Acquire {
    #[schemars(with = "Option<u64>", range(min = 1, max = 2_592_000_000_u64))]
    ttl_ms: Option<Millis>,
    #[serde(default)]
    #[schemars(range(max = 30_000))]
    wait_ms: u64,
    /// What it is worth while Redis is away: `refuse` (503, the default) or `local`.
    #[serde(default)]
    when_away: Away,
}

#[derive(Deserialize, Default, Clone, Copy, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "windlass_worker::schemars")]
enum Away {
    #[default]
    Refuse,
    Local,
}

/// `POST` with `{"ttl_ms", "wait_ms", "when_away"}`, all optional: 201 `{"name", "token", "fence",
/// "ttl_ms", "degraded"}`, or 409 `lock_held`.
pub(crate) async fn acquire(
    State(shared): State<Shared>,
    caller: Caller,
    name: Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let shown = path(name)?;
    let name = caller.own(shown.clone());
    let Acquire { ttl_ms, wait_ms, when_away } = read(&shared, &headers, body).await?;
    if wait_ms > MAX_WAIT_MS {
        let detail = format!("wait_ms: {wait_ms}; 0 to {MAX_WAIT_MS} is allowed");
        return Err(Problem::new(Code::BodyInvalid, detail));
    }
    let ttl = ttl_ms.map_or(Locks::TTL, |ttl| ttl.0);
    let when_away = match when_away {
        Away::Refuse => WhenAway::Refuse,
        Away::Local => WhenAway::Local,
    };
    let wait = Duration::from_millis(wait_ms);
    match shared.caching.locks.acquire(&name, ttl, wait, when_away).await? {
        Some(grant) => Ok((StatusCode::CREATED, axum::Json(Grant { name: shown, ..grant })).into_response()),
        None => Err(Problem::new(Code::LockHeld, "somebody else holds the lock").retry_after(1)),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Renew {
    token: String,
    #[schemars(with = "Option<u64>", range(min = 1, max = 2_592_000_000_u64))]
    ttl_ms: Option<Millis>,
}

fn lost() -> Problem {
    Problem::new(Code::LockLost, "the token does not hold the lock any more: somebody else may")
}

/// `PUT` with `{"token", "ttl_ms"}`: holds it for that long from now, or 409 `lock_lost`.
pub(crate) async fn renew(
    State(shared): State<Shared>,
    caller: Caller,
    name: Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let name = caller.own(path(name)?);
    let Renew { token, ttl_ms } = read(&shared, &headers, body).await?;
    let ttl = ttl_ms.map_or(Locks::TTL, |ttl| ttl.0);
    if shared.caching.locks.renew(&name, &token, ttl).await? {
        return Ok(axum::Json(json!({ "renewed": true })).into_response());
    }
    Err(lost())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Release {
    token: String,
}

/// `DELETE …?token=`: lets go, or 409 `lock_lost`.
pub(crate) async fn release(
    State(shared): State<Shared>,
    caller: Caller,
    name: Name,
    token: Result<Query<Release>, QueryRejection>,
) -> Result<Response, Problem> {
    let (name, Release { token }) = (caller.own(path(name)?), query(token, "?token=")?);
    if shared.caching.locks.release(&name, &token).await? {
        return Ok(axum::Json(json!({ "released": true })).into_response());
    }
    Err(lost())
}
