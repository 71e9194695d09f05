//! What other processes do is heard here.

use std::time::{Duration, Instant};

use windlass_broker::{Control as _, Inspect as _, Leases as _, Wake};
use windlass_jobs::command::{Ack, Cancel};
use windlass_jobs::{JobId, Progress};

use super::Fixture;

const SOON: Duration = Duration::from_secs(2);

/// A cancel by another process reaches the worker once, whatever else is written.
#[tokio::test]
async fn a_cancel_by_another_process_is_heard() {
    let fixture = Fixture::new();
    let (mine, other) = (fixture.open().await, fixture.open().await);
    let mut wakes = mine.wakes("w").await;
    fixture.enqueue(&other, 3).await;
    for round in 0..2 {
        let held = fixture.claim(&mine, 1).await.remove(0);
        let id = JobId::new(held.lease.ulid, fixture.queue.clone());
        assert_eq!(other.cancel(&id).await.unwrap(), Cancel::Requested);
        // Others write on.
        fixture.enqueue(&other, 1).await;
        let mut heard = Vec::new();
        let begun = Instant::now();
        while heard.is_empty() && begun.elapsed() < SOON {
            if let Ok(Some(wake)) = tokio::time::timeout(SOON, wakes.recv()).await {
                heard.extend(matches!(wake, Wake::Cancel(..)).then_some(wake));
            }
        }
        assert_eq!(heard, [Wake::Cancel(fixture.queue.clone(), held.lease)], "round {round}");
        fixture.enqueue(&other, 1).await;
        tokio::time::sleep(Duration::from_millis(80)).await;
        while let Ok(wake) = wakes.try_recv() {
            assert!(!matches!(wake, Wake::Cancel(..)), "told twice");
        }
        let acks = mine.renew(&fixture.queue, &[held.lease], SOON).await.unwrap();
        assert_eq!(acks, [Ack::Cancel]);
        assert_eq!(fixture.finish(&mine, held.lease).await, Ack::Taken);
    }
}

/// A change by another process is told to who watches here, within 100 ms; a change by this
/// one without a tick of the clock.
#[tokio::test]
async fn a_watched_job_may_be_changed_elsewhere() {
    let fixture = Fixture::new();
    let (mine, other) = (fixture.open().await, fixture.open().await);
    let jobs = fixture.enqueue(&other, 2).await;
    let mut changes = mine.watch(&JobId::new(jobs[0].ulid, fixture.queue.clone())).await;
    let mut neighbour = mine.watch(&JobId::new(jobs[1].ulid, fixture.queue.clone())).await;
    let held = fixture.claim(&other, 1).await.remove(0);
    tokio::time::timeout(SOON, changes.recv()).await.expect("a claim elsewhere is told").unwrap();
    for percent in 1..=5_u8 {
        let progress = Progress::new(f32::from(percent), "");
        let broker = if percent % 2 == 0 { &mine } else { &other };
        broker.progress(&fixture.queue, held.lease, &progress).await.unwrap();
        tokio::time::timeout(SOON, changes.recv()).await.expect("progress is told").unwrap();
    }
    fixture.finish(&other, held.lease).await;
    tokio::time::timeout(SOON, changes.recv()).await.expect("the end is told").unwrap();
    assert!(neighbour.try_recv().is_err());
}

/// Nobody who stopped listening is kept in mind.
#[tokio::test]
async fn watching_ends_with_its_listener() {
    let fixture = Fixture::new();
    let broker = fixture.open().await;
    let jobs = fixture.enqueue(&broker, 1).await;
    let id = JobId::new(jobs[0].ulid, fixture.queue.clone());
    for _ in 0..100 {
        drop(broker.watch(&id).await);
    }
    let mut changes = broker.watch(&id).await;
    fixture.claim(&broker, 1).await;
    tokio::time::timeout(SOON, changes.recv()).await.expect("it is told").unwrap();
    drop(broker);
    assert_eq!(tokio::time::timeout(SOON, changes.recv()).await.expect("the stream ends with the broker"), None);
}
