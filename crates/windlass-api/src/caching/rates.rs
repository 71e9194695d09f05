//! `POST /api/ratelimits/{key}`: how often something may be done.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;
use windlass_store::{Quota, RateLimits};
use windlass_worker::schemars::JsonSchema;

use super::{Millis, path, read};
use crate::Shared;
use crate::auth::Caller;
use crate::problem::{Code, Problem};

/// The largest limit, burst and cost.
const MAX: u32 = 1_000_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Use {
    #[schemars(range(min = 1, max = 1_000_000))]
    limit: u32,
    #[schemars(with = "Option<u64>", range(min = 1, max = 2_592_000_000_u64))]
    period_ms: Option<Millis>,
    #[schemars(range(min = 1, max = 1_000_000))]
    burst: Option<u32>,
    #[serde(default = "one")]
    #[schemars(range(max = 1_000_000))]
    cost: u32,
    #[serde(default)]
    algorithm: Algorithm,
}

const fn one() -> u32 {
    1
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "windlass_worker::schemars")]
enum Algorithm {
    #[default]
    Gcra,
    FixedWindow,
}

/// With `{"limit", "period_ms" (60,000), "burst" (the limit), "cost" (1), "algorithm": "gcra" |
/// "fixed_window"}`: 200 `{"allowed", "remaining", "retry_after_ms", "reset_ms", "degraded"}`, and for a
/// fixed window the `count` so far. A cost of 0 asks without counting.
pub(crate) async fn check(
    State(shared): State<Shared>,
    caller: Caller,
    key: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = caller.own(path(key)?);
    let wanted: Use = read(&shared, &headers, body).await?;
    let bounds = [("limit", wanted.limit, 1), ("burst", wanted.burst.unwrap_or(1), 1), ("cost", wanted.cost, 0)];
    if let Some((name, found, least)) = bounds.into_iter().find(|(_, n, least)| n < least || *n > MAX) {
        return Err(Problem::new(Code::BodyInvalid, format!("{name}: {found}; {least} to {MAX} is allowed")));
    }
    if wanted.algorithm == Algorithm::FixedWindow && wanted.burst.is_some() {
        return Err(Problem::new(Code::BodyInvalid, "burst: a fixed window has none"));
    }
    let period = wanted.period_ms.map_or(RateLimits::WINDOW, |period| period.0);
    let limits = &shared.caching.rate_limits;
    let (decision, count, degraded) = match wanted.algorithm {
        Algorithm::Gcra => {
            let quota = Quota { limit: wanted.limit, period, burst: wanted.burst.unwrap_or(wanted.limit) };
            let answer = limits.check(&key, quota, wanted.cost).await?;
            (answer.value, None, answer.degraded)
        }
        Algorithm::FixedWindow => {
            let answer = limits.window(&key, wanted.limit, period, wanted.cost).await?;
            (answer.value.0, Some(answer.value.1), answer.degraded)
        }
    };
    let mut body = json!(decision);
    body["degraded"] = degraded.into();
    if let Some(count) = count {
        body["count"] = count.into();
    }
    Ok(axum::Json(body).into_response())
}
