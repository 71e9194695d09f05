//! The model itself, as the broker for tests: what the suite asks is what the model does.

use std::sync::Arc;

use windlass_broker::{Enqueue as _, Leases as _, SharedBroker};
use windlass_jobs::command::Exchange;
use windlass_jobs::{Clock as _, NewJob, SetClock, SystemClock, Timestamp};
use windlass_testkit::ModelBroker;

async fn model(keep: usize) -> (SharedBroker, ()) {
    (Arc::new(ModelBroker::keeping(Arc::new(SystemClock), keep)), ())
}

async fn with_clock(keep: usize, clock: Arc<SetClock>) -> (SharedBroker, ()) {
    (Arc::new(ModelBroker::keeping(clock, keep)), ())
}

windlass_testkit::conformance!(model, random = 1_000);
windlass_testkit::random_with_clock!(with_clock, 5_000);

/// A broker that lost its data says so by `since`.
#[tokio::test]
async fn lost_data_is_noticed() {
    let clock = Arc::new(SetClock::new(Timestamp(1_000)));
    let broker = ModelBroker::new(clock.clone());
    let queue = windlass_testkit::unique_queue("lost");
    let since = || async { broker.exchange(&queue, &Exchange::default()).await.unwrap().since };
    broker.enqueue(&queue, &[NewJob::new("noop", &()).unwrap()]).await.unwrap();
    assert_eq!(since().await, Some(Timestamp(1_000)));
    broker.lose_everything();
    assert_eq!(since().await, None);
    clock.advance(std::time::Duration::from_secs(1));
    broker.enqueue(&queue, &[NewJob::new("noop", &()).unwrap()]).await.unwrap();
    assert_eq!(since().await, Some(clock.now()));
}
