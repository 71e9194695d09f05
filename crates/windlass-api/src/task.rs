//! `GET /api/tasks/{id}`: a job as its readers see it.

use std::collections::BTreeMap;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use windlass_jobs::attempts::Attempt;
use windlass_jobs::{JobId, JobRecord, Priority, Queue, Reason, RunError, State as JobState, Timestamp, Ulid};
use windlass_worker::{Registry, StoredResult};

use crate::auth::Caller;
use crate::problem::{Code, Problem};
use crate::{Shared, sheets};

/// A job as its readers see it; the members of the replaced systems keep their names.
#[derive(Serialize)]
pub(crate) struct Task<'a> {
    task_id: &'a JobId,
    kind: &'a str,
    queue: &'a str,
    status: JobState,
    /// 0–100; 100 on success.
    progress: f32,
    message: Option<&'a str>,
    attempt: u32,
    max_attempts: u32,
    priority: Priority,
    created_at: Timestamp,
    run_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    worker: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ResultView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RunError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "is_false")]
    skipped: bool,
    #[serde(skip_serializing_if = "is_false")]
    cached: bool,
    #[serde(skip_serializing_if = "is_false")]
    cancel_requested: bool,
    /// Who ran it, from when to when, and how each run ended, the first one first.
    attempts: Vec<Attempt>,
    /// The jobs it depends on.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    parents: &'a [JobId],
    /// The jobs that are known to depend on it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    children: &'a [JobId],
    /// How many of its parents have not ended, while it waits for them.
    #[serde(skip_serializing_if = "is_zero")]
    waits_for: u32,
    /// By which its trace is looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

#[derive(Serialize)]
struct ResultView {
    value: Value,
    artifacts: Vec<ArtifactView>,
}

#[derive(Serialize)]
struct ArtifactView {
    name: String,
    media_type: String,
    bytes: u64,
    /// Names it as an input of another job.
    blob: String,
    url: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl<'a> Task<'a> {
    /// The view of a record. `registry` knows how many runs a job has that did not say so.
    pub(crate) fn of(record: &'a JobRecord, registry: &Registry) -> Self {
        let stored = (record.state == JobState::Success).then(|| stored_result(record));
        let of_kind = || registry.spec(&record.kind).map(|spec| spec.max_attempts);
        let progress = record.progress.as_ref();
        Self {
            task_id: &record.id,
            kind: &record.kind,
            queue: record.id.queue.as_str(),
            status: record.state,
            progress: match record.state {
                JobState::Success => 100.0,
                _ => progress.map_or(0.0, |progress| progress.percent),
            },
            message: progress.map(|progress| progress.message.as_str()).filter(|message| !message.is_empty()),
            attempt: record.attempt(),
            max_attempts: record.options.max_attempts.or_else(of_kind).unwrap_or(record.max_attempts),
            priority: record.options.priority,
            created_at: record.created_at,
            run_at: record.run_at,
            expires_at: record.expires_at,
            cancel_requested: record.cancel_requested,
            started_at: record.started_at,
            completed_at: record.finished_at,
            worker: record.worker.as_deref(),
            labels: &record.options.labels,
            args: None,
            cached: stored.as_ref().is_some_and(|stored| stored.cached),
            result: stored.map(|stored| result_view(&record.id, stored)),
            error: record.error.as_ref(),
            reason: record.reason,
            skipped: record.skipped,
            attempts: record.attempts(),
            parents: record.options.depends_on.as_ref().map(|after| after.parents.as_slice()).unwrap_or_default(),
            children: &record.children,
            waits_for: record.waits_for,
            trace_id: record.options.trace.map(|trace| trace.trace_id_hex()),
        }
    }

    /// With what it was enqueued with.
    fn with_args(mut self, record: &JobRecord) -> Self {
        self.args = RawValue::from_string(record.args.clone()).ok();
        self
    }

    /// As JSON text.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What tells a change of state from mere progress.
    pub(crate) fn standing(&self) -> Standing {
        (self.status, self.attempt, self.run_at, self.started_at)
    }
}

/// Jobs that are asked for at the same time.
const AT_ONCE: usize = 16;

/// The records of jobs of one queue, in the order of their ids. One that left in between is not among
/// them.
pub(crate) async fn records(shared: &Shared, queue: &Queue, ids: &[Ulid]) -> Result<Vec<JobRecord>, Problem> {
    let ids: Vec<JobId> = ids.iter().map(|ulid| JobId::new(*ulid, queue.clone())).collect();
    let asked = ids.into_iter().map(|id| async move { shared.broker.get(&id).await });
    let found: Vec<Option<JobRecord>> = futures_util::stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// See [`Task::standing`].
pub(crate) type Standing = (JobState, u32, Option<Timestamp>, Option<Timestamp>);

fn result_view(id: &JobId, stored: StoredResult) -> ResultView {
    let view = |(index, artifact): (usize, windlass_worker::StoredArtifact)| ArtifactView {
        name: artifact.name,
        media_type: artifact.media_type,
        bytes: artifact.bytes,
        blob: artifact.blob,
        url: format!("/api/tasks/{id}/result?artifact={index}"),
    };
    ResultView { value: stored.value, artifacts: stored.artifacts.into_iter().enumerate().map(view).collect() }
}

/// A finished job's result; one that the worker did not write counts as a plain value.
pub(crate) fn stored_result(record: &JobRecord) -> StoredResult {
    let text = record.result.as_deref().unwrap_or("null");
    let plain = || StoredResult { value: serde_json::from_str(text).unwrap_or_default(), ..StoredResult::default() };
    serde_json::from_str(text).unwrap_or_else(|_| plain())
}

/// Finds a job of the caller's. An id that cannot be one, and a job of another tenant, are answered
/// as one that is not there.
pub(crate) async fn find(
    shared: &Shared,
    caller: &Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<JobRecord, Problem> {
    let unknown = || Problem::new(Code::TaskNotFound, "there is no task of this id, or it is past retention");
    let Path(text) = id.map_err(|_| unknown())?;
    let id: JobId = text.parse().map_err(|_| sheets::legacy::about_id(&text, unknown()))?;
    if let Some(record) = shared.broker.get(&id).await? {
        return if caller.sees(record.options.tenant.as_deref()) { Ok(record) } else { Err(unknown()) };
    }
    let spooled = shared.spool.as_ref().and_then(|spool| spool.tenant_of(id.ulid));
    Err(match spooled {
        Some(tenant) if caller.sees(tenant.as_deref()) => {
            Problem::new(Code::QueueUnavailable, "the task is accepted and on its way to its queue").retry_after(1)
        }
        _ => unknown(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowQuery {
    /// `args`: with what the job was enqueued with, up to 1 MiB.
    include: Option<Include>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Include {
    Args,
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| Problem::new(Code::QueryInvalid, "only ?include=args is known here"))?;
    let record = find(&shared, &caller, id).await?;
    let mut task = Task::of(&record, shared.door.registry());
    if query.include == Some(Include::Args) {
        task = task.with_args(&record);
    }
    Ok(axum::Json(task).into_response())
}
