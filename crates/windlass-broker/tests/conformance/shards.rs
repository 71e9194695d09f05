//! Queues that are spread over shards, on each engine; on a cluster over its nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use windlass_broker::redis::RedisBroker;
use windlass_broker::{Sharded, SharedBroker};
use windlass_jobs::command::{Cancel, Claim, Exchange, Filter, Finish, Settle};
use windlass_jobs::{JobId, NewJob, Queue, Reason, State, Ulid};
use windlass_redis::{Link, Options};

const SHARDS: u16 = 5;

fn queue() -> Queue {
    Queue::new("bulk").unwrap()
}

fn over(inner: SharedBroker) -> SharedBroker {
    Sharded::over(inner, BTreeMap::from([(queue(), SHARDS)]))
}

fn on_redis(url: &str) -> SharedBroker {
    let prefix = format!("t{}", windlass_jobs::new_ulid());
    Arc::new(RedisBroker::new(Link::new(Options::from_url(url).unwrap()).unwrap(), &prefix))
}

/// Claims what every shard has, and ends each with what `settle` says.
async fn work(broker: &SharedBroker, settle: impl Fn(Ulid) -> Settle) -> BTreeMap<Queue, Vec<Ulid>> {
    let mut done = BTreeMap::new();
    for shard in queue().spread(SHARDS) {
        let claim = Claim {
            worker: "w".into(),
            max: 100,
            lease: Duration::from_secs(60),
            grace: false,
            sent_at: None,
            quotas: None,
        };
        let mut finishes = Vec::new();
        loop {
            let exchange = Exchange { finishes, claim: Some(claim.clone()) };
            let claimed = broker.exchange(&shard, &exchange).await.unwrap().claimed;
            if claimed.is_empty() {
                break;
            }
            let ulids = claimed.iter().map(|job| job.lease.ulid);
            done.entry(shard.clone()).or_insert_with(Vec::new).extend(ulids);
            let finish =
                |job: &windlass_jobs::command::Claimed| Finish { lease: job.lease, settle: settle(job.lease.ulid) };
            finishes = claimed.iter().map(finish).collect();
        }
    }
    done
}

/// Every page of a list.
async fn all(broker: &SharedBroker, state: State, limit: usize) -> Vec<Ulid> {
    let (mut cursor, mut ids) = (0, Vec::new());
    loop {
        let page = broker.list(&queue(), state, cursor, limit).await.unwrap();
        assert!(page.ids.len() <= limit);
        ids.extend(page.ids);
        match page.next {
            Some(next) => cursor = next,
            None => return ids,
        }
    }
}

async fn one_queue_to_whoever_looks(broker: SharedBroker) {
    let jobs: Vec<NewJob> = (0..200).map(|n| NewJob::new("noop", &n).unwrap()).collect();
    let ids: BTreeSet<Ulid> = jobs.iter().map(|job| job.ulid).collect();
    let replies = broker.enqueue(&queue(), &jobs).await.unwrap();
    assert!(replies.iter().zip(&jobs).all(|(reply, job)| reply.fresh && reply.ulid == job.ulid), "in order");
    assert!(
        broker.enqueue(&queue(), &jobs).await.unwrap().iter().all(|reply| !reply.fresh),
        "a repeat meets its first"
    );
    assert_eq!(broker.queues().await.unwrap(), [queue()]);
    assert_eq!(broker.counts(&queue()).await.unwrap().pending, 200);
    for limit in [7, 500] {
        let listed = all(&broker, State::Pending, limit).await;
        assert_eq!((listed.len(), listed.into_iter().collect::<BTreeSet<_>>()), (200, ids.clone()));
    }
    let found = broker.search(&queue(), &Filter::of(State::Pending), 0, 150).await.unwrap();
    let rest = broker.search(&queue(), &Filter::of(State::Pending), found.next.unwrap(), 150).await.unwrap();
    assert_eq!((found.ids.len(), rest.ids.len(), rest.next), (150, 50, None));

    // A job is found by its queue alone, and its record says where it is.
    let record = broker.get(&JobId::new(jobs[0].ulid, queue())).await.unwrap().unwrap();
    assert!(record.id.queue.is_shard(), "{}", record.id);
    assert_eq!(broker.get(&record.id).await.unwrap().unwrap(), record);
    assert_eq!(broker.cancel(&JobId::new(jobs[1].ulid, queue())).await.unwrap(), Cancel::Done);
    assert_eq!(broker.cancel(&JobId::new(windlass_jobs::new_ulid(), queue())).await.unwrap(), Cancel::Unknown);

    broker.pause(&queue(), true).await.unwrap();
    assert!(broker.counts(&queue()).await.unwrap().paused);
    assert!(work(&broker, |_| Settle::Release).await.is_empty());
    broker.pause(&queue(), false).await.unwrap();

    let error = r#"{"code":"x","message":"y"}"#.to_owned();
    let failing: BTreeSet<Ulid> = jobs[2..12].iter().map(|job| job.ulid).collect();
    let done = work(&broker, |ulid| match failing.contains(&ulid) {
        true => Settle::Failure { reason: Reason::Error, failures: 1, error: error.clone() },
        false => Settle::Success { result: None, skipped: false },
    })
    .await;
    assert_eq!((done.len(), done.values().map(Vec::len).sum::<usize>()), (usize::from(SHARDS), 199));
    let counts = broker.counts(&queue()).await.unwrap();
    assert_eq!((counts.pending, counts.dead, counts.success_total, counts.cancelled_total), (0, 10, 189, 1));

    let dead: Vec<Ulid> = failing.iter().copied().collect();
    assert_eq!(broker.replay(&queue(), &dead[..4]).await.unwrap(), [true; 4]);
    assert_eq!(
        broker.delete(&queue(), &dead).await.unwrap(),
        [false, false, false, false, true, true, true, true, true, true]
    );
    assert_eq!(broker.counts(&queue()).await.unwrap().pending, 4);
    assert!(broker.tidy(&queue(), Duration::ZERO, Duration::ZERO).await.unwrap() >= 190);

    broker.set_max_waiting(&queue(), Some(50)).await.unwrap();
    assert_eq!(broker.counts(&queue()).await.unwrap().max_waiting, Some(50));
    let limits = windlass_jobs::Limits { key_concurrency: Some(1), ..windlass_jobs::Limits::default() };
    broker.set_limits(&queue(), &limits).await.unwrap();
    assert_eq!(broker.limits(&queue()).await.unwrap(), limits);
}

/// Jobs of one key meet on one shard: a unique key holds, an order is kept.
async fn keys_meet(broker: SharedBroker) {
    let laned = |n: usize, unique: bool| {
        let mut job = NewJob::new("noop", &n).unwrap();
        match unique {
            true => job.options.unique = Some(windlass_jobs::Unique::new("u")),
            false => job.options.ordering_key = Some("o".into()),
        }
        job
    };
    let first = broker.enqueue(&queue(), &[laned(0, true)]).await.unwrap();
    for n in 1..10 {
        let clash = broker.enqueue(&queue(), &[laned(n, true)]).await.unwrap()[0].clash;
        assert_eq!(clash.map(|clash| clash.with), Some(first[0].ulid));
    }
    let ordered: Vec<NewJob> = (0..20).map(|n| laned(n, false)).collect();
    broker.enqueue(&queue(), &ordered).await.unwrap();
    let done = work(&broker, |_| Settle::Success { result: None, skipped: false }).await;
    let ran: Vec<Ulid> = done.into_values().flatten().filter(|ulid| *ulid != first[0].ulid).collect();
    assert_eq!(ran, ordered.iter().map(|job| job.ulid).collect::<Vec<_>>());
}

#[tokio::test]
async fn on_redis_a_sharded_queue_is_one() {
    one_queue_to_whoever_looks(over(on_redis(&windlass_testkit::shared_redis().url()))).await;
    keys_meet(over(on_redis(&windlass_testkit::shared_redis().url()))).await;
}

#[tokio::test]
async fn on_a_cluster_a_sharded_queue_is_one_on_several_nodes() {
    let cluster = windlass_testkit::shared_cluster();
    one_queue_to_whoever_looks(over(on_redis(&cluster.url()))).await;
    keys_meet(over(on_redis(&cluster.url()))).await;
    let holders: BTreeSet<u16> =
        queue().spread(SHARDS).iter().map(|shard| cluster.holder(&format!("wl:{{{shard}}}:meta")).port()).collect();
    assert!(holders.len() > 1, "all shards lie on one node");
}

#[tokio::test]
async fn on_the_model_a_sharded_queue_is_one() {
    one_queue_to_whoever_looks(over(Arc::new(windlass_testkit::ModelBroker::default()))).await;
    keys_meet(over(Arc::new(windlass_testkit::ModelBroker::default()))).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn in_a_file_a_sharded_queue_is_one() {
    use windlass_broker::sqlite::{SqliteBroker, SqliteOptions};
    for test in [0, 1] {
        let path = std::path::Path::new(":memory:");
        let broker = SqliteBroker::open(path, SqliteOptions::default()).await.unwrap();
        match test {
            0 => one_queue_to_whoever_looks(over(Arc::new(broker))).await,
            _ => keys_meet(over(Arc::new(broker))).await,
        }
    }
}
