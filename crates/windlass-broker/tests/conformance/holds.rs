//! What ends with a run on Redis: said by the process that claimed it, looked up for any other.

use std::time::Duration;

use windlass_broker::redis::RedisBroker;
use windlass_broker::{Control as _, Enqueue as _, Leases as _};
use windlass_jobs::command::{Ack, Claim, Claimed, Exchange, Finish, Settle};
use windlass_jobs::{Lease, Limits, NewJob, Queue, Unique, Until};
use windlass_redis::{FromRedisValue, Link, Options, cmd};

/// One queue, on the server of this process, under a prefix of its own.
struct Fixture {
    link: Link,
    prefix: String,
    queue: Queue,
}

impl Fixture {
    fn new() -> Self {
        let link = Link::new(Options::from_url(&windlass_testkit::shared_redis().url()).unwrap()).unwrap();
        Self { link, prefix: format!("t{}", windlass_jobs::new_ulid()), queue: Queue::new("q").unwrap() }
    }

    /// A process that has claimed nothing yet.
    fn process(&self) -> RedisBroker {
        RedisBroker::new(self.link.clone(), &self.prefix)
    }

    async fn ask<T: FromRedisValue>(&self, verb: &str, key: &str, words: &[&str]) -> T {
        let mut call = cmd(verb);
        call.arg(format!("{}:{{q}}:{key}", self.prefix)).arg(words);
        T::from_redis_value(self.link.call(&call).await.unwrap()).unwrap()
    }

    async fn claim(&self, by: &RedisBroker, lease: Duration) -> Vec<Claimed> {
        let claim = Claim { worker: "w".into(), max: 10, lease, grace: false, sent_at: None, quotas: None };
        by.exchange(&self.queue, &Exchange { finishes: vec![], claim: Some(claim) }).await.unwrap().claimed
    }

    async fn finish(&self, by: &RedisBroker, leases: &[Lease]) -> Vec<Ack> {
        let settle = || Settle::Success { result: None, skipped: false };
        let finishes = leases.iter().map(|&lease| Finish { lease, settle: settle() }).collect();
        by.exchange(&self.queue, &Exchange { finishes, claim: None }).await.unwrap().acks
    }

    /// What is noted of keys that are held, but for what keeps the hashes long.
    async fn noted(&self) -> (u64, u64) {
        (
            self.ask::<u64>("HLEN", "orders", &[]).await - self.ask::<u64>("HEXISTS", "orders", &[""]).await,
            self.ask::<u64>("HLEN", "conc", &[]).await - self.ask::<u64>("HEXISTS", "conc", &[""]).await,
        )
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Two jobs of each kind of hold; of each two the second has to wait for the first.
fn jobs() -> Vec<NewJob> {
    (0..6)
        .map(|n| {
            let mut job = NewJob::new("noop", &n).unwrap();
            let options = &mut job.options;
            match n % 3 {
                0 => options.ordering_key = Some("o".into()),
                1 => options.concurrency_key = Some("c".into()),
                _ => {
                    options.ordering_key = Some("both".into());
                    options.concurrency_key = Some("both".into());
                }
            }
            job
        })
        .collect()
}

fn unique() -> NewJob {
    let mut job = NewJob::new("noop", &()).unwrap();
    job.options.unique = Some(Unique { until: Until::Finished, ..Unique::new("u") });
    job
}

async fn one_of_each_key(broker: &RedisBroker, queue: &Queue) {
    let limits = Limits { key_concurrency: Some(1), ..Limits::default() };
    broker.set_limits(queue, &limits).await.unwrap();
    broker.enqueue(queue, &jobs()).await.unwrap();
    broker.enqueue(queue, &[unique()]).await.unwrap();
}

#[tokio::test]
async fn a_run_lets_go_what_it_held_whoever_says_that_it_has_ended() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.process(), fixture.process());
    for ends in [&first, &second] {
        one_of_each_key(&first, &fixture.queue).await;
        for left in [3, 0] {
            let leases: Vec<Lease> = fixture.claim(&first, HOUR).await.iter().map(|claimed| claimed.lease).collect();
            assert_eq!(leases.len(), if left == 0 { 3 } else { 4 });
            assert_eq!(fixture.noted().await, (2, 2));
            // One of them stands twice: the first time counts.
            let twice: Vec<Lease> = leases.iter().chain(&leases[..1]).copied().collect();
            let mut acks = vec![Ack::Taken; leases.len()];
            acks.push(Ack::Stale);
            assert_eq!(fixture.finish(ends, &twice).await, acks);
            assert_eq!(fixture.noted().await, (0, 0));
        }
        assert_eq!(fixture.ask::<u64>("EXISTS", "u:u", &[]).await, 0);
    }
}

/// A queue that was written by a version which kept what runs hold in a hash of its own.
#[tokio::test]
async fn what_the_version_before_noted_of_runs_is_not_missed() {
    let fixture = Fixture::new();
    let (before, after) = (fixture.process(), fixture.process());
    one_of_each_key(&before, &fixture.queue).await;
    let leases: Vec<Lease> = fixture.claim(&before, HOUR).await.iter().map(|claimed| claimed.lease).collect();
    fixture.ask::<u64>("HSET", "meta", &["format", "2"]).await;
    fixture.ask::<u64>("HSET", "held", &[&leases[0].ulid.to_string(), "1\t\to\t\t\n"]).await;
    assert_eq!(fixture.finish(&after, &leases).await, [Ack::Taken; 4]);
    assert_eq!(fixture.noted().await, (0, 0));
    assert_eq!(fixture.ask::<Option<String>>("HGET", "meta", &["format"]).await.as_deref(), Some("3"));
    assert_eq!(fixture.ask::<u64>("EXISTS", "held", &[]).await, 0);
    assert_eq!(fixture.claim(&after, HOUR).await.len(), 3, "those that waited go on");
}

/// Jobs that ran and are not there any more: their leases end, nothing says what they held, and nobody
/// waits for them for ever.
#[tokio::test]
async fn what_a_lost_job_held_is_found_out_by_what_the_others_hold() {
    let fixture = Fixture::new();
    let (dying, living) = (fixture.process(), fixture.process());
    one_of_each_key(&dying, &fixture.queue).await;
    let lost = fixture.claim(&dying, Duration::from_millis(1)).await;
    assert_eq!(lost.len(), 4);
    for claimed in &lost {
        let key = format!("j:{}", claimed.lease.ulid);
        fixture.ask::<u64>("DEL", &key, &[]).await;
        fixture.ask::<String>("SET", &key, &["damaged"]).await;
    }
    let their_leases_have_ended = async {
        loop {
            let waited = fixture.claim(&living, HOUR).await;
            if !waited.is_empty() {
                return waited;
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), their_leases_have_ended).await.unwrap();
    assert_eq!(waited.len(), 3, "those that waited for them");
    assert_eq!(fixture.noted().await, (2, 2));
}
