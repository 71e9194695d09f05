//! `POST /api/tasks`: one job, a flow, or a batch of which all are accepted or none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use windlass_jobs::{Durability, JobId, NewJob, Queue, State as JobState, Timestamp, Violation, When};
use windlass_producer::Refusal;
use windlass_store::Digest;

use crate::auth::Caller;
use crate::once::{Claimed, Once};
use crate::problem::{Code, Problem};
use crate::request::{self, Fault, Jobs, Ready};
use crate::{Shared, body, flow};

/// Bodies over this are read off the async threads.
const LARGE_BYTES: usize = 64 * 1024;
/// How many blobs are looked for at once.
const LOOKS: usize = 16;

/// What became of one job.
///
/// *Shape*: `{"task_id", "status": "pending" | "scheduled", "status_url"}`; a batch answers
/// `{"tasks": [...]}` in the order of its jobs. Where another job holds the unique key, that one
/// is named, with its status (null when it is no longer known), and there is `"unique": "kept" |
/// "replaced"`. While the queue's store is away there is `"accepted": "spooled"`: the job is on this
/// machine's disk, and on its queue under the same id once the store answers. Where more than `fast` was
/// asked for, `durability` says what was reached.
#[derive(Serialize)]
pub(crate) struct Accepted {
    pub(crate) task_id: JobId,
    status: Option<JobState>,
    status_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<Durability>,
}

pub(crate) async fn enqueue(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let once = Once::of(&headers, &caller)?;
    body::check_json(&headers)?;
    let body = body::read(&shared, &headers, body, shared.options.json_bytes).await?;
    let once = once.map(|once| once.about(&body.bytes));
    let mut jobs = read_by_all_kinds(&shared, body).await?;
    bind(&mut jobs, &caller)?;
    let mut status = StatusCode::ACCEPTED;
    if let Some(once) = &once {
        match once.claim(&shared, &mut jobs).await? {
            Claimed::Mine => {}
            Claimed::Again => status = StatusCode::OK,
            Claimed::Done(ids) => return Ok(answer(again(&shared, ids).await, jobs.is_batch, StatusCode::OK)),
        }
    }
    place(&shared, &mut jobs)?;
    flow::check_parents(&shared, &caller, &jobs).await?;
    check_blobs(&shared, &jobs).await?;
    pin_blobs(&shared, &jobs).await?;
    let is_batch = jobs.is_batch;
    let mut accepted: Vec<Accepted> = jobs.ready.iter().map(accepted).collect();
    queue(&shared, jobs, &mut accepted).await?;
    if let Some(once) = &once {
        once.settle(&shared, &accepted).await;
    }
    Ok(answer(accepted, is_batch, status))
}

/// The answer to a request that was done before: its jobs, as they are now.
async fn again(shared: &Shared, ids: Vec<JobId>) -> Vec<Accepted> {
    let looks = ids.into_iter().map(|task_id| async move {
        // One past retention is not there any more; its id is answered all the same.
        let record = shared.broker.get(&task_id).await.ok().flatten();
        let (status, status_url) = (record.map(|record| record.state), format!("/api/tasks/{task_id}"));
        Accepted { task_id, status, status_url, unique: None, accepted: None, durability: None }
    });
    stream::iter(looks).buffered(LOOKS).collect().await
}

/// Jobs of a tenant's key are the tenant's.
fn bind(jobs: &mut Jobs, caller: &Caller) -> Result<(), Problem> {
    let Some(own) = caller.tenant() else { return Ok(()) };
    let other = |ready: &Ready| ready.job.options.tenant.as_deref().is_some_and(|tenant| tenant != own);
    if jobs.ready.iter().any(other) {
        let detail = "the key is bound to a tenant, and a job names another";
        return Err(Problem::new(Code::TenantRefused, detail));
    }
    for ready in &mut jobs.ready {
        let options = &mut ready.job.options;
        options.tenant = Some(own.to_owned());
        let keys = [&mut options.ordering_key, &mut options.concurrency_key, &mut options.rate_key];
        let unique = options.unique.as_mut().map(|unique| &mut unique.key);
        for key in keys.into_iter().flatten().chain(unique) {
            *key = apart(own, key);
        }
    }
    Ok(())
}

/// Jobs of queues with shards go to theirs, by their final keys and ids.
fn place(shared: &Shared, jobs: &mut Jobs) -> Result<(), Problem> {
    let mut all: Vec<_> = jobs.ready.iter_mut().map(|ready| (&mut ready.queue, &mut ready.job)).collect();
    let fault = |Refusal { index, violation }: Refusal| Fault { index, violation };
    let placed = shared.producer.place(&mut all);
    placed.map_err(|wrong| request::refuse(wrong.into_iter().map(fault).collect(), jobs.is_batch))
}

/// A job's key as no other tenant has it, within the bytes that a key may have.
fn apart(tenant: &str, key: &str) -> String {
    let hash = Digest::of(format!("{tenant}:{key}").as_bytes()).hex();
    format!("t:{}", &hash[..48])
}

/// Reads the body by the kinds as they are known, and once more when a job is of a kind of another
/// program and there is news of those.
async fn read_by_all_kinds(shared: &Shared, body: body::Read) -> Result<Jobs, Problem> {
    let body = Arc::new(body);
    let first = read(shared, &body).await?;
    if first.needs_others {
        match shared.door.refresh().await {
            Ok(true) => return read(shared, &body).await?.jobs,
            Ok(false) => {}
            // What was known before does, as long as it knows every kind.
            Err(silent) => return first.jobs.map_err(|_| silent),
        }
    }
    first.jobs
}

async fn read(shared: &Shared, body: &Arc<body::Read>) -> Result<request::Read, Problem> {
    let (max_jobs, kinds) = (shared.options.batch_jobs, shared.door.kinds());
    if body.bytes.len() <= LARGE_BYTES {
        return Ok(request::read(&body.bytes, &kinds, max_jobs));
    }
    let body = Arc::clone(body);
    let reading = tokio::task::spawn_blocking(move || request::read(&body.bytes, &kinds, max_jobs));
    reading.await.map_err(|_| Problem::new(Code::Internal, "the server made a mistake"))
}

/// Looks for every blob that any job needs, and keeps those that are there for a day more.
async fn check_blobs(shared: &Shared, jobs: &Jobs) -> Result<(), Problem> {
    let wanted: BTreeSet<&str> = jobs.ready.iter().flat_map(|ready| &ready.blobs).map(String::as_str).collect();
    let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
    let looks = wanted.into_iter().map(|name| async {
        let there = match name.parse::<Digest>() {
            Ok(digest) => shared.services.artifacts.touch(&digest).await?,
            Err(_) => false,
        };
        Ok::<_, windlass_store::Error>((name, there))
    });
    let mut missing = BTreeSet::new();
    let mut looks = stream::iter(looks).buffer_unordered(LOOKS);
    while let Some(look) = looks.next().await {
        let (name, there) = look?;
        if !there {
            missing.insert(name);
        }
    }
    let faults: Vec<Fault> =
        jobs.ready.iter().enumerate().flat_map(|(index, job)| lacks(index, job, &missing)).collect();
    if faults.is_empty() { Ok(()) } else { Err(request::refuse(faults, jobs.is_batch)) }
}

/// Holds every job's blobs from before it is queued until it has ended. What is held for jobs that
/// then are not queued is let go by the housekeeper.
async fn pin_blobs(shared: &Shared, jobs: &Jobs) -> Result<(), Problem> {
    let mut holders = Vec::new();
    for (index, ready) in jobs.ready.iter().enumerate().filter(|(_, ready)| !ready.blobs.is_empty()) {
        let id = JobId::new(ready.job.ulid, ready.queue.clone()).to_string();
        let digests: BTreeSet<Digest> = ready.blobs.iter().filter_map(|name| name.parse().ok()).collect();
        holders.push((index, id, Vec::from_iter(digests)));
    }
    let artifacts = &shared.services.artifacts;
    let pins = holders.into_iter().map(|(index, id, digests)| async move {
        Ok::<_, windlass_store::Error>((index, artifacts.pin(&id, &digests).await?))
    });
    let mut faults = Vec::new();
    let mut pins = stream::iter(pins).buffered(LOOKS);
    while let Some(pin) = pins.next().await {
        let (index, missing) = pin?;
        // One that went since it was looked for.
        let missing: BTreeSet<String> = missing.iter().map(Digest::hex).collect();
        faults.extend(lacks(index, &jobs.ready[index], &missing));
    }
    if faults.is_empty() { Ok(()) } else { Err(request::refuse(faults, jobs.is_batch)) }
}

fn lacks(index: usize, job: &Ready, missing: &BTreeSet<String>) -> Vec<Fault> {
    let lacking =
        job.blobs.iter().filter(|name| missing.contains(*name) || missing.contains(name.trim_start_matches("sha256:")));
    let fault = |name: &String| {
        let message = format!("blob sha256:{} is not stored: upload it first", name.trim_start_matches("sha256:"));
        Fault { index, violation: Violation::new("/args", "blob_missing", message) }
    };
    lacking.map(fault).collect()
}

fn accepted(Ready { queue, job, .. }: &Ready) -> Accepted {
    let task_id = JobId::new(job.ulid, queue.clone());
    let waits = match job.when {
        When::Now => false,
        When::At(at) => at > Timestamp::now(),
        When::After(_) => true,
    };
    let status = if waits || job.options.depends_on.is_some() { JobState::Scheduled } else { JobState::Pending };
    Accepted {
        status_url: format!("/api/tasks/{task_id}"),
        task_id,
        status: Some(status),
        unique: None,
        accepted: None,
        durability: None,
    }
}

/// Queues all jobs. A failure names the ids, so that the caller can see which were taken.
async fn queue(shared: &Shared, jobs: Jobs, accepted: &mut [Accepted]) -> Result<(), Problem> {
    if jobs.is_flow {
        return queue_flow(shared, jobs, accepted).await;
    }
    let mut by_queue: BTreeMap<Queue, (Vec<usize>, Vec<NewJob>)> = BTreeMap::new();
    let mut blobs = Vec::with_capacity(jobs.ready.len());
    for (index, Ready { queue, job, blobs: needed }) in jobs.ready.into_iter().enumerate() {
        blobs.push(needed);
        let (indexes, jobs) = by_queue.entry(queue).or_default();
        indexes.push(index);
        jobs.push(job);
    }
    let ids: Vec<String> = accepted.iter().map(|job| job.task_id.to_string()).collect();
    for (queue, (indexes, jobs)) in by_queue {
        let replies = shared.producer.enqueue_all(&queue, jobs).await;
        for (index, reply) in indexes.into_iter().zip(replies.as_deref().unwrap_or_default()) {
            take_reply(shared, &mut accepted[index], reply, &blobs[index]).await?;
        }
        replies.map_err(|error| not_queued(error, &ids))?;
    }
    Ok(())
}

/// Queues the jobs of a flow, from its end to its start.
async fn queue_flow(shared: &Shared, jobs: Jobs, accepted: &mut [Accepted]) -> Result<(), Problem> {
    let ids: Vec<String> = accepted.iter().map(|job| job.task_id.to_string()).collect();
    let (mut tied, mut blobs) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
    for Ready { queue, job, blobs: needed } in jobs.ready {
        tied.push((queue, job));
        blobs.push(needed);
    }
    let replies = shared.producer.enqueue_tied(tied).await.map_err(|error| not_queued(error, &ids))?;
    for ((accepted, reply), blobs) in accepted.iter_mut().zip(&replies).zip(&blobs) {
        take_reply(shared, accepted, reply, blobs).await?;
    }
    Ok(())
}

/// Where another job holds the unique key, that one is named.
async fn take_reply(
    shared: &Shared,
    accepted: &mut Accepted,
    reply: &windlass_producer::Accepted,
    blobs: &[String],
) -> Result<(), Problem> {
    accepted.accepted = reply.spooled.then_some("spooled");
    accepted.durability = reply.durability;
    let Some(clash) = reply.clash else { return Ok(()) };
    name_holder(shared, accepted, reply.id.clone(), clash.replaced).await;
    if clash.replaced && !blobs.is_empty() {
        // They have just been touched, which keeps them for a day if this fails.
        let digests: Vec<Digest> = blobs.iter().filter_map(|name| name.parse().ok()).collect();
        shared.services.artifacts.pin(&reply.id.to_string(), &digests).await?;
    }
    Ok(())
}

fn not_queued(error: windlass_producer::Error, ids: &[String]) -> Problem {
    match error {
        windlass_producer::Error::Broker(error) => Problem::from(error).with("task_ids", ids),
        // `request::read` has checked the same.
        refused @ windlass_producer::Error::Refused(_) => {
            Problem::new(Code::JobInvalid, refused.to_string()).with("task_ids", ids)
        }
    }
}

/// Another job holds the unique key: it is the one to be asked about.
async fn name_holder(shared: &Shared, accepted: &mut Accepted, id: JobId, replaced: bool) {
    // The job is accounted for already: an answer without a status is better than a failure.
    let record = shared.broker.get(&id).await.ok().flatten();
    accepted.status = record.map(|record| record.state);
    accepted.status_url = format!("/api/tasks/{id}");
    accepted.task_id = id;
    accepted.unique = Some(if replaced { "replaced" } else { "kept" });
}

fn answer(mut accepted: Vec<Accepted>, is_batch: bool, status: StatusCode) -> Response {
    if is_batch {
        return (status, axum::Json(serde_json::json!({ "tasks": accepted }))).into_response();
    }
    let Some(task) = accepted.pop() else { return status.into_response() };
    let location = HeaderValue::from_str(&task.status_url);
    let mut response = (status, axum::Json(task)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
