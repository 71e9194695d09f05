//! How runs end: in order, with their worker, late, or not at all.

use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Counts, Finish, Settle};
use windlass_jobs::{Progress, Reason, RunError, State, When};

use super::{Bench, LONG, SHORT, claimed_ulids, done, error_text, moment, some_jobs, ulids};
use crate::wait_until;

/// A finish under an old epoch is refused; the others of its batch are taken.
pub async fn a_stale_epoch_is_refused_alone(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(3).await;
    let old = bench.claim_and_lose(2).await;
    let new = bench.claim(3).await;
    assert_eq!(new.len(), 3);
    let finish = |lease| Finish { lease, settle: done() };
    // Also a lease named twice: taken once.
    let finishes = [old[0].lease, new[0].lease, old[1].lease, new[1].lease, new[1].lease, new[2].lease].map(finish);
    let reply = bench.exchange(finishes.into(), None).await;
    assert_eq!(reply.acks, [Ack::Stale, Ack::Taken, Ack::Stale, Ack::Taken, Ack::Stale, Ack::Taken]);
    assert_eq!(bench.finish(new[0].lease, done()).await, Ack::Stale, "it is finished already");
    let counts = bench.counts().await;
    assert_eq!((counts.success_total, counts.running), (3, 0));
}

/// A job whose lease is over goes to the next claim, first of all; its old holder is refused.
pub async fn an_expired_lease_is_claimed_again(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(3).await;
    let old = bench.claim_and_lose(1).await[0].lease;
    let again = bench.claim(2).await;
    assert_eq!(claimed_ulids(&again), ulids(&jobs[..2]));
    assert_eq!((again[0].lease.epoch, again[0].deliveries, again[0].failures), (2, 2, 0));
    for settle in [done(), Settle::Release, Settle::Snooze { delay: SHORT }] {
        assert_eq!(bench.finish(old, settle).await, Ack::Stale);
    }
    assert_eq!(bench.broker.renew(&bench.queue, &[old], LONG).await.unwrap(), [Ack::Stale]);
    let progress = Progress::new(50.0, "late");
    assert_eq!(bench.broker.progress(&bench.queue, old, &progress).await.unwrap(), Ack::Stale);
    assert_eq!(bench.record(jobs[0].ulid).await.progress, None);
    assert_eq!(bench.finish(again[0].lease, done()).await, Ack::Taken);
    let counts = bench.counts().await;
    assert_eq!((counts.expired_leases_total, counts.running, counts.pending), (1, 1, 1));
}

/// A renewed lease is not over when the first one would have been.
pub async fn a_renewal_keeps_the_lease(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(2).await;
    let claimed = bench.exchange(vec![], bench.claim_of(2, SHORT)).await.claimed;
    let mut stranger = claimed[1].lease;
    stranger.epoch += 1;
    let renewed = bench.broker.renew(&bench.queue, &[claimed[0].lease, stranger], LONG).await.unwrap();
    assert_eq!(renewed, [Ack::Taken, Ack::Stale]);
    assert!(bench.broker.renew(&bench.queue, &[], LONG).await.unwrap().is_empty());
    moment().await;
    assert_eq!(claimed_ulids(&bench.claim(2).await), [claimed[1].lease.ulid], "only the other one is over");
    assert_eq!(bench.finish(claimed[0].lease, done()).await, Ack::Taken);
}

/// A job whose lease expires three times is stopped, and says with which worker.
pub async fn a_worker_killer_is_poisoned(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(2).await;
    for run in 1..=3 {
        let claimed = bench.claim_and_lose(1).await;
        assert_eq!(claimed_ulids(&claimed), [jobs[0].ulid]);
        assert_eq!((claimed[0].lease.epoch, claimed[0].deliveries), (run, run));
    }
    assert_eq!(claimed_ulids(&bench.claim(2).await), [jobs[1].ulid], "its neighbour goes on");
    let record = bench.record(jobs[0].ulid).await;
    assert_eq!((record.state, record.reason), (State::Failure, Some(Reason::Poisoned)));
    let error = record.error.expect("it says why");
    assert_eq!(error.code, "poisoned");
    assert!(error.message.contains(&bench.worker) && error.message.contains('3'), "{}", error.message);
    assert!(record.finished_at.is_some());
    let expected = Counts {
        running: 1,
        dead: 1,
        enqueued_total: 2,
        failure_total: 1,
        expired_leases_total: 3,
        ..Counts::default()
    };
    assert_eq!(bench.counts().await, expected);
}

/// A failed run waits its delay, then runs again; its failures and its error are kept.
pub async fn a_retry_waits_and_counts(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let job = bench.enqueue_some(1).await[0].ulid;
    let first = bench.claim_one().await;
    let retry = |failures, delay| Settle::Retry { delay, failures, error: error_text(&format!("no {failures}")) };
    let reply =
        bench.exchange(vec![Finish { lease: first.lease, settle: retry(1, LONG) }], bench.claim_of(1, LONG)).await;
    assert_eq!(reply.acks, [Ack::Taken]);
    assert!(reply.claimed.is_empty());
    assert_eq!(reply.next_due, Some(reply.now.plus(LONG)));
    let record = bench.record(job).await;
    assert_eq!((record.state, record.failures, record.deliveries), (State::Retrying, 1, 0));
    assert_eq!(record.run_at, Some(reply.now.plus(LONG)));
    assert_eq!(record.error, Some(RunError::new("test", "no 1")));
    let counts = bench.counts().await;
    assert_eq!((counts.retrying, counts.retried_total, counts.scheduled, counts.running), (1, 1, 0, 0));

    let second = bench.enqueue_some(1).await[0].ulid;
    let claimed = bench.claim_one().await;
    assert_eq!(bench.finish(claimed.lease, retry(4, Duration::from_millis(50))).await, Ack::Taken);
    wait_until(Duration::from_secs(5), "the retried job is claimed", || async {
        let claimed = bench.claim(1).await;
        claimed.first().is_some_and(|c| c.lease.ulid == second && c.failures == 4 && c.lease.epoch == 2)
    })
    .await;
    let record = bench.record(second).await;
    assert_eq!((record.state, record.attempt(), record.deliveries), (State::Running, 5, 1));
    assert_eq!(record.error, Some(RunError::new("test", "no 4")), "the last error stays readable");
}

/// A snoozed job waits without a failure.
pub async fn a_snooze_is_no_failure(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let job = bench.enqueue_some(1).await[0].ulid;
    let claimed = bench.claim_one().await;
    assert_eq!(bench.finish(claimed.lease, Settle::Snooze { delay: SHORT }).await, Ack::Taken);
    let record = bench.record(job).await;
    assert_eq!((record.state, record.failures, record.deliveries), (State::Scheduled, 0, 0));
    assert_eq!(bench.counts().await, Counts { scheduled: 1, enqueued_total: 1, ..Counts::default() });
    moment().await;
    let again = bench.claim_one().await;
    assert_eq!((again.lease.epoch, again.failures, again.deliveries), (2, 0, 1));
}

/// A cancelled job ends among the finished ones and says why.
pub async fn cancelled_jobs_end(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(2).await;
    let claimed = bench.claim(2).await;
    let cancelled = Settle::Cancelled { error: error_text("not wanted") };
    assert_eq!(bench.finish(claimed[0].lease, cancelled).await, Ack::Taken);
    assert_eq!(bench.finish(claimed[1].lease, done()).await, Ack::Taken);
    let record = bench.record(jobs[0].ulid).await;
    assert_eq!((record.state, record.error), (State::Cancelled, Some(RunError::new("test", "not wanted"))));
    assert!(record.finished_at.is_some());
    for state in [State::Cancelled, State::Success] {
        let page = bench.broker.list(&bench.queue, state, 0, 10).await.unwrap();
        assert_eq!(page.ids, [jobs[1].ulid, jobs[0].ulid], "one list, newest first");
    }
    let counts = bench.counts().await;
    assert_eq!((counts.cancelled_total, counts.success_total, counts.dead, counts.running), (1, 1, 0, 0));
}

/// A job that failed for good lies in the dead set with its reason and error.
pub async fn a_failure_lies_in_the_dead_set(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(Reason::ALL.len()).await;
    let claimed = bench.claim(jobs.len()).await;
    let finishes = claimed.iter().zip(Reason::ALL).map(|(claimed, reason)| {
        let error = error_text(reason.as_str());
        Finish { lease: claimed.lease, settle: Settle::Failure { reason, failures: 3, error } }
    });
    let reply = bench.exchange(finishes.collect(), None).await;
    assert!(reply.acks.iter().all(|ack| *ack == Ack::Taken));
    for (job, reason) in jobs.iter().zip(Reason::ALL) {
        let record = bench.record(job.ulid).await;
        assert_eq!((record.state, record.reason, record.failures), (State::Failure, Some(reason), 3));
        assert_eq!(record.error, Some(RunError::new("test", reason.as_str())));
        assert_eq!(record.finished_at, Some(reply.now));
    }
    let mut newest_first = ulids(&jobs);
    newest_first.reverse();
    assert_eq!(bench.broker.list(&bench.queue, State::Failure, 0, 100).await.unwrap().ids, newest_first);
    let counts = bench.counts().await;
    assert_eq!((counts.dead, counts.failure_total), (jobs.len() as u64, jobs.len() as u64));
    assert!(bench.claim(10).await.is_empty());
}

/// A claim that finds less than it asks for answers when to ask again; a full one does not.
pub async fn the_next_instants_are_answered(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let empty = bench.exchange(vec![], bench.claim_of(1, LONG)).await;
    assert_eq!((empty.next_due, empty.next_lease), (None, None));
    let mut jobs = some_jobs(4);
    jobs[2].when = When::After(LONG * 2);
    jobs[3].when = When::After(LONG);
    bench.enqueue(&jobs).await;
    let full = bench.exchange(vec![], bench.claim_of(1, LONG * 3)).await;
    assert_eq!((full.claimed.len(), full.next_due, full.next_lease), (1, None, None));
    let short = bench.exchange(vec![], bench.claim_of(2, LONG)).await;
    assert_eq!(short.claimed.len(), 1);
    assert_eq!(short.next_due, bench.record(jobs[3].ulid).await.run_at);
    assert_eq!(short.next_lease, Some(short.now.plus(LONG)));
    let none = bench.exchange(vec![], bench.claim_of(1, LONG)).await;
    assert_eq!((none.next_due, none.next_lease), (short.next_due, short.next_lease));
    let no_slots = bench.exchange(vec![], bench.claim_of(0, LONG)).await;
    assert_eq!((no_slots.next_due, no_slots.next_lease), (None, None));
    let no_claim = bench.exchange(vec![], None).await;
    assert_eq!((no_claim.next_due, no_claim.next_lease), (None, None));
}

/// Of each attempt that was followed by another it stays known who made it, when and how it ended; a job
/// that succeeds at once, is put off or given back leaves nothing.
pub async fn attempts_are_kept(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let job = bench.enqueue_some(1).await[0].ulid;
    for settle in [Settle::Snooze { delay: Duration::ZERO }, Settle::Release] {
        let lease = bench.claim_one().await.lease;
        assert_eq!(bench.finish(lease, settle).await, Ack::Taken);
    }
    assert!(bench.record(job).await.attempts().is_empty(), "no attempt was spent");
    let retry = Settle::Retry { delay: Duration::ZERO, failures: 1, error: error_text("no 1") };
    let lease = bench.claim_one().await.lease;
    assert_eq!(bench.record(job).await.attempts().len(), 1, "the one that runs");
    assert_eq!(bench.finish(lease, retry).await, Ack::Taken);
    bench.claim_and_lose(1).await;
    let failure = Settle::Failure { reason: Reason::Timeout, failures: 2, error: error_text("no 2") };
    let lease = bench.claim_one().await.lease;
    assert_eq!(bench.finish(lease, failure).await, Ack::Taken);
    assert_eq!(bench.broker.replay(&bench.queue, &[job]).await.unwrap(), [true]);
    let lease = bench.claim_one().await.lease;
    assert_eq!(bench.finish(lease, done()).await, Ack::Taken);

    let record = bench.record(job).await;
    let attempts = record.attempts();
    let told: Vec<_> = attempts.iter().map(|a| (a.run, a.attempt, a.outcome.as_str(), a.reason)).collect();
    let expected = [
        (3, 1, "retried", None),
        (4, 2, "lost", None),
        (5, 2, "failure", Some(Reason::Timeout)),
        (6, 1, "success", None),
    ];
    assert_eq!(told, expected);
    let errors: Vec<_> = attempts.iter().map(|a| a.error.as_ref().map(|error| error.message.as_str())).collect();
    assert_eq!(errors, [Some("no 1"), None, Some("no 2"), None]);
    for attempt in &attempts {
        assert_eq!(attempt.worker.as_deref(), Some(bench.worker.as_str()));
        assert!(attempt.ended_at >= attempt.started_at && attempt.duration_ms.is_some());
    }
    assert_eq!(record.error.map(|error| error.message).as_deref(), Some("no 2"), "the last error stays readable");
}
