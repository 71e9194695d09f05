//! What this process logs, seen and changed while it runs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use windlass_worker::schemars::JsonSchema;

use crate::problem::{Code, Problem};
use crate::{Shared, caching};

/// What a process logs, as a filter such as `info,windlass_worker=debug`.
pub trait LogFilter: Send + Sync {
    /// The filter in force.
    fn get(&self) -> String;

    /// Another one from now on.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    fn set(&self, filter: &str) -> Result<(), String>;
}

/// `GET /api/log`: `{"filter": "info"}`, of the process that answers.
pub(crate) async fn show(State(shared): State<Shared>) -> Result<Response, Problem> {
    Ok(answer(of(&shared)?.as_ref()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Change {
    /// A level, or levels by module: `info,windlass_worker=debug`.
    #[schemars(length(min = 1, max = 1024))]
    filter: String,
}

/// `PUT /api/log` with `{"filter": "info,windlass_worker=debug"}`: from now on, until the process ends or reads
/// its settings again (SIGHUP).
pub(crate) async fn change(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let Change { filter } = caching::read(&shared, &headers, body).await?;
    let log = of(&shared)?;
    log.set(&filter).map_err(|why| Problem::new(Code::BodyInvalid, why))?;
    Ok(answer(log.as_ref()))
}

fn of(shared: &Shared) -> Result<&Arc<dyn LogFilter>, Problem> {
    let none = || Problem::new(Code::NotFound, "the log of this process cannot be changed");
    shared.log.as_ref().ok_or_else(none)
}

fn answer(log: &dyn LogFilter) -> Response {
    axum::Json(json!({ "filter": log.get() })).into_response()
}
