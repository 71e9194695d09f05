//! While jobs wait and a worker is idle, somebody is woken.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use windlass_broker::{SharedBroker, Wake};
use windlass_jobs::command::{Claim, Exchange, Exchanged, Settle};
use windlass_jobs::{NewJob, When, new_ulid};

use super::{Bench, LONG, some_jobs};

/// How long a wake-up may take; over Redis 0.3 ms is usual.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// Nothing more comes when nothing came for this long.
pub(super) const QUIET: Duration = Duration::from_millis(60);

/// A worker that listens and whose last claim found nothing.
pub(super) struct Idle<'a> {
    bench: &'a Bench,
    name: String,
    wakes: UnboundedReceiver<Wake>,
}

impl<'a> Idle<'a> {
    pub(super) async fn new(bench: &'a Bench) -> Self {
        let name = new_ulid().to_string();
        let wakes = bench.broker.wakes(&name).await;
        let mut idle = Self { bench, name, wakes };
        idle.rest().await;
        idle
    }

    /// Claims nothing, and sees all wake-ups before that.
    async fn rest(&mut self) {
        loop {
            let reply = self.claim(1).await;
            assert!(reply.claimed.is_empty(), "nothing waits while workers come to rest");
            if tokio::time::timeout(QUIET, self.wakes.recv()).await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn claim(&self, max: usize) -> Exchanged {
        let claim =
            Some(Claim { worker: self.name.clone(), max, lease: LONG, grace: false, sent_at: None, quotas: None });
        self.bench.broker.exchange(&self.bench.queue, &Exchange { finishes: vec![], claim }).await.unwrap()
    }

    pub(super) async fn is_woken(&mut self, why: &str) {
        let wake = tokio::time::timeout(SOON, self.wakes.recv()).await;
        let wake = wake.unwrap_or_else(|_| panic!("not woken within {SOON:?}: {why}")).expect("the stream stays open");
        assert!(wake == Wake::All || wake == Wake::Queue(self.bench.queue.clone()), "{wake:?}");
    }
}

/// A worker that found nothing is told when a job comes, every time.
pub async fn an_enqueue_wakes_an_idle_worker(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut idle = Idle::new(&bench).await;
    for round in 0..3 {
        bench.enqueue_some(1).await;
        idle.is_woken(&format!("enqueue {round}")).await;
        assert_eq!(idle.claim(1).await.claimed.len(), 1);
        idle.rest().await;
    }
}

/// A job for later wakes a worker too, which then sets a timer for it.
pub async fn a_scheduled_job_wakes(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut idle = Idle::new(&bench).await;
    let mut jobs = some_jobs(1);
    jobs[0].when = When::After(LONG);
    bench.enqueue(&jobs).await;
    idle.is_woken("a scheduled job").await;
    assert_eq!(idle.claim(1).await.next_due, bench.record(jobs[0].ulid).await.run_at);
}

/// Jobs that a claim promotes and leaves wake another worker.
pub async fn jobs_left_over_wake_another(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(3);
    for job in &mut jobs {
        job.when = When::After(Duration::from_millis(700));
    }
    bench.enqueue(&jobs).await;
    let mut idle = Idle::new(&bench).await;
    tokio::time::sleep(Duration::from_millis(750)).await;
    assert_eq!(bench.claim(1).await.len(), 1);
    idle.is_woken("two promoted jobs are left over").await;
    assert_eq!(idle.claim(5).await.claimed.len(), 2);
}

/// A job that is given back wakes another worker.
pub async fn a_release_wakes(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(1).await;
    let held = bench.claim_one().await;
    let mut idle = Idle::new(&bench).await;
    bench.finish(held.lease, Settle::Release).await;
    idle.is_woken("a released job").await;
    assert_eq!(idle.claim(1).await.claimed.len(), 1);
}

/// A worker that is woken and has no slot left passes it on to another idle one.
pub async fn a_wake_up_without_slots_is_passed_on(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let (mut a, mut b) = (Idle::new(&bench).await, Idle::new(&bench).await);
    bench.enqueue_some(1).await;
    let first_is_a = tokio::select! {
        wake = a.wakes.recv() => { assert!(wake.is_some()); true }
        wake = b.wakes.recv() => { assert!(wake.is_some()); false }
        () = tokio::time::sleep(SOON) => panic!("nobody was woken by the enqueue"),
    };
    let (woken, other) = if first_is_a { (&mut a, &mut b) } else { (&mut b, &mut a) };
    assert!(woken.claim(0).await.claimed.is_empty());
    other.is_woken("the first one had no slot").await;
    assert_eq!(other.claim(1).await.claimed.len(), 1);
}

/// A due time is passed on too: the worker that is woken for a scheduled job may have no slot
/// to wait for it with.
pub async fn a_due_time_is_passed_on(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let (mut a, mut b) = (Idle::new(&bench).await, Idle::new(&bench).await);
    bench.enqueue(&[NewJob { when: When::After(LONG), ..some_jobs(1).remove(0) }]).await;
    let first_is_a = tokio::select! {
        wake = a.wakes.recv() => { assert!(wake.is_some()); true }
        wake = b.wakes.recv() => { assert!(wake.is_some()); false }
        () = tokio::time::sleep(SOON) => panic!("nobody was woken by the enqueue"),
    };
    let (woken, other) = if first_is_a { (&mut a, &mut b) } else { (&mut b, &mut a) };
    woken.claim(0).await;
    other.is_woken("the first one had no slot").await;
    assert!(other.claim(1).await.next_due.is_some());
}
