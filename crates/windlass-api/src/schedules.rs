//! Schedules over HTTP: list, create, change, pause, resume, run now, delete, next firings,
//! history.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_jobs::{Queue, Timestamp, Violation};
use windlass_scheduler::{Definition, Error, Kinds};
use windlass_worker::Registry;

use crate::auth::Caller;
use crate::paging::{Listing, MAX_PAGE, PAGE, PageQuery, asked, page};
use crate::problem::{Code, Problem, chain};
use crate::{Shared, body, json as strict};

/// The largest definition, in bytes: args of 64 KiB, written generously.
const BODY_BYTES: usize = 256 * 1024;
/// Most firings of one answer.
const MAX_LISTED: usize = 100;
/// Firings answered when no number is asked for.
const FIRINGS: usize = 10;

/// A registry as the scheduler asks it: the same checks as at the door of `/api/tasks`.
#[derive(Debug, Clone)]
pub struct RegistryKinds(pub Registry);

impl Kinds for RegistryKinds {
    fn queue(&self, kind: &str) -> Option<Queue> {
        Queue::new(self.0.spec(kind)?.queue).ok()
    }

    fn check(&self, kind: &str, args: &Value) -> Vec<Violation> {
        self.0.check(kind, args).unwrap_or_default()
    }

    fn names(&self) -> Vec<String> {
        self.0.specs().map(|spec| spec.name.to_owned()).collect()
    }
}

/// `GET /api/schedules`: `{"schedules", "next"}`, by name.
pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let listing = Listing { path: "/api/schedules", filter: "", caller: &caller };
    let signer = shared.ring.signer();
    let (after, limit) = asked(query)?.read(signer, &listing, MAX_PAGE)?;
    let all = shared.schedules.all().await?;
    let (all, end) = page(all, |view| &view.kept.definition.name, after.as_deref(), limit);
    let schedules: Vec<Value> = all.iter().map(windlass_scheduler::View::to_json).collect();
    let next = end.map(|end| listing.seal(signer, &end));
    Ok(axum::Json(json!({ "schedules": schedules, "next": next })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateQuery {
    /// Answers the next firings, and keeps nothing.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /api/schedules`: 201 with the schedule; with `?dry_run=true` 200 with its next firings.
pub(crate) async fn create(
    State(shared): State<Shared>,
    query: Result<Query<CreateQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|e| Problem::new(Code::QueryInvalid, e.body_text()))?;
    let definition = read(&shared, &headers, body, None).await?;
    if query.dry_run {
        let firings = shared.schedules.preview(&definition, FIRINGS).await?;
        return Ok(axum::Json(json!({ "name": definition.name, "next": shown(&firings) })).into_response());
    }
    let view = shared.schedules.create(definition).await?;
    let location = HeaderValue::from_str(&format!("/api/schedules/{}", view.kept.definition.name));
    let mut response = (StatusCode::CREATED, axum::Json(view.to_json())).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET /api/schedules/{name}`.
pub(crate) async fn show(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let view = shared.schedules.get(&name_of(name)?).await?;
    Ok(axum::Json(view.to_json()).into_response())
}

/// `PUT /api/schedules/{name}`: replaces the definition; what is absent is at its default.
pub(crate) async fn change(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let definition = read(&shared, &headers, body, Some(name_of(name)?)).await?;
    let view = shared.schedules.change(definition).await?;
    Ok(axum::Json(view.to_json()).into_response())
}

/// `DELETE /api/schedules/{name}`.
pub(crate) async fn remove(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let name = name_of(name)?;
    shared.schedules.remove(&name).await?;
    Ok(axum::Json(json!({ "success": true, "name": name })).into_response())
}

/// `POST /api/schedules/{name}/pause`.
pub(crate) async fn pause(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let view = shared.schedules.pause(&name_of(name)?, true).await?;
    Ok(axum::Json(view.to_json()).into_response())
}

/// `POST /api/schedules/{name}/resume`: goes on from now; ticks of the rest are not missed.
pub(crate) async fn resume(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let view = shared.schedules.pause(&name_of(name)?, false).await?;
    Ok(axum::Json(view.to_json()).into_response())
}

/// `POST /api/schedules/{name}/run`: enqueues its job now; 202 with the task's id.
pub(crate) async fn run(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = shared.schedules.run(&name_of(name)?).await?;
    let body = json!({ "task_id": id, "status_url": format!("/api/tasks/{id}") });
    Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NextQuery {
    count: Option<usize>,
}

/// `GET /api/schedules/{name}/next?count=10`: the next firings, at most 100.
pub(crate) async fn next(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<NextQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|e| Problem::new(Code::QueryInvalid, e.body_text()))?;
    let (name, count) = (name_of(name)?, listed(query.count, FIRINGS)?);
    let firings = shared.schedules.next(&name, count).await?;
    Ok(axum::Json(json!({ "name": name, "next": shown(&firings) })).into_response())
}

/// `GET /api/schedules/{name}/history`: `{"name", "history", "next"}`, its ledger, newest first.
pub(crate) async fn history(
    State(shared): State<Shared>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let name = name_of(name)?;
    let listing = Listing { path: "/api/schedules/{name}/history", filter: &name, caller: &caller };
    let signer = shared.ring.signer();
    let (from, limit) = asked(query)?.read(signer, &listing, PAGE)?;
    let from = from.and_then(|from| from.parse().ok()).unwrap_or(0);
    let entries = shared.schedules.history(&name, from, limit).await?;
    let next = (entries.len() == limit).then(|| listing.seal(signer, &(from + limit).to_string()));
    let history: Vec<Value> = entries.iter().map(windlass_scheduler::Entry::to_json).collect();
    Ok(axum::Json(json!({ "name": name, "history": history, "next": next })).into_response())
}

fn listed(asked: Option<usize>, default: usize) -> Result<usize, Problem> {
    let count = asked.unwrap_or(default);
    if (1..=MAX_LISTED).contains(&count) {
        return Ok(count);
    }
    Err(Problem::new(Code::QueryInvalid, format!("{count}; 1 to {MAX_LISTED} is allowed")))
}

fn shown(firings: &[(Timestamp, Timestamp)]) -> Vec<Value> {
    firings.iter().map(|(tick, due)| json!({ "planned_at": tick, "fires_at": due })).collect()
}

fn name_of(name: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let missing = || Problem::new(Code::ScheduleNotFound, "there is no schedule of this name");
    name.map(|Path(name)| name).map_err(|_| missing())
}

/// Reads a definition. `name`: that of the path, which the body may repeat.
async fn read(shared: &Shared, headers: &HeaderMap, body: Body, name: Option<String>) -> Result<Definition, Problem> {
    body::check_json(headers)?;
    let body = body::read(shared, headers, body, BODY_BYTES).await?;
    let mut document = strict::parse(&body.bytes).map_err(|detail| Problem::new(Code::JsonInvalid, detail))?;
    let Some(members) = document.as_object_mut() else {
        return Err(refuse(vec![Violation::new("", "wrong_type", "a schedule is an object")]));
    };
    // Null means absent, but for args.
    members.retain(|name, value| name == "args" || !value.is_null());
    if let Some(name) = name {
        let repeated = members.insert("name".to_owned(), name.clone().into());
        if repeated.is_some_and(|repeated| repeated != Value::String(name)) {
            return Err(refuse(vec![Violation::new("/name", "conflict", "the path names another schedule")]));
        }
    }
    // serde also reads a list as a type's members, one after the other.
    let listed =
        ["backoff", "missed", "labels"].into_iter().find(|name| document.get(name).is_some_and(Value::is_array));
    if let Some(name) = listed {
        return Err(refuse(vec![Violation::new(format!("/{name}"), "wrong_type", "an object is allowed")]));
    }
    Definition::deserialize(&document)
        .map_err(|e| refuse(vec![Violation::new("", "schedule_invalid", cut(e.to_string()))]))
}

fn refuse(violations: Vec<Violation>) -> Problem {
    let more = if violations.len() > 1 { format!(" (and {} more)", violations.len() - 1) } else { String::new() };
    let summary = violations.first().map_or_else(String::new, |v| format!("{}: {}", v.path, v.message));
    let listed: Vec<Value> =
        violations.into_iter().map(|v| json!({ "path": v.path, "code": v.code, "message": cut(v.message) })).collect();
    let total = listed.len();
    Problem::new(Code::ScheduleInvalid, cut(summary) + &more).with("violations", listed).with("violations_total", total)
}

/// A message may repeat what the caller sent.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(300));
    text
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(violations) => refuse(violations),
            Error::Exists(_) => Self::new(Code::ScheduleExists, error.to_string()),
            Error::NotFound(_) => Self::new(Code::ScheduleNotFound, "there is no schedule of this name"),
            Error::Managed { .. } => Self::new(Code::ScheduleManaged, error.to_string()),
            Error::TooMany => Self::new(Code::TooManySchedules, error.to_string()),
            Error::Busy => Self::new(Code::StoreUnavailable, error.to_string()).retry_after(1),
            Error::Enqueue(windlass_producer::Error::Broker(e)) => e.into(),
            Error::Store(_) | Error::Enqueue(_) => {
                tracing::warn!(error = %chain(&error), "the store of schedules failed");
                let detail = "the store of schedules does not answer at the moment";
                Self::new(Code::StoreUnavailable, detail).retry_after(1)
            }
        }
    }
}
