//! The bridge against real Redis servers, stock apalis-redis producers and workers, and messages
//! recorded from Celery.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod apalis;
mod celery;

use std::sync::Arc;
use std::time::Duration;

use windlass_bridge::{AnySource, Bridge, Options};
use windlass_broker::redis::RedisBroker;
use windlass_broker::{Leases as _, SharedBroker};
use windlass_jobs::command::{Claim, Claimed, Exchange, Exchanged, Finish, Settle};
use windlass_jobs::{Progress, Queue};
use windlass_redis::{FromRedisValue, Link, cmd};
use windlass_testkit::RedisServer;

/// How long anything that should happen soon may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A Redis with a queue and sources, and the bridge between them.
struct Place {
    redis: RedisServer,
    link: Link,
    broker: Arc<RedisBroker>,
    queue: Queue,
}

impl Place {
    fn new() -> Self {
        Self::on(RedisServer::start())
    }

    fn on(redis: RedisServer) -> Self {
        let link = Link::new(windlass_redis::Options::from_url(&redis.url()).unwrap()).unwrap();
        let broker = Arc::new(RedisBroker::new(link.clone(), "wl"));
        Self { redis, link, broker, queue: Queue::new("q").unwrap() }
    }

    fn shared(&self) -> SharedBroker {
        Arc::<RedisBroker>::clone(&self.broker)
    }

    fn bridge(&self, source: &AnySource) -> Bridge {
        bridge(&self.shared(), source)
    }

    async fn call<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut call = cmd(words[0]);
        for word in &words[1..] {
            call.arg(*word);
        }
        T::from_redis_value(self.link.call(&call).await.unwrap()).unwrap()
    }

    /// An exchange, again while the server comes back.
    async fn exchange(&self, exchange: &Exchange) -> Exchanged {
        let begun = std::time::Instant::now();
        loop {
            match self.broker.exchange(&self.queue, exchange).await {
                Ok(exchanged) => return exchanged,
                Err(error) => assert!(begun.elapsed() < SOON, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Claims up to so many jobs.
    async fn claim(&self, max: usize) -> Vec<Claimed> {
        let claim = Claim {
            worker: "w".into(),
            max,
            lease: Duration::from_secs(60),
            grace: false,
            sent_at: None,
            quotas: None,
        };
        let exchange = Exchange { finishes: Vec::new(), claim: Some(claim) };
        self.exchange(&exchange).await.claimed
    }

    /// Waits for one job.
    async fn claim_one(&self) -> Claimed {
        let begun = std::time::Instant::now();
        loop {
            if let Some(claimed) = self.claim(1).await.pop() {
                return claimed;
            }
            assert!(begun.elapsed() < SOON, "no job came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn finish(&self, jobs: &[Claimed], settle: Settle) {
        let finish = |job: &Claimed| Finish { lease: job.lease, settle: settle.clone() };
        let exchange = Exchange { finishes: jobs.iter().map(finish).collect(), claim: None };
        self.exchange(&exchange).await;
    }

    async fn succeed(&self, jobs: &[Claimed], value: serde_json::Value) {
        let result = Some(serde_json::json!({ "value": value, "cached": false }).to_string());
        self.finish(jobs, Settle::Success { result, skipped: false }).await;
    }

    async fn say(&self, job: &Claimed, percent: f32, message: &str) {
        self.broker.progress(&self.queue, job.lease, &Progress::new(percent, message)).await.unwrap();
    }

    /// Runs whatever comes until the source holds nothing in custody and so many have ended; answers
    /// how often each job was claimed.
    async fn drain(&self, source: &Self, base: &str, expected: usize) -> Vec<Claimed> {
        let begun = std::time::Instant::now();
        let mut all = Vec::new();
        loop {
            let claimed = self.claim(100).await;
            self.succeed(&claimed, serde_json::json!(1)).await;
            all.extend(claimed);
            let open: usize = source.call(&["ZCARD", &format!("{base}:windlass:open")]).await;
            if all.len() >= expected && open == 0 {
                return all;
            }
            assert!(begun.elapsed() < SOON * 2, "{} of {expected} came, {open} are open", all.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn bridge(broker: &SharedBroker, source: &AnySource) -> Bridge {
    let options = Options { poll: Duration::from_millis(10), hold: Duration::from_millis(300) };
    Bridge::start(broker, vec![source.clone()], Arc::new(|_| None), &options)
}

/// A user of both sources needs no more rights than docs/bridges.md lists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_are_enough() {
    let place = Place::new();
    let docs = include_str!("../../../../docs/bridges.md");
    let rights = docs.rsplit("```").nth(1).unwrap();
    let mut user = vec!["ACL", "SETUSER", "bridge", "on", ">secret", "~old:*", "~celery*", "~unacked*", "&tasks:old:*"];
    user.extend(["~_kombu.binding.*", "&/0.celery.pidbox", "&celery-task-meta-*"]);
    user.extend(rights.split_whitespace());
    place.call::<()>(&user).await;
    let url = place.redis.url().replace("redis://", "redis://bridge:secret@");
    let link = Link::new(windlass_redis::Options::from_url(&url).unwrap()).unwrap();
    let queue = || Some(place.queue.clone());
    let route = windlass_bridge::ApalisRoute { namespace: "old".into(), kind: "a.b".into(), queue: queue() };
    let celery = windlass_bridge::CeleryQueue { name: "celery".into(), queue: queue() };
    let results = windlass_bridge::CeleryOptions { results: Some(link.clone()), ..Default::default() };
    let sources = [AnySource::apalis(link.clone(), route), AnySource::celery(link.clone(), celery, results).unwrap()];
    place.call::<i64>(&["HSET", "old:data", "one", "1"]).await;
    place.call::<i64>(&["ZADD", "old:scheduled", "1", "one"]).await;
    place.call::<i64>(&["RPUSH", "old:active", "nothing"]).await;
    let message = include_str!("../golden/messages.jsonl").lines().next().unwrap();
    place.call::<i64>(&["LPUSH", "celery", message, "garbage"]).await;
    let old = format!("[{message},\"exchange\",\"key\"]").replace("2859cf22", "2859cf23");
    place.call::<i64>(&["SADD", "_kombu.binding.exchange", "key\u{6}\u{16}\u{6}\u{16}celery"]).await;
    place.call::<i64>(&["HSET", "unacked", "tag", &old]).await;
    place.call::<i64>(&["ZADD", "unacked_index", "1", "tag"]).await;
    let bridges = [place.bridge(&sources[0]), place.bridge(&sources[1])];
    for _ in 0..3 {
        let job = place.claim_one().await;
        place.succeed(&[job], serde_json::json!(1)).await;
    }
    for base in ["old", "celery"] {
        windlass_testkit::wait_until(SOON, "all is told", || async {
            place.call::<usize>(&["ZCARD", &format!("{base}:windlass:open")]).await == 0
        })
        .await;
    }
    assert_eq!(place.call::<Vec<String>>(&["KEYS", "celery-task-meta-*"]).await.len(), 2);
    for (source, bridge) in sources.iter().zip(bridges) {
        assert_eq!(source.refused(5).await.unwrap().len(), 1, "{source:?}");
        assert!(bridge.counters().metrics().contains(&format!("errors_total{{source=\"{}\"}} 0", source.name())));
        bridge.stop().await;
    }
}

/// F-rows of the bridge: it is killed again and again, wherever it stands; every job becomes one
/// job and is answered.
async fn kill_and_go_on(place: &Place, source: impl Fn(Link) -> AnySource, base: &str, jobs: usize) {
    let url = place.redis.url();
    for round in 0..25_u64 {
        let options = windlass_redis::Options::from_url(&url).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let link = Link::new(options).unwrap();
        let broker: SharedBroker = Arc::new(RedisBroker::new(link.clone(), "wl"));
        let source = source(link);
        let guard = runtime.enter();
        let running = bridge(&broker, &source);
        drop(guard);
        tokio::time::sleep(Duration::from_micros(1_500 + round * 1_300)).await;
        // Nothing runs to its end: every future is dropped where it waits.
        runtime.shutdown_background();
        drop(running);
        let claimed = place.claim(20).await;
        place.succeed(&claimed, serde_json::json!(1)).await;
    }
    let early =
        usize::try_from(windlass_broker::Inspect::counts(&*place.broker, &place.queue).await.unwrap().success_total);
    let bridge = place.bridge(&source(place.link.clone()));
    place.drain(place, base, jobs - early.unwrap()).await;
    bridge.stop().await;
    let counts = windlass_broker::Inspect::counts(&*place.broker, &place.queue).await.unwrap();
    let jobs = u64::try_from(jobs).unwrap();
    assert_eq!((counts.enqueued_total, counts.success_total), (jobs, jobs), "each once");
    for name in ["jobs", "held"] {
        let left: usize = place.call(&["HLEN", &format!("{base}:windlass:{name}")]).await;
        assert_eq!(left, 0, "{name}");
    }
}
