//! Many jobs, many workers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Counts, Finish, Settle};
use windlass_jobs::{JobId, Reason, State, Ulid, When};

use super::{Bench, LONG, SHORT, claimed_ulids, done, error_text, some_jobs, ulids};

/// 20,000 jobs wait, half of them due all at once, before the first worker comes. apalis-redis
/// 1.0.0 stops for good at 8,000 due jobs.
pub async fn many_waiting_before_the_first_claim(broker: SharedBroker) {
    const ALL: u64 = 20_000;
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(usize::try_from(ALL).unwrap());
    for job in jobs.iter_mut().step_by(2) {
        job.when = When::After(SHORT);
    }
    for slice in jobs.chunks(5_000) {
        bench.enqueue(slice).await;
    }
    super::moment().await;
    let begun = Instant::now();
    let mut finishes = Vec::new();
    while left(&bench, &finishes).await > 0 {
        let reply = bench.exchange(finishes, bench.claim_of(128, LONG)).await;
        assert!(reply.acks.iter().all(|ack| *ack == Ack::Taken));
        finishes = reply.claimed.iter().map(|c| Finish { lease: c.lease, settle: done() }).collect();
        assert!(begun.elapsed() < Duration::from_secs(60), "the drain does not end");
    }
    assert_eq!(bench.counts().await, Counts { enqueued_total: ALL, success_total: ALL, ..Counts::default() });
}

/// What is left to do; asked only when nothing is at hand.
async fn left(bench: &Bench, finishes: &[Finish]) -> u64 {
    if finishes.is_empty() { bench.counts().await.unfinished() } else { 1 }
}

/// Eight workers drain 2,000 jobs; none is handed out twice, none is left.
pub async fn concurrent_workers_take_each_job_once(broker: SharedBroker) {
    let bench = Arc::new(Bench::new(broker));
    let jobs = bench.enqueue_some(2_000).await;
    let worker = |n: usize| {
        let bench = Bench { broker: bench.broker.clone(), queue: bench.queue.clone(), worker: format!("w{n}") };
        async move {
            let (mut mine, mut finishes) = (Vec::new(), Vec::new());
            loop {
                let reply = bench.exchange(finishes, bench.claim_of(16, LONG)).await;
                assert!(reply.acks.iter().all(|ack| *ack == Ack::Taken));
                if reply.claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed_ulids(&reply.claimed));
                finishes = reply.claimed.iter().map(|c| Finish { lease: c.lease, settle: done() }).collect();
            }
        }
    };
    let tasks: Vec<_> = (0..8).map(|n| tokio::spawn(worker(n))).collect();
    let mut taken: Vec<Ulid> = Vec::new();
    for task in tasks {
        taken.extend(task.await.unwrap());
    }
    assert_eq!(taken.len(), jobs.len());
    assert_eq!(taken.into_iter().collect::<HashSet<_>>(), ulids(&jobs).into_iter().collect());
    assert_eq!(bench.counts().await, Counts { enqueued_total: 2_000, success_total: 2_000, ..Counts::default() });
}

/// Terminal jobs over the bound leave, oldest first; the broker keeps `keep` of each list.
pub async fn retention_keeps_the_newest(broker: SharedBroker, keep: usize) {
    let bench = Bench::new(broker);
    let (mut done_jobs, mut dead_jobs) = (Vec::new(), Vec::new());
    for round in 0..4 {
        let mut jobs = some_jobs(4);
        jobs[0].args = serde_json::value::to_raw_value(&"x".repeat(100_000)).unwrap();
        bench.enqueue(&jobs).await;
        let claimed = bench.claim(4).await;
        let finishes = claimed.iter().enumerate().map(|(i, claimed)| {
            let settle = match i % 2 {
                0 => Settle::Success { result: Some("1".repeat(1_000 * round + 1)), skipped: false },
                _ => Settle::Failure { reason: Reason::Error, failures: 1, error: error_text("no") },
            };
            Finish { lease: claimed.lease, settle }
        });
        bench.exchange(finishes.collect(), None).await;
        done_jobs.extend([jobs[0].ulid, jobs[2].ulid]);
        dead_jobs.extend([jobs[1].ulid, jobs[3].ulid]);
    }
    for (state, jobs) in [(State::Success, done_jobs), (State::Failure, dead_jobs)] {
        let (gone, kept) = jobs.split_at(jobs.len() - keep);
        let newest_first: Vec<Ulid> = kept.iter().rev().copied().collect();
        assert_eq!(bench.broker.list(&bench.queue, state, 0, 100).await.unwrap().ids, newest_first);
        for ulid in gone {
            let id = JobId::new(*ulid, bench.queue.clone());
            assert_eq!(bench.broker.get(&id).await.unwrap(), None, "{state}");
        }
        for ulid in kept {
            assert_eq!(bench.record(*ulid).await.state, state);
        }
    }
    let counts = bench.counts().await;
    assert_eq!((counts.success_total, counts.failure_total, counts.dead), (8, 8, keep as u64));
}
