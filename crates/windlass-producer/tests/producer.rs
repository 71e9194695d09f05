//! What the producer checks, what it answers, and what must not be in its tree.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use windlass_broker::Enqueue;
use windlass_jobs::command::Enqueued;
use windlass_jobs::{JobId, NewJob, Queue};
use windlass_producer::{Error, Producer};

/// Keeps what it gets; knows an id the second time.
#[derive(Default)]
struct Shelf(Mutex<Vec<JobId>>);

#[async_trait]
impl Enqueue for Shelf {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> windlass_broker::Result<Vec<Enqueued>> {
        let mut shelf = self.0.lock().unwrap();
        let mut put = |job: &NewJob| {
            let id = JobId::new(job.ulid, queue.clone());
            let fresh = !shelf.contains(&id);
            shelf.push(id);
            if fresh { Enqueued::fresh(job.ulid) } else { Enqueued::known(job.ulid) }
        };
        Ok(jobs.iter().map(&mut put).collect())
    }
}

fn queue() -> Queue {
    Queue::new("q").unwrap()
}

fn job(n: u32) -> NewJob {
    NewJob::new("test.job", &n).unwrap()
}

#[tokio::test]
async fn jobs_are_accepted_in_order_and_a_known_id_is_not_fresh() {
    let shelf = Arc::new(Shelf::default());
    let producer = Producer::new(shelf.clone());
    let jobs: Vec<NewJob> = (0..3).map(job).collect();
    let accepted = producer.enqueue_all(&queue(), &jobs).await.unwrap();
    let ids: Vec<JobId> = accepted.iter().map(|a| a.id.clone()).collect();
    assert_eq!(ids, jobs.iter().map(|j| JobId::new(j.ulid, queue())).collect::<Vec<_>>());
    assert_eq!(*shelf.0.lock().unwrap(), ids);
    assert!(accepted.iter().all(|a| a.fresh));
    assert!(!producer.enqueue(&queue(), &jobs[0]).await.unwrap().fresh, "repeated");
    assert!(producer.enqueue(&queue(), job(9)).await.unwrap().fresh);
    assert_eq!(producer.enqueue_all(&queue(), Vec::new()).await.unwrap(), []);
}

/// B15, B16: everything wrong is named with its job, and nothing is queued.
#[tokio::test]
async fn one_bad_job_holds_all_back_and_every_fault_is_named() {
    let shelf = Arc::new(Shelf::default());
    let producer = Producer::new(shelf.clone());
    let mut jobs: Vec<NewJob> = (0..4).map(job).collect();
    jobs[1].options.max_attempts = Some(0);
    jobs[3].kind = "No Kind".into();
    jobs[3].options.timeout = Some(std::time::Duration::ZERO);
    let error = producer.enqueue_all(&queue(), jobs).await.unwrap_err();
    let Error::Refused(refusals) = &error else { panic!("{error:?}") };
    let found: Vec<(usize, &str)> = refusals.iter().map(|r| (r.index, r.violation.path.as_str())).collect();
    assert_eq!(found, [(1, "/max_attempts"), (3, "/timeout_ms"), (3, "/kind")]);
    assert!(error.to_string().starts_with("refused: job 1, /max_attempts: 0;"), "{error}");
    assert!(shelf.0.lock().unwrap().is_empty());
}

#[test]
fn no_sql_and_no_http_server_in_the_tree() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "windlass-producer", "-e", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"redis"), "the Redis engine is in it");
    for barred in
        ["sqlx", "sqlx-core", "libsqlite3-sys", "axum", "hyper", "apalis", "windlass-store", "windlass-worker"]
    {
        assert!(!names.contains(&barred), "{barred} is in the tree");
    }
}
