//! Lanes: tenants in turn, order by key, limits on running and starting.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Cancel, Claimed, Counts, Finish, Settle};
use windlass_jobs::{Limits, NewJob, Options, Priority, Rate, State, Ulid};

use super::{Bench, LONG, SHORT, claimed_ulids, done, error_text, failure, moment, some_jobs, ulids};
use crate::wait_until;

fn with(n: usize, options: &Options) -> Vec<NewJob> {
    let mut jobs = some_jobs(n);
    jobs.iter_mut().for_each(|job| job.options = options.clone());
    jobs
}

fn tenant(name: &str) -> Options {
    Options { tenant: Some(name.into()), ..Options::default() }
}

fn ordered(key: &str) -> Options {
    Options { ordering_key: Some(key.into()), ..Options::default() }
}

fn limited(key: &str) -> Options {
    Options { concurrency_key: Some(key.into()), ..Options::default() }
}

fn rated(key: &str) -> Options {
    Options { rate_key: Some(key.into()), ..Options::default() }
}

fn retry() -> Settle {
    Settle::Retry { delay: SHORT, failures: 1, error: error_text("again") }
}

impl Bench {
    async fn set_limits(&self, limits: Limits) {
        assert_eq!(limits.check(), []);
        self.broker.set_limits(&self.queue, &limits).await.unwrap();
        assert_eq!(self.broker.limits(&self.queue).await.unwrap(), limits);
    }

    /// Finishes all and claims again, in one.
    async fn turn_over(&self, running: &[Claimed], max: usize) -> Vec<Claimed> {
        let finishes = running.iter().map(|c| Finish { lease: c.lease, settle: done() }).collect();
        let reply = self.exchange(finishes, self.claim_of(max, LONG)).await;
        assert!(reply.acks.iter().all(|ack| *ack == Ack::Taken));
        reply.claimed
    }
}

/// One tenant's many jobs, of however many ordering keys, delay another's by one turn each; jobs
/// without a tenant take turns too.
pub async fn tenants_take_turns(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut flood = with(60, &tenant("loud"));
    for (i, job) in flood.iter_mut().enumerate() {
        job.options.ordering_key = Some(format!("order {}", i % 30));
    }
    bench.enqueue(&flood).await;
    let quiet = with(3, &tenant("quiet"));
    bench.enqueue(&quiet).await;
    let plain = bench.enqueue_some(3).await;
    let claimed = claimed_ulids(&bench.claim(14).await);
    for jobs in [&quiet, &plain] {
        let places: Vec<usize> = jobs
            .iter()
            .map(|job| claimed.iter().position(|ulid| *ulid == job.ulid).expect("it had its turn"))
            .collect();
        assert!(places.is_sorted() && places[2] < 12, "{places:?}");
    }
    assert_eq!(bench.counts().await, Counts { pending: 52, running: 14, enqueued_total: 66, ..Counts::default() });
    // High ones still go first.
    let high = with(2, &Options { priority: Priority::High, ..tenant("quiet") });
    bench.enqueue(&high).await;
    assert_eq!(claimed_ulids(&bench.claim(2).await), ulids(&high));
}

/// Jobs of one ordering key run one at a time and in order, through retry, snooze, release and a
/// lost lease; other keys go on.
pub async fn an_ordering_key_holds_its_order(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = with(5, &ordered("a"));
    bench.enqueue(&jobs).await;
    // The key is one, whatever the priority and tenant.
    let other = with(1, &Options { tenant: Some("t".into()), ..ordered("a") });
    bench.enqueue(&other).await;
    let free = with(1, &ordered("b"));
    bench.enqueue(&free).await;
    let claimed = bench.claim(10).await;
    assert_eq!(claimed_ulids(&claimed), [jobs[0].ulid, free[0].ulid]);
    assert!(bench.claim(10).await.is_empty());
    let mut running = claimed[0].lease;
    for ending in [retry(), Settle::Snooze { delay: SHORT }, Settle::Release] {
        assert_eq!(bench.finish(running, ending).await, Ack::Taken);
        moment().await;
        let again = bench.claim(10).await;
        assert_eq!(claimed_ulids(&again), [jobs[0].ulid]);
        running = again[0].lease;
    }
    assert_eq!(bench.finish(running, Settle::Release).await, Ack::Taken);
    assert_eq!(claimed_ulids(&bench.claim_and_lose(10).await), [jobs[0].ulid]);
    let mut running = bench.claim(10).await;
    assert_eq!(claimed_ulids(&running), [jobs[0].ulid]);
    // However it ends, the next goes on; in all of them the key is held by one.
    let mut order = Vec::new();
    for ending in [done(), failure(), Settle::Cancelled { error: error_text("no") }, done(), done(), done()] {
        order.push(running[0].lease.ulid);
        assert_eq!((running.len(), bench.finish(running[0].lease, ending).await), (1, Ack::Taken));
        running = bench.claim(10).await;
    }
    assert!(running.is_empty());
    let of_lane: Vec<Ulid> = order.iter().copied().filter(|ulid| *ulid != other[0].ulid).collect();
    assert_eq!((of_lane, order.len()), (ulids(&jobs), 6));
}

/// A job that waits to run again and is cancelled, or parked, lets the next go on.
pub async fn a_cancelled_retry_frees_its_ordering_key(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = with(3, &ordered("a"));
    bench.enqueue(&jobs).await;
    let later = Settle::Retry { delay: LONG, failures: 1, error: error_text("later") };
    assert_eq!(bench.finish(bench.claim_one().await.lease, later).await, Ack::Taken);
    assert!(bench.claim(5).await.is_empty());
    assert_eq!(bench.cancel(jobs[0].ulid).await, Cancel::Done);
    let second = bench.claim_one().await;
    assert_eq!(second.lease.ulid, jobs[1].ulid);
    assert_eq!(bench.finish(second.lease, super::parked()).await, Ack::Taken);
    assert_eq!(bench.claim_one().await.lease.ulid, jobs[2].ulid);
}

/// So many of a key run at once as the limits say, of the queue too; the limits change while jobs
/// run, and whatever waited goes on.
pub async fn concurrency_is_limited_by_key_and_queue(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let limits = Limits { key_concurrency: Some(2), key_concurrencies: [("b".into(), 1)].into(), ..Limits::default() };
    bench.set_limits(limits.clone()).await;
    let (a, b) = (with(6, &limited("a")), with(3, &limited("b")));
    // Several lanes of one key share its limit.
    let c = with(2, &Options { tenant: Some("t".into()), ..limited("a") });
    for jobs in [&a, &b, &c] {
        bench.enqueue(jobs).await;
    }
    let running = bench.claim(10).await;
    let of = |claimed: &[Claimed], jobs: &[NewJob]| {
        claimed.iter().filter(|c| jobs.iter().any(|job| job.ulid == c.lease.ulid)).count()
    };
    assert_eq!((of(&running, &a) + of(&running, &c), of(&running, &b)), (2, 1));
    assert!(bench.claim(10).await.is_empty());
    assert_eq!(bench.counts().await.pending, 8);
    // A retry gives its place to another; a lost lease too.
    assert_eq!(bench.finish(running[0].lease, retry()).await, Ack::Taken);
    assert_eq!(bench.claim(10).await.len(), 1);
    bench.set_limits(Limits { key_concurrency: Some(4), ..limits.clone() }).await;
    assert_eq!(bench.claim(10).await.len(), 2);
    moment().await;
    bench.set_limits(Limits { concurrency: Some(6), ..Limits::default() }).await;
    let more = bench.claim(10).await;
    assert_eq!(more.len(), 1);
    bench.set_limits(Limits::default()).await;
    let rest = bench.claim(10).await.len();
    assert_eq!(bench.counts().await.pending, 0);
    assert_eq!(running.len() + 1 + 2 + 1 + rest, 12);
}

/// A queue's limit holds for jobs without any key.
pub async fn a_queue_runs_no_more_than_its_limit(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(10).await;
    bench.set_limits(Limits { concurrency: Some(3), ..Limits::default() }).await;
    let mut running = bench.claim(10).await;
    let mut ended = 0;
    while !running.is_empty() {
        assert!(running.len() <= 3 && bench.counts().await.running <= 3);
        assert!(bench.claim(10).await.is_empty());
        ended += running.len();
        running = bench.turn_over(&running, 10).await;
    }
    assert_eq!(ended, 10);
}

/// Starts keep to their rate, after a burst, by key and by queue; the answer says when the next
/// may start.
pub async fn starts_keep_to_their_rate(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let rate = Rate { count: 1, per_ms: 60_000, burst: Some(2) };
    let fast = Rate { count: 1, per_ms: 40, burst: Some(1) };
    bench
        .set_limits(Limits { key_rate: Some(rate), key_rates: [("fast".into(), fast)].into(), ..Limits::default() })
        .await;
    bench.enqueue(&with(4, &rated("slow"))).await;
    bench.enqueue(&with(3, &rated("fast"))).await;
    let reply = bench.exchange(vec![], bench.claim_of(10, LONG)).await;
    assert_eq!(reply.claimed.len(), 3);
    let next = reply.next_due.expect("it says when the next may start");
    assert!(next.since(reply.now) <= Duration::from_millis(40) && next > reply.now, "{next} {}", reply.now);
    for _ in 0..2 {
        wait_until(Duration::from_secs(5), "the next may start", || async { bench.claim(10).await.len() == 1 }).await;
    }
    let reply = bench.exchange(vec![], bench.claim_of(10, LONG)).await;
    assert!(reply.claimed.is_empty());
    let wait = reply.next_due.unwrap().since(reply.now);
    assert!((Duration::from_secs(50)..=Duration::from_secs(60)).contains(&wait), "{wait:?}");
    // The queue's own rate holds for all.
    let other = Bench::new(bench.broker.clone());
    other.enqueue_some(5).await;
    other.set_limits(Limits { rate: Some(rate), ..Limits::default() }).await;
    assert_eq!(other.claim(10).await.len(), 2);
    assert!(other.claim(10).await.is_empty());
    // It is said when the next may start, as long as one waits for it that is not cancelled.
    let left = other.enqueue_some(1).await;
    let next_due = async || other.exchange(vec![], other.claim_of(10, LONG)).await.next_due;
    assert!(next_due().await.is_some());
    other.set_limits(Limits::default()).await;
    assert_eq!(other.claim(3).await.len(), 3);
    other.set_limits(Limits { rate: Some(rate), ..Limits::default() }).await;
    assert!(next_due().await.is_some());
    other.cancel(left[0].ulid).await;
    assert_eq!(next_due().await, None);
}

/// Every combination of options on one job: nothing starves, no limit is passed, what is parked
/// comes back.
pub async fn combined_lanes_all_come_to_their_end(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.set_limits(Limits { concurrency: Some(20), key_concurrency: Some(2), ..Limits::default() }).await;
    let mut jobs = some_jobs(240);
    for (i, job) in jobs.iter_mut().enumerate() {
        let key = |of: usize, name: &str| (i % of != 0).then(|| format!("{name}{}", i % of));
        job.options.tenant = key(5, "t");
        job.options.ordering_key = key(7, "o");
        job.options.concurrency_key = key(4, "c");
        job.options.rate_key = key(3, "r");
        job.options.priority = Priority::ALL[i % 3];
    }
    bench.enqueue(&jobs).await;
    let options: HashMap<Ulid, Options> = jobs.iter().map(|job| (job.ulid, job.options.clone())).collect();
    let (mut running, mut ended): (Vec<Claimed>, Vec<Ulid>) = (vec![], vec![]);
    while ended.len() < jobs.len() {
        let half = running.split_off(running.len() / 2);
        ended.extend(claimed_ulids(&half));
        running.extend(bench.turn_over(&half, 7).await);
        assert!(!running.is_empty() || ended.len() == jobs.len(), "stuck with {} of {}", ended.len(), jobs.len());
        let (mut orders, mut keys) = (BTreeMap::new(), BTreeMap::new());
        for claimed in &running {
            let options = &options[&claimed.lease.ulid];
            *orders.entry(options.ordering_key.clone()).or_insert(0) += i32::from(options.ordering_key.is_some());
            *keys.entry(options.concurrency_key.clone()).or_insert(0) += i32::from(options.concurrency_key.is_some());
        }
        assert!(running.len() <= 20 && orders.values().all(|n| *n <= 1) && keys.values().all(|n| *n <= 2));
    }
    assert_eq!(bench.counts().await, Counts { success_total: 240, enqueued_total: 240, ..Counts::default() });
    assert!(bench.ids(State::Pending).await.is_empty());
    // In order by key, as far as one lane goes.
    for job in &jobs {
        assert_eq!(bench.record(job.ulid).await.options, job.options);
    }
}

/// Jobs in lanes are listed, cancelled, forgotten and replayed as others are.
pub async fn jobs_in_lanes_are_seen_and_controlled(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = with(4, &tenant("a"));
    bench.enqueue(&jobs).await;
    let plain = bench.enqueue_some(1).await;
    let listed = |of: &[NewJob]| plain.iter().chain(of).map(|job| job.ulid).collect::<Vec<_>>();
    assert_eq!(bench.ids(State::Pending).await, listed(&jobs));
    assert_eq!(bench.cancel(jobs[0].ulid).await, Cancel::Done);
    assert_eq!(bench.ids(State::Pending).await, listed(&jobs[1..]));
    assert_eq!(bench.counts().await.pending, 4);
    // A forgotten id that comes again stands at its new place only.
    assert_eq!(bench.broker.delete(&bench.queue, &[jobs[0].ulid]).await.unwrap(), [true]);
    bench.enqueue(&jobs[..1]).await;
    assert_eq!(bench.counts().await.pending, 5);
    let claimed = bench.claim(10).await;
    let of_lane: Vec<Ulid> = claimed_ulids(&claimed).into_iter().filter(|ulid| *ulid != plain[0].ulid).collect();
    assert_eq!(of_lane, [jobs[1].ulid, jobs[2].ulid, jobs[3].ulid, jobs[0].ulid]);
    for claimed in &claimed {
        assert_eq!(bench.finish(claimed.lease, failure()).await, Ack::Taken);
    }
    assert_eq!(bench.broker.replay(&bench.queue, &[jobs[2].ulid, jobs[3].ulid]).await.unwrap(), [true, true]);
    assert_eq!(claimed_ulids(&bench.claim(10).await), [jobs[2].ulid, jobs[3].ulid]);
}
