//! Which job comes next.

use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Claim, Claimed, Counts, Enqueued, Finish, Settle};
use windlass_jobs::{NewJob, Options, Priority, State, Timestamp, When};

use super::{Bench, LONG, claimed_ulids, done, some_jobs, ulids};
use crate::{unique_queue, wait_until};

/// Jobs of one priority are taken in the order they came.
pub async fn first_in_first_out(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = bench.enqueue_some(3).await;
    jobs.extend(bench.enqueue_some(2).await);
    // The order is that of arrival, not of ids.
    let mut early = some_jobs(2);
    early.reverse();
    bench.enqueue(&early).await;
    jobs.extend(early);
    let mut claimed = bench.claim(4).await;
    claimed.extend(bench.claim(100).await);
    assert_eq!(claimed_ulids(&claimed), ulids(&jobs));
    assert!(claimed.iter().zip(&jobs).all(|(c, j)| c.kind == "noop" && c.args == j.args.get()));
    assert!(claimed.iter().all(|c| c.lease.epoch == 1 && c.deliveries == 1 && c.failures == 0));
}

/// All high ones before any normal one, all normal ones before any low one.
pub async fn priorities_are_strict(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(9);
    for (i, job) in jobs.iter_mut().enumerate() {
        job.options.priority = [Priority::Low, Priority::High, Priority::Normal][i % 3];
    }
    bench.enqueue(&jobs).await;
    let listed = bench.broker.list(&bench.queue, State::Pending, 0, 100).await.unwrap();
    let expected: Vec<_> = [1, 4, 7, 2, 5, 8, 0, 3, 6].map(|i| jobs[i].ulid).into();
    assert_eq!(listed.ids, expected);
    let mut claimed = Vec::new();
    for _ in 0..5 {
        claimed.extend(bench.claim(2).await);
    }
    assert_eq!(claimed_ulids(&claimed), expected);
}

/// Quotas give each priority its part; what one does not use goes to the highest that waits.
pub async fn quotas_are_served_first(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(60);
    for (i, job) in jobs.iter_mut().enumerate() {
        job.options.priority = Priority::ALL[i % 3];
        // Half of them in a lane.
        job.options.tenant = (i % 2 == 0).then(|| "t".into());
    }
    bench.enqueue(&jobs).await;
    let of = |claimed: &[Claimed]| {
        let priority = |c: &Claimed| jobs.iter().find(|job| job.ulid == c.lease.ulid).map(|job| job.options.priority);
        Priority::ALL.map(|p| claimed.iter().filter(|c| priority(c) == Some(p)).count())
    };
    for (quotas, expected) in
        [([5, 3, 2], [5, 3, 2]), ([0, 0, 4], [6, 0, 4]), ([9, 9, 9], [9, 1, 0]), ([1, 20, 1], [0, 10, 0])]
    {
        let claim = Claim { quotas: Some(quotas), ..bench.claim_of(10, LONG).expect("it claims") };
        let reply = bench.exchange(vec![], Some(claim)).await;
        assert_eq!(of(&reply.claimed), expected, "{quotas:?}");
    }
    assert_eq!(of(&bench.claim(100).await), [0, 6, 14]);
}

/// A delay or instant is waited for; an instant past means now; then order is that of time.
pub async fn delayed_jobs_wait_their_time(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(4);
    jobs[0].when = When::After(LONG);
    jobs[1].when = When::After(Duration::from_millis(120));
    jobs[2].when = When::After(Duration::from_millis(60));
    jobs[3].when = When::At(Timestamp(1_000));
    bench.enqueue(&jobs).await;
    assert_eq!(bench.counts().await, Counts { pending: 1, scheduled: 3, enqueued_total: 4, ..Counts::default() });
    let far = bench.record(jobs[0].ulid).await;
    assert_eq!((far.state, far.run_at), (State::Scheduled, Some(far.created_at.plus(LONG))));
    // Read before the first claim, which may promote them.
    let dues = [bench.record(jobs[2].ulid).await.run_at, bench.record(jobs[1].ulid).await.run_at];
    assert_eq!(bench.claim_one().await.lease.ulid, jobs[3].ulid);
    for (job, due) in [&jobs[2], &jobs[1]].into_iter().zip(dues) {
        let due = due.expect("it is scheduled until a claim promotes it");
        wait_until(Duration::from_secs(5), "the delayed job is claimed", || async {
            let reply = bench.exchange(vec![], bench.claim_of(1, LONG)).await;
            let Some(claimed) = reply.claimed.first() else { return false };
            assert_eq!(claimed.lease.ulid, job.ulid);
            assert!(reply.now >= due, "claimed at {} before {due}", reply.now);
            true
        })
        .await;
        assert_eq!(bench.record(job.ulid).await.run_at, None);
    }
    assert!(bench.claim(1).await.is_empty());
}

/// A batch of several slices is taken in order.
pub async fn a_batch_of_a_thousand_keeps_its_order(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(1_000).await;
    let mut claimed = Vec::new();
    for _ in 0..8 {
        claimed.extend(bench.claim(128).await);
    }
    assert_eq!(claimed_ulids(&claimed), ulids(&jobs));
    assert_eq!(bench.counts().await.running, 1_000);
}

/// An id that is known is left alone, whatever became of its job.
pub async fn a_known_id_changes_nothing(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(3).await;
    let running = bench.claim_one().await;
    let finished = bench.claim_one().await;
    assert_eq!(bench.finish(finished.lease, done()).await, Ack::Taken);
    let before = [bench.record(jobs[0].ulid).await, bench.record(jobs[1].ulid).await, bench.record(jobs[2].ulid).await];
    let counts = bench.counts().await;
    let again: Vec<NewJob> = jobs
        .iter()
        .map(|job| NewJob {
            ulid: job.ulid,
            when: When::After(LONG),
            options: Options { priority: Priority::High, ..Options::default() },
            ..NewJob::new("other", &"other").unwrap()
        })
        .collect();
    let replies = bench.broker.enqueue(&bench.queue, &again).await.unwrap();
    assert!(replies.iter().all(|reply| !reply.fresh));
    for record in before {
        assert_eq!(bench.record(record.id.ulid).await, record);
    }
    assert_eq!(bench.counts().await, counts);
    assert_eq!(bench.finish(running.lease, done()).await, Ack::Taken);
    // Known and new ones in one call, and one id twice.
    let new = some_jobs(2);
    let mixed = [new[0].clone(), jobs[0].clone(), new[1].clone(), new[0].clone()];
    let replies = bench.broker.enqueue(&bench.queue, &mixed).await.unwrap();
    let expected = [(&mixed[0], true), (&mixed[1], false), (&mixed[2], true), (&mixed[3], false)];
    assert_eq!(replies, expected.map(|(job, fresh)| Enqueued { fresh, ..Enqueued::known(job.ulid) }));
    assert_eq!(claimed_ulids(&bench.claim(10).await), [jobs[2].ulid, new[0].ulid, new[1].ulid]);
}

/// A claim takes at most what it asks for, and never more than 128.
pub async fn a_claim_takes_no_more_than_asked(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(200).await;
    assert!(bench.claim(0).await.is_empty());
    assert_eq!(bench.claim(1).await.len(), 1);
    assert_eq!(bench.claim(7).await.len(), 7);
    assert_eq!(bench.claim(1_000).await.len(), 128);
    assert_eq!(bench.claim(128).await.len(), 64);
    assert!(bench.claim(128).await.is_empty());
}

/// One exchange takes finishes and hands out the next jobs.
pub async fn finish_and_claim_in_one(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(6).await;
    let first = bench.claim(3).await;
    let finishes = first.iter().map(|c| Finish { lease: c.lease, settle: done() }).collect();
    let reply = bench.exchange(finishes, bench.claim_of(3, LONG)).await;
    assert_eq!(reply.acks, [Ack::Taken; 3]);
    assert_eq!(claimed_ulids(&reply.claimed), ulids(&jobs[3..]));
    let counts = bench.counts().await;
    assert_eq!((counts.running, counts.success_total, counts.pending), (3, 3, 0));
}

/// Released jobs go before all that wait, in their order, and have spent nothing.
pub async fn a_release_goes_to_the_front(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(5).await;
    for round in 1..=4 {
        let claimed = bench.claim(3).await;
        assert_eq!(claimed_ulids(&claimed), ulids(&jobs[..3]));
        assert!(claimed.iter().all(|c| c.deliveries == 1 && c.failures == 0 && c.lease.epoch == round));
        let finishes = claimed.iter().map(|c| Finish { lease: c.lease, settle: Settle::Release }).collect();
        assert_eq!(bench.exchange(finishes, None).await.acks, [Ack::Taken; 3]);
    }
    let record = bench.record(jobs[0].ulid).await;
    assert_eq!((record.state, record.deliveries, record.failures), (State::Pending, 0, 0));
    assert_eq!(bench.counts().await, Counts { pending: 5, enqueued_total: 5, ..Counts::default() });
    // Released and claimed again in one exchange.
    let claimed = bench.claim(2).await;
    let finishes = claimed.iter().map(|c| Finish { lease: c.lease, settle: Settle::Release }).collect();
    let reply = bench.exchange(finishes, bench.claim_of(4, LONG)).await;
    assert_eq!(claimed_ulids(&reply.claimed), ulids(&jobs[..4]));
}

/// Two queues share nothing, not even an id.
pub async fn queues_do_not_mix(broker: SharedBroker) {
    let bench = Bench::new(broker.clone());
    let other = Bench { broker, queue: unique_queue("other"), worker: bench.worker.clone() };
    let jobs = bench.enqueue_some(2).await;
    other.enqueue(&jobs).await;
    let claimed = bench.claim(10).await;
    assert_eq!(claimed_ulids(&claimed), ulids(&jobs));
    assert_eq!(other.finish(claimed[0].lease, done()).await, Ack::Stale);
    assert_eq!(bench.finish(claimed[0].lease, done()).await, Ack::Taken);
    assert_eq!(other.record(jobs[0].ulid).await.state, State::Pending);
    assert_eq!(other.counts().await, Counts { pending: 2, enqueued_total: 2, ..Counts::default() });
    assert!(other.broker.renew(&other.queue, &[claimed[1].lease], LONG).await.unwrap() == [Ack::Stale]);
}
