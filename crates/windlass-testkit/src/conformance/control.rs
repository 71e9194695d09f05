//! What an operator does: pause, bound, replay, delete, and tidying by age.

use std::time::Duration;

use windlass_broker::{Error, SharedBroker};
use windlass_jobs::command::{Ack, Cancel, Counts, Finish, Settle, TIDY_SLICE};
use windlass_jobs::{NewJob, Reason, State, Ulid, When, new_ulid};

use super::wakes::Idle;
use super::{Bench, LONG, SHORT, claimed_ulids, done, error_text, failure, moment, parked, some_jobs, ulids};

/// While paused nothing is claimed; accepting, finishing, promoting and reaping go on.
pub async fn a_paused_queue_goes_on_otherwise(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let pause = |paused| bench.broker.pause(&bench.queue, paused);
    let first = bench.enqueue_some(3).await;
    let held = bench.claim_one().await;
    let lost = bench.exchange(vec![], bench.claim_of(1, SHORT)).await.claimed;
    pause(true).await.unwrap();
    pause(true).await.unwrap();
    assert!(bench.counts().await.paused);
    let mut later = some_jobs(2);
    later[1].when = When::After(SHORT);
    bench.enqueue(&later).await;
    assert_eq!(bench.finish(held.lease, done()).await, Ack::Taken);
    moment().await;
    let reply = bench.exchange(vec![], bench.claim_of(5, LONG)).await;
    assert!(reply.claimed.is_empty());
    assert_eq!((reply.next_due, reply.next_lease), (None, None), "there is nothing to wait for");
    let expected = Counts {
        pending: 4,
        paused: true,
        enqueued_total: 5,
        success_total: 1,
        expired_leases_total: 1,
        ..Counts::default()
    };
    assert_eq!(bench.counts().await, expected);
    pause(false).await.unwrap();
    let order = [lost[0].lease.ulid, first[2].ulid, later[0].ulid, later[1].ulid];
    assert_eq!(claimed_ulids(&bench.claim(5).await), order);
    assert!(!bench.counts().await.paused);
    let other = Bench::new(bench.broker.clone());
    other.broker.pause(&other.queue, true).await.unwrap();
    other.enqueue_some(1).await;
    assert!(other.claim(1).await.is_empty(), "a queue may be paused before its first job");
}

/// An idle worker is told of a resume.
pub async fn a_resume_wakes(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.broker.pause(&bench.queue, true).await.unwrap();
    bench.enqueue_some(1).await;
    let mut idle = Idle::new(&bench).await;
    bench.broker.pause(&bench.queue, false).await.unwrap();
    idle.is_woken("the queue goes on").await;
    assert_eq!(idle.claim(1).await.claimed.len(), 1);
}

/// An enqueue that would pass the bound is refused whole; known ids count for nothing.
pub async fn a_full_queue_takes_nothing(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let bound = |max| bench.broker.set_max_waiting(&bench.queue, max);
    bound(Some(6)).await.unwrap();
    bench.enqueue_some(2).await;
    let held = bench.claim(2).await;
    bench.finish(held[0].lease, parked()).await;
    bench.finish(held[1].lease, Settle::Retry { delay: LONG, failures: 1, error: error_text("no") }).await;
    let mut jobs = some_jobs(5);
    jobs[0].when = When::After(LONG);
    bench.enqueue(&jobs[..3]).await;
    // One retrying, one scheduled, two pending; the parked one does not count.
    assert_eq!(bench.counts().await.max_waiting, Some(6));
    let refused = async |jobs: Vec<NewJob>| {
        let before = bench.counts().await;
        let error = bench.broker.enqueue(&bench.queue, &jobs).await.expect_err("the queue is full");
        let Error::QueueFull { queue, max_waiting } = &error else { panic!("{error:?}") };
        assert_eq!((queue, max_waiting, error.is_retryable()), (&bench.queue, &6, true));
        assert_eq!(bench.counts().await, before, "nothing was accepted");
    };
    refused(some_jobs(3)).await;
    let [a, b] = [jobs[3].clone(), jobs[4].clone()];
    let mixed = [jobs[0].clone(), a.clone(), a.clone(), jobs[1].clone(), b.clone()];
    let replies = bench.broker.enqueue(&bench.queue, &mixed).await.unwrap();
    assert_eq!(replies.iter().map(|reply| reply.fresh).collect::<Vec<_>>(), [false, true, false, false, true]);
    assert!(bench.broker.enqueue(&bench.queue, &jobs).await.unwrap().iter().all(|reply| !reply.fresh));
    refused(some_jobs(1)).await;
    refused([jobs.clone(), some_jobs(1)].concat()).await;
    // A place is free again when a job is claimed; a lower bound takes nothing away.
    bench.claim_one().await;
    bench.enqueue_some(1).await;
    bound(Some(7)).await.unwrap();
    bench.enqueue_some(1).await;
    bound(Some(0)).await.unwrap();
    assert_eq!(bench.counts().await.unfinished(), 9);
    bound(None).await.unwrap();
    bench.enqueue_some(300).await;
    assert_eq!(bench.counts().await.max_waiting, None);
}

/// Jobs leave the dead set, and nothing else, for the end of their list.
pub async fn only_dead_jobs_are_replayed(broker: SharedBroker) {
    let bench = Bench::new(broker);
    assert_eq!(bench.broker.replay(&bench.queue, &[new_ulid()]).await.unwrap(), [false]);
    let dead = bench.enqueue_dead(3).await;
    let done_job = bench.enqueue_some(1).await[0].ulid;
    let held = bench.claim_one().await;
    bench.finish(held.lease, done()).await;
    let mut waiting = some_jobs(2);
    waiting[1].when = When::After(LONG);
    bench.enqueue(&waiting).await;
    let all = [dead[2], waiting[0].ulid, waiting[1].ulid, done_job, new_ulid(), dead[0], dead[2]];
    let replies = bench.broker.replay(&bench.queue, &all).await.unwrap();
    assert_eq!(replies, [true, false, false, false, false, true, false]);
    assert_eq!(bench.ids(State::Failure).await, [dead[1]]);
    assert_eq!(bench.ids(State::Pending).await, [waiting[0].ulid, dead[2], dead[0]]);
    let counts = bench.counts().await;
    assert_eq!((counts.dead, counts.pending, counts.failure_total), (1, 3, 3));
    assert!(bench.broker.replay(&bench.queue, &[]).await.unwrap().is_empty());
    // More than one slice.
    let many: Vec<Ulid> = (0..1_200).map(|_| new_ulid()).chain([dead[1]]).collect();
    let replies = bench.broker.replay(&bench.queue, &many).await.unwrap();
    assert_eq!((replies.len(), replies.iter().filter(|reply| **reply).count()), (1_201, 1));
    assert_eq!(bench.counts().await.dead, 0);
}

/// A replayed job has all its attempts again, wakes a worker, and lies in the dead set once
/// when it fails again.
pub async fn a_replayed_job_starts_anew(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(1);
    jobs[0].options.expires = When::After(Duration::from_millis(300));
    bench.enqueue(&jobs).await;
    let held = bench.claim_one().await;
    let spent = Settle::Failure { reason: Reason::Timeout, failures: 3, error: error_text("first") };
    bench.finish(held.lease, spent).await;
    let ulid = jobs[0].ulid;
    let mut idle = Idle::new(&bench).await;
    assert_eq!(bench.broker.replay(&bench.queue, &[ulid]).await.unwrap(), [true]);
    let record = bench.record(ulid).await;
    assert_eq!((record.state, record.reason, record.finished_at), (State::Pending, None, None));
    assert_eq!((record.failures, record.deliveries, record.expires_at), (0, 0, None));
    idle.is_woken("a replayed job").await;
    let again = idle.claim(1).await.claimed;
    assert_eq!((again[0].lease.ulid, again[0].lease.epoch), (ulid, 2));
    assert_eq!((again[0].failures, again[0].deliveries), (0, 1));
    assert_eq!(bench.finish(held.lease, done()).await, Ack::Stale);
    assert_eq!(bench.finish(again[0].lease, failure()).await, Ack::Taken);
    assert_eq!(bench.ids(State::Failure).await, [ulid]);
    let counts = bench.counts().await;
    assert_eq!((counts.dead, counts.failure_total, counts.enqueued_total), (1, 2, 1));
}

/// What was lost before a replay is forgotten.
pub async fn a_replayed_poisoned_job_may_be_lost_again(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let ulid = bench.enqueue_some(1).await[0].ulid;
    for round in 1..=2 {
        for delivery in 1..=3 {
            let lost = bench.claim_and_lose(1).await;
            assert_eq!((lost[0].lease.epoch, lost[0].deliveries), ((round - 1) * 3 + delivery, delivery));
        }
        assert!(bench.claim(1).await.is_empty());
        assert_eq!(bench.record(ulid).await.reason, Some(Reason::Poisoned));
        assert_eq!(bench.broker.replay(&bench.queue, &[ulid]).await.unwrap(), [true]);
    }
    assert_eq!(bench.counts().await.dead, 0);
}

/// Terminal jobs can be forgotten, others not.
pub async fn deleted_jobs_are_gone(broker: SharedBroker) {
    let bench = Bench::new(broker);
    assert_eq!(bench.broker.delete(&bench.queue, &[new_ulid()]).await.unwrap(), [false]);
    let dead = bench.enqueue_dead(2).await;
    bench.enqueue_some(3).await;
    let held = bench.claim(3).await;
    bench.finish(held[0].lease, Settle::Success { result: Some("1".repeat(5_000)), skipped: false }).await;
    bench.finish(held[1].lease, Settle::Cancelled { error: error_text("c") }).await;
    let mut waiting = some_jobs(2);
    waiting[1].when = When::After(LONG);
    bench.enqueue(&waiting).await;
    assert_eq!(bench.cancel(waiting[0].ulid).await, Cancel::Done);
    let kept = [held[2].lease.ulid, waiting[1].ulid, new_ulid()];
    assert_eq!(bench.broker.delete(&bench.queue, &kept).await.unwrap(), [false; 3]);
    let gone = [dead[0], held[0].lease.ulid, held[1].lease.ulid, waiting[0].ulid];
    let replies = bench.broker.delete(&bench.queue, &[gone.to_vec(), vec![dead[0]]].concat()).await.unwrap();
    assert_eq!(replies, [true, true, true, true, false]);
    for ulid in gone {
        assert_eq!(bench.broker.get(&bench.id(ulid)).await.unwrap(), None);
        assert_eq!(bench.cancel(ulid).await, Cancel::Unknown);
    }
    assert_eq!(bench.ids(State::Failure).await, [dead[1]]);
    assert!(bench.ids(State::Success).await.is_empty());
    let expected = Counts {
        scheduled: 1,
        running: 1,
        dead: 1,
        enqueued_total: 7,
        success_total: 1,
        failure_total: 2,
        cancelled_total: 2,
        ..Counts::default()
    };
    assert_eq!(bench.counts().await, expected);
    assert_eq!(bench.broker.replay(&bench.queue, &dead).await.unwrap(), [false, true]);
}

/// The id of a deleted job is as good as new.
pub async fn a_deleted_id_may_come_again(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let dead = bench.enqueue_dead(1).await;
    let waiting = bench.enqueue_some(1).await[0].ulid;
    assert_eq!(bench.cancel(waiting).await, Cancel::Done);
    assert_eq!(bench.broker.delete(&bench.queue, &[dead[0], waiting]).await.unwrap(), [true, true]);
    let again: Vec<NewJob> = [waiting, dead[0]].map(|ulid| NewJob { ulid, ..NewJob::new("again", &2).unwrap() }).into();
    bench.enqueue(&again).await;
    assert_eq!(bench.ids(State::Pending).await, [waiting, dead[0]]);
    let held = bench.claim(5).await;
    assert_eq!(claimed_ulids(&held), ulids(&again), "each once");
    assert!(held.iter().all(|c| c.lease.epoch == 1 && c.kind == "again" && c.deliveries == 1));
    for held in &held {
        assert_eq!(bench.finish(held.lease, done()).await, Ack::Taken);
    }
    assert!(bench.claim(5).await.is_empty());
    let record = bench.record(dead[0]).await;
    assert_eq!((record.state, record.reason, record.error, record.failures), (State::Success, None, None, 0));
    let counts = bench.counts().await;
    assert_eq!((counts.enqueued_total, counts.success_total, counts.dead, counts.unfinished()), (4, 2, 0, 0));
}

/// So is the id of a job that was tidied away, even if it was cancelled in the middle of a list.
pub async fn a_tidied_id_may_come_again(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(4);
    jobs[3].when = When::After(LONG);
    bench.enqueue(&jobs).await;
    assert_eq!(bench.cancel(jobs[1].ulid).await, Cancel::Done);
    assert_eq!(bench.cancel(jobs[3].ulid).await, Cancel::Done);
    moment().await;
    assert_eq!(bench.broker.tidy(&bench.queue, SHORT, SHORT).await.unwrap(), 2);
    jobs[3].when = When::Now;
    come_again(&bench, &[jobs[1].clone(), jobs[3].clone()], &[jobs[0].ulid, jobs[2].ulid]).await;
}

/// And that of a job that left because newer ones ended; the broker keeps `keep` of each list.
pub async fn a_trimmed_id_may_come_again(broker: SharedBroker, keep: usize) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(keep + 3).await;
    for job in &jobs[1..keep + 2] {
        assert_eq!(bench.cancel(job.ulid).await, Cancel::Done);
    }
    come_again(&bench, &jobs[1..2], &[jobs[0].ulid, jobs[keep + 2].ulid]).await;
}

/// Enqueues forgotten jobs behind those that wait: each is there once, and runs once.
async fn come_again(bench: &Bench, forgotten: &[NewJob], waiting: &[Ulid]) {
    assert_eq!(bench.ids(State::Pending).await, waiting);
    bench.enqueue(forgotten).await;
    let all = [waiting, &ulids(forgotten)].concat();
    assert_eq!(bench.ids(State::Pending).await, all);
    assert_eq!(bench.counts().await.pending, all.len() as u64);
    assert_eq!(claimed_ulids(&bench.claim(100).await), all);
    assert!(bench.claim(100).await.is_empty());
    assert_eq!(bench.counts().await.running, all.len() as u64);
}

/// Terminal jobs leave by age, each list by its own.
pub async fn old_jobs_are_tidied_away(broker: SharedBroker) {
    const AGE: Duration = Duration::from_millis(600);
    let bench = Bench::new(broker);
    assert_eq!(bench.broker.tidy(&bench.queue, SHORT, SHORT).await.unwrap(), 0);
    let make = || async {
        let dead = bench.enqueue_dead(2).await;
        let done_jobs = bench.enqueue_some(2).await;
        for held in bench.claim(2).await {
            bench.finish(held.lease, done()).await;
        }
        [done_jobs[0].ulid, done_jobs[1].ulid, dead[0], dead[1]]
    };
    let old = make().await;
    assert_eq!(bench.broker.tidy(&bench.queue, LONG, LONG).await.unwrap(), 0);
    tokio::time::sleep(AGE).await;
    let young = make().await;
    assert_eq!(bench.broker.tidy(&bench.queue, AGE, LONG).await.unwrap(), 2);
    assert_eq!(bench.ids(State::Success).await, [young[1], young[0]]);
    assert_eq!(bench.counts().await.dead, 4);
    assert_eq!(bench.broker.tidy(&bench.queue, LONG, AGE).await.unwrap(), 2);
    for ulid in old {
        assert_eq!(bench.broker.get(&bench.id(ulid)).await.unwrap(), None);
    }
    let mut newest_first = [young[2], young[3]];
    newest_first.sort_by(|a, b| b.cmp(a));
    assert_eq!(bench.ids(State::Failure).await, newest_first);
    let counts = bench.counts().await;
    assert_eq!((counts.dead, counts.success_total, counts.failure_total), (2, 4, 4));
    moment().await;
    assert_eq!(bench.broker.tidy(&bench.queue, Duration::ZERO, Duration::ZERO).await.unwrap(), 4);
    assert_eq!(bench.broker.tidy(&bench.queue, Duration::ZERO, Duration::ZERO).await.unwrap(), 0);
    assert_eq!(bench.counts().await.dead, 0);
}

/// One call forgets a bounded number of each list, the oldest first.
pub async fn tidy_is_bounded(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(600).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        let held = bench.claim(100).await;
        order.extend(claimed_ulids(&held));
        let finishes = held.iter().map(|held| Finish { lease: held.lease, settle: done() }).collect();
        bench.exchange(finishes, None).await;
    }
    assert_eq!(order, ulids(&jobs));
    bench.enqueue_dead(10).await;
    let tidy = || bench.broker.tidy(&bench.queue, Duration::ZERO, Duration::ZERO);
    assert_eq!(tidy().await.unwrap(), TIDY_SLICE + 10);
    let left: Vec<Ulid> = order[TIDY_SLICE..].iter().rev().copied().collect();
    assert_eq!(bench.ids(State::Success).await, left);
    while tidy().await.unwrap() > 0 {}
    let counts = bench.counts().await;
    assert!(bench.ids(State::Success).await.is_empty());
    assert_eq!((counts.dead, counts.success_total, counts.failure_total), (0, 600, 10));
}
