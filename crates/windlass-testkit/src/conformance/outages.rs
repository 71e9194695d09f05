//! Workers that were cut off from the broker, and a broker that lost its data.

use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Claim, Settle};
use windlass_jobs::{Reason, State, Timestamp};

use super::{Bench, LONG, SHORT, claimed_ulids, done, moment};
use crate::wait_until;

/// A worker that had lost the broker holds back the end of all leases for one of its own, at
/// most once in three.
pub async fn grace_spares_leases(broker: SharedBroker) {
    const GRACE: Duration = Duration::from_millis(250);
    let bench = Bench::new(broker);
    let claim =
        |lease, grace| Some(Claim { worker: bench.worker.clone(), max: 1, lease, grace, sent_at: None, quotas: None });
    // Said of a queue without jobs, it is heard as well; the next bench has a queue of its own.
    let jobs = bench.enqueue_some(2).await;
    let lost = bench.claim_and_lose(1).await;
    let begun = bench.exchange(vec![], claim(GRACE, true)).await;
    assert_eq!(claimed_ulids(&begun.claimed), [jobs[1].ulid], "the lost one stays with its worker");
    assert_eq!(bench.finish(begun.claimed[0].lease, done()).await, Ack::Taken);
    let spared = begun.now.plus(GRACE);
    let mut ended_at = Timestamp::default();
    while ended_at == Timestamp::default() {
        let reply = bench.exchange(vec![], claim(SHORT, false)).await;
        if reply.claimed.is_empty() {
            assert_eq!(reply.next_lease.map(|at| at < spared), Some(true), "it is answered all the same");
            tokio::time::sleep(Duration::from_millis(5)).await;
        } else {
            assert_eq!(claimed_ulids(&reply.claimed), [lost[0].lease.ulid]);
            ended_at = reply.now;
        }
    }
    assert!(ended_at >= spared, "ended at {ended_at}, spared until {spared}");
    moment().await;
    let early = bench.exchange(vec![], claim(GRACE, true)).await;
    if early.now.since(begun.now) < GRACE * 3 {
        assert_eq!(early.claimed.len(), 1, "a second wish within three leases is not heard");
    }
    let rested = begun.now.plus(GRACE * 3);
    wait_until(Duration::from_secs(10), "three leases are over", || async {
        let lease = bench.exchange(vec![], None).await;
        lease.now >= rested
    })
    .await;
    let late = bench.exchange(vec![], claim(GRACE, true)).await;
    assert!(late.claimed.is_empty(), "after three leases it is heard again");
    assert_eq!(bench.counts().await.running, 1);
}

/// A worker that speaks after its lease was ended was alive: such a job is not taken for a
/// killer, however often that happens. Silent workers still make it one.
pub async fn a_live_worker_is_no_killer(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let ulid = bench.enqueue_some(1).await[0].ulid;
    let mut before = bench.claim_and_lose(1).await[0].lease;
    for round in 0..6 {
        let lost = bench.claim_and_lose(1).await;
        assert_eq!((lost[0].lease.ulid, lost[0].deliveries), (ulid, 2), "round {round}");
        let ack = match round % 3 {
            0 => bench.broker.renew(&bench.queue, &[before], LONG).await.unwrap()[0],
            1 => bench.finish(before, Settle::Release).await,
            _ => bench.finish(before, done()).await,
        };
        assert_eq!(ack, Ack::Stale);
        assert_eq!(bench.record(ulid).await.deliveries, 1, "round {round}");
        before = lost[0].lease;
    }
    // Nobody speaks any more.
    assert_eq!(bench.claim_and_lose(1).await[0].deliveries, 2);
    assert_eq!(bench.claim_and_lose(1).await[0].deliveries, 3);
    assert!(bench.claim(1).await.is_empty());
    let record = bench.record(ulid).await;
    assert_eq!((record.state, record.reason), (State::Failure, Some(Reason::Poisoned)));
    assert_eq!(bench.broker.renew(&bench.queue, &[before], LONG).await.unwrap(), [Ack::Stale]);
    assert_eq!(bench.record(ulid).await, record, "too late");
}

/// One lost delivery is taken off once, however often its worker speaks; an epoch that was
/// never lost takes nothing off.
pub async fn a_stale_word_counts_once(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let ulid = bench.enqueue_some(1).await[0].ulid;
    let first = bench.claim_and_lose(1).await[0].lease;
    let second = bench.exchange(vec![], bench.claim_of(1, LONG)).await.claimed[0].clone();
    assert_eq!(second.deliveries, 2);
    let mut never = first;
    never.epoch = 7;
    for _ in 0..2 {
        let acks = bench.broker.renew(&bench.queue, &[first, never, first, second.lease], LONG).await.unwrap();
        assert_eq!(acks, [Ack::Stale, Ack::Stale, Ack::Stale, Ack::Taken]);
        assert_eq!(bench.finish(first, done()).await, Ack::Stale);
        assert_eq!(bench.record(ulid).await.deliveries, 1);
    }
    assert_eq!(bench.finish(second.lease, Settle::Release).await, Ack::Taken);
    assert_eq!(bench.finish(second.lease, Settle::Release).await, Ack::Stale);
    assert_eq!(bench.record(ulid).await.deliveries, 0);
}

/// A queue says since when it has data, so that its loss is noticed.
pub async fn the_first_job_says_since_when(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let since = || async {
        let claimed = bench.exchange(vec![], bench.claim_of(0, LONG)).await.since;
        assert_eq!(bench.exchange(vec![], None).await.since, claimed);
        claimed
    };
    assert_eq!(since().await, None);
    let reply = bench.exchange(vec![], bench.claim_of(1, LONG)).await;
    assert_eq!((reply.since, reply.claimed.len()), (None, 0));
    let ulid = bench.enqueue_some(1).await[0].ulid;
    let first = since().await;
    assert_eq!(first, Some(bench.record(ulid).await.created_at));
    moment().await;
    bench.enqueue_some(1).await;
    let reply = bench.exchange(vec![], bench.claim_of(2, LONG)).await;
    assert_eq!((reply.since, reply.claimed.len()), (first, 2));
    for held in reply.claimed {
        bench.finish(held.lease, done()).await;
    }
    moment().await;
    bench.broker.tidy(&bench.queue, SHORT, SHORT).await.unwrap();
    assert_eq!(bench.broker.get(&bench.id(ulid)).await.unwrap(), None);
    assert_eq!(since().await, first);
}

/// A claim that lay before a stalled broker is not acted on: nobody waits for its answer, and on
/// its word the leases of workers that could not renew would be ended.
pub async fn a_late_claim_is_not_heard(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(2).await;
    let held = bench.claim_and_lose(1).await;
    let claim =
        |sent_at| Claim { worker: bench.worker.clone(), max: 1, lease: LONG, grace: false, sent_at, quotas: None };
    let now = bench.exchange(Vec::new(), None).await.now;
    let ask = async |ago: Duration| {
        let sent_at = Timestamp(now.0 - windlass_jobs::millis(ago));
        bench.exchange(Vec::new(), Some(claim(Some(sent_at)))).await
    };
    let late = ask(claim(None).patience() + Duration::from_secs(1)).await;
    assert!(late.claimed.is_empty());
    assert_eq!(late.next_due, Some(late.now), "ask again at once");
    assert_eq!(bench.finish(held[0].lease, done()).await, Ack::Taken, "its lease was not ended");
    assert_eq!(ask(Duration::ZERO).await.claimed.len(), 1);
}
