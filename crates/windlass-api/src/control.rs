//! What callers do to jobs and queues: cancel, retry, pause, bound.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_jobs::command::Cancel;
use windlass_jobs::{JobId, JobRecord, Limits, Queue, State as JobState};

use crate::auth::Caller;
use crate::paging::{Listing, PAGE, PageQuery, asked};
use crate::problem::{Code, Problem};
use crate::task::{self, Task};
use crate::{Shared, body, json as strict, sheets};

/// The largest body that sets limits: 1,000 keys of each sort with the longest names.
const LIMITS_BYTES: usize = 512 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelQuery {
    /// Every job it is tied to, too.
    #[serde(default)]
    tree: bool,
}

/// `DELETE /api/tasks/{id}`: cancels a job. 200 when it was waiting, 202 when it is running and
/// its worker is told to stop. `?tree=true`: with every job it is tied to.
pub(crate) async fn cancel(
    State(shared): State<Shared>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<CancelQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| Problem::new(Code::QueryInvalid, "only ?tree=true is known here"))?;
    let record = task::find(&shared, &caller, id).await?;
    if query.tree {
        return cancel_tree(&shared, &caller, &record.id).await;
    }
    let answer = |status, word: &str| {
        let body = json!({ "success": true, "message": word, "task_id": record.id });
        (status, axum::Json(body)).into_response()
    };
    match shared.broker.cancel(&record.id).await? {
        Cancel::Done => Ok(answer(StatusCode::OK, "Task cancelled successfully")),
        Cancel::Requested => Ok(answer(StatusCode::ACCEPTED, "Task is running; its worker is told to stop")),
        Cancel::Ended(state) => {
            let problem = Problem::new(Code::TaskCancelFailed, format!("the task has ended: {state}"));
            Err(sheets::legacy::about(&record, problem.with("status_word", state.as_str())))
        }
        Cancel::Unknown => {
            Err(Problem::new(Code::TaskNotFound, "there is no task of this id, or it is past retention"))
        }
    }
}

/// What became of each job of a tree, the named one first: 200, whatever that is.
async fn cancel_tree(shared: &Shared, caller: &Caller, id: &JobId) -> Result<Response, Problem> {
    let is_own = |record: &JobRecord| caller.sees(record.options.tenant.as_deref());
    let jobs = windlass_broker::flow::cancel_tree(shared.broker.as_ref(), id, is_own).await?;
    let told = jobs.iter().filter(|(_, cancel)| matches!(cancel, Cancel::Done | Cancel::Requested)).count();
    let task = |(id, cancel): &(JobId, Cancel)| {
        let outcome = match cancel {
            Cancel::Done => "cancelled",
            Cancel::Requested => "running",
            Cancel::Ended(state) => state.as_str(),
            Cancel::Unknown => "unknown",
        };
        json!({ "task_id": id, "outcome": outcome })
    };
    let tasks: Vec<Value> = jobs.iter().map(task).collect();
    let message = format!("{told} of {} tasks are cancelled or told to stop", tasks.len());
    let body = json!({ "success": true, "message": message, "task_id": id, "tasks": tasks });
    Ok(axum::Json(body).into_response())
}

/// `POST /api/tasks/{id}/retry`: lets a failed job start anew, with all its attempts.
pub(crate) async fn retry(
    State(shared): State<Shared>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let record = task::find(&shared, &caller, id).await?;
    let id = &record.id;
    if shared.broker.replay(&id.queue, &[id.ulid]).await? != [true] {
        return Err(Problem::new(
            Code::TaskNotFailed,
            format!("the task is {}; only a failed one is retried", record.state),
        ));
    }
    let body = json!({ "task_id": id, "status": JobState::Pending, "status_url": format!("/api/tasks/{id}") });
    Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
}

/// `POST /api/queues/{queue}/pause`: nothing of the queue is claimed any more.
pub(crate) async fn pause(
    State(shared): State<Shared>,
    queue: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    set_paused(&shared, queue, true).await
}

/// `POST /api/queues/{queue}/resume`.
pub(crate) async fn resume(
    State(shared): State<Shared>,
    queue: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    set_paused(&shared, queue, false).await
}

async fn set_paused(
    shared: &Shared,
    queue: Result<Path<String>, PathRejection>,
    paused: bool,
) -> Result<Response, Problem> {
    let queue = queue_of(queue)?;
    shared.broker.pause(&queue, paused).await?;
    Ok(axum::Json(json!({ "queue": queue, "paused": paused })).into_response())
}

/// `PUT /api/queues/{queue}/limits` with `{"max_waiting": n or null}`, or with `{"limits": …}`, all
/// of [`Limits`] anew.
pub(crate) async fn limits(
    State(shared): State<Shared>,
    queue: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let queue = queue_of(queue)?;
    body::check_json(&headers)?;
    let body = body::read(&shared, &headers, body, LIMITS_BYTES).await?;
    let document = strict::parse(&body.bytes).map_err(|detail| Problem::new(Code::JsonInvalid, detail))?;
    if let Some(limits) = document.get("limits") {
        return set_limits(&shared, &queue, limits).await;
    }
    let max = match document.as_object().map(|object| (object.len(), object.get("max_waiting"))) {
        Some((1, Some(Value::Null))) => None,
        Some((1, Some(value))) if value.as_u64().is_some() => value.as_u64(),
        _ => return Err(Problem::new(Code::JobInvalid, "the body is {\"max_waiting\": n}, n a number from 0 or null")),
    };
    shared.broker.set_max_waiting(&queue, max).await?;
    Ok(axum::Json(json!({ "queue": queue, "max_waiting": max })).into_response())
}

async fn set_limits(shared: &Shared, queue: &Queue, limits: &Value) -> Result<Response, Problem> {
    if !limits.is_object() {
        return Err(Problem::new(Code::JobInvalid, "/limits: an object is allowed"));
    }
    let limits = Limits::deserialize(limits).map_err(|e| Problem::new(Code::JobInvalid, format!("/limits: {e}")))?;
    if let Some(wrong) = limits.check().first() {
        return Err(Problem::new(Code::JobInvalid, format!("/limits{}: {}", wrong.path, wrong.message)));
    }
    shared.broker.set_limits(queue, &limits).await?;
    Ok(axum::Json(json!({ "queue": queue, "limits": limits })).into_response())
}

/// `GET /api/queues/{queue}/dead`: failed jobs, newest first, by page.
pub(crate) async fn dead(
    State(shared): State<Shared>,
    caller: Caller,
    queue: Result<Path<String>, PathRejection>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let queue = queue_of(queue)?;
    let listing = Listing { path: "/api/queues/{queue}/dead", filter: queue.as_str(), caller: &caller };
    let signer = shared.ring.signer();
    let (cursor, limit) = asked(query)?.read(signer, &listing, PAGE)?;
    let cursor = cursor.and_then(|at| at.parse().ok()).unwrap_or(0);
    let page = shared.broker.list(&queue, JobState::Failure, cursor, limit).await?;
    let records = task::records(&shared, &queue, &page.ids).await?;
    let seen = records.iter().filter(|record| caller.sees(record.options.tenant.as_deref()));
    let tasks: Vec<Task<'_>> = seen.map(|record| Task::of(record, shared.door.registry())).collect();
    let next = page.next.map(|next| listing.seal(signer, &next.to_string()));
    Ok(axum::Json(json!({ "tasks": tasks, "next": next })).into_response())
}

fn queue_of(queue: Result<Path<String>, PathRejection>) -> Result<Queue, Problem> {
    let unknown = || Problem::new(Code::NotFound, "a queue's name is 1 to 64 of a-z 0-9 _ -");
    let Path(name) = queue.map_err(|_| unknown())?;
    name.parse().map_err(|_| unknown())
}
