//! What a job survives that was answered as `replicated` or `fsynced`, and what is answered where that
//! cannot be had.

use std::time::{Duration, Instant};

use windlass_broker::redis::{RedisBroker, Waits};
use windlass_broker::{Enqueue, Inspect as _};
use windlass_jobs::command::Enqueued;
use windlass_jobs::{Durability, JobId, NewJob, Queue};
use windlass_redis::{Link, Options};
use windlass_testkit::{RedisSentinels, RedisServer};

const WITHIN: Duration = Duration::from_millis(500);

fn on(url: &str) -> RedisBroker {
    let waits = Waits { replicas: 1, within: WITHIN };
    RedisBroker::new(Link::new(Options::from_url(url).unwrap()).unwrap(), "wl").waiting(waits)
}

fn job(durability: Durability) -> NewJob {
    let mut job = NewJob::new("noop", &()).unwrap();
    job.options.durability = durability;
    job
}

fn queue() -> Queue {
    Queue::new("durable").unwrap()
}

/// Enqueues a job that asks for this, and one that does not; both are there. Answers what was reached.
async fn reached(broker: &(impl Enqueue + windlass_broker::Inspect), wish: Durability) -> Durability {
    let jobs = [job(wish), job(Durability::Fast)];
    let replies = broker.enqueue(&queue(), &jobs).await.unwrap();
    assert!(replies.iter().all(|reply| reply.fresh));
    assert_eq!(replies[1].durability, Durability::Fast, "nothing was asked for");
    for job in &jobs {
        assert!(broker.get(&JobId::new(job.ulid, queue())).await.unwrap().is_some());
    }
    // A repeat, whose first answer was lost, is as good.
    let again = broker.enqueue(&queue(), &jobs).await.unwrap();
    assert!(!again[0].fresh);
    assert_eq!(again[0].durability, replies[0].durability);
    replies[0].durability
}

#[tokio::test]
async fn replicated_is_said_when_a_replica_has_it() {
    let set = RedisSentinels::start(1);
    let broker = on(&set.url());
    assert_eq!(reached(&broker, Durability::Replicated).await, Durability::Replicated);
    assert_eq!(reached(&broker, Durability::Fsynced).await, Durability::Fast, "nothing is on a disk");

    // Without the replica it is accepted in time, and said.
    let primary = set.primary().port();
    let replica = set.servers().iter().find(|server| server.port() != primary).unwrap();
    replica.freeze();
    let begun = Instant::now();
    assert_eq!(reached(&broker, Durability::Replicated).await, Durability::Fast);
    assert!(begun.elapsed() < WITHIN * 2 + Duration::from_secs(3), "{:?}", begun.elapsed());
    // More callers than there are connections: nobody waits for ever, and others wait for nobody.
    let many = (0..20).map(|_| async { broker.enqueue(&queue(), &[job(Durability::Replicated)]).await.unwrap() });
    let begun = Instant::now();
    let (all, fast) = tokio::join!(futures_util::future::join_all(many), async {
        broker.enqueue(&queue(), &[job(Durability::Fast)]).await.unwrap();
        begun.elapsed()
    });
    assert!(all.iter().all(|replies| replies[0].fresh && replies[0].durability == Durability::Fast));
    assert!(fast < WITHIN, "a plain enqueue waits: {fast:?}");
    replica.thaw();
    windlass_testkit::wait_until(Duration::from_secs(10), "the replica has it", async || {
        reached(&broker, Durability::Replicated).await == Durability::Replicated
    })
    .await;
}

/// F27: whatever the primary does, no job is lost that was answered as replicated.
#[tokio::test]
async fn f27_what_was_replicated_survives_the_primary() {
    let set = RedisSentinels::start(1);
    let broker = on(&set.url());
    let mut replicated: Vec<NewJob> = Vec::new();
    let begun = Instant::now();
    let mut killed = None;
    let mut after = 0;
    while after < 3 {
        assert!(begun.elapsed() < Duration::from_secs(20), "no fail-over: {} were replicated", replicated.len());
        if killed.is_none() && begun.elapsed() > Duration::from_millis(300) {
            let broker = on(&set.url());
            let flood: Vec<NewJob> = (0..2_000).map(|_| job(Durability::Fast)).collect();
            tokio::spawn(async move { broker.enqueue(&queue(), &flood).await });
            tokio::time::sleep(Duration::from_millis(5)).await;
            killed = Some(set.primary().port());
            set.primary().kill();
        }
        let jobs: Vec<NewJob> = (0..5).map(|_| job(Durability::Replicated)).collect();
        match broker.enqueue(&queue(), &jobs).await {
            Ok(replies) => {
                let reached = |reply: &Enqueued| reply.durability == Durability::Replicated;
                replicated
                    .extend(jobs.into_iter().zip(&replies).filter(|(_, reply)| reached(reply)).map(|(job, _)| job));
                after += usize::from(killed.is_some());
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    assert_ne!(Some(set.primary().port()), killed);
    assert!(replicated.len() >= 5, "{} were replicated before", replicated.len());
    for job in replicated {
        let found = broker.get(&JobId::new(job.ulid, queue())).await.unwrap();
        assert!(found.is_some(), "{} was answered as replicated and is lost", job.ulid);
    }
}

/// Redis 7.0 has no `WAITAOF`: a server that syncs before each answer is asked whether it does.
#[tokio::test]
async fn fsynced_is_said_by_a_server_that_syncs_always() {
    for (fsync, expected) in [("always", Durability::Fsynced), ("everysec", Durability::Fast)] {
        let server = RedisServer::builder().append_only(fsync).start();
        let broker = on(&server.url());
        assert_eq!(reached(&broker, Durability::Fsynced).await, expected, "{fsync}");
        assert_eq!(reached(&broker, Durability::Replicated).await, Durability::Fast, "there is no replica");
        if expected == Durability::Fsynced {
            server.restart();
            assert_eq!(on(&server.url()).counts(&queue()).await.unwrap().pending, 4);
        }
    }
    // Who may not ask is told no more than is known.
    let link = Link::new(crate::rights::as_user("producer")).unwrap();
    let broker = RedisBroker::new(link, "durable").waiting(Waits { replicas: 1, within: WITHIN });
    assert_eq!(reached(&broker, Durability::Fsynced).await, Durability::Fast);
}

/// In a cluster the wait is said to the node that holds the queue.
#[tokio::test]
async fn a_cluster_waits_at_the_queue_s_node() {
    let cluster = windlass_testkit::RedisCluster::start(3, 1);
    let broker = on(&cluster.url());
    windlass_testkit::wait_until(Duration::from_secs(10), "the replica has it", async || {
        reached(&broker, Durability::Replicated).await == Durability::Replicated
    })
    .await;
    // Where the slot has just moved, the client follows.
    cluster.move_slot_of("wl:{durable}:meta");
    windlass_testkit::wait_until(Duration::from_secs(10), "the new node's replica has it", async || {
        reached(&broker, Durability::Replicated).await == Durability::Replicated
    })
    .await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_file_is_fsynced_when_that_is_asked_for() {
    use windlass_broker::sqlite::{SqliteBroker, SqliteOptions, Synchronous};
    let dir = tempfile::tempdir().unwrap();
    for (path, synchronous, expected) in [
        (dir.path().join("a.db"), Synchronous::Normal, [Durability::Fsynced, Durability::Fast]),
        (dir.path().join("b.db"), Synchronous::Full, [Durability::Fsynced, Durability::Fsynced]),
        (":memory:".into(), Synchronous::Full, [Durability::Fast, Durability::Fast]),
    ] {
        let broker =
            SqliteBroker::open(&path, SqliteOptions { synchronous, ..SqliteOptions::default() }).await.unwrap();
        let found = [reached(&broker, Durability::Fsynced).await, reached(&broker, Durability::Replicated).await];
        assert_eq!(found, expected, "{}", path.display());
        assert_eq!(reached(&broker, Durability::Fast).await, Durability::Fast);
    }
}
