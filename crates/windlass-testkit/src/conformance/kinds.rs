//! Jobs that nobody starts in time, and jobs whose kind nobody knows.

use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Cancel, Counts, Finish, MAX_LOOKED_AT, Settle};
use windlass_jobs::{NewJob, Priority, Reason, State, Timestamp, When};

use super::wakes::Idle;
use super::{Bench, LONG, SHORT, claimed_ulids, done, error_text, moment, parked, some_jobs, ulids};
use crate::wait_until;

/// A job whose time is over fails instead of being claimed.
pub async fn an_expired_job_is_not_started(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(6);
    jobs[0].options.expires = When::At(Timestamp(1_000));
    jobs[1].options.expires = When::After(SHORT);
    jobs[2].options.expires = When::After(LONG);
    jobs[4].options.expires = When::After(Duration::ZERO);
    jobs[5].options.expires = When::At(Timestamp::now().plus(LONG));
    bench.enqueue(&jobs).await;
    let record = bench.record(jobs[2].ulid).await;
    assert_eq!(record.expires_at, Some(record.created_at.plus(LONG)));
    assert_eq!(bench.record(jobs[0].ulid).await.expires_at, Some(Timestamp(1_000)));
    assert_eq!(bench.record(jobs[3].ulid).await.expires_at, None);
    moment().await;
    assert_eq!(bench.counts().await.pending, 6, "nobody has looked at them");
    let reply = bench.exchange(vec![], bench.claim_of(10, LONG)).await;
    assert_eq!(claimed_ulids(&reply.claimed), [jobs[2].ulid, jobs[3].ulid, jobs[5].ulid]);
    for job in [&jobs[0], &jobs[1], &jobs[4]] {
        let record = bench.record(job.ulid).await;
        assert_eq!((record.state, record.reason), (State::Failure, Some(Reason::Expired)));
        assert_eq!((record.epoch, record.started_at, record.finished_at), (0, None, Some(reply.now)));
        assert_eq!(record.error.map(|error| error.code).as_deref(), Some("expired"));
    }
    let mut newest_first = [jobs[0].ulid, jobs[1].ulid, jobs[4].ulid];
    newest_first.reverse();
    assert_eq!(bench.ids(State::Failure).await, newest_first);
    let expected = Counts { running: 3, dead: 3, enqueued_total: 6, failure_total: 3, ..Counts::default() };
    assert_eq!(bench.counts().await, expected);
    assert_eq!(bench.broker.replay(&bench.queue, &[jobs[0].ulid]).await.unwrap(), [true]);
    assert_eq!(bench.claim_one().await.lease.ulid, jobs[0].ulid, "a replayed job does not expire");
}

/// Expiry is about the start: once started, a job may wait for its next run as long as it takes.
pub async fn a_started_job_does_not_expire(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let ends = [
        Settle::Retry { delay: SHORT, failures: 1, error: error_text("again") },
        Settle::Snooze { delay: SHORT },
        Settle::Release,
    ];
    let expiring = |n| {
        let mut jobs = some_jobs(n);
        jobs.iter_mut().for_each(|job| job.options.expires = When::After(Duration::from_millis(300)));
        jobs
    };
    bench.enqueue(&expiring(3)).await;
    for (held, settle) in bench.claim(3).await.iter().zip(ends) {
        assert_eq!(bench.finish(held.lease, settle).await, Ack::Taken);
    }
    bench.enqueue(&expiring(1)).await;
    tokio::time::sleep(Duration::from_millis(320)).await;
    let claimed = bench.claim(5).await;
    assert_eq!(claimed.len(), 3);
    assert!(claimed.iter().all(|claimed| claimed.lease.epoch == 2));
    assert_eq!(bench.counts().await.dead, 1, "the one that was not started");
}

/// Expired jobs in front of live ones cost a few exchanges, and a claim that did not see all
/// that wait says that there is more.
pub async fn many_expired_jobs_are_passed(broker: SharedBroker) {
    const EXPIRED: u64 = 300;
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(303);
    for (i, job) in jobs.iter_mut().enumerate() {
        match i {
            300 => job.options.priority = Priority::High,
            301 => job.options.priority = Priority::Low,
            302 => {}
            _ => job.options.expires = When::After(SHORT),
        }
    }
    bench.enqueue(&jobs).await;
    moment().await;
    let first = bench.exchange(vec![], bench.claim_of(10, LONG)).await;
    assert_eq!(claimed_ulids(&first.claimed), [jobs[300].ulid]);
    assert_eq!(first.next_due, Some(first.now), "it is to ask again at once");
    assert_eq!(bench.counts().await.dead, MAX_LOOKED_AT as u64 - 1);
    let second = bench.exchange(vec![], bench.claim_of(10, LONG)).await;
    assert_eq!(claimed_ulids(&second.claimed), [jobs[302].ulid, jobs[301].ulid]);
    assert_eq!(second.next_due, None);
    let expected =
        Counts { running: 3, dead: EXPIRED, enqueued_total: EXPIRED + 3, failure_total: EXPIRED, ..Counts::default() };
    assert_eq!(bench.counts().await, expected);
    // The same for a worker with one slot.
    let mut jobs = some_jobs(100);
    jobs[..99].iter_mut().for_each(|job| job.options.expires = When::After(SHORT));
    bench.enqueue(&jobs).await;
    moment().await;
    assert_eq!(claimed_ulids(&bench.claim(1).await), [jobs[99].ulid]);
}

/// A kind that its worker does not know is offered again after a while, no attempt spent.
pub async fn unknown_kinds_are_left_to_others(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(1).await;
    let unknown = |delay| Settle::Unknown { delay, park_after: LONG };
    let held = bench.claim_one().await;
    let reply = bench.exchange(vec![Finish { lease: held.lease, settle: unknown(LONG) }], None).await;
    assert_eq!(reply.acks, [Ack::Taken]);
    let record = bench.record(held.lease.ulid).await;
    assert_eq!((record.state, record.failures, record.deliveries), (State::Scheduled, 0, 0));
    assert_eq!(record.run_at, Some(reply.now.plus(LONG)));
    assert_eq!(bench.counts().await, Counts { scheduled: 1, enqueued_total: 1, ..Counts::default() });
    bench.enqueue_some(1).await;
    let held = bench.claim_one().await;
    for _ in 0..5 {
        bench.finish(held.lease, unknown(SHORT)).await;
        moment().await;
    }
    let again = bench.claim_one().await;
    assert_eq!((again.lease.epoch, again.failures, again.deliveries), (2, 0, 1));
}

/// A kind that nobody knew for long is held until somebody does; the first time counts.
pub async fn unknown_kinds_are_parked(broker: SharedBroker) {
    const PARK_AFTER: Duration = Duration::from_millis(150);
    let bench = Bench::new(broker);
    assert_eq!(bench.broker.unpark(&bench.queue, &["a".into()]).await.unwrap(), 0);
    let jobs: Vec<NewJob> = ["a", "b", "a", "c"].iter().map(|kind| NewJob::new(*kind, &()).unwrap()).collect();
    bench.enqueue(&jobs).await;
    let begun = tokio::time::Instant::now();
    wait_until(Duration::from_secs(10), "all four are parked", || async {
        let settle = Settle::Unknown { delay: SHORT, park_after: PARK_AFTER };
        for held in bench.claim(4).await {
            assert_eq!(bench.finish(held.lease, settle.clone()).await, Ack::Taken);
        }
        bench.counts().await.parked == 4
    })
    .await;
    assert!(begun.elapsed() >= PARK_AFTER - Duration::from_millis(1));
    assert_eq!(bench.counts().await, Counts { parked: 4, enqueued_total: 4, ..Counts::default() });
    let record = bench.record(jobs[0].ulid).await;
    assert_eq!((record.state, record.run_at, record.deliveries, record.progress), (State::Pending, None, 0, None));
    for state in State::ALL {
        assert!(bench.ids(state).await.is_empty(), "parked jobs are in no list, {state} not either");
    }
    assert!(bench.claim(5).await.is_empty());
    let waiting = bench.enqueue_some(1).await[0].ulid;
    assert_eq!(bench.broker.unpark(&bench.queue, &[]).await.unwrap(), 0);
    assert_eq!(bench.broker.unpark(&bench.queue, &["a".into(), "x".into()]).await.unwrap(), 2);
    assert_eq!(bench.ids(State::Pending).await, [waiting, jobs[0].ulid, jobs[2].ulid], "oldest first, behind others");
    assert_eq!(bench.counts().await.parked, 2);
    assert_eq!(bench.cancel(jobs[1].ulid).await, Cancel::Done);
    assert_eq!(bench.broker.unpark(&bench.queue, &["b".into(), "c".into()]).await.unwrap(), 1);
    let held = bench.claim(5).await;
    assert_eq!(claimed_ulids(&held[1..]), ulids(&[jobs[0].clone(), jobs[2].clone(), jobs[3].clone()]));
    // Its time begins anew.
    bench.finish(held[1].lease, Settle::Unknown { delay: LONG, park_after: PARK_AFTER }).await;
    assert_eq!(bench.record(jobs[0].ulid).await.state, State::Scheduled);
    assert_eq!(bench.finish(held[2].lease, done()).await, Ack::Taken);
    assert_eq!(bench.counts().await.parked, 0);
}

/// A worker that is idle is told of jobs that are offered again.
pub async fn unparked_jobs_wake(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(1).await;
    let held = bench.claim_one().await;
    bench.finish(held.lease, parked()).await;
    let mut idle = Idle::new(&bench).await;
    assert_eq!(bench.broker.unpark(&bench.queue, &["noop".into()]).await.unwrap(), 1);
    idle.is_woken("an unparked job").await;
    assert_eq!(idle.claim(1).await.claimed.len(), 1);
}
