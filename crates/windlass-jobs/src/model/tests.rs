//! The specification's own promises.

use super::*;
use crate::job::NewJob;

fn queue() -> Queue {
    Queue::new("q").unwrap()
}

fn claim(max: usize) -> Exchange {
    Exchange {
        finishes: vec![],
        claim: Some(Claim {
            worker: "w".into(),
            max,
            lease: Duration::from_secs(30),
            grace: false,
            sent_at: None,
            quotas: None,
        }),
    }
}

fn jobs(n: usize) -> Vec<NewJob> {
    (0..n).map(|i| NewJob::new("noop", &i).unwrap()).collect()
}

#[test]
fn a_stale_epoch_is_refused_alone() {
    let mut model = Model::new(queue());
    model.enqueue(&jobs(2), Timestamp(0)).unwrap();
    let (first, _) = model.exchange(&claim(2), Timestamp(0));
    // Both leases expire; both jobs are claimed again.
    let (second, _) = model.exchange(&claim(1), Timestamp(40_000));
    assert_eq!(second.claimed[0].lease.epoch, 2);
    let done = |lease| Finish { lease, settle: Settle::Success { result: None, skipped: false } };
    let finishes = vec![done(first.claimed[0].lease), done(second.claimed[0].lease), done(first.claimed[1].lease)];
    let (reply, _) = model.exchange(&Exchange { finishes, claim: None }, Timestamp(40_001));
    assert_eq!(reply.acks, [Ack::Stale, Ack::Taken, Ack::Stale]);
}

#[test]
fn a_job_whose_lease_expires_three_times_is_poisoned() {
    let mut model = Model::new(queue());
    model.enqueue(&jobs(1), Timestamp(0)).unwrap();
    for run in 0..3 {
        let (reply, _) = model.exchange(&claim(1), Timestamp(run * 30_000));
        assert_eq!(reply.claimed.len(), 1);
    }
    let (reply, _) = model.exchange(&claim(1), Timestamp(90_000));
    assert!(reply.claimed.is_empty());
    let record = model.get(model.dead.first().unwrap().1).unwrap();
    assert_eq!((record.state, record.reason), (State::Failure, Some(Reason::Poisoned)));
}

#[test]
fn a_release_costs_neither_attempt_nor_delivery_and_keeps_the_order() {
    let mut model = Model::new(queue());
    let all = jobs(4);
    model.enqueue(&all, Timestamp(0)).unwrap();
    for _ in 0..10 {
        let (reply, _) = model.exchange(&claim(3), Timestamp(0));
        let order: Vec<Ulid> = reply.claimed.iter().map(|c| c.lease.ulid).collect();
        assert_eq!(order, all[..3].iter().map(|j| j.ulid).collect::<Vec<_>>());
        assert!(reply.claimed.iter().all(|c| c.deliveries == 1 && c.failures == 0));
        let finishes = reply.claimed.iter().map(|c| Finish { lease: c.lease, settle: Settle::Release }).collect();
        model.exchange(&Exchange { finishes, claim: None }, Timestamp(0));
    }
}
