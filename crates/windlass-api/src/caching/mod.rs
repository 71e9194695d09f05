//! Cache, locks, sessions and rate limits for other services, over HTTP.
//!
//! Answers say `"degraded": true` when Redis is set and this process answered without it.

pub(crate) mod cache;
pub(crate) mod health;
pub(crate) mod locks;
pub(crate) mod rates;
pub(crate) mod sessions;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::HeaderMap;
use axum::routing::{delete, get, head, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use windlass_store::{BadName, BadValue, MAX_TTL};

use crate::problem::{Code, Problem};
use crate::{Shared, body, json as strict};

/// The routes of all four.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/cache", post(cache::batch).delete(cache::clear_user))
        .route("/api/cache/{namespace}", delete(cache::clear))
        .route("/api/cache/{namespace}/{key}", head(cache::head).get(cache::get).put(cache::put).delete(cache::delete))
        .route("/api/cache/{namespace}/{key}/increment", post(cache::increment))
        .route("/api/locks/{name}", post(locks::acquire).put(locks::renew).delete(locks::release))
        .route("/api/sessions", post(sessions::create))
        .route("/api/sessions/{id}", get(sessions::get).put(sessions::put).delete(sessions::delete))
        .route("/api/sessions/{id}/touch", post(sessions::touch))
        .route("/api/ratelimits/{key}", post(rates::check))
        .route("/api/health/redis", get(health::redis))
        .route("/api/health/cache", get(health::cache))
        .route("/api/debug/redis", get(health::debug))
}

/// A span in seconds, above 0 and at most 30 days; fractions of a ms are cut.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct Seconds(Duration);

impl TryFrom<f64> for Seconds {
    type Error = String;
    fn try_from(seconds: f64) -> Result<Self, String> {
        if seconds >= 0.001 && seconds <= MAX_TTL.as_secs_f64() {
            return Ok(Self(Duration::from_secs_f64(seconds)));
        }
        Err(format!("{seconds} s; 0.001 to {} is allowed", MAX_TTL.as_secs()))
    }
}

/// A span in ms, 1 to 30 days.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
struct Millis(Duration);

impl TryFrom<u64> for Millis {
    type Error = String;
    fn try_from(ms: u64) -> Result<Self, String> {
        let span = Duration::from_millis(ms);
        if ms >= 1 && span <= MAX_TTL {
            return Ok(Self(span));
        }
        Err(format!("{ms} ms; 1 to {} is allowed", MAX_TTL.as_millis()))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A JSON body as a type.
pub(crate) async fn read<T: DeserializeOwned>(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    body::check_json(headers)?;
    let body = body::read(shared, headers, body, shared.options.json_bytes).await?;
    let document = strict::parse(&body.bytes).map_err(|detail| Problem::new(Code::JsonInvalid, detail))?;
    of_json(document)
}

fn of_json<T: DeserializeOwned>(document: Value) -> Result<T, Problem> {
    // serde also reads a list as a type's members, one after the other.
    if !document.is_object() {
        return Err(Problem::new(Code::BodyInvalid, "an object is allowed"));
    }
    serde_json::from_value(document).map_err(|error| {
        let text: String = error.to_string().chars().take(300).collect();
        let code = if text.starts_with("unknown field") { Code::UnknownField } else { Code::BodyInvalid };
        Problem::new(code, text)
    })
}

fn path<T>(path: Result<axum::extract::Path<T>, PathRejection>) -> Result<T, Problem> {
    path.map(|axum::extract::Path(names)| names)
        .map_err(|_| Problem::new(Code::NameInvalid, "the path holds a name that is no text"))
}

pub(crate) fn query<T>(query: Result<Query<T>, QueryRejection>, known: &str) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|_| Problem::new(Code::QueryInvalid, format!("only {known} is known here")))
}

impl From<BadName> for Problem {
    fn from(bad: BadName) -> Self {
        Self::new(Code::NameInvalid, bad.to_string())
    }
}

impl From<BadValue> for Problem {
    fn from(bad: BadValue) -> Self {
        let code = match bad {
            BadValue::TooLarge(_) => Code::BodyTooLarge,
            BadValue::NotANumber => Code::NotANumber,
            BadValue::NotJson(_) => Code::BodyInvalid,
        };
        Self::new(code, bad.to_string())
    }
}
