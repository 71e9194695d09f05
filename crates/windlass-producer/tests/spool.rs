//! The spool: what is accepted while the broker is away reaches it once, whatever ends when.

#![cfg(feature = "spool")]
#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use windlass_broker::{Enqueue, Error};
use windlass_jobs::command::Enqueued;
use windlass_jobs::{Backoff, JobId, NewJob, OnClash, Priority, Queue, Timestamp, Ulid, Unique, Until, When};
use windlass_producer::{Producer, Spool};

/// A broker that is away until it is told otherwise.
#[derive(Default)]
struct Shelf {
    is_there: AtomicBool,
    jobs: Mutex<BTreeMap<JobId, NewJob>>,
    /// Calls, and how many of them lose their reply after they took effect.
    calls: AtomicUsize,
    lost_replies: AtomicUsize,
}

fn away() -> Error {
    Error::Unavailable { operation: "enqueue", source: "away".into() }
}

#[async_trait::async_trait]
impl Enqueue for Shelf {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> windlass_broker::Result<Vec<Enqueued>> {
        if !self.is_there.load(Ordering::SeqCst) {
            return Err(away());
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut known = self.jobs.lock().unwrap();
        let mut replies = Vec::new();
        for job in jobs {
            let id = JobId::new(job.ulid, queue.clone());
            let fresh = !known.contains_key(&id);
            known.entry(id).or_insert_with(|| job.clone());
            replies.push(if fresh { Enqueued::fresh(job.ulid) } else { Enqueued::known(job.ulid) });
        }
        if self.lost_replies.load(Ordering::SeqCst) > 0 {
            self.lost_replies.fetch_sub(1, Ordering::SeqCst);
            return Err(away());
        }
        Ok(replies)
    }
}

impl Shelf {
    fn ulids(&self) -> BTreeSet<Ulid> {
        self.jobs.lock().unwrap().keys().map(|id| id.ulid).collect()
    }
}

fn queue(name: &str) -> Queue {
    Queue::new(name).unwrap()
}

fn jobs(n: usize) -> Vec<NewJob> {
    (0..n).map(|n| NewJob::new("k", &n).unwrap()).collect()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn jobs_accepted_while_away_are_forwarded_once() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf::default());
    let spool = Spool::open(dir.path(), Spool::MAX_BYTES).unwrap();
    let producer = Producer::new(Arc::clone(&shelf) as Arc<dyn Enqueue>).spooling(spool.clone());
    let mut sent = BTreeSet::new();
    for (name, n) in [("a", 600), ("b", 1), ("a", 3)] {
        let jobs = jobs(n);
        let accepted = producer.enqueue_all(&queue(name), &jobs).await.unwrap();
        assert!(accepted.iter().all(|one| one.spooled && one.fresh && spool.holds(one.id.ulid)));
        sent.extend(jobs.iter().map(|job| job.ulid));
    }
    assert_eq!(spool.len(), 604);
    let forwarding = tokio::spawn(spool.clone().forward(Arc::clone(&shelf) as Arc<dyn Enqueue>));
    tokio::time::sleep(Duration::from_millis(20)).await;
    // The first reply is lost: what it stands for is said again, and known.
    shelf.lost_replies.store(1, Ordering::SeqCst);
    shelf.is_there.store(true, Ordering::SeqCst);
    until("all are forwarded", || spool.is_empty()).await;
    assert_eq!(shelf.ulids(), sent);
    until("no file is left", || std::fs::read_dir(dir.path()).unwrap().count() == 0).await;
    let direct = producer.enqueue(&queue("a"), &jobs(1)[0]).await.unwrap();
    assert!(!direct.spooled);
    forwarding.abort();
}

/// Another process takes over what one left; what that had forwarded is not forwarded again, even if
/// its queue has forgotten it by then.
#[tokio::test]
async fn a_process_that_ended_in_between_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let first = Spool::open(dir.path(), Spool::MAX_BYTES).unwrap();
    let all = jobs(700);
    first.put(&queue("a"), &all).await.unwrap();
    let second = Spool::open(dir.path(), Spool::MAX_BYTES).unwrap();
    assert!(second.is_empty(), "a living process holds its own files");

    let shelf = Arc::new(Shelf::default());
    shelf.is_there.store(true, Ordering::SeqCst);
    // It ends while it forwards: after the first slice.
    let forwarding = tokio::spawn(first.clone().forward(Arc::clone(&shelf) as Arc<dyn Enqueue>));
    until("a slice is forwarded", || shelf.calls.load(Ordering::SeqCst) >= 1 && first.len() < 700).await;
    shelf.is_there.store(false, Ordering::SeqCst);
    forwarding.abort();
    let _ = forwarding.await;
    let left = first.len();
    let before = std::mem::take(&mut *shelf.jobs.lock().unwrap());
    drop(first);
    drop(second);

    let third = Spool::open(dir.path(), Spool::MAX_BYTES).unwrap();
    shelf.is_there.store(true, Ordering::SeqCst);
    let forwarding = tokio::spawn(third.clone().forward(Arc::clone(&shelf) as Arc<dyn Enqueue>));
    until("the rest is forwarded", || third.is_empty()).await;
    forwarding.abort();
    let after = shelf.ulids();
    assert_eq!(after.len(), left.min(after.len()), "none of the first slice comes again: {left} were left");
    let both: BTreeSet<Ulid> = before.keys().map(|id| id.ulid).chain(after).collect();
    assert_eq!(both.len(), all.len(), "nothing is lost");
}

/// A line that a kill tore is passed over, and those around it are forwarded.
#[tokio::test]
async fn torn_and_changed_lines_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Spool::MAX_BYTES).unwrap();
    let all = jobs(3);
    spool.put(&queue("a"), &all).await.unwrap();
    drop(spool);
    let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[1] = lines[1].replace("\"k\"", "\"x\"");
    let torn = lines[2].len() / 2;
    std::fs::write(&file, format!("{}\n{}\n{}\n{}", lines[0], lines[1], lines[2], &lines[2][..torn])).unwrap();

    let spool = Spool::open(dir.path(), Spool::MAX_BYTES).unwrap();
    assert_eq!(spool.len(), 2);
    let shelf = Arc::new(Shelf::default());
    shelf.is_there.store(true, Ordering::SeqCst);
    let forwarding = tokio::spawn(spool.clone().forward(Arc::clone(&shelf) as Arc<dyn Enqueue>));
    until("the rest is forwarded", || spool.is_empty()).await;
    forwarding.abort();
    assert_eq!(shelf.ulids(), [all[0].ulid, all[2].ulid].into());
}

/// Every option comes out as it went in; of a delay what is left of it.
#[tokio::test]
async fn options_survive() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Spool::MAX_BYTES).unwrap();
    let mut job = NewJob::new("k", &serde_json::json!({ "a": [1, "ä\n"] })).unwrap();
    job.when = When::At(Timestamp(Timestamp::now().0 + 3_600_000));
    job.options.priority = Priority::High;
    job.options.max_attempts = Some(7);
    job.options.backoff = Some(Backoff::Fixed { delay_ms: 9 });
    job.options.timeout = Some(Duration::from_millis(1_234));
    job.options.expires = When::After(Duration::from_secs(60));
    job.options.labels.insert("l".into(), "v".into());
    job.options.unique = Some(Unique {
        key: "u".into(),
        ttl: Duration::from_secs(5),
        until: Until::Started,
        on_clash: OnClash::Replace,
        debounce: None,
    });
    job.options.tenant = Some("t".into());
    job.options.ordering_key = Some("o".into());
    job.options.concurrency_key = Some("c".into());
    job.options.rate_key = Some("r".into());
    spool.put(&queue("a"), std::slice::from_ref(&job)).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    shelf.is_there.store(true, Ordering::SeqCst);
    let forwarding = tokio::spawn(spool.clone().forward(Arc::clone(&shelf) as Arc<dyn Enqueue>));
    until("it is forwarded", || spool.is_empty()).await;
    forwarding.abort();
    let found = shelf.jobs.lock().unwrap().values().next().unwrap().clone();
    let When::After(left) = found.options.expires else { panic!("{:?}", found.options.expires) };
    assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(30), "{left:?}");
    let mut expected = job.options.clone();
    expected.expires = found.options.expires;
    assert_eq!((found.options, found.when, found.kind.as_str()), (expected, job.when, "k"));
    assert_eq!(found.args.get(), job.args.get());
}

#[tokio::test]
async fn a_full_spool_refuses_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 2_000).unwrap();
    let producer = Producer::new(Arc::new(Shelf::default())).spooling(spool.clone());
    let mut taken = 0;
    while producer.enqueue(&queue("a"), &jobs(1)[0]).await.is_ok() {
        taken += 1;
    }
    assert!(taken > 2 && spool.len() == taken, "{taken}");
}
