//! What ends with a run on Redis: said by the process that claimed it, looked up for any other.

use std::time::Duration;

use windlass_broker::redis::RedisBroker;
use windlass_broker::{Control as _, Enqueue as _, Leases as _};
use windlass_jobs::command::{Ack, Claim, Claimed, Exchange, Finish, Settle};
use windlass_jobs::{Lease, Limits, NewJob, Progress, Queue, Reason, Ulid, Unique, Until};
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

/// Of one batch some leases are gone, some are named twice, and some jobs are not there or no jobs any more: each end
/// is judged alone (F48), and what was held is free.
#[tokio::test]
async fn each_end_of_a_mixed_batch_is_judged_alone() {
    let fixture = Fixture::new();
    let worker = fixture.process();
    for laned in [false, true] {
        let mut jobs: Vec<NewJob> = (0..8).map(|n| NewJob::new("noop", &n).unwrap()).collect();
        if laned {
            for job in &mut jobs {
                job.options.ordering_key = Some(job.ulid.to_string());
                job.options.concurrency_key = Some("c".into());
            }
        }
        worker.enqueue(&fixture.queue, &jobs).await.unwrap();
        let held: Vec<Lease> = fixture.claim(&worker, HOUR).await.iter().map(|claimed| claimed.lease).collect();
        assert_eq!(held.len(), 8);
        let key = |k: usize| format!("j:{}", held[k].ulid);
        assert_eq!(fixture.finish(&worker, &held[1..3]).await, [Ack::Taken; 2]);
        // By hand: the third and the fourth are deleted, the sixth is made another type.
        for k in [2, 3, 5] {
            fixture.ask::<u64>("DEL", &key(k), &[]).await;
        }
        fixture.ask::<String>("SET", &key(5), &["damaged"]).await;
        let batch: Vec<Lease> = [0, 1, 3, 4, 0, 5, 6, 2].map(|k| held[k]).into();
        let (taken, stale) = (Ack::Taken, Ack::Stale);
        let acks = fixture.finish(&worker, &batch).await;
        assert_eq!(acks, [taken, stale, taken, taken, stale, taken, taken, stale]);
        for (k, state) in [(0, "success"), (1, "success"), (4, "success"), (6, "success"), (7, "running")] {
            assert_eq!(fixture.ask::<Option<String>>("HGET", &key(k), &["state"]).await.as_deref(), Some(state), "{k}");
        }
        let sixth = held[5].ulid.to_string();
        assert!(fixture.ask::<Option<String>>("ZSCORE", "dead", &[&sixth]).await.is_some(), "the damaged one is seen");
        assert_eq!(fixture.finish(&worker, &held[7..]).await, [taken]);
        assert_eq!(fixture.ask::<u64>("ZCARD", "lease", &[]).await, 0);
        assert_eq!(fixture.noted().await, (0, 0));
    }
}

/// A job that is damaged while it runs ends with any verb, and its neighbours in the batch end as they say (F48).
#[tokio::test]
async fn a_run_of_a_damaged_job_ends_with_any_verb() {
    let error = || r#"{"code":"x","message":"y"}"#.to_owned();
    let delay = Duration::from_secs(60);
    let verbs = [
        Settle::Success { result: None, skipped: false },
        Settle::Success { result: Some("1".into()), skipped: false },
        Settle::Success { result: None, skipped: true },
        Settle::Failure { reason: Reason::Error, failures: 1, error: error() },
        Settle::Retry { delay, failures: 1, error: error() },
        Settle::Snooze { delay },
        Settle::Cancelled { error: error() },
        Settle::Release,
        Settle::Unknown { delay, park_after: delay },
    ];
    for damaged_by in ["SET", "DEL"] {
        for settle in &verbs {
            let fixture = Fixture::new();
            let worker = fixture.process();
            let jobs: Vec<NewJob> = (0..3).map(|n| NewJob::new("noop", &n).unwrap()).collect();
            worker.enqueue(&fixture.queue, &jobs).await.unwrap();
            let held: Vec<Lease> = fixture.claim(&worker, HOUR).await.iter().map(|claimed| claimed.lease).collect();
            let key = |k: usize| format!("j:{}", held[k].ulid);
            fixture.ask::<u64>("DEL", &key(1), &[]).await;
            if damaged_by == "SET" {
                fixture.ask::<String>("SET", &key(1), &["damaged"]).await;
            }
            let finishes = held.iter().map(|&lease| Finish { lease, settle: settle.clone() }).collect();
            let reply = worker.exchange(&fixture.queue, &Exchange { finishes, claim: None }).await.unwrap();
            assert_eq!(reply.acks, [Ack::Taken; 3], "{settle:?}");
            let first = fixture.ask::<Option<String>>("HGET", &key(0), &["state"]).await;
            let last = fixture.ask::<Option<String>>("HGET", &key(2), &["state"]).await;
            assert_eq!(first, last, "{settle:?}");
            assert_ne!(first.as_deref(), Some("running"), "{settle:?}");
            let dead: Option<String> = fixture.ask("ZSCORE", "dead", &[&held[1].ulid.to_string()]).await;
            assert!(damaged_by == "DEL" || dead.is_some(), "{settle:?}: the damaged one is seen");
        }
    }
}

/// A damaged job among those whose leases are renewed, that are tidied away or that are parked: its neighbours do not
/// notice (F48).
#[tokio::test]
async fn no_verb_stops_at_a_damaged_job() {
    let fixture = Fixture::new();
    let worker = fixture.process();
    let queue = &fixture.queue;
    let jobs: Vec<NewJob> = (0..3).map(|n| NewJob::new("noop", &n).unwrap()).collect();
    let damage = async |ulid: Ulid| {
        let key = format!("j:{ulid}");
        fixture.ask::<u64>("DEL", &key, &[]).await;
        fixture.ask::<String>("SET", &key, &["damaged"]).await;
    };

    worker.enqueue(queue, &jobs).await.unwrap();
    let held: Vec<Lease> = fixture.claim(&worker, HOUR).await.iter().map(|claimed| claimed.lease).collect();
    damage(held[1].ulid).await;
    assert_eq!(worker.renew(queue, &held, HOUR).await.unwrap(), [Ack::Taken; 3]);
    let progress = Progress { percent: 50.0, message: String::new() };
    assert_eq!(worker.progress(queue, held[1], &progress).await.unwrap(), Ack::Taken);
    assert_eq!(fixture.finish(&worker, &held).await, [Ack::Taken; 3]);

    damage(held[0].ulid).await;
    assert_eq!(worker.tidy(queue, Duration::ZERO, HOUR).await.unwrap(), 2);
    assert_eq!(fixture.ask::<u64>("LLEN", "done", &[]).await, 0);

    let jobs: Vec<NewJob> = (0..3).map(|n| NewJob::new("noop", &n).unwrap()).collect();
    worker.enqueue(queue, &jobs).await.unwrap();
    let held: Vec<Lease> = fixture.claim(&worker, HOUR).await.iter().map(|claimed| claimed.lease).collect();
    let settle = || Settle::Unknown { delay: Duration::ZERO, park_after: Duration::ZERO };
    let finishes = held.iter().map(|&lease| Finish { lease, settle: settle() }).collect();
    worker.exchange(queue, &Exchange { finishes, claim: None }).await.unwrap();
    damage(held[1].ulid).await;
    assert_eq!(worker.unpark(queue, &["noop".into()]).await.unwrap(), 2);
    assert_eq!(fixture.claim(&worker, HOUR).await.len(), 2);
}
