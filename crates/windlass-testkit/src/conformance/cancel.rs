//! Jobs that are no longer wanted.

use windlass_broker::{SharedBroker, Wake};
use windlass_jobs::command::{Ack, Cancel, Counts, Settle};
use windlass_jobs::{Priority, State, When, new_ulid};

use super::wakes::SOON;
use super::{Bench, LONG, SHORT, claimed_ulids, done, error_text, failure, moment, parked, some_jobs, ulids};

/// Every way a run ends after which it would run again.
fn runs_again() -> [Settle; 4] {
    [
        Settle::Retry { delay: SHORT, failures: 1, error: error_text("again") },
        Settle::Snooze { delay: SHORT },
        Settle::Release,
        parked(),
    ]
}

/// A waiting job ends at once, a running one later, a terminal one not at all.
pub async fn cancel_in_every_state(broker: SharedBroker) {
    let bench = Bench::new(broker);
    assert_eq!(bench.cancel(new_ulid()).await, Cancel::Unknown, "the queue is not known either");
    bench.enqueue_some(6).await;
    let held = bench.claim(6).await;
    let retry = Settle::Retry { delay: LONG, failures: 1, error: error_text("again") };
    let ends = [retry, parked(), done(), failure(), Settle::Cancelled { error: error_text("own") }];
    for (held, settle) in held.iter().zip(ends) {
        assert_eq!(bench.finish(held.lease, settle).await, Ack::Taken);
    }
    let mut waiting = some_jobs(2);
    waiting[0].when = When::After(LONG);
    bench.enqueue(&waiting).await;
    let [retrying, parked_job, succeeded, failed, cancelled, running] = [0, 1, 2, 3, 4, 5].map(|i| held[i].lease.ulid);
    for ulid in [waiting[0].ulid, waiting[1].ulid, retrying, parked_job] {
        assert_eq!(bench.cancel(ulid).await, Cancel::Done);
        let record = bench.record(ulid).await;
        assert_eq!((record.state, record.run_at, record.cancel_requested), (State::Cancelled, None, false));
        assert_eq!(record.error.map(|error| error.code).as_deref(), Some("cancelled"));
        assert!(record.finished_at.is_some());
        assert_eq!(bench.ids(State::Cancelled).await.first(), Some(&ulid), "newest first");
        assert_eq!(bench.cancel(ulid).await, Cancel::Ended(State::Cancelled));
    }
    for (ulid, state) in [(succeeded, State::Success), (failed, State::Failure), (cancelled, State::Cancelled)] {
        let before = bench.record(ulid).await;
        assert_eq!(bench.cancel(ulid).await, Cancel::Ended(state));
        assert_eq!(bench.record(ulid).await, before);
    }
    assert_eq!(bench.cancel(running).await, Cancel::Requested);
    assert_eq!(bench.cancel(running).await, Cancel::Requested);
    let record = bench.record(running).await;
    assert_eq!((record.state, record.cancel_requested), (State::Running, true));
    assert_eq!(bench.cancel(new_ulid()).await, Cancel::Unknown);
    let expected = Counts {
        running: 1,
        dead: 1,
        enqueued_total: 8,
        success_total: 1,
        failure_total: 1,
        cancelled_total: 5,
        retried_total: 1,
        ..Counts::default()
    };
    assert_eq!(bench.counts().await, expected);
}

/// Cancelled jobs leave their lists as if they had never lain there.
pub async fn a_cancelled_waiting_job_is_never_claimed(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(30);
    for (i, job) in jobs.iter_mut().enumerate() {
        job.options.priority = Priority::ALL[i * 3 / 30];
        job.when = if i % 5 == 4 { When::After(SHORT) } else { When::Now };
    }
    bench.enqueue(&jobs).await;
    for job in jobs.iter().step_by(2) {
        assert_eq!(bench.cancel(job.ulid).await, Cancel::Done);
    }
    let kept: Vec<_> = jobs.iter().skip(1).step_by(2).collect();
    let (due, now): (Vec<_>, Vec<_>) = kept.iter().copied().partition(|job| job.when != When::Now);
    let counts = Counts { enqueued_total: 30, cancelled_total: 15, ..Counts::default() };
    assert_eq!(bench.counts().await, Counts { pending: 12, scheduled: 3, ..counts });
    assert_eq!(bench.ids(State::Pending).await, now.iter().map(|job| job.ulid).collect::<Vec<_>>());
    let mut scheduled = bench.ids(State::Scheduled).await;
    scheduled.sort();
    assert_eq!(scheduled, due.iter().map(|job| job.ulid).collect::<Vec<_>>());
    moment().await;
    let claimed = bench.claim(20).await;
    let (mut found, mut expected) = (claimed_ulids(&claimed), kept.iter().map(|job| job.ulid).collect::<Vec<_>>());
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(bench.counts().await, Counts { running: 15, ..counts });
    assert!(bench.claim(1).await.is_empty());
}

/// A run's worker hears that its job is cancelled, on its own stream and from a renewal.
pub async fn a_cancel_is_heard_by_the_worker(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut wakes = bench.broker.wakes(&bench.worker).await;
    bench.enqueue_some(2).await;
    let held = bench.claim(2).await;
    assert_eq!(bench.cancel(held[0].lease.ulid).await, Cancel::Requested);
    let heard = async {
        loop {
            match wakes.recv().await {
                Some(Wake::Cancel(queue, lease)) => return (queue, lease),
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    };
    let heard = tokio::time::timeout(SOON, heard).await.expect("the worker hears of it");
    assert_eq!(heard, (bench.queue.clone(), held[0].lease));
    let acks = bench.broker.renew(&bench.queue, &[held[1].lease, held[0].lease], LONG).await.unwrap();
    assert_eq!(acks, [Ack::Taken, Ack::Cancel]);
    assert_eq!(bench.finish(held[0].lease, Settle::Cancelled { error: error_text("stopped") }).await, Ack::Taken);
    let record = bench.record(held[0].lease.ulid).await;
    assert_eq!((record.state, record.cancel_requested), (State::Cancelled, false));
    assert_eq!(bench.finish(held[1].lease, done()).await, Ack::Taken);
}

/// A run whose job is cancelled does not run again, however it ends.
pub async fn a_cancelled_run_ends_cancelled(broker: SharedBroker) {
    let bench = Bench::new(broker);
    for settle in runs_again() {
        bench.enqueue_some(1).await;
        let held = bench.claim_one().await;
        assert_eq!(bench.cancel(held.lease.ulid).await, Cancel::Requested);
        assert_eq!(bench.finish(held.lease, settle.clone()).await, Ack::Taken);
        let record = bench.record(held.lease.ulid).await;
        let found = (record.state, record.deliveries, record.failures, record.cancel_requested, record.run_at);
        assert_eq!(found, (State::Cancelled, 0, 0, false, None), "{settle:?}");
        assert_eq!(record.error.map(|error| error.code).as_deref(), Some("cancelled"), "{settle:?}");
        moment().await;
        assert!(bench.claim(1).await.is_empty(), "{settle:?}");
    }
    assert_eq!(bench.counts().await, Counts { enqueued_total: 4, cancelled_total: 4, ..Counts::default() });
    assert_eq!(bench.ids(State::Cancelled).await.len(), 4);
}

/// A run that ends before it hears of its cancel has ended.
pub async fn a_cancelled_run_may_still_end(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(3).await;
    let held = bench.claim(3).await;
    let skipped = Settle::Success { result: Some("1".into()), skipped: true };
    let ends = [(done(), State::Success), (skipped, State::Success), (failure(), State::Failure)];
    for (held, (settle, state)) in held.iter().zip(ends) {
        assert_eq!(bench.cancel(held.lease.ulid).await, Cancel::Requested);
        assert_eq!(bench.finish(held.lease, settle).await, Ack::Taken);
        assert_eq!(bench.record(held.lease.ulid).await.state, state);
    }
    let expected = Counts { enqueued_total: 3, success_total: 2, failure_total: 1, dead: 1, ..Counts::default() };
    assert_eq!(bench.counts().await, expected);
}

/// A run whose job is cancelled and whose worker is gone is not run again.
pub async fn a_lost_cancelled_run_ends_cancelled(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(3).await;
    let lost = bench.exchange(vec![], bench.claim_of(2, SHORT)).await.claimed;
    assert_eq!(bench.cancel(jobs[0].ulid).await, Cancel::Requested);
    moment().await;
    assert_eq!(claimed_ulids(&bench.claim(3).await), ulids(&jobs[1..]), "its neighbour runs again");
    let record = bench.record(jobs[0].ulid).await;
    assert_eq!((record.state, record.deliveries), (State::Cancelled, 1));
    assert_eq!(bench.finish(lost[0].lease, done()).await, Ack::Stale);
    assert_eq!(bench.record(jobs[0].ulid).await, record, "what ended stays as it is");
    let counts = bench.counts().await;
    assert_eq!((counts.cancelled_total, counts.expired_leases_total, counts.running), (1, 2, 2));
}
