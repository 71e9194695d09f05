//! Who is told what: canaries and watched jobs.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use windlass_broker::{SharedBroker, Wake};
use windlass_jobs::command::Ack;
use windlass_jobs::{Progress, new_ulid};

use super::wakes::{QUIET, SOON};
use super::{Bench, done, failure};

/// What is said about a change may be as late as this.
const LATE: Duration = Duration::from_millis(150);

/// A worker's token comes back on its own stream, and on no other.
pub async fn a_canary_comes_back(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut own = bench.broker.wakes(&bench.worker).await;
    let mut other = bench.broker.wakes(&new_ulid().to_string()).await;
    for token in ["first", "t0ken-2"] {
        bench.broker.canary(&bench.worker, token).await.unwrap();
        let heard = async {
            loop {
                match own.recv().await {
                    Some(Wake::Canary(heard)) => return heard,
                    Some(_) => {}
                    None => panic!("the stream ended"),
                }
            }
        };
        assert_eq!(tokio::time::timeout(SOON, heard).await.expect("the token comes back"), token);
    }
    bench.broker.canary("nobody", "x").await.unwrap();
    while let Ok(Some(wake)) = tokio::time::timeout(QUIET, other.recv()).await {
        assert!(!matches!(wake, Wake::Canary(_)), "{wake:?}");
    }
}

/// Whoever watches a job is told of its changes, not of those of its neighbours.
pub async fn a_watched_job_is_told_of(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(2).await;
    let (other, watched) = (jobs[0].ulid, jobs[1].ulid);
    let mut changes = bench.broker.watch(&bench.id(watched)).await;
    let mut second = bench.broker.watch(&bench.id(watched)).await;
    let mut unknown = bench.broker.watch(&bench.id(new_ulid())).await;
    quiet(&mut changes).await;
    quiet(&mut unknown).await;

    let neighbour = bench.claim_one().await;
    assert_eq!(neighbour.lease.ulid, other);
    bench.broker.progress(&bench.queue, neighbour.lease, &Progress::new(1.0, "x")).await.unwrap();
    bench.finish(neighbour.lease, done()).await;
    assert!(tokio::time::timeout(LATE, changes.recv()).await.is_err(), "a neighbour is no news");

    let held = bench.claim_one().await;
    told(&mut changes, "its claim").await;
    told(&mut second, "its claim, to another listener").await;
    drop(second);
    let progress = Progress::new(50.0, "half");
    assert_eq!(bench.broker.progress(&bench.queue, held.lease, &progress).await.unwrap(), Ack::Taken);
    told(&mut changes, "its progress").await;
    bench.finish(held.lease, failure()).await;
    told(&mut changes, "its end").await;
    bench.broker.replay(&bench.queue, &[watched]).await.unwrap();
    told(&mut changes, "its replay").await;
    bench.cancel(watched).await;
    told(&mut changes, "its cancel").await;
    bench.broker.delete(&bench.queue, &[watched]).await.unwrap();
    told(&mut changes, "its delete").await;
    assert!(unknown.try_recv().is_err());
}

/// Waits until something is said, and until all of it is.
async fn told(changes: &mut UnboundedReceiver<()>, of: &str) {
    let said = tokio::time::timeout(SOON, changes.recv()).await;
    said.unwrap_or_else(|_| panic!("nothing was said of {of}")).expect("the stream stays open");
    quiet(changes).await;
}

/// Waits until nothing is said for a while.
async fn quiet(changes: &mut UnboundedReceiver<()>) {
    while tokio::time::timeout(QUIET, changes.recv()).await.is_ok() {}
}
