//! Card sheets over HTTP: `POST /api/pdf/card-sheets` for people with curl, and in [`legacy`] the
//! routes of the card-sheet service that this one replaces.
//!
//! Uploads become blobs and jobs name them, so what is queued is small, and any server that shares
//! the stores can answer for a job.

mod form;
pub(crate) mod legacy;
mod upload;
mod zip;

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use windlass_jobs::{JobId, JobRecord, NewJob, Queue, State as JobState, Violation};
use windlass_store::Digest;

use crate::auth::Caller;
use crate::local::Place;
use crate::problem::{Code, Problem};
use crate::task::{self, Task};
use crate::{Shared, request};
use form::Deck;
use upload::Upload;

/// The longest a request waits for its job, unless it asks for less.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(300);
/// How often a job is looked at although nothing was said of it.
const UNASKED: Duration = Duration::from_secs(1);

/// A job's answer, once it has ended or the time is over.
pub(crate) enum Waited {
    /// It ended.
    Ended(Box<JobRecord>),
    /// It goes on.
    GoesOn,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SheetsQuery {
    /// Seconds to wait for the result, 0 to 300. Default 0: the job's address is answered at once.
    #[serde(default)]
    wait: u64,
}

/// `POST /api/pdf/card-sheets`: files `fronts` (in order), `back`, `double_sided` (own backs, by
/// the name of their front), and `args`: the members of `pdf.card_sheet`'s args as JSON.
pub(crate) async fn post(
    State(shared): State<Shared>,
    caller: Caller,
    query: Result<Query<SheetsQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let wrong = || Problem::new(Code::QueryInvalid, "only ?wait= is known here, 0 to 300 seconds");
    let Query(query) = query.map_err(|_| wrong())?;
    let wait = Duration::from_secs(query.wait);
    if wait > MAX_WAIT {
        return Err(wrong());
    }
    let place = Place::of(&shared).await;
    if wait.is_zero() {
        place.needs_queue()?;
    }
    let shared = &place.shared;
    let upload = upload::read(shared, request, &["fronts", "back", "double_sided"], &["args"]).await?;
    let args = own_args(upload)?;
    let id = enqueue(shared, &caller, "pdf.card_sheet", &args, &[]).await?;
    if wait.is_zero() {
        return Ok(accepted(&id));
    }
    match wait_for(shared, &id, wait).await? {
        Waited::Ended(record) => place.mark(finished(shared, &record, "cards").await),
        Waited::GoesOn => place.needs_queue().map(|()| accepted(&id)),
    }
}

/// The args of a job from an upload of our own form.
fn own_args(mut upload: Upload) -> Result<Value, Problem> {
    let text = upload.field("args").unwrap_or_else(|| "{}".to_owned());
    let document =
        crate::json::parse(text.as_bytes()).map_err(|e| Problem::new(Code::JsonInvalid, format!("args: {e}")))?;
    let Value::Object(mut args) = document else {
        return Err(Problem::new(Code::ArgsInvalid, "args is not an object"));
    };
    let given: Vec<&str> = ["cards", "back"].into_iter().filter(|name| args.contains_key(*name)).collect();
    if !given.is_empty() {
        let detail = format!("args: {} come from the uploaded files here", given.join(" and "));
        return Err(Problem::new(Code::ArgsInvalid, detail));
    }
    let deck = Deck::new(upload.files("fronts"), upload.files("back"), upload.files("double_sided"));
    let deck = deck.map_err(|detail| Problem::new(Code::ArgsInvalid, detail))?;
    deck.write(&mut args);
    Ok(Value::Object(args))
}

/// Checks args as `POST /api/tasks` does, and queues the job.
async fn enqueue(
    shared: &Shared,
    caller: &Caller,
    kind: &str,
    args: &Value,
    labels: &[(&str, &str)],
) -> Result<JobId, Problem> {
    let violations = shared.door.registry().check(kind, args).ok_or_else(|| unknown(kind))?;
    if !violations.is_empty() {
        return Err(refuse(violations));
    }
    let spec = shared.door.registry().spec(kind).ok_or_else(|| unknown(kind))?;
    let mut queue = Queue::new(spec.queue).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
    let mut job = NewJob::new(spec.name, args).map_err(|e| Problem::new(Code::JobInvalid, e.to_string()))?;
    job.options.labels.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    job.options.tenant = caller.tenant().map(str::to_owned);
    let refused = |wrong: Vec<windlass_producer::Refusal>| {
        let fault = |refusal: windlass_producer::Refusal| request::Fault { index: 0, violation: refusal.violation };
        request::refuse(wrong.into_iter().map(fault).collect(), false)
    };
    shared.producer.place(&mut [(&mut queue, &mut job)]).map_err(refused)?;
    let id = JobId::new(job.ulid, queue.clone());
    // Held from before the job is queued until it has ended.
    let inputs = shared.door.registry().inputs(kind, args).unwrap_or_default().blobs;
    let digests: Vec<Digest> = inputs.iter().filter_map(|name| name.parse().ok()).collect();
    if let Some(missing) = shared.services.artifacts.pin(&id.to_string(), &digests).await?.first() {
        return Err(Problem::new(Code::BlobMissing, format!("blob {missing} is not stored: upload it again")));
    }
    match shared.producer.enqueue_all(&queue, vec![job]).await {
        Ok(_) => Ok(id),
        Err(windlass_producer::Error::Broker(error)) => {
            Err(Problem::from(error).with("task_ids", vec![id.to_string()]))
        }
        Err(refused @ windlass_producer::Error::Refused(_)) => Err(Problem::new(Code::JobInvalid, refused.to_string())),
    }
}

fn unknown(kind: &str) -> Problem {
    Problem::new(Code::UnknownKind, format!("kind {kind} is not known here"))
}

fn refuse(violations: Vec<Violation>) -> Problem {
    let faults = violations
        .into_iter()
        .map(|v| request::Fault { index: 0, violation: Violation { path: format!("/args{}", v.path), ..v } });
    request::refuse(faults.collect(), false)
}

fn accepted(id: &JobId) -> Response {
    let url = format!("/api/tasks/{id}");
    let body = json!({ "task_id": id, "status": JobState::Pending, "status_url": url });
    let mut response = (StatusCode::ACCEPTED, axum::Json(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(&url) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Waits for a job's end. A queue that does not answer is asked again until the time is over.
async fn wait_for(shared: &Shared, id: &JobId, wait: Duration) -> Result<Waited, Problem> {
    let deadline = tokio::time::Instant::now() + wait;
    let mut signals = shared.broker.watch(id).await;
    loop {
        if let Ok(Some(record)) = shared.broker.get(id).await
            && record.state.is_terminal()
        {
            return Ok(Waited::Ended(Box::new(record)));
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return Ok(Waited::GoesOn),
            () = shared.shutdown.cancelled() => return Ok(Waited::GoesOn),
            word = tokio::time::timeout(UNASKED, signals.recv()) => {
                if word == Ok(None) {
                    tokio::time::sleep(UNASKED).await;
                }
            }
        }
        while signals.try_recv().is_ok() {}
    }
}

/// The files of a job that has ended: its PDF, or its only picture, or all as a zip.
async fn finished(shared: &Shared, record: &JobRecord, name: &str) -> Result<Response, Problem> {
    if record.state != JobState::Success {
        let task = serde_json::to_value(Task::of(record, shared.door.registry())).unwrap_or_default();
        let error = record.error.as_ref().map_or_else(|| record.state.to_string(), |error| error.message.clone());
        return Err(Problem::new(Code::TaskFailed, error).with("task", task));
    }
    let stored = task::stored_result(record);
    let mut files = Vec::new();
    for artifact in &stored.artifacts {
        let gone = || Problem::new(Code::ResultExpired, "the artifact is no longer kept; run the task again");
        let digest = artifact.blob.parse().map_err(|_| gone())?;
        let bytes = shared.services.artifacts.get(&digest).await?.ok_or_else(gone)?;
        files.push((artifact.name.clone(), artifact.media_type.clone(), bytes));
    }
    let (name, media_type, bytes) = match files.len() {
        1 => {
            let (file, media_type, bytes) = files.remove(0);
            let extension = file.rsplit_once('.').map_or("bin", |(_, extension)| extension);
            (format!("{name}.{extension}"), media_type, bytes)
        }
        _ => {
            let parts: Vec<(&str, &[u8])> =
                files.iter().map(|(file, _, bytes)| (file.as_str(), bytes.as_ref())).collect();
            let all = zip::stored(&parts).ok_or_else(|| {
                Problem::new(Code::ResultExpired, "the pages are too large for one answer; fetch them one by one")
            })?;
            (format!("{name}.zip"), "application/zip".to_owned(), all.into())
        }
    };
    let mut response = Response::new(axum::body::Body::from(bytes));
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_str(&media_type);
    headers.insert(header::CONTENT_TYPE, media_type.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", form::plain_name(&name))) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    for (header, text) in [("x-task-id", record.id.to_string()), ("x-cached", stored.cached.to_string())] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header, value);
        }
    }
    Ok(response)
}

/// Adds members to args.
fn extend(args: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        args.extend(more);
    }
}
