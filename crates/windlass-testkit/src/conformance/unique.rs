//! Jobs of which there is only one.

use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Cancel, Clash, Counts, Enqueued, Finish, Settle};
use windlass_jobs::{NewJob, OnClash, Options, Priority, State, Ulid, Unique, Until, When};

use super::{Bench, LONG, SHORT, claimed_ulids, done, error_text, failure, moment, some_jobs};
use crate::wait_until;

fn job(args: u32, unique: Unique) -> NewJob {
    let mut job = NewJob::new("noop", &args).unwrap();
    job.options.unique = Some(unique);
    job
}

fn until(until: Until) -> Unique {
    Unique { until, ..Unique::new("k") }
}

fn replacing() -> Unique {
    Unique { on_clash: OnClash::Replace, ..Unique::new("k") }
}

impl Bench {
    async fn enqueue_one(&self, job: &NewJob) -> Enqueued {
        self.broker.enqueue(&self.queue, std::slice::from_ref(job)).await.unwrap()[0]
    }

    /// Enqueues a job that another must keep out.
    async fn is_kept_out_by(&self, with: Ulid, unique: Unique) {
        let second = job(2, unique);
        let clash = Some(Clash { with, replaced: false });
        assert_eq!(self.enqueue_one(&second).await, Enqueued { clash, ..Enqueued::known(second.ulid) });
        assert_eq!(self.broker.get(&self.id(second.ulid)).await.unwrap(), None);
    }

    /// Enqueues a job whose key must be free.
    async fn is_taken(&self, unique: Unique) -> Ulid {
        let job = job(1, unique);
        assert_eq!(self.enqueue_one(&job).await, Enqueued::fresh(job.ulid));
        job.ulid
    }
}

/// While a job with the key is there, another is not accepted, and the answer names the first;
/// however the job ends, the key is free.
pub async fn a_unique_job_is_the_only_one(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let endings = [
        done(),
        failure(),
        Settle::Cancelled { error: error_text("no") },
        Settle::Success { result: Some("1".into()), skipped: true },
    ];
    for ending in endings {
        let first = bench.is_taken(until(Until::Finished)).await;
        bench.is_kept_out_by(first, until(Until::Finished)).await;
        let claimed = bench.claim_one().await;
        assert_eq!(claimed.lease.ulid, first);
        bench.is_kept_out_by(first, until(Until::Started)).await;
        let retry = Settle::Retry { delay: SHORT, failures: 1, error: error_text("again") };
        assert_eq!(bench.finish(claimed.lease, retry).await, Ack::Taken);
        bench.is_kept_out_by(first, until(Until::Ttl)).await;
        moment().await;
        let again = bench.claim_one().await;
        assert_eq!(bench.finish(again.lease, ending).await, Ack::Taken);
    }
    // Cancelled where it waits.
    let first = bench.is_taken(until(Until::Finished)).await;
    assert_eq!(bench.cancel(first).await, Cancel::Done);
    // Lost too often.
    let first = bench.is_taken(until(Until::Finished)).await;
    for _ in 0..3 {
        assert_eq!(claimed_ulids(&bench.claim_and_lose(1).await), [first]);
        bench.is_kept_out_by(first, until(Until::Finished)).await;
    }
    assert!(bench.claim(0).await.is_empty());
    assert_eq!(bench.record(first).await.state, State::Failure);
    // Expired.
    let mut late = job(1, until(Until::Finished));
    late.options.expires = When::After(SHORT);
    assert!(bench.enqueue_one(&late).await.fresh);
    moment().await;
    assert!(bench.claim(1).await.is_empty());
    let last = bench.is_taken(until(Until::Finished)).await;
    // Other keys and other queues do not mix.
    assert!(bench.enqueue_one(&job(1, Unique::new("other"))).await.fresh);
    let other = Bench::new(bench.broker.clone());
    other.is_taken(until(Until::Finished)).await;
    assert_eq!(bench.counts().await.pending, 2);
    bench.is_kept_out_by(last, until(Until::Finished)).await;
}

/// A key that is held until the start is free from the first claim on.
pub async fn a_unique_key_is_free_at_the_start(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let first = bench.is_taken(until(Until::Started)).await;
    bench.is_kept_out_by(first, until(Until::Started)).await;
    let running = bench.claim_one().await;
    let second = bench.is_taken(until(Until::Started)).await;
    // The first comes back: the key stays with the second.
    assert_eq!(bench.finish(running.lease, Settle::Release).await, Ack::Taken);
    let again = bench.claim_one().await;
    assert_eq!(again.lease.ulid, first);
    bench.is_kept_out_by(second, until(Until::Started)).await;
    assert_eq!(bench.finish(again.lease, done()).await, Ack::Taken);
    bench.is_kept_out_by(second, until(Until::Started)).await;
    assert_eq!(bench.cancel(second).await, Cancel::Done);
    bench.is_taken(until(Until::Started)).await;
}

/// A key that is held for a time outlives its job; any hold is over with its time.
pub async fn a_unique_key_is_held_for_its_time(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let first = bench.is_taken(until(Until::Ttl)).await;
    let claimed = bench.claim_one().await;
    assert_eq!(bench.finish(claimed.lease, done()).await, Ack::Taken);
    bench.is_kept_out_by(first, until(Until::Ttl)).await;
    assert_eq!(bench.broker.delete(&bench.queue, &[first]).await.unwrap(), [true]);
    bench.is_kept_out_by(first, until(Until::Finished)).await;
    let short = Unique { ttl: Duration::from_millis(60), ..Unique::new("short") };
    let held = bench.is_taken(short.clone()).await;
    bench.is_kept_out_by(held, short.clone()).await;
    wait_until(Duration::from_secs(5), "the hold is over", || async {
        bench.enqueue_one(&job(3, short.clone())).await.fresh
    })
    .await;
}

/// A job that replaces another takes its place: its id, its priority, its turn.
pub async fn a_unique_job_is_replaced_in_its_place(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let before = bench.enqueue_some(1).await;
    let mut first = job(1, replacing());
    first.options.labels = [("old".into(), "1".into())].into();
    first.options.max_attempts = Some(9);
    first.options.expires = When::After(LONG);
    assert!(bench.enqueue_one(&first).await.fresh);
    bench.enqueue_some(1).await;
    let mut second = NewJob::new("other", &"x".repeat(5_000)).unwrap();
    second.options = Options {
        priority: Priority::High,
        timeout: Some(Duration::from_secs(7)),
        labels: [("new".into(), "2".into())].into(),
        unique: Some(replacing()),
        ..Options::default()
    };
    let clash = Some(Clash { with: first.ulid, replaced: true });
    assert_eq!(bench.enqueue_one(&second).await, Enqueued { clash, ..Enqueued::known(second.ulid) });
    let record = bench.record(first.ulid).await;
    assert_eq!((record.kind.as_str(), record.args.as_str()), ("other", second.args.get()));
    assert_eq!(record.options, Options { priority: Priority::Normal, ..second.options.clone() });
    assert_eq!((record.expires_at, record.max_attempts), (None, windlass_jobs::DEFAULT_MAX_ATTEMPTS));
    // Small args take the place of large ones.
    let third = job(3, replacing());
    assert_eq!(bench.enqueue_one(&third).await.clash, clash);
    assert_eq!(bench.counts().await, Counts { pending: 3, enqueued_total: 3, ..Counts::default() });
    let claimed = bench.claim(2).await;
    assert_eq!(claimed_ulids(&claimed), [before[0].ulid, first.ulid]);
    assert_eq!((claimed[1].args.as_str(), claimed[1].kind.as_str()), ("3", "noop"));
    // What runs is left alone.
    assert_eq!(bench.enqueue_one(&second).await.clash, Some(Clash { with: first.ulid, replaced: false }));
    assert_eq!(bench.record(first.ulid).await.args, "3");
}

/// Each enqueue within the debounce moves the job on, up to a maximum, and never brings another.
pub async fn a_debounced_job_moves_up_to_its_maximum(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let debounced =
        |args, delay| NewJob { when: When::After(delay), ..job(args, Unique { debounce: Some(LONG), ..replacing() }) };
    let first = debounced(1, LONG / 4);
    assert!(bench.enqueue_one(&first).await.fresh);
    let created_at = bench.record(first.ulid).await.created_at;
    assert_eq!(
        bench.enqueue_one(&debounced(2, LONG / 2)).await.clash,
        Some(Clash { with: first.ulid, replaced: true })
    );
    let record = bench.record(first.ulid).await;
    assert!(record.run_at.unwrap() >= created_at.plus(LONG / 2), "{record:?}");
    assert_eq!(record.args, "2");
    bench.enqueue_one(&debounced(3, LONG * 4)).await;
    assert_eq!(bench.record(first.ulid).await.run_at, Some(created_at.plus(LONG)));
    assert_eq!(bench.counts().await, Counts { scheduled: 1, enqueued_total: 1, ..Counts::default() });
    // At once: it runs now.
    bench.enqueue_one(&debounced(4, Duration::ZERO)).await;
    let claimed = bench.claim_one().await;
    assert_eq!((claimed.lease.ulid, claimed.args.as_str()), (first.ulid, "4"));
}

/// In one batch the first with a key stands for the rest; a known id is no clash.
pub async fn unique_jobs_of_one_batch_clash(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(4);
    for i in [0, 2, 3] {
        jobs[i].options.unique = Some(until(Until::Finished));
    }
    let replies = bench.broker.enqueue(&bench.queue, &jobs).await.unwrap();
    let clash = Some(Clash { with: jobs[0].ulid, replaced: false });
    let kept = |i: usize| Enqueued { clash, ..Enqueued::known(jobs[i].ulid) };
    assert_eq!(replies, [Enqueued::fresh(jobs[0].ulid), Enqueued::fresh(jobs[1].ulid), kept(2), kept(3)]);
    // Sent again, as after a lost reply: nothing has changed.
    let again = bench.broker.enqueue(&bench.queue, &jobs).await.unwrap();
    assert_eq!(again, [Enqueued::known(jobs[0].ulid), Enqueued::known(jobs[1].ulid), kept(2), kept(3)]);
    let claimed = bench.claim(10).await;
    assert_eq!(claimed_ulids(&claimed), [jobs[0].ulid, jobs[1].ulid]);
    let finishes = claimed.iter().map(|c| Finish { lease: c.lease, settle: done() }).collect();
    assert_eq!(bench.exchange(finishes, None).await.acks, [Ack::Taken; 2]);
    // The job they were kept out for is done: now they may come.
    let again = bench.broker.enqueue(&bench.queue, &jobs).await.unwrap();
    assert!(again[2].fresh && again[3].clash == Some(Clash { with: jobs[2].ulid, replaced: false }));
}

/// A replayed job does not take its key again.
pub async fn a_replayed_job_leaves_its_unique_key(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let first = bench.is_taken(until(Until::Finished)).await;
    let claimed = bench.claim_one().await;
    assert_eq!(bench.finish(claimed.lease, failure()).await, Ack::Taken);
    let second = bench.is_taken(until(Until::Finished)).await;
    assert_eq!(bench.broker.replay(&bench.queue, &[first]).await.unwrap(), [true]);
    let claimed = bench.claim(2).await;
    assert_eq!(claimed_ulids(&claimed), [second, first]);
    assert_eq!(bench.finish(claimed[1].lease, done()).await, Ack::Taken);
    bench.is_kept_out_by(second, until(Until::Finished)).await;
    assert_eq!(bench.finish(claimed[0].lease, done()).await, Ack::Taken);
    bench.is_taken(until(Until::Finished)).await;
}
