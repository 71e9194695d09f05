//! `/api/sessions`: who is logged in to somebody's application.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_store::{SessionError, Sessions};
use windlass_worker::schemars::JsonSchema;

use super::{Seconds, millis, path, read};
use crate::Shared;
use crate::auth::Caller;
use crate::problem::{Code, Problem};

type Id = Result<Path<String>, PathRejection>;

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Name(bad) => bad.into(),
            SessionError::Data(bad) => bad.into(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Put {
    data: Value,
    #[schemars(with = "Option<f64>", range(min = 0.001, max = 2_592_000))]
    ttl_seconds: Option<Seconds>,
}

fn not_there() -> Problem {
    Problem::new(Code::SessionNotFound, "there is no such session, or its time is over")
}

/// `POST` with `{"data", "ttl_seconds"}`: 201 `{"session_id", "degraded"}`.
pub(crate) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Put { data, ttl_seconds } = read(&shared, &headers, body).await?;
    let ttl = ttl_seconds.map_or(Sessions::TTL, |ttl| ttl.0);
    let id = Sessions::new_id();
    let made = shared.caching.sessions.put(&caller.own(id.clone()), &data, ttl).await?;
    let body = json!({ "session_id": id, "degraded": made.degraded });
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/sessions/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `{"data", "ttl_ms", "degraded"}`.
pub(crate) async fn get(State(shared): State<Shared>, caller: Caller, id: Id) -> Result<Response, Problem> {
    let found = shared.caching.sessions.get(&caller.own(path(id)?)).await?;
    let session = found.value.ok_or_else(not_there)?;
    let body = json!({ "data": session.data, "ttl_ms": millis(session.ttl), "degraded": found.degraded });
    Ok(axum::Json(body).into_response())
}

/// `PUT` with `{"data", "ttl_seconds"}`: keeps it, whether it was there or not.
pub(crate) async fn put(
    State(shared): State<Shared>,
    caller: Caller,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = caller.own(path(id)?);
    let Put { data, ttl_seconds } = read(&shared, &headers, body).await?;
    let ttl = ttl_seconds.map_or(Sessions::TTL, |ttl| ttl.0);
    let kept = shared.caching.sessions.put(&id, &data, ttl).await?;
    Ok(axum::Json(json!({ "success": true, "degraded": kept.degraded })).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Touch {
    #[schemars(with = "Option<f64>", range(min = 0.001, max = 2_592_000))]
    ttl_seconds: Option<Seconds>,
}

/// `POST …/touch` with `{"ttl_seconds"}`: lasts for that long from now.
pub(crate) async fn touch(
    State(shared): State<Shared>,
    caller: Caller,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = caller.own(path(id)?);
    let Touch { ttl_seconds } = read(&shared, &headers, body).await?;
    let touched = shared.caching.sessions.touch(&id, ttl_seconds.map_or(Sessions::TTL, |ttl| ttl.0)).await?;
    if touched.value {
        return Ok(axum::Json(json!({ "success": true, "degraded": touched.degraded })).into_response());
    }
    Err(not_there())
}

pub(crate) async fn delete(State(shared): State<Shared>, caller: Caller, id: Id) -> Result<Response, Problem> {
    let gone = shared.caching.sessions.delete(&caller.own(path(id)?)).await?;
    Ok(axum::Json(json!({ "deleted": gone.value, "degraded": gone.degraded })).into_response())
}
