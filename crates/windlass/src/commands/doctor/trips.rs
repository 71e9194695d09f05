//! Something small is written, read and taken back in each store, a job that does nothing is run, and
//! jobs that nobody can run are named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::join_all;
use serde_json::json;
use windlass_broker::Error;
use windlass_jobs::command::{Filter, WorkerInfo};
use windlass_jobs::{JobId, NewJob, Priority, Queue, State, When, new_ulid};
use windlass_store::images::{Facts, ImageId, NewImage, Place};
use windlass_store::records::{Batch, Expect, Write};
use windlass_store::{Key, Namespace};

use super::Finding;
use crate::commands::{api, enqueue};
use crate::runtime::Stores;
use crate::settings::Settings;

/// The queue of kinds that try things out.
const QUEUE: &str = "probe";
/// How long a worker may take to do a job that does nothing.
const JOB_WITHIN: Duration = Duration::from_secs(10);
/// How long any other store may take.
const WITHIN: Duration = Duration::from_secs(10);
/// Waiting jobs of each queue that are looked at.
const LOOKED_AT: usize = 200;
/// Queues that are looked at.
const QUEUES: usize = 200;
/// A picture of one point.
const PNG: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\0\0\0\x0a\
    IDATx\x9cc`\0\0\0\x02\0\x01H\xaf\xa4q\0\0\0\0IEND\xaeB`\x82";

/// The queue answers a question.
pub(super) async fn store(stores: &Stores) -> Finding {
    let engine = stores.broker.engine();
    let asked = async {
        let queues = stores.broker.queues().await.with_context(|| format!("{engine} at {}", stores.place))?;
        Ok(format!("{engine} at {} answers, {} queues", stores.place, queues.len()))
    };
    Finding::of("store", asked.await)
}

/// Every store, a job, and the jobs that wait.
pub(super) async fn all(settings: &Settings, stores: &Stores, findings: &mut Vec<Finding>) {
    let trips: [(&'static str, anyhow::Result<String>); 4] = [
        ("artifacts", within(artifacts(stores)).await),
        ("images", within(images(settings, stores)).await),
        ("records", within(records(stores)).await),
        ("cache", within(cache(settings)).await),
    ];
    findings.extend(trips.into_iter().map(|(name, result)| Finding::of(name, result)));
    let workers = match stores.broker.workers().await {
        Ok(workers) => workers,
        Err(e) => return findings.push(Finding::error("workers", &e.into())),
    };
    findings.push(if workers.is_empty() {
        Finding::warn("workers", "none is up: jobs wait; start one with `windlass worker` or `windlass up`")
    } else {
        let slots: usize = workers.iter().map(|worker| worker.slots).sum();
        Finding::ok("workers", format!("{} with {slots} slots", workers.len()))
    });
    findings.push(job(settings, stores, &workers).await.unwrap_or_else(|e| Finding::error("job", &e)));
    findings.push(kinds(stores, &workers).await.unwrap_or_else(|e| Finding::error("kinds", &e)));
}

async fn within(trip: impl Future<Output = anyhow::Result<String>>) -> anyhow::Result<String> {
    let late = || format!("no answer in {} s", WITHIN.as_secs());
    let begun = Instant::now();
    let said = tokio::time::timeout(WITHIN, trip).await.with_context(late)??;
    Ok(format!("{said} in {:.1?}", begun.elapsed()))
}

/// Always the same bytes, which go by themselves.
async fn artifacts(stores: &Stores) -> anyhow::Result<String> {
    let bytes: &[u8] = b"windlass doctor";
    let digest = stores.services.artifacts.put(bytes.into()).await?;
    let read = stores.services.artifacts.get(&digest).await?;
    ensure!(read.is_some_and(|read| read == bytes), "what was written was not read");
    Ok("written and read".to_owned())
}

async fn images(settings: &Settings, stores: &Stores) -> anyhow::Result<String> {
    let Some(images) = &stores.services.images else { return Ok("none are kept".to_owned()) };
    let facts = Facts {
        symbol: "WINDLASS-DOCTOR".to_owned(),
        interval: "1d".to_owned(),
        format: "png".to_owned(),
        width_px: 1,
        height_px: 1,
        ..Facts::default()
    };
    let image = NewImage {
        id: ImageId::new(),
        bytes: PNG.into(),
        thumb: None,
        facts,
        created_at: None,
        max_age: Some(Duration::from_secs(60)),
    };
    let stored = images.put(&image).await?;
    let read = images.bytes(&stored.meta.sha).await?;
    let deleted = images.delete(&stored.meta.id).await?;
    ensure!(read.as_ref() == Some(&image.bytes), "what was written was not read");
    ensure!(deleted, "what was written could not be deleted");
    let has_redis = settings.redis.is_some() || settings.images.own_redis().is_some();
    ensure!(!has_redis || stored.place == Place::Redis, "its Redis is away: images go to files of this machine");
    Ok("written, read and deleted".to_owned())
}

async fn records(stores: &Stores) -> anyhow::Result<String> {
    let (space, set, name) = ("doctor", "trips", new_ulid().to_string());
    let batch = |write| Batch { writes: vec![write], ..Batch::default() };
    let put = Write::Put { set, name: name.clone(), json: "{}".to_owned(), expect: Expect::Any };
    stores.records.write(space, &batch(put)).await?;
    let read = stores.records.get(space, set, &name).await?;
    let remove = Write::Remove { set, name, expect: Expect::Any };
    stores.records.write(space, &batch(remove)).await?;
    ensure!(read.is_some_and(|record| record.json == "{}"), "what was written was not read");
    Ok("written, read and deleted".to_owned())
}

async fn cache(settings: &Settings) -> anyhow::Result<String> {
    let cache = api::caching(settings)?.cache;
    let key = Key::new(Namespace::general(), &format!("windlass-doctor-{}", std::process::id()))?;
    let set = cache.set_json(&key, "1".to_owned(), Some(Duration::from_secs(60))).await?;
    let read = cache.find(&key).await;
    let deleted = cache.delete(&key).await;
    if set.degraded || read.degraded || deleted.degraded {
        bail!("its Redis is away: every process caches for itself");
    }
    ensure!(read.value.is_some_and(|found| found.json == "1") && deleted.value, "what was written was not read");
    Ok("written, read and deleted".to_owned())
}

/// A job that does nothing is put on its queue, done, read and deleted.
async fn job(settings: &Settings, stores: &Stores, workers: &[WorkerInfo]) -> anyhow::Result<Finding> {
    let queue = Queue::new(QUEUE)?;
    let is_served = workers.iter().any(|worker| worker.queues.contains(&queue) && !worker.draining);
    let registry = crate::kinds::for_worker(settings, stores)?;
    let mut own = if is_served { None } else { enqueue::own_worker(settings, stores, registry, &queue).await? };
    let mut job = NewJob::new("probe.noop", &json!({}))?;
    job.options.priority = Priority::High;
    job.options.expires = When::After(Duration::from_secs(60));
    let id = JobId::new(job.ulid, queue.clone());
    let begun = Instant::now();
    stores.broker.enqueue(&queue, &[job]).await?;
    let waited = if is_served || own.is_some() { JOB_WITHIN } else { Duration::ZERO };
    let ended = ended(stores, &id, begun, waited).await;
    if let Some(worker) = &mut own {
        worker.drain(Duration::ZERO);
        worker.wait().await?;
    }
    let ended = ended?;
    if ended.is_none() {
        stores.broker.cancel(&id).await?;
    }
    stores.broker.delete(&queue, &[id.ulid]).await?;
    Ok(match ended {
        Some((State::Success, took)) => Finding::ok("job", format!("put, run, read and deleted in {took:.1?}")),
        Some((state, _)) => Finding::fail("job", format!("probe.noop ended as {state}")),
        None if stores.broker.counts(&queue).await?.paused => {
            Finding::warn("job", format!("queue {QUEUE} is paused: it was put, read and deleted, and not run"))
        }
        None if is_served => {
            let within = JOB_WITHIN.as_secs();
            Finding::fail("job", format!("no worker took probe.noop in {within} s: see `windlass workers`"))
        }
        None => Finding::ok("job", format!("put, read and deleted; nobody serves queue {QUEUE}, so it was not run")),
    })
}

/// How it ended, and how long after it was put; none when it did not.
async fn ended(
    stores: &Stores,
    id: &JobId,
    begun: Instant,
    waited: Duration,
) -> Result<Option<(State, Duration)>, Error> {
    loop {
        let Some(record) = stores.broker.get(id).await? else { return Ok(None) };
        if record.state.is_terminal() {
            return Ok(Some((record.state, begun.elapsed())));
        }
        if begun.elapsed() >= waited {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waiting jobs that no worker of their queue can do.
async fn kinds(stores: &Stores, workers: &[WorkerInfo]) -> anyhow::Result<Finding> {
    let catalogue = stores.broker.kinds().await?;
    let mut stuck = Vec::new();
    for queue in stores.broker.queues().await?.into_iter().take(QUEUES) {
        let counts = stores.broker.counts(&queue).await?;
        if counts.pending + counts.parked == 0 {
            continue;
        }
        let of_queue = workers.iter().filter(|worker| worker.queues.contains(&queue));
        let mut known: BTreeSet<&str> = of_queue.flat_map(|worker| &worker.kinds).map(String::as_str).collect();
        for info in catalogue.iter().filter(|info| known.contains(info.name.as_str())).collect::<Vec<_>>() {
            known.extend(info.aliases.iter().map(String::as_str));
        }
        let unknown = waiting(stores, &queue).await?.into_iter().filter(|(kind, _)| !known.contains(kind.as_str()));
        stuck.extend(unknown.map(|(kind, jobs)| format!("{jobs} of {kind} on {queue}")));
    }
    Ok(if stuck.is_empty() {
        Finding::ok("kinds", "no job waits for a worker that is not there")
    } else {
        let stuck = stuck.join(", ");
        Finding::warn("kinds", format!("no live worker of their queue knows these: {stuck}; start one that does"))
    })
}

/// The kinds of the jobs next to run and of those that are parked, and how many of each.
async fn waiting(stores: &Stores, queue: &Queue) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for parked in [false, true] {
        let filter = Filter { parked, ..Filter::of(State::Pending) };
        let found = stores.broker.search(queue, &filter, 0, LOOKED_AT).await?;
        let broker = Arc::clone(&stores.broker);
        let ids: Vec<JobId> = found.ids.into_iter().map(|ulid| JobId::new(ulid, queue.clone())).collect();
        for record in join_all(ids.iter().map(|id| broker.get(id))).await {
            if let Some(record) = record? {
                *kinds.entry(record.kind).or_default() += 1;
            }
        }
    }
    Ok(kinds)
}
