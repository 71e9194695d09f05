//! Waiting for a condition, and names that no other test uses.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

use windlass_jobs::{Queue, new_ulid};

/// A queue of its own for a test: `<prefix>-<ulid in lower case>`.
///
/// # Panics
/// When the prefix does not fit the grammar of a queue, or is longer than 37 bytes.
#[must_use]
pub fn unique_queue(prefix: &str) -> Queue {
    let name = format!("{prefix}-{}", new_ulid().to_string().to_ascii_lowercase());
    Queue::new(&name).expect("a test's prefix fits the grammar of a queue")
}

/// Waits until `condition` answers true, asking every 5 ms.
///
/// # Panics
/// When that takes longer than `timeout`: names `what` and the caller.
#[track_caller]
pub fn wait_until<C, F>(timeout: Duration, what: &str, mut condition: C) -> impl Future<Output = ()>
where
    C: FnMut() -> F,
    F: Future<Output = bool>,
{
    let caller = Location::caller();
    async move {
        let begun = Instant::now();
        while !condition().await {
            assert!(begun.elapsed() < timeout, "{caller}: not within {timeout:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
