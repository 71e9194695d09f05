//! What the pages' forms do. Each answers with the page it came from.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use windlass_jobs::{JobId, Queue, Ulid};

use crate::problem::{Code, Problem};
use crate::{Shared, body, session};

/// The largest form: a page of chosen tasks, in bytes.
const FORM_BYTES: usize = 64 * 1024;

/// `POST /ui/tasks`: `verb` on every `id`, then to `back`.
pub(super) async fn tasks(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let form = read(&shared, &headers, body).await?;
    let one = |wanted: &str| form.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let wrong = |detail: &str| Problem::new(Code::BodyInvalid, detail);
    let mut ids = Vec::new();
    for (_, id) in form.iter().filter(|(name, _)| name == "id") {
        ids.push(id.parse::<JobId>().map_err(|_| wrong("an id is not one of a task"))?);
    }
    let mut queues: BTreeMap<&Queue, Vec<Ulid>> = BTreeMap::new();
    for id in &ids {
        queues.entry(&id.queue).or_default().push(id.ulid);
    }
    match one("verb") {
        Some("cancel") => {
            for id in &ids {
                shared.broker.cancel(id).await?;
            }
        }
        Some("retry") => {
            for (queue, ulids) in &queues {
                shared.broker.replay(queue, ulids).await?;
            }
        }
        Some("delete") => {
            for (queue, ulids) in &queues {
                shared.broker.delete(queue, ulids).await?;
            }
        }
        _ => return Err(wrong("verb is cancel, retry or delete")),
    }
    Ok(to(&shared, one("back").unwrap_or("/tasks")))
}

/// `POST /ui/queues/{queue}/{verb}`: `pause` or `resume`.
pub(super) async fn queue(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    read(&shared, &headers, body).await?;
    let nothing = || Problem::new(Code::NotFound, "there is no such queue or verb");
    let Path((queue, verb)) = path.map_err(|_| nothing())?;
    let queue: Queue = queue.parse().map_err(|_| nothing())?;
    let paused = match verb.as_str() {
        "pause" => true,
        "resume" => false,
        _ => return Err(nothing()),
    };
    shared.broker.pause(&queue, paused).await?;
    Ok(to(&shared, "/queues"))
}

/// `POST /ui/schedules/{name}/{verb}`: `pause`, `resume` or `run`, which leads to its task.
pub(super) async fn schedule(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    read(&shared, &headers, body).await?;
    let nothing = || Problem::new(Code::NotFound, "there is no such schedule or verb");
    let Path((name, verb)) = path.map_err(|_| nothing())?;
    match verb.as_str() {
        "pause" => shared.schedules.pause(&name, true).await?,
        "resume" => shared.schedules.pause(&name, false).await?,
        "run" => {
            let id = shared.schedules.run(&name).await?;
            return Ok(to(&shared, &format!("/tasks/{id}")));
        }
        _ => return Err(nothing()),
    };
    Ok(to(&shared, &format!("/schedules/{name}")))
}

/// A form of this very site: another one's is refused, whatever the browser would send along.
pub(super) async fn read(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<Vec<(String, String)>, Problem> {
    if !session::is_own_site(headers) {
        return Err(Problem::new(Code::OriginRefused, "another site may not change anything here"));
    }
    let form = headers.get(header::CONTENT_TYPE).is_some_and(|t| t == "application/x-www-form-urlencoded");
    if !form {
        return Err(Problem::new(Code::MediaTypeUnsupported, "a form of the dashboard is expected"));
    }
    let read = body::read(shared, headers, body, FORM_BYTES).await?;
    serde_urlencoded::from_bytes(&read.bytes).map_err(|_| Problem::new(Code::BodyInvalid, "the form cannot be read"))
}

/// Leads the browser to a page of ours, never elsewhere.
pub(super) fn to(shared: &Shared, path: &str) -> Response {
    let base = shared.options.base_path.as_str();
    let path = path.strip_prefix(base).unwrap_or(path);
    let ours = path.starts_with('/') && !path.starts_with("//") && !path.contains(['\\', '\r', '\n']);
    let place = format!("{base}{}", if ours { path } else { "/" });
    lead(&place)
}

/// Leads the browser elsewhere, by a plain GET.
pub(super) fn lead(place: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(place) = HeaderValue::from_str(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}
